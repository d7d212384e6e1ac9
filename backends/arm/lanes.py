"""Packing that the NEON kernels share: multipliers, and channels in vectors of four."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcc.backends.kernel import Step
from qcc.backends.scalar.lowering import requantize_constants

KERNELS_FOLDER = Path(__file__).parent / "kernels"
LANES = 4  # s32 accumulators of a register
_SHIFT = 47  # of the high half of a doubled product, and of the high half of that
_LARGEST = 2**31 - 2**24  # m up to here: no saturated accumulator leaves 16 bits
_SMALLEST = 2**25  # m from here on: a saturated accumulator is beyond 8 bits


def source(symbol: str) -> Path:
    """The C file of a kernel: the symbol without its prefix."""
    return KERNELS_FOLDER / f"{symbol.removeprefix('qcc_')}.c"


def requantization(step: Step, channels: int | None = None) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """``fixed_point`` of the multipliers of a step, of [channels], or [1] or [C] as they are."""
    planned = requantize_constants(step, channels)
    return fixed_point(planned["multiplier"].astype(np.int64), planned["shift"].astype(np.int64))


def fixed_point(
    m: NDArray[np.int64], shift: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """m and k of qcc_neon.h: multiplier * 2^-shift = m * 2^-(47 - k), with -1 for k where there are none.

    k is in [0, 31]. Where acc * 2^k can saturate (k > 0), m must be in [_SMALLEST, _LARGEST].
    """
    k = _SHIFT - shift
    halve = (m > _LARGEST) & (m % 2 == 0) & (k < 31)  # the same product
    m, k = np.where(halve, m // 2, m), np.where(halve, k + 1, k)
    power = np.left_shift(1, np.clip(-k, 0, 62))
    exact = (k < 0) & (m % power == 0)
    m, k = np.where(exact, m // power, m), np.where(exact | (m == 0), 0, k)
    fits = (m == 0) | ((k >= 0) & (k <= 31) & ((k == 0) | (m >= _SMALLEST)) & (m <= _LARGEST))
    return m, np.where(fits, k, -1)


def accepts_requantize(step: Step) -> str | None:
    """The multipliers must have the form of qcc_neon.h."""
    return "a multiplier is out of range" if (requantization(step)[1] < 0).any() else None


def pack_scale(step: Step, channels: int, multiple: int = LANES) -> NDArray[np.int32]:
    """s32[vectors, 2, 4]: m and k."""
    pair = np.stack(requantization(step, channels))
    padded = np.pad(pair, ((0, 0), (0, -channels % multiple)))
    return np.ascontiguousarray(padded.reshape(2, -1, LANES).swapaxes(0, 1).astype(np.int32))


def padded(array: NDArray[Any], multiple: int = LANES) -> NDArray[Any]:
    """[..., C] to [..., C rounded up], zeros behind."""
    padding = [(0, 0)] * (array.ndim - 1) + [(0, -array.shape[-1] % multiple)]
    return np.ascontiguousarray(np.pad(array, padding))
