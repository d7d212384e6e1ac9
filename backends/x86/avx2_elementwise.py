"""Rows of AVX2 that compute the same as those of AVX512: pooling, means, sums, products, requantization, interleaving."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from qcc.backends.kernel import Call, Kernel, Step
from qcc.backends.scalar.runs import accepts_interleave, lower_interleave
from qcc.backends.x86 import elementwise, pooling
from qcc.backends.x86.lanes import float_scale, source

_BLOCK = 16  # channels that the kernels of pooling load at a time


def with_channel_scales(lower: Callable[[Step], Call]) -> Callable[[Step], Call]:
    """The same call with the scale of each channel in its order, zero-padded to whole vectors."""

    def lowered(step: Step) -> Call:
        call = lower(step)
        if "scale" not in call.constants:
            return call
        channels, scale = call.params["channels"], float_scale(step)
        assert isinstance(channels, int)
        scales = np.pad(np.tile(scale, channels // scale.size), (0, -channels % _BLOCK))
        return replace(call, constants={**call.constants, "scale": scales})

    return lowered


def _row(kernel: Kernel, lower: Callable[[Step], Call]) -> Kernel:
    """A row of AVX512 with the function of AVX2 that does the same."""

    def renamed(name: str) -> str:
        return name.replace("avx512vnni", "avx2").replace("avx512", "avx2")

    return replace(
        kernel,
        symbol=renamed(kernel.symbol),
        params_type=renamed(kernel.params_type),
        source=source(renamed(kernel.source.stem)),
        lower=lower,
    )


ROWS: tuple[Kernel, ...] = (
    *(_row(kernel, with_channel_scales(kernel.lower)) for kernel in pooling.KERNELS),
    *(_row(kernel, kernel.lower) for kernel in elementwise.KERNELS),
    Kernel(
        "transpose",
        "s8",
        "qcc_s8_interleave_avx2",
        "qcc_avx2_interleave_params",
        source("qcc_s8_interleave_avx2"),
        lower_interleave,
        accepts_interleave,
        priority=10,
    ),
)
