"""Study of codes and roundings that no kernel has: put them into an annotated graph, for the interpreter."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from qcc.ir import codebook
from qcc.ir.errors import PassError
from qcc.ir.graph import Graph, Node, Value
from qcc.ir.ops.simulated import SimulatedQuant
from qcc.ir.types import f32
from qcc.passes.base import Note, Pass, PassContext, PassResult, register_pass
from qcc.passes.meaning import sqnr

_FACTORS = 2.0 ** -(np.arange(25) / 12)  # of a channel's largest magnitude


@register_pass
class SimulateCodes(Pass):
    """Round weights, or activations, to the levels of another code. Simulated: quantize-ops refuses the result.

    A value that matches ``values`` passes through a node simulated_quant, and loses the qparams it had; others keep
    theirs. ``of``: weights (``values`` matches the name of the weight or of its node), or activations, of which those
    that are fused are left out. ``code``: linear, sqrt, log2 (see qcc.ir.codebook), of ``bits`` 2 to 8.
    ``rounding``: nearest; stochastic, by ``seed``; error-feedback, over all that a weight's channel sums up, and along
    the last axis of an activation. A weight has a scale for each output channel, its largest magnitude, or
    with ``clip=mse`` the part of it with the least squared error of nearest levels. An activation has
    the scale of its calibrated range, and no signed codes where that is not below 0.
    """

    name = "simulate-codes"
    stage = "annotated"
    requires = ("has_ranges",)
    exactness = "approximate"
    code: Literal["linear", "sqrt", "log2"] = "linear"
    bits: int = 4
    rounding: Literal["nearest", "stochastic", "error-feedback"] = "nearest"
    seed: int = 0
    of: Literal["weights", "activations"] = "weights"
    values: str = "*"
    clip: Literal["max", "mse"] = "max"

    def __post_init__(self) -> None:
        if not codebook.MIN_BITS <= self.bits <= codebook.MAX_BITS:
            raise ValueError(f"bits = {self.bits}: 2 to 8 are possible")

    def run(self, graph: Graph, ctx: PassContext) -> PassResult:
        """Insert the nodes."""
        notes = self._weights(graph) if self.of == "weights" else self._activations(graph)
        if not notes:
            raise PassError(
                f"no {self.of} match {self.values!r}", hint="values takes a pattern such as *conv1*"
            )
        return PassResult(any(n.applied for n in notes), tuple(notes))

    def _weights(self, graph: Graph) -> list[Note]:
        notes = []
        for number, node in enumerate(list(graph.nodes)):
            rule = node.op.quant_rule()
            if rule.weight is None:
                continue
            weight = node.input(rule.weight)
            if not any(fnmatchcase(n, self.values) for n in (weight.name, node.name)):
                continue
            if weight.data is None:
                notes.append(Note(node.name, self.name, False, f"the weight %{weight.name} is computed"))
                continue
            axes = tuple(a for a in range(weight.type.rank) if a != rule.weight_axis)
            scale = self._weight_scale(weight.data, axes)
            plain = graph.constant(weight.data, weight.name, weight.type.with_qparams(None))
            op = SimulatedQuant(self.code, self.bits, True, self.rounding, self.seed + number, axes)
            simulated = _insert(graph, op, plain, scale, node)
            graph.set_input(node, rule.weight, simulated)
            rounded = np.asarray(op.float_ref(weight.data, scale))
            notes.append(self._note(node.name, f"weight SQNR {sqnr(weight.data, rounded):.2f} dB"))
        return notes

    def _weight_scale(self, data: NDArray[Any], axes: tuple[int, ...]) -> NDArray[np.float32]:
        largest = np.abs(data).max(axis=axes, keepdims=True).astype(np.float64)
        largest[largest == 0] = 1.0
        if self.clip == "max":
            return np.asarray(largest, np.float32)
        levels, errors = codebook.levels_of(self.code, self.bits, True), []
        for factor in _FACTORS:
            rounded = codebook.nearest(data / (factor * largest), levels) * (factor * largest)
            errors.append(((data - rounded) ** 2).sum(axis=axes, keepdims=True))
        return np.asarray(_FACTORS[np.argmin(errors, axis=0)] * largest, np.float32)

    def _activations(self, graph: Graph) -> list[Note]:
        notes = []
        for number, value in enumerate([*graph.inputs, *(n.output for n in graph.nodes)]):
            if not fnmatchcase(value.name, self.values) or value.is_constant:
                continue
            if value.producer is not None and value.producer.op.simulated:
                continue
            if value.fused or value.range is None:
                notes.append(Note(value.name, self.name, False, "the value is never materialized"))
                continue
            if any(u.op.simulated for u in value.users):
                notes.append(Note(value.name, self.name, False, "the value has a simulated code already"))
                continue
            low, high = value.range
            scale = np.asarray(max(-low, high) or 1.0, np.float32)
            op = SimulatedQuant(self.code, self.bits, low < 0, self.rounding, self.seed + number)
            if self.rounding == "error-feedback" and value.type.rank == 0:
                notes.append(Note(value.name, self.name, False, "a scalar has no axis"))
                continue
            place = 0 if value.producer is None else graph.nodes.index(value.producer) + 1
            before = graph.nodes[place] if place < len(graph.nodes) else None
            value.type = value.type.with_qparams(None)
            simulated = _insert(graph, op, value, scale, before)
            simulated.range = value.range
            graph.replace_uses(value, simulated, except_for=simulated.producer)
            notes.append(
                self._note(value.name, f"{'signed' if op.signed else 'unsigned'}, scale {scale:.6g}")
            )
        return notes

    def _note(self, name: str, result: str) -> Note:
        rounding = f"{self.rounding}, seed {self.seed}" if self.rounding == "stochastic" else self.rounding
        return Note(name, self.name, True, f"simulated {self.code} {self.bits} bits, {rounding}: {result}")


def _insert(
    graph: Graph, op: SimulatedQuant, x: Value, scale: NDArray[np.float32], before: Node | None
) -> Value:
    factor = graph.constant(scale, f"{x.name}_scale", f32(*scale.shape))
    type_ = op.infer(x.type, factor.type)
    return graph.add_node(op, [x, factor], type_, f"{x.name}_simulated", before).output
