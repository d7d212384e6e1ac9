"""The independent checker of a planned graph: it proves again what the planner claims, and shares no code with it.

``check_plan`` walks the graph once. From the full range of every input it derives bounds of each value per
channel (``checker_rules``), and of every partial sum of each accumulator, in any order. Then every requantize must
hold what the bounds demand; see ``_check_requantize``. The first claim that fails ends the walk.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from qcc.checker_rules import MOVEMENT, RULES, Bounds, average_divisor, channels_of, zero_point
from qcc.checker_softmax import check_wide_softmax
from qcc.ir.errors import VerifyError
from qcc.ir.graph import Graph, Node, Value
from qcc.ir.types import DType

Integers = NDArray[np.int64]

SUM_BITS = {
    DType.S32: 32,
    DType.S64: 43,
}  # of an accumulator, by its type; so much s64 leaves room for a multiplier
SCALE_TOLERANCE = 2.0**-20  # of a product of scales, which is computed once in float64
# A planned multiplier may leave the ratio of the scales by 256.5 steps of 2^-23, which is just over 2^-15. At 2^-14
# it moves the largest result, 255 steps from the zero_point, by 1/64 of a step.
MULTIPLIER_TOLERANCE = 2.0**-14
WIDE_TOLERANCE = 2.0**-19  # of a result of 16 bits, or of a sum of 64: it moves 2^15 steps by 1/16 of one
RESIDUAL_TOLERANCE = 2.0**-12
EXHAUSTIVE = 2**16  # accumulators of a channel up to which all of them are tried
_CHUNK = 2**20  # accumulators evaluated at a time


@dataclass(frozen=True)
class PlanReport:
    """What was proved.

    ``requantizes``: nodes; ``channels``: those of all requantizes; ``certified``: channels with a fast path proved
    equal; ``exhaustive``: certified channels where, besides, every accumulator was tried; ``accumulators``: nodes
    that leave one; ``accumulator_bits``: the most bits that any partial sum needs.
    """

    requantizes: int
    channels: int
    certified: int
    exhaustive: int
    accumulators: int
    accumulator_bits: int


@dataclass(frozen=True)
class Fact:
    """Bounds of a value, and of all partial sums behind it; the same where it is no accumulator."""

    value: Bounds
    partial: Bounds


@dataclass(frozen=True)
class _Requantize:
    """A requantize with its claims, int64[C] each; scalar attributes beside them."""

    node: Node
    multiplier: Integers
    shift: Integers
    acc_min: Integers
    acc_max: Integers
    zero_point: int
    low: int
    high: int
    twice: bool = False

    def canonical(self, acc: Integers, channel: Integers) -> Integers:
        """((acc * multiplier + 2^(shift-1)) >> shift) + zero_point, saturated. Never falls as acc grows.

        ``twice``, as gemmlowp: the product shifted by 31 with ties up, then by the rest with ties away from zero.
        """
        shift = self.shift[channel]
        product, rest = acc * self.multiplier[channel], np.maximum(shift - 31, 0) if self.twice else 0 * shift
        first = shift - rest
        high = (product + (np.int64(1) << (first - 1))) >> first
        half = np.where(rest > 0, np.int64(1) << np.maximum(rest - 1, 0), 0)
        rounded = (high + half - ((high < 0) & (rest > 0))) >> rest
        return np.asarray(np.clip(rounded + self.zero_point, self.low, self.high))


def check_plan(graph: Graph) -> PlanReport:
    """Prove the plan of ``graph``, whose shapes ``qcc.ir.verifier`` accepts.

    Raises VerifyError naming node, channel, claimed and recomputed values.
    """
    return Walk(graph).run()


class Walk:
    """The facts found so far, and the counts of the report."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.facts: dict[int, Fact] = {}
        self.requantizes = self.channels = self.certified = self.exhaustive = 0
        self.accumulators = self.bits = 0

    def run(self) -> PlanReport:
        """Visit every node. Raises VerifyError at the first claim that does not hold."""
        if self.graph.stage != "planned":
            raise VerifyError(
                f"only a planned graph can be checked, {self.graph.name} is {self.graph.stage}",
                hint="run plan-accumulators first",
            )
        for value in self.graph.inputs:
            self._learn(value, _whole_type(value))
        for node in self.graph.nodes:
            self._visit(node)
        return PlanReport(
            self.requantizes, self.channels, self.certified, self.exhaustive, self.accumulators, self.bits
        )

    def _learn(self, value: Value, bounds: Bounds, partial: Bounds | None = None) -> None:
        self.facts[id(value)] = Fact(bounds, partial or bounds)

    def _fact(self, node: Node, index: int) -> Fact:
        value = node.input(index)
        if value.data is not None:
            bounds = Bounds.of(value.data)
            return Fact(bounds, bounds)
        if id(value) not in self.facts:
            raise VerifyError(
                f"%{node.name} reads %{value.name}, which is not defined before it", node.location
            )
        return self.facts[id(value)]

    def _visit(self, node: Node) -> None:
        name, dtype = node.op.name, node.output.type.dtype
        integer = all(v is None or v.type.dtype.is_integer for v in (*node.inputs, node.output))
        if name == "requantize":
            if not integer:
                _fail(node, None, "requantize", "integers", "floats")
            self._learn(node.output, self._requantize(node))
        elif integer and name in RULES:
            _check_scales(node)
            self._compute(node)
        elif name == "wide_softmax":
            check_wide_softmax(node)
            self._learn(node.output, _whole_type(node.output))
        elif dtype.is_accumulator:
            _fail(node, None, f"{name} leaves an accumulator", "a rule that bounds it", "none")
        else:
            _check_no_accumulator(node)
            self._learn(node.output, _whole_type(node.output))

    def _compute(self, node: Node) -> None:
        """Bounds by the op's rule; for an accumulator those of its partial sums too, which must fit its type."""
        channels = channels_of(node.output)

        def exact(index: int, zero_point: int = 0) -> Bounds:
            return self._fact(node, index).value.shifted(-zero_point)

        def partial(index: int, zero_point: int = 0) -> Bounds:
            return self._fact(node, index).partial.shifted(-zero_point).with_value(0)

        bounds = _per_channel(RULES[node.op.name](node, exact), channels)
        dtype = node.output.type.dtype
        if not dtype.is_accumulator:
            _check_no_accumulator(node)
            self._learn(node.output, bounds)
            return
        sums = _per_channel(RULES[node.op.name](node, partial), channels)
        limit = 2 ** (SUM_BITS[dtype] - 1)
        for bad in np.flatnonzero((sums.low < -limit) | (sums.high >= limit)):
            claim = f"every partial sum in {SUM_BITS[dtype]} bits"
            _fail(node, int(bad), "a partial sum overflows", claim, f"[{sums.low[bad]}, {sums.high[bad]}]")
        self.accumulators += 1
        self.bits = max(self.bits, _bits(sums))
        self._learn(node.output, bounds, sums)

    def _requantize(self, node: Node) -> Bounds:
        zero, channels, fact = zero_point(node.input(0)), channels_of(node.output), self._fact(node, 0)
        acc = _per_channel(fact.value.shifted(-zero), channels)
        claims = _read_claims(node)
        _check_requantize(node, claims, acc, fact.partial.shifted(-zero).with_value(0))
        paths = node.op.attributes()["certified"]
        for path in paths:
            if path not in FAST_PATHS:
                _fail(node, None, "unknown fast path", repr(path), f"known: {', '.join(FAST_PATHS)}")
            self.exhaustive += _check_fast_path(claims, path)
        self.requantizes += 1
        self.channels += channels
        self.certified += channels if paths else 0
        every = np.arange(channels)
        return Bounds(claims.canonical(acc.low, every), claims.canonical(acc.high, every))


