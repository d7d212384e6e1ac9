"""From ranges to qparams: scale and zero_point of every materialized value and of every weight."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qcc.ir.errors import PassError
from qcc.ir.graph import Graph, Node, Value
from qcc.ir.lowering import table_source
from qcc.ir.op import Op
from qcc.ir.qparams import QParams
from qcc.passes.base import Note, Pass, PassContext, PassResult, register_pass

WEIGHT_MAX = 127
SMALLEST_SKIP_MULTIPLIER = 4  # under it, matching the scales would cost a weight channel over 12 % resolution


@register_pass
class ChooseQParams(Pass):
    """Give qparams to every value that will be held in integers.

    Activations: s8, per tensor, asymmetric, from the calibrated range (which holds 0); scales are float32
    numbers, so that every runtime reads the same one. Ops that only move elements share qparams
    with their operands (one range for the whole group). Weights: s8, symmetric, per output channel. Where a
    convolution's accumulator is fused with a residual add, its weight scales grow slightly until the
    skip's scale is an integer multiple of the accumulator's; where that would cost too much the fusion is undone.
    """

    name = "choose-qparams"
    stage = "annotated"
    requires = ("has_ranges",)
    ensures = ("has_qparams",)
    exactness = "approximate"

    def run(self, graph: Graph, ctx: PassContext) -> PassResult:
        """Set qparams on types; constants used as weights are split, one for each use."""
        before = [v.type for v in graph.values()]
        _choose_activations(graph)
        notes: list[Note] = []
        for node in graph.nodes:
            if node.op.quant_rule().weight is not None:
                notes.extend(_choose_weights(graph, node))
        return PassResult(before != [v.type for v in graph.values()], tuple(notes))


def activation_qparams(low: float, high: float) -> QParams:
    """s8 qparams for real [low, high], widened to 0: scale = (high - low) / 255, zero_point rounded to even.

    Rounding the zero_point shifts the representable range by at most half a step.
    """
    low, high = min(low, 0.0), max(high, 0.0)
    if not np.isfinite(low) or not np.isfinite(high):
        raise PassError(f"range [{low}, {high}] is not finite")
    # a scale under the normal float32 numbers would flush to zero on some devices
    scale = float(np.float32(max((high - low) / 255.0, 1e-30)))
    if high == low:
        scale = 1.0
    zero_point = int(np.clip(np.rint(-128 - low / scale), -128, 127))
    return QParams.per_tensor(scale, zero_point)


def has_integer_form(node: Node) -> bool:
    """Whether quantize-ops will find an integer form: a table, or methods of the op."""
    cls = type(node.op)
    own = cls.quantize is not Op.quantize or cls.accumulate is not Op.accumulate
    return own or (node.op.elementwise and table_source(node) is not None)


def _choose_activations(graph: Graph) -> None:
    """One set of qparams for each group of values tied by ops that share them."""
    computed = [*graph.inputs, *(n.output for n in graph.nodes)]
    integer = {id(n.output) for n in graph.nodes if has_integer_form(n)}
    wanted = [
        v
        for v in computed
        if not v.fused
        and (
            v.producer is None
            or id(v) in integer
            or graph.is_output(v)
            or any(id(u.output) in integer for u in v.users)
        )
    ]
    leader = {id(v): v for v in wanted}

    def find(v: Value) -> Value:
        while leader[id(v)] is not v:
            v = leader[id(v)]
        return v

    for node in graph.nodes:
        if not node.op.quant_rule().shares or id(node.output) not in leader:
            continue
        for operand in node.inputs:
            if operand is None or id(operand) not in leader or _dictated(operand) is not None:
                continue
            a, b = find(operand), find(node.output)
            if a is not b:
                leader[id(b)] = a
    groups: dict[int, list[Value]] = {}
    for v in wanted:
        groups.setdefault(id(find(v)), []).append(v)
    for members in groups.values():
        qparams = _group_qparams(members)
        for v in members:
            v.type = v.type.with_qparams(qparams)


def _dictated(value: Value) -> QParams | None:
    """qparams that an integer algorithm, and movement behind it, imposes."""
    node = value.producer
    if node is None:
        return None
    rule = node.op.quant_rule()
    if rule.result is not None or not rule.shares:
        return rule.result
    found = {_dictated(v) for v in node.inputs if v is not None and not v.is_constant}
    return found.pop() if len(found) == 1 else None


def _group_qparams(members: list[Value]) -> QParams:
    dictated = {d for v in members if (d := _dictated(v)) is not None}
    if len(dictated) == 1 and all(_dictated(v) is not None for v in members):
        return dictated.pop()
    ranges = [v.range for v in members if v.range is not None]
    if not ranges:
        raise PassError(f"%{members[0].name} has no range", hint="run calibrate before choose-qparams")
    return activation_qparams(min(r[0] for r in ranges), max(r[1] for r in ranges))


def _choose_weights(graph: Graph, node: Node) -> list[Note]:
    rule = node.op.quant_rule()
    assert rule.weight is not None
    weight, x = node.input(rule.weight), node.input(0)
    if weight.data is None or x.type.qparams is None:
        return []
    axes = tuple(i for i in range(weight.data.ndim) if i != rule.weight_axis)
    largest = np.abs(weight.data.astype(np.float64)).max(axis=axes)
    scale = largest / WEIGHT_MAX
    scale = np.maximum(scale, _smallest_scale(graph, node, scale))
    notes = []
    residual = _residual_user(node)
    if residual is not None:
        skip = next(v for v in residual.inputs[:2] if v is not None and v is not node.output)
        assert skip.type.qparams is not None
        ratio = skip.type.qparams.scale[0] / (x.type.qparams.scale[0] * scale)
        if float(ratio.min()) < SMALLEST_SKIP_MULTIPLIER:
            node.output.fused = False
            node.output.type = node.output.type.with_qparams(activation_qparams(*_range(node.output)))
            reason = f"the skip's scale is only {ratio.min():.2f} times that of the accumulator"
            notes.append(Note(residual.name, "fuse-residual", False, reason))
        else:
            scale = skip.type.qparams.scale[0] / (x.type.qparams.scale[0] * np.floor(ratio))
    else:
        scale = scale.astype(np.float32).astype(np.float64)
    qparams = QParams.per_channel(scale, rule.weight_axis)
    _set_weight(graph, node, rule.weight, weight, qparams)
    return notes


def _range(value: Value) -> tuple[float, float]:
    if value.range is None:
        raise PassError(f"%{value.name} has no range", hint="run calibrate before choose-qparams")
    return value.range


def _set_weight(graph: Graph, node: Node, index: int, weight: Value, qparams: QParams) -> None:
    """A weight used by several nodes gets a constant of its own for each, with its own scales."""
    assert weight.data is not None
    if len(weight.users) > 1:
        weight_copy = graph.constant(weight.data, weight.name, weight.type.with_qparams(None))
        graph.set_input(node, index, weight_copy)
        weight = weight_copy
    weight.type = weight.type.with_qparams(qparams)


def _residual_user(node: Node) -> Node | None:
    """The add that takes this node's fused accumulator."""
    if not node.output.fused:
        return None
    (user,) = node.output.users
    return user if user.op.accumulates else None


