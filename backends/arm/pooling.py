"""Rows of pooling, of means over neighbouring axes, and of interleaving for NEON."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from qcc.backends.arm.lanes import LANES, accepts_requantize, requantization, source
from qcc.backends.kernel import Call, Kernel, Step
from qcc.backends.scalar.window import lower_max_pool2d
from qcc.backends.x86 import pooling
from qcc.backends.x86.avx2_elementwise import accepts_interleave, lower_interleave

_BLOCK = 16  # channels


def _with_scales(call: Call, step: Step) -> Call:
    """The same call with the multipliers of each channel in place of float scales."""
    channels = call.params["channels"]
    assert isinstance(channels, int)
    pair = np.stack(requantization(step))
    pair = np.pad(np.tile(pair, channels // pair.shape[1]), ((0, 0), (0, -channels % _BLOCK)))
    scale = np.ascontiguousarray(pair.reshape(2, -1, LANES).swapaxes(0, 1).astype(np.int32))
    return replace(call, constants={"factors": call.constants["factors"], "scale": scale})


def lower_avg_pool2d(step: Step) -> Call:
    """s8_avg_pool2d_neon."""
    return _with_scales(pooling.lower_avg_pool2d(step), step)


def lower_reduce(step: Step) -> Call:
    """s8_avg_pool2d_neon: a window of one row."""
    return _with_scales(pooling.lower_reduce(step), step)


def accepts_reduce(step: Step) -> str | None:
    """Neighbouring axes, not the last ones, of multipliers that fit."""
    return pooling.accepts_sum(step) or accepts_requantize(step)


_MEANS = "qcc_s8_avg_pool2d_neon"
_MAX = "qcc_s8_max_pool2d_neon"
_INTERLEAVE = "qcc_s8_interleave_neon"

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
    Kernel(
        "transpose",
        "s8",
        _INTERLEAVE,
        "qcc_neon_interleave_params",
        source(_INTERLEAVE),
        lower_interleave,
        accepts_interleave,
        priority=10,
    ),
)