def _whole_type(value: Value) -> Bounds:
    """Nothing is known but the type; floats have no bounds, and none are asked of them."""
    dtype = value.type.dtype
    low, high = (dtype.min, dtype.max) if dtype.is_integer else (0, 0)
    return Bounds.full(low, high, channels_of(value))


def _per_channel(bounds: Bounds, channels: int) -> Bounds:
    return Bounds(np.broadcast_to(bounds.low, channels), np.broadcast_to(bounds.high, channels))


def _bits(bounds: Bounds) -> int:
    """Two's complement bits that hold all of ``bounds``."""
    return max(max(int(bounds.high.max()), -int(bounds.low.min()) - 1).bit_length() + 1, 1)


def _fail(node: Node, channel: int | None, what: str, claimed: object, recomputed: object) -> NoReturn:
    where = f"%{node.name}" if channel is None else f"%{node.name}, channel {channel}"
    raise VerifyError(f"{where}: {what}: claimed {claimed}, recomputed {recomputed}", node.location)


# ---------------------------------------------------------------------- types
def _check_no_accumulator(node: Node) -> None:
    """An accumulator may be summed up further or requantized; nothing else reads it."""
    for value in node.inputs:
        if value is not None and value.data is None and value.type.dtype.is_accumulator:
            _fail(
                node,
                None,
                f"{node.op.name} reads accumulator %{value.name}",
                "no accumulator",
                value.type.dtype.value,
            )


