"""What each op does to bounds: the checker's own reading of the integer semantics, one function per op.

The planner asks the ops themselves; this file switches on their names and shares no code with them, so that a
mistake in one does not hide in the other. All numbers are exact: int64 where nothing can overflow, Python
integers where it could.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import gcd, lcm, prod
from typing import Any, NoReturn, Protocol

import numpy as np
from numpy.typing import NDArray

from qcc.ir.errors import VerifyError
from qcc.ir.graph import Node, Value

Integers = NDArray[Any]

_SAFE = 2**62  # magnitudes under it add up in int64
_BLOCK = 2**20  # weights that are widened to 64 bits at a time


@dataclass(frozen=True)
class Bounds:
    """low[c] <= q <= high[c] for every element q of channel c of the last axis."""

    low: Integers
    high: Integers

    @staticmethod
    def full(low: int, high: int, channels: int) -> Bounds:
        """The same bounds for every channel."""
        return Bounds(np.full(channels, low, np.int64), np.full(channels, high, np.int64))

    @staticmethod
    def of(data: NDArray[Any]) -> Bounds:
        """Smallest and largest element of each channel of a constant."""
        rows = data.astype(np.int64).reshape(-1, data.shape[-1] if data.ndim else 1)
        return Bounds(rows.min(axis=0), rows.max(axis=0))

    @property
    def reach(self) -> int:
        """Largest magnitude."""
        return max(abs(int(self.low.min())), abs(int(self.high.max())))

    def join(self, other: Bounds) -> Bounds:
        """What holds of an element of either."""
        return Bounds(np.minimum(self.low, other.low), np.maximum(self.high, other.high))

    def with_value(self, value: int) -> Bounds:
        """What holds of an element that may also be ``value``."""
        return Bounds(np.minimum(self.low, value), np.maximum(self.high, value))

    def plus(self, other: Bounds) -> Bounds:
        """Bounds of a sum; channels broadcast."""
        a, b, c, d = _exact(self.reach + other.reach, self.low, self.high, other.low, other.high)
        return Bounds(a + c, b + d)

    def times(self, other: Bounds) -> Bounds:
        """Bounds of a product, from its four corners; channels broadcast."""
        a, b, c, d = _exact(self.reach * other.reach, self.low, self.high, other.low, other.high)
        corners = (a * c, a * d, b * c, b * d)
        return Bounds(np.minimum.reduce(corners), np.maximum.reduce(corners))

    def shifted(self, term: int) -> Bounds:
        """Bounds of q + term."""
        return self.plus(Bounds.full(term, term, 1))

    def scaled(self, factor: int) -> Bounds:
        """Bounds of q * factor."""
        return self.times(Bounds.full(factor, factor, 1))

    def summed(self) -> Bounds:
        """Bounds of the sum of one element of each channel."""
        low, high = _exact(self.reach * self.low.size, self.low, self.high)
        return Bounds(low.sum(keepdims=True), high.sum(keepdims=True))

    def grouped(self, groups: Integers, axis: int) -> Bounds:
        """Bounds of channels that fall together: ``groups`` holds channel numbers, ``axis`` runs over a group."""
        return Bounds(self.low[groups].min(axis=axis), self.high[groups].max(axis=axis))

    def over(self, channels: int) -> Bounds:
        """The union of all channels, for each of ``channels``."""
        return Bounds(np.repeat(self.low.min(), channels), np.repeat(self.high.max(), channels))

    def taken(self, channels: Sequence[int]) -> Bounds:
        """Channels ``channels``, in that order."""
        return Bounds(self.low[list(channels)], self.high[list(channels)])


class Read(Protocol):
    """How a rule sees its operands.

    A rule runs twice: for the result, and for all partial sums on the way to it. A partial sum lacks some terms, so
    it is a full sum of terms that may also be 0: the second time every operand may be 0 too.
    """

    def __call__(self, index: int, zero_point: int = 0) -> Bounds:
        """Bounds of operand ``index`` minus ``zero_point``."""


Rule = Callable[[Node, Read], Bounds]


def _exact(bound: int, *arrays: Integers) -> list[Integers]:
    """``arrays`` as int64 when no magnitude of the calculation passes ``bound`` < 2^62, else as Python integers."""
    return [a.astype(np.int64 if bound < _SAFE else object) for a in arrays]


def weighted_sum(w: Integers, x: Bounds, groups: int = 1) -> Bounds:
    """Bounds[O] of sum w[o, ..., c] * x[group(o), c]: a positive weight takes the same end of x, a negative one the other."""
    inner, taps = w.shape[-1], tuple(range(1, w.ndim - 1))
    bound = max(abs(int(w.min())), abs(int(w.max()))) * x.reach * prod(w.shape[1:])
    low, high = _exact(bound, x.low, x.high)
    lows, highs = [], []
    rows = max(1, _BLOCK // prod(w.shape[1:]))
    for start in range(0, len(w), rows):
        (part,) = _exact(bound, w[start : start + rows])
        plus, minus = (f(part, 0).sum(axis=taps) for f in (np.maximum, np.minimum))
        group = np.arange(start, start + len(part)) // (len(w) // groups)
        channel = group[:, None] * inner + np.arange(inner)
        lows.append((plus * low[channel] + minus * high[channel]).sum(axis=1))
        highs.append((plus * high[channel] + minus * low[channel]).sum(axis=1))
    return Bounds(np.concatenate(lows), np.concatenate(highs))


def fail(node: Node, channel: int | None, what: str, claimed: object, recomputed: object) -> NoReturn:
    """Raise VerifyError naming the node, and the channel if it is one channel's."""
    where = f"%{node.name}" if channel is None else f"%{node.name}, channel {channel}"
    raise VerifyError(f"{where}: {what}: claimed {claimed}, recomputed {recomputed}", node.location)


