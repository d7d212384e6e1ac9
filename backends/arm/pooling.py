"""Rows of pooling, and of means and sums over neighbouring axes for NEON."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qcc.backends.arm.lanes import LANES, accepts_requantize, requantization, source
from qcc.backends.kernel import Kernel, Step
from qcc.backends.scalar.sums import accepts_sum, lower_sum
from qcc.backends.scalar.vectors import mean_rows
from qcc.backends.scalar.window import lower_max_pool2d

_BLOCK = 16  # channels


def _scale(step: Step, channels: int) -> dict[str, NDArray[np.int32]]:
    """m and k of each channel, s32[vectors, 2, 4]."""
    pair = np.stack(requantization(step))
    pair = np.pad(np.tile(pair, channels // pair.shape[1]), ((0, 0), (0, -channels % _BLOCK)))
    return {"scale": np.ascontiguousarray(pair.reshape(2, -1, LANES).swapaxes(0, 1).astype(np.int32))}


_MEANS = "qcc_s8_avg_pool2d_neon"
_SUMS = "qcc_s8_sum_accumulator_neon"
_MAX = "qcc_s8_max_pool2d_neon"

ROWS: tuple[Kernel, ...] = (
    *mean_rows(_MEANS, source(_MEANS), _scale, accepts_requantize),
    Kernel("max_pool2d", "s8", _MAX, "qcc_max_pool2d_params", source(_MAX), lower_max_pool2d, priority=10),
    *(
        Kernel(op, "s8", _SUMS, "qcc_neon_sum_params", source(_SUMS), lower_sum, accepts_sum, priority=10)
        for op in ("reduce_mean", "reduce_sum")
    ),
)