def _scales(node: Node, value: Value) -> NDArray[np.float64]:
    if value.type.qparams is None:
        _fail(node, None, f"%{value.name} has no qparams", "a scale", "none")
    return np.asarray(value.type.qparams.scale, np.float64)


def _check_scales(node: Node) -> None:
    """The scale that the operands give the result is the one recorded, for each kind of op."""
    name, result = node.op.name, node.output
    if name in MOVEMENT:
        for value in node.inputs:
            assert value is not None
            if value.type.qparams != result.type.qparams:
                _fail(node, None, f"%{value.name} is moved", result.type.qparams, value.type.qparams)
    elif name in ("conv2d", "conv_transpose2d", "dense", "matmul", "mul"):
        product = _scales(node, node.input(0)) * _scales(node, node.input(1))
        _check_close(node, "scale of the result", _scales(node, result), product, SCALE_TOLERANCE)
        if name not in ("matmul", "mul"):
            _check_bias(node, product)
    elif name in ("avg_pool2d", "reduce_mean", "reduce_sum", "resize_linear"):
        divisor = 2**14 if name == "resize_linear" else average_divisor(node)
        mean = _scales(node, node.input(0)) / divisor
        _check_close(node, "scale of the result", _scales(node, result), mean, SCALE_TOLERANCE)
    elif name in ("add", "sub"):
        _check_sum(node)


def _check_close(
    node: Node, what: str, claimed: NDArray[np.float64], found: NDArray[np.float64], tolerance: float
) -> None:
    claimed, found = np.broadcast_arrays(claimed, found)
    for bad in np.flatnonzero(np.abs(claimed - found) > tolerance * found):
        _fail(node, int(bad), what, float(claimed[bad]), float(found[bad]))


def _check_bias(node: Node, product: NDArray[np.float64]) -> None:
    """A bias has the type and the scale of the products."""
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        bias = node.input(2)
        if bias.type.dtype is not node.output.type.dtype:
            _fail(node, None, "type of the bias", node.output.type.dtype.value, bias.type.dtype.value)
        _check_close(node, "scale of the bias", _scales(node, bias), product, SCALE_TOLERANCE)


def _check_sum(node: Node) -> None:
    """Each multiplier is the ratio of its operand's scale to that of the result.

    A sum of 8-bit operands has a scale so fine that the nearest integer serves: it is off by at most half of such a
    fine step. A residual sum happens at the scale of an accumulator, and its ratios must be integers.
    """
    scale = _scales(node, node.output)
    residual = any(v is not None and v.data is None and v.type.dtype.is_accumulator for v in node.inputs[:2])
    for index in range(2):
        value, multiplier = node.input(index), np.ones(1)
        if len(node.inputs) > 2 + index and node.inputs[2 + index] is not None:
            multiplier = np.asarray(node.input(2 + index).data, np.float64)
        if value.is_constant and value.type.qparams is None:
            continue  # a constant at the scale of the result itself
        sign = -1 if index and node.op.name == "sub" else 1
        ratio, multiplier = np.broadcast_arrays(sign * _scales(node, value) / scale, multiplier)
        allowed = RESIDUAL_TOLERANCE * np.abs(ratio) if residual else np.full(ratio.shape, 0.5 + 1e-6)
        for bad in np.flatnonzero(np.abs(ratio - multiplier) > allowed):
            _fail(node, int(bad), f"multiplier of operand {index}", int(multiplier[bad]), float(ratio[bad]))


