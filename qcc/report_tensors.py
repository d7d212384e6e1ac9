"""The part of the report about tensors: ranges, histograms, errors and their causes, as plain data."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from qcc import report_changes, report_errors
from qcc.backends.c.names import short_names
from qcc.driver import Compilation
from qcc.ir.graph import Node, Value
from qcc.passes.statistics import TensorStatistics
from qcc.report_errors import Noise, TensorErrors
from qcc.report_what_if import what_if

BINS = 64
WORST = 5  # in the summary
_GAIN = re.compile(r"SQNR (-?[\d.]+|inf) dB (?:becomes|would become) (-?[\d.]+|inf) dB")


def tensors_of(made: Compilation, progress: Callable[[str, int, int], None]) -> dict[str, Any]:
    """Sections ``tensors``, ``graph``, ``what_if`` and ``corrections`` of the report; see docs/guide.md."""
    if made.annotated is None:
        return {
            "tensors": [],
            "worst": [],
            "equalized_channels": {},
            "absorbed_channels": {},
            "otherwise_changed": [],
            "graph": [],
            "what_if": None,
            "corrections": [],
        }
    errors = report_errors.measure(made, progress)
    labels = short_names([e.value.name for e in errors])
    tensors = [_tensor(e, made, labels[e.value.name]) for e in errors]
    seconds, changed = made.options.analyze, report_changes.changes(made)
    return {
        "tensors": tensors,
        "worst": [t["tensor"] for t in worst(tensors)],
        "equalized_channels": {name: a.tolist() for name, a in changed.factors.items()},
        "absorbed_channels": {name: a.tolist() for name, a in changed.offsets.items()},
        "otherwise_changed": changed.others,
        "graph": _graph(made),
        "what_if": what_if(made, errors, seconds, progress) if seconds and errors else None,
        "corrections": corrections(made),
    }


def worst(tensors: Sequence[dict[str, Any]], count: int = WORST) -> list[dict[str, Any]]:
    """Those whose own quantization, with that of the weights before them, adds most noise for their signal."""

    def own(tensor: dict[str, Any]) -> float:
        error = tensor["error"]
        return float((error["rounding"] + error["clipping"] + (error["weights"] or 0)) / error["signal"])

    return sorted((t for t in tensors if t["error"]["signal"]), key=own, reverse=True)[:count]


def corrections(made: Compilation) -> list[dict[str, Any]]:
    """What passes that are kept only where they help did to the SQNR of the outputs, in dB, or why there is no such number."""
    found = []
    for name, note in made.notes:
        gain = _GAIN.search(note.reason)
        before, after = (None if g == "inf" else float(g) for g in gain.groups()) if gain else (None, None)
        entry = {
            "pass": note.rule if gain else name,
            "applied": note.applied,
            "before_db": before,
            "after_db": after,
        }
        if gain:
            found.append(entry | {"reason": None})
        elif note.rule == name and name in made.options.chosen_corrections:
            found.append(entry | {"reason": note.reason})
    return found


def _tensor(errors: TensorErrors, made: Compilation, label: str) -> dict[str, Any]:
    value = errors.value
    qparams = value.type.qparams
    assert qparams is not None
    collected = made.statistics.tensors.get(value.name) if made.statistics is not None else None
    everything = collected is not None and collected.counts.size > 0
    seen = collected if collected is not None and everything else errors.seen
    extremes = collected or errors.seen
    noises: dict[str, Noise | None] = {
        "local": errors.local,
        "weights": errors.weights,
        "simulated": errors.simulated,
        "requantization": errors.requantization,
        "cumulative": errors.cumulative,
    }
    count = max(1, errors.elements)
    return {
        "tensor": value.name,
        "label": label,
        "dtype": qparams.dtype,
        "shape": list(value.type.shape),
        "seen": [extremes.min, extremes.max],
        "range": list(value.range) if value.range is not None else None,
        "codes_range": list(qparams.range),
        "scale": qparams.scale[0],
        "zero_point": qparams.zero_point,
        "histogram": {"of": "calibration" if everything else "kept samples", **_histogram(seen)},
        "sqnr_db": {name: noise.sqnr_db if noise is not None else None for name, noise in noises.items()},
        "error": {
            "signal": errors.signal / count,
            "rounding": errors.rounding / count,
            "clipping": errors.clipping / count,
            **{n: x.noise / max(1, x.elements) if x is not None else None for n, x in noises.items()},
        },
        "clipped": errors.clipped / count,
    }


def _histogram(seen: TensorStatistics) -> dict[str, Any]:
    """BINS equal bins over all that was seen."""
    low, high = seen.min, seen.max
    if not low < high:
        return {"low": low, "high": high, "counts": [int(seen.counts.sum())]}
    centres, counts = seen.bins()
    binned, _ = np.histogram(centres, BINS, (low, high), weights=counts)
    return {"low": low, "high": high, "counts": binned.astype(np.int64).tolist()}


def _graph(made: Compilation) -> list[dict[str, Any]]:
    """Every materialized value in order: the ops that make it and the values these read."""
    assert made.annotated is not None
    graph = made.annotated
    shown = [*graph.inputs, *(n.output for n in graph.nodes if not n.output.fused)]
    labels = short_names([v.name for v in shown])
    found = []
    for value in shown:
        ops, sources = _made_from(value.producer)
        found.append(
            {
                "tensor": value.name,
                "label": labels[value.name],
                "ops": ops or ["input"],
                "inputs": [v.name for v in sources],
            }
        )
    return found


def _made_from(node: Node | None) -> tuple[list[str], list[Value]]:
    """Ops of ``node`` and of the fused ones before it, first things first, and the materialized operands of all."""
    if node is None:
        return [], []
    ops: list[str] = []
    sources: dict[int, Value] = {}
    for value in node.inputs:
        if value is None or value.is_constant:
            continue
        if value.fused:
            inner, read = _made_from(value.producer)
            ops += [op for op in inner if op not in ops]
            sources |= {id(v): v for v in read}
        else:
            sources[id(value)] = value
    return [*ops, node.op.name], list(sources.values())
