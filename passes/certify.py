"""Certified multipliers: a requantize that a SIMD unit computes in float32, proved equal to the 64-bit one.

Over an accumulator interval the canonical requantize is a monotone step function with at most 255 thresholds. The
fast path

    q = round_half_even(float32(acc) * m) + zero_point,  saturated,  m = multiplier * 2^-shift in float32

is monotone too, so both are equal on the whole interval if they agree on both sides of every threshold. A
multiplier of 24 significant bits is exact in float32; the search tries the neighbours of the real scale.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import frexp
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from qcc.ir.fixedpoint import SHIFT_MAX, SHIFT_MIN, quantize_multiplier

FLOAT32 = "f32"  # name of the fast path in Requantize.certified
NEIGHBOURS = 256  # each step moves the scale by 2^-24 to 2^-23
_CANDIDATES = 64  # multipliers tried at a time, where few channels are left
_LOW_BITS = 7  # a 31-bit multiplier whose 7 low bits are zero has 24 significant ones

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Certified:
    """multiplier and shift, int64[C]; ``certified``: bool[C], where the float32 fast path is proved equal."""

    multiplier: Integers
    shift: Integers
    certified: NDArray[np.bool_]


Like = Literal["free", "nearest", "float32"]


def certify(
    real: NDArray[np.float64],
    low: Integers,
    high: Integers,
    zero_point: int,
    q_low: int,
    q_high: int,
    like: Like = "free",
) -> Certified:
    """Choose multipliers next to ``real`` (float64[C]) for accumulators in [low, high] (int64[C]).

    A channel without certificate keeps the nearest 31-bit multiplier. ``like``: whose integers a certified choice yields.
    Those of any multiplier near ``real``; of the nearest 31-bit one; or of float32(acc) * float32(real), rounded half
    to even.
    """
    exact = nearest(real)
    multiplier, shift = exact.multiplier, exact.shift
    steps_up = np.arange(q_low - zero_point + 1, q_high - zero_point + 1, dtype=np.int64)
    exact_thresholds = _thresholds(multiplier, shift, steps_up)
    done = np.zeros(real.size, np.bool_)
    base = np.array([round(frexp(float(r))[0] * 2**24) for r in real], np.int64)
    base_shift = np.array([24 - frexp(float(r))[1] + _LOW_BITS for r in real], np.int64)
    steps = np.arange(1, NEIGHBOURS + 1)
    offsets = np.concatenate([[0], np.stack([steps, -steps], axis=1).ravel()])  # the nearest first
    # 24 bits are exact in float32; to follow a product in float32, all that round to the same factor are tried
    unit = 1 if like == "float32" else 2**_LOW_BITS
    tried = 0
    while tried < offsets.size and not done.all():
        open_ = np.flatnonzero(~done)
        count = max(1, _CANDIDATES // open_.size)
        candidate = (base[open_, None] << _LOW_BITS) + offsets[tried : tried + count] * unit
        tried += count
        fits = (candidate >= 2**30) & (candidate < 2**31)
        fits &= ((base_shift[open_] >= SHIFT_MIN) & (base_shift[open_] <= SHIFT_MAX))[:, None]
        row = np.nonzero(fits)[0]
        chosen, m = open_[row], candidate[fits]
        interval = (low[chosen], high[chosen])
        agree = agrees_in_float32(m, base_shift[chosen], *interval, zero_point, q_low, q_high)
        if like == "nearest":
            ends = interval[0][:, None], interval[1][:, None] + 1
            found, wanted = _thresholds(m, base_shift[chosen], steps_up), exact_thresholds[chosen]
            agree &= (np.clip(found, *ends) == np.clip(wanted, *ends)).all(axis=1)
        elif like == "float32":
            agree &= agrees_in_float32(
                m, base_shift[chosen], *interval, zero_point, q_low, q_high, real[chosen]
            )
        channels, first = np.unique(chosen[agree], return_index=True)
        multiplier[channels], shift[channels] = m[agree][first], base_shift[channels]
        done[channels] = True
    return Certified(multiplier, shift, done)


def nearest(real: NDArray[np.float64], bits: int = 31) -> Certified:
    """The multipliers of ``bits`` bits nearest to ``real`` (float64[C]), without certificates."""
    pairs = np.array([quantize_multiplier(float(r), bits) for r in real], np.int64).reshape(-1, 2)
    return Certified(pairs[:, 0], pairs[:, 1], np.zeros(real.size, np.bool_))


def agrees_in_float32(
    multiplier: Integers,
    shift: Integers,
    low: Integers,
    high: Integers,
    zero_point: int,
    q_low: int,
    q_high: int,
    real: NDArray[np.float64] | None = None,
) -> NDArray[np.bool_]:
    """bool[C]: the fast path equals the canonical requantize for every accumulator in [low, high].

    ``real``: float64[C], what the fast path multiplies by, where that is not multiplier * 2^-shift.
    """
    steps = np.arange(
        q_low - zero_point + 1, q_high - zero_point + 1, dtype=np.int64
    )  # values left of a threshold
    threshold = _thresholds(multiplier, shift, steps)  # [C, T]
    factor = multiplier.astype(np.float64) * 2.0 ** -shift.astype(np.float64) if real is None else real
    m = factor.astype(np.float32)[:, None]
    low, high = low[:, None], high[:, None]
    inside = (threshold > low) & (threshold <= high)
    at = np.clip(threshold, low, high)
    before = np.clip(threshold - 1, low, high)
    right = (_fast(at, m) >= steps) & (_fast(before, m) < steps)
    # outside the interval the threshold must not be crossed inside it by the fast path either
    never = (threshold > high) & (_fast(np.broadcast_to(high, threshold.shape), m) < steps)
    always = (threshold <= low) & (_fast(np.broadcast_to(low, threshold.shape), m) >= steps)
    return np.asarray(((inside & right) | never | always).all(axis=1) & _converts(low, high, m)[:, 0])


def _thresholds(multiplier: Integers, shift: Integers, steps: Integers) -> Integers:
    """Smallest acc with (acc * M + 2^(s-1)) >> s >= k: ceil((k * 2^s - 2^(s-1)) / M), int64[C, K]."""
    thresholds = np.empty((shift.size, steps.size), np.int64)
    small = shift <= 50  # k * 2^s fits 64 bits
    s = shift[small, None]
    thresholds[small] = -(((np.int64(1) << (s - 1)) - (steps << s)) // multiplier[small, None])
    for index in np.flatnonzero(~small).tolist():
        m, wide = int(multiplier[index]), int(shift[index])
        exact = [-(((1 << (wide - 1)) - (k << wide)) // m) for k in steps.tolist()]
        thresholds[index] = np.clip(np.array(exact, dtype=object), -(2**62), 2**62).astype(np.int64)
    return thresholds


def _fast(acc: Integers, m: NDArray[np.float32]) -> Integers:
    """round_half_even(float32(acc) * m), as cvtdq2ps, mulps, cvtps2dq compute it."""
    return np.asarray(np.rint(acc.astype(np.float32) * m), np.int64)


def _converts(low: Integers, high: Integers, m: NDArray[np.float32]) -> NDArray[np.bool_]:
    """The product must stay inside int32, where the conversion back is defined."""
    return np.asarray(np.maximum(np.abs(low), np.abs(high)) * m.astype(np.float64) < 2.0**30)
