"""Rows of the depthwise convolutions for AVX512-VNNI."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcc.backends.kernel import Call, Kernel, Step
from qcc.backends.scalar.convolution import accepts_depthwise, lower_depthwise
from qcc.backends.x86.lanes import LANES, certified, float_scale, in_lanes, source
from qcc.ir.ops.conv import Conv2d

TAPS = 128  # of s8_depthwise_conv2d_avx512vnni.c
CENTRE = 128  # what turns s8 into u8


def accepts_taps(step: Step) -> str | None:
    """A certified depthwise convolution of up to TAPS taps."""
    taps = int(np.prod(step.root.input(1).type.shape[1:3]))
    if taps > TAPS:
        return f"{taps} taps, the kernel has {TAPS}"
    return accepts_depthwise(step) or certified(step)


def accepts_3x3(step: Step) -> str | None:
    """A certified depthwise convolution of 3x3, strides (1, 1) or (2, 2), not dilated."""
    op = step.root.op
    assert isinstance(op, Conv2d)
    if step.root.input(1).type.shape[1:3] != (3, 3) or op.dilations != (1, 1):
        return "the filter is not 3x3 without dilation"
    if op.strides not in ((1, 1), (2, 2)):
        return f"the strides are {op.strides}, not (1, 1) or (2, 2)"
    return accepts_depthwise(step) or certified(step)


def pack_taps(weights: NDArray[np.int8], strides: tuple[int, int]) -> NDArray[np.int8]:
    """s8[KH, KW, C] to [quads, 4, C], in the order of the filter."""
    flat = weights.reshape(-1, weights.shape[-1])
    return np.pad(flat, ((0, -len(flat) % 4), (0, 0))).reshape(-1, 4, flat.shape[-1])


def pack_3x3(weights: NDArray[np.int8], strides: tuple[int, int]) -> NDArray[np.int8]:
    """s8[3, 3, C] to [columns * rows, 4, C]: each column for the first output row, and with stride 1 for the second."""
    rows = (0, 1) if strides == (1, 1) else (0,)
    shifted = [np.pad(weights, ((row, 1 - row), (0, 0), (0, 0))) for row in rows]
    return np.stack(shifted).transpose(2, 0, 1, 3).reshape(-1, 4, weights.shape[-1])


def lower(step: Step, pack: Callable[[NDArray[np.int8], tuple[int, int]], NDArray[np.int8]]) -> Call:
    """The scalar row's numbers, packed in lanes; few channels share a vector with those of the next pixels."""
    call = lower_depthwise(step)
    op = step.root.op
    assert isinstance(op, Conv2d)
    weights, bias, skip = (call.constants[name] for name in ("weights", "bias", "skip_multiplier"))
    assert weights is not None
    assert bias is not None
    channels = weights.shape[-1]
    pixels = max(1, LANES // channels) if op.strides[1] == 1 else 1
    pixels = min(pixels, step.output.type.shape[2])
    renamed = {"channels": channels, "pixels": pixels}
    names = (
        *("batch", "input_height", "input_width", "channels", "output_height", "output_width"),
        *(
            "kernel_height",
            "kernel_width",
            "stride_height",
            "stride_width",
            "dilation_height",
            "dilation_width",
        ),
        *(
            "pad_top",
            "pad_left",
            "pad_value",
            "pixels",
            "skip_zero_point",
            "output_zero_point",
            "low",
            "high",
        ),
    )
    params = {name: renamed[name] if name in renamed else call.params[name] for name in names}
    centred = bias.astype(np.int64) - CENTRE * weights.astype(np.int64).sum(axis=(0, 1))
    constants: dict[str, NDArray[Any] | None] = {
        "weights": _quads(pack(weights, op.strides), pixels),
        # the sums wrap around like the accumulator does, and end where it is proved to end
        "bias": in_lanes(centred.astype(np.uint64).astype(np.uint32).view(np.int32), pixels),
        "skip_multiplier": None if skip is None else in_lanes(skip, pixels),
        "scale": in_lanes(float_scale(step, channels), pixels),
    }
    return Call(params, constants, inputs=call.inputs)


def _quads(weights: NDArray[np.int8], pixels: int) -> NDArray[np.int8]:
    """s8[quads, 4, C] to [blocks, quads, 64 lanes, 4]."""
    return np.ascontiguousarray(in_lanes(weights, pixels).transpose(0, 1, 3, 2))


def lower_taps(step: Step) -> Call:
    """s8_depthwise_conv2d_avx512vnni."""
    return lower(step, pack_taps)


def lower_3x3(step: Step) -> Call:
    """s8_depthwise3x3_avx512vnni."""
    return lower(step, pack_3x3)


KERNELS: tuple[Kernel, ...] = tuple(
    Kernel(
        pattern=pattern,
        dtype="s8",
        symbol=symbol,
        params_type="qcc_avx512_depthwise_params",
        source=source(symbol),
        lower=lowering,
        accepts=accepts,
        priority=priority,
        in_place=(1,),
    )
    for symbol, lowering, accepts, priority in (
        ("qcc_s8_depthwise3x3_avx512vnni", lower_3x3, accepts_3x3, 12),
        ("qcc_s8_depthwise_conv2d_avx512vnni", lower_taps, accepts_taps, 11),
    )
    for pattern in ("conv2d+requantize", "conv2d+add+requantize", "conv2d+sub+requantize")
)