def constant(node: Node, index: int) -> NDArray[Any]:
    """The data of an operand that must be a constant."""
    value = node.inputs[index] if index < len(node.inputs) else None
    if value is None or value.data is None:
        raise VerifyError(
            f"%{node.name}: operand {index} of {node.op.name} must be a constant", node.location
        )
    return value.data


def zero_point(value: Value) -> int:
    """That of the value's qparams; 0 without."""
    return value.type.qparams.zero_point if value.type.qparams is not None else 0


def channels_of(value: Value) -> int:
    """Length of the last axis."""
    return value.type.shape[-1] if value.type.shape else 1


def has(node: Node, index: int) -> bool:
    """Whether the optional operand is there."""
    return len(node.inputs) > index and node.inputs[index] is not None


# ---------------------------------------------------------------------- sums of products
def _conv2d(node: Node, read: Read) -> Bounds:
    """bias + sum w * (x' - x_zero_point); x' is x, or pad_value around it."""
    a = node.op.attributes()
    x = read(0, a["x_zero_point"])
    if any(a["pads"]):
        x = x.with_value(a["pad_value"] - a["x_zero_point"])
    return _biased(node, read, weighted_sum(constant(node, 1), x, a["groups"]))


def _dense(node: Node, read: Read) -> Bounds:
    """bias + sum w * (x - x_zero_point)."""
    x = read(0, node.op.attributes()["x_zero_point"])
    return _biased(node, read, weighted_sum(constant(node, 1), x))


def _conv_transpose2d(node: Node, read: Read) -> Bounds:
    """bias + the taps of one phase, any of which may miss the image.

    Tap a lands on rows congruent to a * dilation modulo the stride, so an element sees taps of one residue only.
    """
    a, w = node.op.attributes(), constant(node, 1)
    x = read(0, a["x_zero_point"]).with_value(0)
    residues = [
        np.arange(size) * dilation % stride
        for size, dilation, stride in zip(w.shape[1:3], a["dilations"], a["strides"], strict=True)
    ]
    total = Bounds.full(0, 0, len(w))
    for row in np.unique(residues[0]):
        for column in np.unique(residues[1]):
            phase = w[:, residues[0] == row][:, :, residues[1] == column]
            total = total.join(weighted_sum(phase, x, a["groups"]))
    return _biased(node, read, total)


def _biased(node: Node, read: Read, total: Bounds) -> Bounds:
    if not has(node, 2):
        return total
    constant(node, 2)
    return total.plus(read(2))