# ---------------------------------------------------------------------- requantize
def _read_claims(node: Node) -> _Requantize:
    """The planned operands; VerifyError where one is absent, of another type (s64 bounds are s64) or length."""
    channels, found = channels_of(node.output), {}
    for index, name in enumerate(("multiplier", "shift", "acc_min", "acc_max"), start=1):
        value = node.inputs[index] if index < len(node.inputs) else None
        if value is None or value.data is None:
            _fail(node, None, "is not planned", f"a constant {name}", "none")
        sizes = (1, channels) if index <= 2 else (channels,)
        wide = index > 2 and node.input(0).type.dtype is DType.S64
        if (
            value.data.dtype != (np.int64 if wide else np.int32)
            or value.data.ndim != 1
            or value.data.size not in sizes
        ):
            _fail(
                node,
                None,
                f"type of {name}",
                f"{'s64' if wide else 's32'}[{channels}]",
                f"{value.data.dtype}{list(value.data.shape)}",
            )
        found[name] = np.broadcast_to(value.data.astype(np.int64), channels)
    attributes: dict[str, Any] = node.op.attributes()
    low, high, dtype = attributes["low"], attributes["high"], node.output.type.dtype
    rounding, certified = attributes["rounding"], attributes["certified"]
    known = rounding == "ties_up" or (rounding == "twice" and not certified)
    if not known or not dtype.min <= low <= high <= dtype.max:
        _fail(
            node,
            None,
            "rounding and saturation",
            f"{attributes['rounding']}, [{low}, {high}]",
            f"ties_up in {dtype.value}",
        )
    return _Requantize(
        node, **found, zero_point=zero_point(node.output), low=low, high=high, twice=rounding == "twice"
    )


def _check_requantize(node: Node, claims: _Requantize, acc: Bounds, partial: Bounds) -> None:
    """The claims of one requantize, fast paths apart.

    (1) multiplier in [2^23, 2^31) and shift in 1..62; with an accumulator of 32 bits, acc * multiplier + 2^(shift-1)
    stays under 2^62 + 2^61, within 64 bits; of one of more bits the multiplier has fewer. (2) multiplier * 2^-shift is
    the ratio of the scales. (3) The claimed interval holds the recomputed one. (4) accumulator_bits hold every partial sum.
    """
    accumulator, bits = node.input(0).type.dtype, _bits(partial)
    for name, data, low, high in (
        ("multiplier", claims.multiplier, 2 ** min(23, 61 - bits), 2 ** min(31, 63 - bits) - 1),
        ("shift", claims.shift, 1, 62),
    ):
        for bad in np.flatnonzero((data < low) | (data > high)):
            _fail(node, int(bad), f"{name} out of range", int(data[bad]), f"[{low}, {high}]")
    # beyond 2^-32 or 2^29 an accumulator of 32 bits gives 0, or saturates, as it does there
    real = np.clip(_scales(node, node.input(0)) / _scales(node, node.output), 2.0**-32, 2.0**29)
    planned = claims.multiplier.astype(np.float64) * 2.0 ** -claims.shift.astype(np.float64)
    narrow = accumulator is not DType.S64 and node.output.type.dtype is DType.S8
    tolerance = MULTIPLIER_TOLERANCE if narrow else WIDE_TOLERANCE
    _check_close(node, "multiplier * 2^-shift", planned, real, tolerance)
    for bad in np.flatnonzero((acc.low < claims.acc_min) | (acc.high > claims.acc_max)):
        claim = f"[{claims.acc_min[bad]}, {claims.acc_max[bad]}]"
        _fail(node, int(bad), "accumulator interval", claim, f"[{acc.low[bad]}, {acc.high[bad]}]")
    claimed_bits, limit = node.op.attributes()["accumulator_bits"], SUM_BITS.get(accumulator, 32)
    if not bits <= claimed_bits <= limit:
        widest = int(np.argmax(np.maximum(partial.high, -1 - partial.low)))
        _fail(node, widest, "accumulator_bits", claimed_bits, f"{bits} (at most {limit})")


