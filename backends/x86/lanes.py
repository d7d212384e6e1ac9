"""Packing for kernels that work on vectors of 64 int8 lanes, in the order of qcc_avx512_lanes.h."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcc.backends.kernel import Step
from qcc.backends.scalar.lowering import requantize_constants
from qcc.ir.ops.quant import Requantize

KERNELS_FOLDER = Path(__file__).parent / "kernels"
LANES = 64
_ORDER = np.arange(LANES).reshape(4, 4, 4).transpose(1, 0, 2).reshape(-1)  # lane 16a + 4b + c at 16b + 4a + c


def source(symbol: str) -> Path:
    """The C file of a kernel: the symbol without its prefix."""
    return KERNELS_FOLDER / f"{symbol.removeprefix('qcc_')}.c"


def certified(step: Step) -> str | None:
    """The requantize at the end must equal its float32 form for every accumulator that can occur."""
    op = step.nodes[-1].op
    assert isinstance(op, Requantize)
    return None if "f32" in op.certified else "the requantize is not certified for float32"


def float_scale(step: Step, channels: int | None = None) -> NDArray[np.float32]:
    """multiplier * 2^-shift: [channels], or [1] or [C] as they are. Exact where the requantize is certified."""
    planned = requantize_constants(step, channels)
    scale = planned["multiplier"].astype(np.float64) * np.exp2(-planned["shift"].astype(np.float64))
    return scale.astype(np.float32)


def in_lanes(array: NDArray[Any], pixels: int = 1) -> NDArray[Any]:
    """[..., C] to [blocks, ..., 64] in the order of interleaved lanes, zero-padded; ``pixels`` copies side by side."""
    repeated = np.tile(array, pixels)
    padding = [(0, 0)] * (array.ndim - 1) + [(0, -repeated.shape[-1] % LANES)]
    blocks = np.pad(repeated, padding).reshape(*array.shape[:-1], -1, LANES)[..., _ORDER]
    return np.ascontiguousarray(np.moveaxis(blocks, -2, 0))