def _matmul(node: Node, read: Read) -> Bounds:
    """sum_k (a[.., k] - zp_a) * (b[k, n] - zp_b); for a constant b element by element, else by its columns."""
    a, right = read(0, zero_point(node.input(0))), node.input(1)
    zero_b = zero_point(right)
    depth, columns = right.type.shape[-2:]
    if right.data is None:
        b = read(1, zero_b)
        low, high = np.tile(b.low, (depth, 1)), np.tile(b.high, (depth, 1))
    else:
        stacked = right.data.astype(np.int64).reshape(-1, depth, columns) - zero_b
        low, high = stacked.min(axis=0), stacked.max(axis=0)
    rows = Bounds(a.low[:, None], a.high[:, None])  # in the partial sums a may be 0, and so may each product
    terms = rows.times(Bounds(low, high))
    low, high = _exact(terms.reach * depth, terms.low, terms.high)
    return Bounds(low.sum(axis=0), high.sum(axis=0))


def _add(node: Node, read: Read) -> Bounds:
    """(a - zp_a) * a_multiplier + (b - zp_b) * b_multiplier; the sign of a difference is in the multiplier."""
    terms = []
    for index in range(2):
        term = read(index, zero_point(node.input(index)))
        terms.append(term.times(Bounds.of(constant(node, 2 + index))) if has(node, 2 + index) else term)
    return terms[0].plus(terms[1])


def _mul(node: Node, read: Read) -> Bounds:
    """(a - zp_a) * (b - zp_b)."""
    return read(0, zero_point(node.input(0))).times(read(1, zero_point(node.input(1))))


