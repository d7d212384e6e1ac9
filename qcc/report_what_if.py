"""What the outputs would gain if one tensor, or the weights of one layer, stayed in float."""

from __future__ import annotations

import math
import time
from typing import Any

from qcc.driver import Compilation, Progress
from qcc.float_runtime import FloatRuntime
from qcc.ir.graph import Graph, Value
from qcc.report_errors import Noise, TensorErrors, computed_values, decibels, samples_measured

RESTORED_SAMPLES = 4  # that each restoration is tried on, at least


def what_if(
    made: Compilation,
    errors: list[TensorErrors],
    seconds: float,
    progress: Progress = lambda what, done, total: None,
) -> dict[str, Any]:
    """The SQNR of the outputs when one tensor, or the weights of one layer, stay in float: largest errors first.

    By fake-quant runs on kept samples, until ``seconds`` have passed; what was not reached is listed.
    """
    annotated, calibrated = made.annotated, made.calibrated
    if annotated is None or calibrated is None or not errors:
        return {}
    count = max(samples_measured(made), min(RESTORED_SAMPLES, len(next(iter(made.samples.values())))))
    samples = {name: array[:count] for name, array in made.samples.items()}
    reference = FloatRuntime(calibrated).run(samples)

    def sqnr_db(graph: Graph) -> float | None:
        results = FloatRuntime(graph, fake_quant=True).run(samples)
        noises = {name: Noise() for name in reference}
        for name, noise in noises.items():
            noise.add(reference[name], results[name])
        ratios = [n.noise / n.signal if n.signal else n.noise for n in noises.values()]
        return decibels(sum(ratios) / len(ratios))

    start, base = time.monotonic(), sqnr_db(annotated)
    suspects = _suspects(errors)
    evaluated = []
    for number, (_, what, name) in enumerate(suspects):
        if time.monotonic() - start > seconds:
            break
        restored = sqnr_db(_restored(annotated, calibrated, what, name))
        gain = None if base is None or restored is None else restored - base
        evaluated.append({"tensor": name, "what": what, "sqnr_db": restored, "gain_db": gain})
        progress("restoring tensors", number + 1, len(suspects))
    evaluated.sort(key=lambda e: -math.inf if e["gain_db"] is None else e["gain_db"], reverse=True)
    left = [{"tensor": name, "what": what} for _, what, name in suspects[len(evaluated) :]]
    return {
        "sqnr_db": base,
        "samples": count,
        "budget_seconds": seconds,
        "evaluated": evaluated,
        "not_evaluated": left,
    }


def _suspects(errors: list[TensorErrors]) -> list[tuple[float, str, str]]:
    """(noise over signal, "tensor" or "weights", name), the largest first."""
    found = []
    for e in errors:
        for what, noise in (("tensor", e.local), ("weights", e.weights)):
            if noise is not None and noise.noise:
                found.append((noise.noise / (noise.signal or 1.0), what, e.value.name))
    return sorted(found, key=lambda s: -s[0])


def _restored(annotated: Graph, calibrated: Graph, what: str, name: str) -> Graph:
    """``annotated`` without the qparams of one value and what shares them, or with the float weights of one layer."""
    graph = annotated.clone()
    value = next(v for v in computed_values(graph) if v.name == name)
    if what == "tensor":
        for tied in _tied(value):
            tied.type = tied.type.with_qparams(None)
        return graph
    node = value.producer
    while node is not None and node.op.quant_rule().weight is None:
        node = next(v.producer for v in node.inputs if v is not None and v.fused)
    assert node is not None
    twin = next(n for n in calibrated.nodes if n.name == node.name)
    for index, original in enumerate(twin.inputs):
        if original is not None and original.data is not None:
            graph.set_input(node, index, graph.constant(original.data, original.name, original.type))
    return graph


def _tied(value: Value) -> list[Value]:
    """``value`` and those that ops which only move elements tie to it: they hold the same numbers."""
    found, pending = {id(value): value}, [value]
    while pending:
        current = pending.pop()
        nodes = [n for n in (current.producer, *current.users) if n is not None and n.op.quant_rule().shares]
        for near in (v for n in nodes for v in (*n.inputs, n.output)):
            if near is not None and near.data is None and id(near) not in found:
                found[id(near)] = near
                pending.append(near)
    return list(found.values())
