"""One way of writing each thing: identities removed, chains merged, constants second and small, equal nodes shared."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcc.ir.builder import Builder
from qcc.ir.errors import VerifyError
from qcc.ir.graph import Graph, Node, Value
from qcc.ir.ops.activation import Clamp
from qcc.ir.ops.elementwise import Add, Div, Mul, Sub
from qcc.ir.ops.rearrange import Concat, Slice
from qcc.ir.ops.shape import Movement, Reshape, Transpose
from qcc.ir.ops.softmax import Softmax
from qcc.passes.base import Note, Pass, PassContext, PassResult, register_pass
from qcc.passes.rewrite import (
    Match,
    Rule,
    apply_rules,
    constant_operand,
    is_live,
    replace_value,
    sole_user_problem,
)


class RemoveIdentity(Rule):
    """A node that returns its operand: x * 1, x + 0, a clamp without bounds, a movement that moves nothing."""

    name = "remove-identity"

    def match(self, node: Node, graph: Graph) -> Match | None:
        """Any node whose result equals its only computed operand."""
        computed = [v for v in node.inputs if v is not None and v.data is None]
        if len(computed) != 1 or computed[0].type != node.output.type:
            return None
        return Match(node, graph, (computed[0],)) if _is_identity(node) else None

    def rewrite(self, match: Match, builder: Builder) -> Value:
        """The operand."""
        (operand,) = match.found
        assert isinstance(operand, Value)
        return operand


def _is_identity(node: Node) -> bool:
    op = node.op
    if isinstance(op, Clamp):
        return op.low == -np.inf and op.high == np.inf
    if isinstance(op, Mul | Add):
        found = constant_operand(node)
        return found is not None and bool((found[1] == (1 if isinstance(op, Mul) else 0)).all())
    if isinstance(op, Movement) and len(node.inputs) == 1:
        # both ramps, because a maximum over a window may leave an ascending or a descending one as it is
        ramp = np.arange(node.output.type.elements, dtype=np.float64).reshape(node.output.type.shape)
        return all(np.array_equal(op.float_ref(r), r) for r in (ramp, -ramp))
    return False


class MergeClamps(Rule):
    """clamp(clamp(x)) as one clamp."""

    name = "merge-clamps"

    def match(self, node: Node, graph: Graph) -> Match | None:
        """A clamp of a clamp."""
        return _pair(node, graph, Clamp)

    def rewrite(self, match: Match, builder: Builder) -> Value:
        """The inner bounds, moved into the outer interval: right even where the two intervals are disjoint."""
        x, outer, inner = match.found
        low, high = (min(max(bound, outer.low), outer.high) for bound in (inner.low, inner.high))
        return builder.emit(Clamp(low, high), x, name=match.node.name)


class MergeReshapes(Rule):
    """reshape(reshape(x)) as one reshape."""

    name = "merge-reshapes"

    def match(self, node: Node, graph: Graph) -> Match | None:
        """A reshape of a reshape."""
        return _pair(node, graph, Reshape)

    def rewrite(self, match: Match, builder: Builder) -> Value:
        """The outer shape."""
        return builder.emit(match.node.op, match.found[0], name=match.node.name)


class SinkReshape(Rule):
    """softmax(reshape(x)) over a last axis that the reshape keeps, as reshape(softmax(x)).

    It brings the softmax to the op that computes x, whose accumulator it may then read.
    """

    name = "sink-reshape"

    def match(self, node: Node, graph: Graph) -> Match | None:
        """A softmax over the last axis of a reshape."""
        if not isinstance(node.op, Softmax) or node.op.axis != node.output.type.rank - 1:
            return None
        inner = node.input(0).producer
        if inner is None or not isinstance(inner.op, Reshape):
            return None
        x = inner.input(0)
        return Match(node, graph, (x,)) if x.type.shape[-1:] == node.output.type.shape[-1:] else None

    def rewrite(self, match: Match, builder: Builder) -> Value:
        """The same softmax on the reshape's operand."""
        (x,) = match.found
        y = builder.emit(Softmax(x.type.rank - 1), x, name=match.node.name)
        return builder.emit(Reshape(match.node.output.type.shape), y, name=match.node.name)


class MergeTransposes(Rule):
    """transpose(transpose(x)) as one transpose."""

    name = "merge-transposes"

    def match(self, node: Node, graph: Graph) -> Match | None:
        """A transpose of a transpose."""
        return _pair(node, graph, Transpose)

    def rewrite(self, match: Match, builder: Builder) -> Value:
        """Result axis i is axis outer[i] of the inner result, which is axis inner[outer[i]] of x."""
        x, outer, inner = match.found
        perm = tuple(inner.perm[i] for i in outer.perm)
        return builder.emit(Transpose(perm), x, name=match.node.name)


