"""Remove channels that hold one value for every input: fold them into the next bias, exactly."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qcc.ir.graph import Graph, Node, Value
from qcc.ir.interval import Interval
from qcc.ir.qparams import QParams
from qcc.ir.types import TensorType
from qcc.passes.base import Note, Pass, PassContext, PassResult, register_pass
from qcc.passes.plan_accumulators import propagate

Mask = NDArray[np.bool_]


@register_pass
class RemoveDeadChannels(Pass):
    """Drop channels proved constant, or read only through zero weights, with the same output bytes.

    Values tied channel by channel (convolution -> requantize -> depthwise -> ...) form a group. Channel c of a
    group goes when (1) every producer that starts the group defines its channels by weights, (2) every reader
    that leaves the group sums over channels with constant weights, and (3) for each such reader channel c is either
    proved constant, and padding (if any) has the same value, or has zero weights throughout. The constant's
    contribution moves into the reader's bias. A group keeps at least one channel.

    ``granularity``: a group that shrinks keeps a multiple of this many channels, some dead ones among them, because
    vector kernels read input channels in fours and more: 61 channels may take them longer than 64.
    """

    name = "remove-dead-channels"
    stage = "planned"
    exactness = "exact"
    granularity: int = 1

    def __post_init__(self) -> None:
        if self.granularity < 1:
            raise ValueError(f"granularity must be 1 or more, got {self.granularity}")

    def run(self, graph: Graph, ctx: PassContext) -> PassResult:
        """Slice constants, shrink types, add to biases; one note for each group that shrank or cannot.

        ctx.resources["kept_channels"]: by value name, the original indices of the channels that are left.
        """
        intervals, groups = propagate(graph), _groups(graph)
        before = [_channels(group) for group in groups]
        kept = [np.arange(channels) for channels in before]
        reasons = [""] * len(groups)
        shrinking = True
        while shrinking:  # what one group loses, the weights that read another lose too
            shrinking = False
            for index in reversed(range(len(groups))):  # readers first: most chains need one round
                reasons[index], dead = _dead_channels(graph, groups[index], intervals)
                if dead is not None and _round(dead, self.granularity).any():
                    _remove(graph, groups[index], dead, intervals)
                    kept[index] = kept[index][~dead]
                    shrinking = True
        notes = []
        ctx.resources["kept_channels"] = {
            value.name: which.tolist()
            for group, channels, which in zip(groups, before, kept, strict=True)
            for value in group
            if which.size < channels
        }
        for group, channels, reason in zip(groups, before, reasons, strict=True):
            removed = channels - _channels(group)
            if reason or removed:
                what = reason or f"{removed} of {channels} channels"
                notes.append(Note(group[0].name, "remove-dead-channels", not reason, what))
        return PassResult(any(n.applied for n in notes), tuple(notes))


def _channels(group: list[Value]) -> int:
    shape = group[0].type.shape
    return shape[-1] if shape else 1


def _groups(graph: Graph) -> list[list[Value]]:
    """Computed values tied channel by channel, in graph order."""
    leader: dict[int, int] = {}

    def find(key: int) -> int:
        while leader.setdefault(key, key) != key:
            key = leader[key]
        return key

    for node in graph.nodes:
        for index in node.op.channel_map(node.signature):
            operand = node.inputs[index]
            if operand is not None and not operand.is_constant:
                leader[find(id(node.output))] = find(id(operand))
    groups: dict[int, list[Value]] = {}
    for value in [*graph.inputs, *(n.output for n in graph.nodes)]:
        groups.setdefault(find(id(value)), []).append(value)
    return list(groups.values())


def _mapped(node: Node) -> list[Value | None]:
    """Computed operands whose channels are the node's channels: they are in the same group."""
    operands = (node.inputs[i] for i in node.op.channel_map(node.signature))
    return [v for v in operands if v is not None and not v.is_constant]


def _dead_channels(
    graph: Graph, group: list[Value], intervals: dict[int, Interval]
) -> tuple[str, Mask | None]:
    """Which channels of the group can go; (reason, None) when the group as a whole cannot change."""
    channels = _channels(group)
    dead = np.ones(channels, np.bool_)
    for value in group:
        if graph.is_output(value):
            return "a value is a graph output", None
        if not value.type.dtype.is_integer or value.type.shape[-1:] != (channels,):
            return "a value is not an integer tensor", None
        node = value.producer
        if node is None:
            return "a value is a graph input", None
        inside = _mapped(node)
        if not inside and not node.op.defines_channels(node.signature):
            return f"{node.op.name} does not compute its channels one by one", None
        computed = [v for v in node.inputs if v is not None and not v.is_constant]
        if inside and len(inside) != len(computed):
            return f"{node.op.name} also reads other channels", None
        for user in value.users:
            if value in _mapped(user):
                continue
            absorbed = _absorbed(user, value, intervals)
            if absorbed is None:
                return f"{user.op.name} does not sum over channels", None
            dead &= absorbed
    if dead.all():
        dead[0] = False
    return "", dead


