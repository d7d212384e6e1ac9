"""Study of quantization errors: what each tensor's is, beside what theory says it should be."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcc.ir import fixedpoint, interpreter
from qcc.ir.errors import PassError
from qcc.ir.graph import Graph, Node, Value
from qcc.ir.ops.simulated import SimulatedQuant
from qcc.ir.qparams import QParams
from qcc.passes.base import Note, Pass, PassContext, PassResult, register_pass
from qcc.passes.mse_prediction import Distribution, ErrorParts, measured, predicted

Array = NDArray[Any]
_MARGIN = 1 + 1e-6  # scales are float32 numbers: the extremes may lie outside the levels by their rounding
_BYTES = 128 * 2**20  # of all values: fewer samples where they take more, at least one


@register_pass
class AnalyzeMse(Pass):
    """Note, of each tensor with a code, the measured mean squared error and the closed form of its distribution.

    Looks at values and weights with qparams, and at what simulated_quant rounds, whose names match ``values``; weights
    channel by channel. The error is local: what a node reads is not rounded, but by simulated nodes. Activations are
    those of the samples that calibrate keeps, or of the first batch of ctx.resources["calibration"]. Predictions are
    those of qcc.passes.mse_prediction. Changes nothing.
    """

    name = "analyze-mse"
    stage = "annotated"
    values: str = "*"

    def run(self, graph: Graph, ctx: PassContext) -> PassResult:
        """One note for each tensor."""
        notes = [
            _weight_note(node, weight)
            for node in graph.nodes
            if (weight := _weight(node)) is not None and self._wanted(weight, node)
        ]
        activations = {id(v): node for v, node in _activations(graph) if self._wanted(v, node)}
        if activations:

            def note(value: Value, x: Array) -> None:
                if id(value) in activations:
                    notes.append(_activation_note(value, activations[id(value)], x))

            interpreter.run(graph, _samples(graph, ctx), observe=note)
        if not notes:
            raise PassError(
                f"no tensor that matches {self.values!r} has a code",
                hint="run choose-qparams or simulate-codes",
            )
        return PassResult(False, tuple(notes))

    def _wanted(self, value: Value, node: Node | None) -> bool:
        return any(fnmatchcase(v, self.values) for v in (value.name, node.name if node else value.name))


def _weight(node: Node) -> Value | None:
    """The constant that is rounded into the node's weight."""
    index = node.op.quant_rule().weight
    value = node.inputs[index] if index is not None else None
    if value is not None and value.producer is not None and value.producer.op.simulated:
        value = value.producer.input(0)
    coded = value is not None and (value.type.qparams is not None or any(u.op.simulated for u in value.users))
    return value if value is not None and value.data is not None and coded else None


def _activations(graph: Graph) -> list[tuple[Value, Node | None]]:
    """Values with qparams, or with the node that simulates their code."""
    found: list[tuple[Value, Node | None]] = []
    for value in (*graph.inputs, *(n.output for n in graph.nodes)):
        simulating = next((u for u in value.users if u.op.simulated), None)
        if simulating is not None or value.type.qparams is not None:
            found.append((value, simulating))
    return found


def _samples(graph: Graph, ctx: PassContext) -> dict[str, Array]:
    statistics, data = ctx.resources.get("collected_statistics"), ctx.resources.get("calibration", ())
    batch: dict[str, Array] = statistics.sketch.batch() if statistics is not None else next(iter(data), {})
    if not batch:
        raise PassError("analyze-mse has no samples", hint="pass --calib data.npz")
    count = max(1, _BYTES // (sum(n.output.type.bytes for n in graph.nodes) or 1))
    return {name: array[:count] for name, array in batch.items()}


def _activation_note(value: Value, simulating: Node | None, x: Array) -> Note:
    if simulating is None:
        assert value.type.qparams is not None
        rounded: Array = fixedpoint.fake_quantize(x, value.type.qparams)
        levels, rounding = _levels_of(value.type.qparams), "nearest"
    else:
        op, scale = simulating.op, simulating.input(1).data
        assert isinstance(op, SimulatedQuant)
        assert scale is not None
        rounded = op.float_ref(x, scale)
        levels, rounding = op.levels * float(scale) * _MARGIN, op.rounding
    distribution = Distribution.fit(x)
    return _note(
        value.name,
        distribution.family,
        measured(x, rounded, levels[0], levels[-1]),
        predicted(distribution, levels, rounding),
    )


def _weight_note(node: Node, weight: Value) -> Note:
    data, axis = weight.data, node.op.quant_rule().weight_axis
    assert data is not None
    producer = node.input(node.op.quant_rule().weight or 0).producer
    rounding = "nearest"
    if producer is None:
        qparams = weight.type.qparams
        assert qparams is not None
        rounded: Array = fixedpoint.fake_quantize(data, qparams)
        scale, unit = np.asarray(qparams.scale), np.arange(qparams.code_range[0], qparams.code_range[1] + 1.0)
        unit = unit[unit >= -unit[-1]]  # weights do without the lowest code
    else:
        op, factor = producer.op, producer.input(1).data
        assert isinstance(op, SimulatedQuant)
        assert factor is not None
        rounded, scale, unit, rounding = op.float_ref(data, factor), factor.ravel(), op.levels, op.rounding
    found, expected, families = [], [], []
    channels = [np.moveaxis(a, axis, 0).reshape(data.shape[axis], -1) for a in (data, rounded)]
    for x, r, s in zip(*channels, np.broadcast_to(scale, data.shape[axis]), strict=True):
        levels, distribution = unit * float(s) * _MARGIN, Distribution.fit(x)
        found.append(measured(x, r, levels[0], levels[-1]))
        expected.append(predicted(distribution, levels, rounding))
        families.append(distribution.family)
    family = max(sorted(set(families)), key=families.count)
    return _note(f"{node.name} weight", family, _mean(found), _mean(expected))


def _levels_of(qparams: QParams) -> NDArray[np.float64]:
    low, high = qparams.code_range
    return (np.arange(low, high + 1.0) - qparams.zero_point) * qparams.scale[0] * _MARGIN


def _mean(parts: list[ErrorParts]) -> ErrorParts:
    return ErrorParts(*(float(np.mean([getattr(p, n) for p in parts])) for n in ("rounding", "clipping")))


def _note(name: str, family: str, found: ErrorParts, expected: ErrorParts) -> Note:
    difference = f"{expected.total / found.total - 1:+.1%}" if found.total else "no error"
    return Note(
        name,
        AnalyzeMse.name,
        True,
        f"measured {found.total:.4g} (rounding {found.rounding:.4g}, clipping {found.clipping:.4g}), "
        f"closed form {expected.total:.4g} (rounding {expected.rounding:.4g}, clipping {expected.clipping:.4g}; "
        f"{family}): {difference}",
    )