def _pair(node: Node, graph: Graph, kind: type[Any]) -> Match | None:
    """An op of ``kind`` on one of the same kind; found: the inner operand, the outer op, the inner op."""
    if not isinstance(node.op, kind):
        return None
    inner = node.input(0).producer
    if inner is None or not isinstance(inner.op, kind):
        return None
    return Match(node, graph, (inner.input(0), node.op, inner.op))


class MergeConstants(Rule):
    """(x * c) * d as x * (c d), and (x + c) + d as x + (c + d)."""

    name = "merge-constants"

    def match(self, node: Node, graph: Graph) -> Match | None:
        """A product of a product, or a sum of a sum, each with a constant."""
        outer = constant_operand(node) if isinstance(node.op, Add | Mul) else None
        inner = outer[0].producer if outer is not None else None
        if outer is None or inner is None or inner.op != node.op:
            return None
        found = constant_operand(inner)
        if found is None:
            return None
        joined = np.asarray(node.op.float_ref(found[1].astype(np.float64), outer[1].astype(np.float64)))
        return Match(node, graph, (found[0], joined, inner.output))

    def check(self, match: Match) -> str | None:
        """With another reader of the inner result there would be nothing to gain."""
        _, joined, inner = match.found
        limits = np.finfo(np.float32)
        magnitude = np.abs(joined[joined != 0])
        if not ((magnitude >= limits.tiny) & (magnitude <= limits.max)).all():
            return "the joined constant is not a normal float32"
        return sole_user_problem(match.graph, inner)

    def rewrite(self, match: Match, builder: Builder) -> Value:
        """The constants joined by the op itself."""
        x, joined, _ = match.found
        constant = builder.constant(joined, f"{match.node.name}_joined")
        return builder.emit(match.node.op, x, constant, name=match.node.name)


class SliceOfConcat(Rule):
    """A slice of a concatenation that is exactly one of its operands."""

    name = "slice-of-concat"

    def match(self, node: Node, graph: Graph) -> Match | None:
        """Only the axis of the concatenation is sliced."""
        concat = node.input(0).producer if isinstance(node.op, Slice) else None
        if concat is None or not isinstance(node.op, Slice) or not isinstance(concat.op, Concat):
            return None
        if node.op.axes != (concat.op.axis,):
            return None
        axis = concat.op.axis
        kept = node.op.ranges(concat.output.type.shape)[axis]
        start = 0
        for operand in concat.inputs:
            assert operand is not None
            end = start + operand.type.shape[axis]
            if kept == range(start, end):
                return Match(node, graph, (operand,))
            start = end
        return None

    def rewrite(self, match: Match, builder: Builder) -> Value:
        """The operand."""
        (operand,) = match.found
        assert isinstance(operand, Value)
        return operand


class SubtractConstant(Rule):
    """x - c as x + (-c)."""

    name = "subtract-constant"

    def match(self, node: Node, graph: Graph) -> Match | None:
        """A sub whose second operand is constant."""
        return _second_constant(node, graph, Sub)

    def rewrite(self, match: Match, builder: Builder) -> Value:
        """Negation is exact."""
        constant = builder.constant(-match.found[0], f"{match.node.name}_term")
        return builder.emit(Add(), match.node.input(0), constant, name=match.node.name)


class DivideByConstant(Rule):
    """x / c as x * (1 / c)."""

    name = "divide-by-constant"

    def match(self, node: Node, graph: Graph) -> Match | None:
        """A div whose second operand is constant."""
        return _second_constant(node, graph, Div)

    def check(self, match: Match) -> str | None:
        """Reciprocals must keep full precision."""
        magnitude = np.abs(match.found[0].astype(np.float64))
        limits = np.finfo(np.float32)
        if ((magnitude < 1 / float(limits.max)) | (magnitude > 1 / float(limits.tiny))).any():
            return "the reciprocal of a divisor is not a normal float32"
        return None

    def rewrite(self, match: Match, builder: Builder) -> Value:
        """Reciprocals rounded once from float64."""
        reciprocal = (1 / match.found[0].astype(np.float64)).astype(np.float32)
        constant = builder.constant(reciprocal, f"{match.node.name}_factor")
        return builder.emit(Mul(), match.node.input(0), constant, name=match.node.name)


