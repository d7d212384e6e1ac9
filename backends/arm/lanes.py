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
    """m and k of qcc_neon.h: multiplier * 2^-shift = m * 2^-(47 - k), -1 for k where there are none.

    k is in [0, 31]. With acc * 2^k saturated, m must be in [_SMALLEST, _LARGEST]; with k = 0 nothing saturates.
    """
    planned = requantize_constants(step, channels)
    m, shift = (planned[name].astype(np.int64) for name in ("multiplier", "shift"))
    k = _SHIFT - shift
    halved = m // 2  # twice the reach before acc * 2^k saturates, and the same product
    halve = (m > _LARGEST) & (m % 2 == 0) & (k < 31)
    m, k = np.where(halve, halved, m), np.where(halve, k + 1, k)
    small = np.clip(-k, 0, 62)
    exact = (k < 0) & (m % (np.int64(1) << small) == 0)
    m, k = np.where(exact, m >> small, m), np.where(exact, 0, k)
    k = np.where(m == 0, 0, k)
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