def _smallest_scale(graph: Graph, node: Node, scale: NDArray[np.float64]) -> NDArray[np.float64]:
    """Lower bound of the weight scales, per channel.

    The bias must fit s32 at scale s_x * s_w with room for the products; the requantize multiplier must stay over
    2^-30; a channel of zeros takes the largest scale of its neighbours.
    """
    rule = node.op.quant_rule()
    s_x = node.input(0).type.qparams
    assert s_x is not None
    floor = np.full(scale.shape, max(float(scale.max()) * 2.0**-24, 1e-30))
    bias = node.inputs[rule.bias] if rule.bias is not None and rule.bias < len(node.inputs) else None
    if bias is not None and bias.data is not None:
        floor = np.maximum(floor, np.abs(bias.data.astype(np.float64)) / (s_x.scale[0] * 2.0**29))
    result = _materialized(node.output)
    if result.type.qparams is not None:
        floor = np.maximum(floor, result.type.qparams.scale[0] / s_x.scale[0] * 2.0**-30)
    if float(scale.max()) == 0.0:
        largest = result.type.qparams.scale[0] / s_x.scale[0] if result.type.qparams else 1.0
        return np.asarray(np.maximum(floor, largest))
    return np.asarray(np.where(scale == 0.0, np.maximum(floor, scale.max()), floor))


def _materialized(value: Value) -> Value:
    """The value in which a chain of fused ones ends."""
    while value.fused:
        (user,) = value.users
        value = user.output
    return value
