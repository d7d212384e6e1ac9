"""Rows of pooling, and of means and sums over neighbouring axes, for AVX512."""

from __future__ import annotations

import numpy as np

from qcc.backends.kernel import Call, Kernel, Step
from qcc.backends.scalar.sums import accepts_sum, lower_sum, sum_window
from qcc.backends.scalar.window import lower_max_pool2d, lower_s8_avg_pool2d
from qcc.backends.x86.lanes import certified, float_scale, in_lanes, source


def accepts_reduce(step: Step) -> str | None:
    """As accepts_sum, and certified."""
    return accepts_sum(step) or certified(step)


def lower_reduce(step: Step) -> Call:
    """s8_avg_pool2d_avx512vnni: a window of one row; the scale of a mean is in the requantization."""
    params, scale = sum_window(step), float_scale(step)
    repeated = np.tile(scale, params["channels"] // scale.size)
    return Call(params, {"factors": None, "scale": in_lanes(repeated)})


def lower_avg_pool2d(step: Step) -> Call:
    """s8_avg_pool2d_avx512vnni: the scalar row's numbers, and the scale of each channel."""
    call = lower_s8_avg_pool2d(step)
    scale = float_scale(step, step.output.type.shape[-1])
    return Call(call.params, {"factors": call.constants["factors"], "scale": in_lanes(scale)})


_MEANS = "qcc_s8_avg_pool2d_avx512vnni"
_SUMS = "qcc_s8_sum_accumulator_avx512vnni"
_MAX = "qcc_s8_max_pool2d_avx512"

KERNELS: tuple[Kernel, ...] = (
    *(
        Kernel(
            pattern=f"{op}+requantize",
            dtype="s8",
            symbol=_MEANS,
            params_type="qcc_avg_pool2d_params",
            source=source(_MEANS),
            lower=lowering,
            accepts=accepts,
            priority=10,
            uses_float=True,
        )
        for op, lowering, accepts in (
            ("avg_pool2d", lower_avg_pool2d, certified),
            ("reduce_mean", lower_reduce, accepts_reduce),
            ("reduce_sum", lower_reduce, accepts_reduce),
        )
    ),
    *(
        Kernel(op, "s8", _SUMS, "qcc_avx512_sum_params", source(_SUMS), lower_sum, accepts_sum, priority=10)
        for op in ("reduce_mean", "reduce_sum")
    ),
    Kernel("max_pool2d", "s8", _MAX, "qcc_max_pool2d_params", source(_MAX), lower_max_pool2d, priority=10),
)