def _second_constant(node: Node, graph: Graph, kind: type[Any]) -> Match | None:
    if not isinstance(node.op, kind):
        return None
    found = constant_operand(node)
    return Match(node, graph, (found[1],)) if found is not None and node.input(1).data is not None else None


class ConstantSecond(Rule):
    """c + x and c * x with the constant as second operand."""

    name = "constant-second"

    def match(self, node: Node, graph: Graph) -> Match | None:
        """A sum or product whose first operand alone is constant."""
        if not isinstance(node.op, Add | Mul) or constant_operand(node) is None or node.input(0).data is None:
            return None
        return Match(node, graph)

    def rewrite(self, match: Match, builder: Builder) -> Value:
        """The operands exchanged."""
        constant, x = match.node.inputs
        return builder.emit(match.node.op, x, constant, name=match.node.name)


class ShrinkConstant(Rule):
    """A constant of an elementwise op that repeats along an axis, in the smallest shape that broadcasts the same."""

    name = "shrink-constant"

    def match(self, node: Node, graph: Graph) -> Match | None:
        """The first constant operand that can be smaller without a change of the result's type."""
        if not node.op.elementwise or len(node.inputs) < 2:
            return None
        for index, value in enumerate(node.inputs):
            if value is None or value.data is None:
                continue
            small = _shrink(value.data)
            if small.shape == value.data.shape:
                continue
            types = [v.type if v is not None else None for v in node.inputs]
            types[index] = value.type.with_shape(small.shape)
            try:
                same = node.op.infer(*types) == node.output.type
            except VerifyError:  # the op wants this operand in its present shape
                same = False
            if same:
                return Match(node, graph, (index, small))
        return None

    def rewrite(self, match: Match, builder: Builder) -> Value:
        """The same op on the small constant."""
        index, small = match.found
        operands = list(match.node.inputs)
        operands[index] = builder.constant(small, match.node.input(index).name)
        return builder.emit(match.node.op, *operands, name=match.node.name)


def _shrink(data: NDArray[Any]) -> NDArray[Any]:
    for axis in range(data.ndim):
        first = data.take([0], axis=axis)
        if data.shape[axis] > 1 and (data == first).all():
            data = first
    while data.ndim and data.shape[0] == 1:
        data = data[0]
    return np.asarray(data)


RULES: tuple[Rule, ...] = (
    RemoveIdentity(),
    MergeClamps(),
    MergeReshapes(),
    SinkReshape(),
    MergeTransposes(),
    SliceOfConcat(),
    SubtractConstant(),
    DivideByConstant(),
    ConstantSecond(),
    MergeConstants(),
    ShrinkConstant(),
)


@register_pass
class Canonicalize(Pass):
    """Bring the graph to a canonical form, so that the passes behind need to know one spelling of each thing.

    float-exact because of x / c, which becomes a product, and of constants joined; every other rule keeps the
    bits (but for the sign of zero).
    """

    name = "canonicalize"
    stage = "float"
    exactness = "float-exact"

    def run(self, graph: Graph, ctx: PassContext) -> PassResult:
        """Rules and sharing in turn, until neither changes anything."""
        applied: list[Note] = []
        while True:
            rewritten = apply_rules(graph, RULES)
            shared = _share_equal_nodes(graph)
            applied += [n for n in rewritten.notes if n.applied] + shared
            if not rewritten.changed and not shared:
                declined = [n for n in rewritten.notes if not n.applied]
                return PassResult(bool(applied), (*applied, *declined))


def _share_equal_nodes(graph: Graph) -> list[Note]:
    """Equal ops on equal operands: the first node serves the users of all. Constants are compared by bytes."""
    notes = []
    first: dict[Hashable, Node] = {}
    digests: dict[int, Hashable] = {}

    def key(value: Value | None) -> Hashable:
        if value is None or value.data is None:
            return id(value)
        if id(value) not in digests:
            digests[id(value)] = (value.type, hashlib.sha256(value.data.tobytes()).hexdigest())
        return digests[id(value)]

    for node in list(graph.nodes):
        if not is_live(graph, node):
            continue
        twin = first.setdefault((node.op, tuple(key(v) for v in node.inputs)), node)
        if twin is node or (graph.is_output(node.output) and graph.is_output(twin.output)):
            continue
        replace_value(graph, node.output, twin.output, rename=False)
        notes.append(Note(node.name, "share-equal", True, f"the same as %{twin.name}"))
    return notes