def _round(dead: Mask, granularity: int) -> Mask:
    """Spare the first dead channels, in place, until a multiple of ``granularity`` is kept, or all channels."""
    spared = -np.count_nonzero(~dead) % granularity
    dead[np.flatnonzero(dead)[:spared]] = False
    return dead


def _absorbed(user: Node, value: Value, intervals: dict[int, Interval]) -> Mask | None:
    """Channels of ``value`` whose contribution to ``user`` is one number per output channel; None if it is no sum."""
    weight = _summing_weight(user, value)
    if weight is None:
        return None
    interval = intervals[id(value)]
    attributes = user.op.attributes()
    constant = interval.constant
    if any(attributes.get("pads", ())):
        constant = constant & (interval.low == attributes["pad_value"])
    unused = ~np.any(weight.astype(np.bool_), axis=tuple(range(weight.ndim - 1)))
    return np.asarray(constant | unused)


def _summing_weight(user: Node, value: Value) -> NDArray[np.generic] | None:
    """The weights [O, ..., C] of a node that sums over the channels of its operand 0, zero_point folded."""
    rule = user.op.quant_rule()
    if rule.weight is None or rule.bias is None or user.inputs[0] is not value:
        return None
    if not user.op.folds_zero_point or not user.op.defines_channels(user.signature):
        return None
    if user.op.attributes()["x_zero_point"] or user.input(rule.bias).data is None:
        return None
    return user.input(rule.weight).data


def _remove(graph: Graph, group: list[Value], dead: Mask, intervals: dict[int, Interval]) -> None:
    keep = np.flatnonzero(~dead)
    for value in group:
        for user in dict.fromkeys(value.users):
            if value not in _mapped(user):
                _absorb(graph, user, value, dead, intervals[id(value)])
    for value in group:
        assert value.producer is not None
        _shrink(graph, value.producer, dead.size, keep)
        old = intervals[id(value)]
        intervals[id(value)] = Interval(old.low[keep], old.high[keep])


def _absorb(graph: Graph, user: Node, value: Value, dead: Mask, interval: Interval) -> None:
    rule = user.op.quant_rule()
    assert rule.weight is not None
    assert rule.bias is not None
    weight, bias = user.input(rule.weight), user.input(rule.bias)
    assert weight.data is not None
    assert bias.data is not None
    inner = tuple(range(1, weight.data.ndim - 1))
    per_channel = weight.data.astype(np.int64).sum(
        axis=inner
    )  # [O, C]; zeros where no single value is proved
    added = bias.data.astype(np.int64) + (per_channel[:, dead] * interval.low[dead]).sum(axis=1)
    kept = np.ascontiguousarray(weight.data[..., ~dead])
    graph.set_input(user, rule.bias, graph.constant(added.astype(np.int32), bias.name, bias.type))
    graph.set_input(user, rule.weight, graph.constant(kept, weight.name, weight.type.with_shape(kept.shape)))


def _shrink(graph: Graph, node: Node, channels: int, keep: NDArray[np.intp]) -> None:
    """Keep some result channels of ``node``: its per-channel constants, its op, its type."""
    sig = node.signature
    for index, value in enumerate(node.inputs):
        if value is None or value.data is None:
            continue
        axis = node.op.constant_channel_axis(sig, index)
        if axis is None or value.data.shape[axis] != channels:
            continue
        data = np.ascontiguousarray(np.take(value.data, keep, axis=axis))
        qparams = _take_scales(value.type.qparams, keep, axis % value.data.ndim)
        graph.set_input(
            node, index, graph.constant(data, value.name, TensorType(value.type.dtype, data.shape, qparams))
        )
    node.op = node.op.with_channels(keep.size)
    result = node.output.type
    shape = (*result.shape[:-1], keep.size)
    node.output.type = TensorType(result.dtype, shape, _take_scales(result.qparams, keep, len(shape) - 1))


def _take_scales(qparams: QParams | None, keep: NDArray[np.intp], axis: int) -> QParams | None:
    if qparams is None or qparams.axis != axis or len(qparams.scale) == 1:
        return qparams
    return QParams.per_channel(np.asarray(qparams.scale)[keep], axis, qparams.dtype)
