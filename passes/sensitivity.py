"""What each tensor's 8 bits, and each layer's quantized weights, cost the outputs, and what wider ones would."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from qcc.ir import fixedpoint, interpreter
from qcc.ir.graph import Graph, Node, Value
from qcc.ir.lowering import with_fused
from qcc.ir.qparams import QParams
from qcc.ir.qspec import QSpec
from qcc.passes.base import PassContext
from qcc.passes.graph_error import OF_SAMPLES, Arrays, GraphError
from qcc.passes.layerwise import sample_count

_MACS = 2e9  # of the samples, in each run of the graph
_LOOKED_AT = 4  # samples that predictions come from


@dataclass(frozen=True)
class Restoration:
    """A way to take less away: tensors that share one scale in 16 bits, or one node, with what is fused to it, in float.

    ``name``: what choose-qparams is told, the last of ``values``, or the node.
    """

    to: Literal["int16", "float"]
    name: str
    values: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cost:
    """``macs``: multiply-accumulates, each counted once for every 8 bits of the widest operand or result of its layer;
    ``bytes``: of all activations and weights."""

    macs: int
    bytes: int

    @property
    def total(self) -> int:
        """One number to compare by: a byte, which is written and read, counts as one MAC of 8 bits."""
        return self.macs + self.bytes

    def __sub__(self, other: Cost) -> Cost:
        return Cost(self.macs - other.macs, self.bytes - other.bytes)


@dataclass(frozen=True)
class Sensitivity:
    """Noise over signal: ``local``, of the tensor or the weights by themselves; of the outputs, ``alone``, when nothing
    else is quantized, and ``restored``, when all but this is (None where it was not asked for).

    ``measured``: or else ``alone`` is a prediction. ``added``: what the restoration costs, by itself.
    """

    restoration: Restoration
    local: float
    alone: float
    measured: bool
    added: Cost
    restored: float | None = None


@dataclass(frozen=True)
class Sensitivities:
    """``noise``: over signal of the outputs as they are, on ``samples``; ``found``: the largest effect first."""

    noise: float
    samples: int
    found: tuple[Sensitivity, ...]


def restorations(
    annotated: Graph, calibrated: Graph, keep: frozenset[str] = frozenset()
) -> list[Restoration]:
    """All there are, in the order of the graph: 16 bits for tensors, float for layers with constant weights.

    ``calibrated``: the graph before qparams were chosen; what has some there was quantized by the model, and stays.
    ``keep``: names of values whose type must stay, with all that share it.
    """
    own = {v.name for v in _computed(calibrated) if v.type.qparams is not None}
    found, seen = [], set[str]()
    for value in _computed(annotated):
        qparams = value.type.qparams
        if value.name in seen or qparams is None or qparams.dtype != "s8":
            continue
        group = _tied(annotated, value)
        seen.update(group)
        if not (own | keep) & {*group}:
            found.append(Restoration("int16", group[-1], group))
    twins = {n.name: n for n in calibrated.nodes}
    for node in annotated.nodes:
        weight = _weight(node)
        if weight is not None and weight.type.qparams is not None:
            before = _weight(twins[node.name])
            if before is not None and before.type.qparams is None:
                found.append(Restoration("float", node.name))
    return found


def restore(graph: Graph, calibrated: Graph, chosen: Restoration) -> None:
    """Apply ``chosen`` to an annotated graph, in place; all else keeps the qparams and constants it has."""
    if chosen.to == "int16":
        for value in _computed(graph):
            if value.name in chosen.values:
                value.type = value.type.with_qparams(_wide(value))
        return
    node, twin = (next(n for n in g.nodes if n.name == chosen.name) for g in (graph, calibrated))
    _copy_constants(twin, graph, node)


def quantize_alone(calibrated: Graph, annotated: Graph, chosen: Restoration) -> Graph:
    """``calibrated`` with nothing quantized but what ``chosen`` would restore."""
    graph = calibrated.clone()
    if chosen.to == "int16":
        qparams = {v.name: v.type.qparams for v in _computed(annotated)}
        for value in _computed(graph):
            if value.name in chosen.values:
                value.type = value.type.with_qparams(qparams[value.name])
        return graph
    node, twin = (next(n for n in g.nodes if n.name == chosen.name) for g in (graph, annotated))
    _copy_constants(twin, graph, node)
    return graph


def cost_of(annotated: Graph) -> Cost:
    """The work and the memory of an annotated graph, by the types its values have."""
    macs = size = 0
    for node in annotated.nodes:
        weight = _weight(node)
        if weight is not None:
            size += weight.type.elements * _width(weight)
        if node.output.fused:
            continue
        chain = with_fused(node)
        read = [v for n in chain for v in n.inputs if v is not None and not v.fused and _is_held(v)]
        width = max(map(_width, (*read, node.output)))
        macs += width * sum(n.op.macs(n.signature) for n in chain)
    size += sum(v.type.elements * _width(v) for v in _computed(annotated) if not v.fused)
    return Cost(macs, size)


def sensitivities(
    annotated: Graph,
    calibrated: Graph,
    found: list[Restoration],
    ctx: PassContext,
    most: int = 64,
    both: bool = False,
) -> Sensitivities:
    """Measure the ``most`` of ``found`` with the largest noise of their own, by fake-quant runs, and predict the rest.

    The prediction: that noise, times the median of what the others' became at the outputs. ``both``: also measure
    ``restored``. Reads ctx.resources as GraphError does: there must be ``correction_samples``, and no qparams of the
    model's own; ``observer_factory`` (optional), see GraphStatistics.
    """
    samples: Arrays = ctx.resources["correction_samples"]
    samples = {name: a[: sample_count(calibrated, a, _MACS)] for name, a in samples.items()}
    own = {n: r for n, r in ctx.resources.items() if n not in OF_SAMPLES}
    error = GraphError.of(calibrated, PassContext(own | {"correction_samples": samples}))
    assert error is not None
    local = _local_noise(calibrated, annotated, found, samples, ctx)
    ranked = sorted(found, key=lambda r: -local[r])
    alone, restored = dict[Restoration, float](), dict[Restoration, float]()
    for number, chosen in enumerate(ranked[:most], 1):
        alone[chosen] = error.noise(quantize_alone(calibrated, annotated, chosen))
        if both:
            restored[chosen] = error.noise(_restored(annotated, calibrated, chosen))
        ctx.progress("measuring sensitivities", number, len(ranked[:most]))
    typical = median([noise / local[r] for r, noise in alone.items() if local[r] > 0] or [1.0])
    base = cost_of(annotated)
    made = [
        Sensitivity(
            r,
            local[r],
            alone.get(r, local[r] * typical),
            r in alone,
            cost_of(_restored(annotated, calibrated, r)) - base,
            restored.get(r),
        )
        for r in ranked
    ]
    made.sort(key=lambda s: -s.alone)
    return Sensitivities(error.noise(annotated), len(next(iter(samples.values()))), tuple(made))


def by_worth(annotated: Graph, calibrated: Graph, found: Sensitivities) -> list[Sensitivity]:
    """``found`` in the order in which a greedy choice takes them: noise removed for each unit of cost added.

    Noise of different origin adds up, so each removes what it causes alone. What it costs depends on those taken before:
    a layer that has one operand in 16 bits gets the others at no more MACs.
    """
    graph, rest, order = annotated.clone(), list(found.found), list[Sensitivity]()
    while rest:
        now = cost_of(graph)
        added = [(cost_of(_restored(graph, calibrated, s.restoration)) - now).total for s in rest]
        worth = [s.alone / max(cost, 1) for s, cost in zip(rest, added, strict=True)]
        order.append(rest.pop(int(np.argmax(worth))))
        restore(graph, calibrated, order[-1].restoration)
    return order


def _restored(annotated: Graph, calibrated: Graph, chosen: Restoration) -> Graph:
    graph = annotated.clone()
    restore(graph, calibrated, chosen)
    return graph


def _computed(graph: Graph) -> list[Value]:
    return [*graph.inputs, *(n.output for n in graph.nodes)]


def _is_held(value: Value) -> bool:
    """Whether it is an activation, or weights: biases and other constants have a width of their own."""
    return value.data is None or any(_weight(n) is value for n in value.users)


def _width(value: Value) -> int:
    """Bytes of an element."""
    qparams = value.type.qparams
    return 4 if qparams is None else 2 if qparams.dtype == "s16" else 1


def _weight(node: Node) -> Value | None:
    """The constant weights of ``node``."""
    index = node.op.quant_rule().weight
    return None if index is None or node.input(index).data is None else node.input(index)


def _tied(graph: Graph, value: Value) -> tuple[str, ...]:
    """Names of the values that share the qparams of ``value`` because ops that only move elements tie them to it."""
    found, pending = {value.name}, [value]
    while pending:
        current = pending.pop()
        nodes = [n for n in (current.producer, *current.users) if n is not None and n.op.quant_rule().shares]
        for near in (v for n in nodes for v in (*n.inputs, n.output)):
            if near is None or near.data is not None or near.name in found:
                continue
            if near.type.qparams == value.type.qparams:
                found.add(near.name)
                pending.append(near)
    return tuple(v.name for v in _computed(graph) if v.name in found)


def _wide(value: Value) -> QParams:
    """What choose-qparams gives ``value`` in 16 bits: what an algorithm dictates, or what its codes hold now."""
    dictated = value.producer and value.producer.op.quant_rule().wide_result
    if dictated:
        return dictated
    if value.range is not None:
        return QSpec.wide_activation(*value.range)
    assert value.type.qparams is not None
    return QSpec.wide_activation(*value.type.qparams.range)


def _copy_constants(source: Node, graph: Graph, node: Node) -> None:
    """Give ``node`` of ``graph`` the constants of ``source``, with their types; a bias that was added goes."""
    operands: list[Value | None] = []
    for index, value in enumerate(source.inputs):
        if value is not None and value.data is not None:
            operands.append(graph.constant(value.data, value.name, value.type))
        else:
            operands.append(node.inputs[index])
    graph.set_inputs(node, operands)


def _local_noise(
    calibrated: Graph, annotated: Graph, found: list[Restoration], samples: Arrays, ctx: PassContext
) -> dict[Restoration, float]:
    """Noise over signal of the float values, on a few samples, or of the weights, when they are quantized."""
    sums: dict[str, NDArray[np.float64]] = {}
    qparams = {v.name: v.type.qparams for v in _computed(annotated)}

    def count(name: str, x: NDArray[Any], chosen: QParams | None) -> None:
        if chosen is not None:
            noise = np.sum((fixedpoint.fake_quantize(x, chosen) - x.astype(np.float64)) ** 2)
            sums[name] = sums.get(name, 0.0) + np.array([noise, np.sum(x.astype(np.float64) ** 2)])

    batch = {name: a[:_LOOKED_AT] for name, a in samples.items()}
    for name, x in batch.items():
        count(name, x, qparams[name])
    values = [n.output for n in calibrated.nodes if qparams.get(n.name) is not None]
    factory = ctx.resources.get("observer_factory")
    if factory is not None:
        factory(calibrated, values)(batch, lambda value, x: count(value.name, x, qparams[value.name]))
    else:
        interpreter.run(
            calibrated, batch, observe=lambda value, x: count(value.name, x, qparams.get(value.name))
        )
    weights = {
        n.name: (_weight(n), _weight(t)) for n, t in zip(annotated.nodes, calibrated.nodes, strict=True)
    }
    noises = {}
    for chosen in found:
        if chosen.to == "float":
            quantized, original = weights[chosen.name]
            assert quantized is not None
            assert quantized.data is not None
            assert quantized.type.qparams is not None
            assert original is not None
            assert original.data is not None
            rounded = fixedpoint.fake_quantize(quantized.data, quantized.type.qparams)
            noise = float(np.sum((rounded.astype(np.float64) - original.data) ** 2))
            noises[chosen] = noise / max(float(np.sum(original.data.astype(np.float64) ** 2)), 1e-300)
        else:
            both = [sums[name] for name in chosen.values if name in sums]
            noises[chosen] = max((float(n / max(s, 1e-300)) for n, s in both), default=0.0)
    return noises
