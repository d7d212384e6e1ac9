"""Rows of pooling, and of means and sums over neighbouring axes for NEON."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from qcc.backends.arm.lanes import LANES, accepts_requantize, requantization, source
from qcc.backends.kernel import Call, Kernel, Step
from qcc.backends.scalar.sums import accepts_sum, lower_sum, sum_window
from qcc.backends.scalar.window import lower_max_pool2d, lower_s8_avg_pool2d

_BLOCK = 16  # channels


def _scale(step: Step, channels: int) -> NDArray[np.int32]:
    """m and k of each channel, s32[vectors, 2, 4]."""
    pair = np.stack(requantization(step))
    pair = np.pad(np.tile(pair, channels // pair.shape[1]), ((0, 0), (0, -channels % _BLOCK)))
    return np.ascontiguousarray(pair.reshape(2, -1, LANES).swapaxes(0, 1).astype(np.int32))


def lower_avg_pool2d(step: Step) -> Call:
    """s8_avg_pool2d_neon."""
    call = lower_s8_avg_pool2d(step)
    scale = _scale(step, step.output.type.shape[-1])
    return replace(call, constants={"factors": call.constants["factors"], "scale": scale})


def lower_reduce(step: Step) -> Call:
    """s8_avg_pool2d_neon: a window of one row."""
    params = sum_window(step)
    return Call(params, {"factors": None, "scale": _scale(step, params["channels"])})


def accepts_reduce(step: Step) -> str | None:
    """Neighbouring axes, not the last ones, of multipliers that fit."""
    return accepts_sum(step) or accepts_requantize(step)


_MEANS = "qcc_s8_avg_pool2d_neon"
_SUMS = "qcc_s8_sum_accumulator_neon"
_MAX = "qcc_s8_max_pool2d_neon"

ROWS: tuple[Kernel, ...] = (
    *(
        Kernel(
            pattern=f"{op}+requantize",
            dtype="s8",
            symbol=_MEANS,
            params_type="qcc_avg_pool2d_params",
            source=source(_MEANS),
            lower=lower,
            accepts=accepts,
            priority=10,
        )
        for op, lower, accepts in (
            ("avg_pool2d", lower_avg_pool2d, accepts_requantize),
            ("reduce_mean", lower_reduce, accepts_reduce),
            ("reduce_sum", lower_reduce, accepts_reduce),
        )
    ),
    Kernel("max_pool2d", "s8", _MAX, "qcc_max_pool2d_params", source(_MAX), lower_max_pool2d, priority=10),
    *(
        Kernel(op, "s8", _SUMS, "qcc_neon_sum_params", source(_SUMS), lower_sum, accepts_sum, priority=10)
        for op in ("reduce_mean", "reduce_sum")
    ),
)
