"""Rows of pooling, and of means and sums over neighbouring axes, for AVX512."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qcc.backends.kernel import Kernel, Step
from qcc.backends.scalar.sums import accepts_sum, lower_sum
from qcc.backends.scalar.vectors import mean_rows
from qcc.backends.scalar.window import lower_max_pool2d
from qcc.backends.x86.lanes import certified, float_scale, in_lanes, source


def _scale(step: Step, channels: int) -> dict[str, NDArray[np.float32]]:
    """The scale of each channel, in lanes."""
    scale = float_scale(step)
    return {"scale": in_lanes(np.tile(scale, channels // scale.size))}


_MEANS = "qcc_s8_avg_pool2d_avx512vnni"
_SUMS = "qcc_s8_sum_accumulator_avx512vnni"
_MAX = "qcc_s8_max_pool2d_avx512"

KERNELS: tuple[Kernel, ...] = (
    *mean_rows(_MEANS, source(_MEANS), _scale, certified, uses_float=True),
    *(
        Kernel(op, "s8", _SUMS, "qcc_avx512_sum_params", source(_SUMS), lower_sum, accepts_sum, priority=10)
        for op in ("reduce_mean", "reduce_sum")
    ),
    Kernel("max_pool2d", "s8", _MAX, "qcc_max_pool2d_params", source(_MAX), lower_max_pool2d, priority=10),
)