def _avg_pool2d(node: Node, read: Read) -> Bounds:
    """A window adds n elements of the image, each divisor / count times."""
    elements, counts = _window_counts(node)
    factors = elements * (lcm(*map(int, np.unique(counts))) // counts)
    x = read(0, zero_point(node.input(0)))
    return x.times(Bounds(factors.min(keepdims=True).ravel(), factors.max(keepdims=True).ravel()))


def _window_counts(node: Node) -> tuple[Integers, Integers]:
    """int64[OH, OW] twice: the taps of each window that lie on the image, and those it divides by."""
    a, (h, w) = node.op.attributes(), node.input(0).type.shape[1:3]
    on_image, counted = [], []
    for axis, size in enumerate((h, w)):
        begin, end = a["pads"][axis], a["pads"][axis + 2]
        window = np.arange(node.output.type.shape[1 + axis])[:, None] * a["strides"][axis]
        tap = window + np.arange(a["kernel"][axis]) * a["dilations"][axis] - begin
        on_image.append(((tap >= 0) & (tap < size)).sum(axis=1))
        margin = (begin, end) if a["count_include_pad"] else (0, 0)
        counted.append(((tap >= -margin[0]) & (tap < size + margin[1])).sum(axis=1))
    return np.multiply.outer(*on_image), np.multiply.outer(*counted)


def average_divisor(node: Node) -> int:
    """What the accumulator of a mean is larger by: the divisor of an average pool, the count of a mean."""
    if node.op.name == "avg_pool2d":
        return lcm(*map(int, np.unique(_window_counts(node)[1])))
    shape, axes = node.input(0).type.shape, node.op.attributes()["axes"]
    return prod(shape[axis] for axis in axes) if node.op.name == "reduce_mean" else 1


def _reduce_sum(node: Node, read: Read) -> Bounds:
    """As many elements of each channel as the reduced axes hold; of all channels, when these are reduced."""
    shape, axes = node.input(0).type.shape, node.op.attributes()["axes"]
    x = read(0, zero_point(node.input(0))).scaled(prod(shape[i] for i in axes if i != len(shape) - 1))
    return x.summed() if len(shape) - 1 in axes else x


def _resize_linear(node: Node, read: Read) -> Bounds:
    """Weights that are not negative and add up to 2^14."""
    return read(0, zero_point(node.input(0))).scaled(2**14)


# ---------------------------------------------------------------------- functions of one element
def _table(node: Node, read: Read) -> Bounds:
    """The entries between those of the ends of x."""
    x, table = read(0), constant(node, 1).astype(np.int64)
    rows = np.broadcast_to(table, (x.low.size, 256))
    reached = [
        row[a + 128 : b + 129] for row, a, b in zip(rows, x.low.tolist(), x.high.tolist(), strict=True)
    ]
    return Bounds(np.array([r.min() for r in reached]), np.array([r.max() for r in reached]))


# ---------------------------------------------------------------------- movement
def _same(node: Node, read: Read) -> Bounds:
    """Elements stay in their channels."""
    return read(0)


def _transpose(node: Node, read: Read) -> Bounds:
    perm = node.op.attributes()["perm"]
    return read(0) if perm and perm[-1] == len(perm) - 1 else read(0).over(channels_of(node.output))


def _reshape(node: Node, read: Read) -> Bounds:
    """Flat element f is in channel f mod C before and f mod C' after: both agree modulo gcd(C, C')."""
    x, channels = read(0), channels_of(node.output)
    common = gcd(x.low.size, channels)
    x = x.grouped(np.arange(x.low.size).reshape(-1, common), axis=0)
    return x.taken([c % common for c in range(channels)])


def _pad(node: Node, read: Read) -> Bounds:
    """Channels cropped or extended like the last axis; the fill value wherever another axis grows."""
    a, x = node.op.attributes(), read(0)
    begin, end = a["begins"][-1], a["ends"][-1]
    channels = np.arange(x.low.size)[max(0, -begin) : x.low.size - max(0, -end)]
    widths = (max(0, begin), max(0, end))
    if a["mode"] != "constant":
        return x.taken(np.pad(channels, widths, a["mode"]).tolist())
    qparams = node.input(0).type.qparams
    assert qparams is not None
    exact = np.rint(a["value"] / qparams.scale[0]) + qparams.zero_point
    dtype = node.output.type.dtype
    fill = int(min(max(exact, dtype.min), dtype.max))
    low, high = (np.pad(bound[channels], widths, constant_values=fill) for bound in (x.low, x.high))
    grows = any(n > 0 for n in (*a["begins"][:-1], *a["ends"][:-1]))
    return Bounds(low, high).with_value(fill) if grows else Bounds(low, high)


def _concat(node: Node, read: Read) -> Bounds:
    parts = [read(index) for index in range(len(node.inputs))]
    if node.op.attributes()["axis"] == node.output.type.rank - 1:
        return Bounds(np.concatenate([p.low for p in parts]), np.concatenate([p.high for p in parts]))
    joined = parts[0]
    for part in parts[1:]:
        joined = joined.join(part)
    return joined


def _slice(node: Node, read: Read) -> Bounds:
    a, x = node.op.attributes(), read(0)
    for axis, start, end, step in zip(a["axes"], a["starts"], a["ends"], a["steps"], strict=True):
        if axis == node.output.type.rank - 1:
            x = x.taken(range(start, end, step))
    return x


def _take(node: Node, read: Read) -> Bounds:
    a = node.op.attributes()
    return read(0).taken(a["indices"]) if a["axis"] == node.output.type.rank - 1 else read(0)


def _repeat(node: Node, read: Read) -> Bounds:
    """The channels over again, as often as they fit: tile, expand, blocks of pixels side by side."""
    x, channels = read(0), channels_of(node.output)
    return x.taken([c % x.low.size for c in range(channels)])


def _depth_to_space(node: Node, read: Read) -> Bounds:
    a, x = node.op.attributes(), read(0)
    blocks, numbers = a["block"] ** 2, np.arange(x.low.size)
    if a["mode"] == "DCR":
        return x.grouped(numbers.reshape(blocks, -1), axis=0)
    return x.grouped(numbers.reshape(-1, blocks), axis=1)


def _reduce_extreme(node: Node, read: Read) -> Bounds:
    reduced = node.input(0).type.rank - 1 in node.op.attributes()["axes"]
    return read(0).over(1) if reduced else read(0)


MOVEMENT: dict[str, Rule] = {
    "concat": _concat,
    "depth_to_space": _depth_to_space,
    "expand": _repeat,
    "max_pool2d": _same,
    "pad": _pad,
    "reduce_max": _reduce_extreme,
    "reduce_min": _reduce_extreme,
    "reshape": _reshape,
    "resize_nearest": _same,
    "slice": _slice,
    "space_to_depth": _repeat,
    "take": _take,
    "tile": _repeat,
    "transpose": _transpose,
}
RULES: dict[str, Rule] = {
    **MOVEMENT,
    "add": _add,
    "avg_pool2d": _avg_pool2d,
    "conv2d": _conv2d,
    "conv_transpose2d": _conv_transpose2d,
    "dense": _dense,
    "matmul": _matmul,
    "mul": _mul,
    "reduce_mean": _reduce_sum,
    "reduce_sum": _reduce_sum,
    "resize_linear": _resize_linear,
    "sub": _add,
    "table": _table,
}
"""By op name. An op without a rule may reach every value of its 8-bit type, and must not make accumulators."""
