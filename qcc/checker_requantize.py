"""The checker's part for requantize nodes: their claims, and the fast paths that equal them.

A requantize claims a multiplier and a shift, an interval of the accumulator, and that another way of computing it yields
the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcc.checker_rules import Bounds, channels_of, fail, zero_point
from qcc.checker_scales import check_close, scales_of
from qcc.ir.graph import Node
from qcc.ir.types import DType

Integers = NDArray[np.int64]

# Bits of an accumulator, by its type: what s64 has left is for the multiplier.
SUM_BITS = {DType.S32: 32, DType.S64: 43}
# A planned multiplier may leave the ratio of the scales by 256.5 steps of 2^-23, which is just over 2^-15. At 2^-14
# it moves the largest result, 255 steps from the zero_point, by 1/64 of a step.
MULTIPLIER_TOLERANCE = 2.0**-14
WIDE_TOLERANCE = 2.0**-19  # of a result of 16 bits, or of a sum of 64: it moves 2^15 steps by 1/16 of one
EXHAUSTIVE = 2**16  # accumulators of a channel up to which all of them are tried
_CHUNK = 2**20  # accumulators evaluated at a time


@dataclass(frozen=True)
class Requantize:
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


def bits_of(bounds: Bounds) -> int:
    """Two's complement bits that hold all of ``bounds``."""
    return max(max(int(bounds.high.max()), -int(bounds.low.min()) - 1).bit_length() + 1, 1)


# ---------------------------------------------------------------------- claims
def read_claims(node: Node) -> Requantize:
    """The planned operands; VerifyError where one is absent, of another type (s64 bounds are s64) or length."""
    channels, found = channels_of(node.output), {}
    for index, name in enumerate(("multiplier", "shift", "acc_min", "acc_max"), start=1):
        value = node.inputs[index] if index < len(node.inputs) else None
        if value is None or value.data is None:
            fail(node, None, "is not planned", f"a constant {name}", "none")
        sizes = (1, channels) if index <= 2 else (channels,)
        wide = index > 2 and node.input(0).type.dtype is DType.S64
        if (
            value.data.dtype != (np.int64 if wide else np.int32)
            or value.data.ndim != 1
            or value.data.size not in sizes
        ):
            fail(
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
        fail(
            node,
            None,
            "rounding and saturation",
            f"{attributes['rounding']}, [{low}, {high}]",
            f"ties_up in {dtype.value}",
        )
    return Requantize(
        node, **found, zero_point=zero_point(node.output), low=low, high=high, twice=rounding == "twice"
    )


def check_requantize(node: Node, claims: Requantize, acc: Bounds, partial: Bounds) -> None:
    """The claims of one requantize, fast paths apart.

    (1) multiplier in [2^23, 2^31) and shift in 1..62; with an accumulator of 32 bits, acc * multiplier + 2^(shift-1)
    stays under 2^62 + 2^61, within 64 bits; of one of more bits the multiplier has fewer. (2) multiplier * 2^-shift is
    the ratio of the scales. (3) The claimed interval holds the recomputed one. (4) accumulator_bits hold every partial sum.
    """
    accumulator, bits = node.input(0).type.dtype, bits_of(partial)
    for name, data, low, high in (
        ("multiplier", claims.multiplier, 2 ** min(23, 61 - bits), 2 ** min(31, 63 - bits) - 1),
        ("shift", claims.shift, 1, 62),
    ):
        for bad in np.flatnonzero((data < low) | (data > high)):
            fail(node, int(bad), f"{name} out of range", int(data[bad]), f"[{low}, {high}]")
    # beyond 2^-32 or 2^29 an accumulator of 32 bits gives 0, or saturates, as it does there
    real = np.clip(scales_of(node, node.input(0)) / scales_of(node, node.output), 2.0**-32, 2.0**29)
    planned = claims.multiplier.astype(np.float64) * 2.0 ** -claims.shift.astype(np.float64)
    narrow = accumulator is not DType.S64 and node.output.type.dtype is DType.S8
    tolerance = MULTIPLIER_TOLERANCE if narrow else WIDE_TOLERANCE
    check_close(node, "multiplier * 2^-shift", planned, real, tolerance)
    for bad in np.flatnonzero((acc.low < claims.acc_min) | (acc.high > claims.acc_max)):
        claim = f"[{claims.acc_min[bad]}, {claims.acc_max[bad]}]"
        fail(node, int(bad), "accumulator interval", claim, f"[{acc.low[bad]}, {acc.high[bad]}]")
    claimed_bits, limit = node.op.attributes()["accumulator_bits"], SUM_BITS.get(accumulator, 32)
    if not bits <= claimed_bits <= limit:
        widest = int(np.argmax(np.maximum(partial.high, -1 - partial.low)))
        fail(node, widest, "accumulator_bits", claimed_bits, f"{bits} (at most {limit})")


# ---------------------------------------------------------------------- fast paths
FastPath = Callable[[Requantize, Integers, Integers], Integers]


def _float32(r: Requantize, acc: Integers, channel: Integers) -> Integers:
    """round_half_even(float32(acc) * float32(multiplier * 2^-shift)) + zero_point, saturated.

    Never falls as acc grows: conversion to float32, the product with a positive number and the rounding to an integer are
    each monotone. -2^63 marks a product that a conversion to int32 does not hold with the zero_point added.
    """
    real = r.multiplier.astype(np.float64) * 2.0 ** -r.shift.astype(np.float64)  # exact: 31 bits
    product = np.rint(acc.astype(np.float32) * real.astype(np.float32)[channel])
    q = np.clip(product.astype(np.int64) + r.zero_point, r.low, r.high)
    return np.where(np.abs(product) <= 2.0**30, q, np.iinfo(np.int64).min)


FAST_PATHS: dict[str, FastPath] = {"f32": _float32}


def check_fast_path(r: Requantize, path: str) -> int:
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


def _compare(r: Requantize, path: str, acc: Integers, channel: Integers) -> None:
    canonical, fast = r.canonical(acc, channel), FAST_PATHS[path](r, acc, channel)
    for bad in np.flatnonzero(canonical != fast):
        what = f"fast path {path} at accumulator {acc[bad]}"
        fail(r.node, int(channel[bad]), what, f"{fast[bad]} (fast)", f"{canonical[bad]} (canonical)")
