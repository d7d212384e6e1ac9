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
QUARTER = 16  # s32 lanes of a vector
# of interleaved vectors of 64, 32 or 16 lanes: result j has lane 16k + 4j + c at 4k + c, and they lie side by side
ORDER = {
    lanes: np.arange(lanes).reshape(-1, 4, 4).transpose(1, 0, 2).reshape(-1)
    for lanes in (LANES, 2 * QUARTER, QUARTER)
}


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


def in_lanes(array: NDArray[Any]) -> NDArray[Any]:
    """[C] to [blocks, 64] in the order of interleaved lanes, zero-padded."""
    return np.pad(array, (0, -len(array) % LANES)).reshape(-1, LANES)[:, ORDER[LANES]]
