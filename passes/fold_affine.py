"""Products and sums with constants into the weights and biases beside them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcc.ir import interpreter
from qcc.ir.builder import Builder
from qcc.ir.graph import Graph, Node, Value
from qcc.ir.ops.elementwise import Add, Mul
from qcc.passes.base import Pass, PassContext, PassResult, register_pass
from qcc.passes.rewrite import Match, Rule, apply_rules, channel_vector, constant_operand, sole_user_problem

UNIFORM_TOLERANCE = 1e-6  # of the largest magnitude; an unfolded sum of float32 products is no better


def _is_linear(node: Node | None) -> bool:
    """Whether the node is a sum of products with one weight operand, per channel of the last axis."""
    return node is not None and node.op.accumulates and node.op.quant_rule().weight is not None


def _weight(node: Node) -> Value:
    index = node.op.quant_rule().weight
    assert index is not None
    return node.input(index)


def _bias(node: Node) -> Value | None:
    index = node.op.quant_rule().bias
    return node.inputs[index] if index is not None and index < len(node.inputs) else None


def _constants_problem(node: Node) -> str | None:
    bias = _bias(node)
    if _weight(node).data is None or (bias is not None and bias.data is None):
        return f"the weights of %{node.name} are computed at run time"
    if node.op.quant_rule().bias is None:
        return f"{node.op.name} has no bias"
    return None


def _with_constants(
    node: Node, builder: Builder, x: Value, w: NDArray[Any] | None, bias: NDArray[Any] | None
) -> Value:
    """``node`` on ``x`` with new weights and bias (None: as they are). Constants are never changed in place."""
    rule = node.op.quant_rule()
    assert rule.weight is not None
    assert rule.bias is not None
    operands = list(node.inputs) + [None] * (rule.bias + 1 - len(node.inputs))
    operands[0] = x
    if w is not None:
        operands[rule.weight] = builder.constant(w.astype(np.float32), _weight(node).name)
    if bias is not None:
        old = _bias(node)
        operands[rule.bias] = builder.constant(
            bias.astype(np.float32), old.name if old else f"{node.name}_bias"
        )
    return builder.emit(node.op, *operands, name=node.name)


class _After(Rule):
    """linear(x) followed by op(constant)."""

    op: type[Mul] | type[Add]

    def match(self, node: Node, graph: Graph) -> Match | None:
        """The op on the result of a linear one and a constant."""
        if not isinstance(node.op, self.op):
            return None
        found = constant_operand(node)
        if found is None or not _is_linear(found[0].producer):
            return None
        return Match(node, graph, (found[0].producer, found[1]))

    def check(self, match: Match) -> str | None:
        """Nothing else may read the unscaled result; the constant is per channel."""
        linear, constant = match.found
        if linear.output.type != match.node.output.type:
            return "the constant broadcasts the result to another shape"
        if channel_vector(constant, linear.output.type.shape[-1]) is None:
            return "the constant is not per channel of the last axis"
        return sole_user_problem(match.graph, linear.output) or _constants_problem(linear)


class ScaleAfter(_After):
    """linear(x) * c: c into weights and bias."""

    name = "fold-scale-after"
    op = Mul

    def check(self, match: Match) -> str | None:
        """The weights must have one slice for each result channel."""
        linear = match.found[0]
        axis = linear.op.quant_rule().weight_axis
        if _weight(linear).type.shape[axis] != linear.output.type.shape[-1]:
            return "the weights have no axis of result channels"
        return super().check(match)

    def rewrite(self, match: Match, builder: Builder) -> Value:
        """w[o] c[o] and b[o] c[o]."""
        linear, constant = match.found
        w, bias = _weight(linear), _bias(linear)
        assert w.data is not None
        axis = linear.op.quant_rule().weight_axis
        scale = channel_vector(constant, w.type.shape[axis])
        assert scale is not None
        shape = [1] * w.type.rank
        shape[axis] = -1
        new_bias = None if bias is None or bias.data is None else bias.data * scale
        return _with_constants(linear, builder, linear.input(0), w.data * scale.reshape(shape), new_bias)


class BiasAfter(_After):
    """linear(x) + c: c into the bias."""

    name = "fold-bias-after"
    op = Add

    def rewrite(self, match: Match, builder: Builder) -> Value:
        """b[o] + c[o]."""
        linear, constant = match.found
        term = channel_vector(constant, linear.output.type.shape[-1])
        assert term is not None
        bias = _bias(linear)
        total = term if bias is None or bias.data is None else bias.data + term
        return _with_constants(linear, builder, linear.input(0), None, total)


class _Before(Rule):
    """linear(op(x, constant))."""

    op: type[Mul] | type[Add]

    def match(self, node: Node, graph: Graph) -> Match | None:
        """A linear op whose data operand is the op on a constant."""
        producer = node.input(0).producer if _is_linear(node) else None
        if producer is None or not isinstance(producer.op, self.op):
            return None
        found = constant_operand(producer)
        return Match(node, graph, (producer, *found)) if found is not None else None

    def check(self, match: Match) -> str | None:
        """Nothing else may read the scaled operand."""
        producer, x, _ = match.found
        if x.type != producer.output.type:
            return "the constant broadcasts the operand to another shape"
        return sole_user_problem(match.graph, producer.output) or _constants_problem(match.node)


class ScaleBefore(_Before):
    """linear(x * c): c into the weights; right with zero padding too, because 0 * c is 0."""

    name = "fold-scale-before"
    op = Mul

    def check(self, match: Match) -> str | None:
        """Per channel of the operand, and weights whose last axis runs over the operand's channels."""
        if _input_scale(match) is None:
            return "the constant is not per channel of the last axis"
        return super().check(match)

    def rewrite(self, match: Match, builder: Builder) -> Value:
        """w[o, ..., c] s[c], where output o reads the channels c of its group."""
        w, scale = _weight(match.node), _input_scale(match)
        assert w.data is not None
        assert scale is not None
        return _with_constants(match.node, builder, match.found[1], w.data * scale, None)


