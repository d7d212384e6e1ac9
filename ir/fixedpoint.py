"""THE arithmetic: quantize, dequantize, requantize. Every kernel equals these functions bit for bit.

(1)  real = scale * (q - zero_point)
(2)  quantize(x)   = saturate(round_half_even(x / scale) + zero_point), in float32 (ONNX QuantizeLinear)
(3)  multiplier, shift: real multiplier = multiplier * 2^-shift, multiplier in [2^30, 2^31), shift in 1..62; fewer
     bits for an accumulator of more than 32, so that (4) stays within 64
(4)  requantize(a) = saturate(((a * multiplier + 2^(shift-1)) >> shift) + zero_point), in 64 bits (TOSA
     SINGLE_ROUND): one rounding, ties upward

(1), (3) run in the compiler, in float64; (2) runs at a float boundary; (4) on the device, in integers only.
See NUMERICS.md.
"""

from __future__ import annotations

from math import frexp
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qcc.ir.qparams import QParams

Integers = NDArray[np.int64]

MULTIPLIER_MAX = 2**31 - 1
SHIFT_MIN, SHIFT_MAX = 1, 62
ROUNDINGS = ("ties_up", "twice")
ONE_ROUNDING = 31  # the shift up to which rounding twice is rounding once
_BLOCK = 2**16  # elements


def saturate(q: NDArray[Any], low: int, high: int) -> NDArray[Any]:
    """Clamp to [low, high]."""
    return np.asarray(np.minimum(np.maximum(q, low), high))


def quantize(x: NDArray[Any], qparams: QParams) -> NDArray[Any]:
    """Equation (2): float32 in, the integer type of ``qparams`` out. Per-channel along ``qparams.axis``.

    Infinities saturate; NaN becomes the zero_point.
    """
    low, high = qparams.code_range
    scale = qparams.scale_array(np.ndim(x)).astype(np.float32)
    with np.errstate(over="ignore"):
        q = np.rint(np.asarray(x, np.float32) / scale) + np.float32(qparams.zero_point)
    finite = np.nan_to_num(saturate(q, low, high), nan=qparams.zero_point)
    return np.asarray(finite, _NUMPY[qparams.dtype])


def quantize_exactly(x: ArrayLike, qparams: QParams) -> NDArray[Any]:
    """Equation (2) in float64: for weights, biases and tables, which the compiler computes once."""
    low, high = qparams.code_range
    q = np.rint(np.asarray(x, np.float64) / qparams.scale_array(np.ndim(x))) + qparams.zero_point
    return saturate(q, low, high).astype(_NUMPY[qparams.dtype])


def dequantize(q: NDArray[Any], qparams: QParams) -> NDArray[np.float32]:
    """Equation (1) in float32: (q - zero_point) is exact there for 8 and 16 bits; one rounding."""
    scale = qparams.scale_array(np.ndim(q)).astype(np.float32)
    centred = (np.asarray(q, np.int64) - qparams.zero_point).astype(np.float32)
    return np.asarray(centred * scale, np.float32)


def fake_quantize(x: NDArray[Any], qparams: QParams) -> NDArray[np.float32]:
    """dequantize(quantize(x)): the meaning of an annotated float value.

    In float32, which holds codes of 8 and 16 bits, and in blocks that stay in the cache.
    """
    low, high = qparams.code_range
    if qparams.axis is not None or max(-low, high) >= 2**24:
        return dequantize(quantize(x, qparams), qparams)
    x = np.asarray(x, np.float32, order="C")
    found = np.empty_like(x)
    scale, zero_point = (np.float32(v) for v in (qparams.scale[0], qparams.zero_point))
    flat, out = x.reshape(-1), found.reshape(-1)
    with np.errstate(over="ignore", invalid="ignore"):
        for start in range(0, flat.size, _BLOCK):
            part = out[start : start + _BLOCK]
            np.rint(flat[start : start + _BLOCK] / scale, out=part)
            part += zero_point
            np.clip(part, low, high, out=part)
            part -= zero_point
            part *= scale
            part[np.isnan(part)] = 0
    return found


def quantize_multiplier(real: float, bits: int = 31) -> tuple[int, int]:
    """Equation (3) for a positive real multiplier; ValueError when no shift in 1..62 represents it.

    ``bits``: of the multiplier, which lies in [2^(bits-1), 2^bits).
    """
    mantissa, exponent = frexp(real)
    multiplier, shift = round(mantissa * 2**bits), bits - exponent
    if multiplier == 2**bits:
        multiplier, shift = 2 ** (bits - 1), shift - 1
    if not (real > 0 and SHIFT_MIN <= shift <= SHIFT_MAX):
        raise ValueError(
            f"multiplier {real!r} is outside the range of a {bits + 1}-bit multiplier and a shift of 1 to 62"
        )
    return multiplier, shift


def multiplier_bits(bound: int) -> int:
    """Bits of a multiplier with which (4) stays within 64 for accumulators |a| <= ``bound``; 31 up to 2^31."""
    return min(31, 62 - int(bound).bit_length())


def requantize(
    acc: NDArray[Any],
    multiplier: ArrayLike,
    shift: ArrayLike,
    zero_point: int,
    low: int,
    high: int,
    dtype: type[np.signedinteger[Any]] = np.int64,
    rounding: str = "ties_up",
) -> NDArray[Any]:
    """Equation (4), saturating to [low, high], which ``dtype`` holds. ``multiplier`` and ``shift``: scalars, or [C].

    ``rounding``: one of ROUNDINGS. "twice" is what gemmlowp does (TOSA DOUBLE_ROUND): the product to 31 bits, ties up,
    then to an integer, ties away from zero. From a shift of 32 on that is equation (4) with 2^30 more, or less for a
    negative acc, before the shift; below there is one rounding.

    ``acc`` is [..., C]; it is worked on in blocks, whose 64-bit values stay in the cache.
    """
    m, s = np.asarray(multiplier, np.int64), np.asarray(shift, np.int64)
    half = np.int64(1) << (s - 1)
    again = np.where(s > ONE_ROUNDING, np.int64(1) << 30, 0) if rounding == "twice" else None
    result = np.empty(np.shape(acc), dtype)
    rows, results = (a.reshape(-1, a.shape[-1] if a.ndim else 1) for a in (np.asarray(acc), result))
    count = max(1, _BLOCK // max(1, rows.shape[1]))
    for start in range(0, len(rows), count):
        q = rows[start : start + count].astype(np.int64)
        again_here = None if again is None else np.where(q < 0, -again, again)
        q *= m
        q += half
        if again_here is not None:
            q += again_here
        q >>= s
        q += zero_point
        results[start : start + count] = saturate(q, low, high)
    return result


_NUMPY: dict[str, type[np.signedinteger[Any]] | type[np.unsignedinteger[Any]]] = {
    "s8": np.int8,
    "u8": np.uint8,
    "s16": np.int16,
    "s32": np.int32,
    "s64": np.int64,
}
