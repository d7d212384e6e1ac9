"""Which channels must be scaled together so that scaling the graph's inner values changes nothing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qcc.ir.graph import Graph, Node, Value
from qcc.ir.ops.activation import Clamp, LeakyRelu
from qcc.ir.ops.elementwise import Add, Max, Min, PRelu, Sub
from qcc.ir.ops.pool import AvgPool2d
from qcc.ir.ops.reduce import ReduceMean
from qcc.ir.ops.shape import Movement

Ids = NDArray[np.intp]

FIXED = 0  # the group of all channels that cannot be scaled
_HOMOGENEOUS = (
    Add,
    Sub,
    Min,
    Max,
    AvgPool2d,
    ReduceMean,
    LeakyRelu,
    PRelu,
)  # f(k x) = k f(x), k > 0 per channel


@dataclass(frozen=True)
class ChannelGroups:
    """``of``: by id(value), the group of each channel of the last axis, of every computed value that has one.

    ``count``: groups are 0 .. count - 1; group FIXED holds the channels that keep their scale.
    """

    of: dict[int, Ids]
    count: int


def channel_groups(graph: Graph) -> ChannelGroups:
    """Groups of a float graph: channels joined by ops that are homogeneous, cut at layers with constant weights."""
    ties = _Ties()
    for value in graph.inputs:
        ties.fix(ties.ids(value))
    for node in graph.nodes:
        _tie(ties, node)
    for value in graph.outputs:
        if not value.is_constant:
            ties.fix(ties.ids(value))
    return ties.groups()


def linear_weight(node: Node) -> Value | None:
    """The constant weights of a layer that passes/equalize can scale: axis 0 outputs, last axis inputs of a group."""
    rule = node.op.quant_rule()
    weight = node.input(rule.weight) if rule.weight is not None else None
    if weight is None or weight.data is None or rule.weight_axis != 0 or rule.bias is None:
        return None
    bias = node.inputs[rule.bias] if rule.bias < len(node.inputs) else None
    if bias is not None and bias.data is None:
        return None
    channels = node.input(0).type.shape[-1]
    return weight if channels % weight.type.shape[-1] == 0 else None


class _Ties:
    """Union-find over channels. The ids of a value are made when it is first seen."""

    def __init__(self) -> None:
        self.parent = [FIXED]
        self._of: dict[int, Ids] = {}

    def ids(self, value: Value) -> Ids:
        """[C]; a scalar has one channel."""
        if id(value) not in self._of:
            channels = value.type.shape[-1] if value.type.shape else 1
            start = len(self.parent)
            self.parent.extend(range(start, start + channels))
            self._of[id(value)] = np.arange(start, start + channels)
        return self._of[id(value)]

    def fix(self, ids: Ids) -> None:
        """Let these channels keep their scale."""
        self.join(ids, np.full_like(ids, FIXED))

    def join(self, a: Ids, b: Ids) -> None:
        """Channel by channel."""
        for i, j in zip(a.tolist(), b.tolist(), strict=True):
            i, j = self.find(i), self.find(j)
            self.parent[max(i, j)] = min(i, j)

    def find(self, i: int) -> int:
        """The representative, the smallest of its group."""
        while self.parent[i] != i:
            self.parent[i] = self.parent[self.parent[i]]
            i = self.parent[i]
        return i

    def groups(self) -> ChannelGroups:
        """Groups renumbered without gaps."""
        roots = np.array([self.find(i) for i in range(len(self.parent))])
        names, number = np.unique(roots, return_inverse=True)
        return ChannelGroups({key: number[ids] for key, ids in self._of.items()}, len(names))


def _tie(ties: _Ties, node: Node) -> None:
    operands = [v for v in node.inputs if v is not None and not v.is_constant]
    result = ties.ids(node.output)
    if linear_weight(node) is not None:
        for extra in operands[1:]:
            ties.fix(ties.ids(extra))
        return
    if isinstance(node.op, Movement) and _tie_moved(ties, node, operands):
        return
    scaled = isinstance(node.op, _HOMOGENEOUS) or (
        isinstance(node.op, Clamp) and node.op.low in (0.0, -np.inf)
    )
    mapped = [node.inputs[i] for i in node.op.channel_map(node.signature)]
    if scaled and all(any(v is m for m in mapped) for v in operands) and _constants_scale(node):
        for value in operands:
            ties.join(ties.ids(value), result)
        return
    for value in (*operands, node.output):
        ties.fix(ties.ids(value))


def _constants_scale(node: Node) -> bool:
    """Whether the constants of a sum, a minimum or a maximum have a scale for each channel to be divided by."""
    return all(
        v is None or not v.is_constant or v.type.shape[-1:] == node.output.type.shape[-1:]
        for v in node.inputs
    )


def _tie_moved(ties: _Ties, node: Node, operands: list[Value]) -> bool:
    """Follow channel ids through the movement; False where a channel of the result mixes several."""
    arrays = []
    for value in node.inputs:
        if value is None or value.is_constant:
            return False
        arrays.append(np.broadcast_to(ties.ids(value).astype(np.float64), value.type.shape))
    if np.any(node.op.float_ref(*(np.zeros_like(a) for a in arrays))):  # a padding other than 0
        return False
    moved = np.asarray(node.op.float_ref(*arrays)).reshape(-1, ties.ids(node.output).size).astype(np.intp)
    largest = moved.max(axis=0)
    if ((moved != largest) & (moved > 0)).any() or moved.min() < 0:  # 0 is padding, which any scale suits
        return False
    padding = largest == 0
    ties.join(ties.ids(node.output)[~padding], largest[~padding])
    ties.fix(ties.ids(node.output)[padding])
    return True