def _input_scale(match: Match) -> NDArray[Any] | None:
    """The constant shaped like the weights [O, ..., C/groups]; None if it cannot be folded into them."""
    _, x, constant = match.found
    w = _weight(match.node).type
    if constant.size == 1:
        return np.asarray(constant.reshape(()))
    channels, per_group = x.type.shape[-1], w.shape[-1]
    scale = channel_vector(constant, channels)
    outputs = w.shape[match.node.op.quant_rule().weight_axis]
    if scale is None or match.node.op.quant_rule().weight_axis != 0 or channels % per_group:
        return None
    groups = channels // per_group
    group = np.arange(outputs) // (outputs // groups)
    by_output = scale[group[:, None] * per_group + np.arange(per_group)]
    return np.asarray(by_output).reshape(outputs, *[1] * (w.rank - 2), per_group)


class BiasBefore(_Before):
    """linear(x + c): linear(c) into the bias, where it is the same at every position."""

    name = "fold-bias-before"
    op = Add

    def check(self, match: Match) -> str | None:
        """What c adds must not depend on the position: with zero padding it does, at the border."""
        problem = super().check(match)
        return problem or (
            None if _uniform(match) is not None else "the contribution differs between positions"
        )

    def rewrite(self, match: Match, builder: Builder) -> Value:
        """b + linear(c)."""
        term = _uniform(match)
        assert term is not None
        return _with_constants(match.node, builder, match.found[1], None, term)


def _uniform(match: Match) -> NDArray[Any] | None:
    """The op applied to the constant alone, bias included, as [O]; None where positions differ."""
    _, x, constant = match.found
    arrays = [None if v is None else v.data for v in match.node.inputs]
    arrays[0] = np.broadcast_to(constant, x.type.shape)
    result = interpreter.evaluate(match.node, arrays).astype(np.float64)
    result = result.reshape(-1, result.shape[-1])
    low, high = result.min(axis=0), result.max(axis=0)
    if ((high - low) > UNIFORM_TOLERANCE * np.maximum(np.abs(low), np.abs(high))).any():
        return None
    return np.asarray((low + high) / 2)


@register_pass
class FoldAffine(Pass):
    """Fold x * c and x + c in front of and behind convolutions and matrix products into weights and biases.

    One pass, because one fold uncovers the next: conv, mul, add, mul folds from the left.
    """

    name = "fold-affine"
    stage = "float"
    exactness = "float-exact"

    def run(self, graph: Graph, ctx: PassContext) -> PassResult:
        """To a fixed point."""
        return apply_rules(graph, (ScaleAfter(), BiasAfter(), ScaleBefore(), BiasBefore()))