# ---------------------------------------------------------------------- fast paths
FastPath = Callable[[_Requantize, Integers, Integers], Integers]


def _float32(r: _Requantize, acc: Integers, channel: Integers) -> Integers:
    """round_half_even(float32(acc) * float32(multiplier * 2^-shift)) + zero_point, saturated.

    Never falls as acc grows: conversion to float32, the product with a positive number and the rounding to an integer are
    each monotone. -2^63 marks a product that a conversion to int32 does not hold with the zero_point added.
    """
    real = r.multiplier.astype(np.float64) * 2.0 ** -r.shift.astype(np.float64)  # exact: 31 bits
    product = np.rint(acc.astype(np.float32) * real.astype(np.float32)[channel])
    q = np.clip(product.astype(np.int64) + r.zero_point, r.low, r.high)
    return np.where(np.abs(product) <= 2.0**30, q, np.iinfo(np.int64).min)


FAST_PATHS: dict[str, FastPath] = {"f32": _float32}


def _check_fast_path(r: _Requantize, path: str) -> int:
    """Prove the fast path equal to the canonical function on [acc_min, acc_max] of every channel.

    Both functions are monotone. The canonical one is constant on runs of accumulators; where the fast path agrees at both
    ends of a run, it agrees inside. The ends of the runs are those of the interval and both sides of each threshold,
    which bisection finds from the canonical function alone. A short interval is besides tried in full; returns
    the number of channels so tried.
    """
    channels = np.arange(r.acc_min.size)
    bottom, top = r.canonical(r.acc_min, channels), r.canonical(r.acc_max, channels)
    _compare(r, path, np.concatenate([r.acc_min, r.acc_max]), np.concatenate([channels, channels]))
    for block, level in _ragged(channels, bottom + 1, top - bottom):
        left, right = r.acc_min[block], r.acc_max[block]  # canonical(left) < level <= canonical(right)
        real = r.multiplier[block] * 2.0 ** -r.shift[block].astype(np.float64)
        guess = np.rint((level - r.zero_point - 0.5) / real)
        probes = [guess - 1, guess + 1]  # two good first steps of the bisection, no more
        while (right - left > 1).any():
            middle = np.clip(probes.pop(), left, right).astype(np.int64) if probes else (left + right) >> 1
            reached = r.canonical(middle, block) >= level
            left, right = np.where(reached, left, middle), np.where(reached, middle, right)
        _compare(r, path, np.concatenate([left, right]), np.concatenate([block, block]))
    short = channels[r.acc_max - r.acc_min < EXHAUSTIVE]
    for block, acc in _ragged(short, r.acc_min[short], (r.acc_max - r.acc_min + 1)[short]):
        _compare(r, path, acc, block)
    return int(short.size)


def _ragged(channels: Integers, start: Integers, count: Integers) -> Any:
    """Pairs of int64 arrays (channel, value): start, start + 1 ... ``count`` values for each channel, in chunks."""
    ends = np.cumsum(count)
    begin = 0
    while begin < channels.size:
        done = int(ends[begin - 1]) if begin else 0
        end = max(begin + 1, int(np.searchsorted(ends, done + _CHUNK, side="right")))
        size = count[begin:end]
        channel = np.repeat(channels[begin:end], size)
        first = np.repeat(start[begin:end] - (ends[begin:end] - size - done), size)
        yield channel, first + np.arange(channel.size)
        begin = end


def _compare(r: _Requantize, path: str, acc: Integers, channel: Integers) -> None:
    canonical, fast = r.canonical(acc, channel), FAST_PATHS[path](r, acc, channel)
    for bad in np.flatnonzero(canonical != fast):
        what = f"fast path {path} at accumulator {acc[bad]}"
        _fail(r.node, int(channel[bad]), what, f"{fast[bad]} (fast)", f"{canonical[bad]} (canonical)")
