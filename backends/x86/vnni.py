"""Rows of the AVX512-VNNI kernels: convolution and dense as one family."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcc.backends.kernel import Call, Kernel, Step
from qcc.backends.scalar.convolution import accepts_skip, lower_conv2d, lower_dense
from qcc.backends.x86.lanes import certified, float_scale, source
from qcc.ir.ops.conv import Conv2d

LANES = 16  # s32 accumulators of a register
BLOCK = 64  # output channels of a register tile
CENTRE = 128  # what turns s8 into u8


def accepts_certified(step: Step) -> str | None:
    """The requantize must be certified for float32, and a residual operand be as all convolutions want it."""
    return certified(step) or accepts_skip(step)


def accepts_conv2d(step: Step) -> str | None:
    """One group."""
    op = step.root.op
    assert isinstance(op, Conv2d)
    return "more than one group" if op.groups != 1 else accepts_certified(step)


def pack_weights(weights: NDArray[Any]) -> NDArray[np.int8]:
    """s8[O, runs, run] to the order of the micro-kernel: [blocks][runs][run/4][vectors][16][4], zero-padded, flat."""
    outputs, taps, channels = weights.shape
    quads = -(-channels // 4)
    parts = []
    for start in range(0, outputs, BLOCK):
        block = weights[start : start + BLOCK]
        vectors = -(-len(block) // LANES)
        padded = np.zeros((vectors * LANES, taps, quads * 4), np.int8)
        padded[: len(block), :, :channels] = block
        tiles = padded.reshape(vectors, LANES, taps, quads, 4).transpose(2, 3, 0, 1, 4)
        parts.append(tiles.reshape(-1))
    return np.ascontiguousarray(np.concatenate(parts))


def lower_conv2d_vnni(step: Step) -> Call:
    """The scalar row's numbers, weights packed, the sums of -128 in the bias, the multiplier as float32."""
    call = lower_conv2d(step)
    weights = call.constants["weights"]
    assert weights is not None
    op = step.root.op
    assert isinstance(op, Conv2d)
    outputs, _, kw, channels = weights.shape
    run = kw * channels if op.dilations[1] == 1 else channels
    constants = vnni_constants(step, call, weights.reshape(outputs, -1, run))
    return Call(call.params, constants, _workspace_bytes(step), inputs=call.inputs)


def _workspace_bytes(step: Step) -> int:
    """The padded image, where there is padding, and some bytes more: reads go in fours."""
    op = step.root.op
    assert isinstance(op, Conv2d)
    _, height, width, _ = step.output.type.shape
    channels, (kh, kw) = step.root.input(0).type.shape[3], step.root.input(1).type.shape[1:3]
    reach = [
        (size - 1) * stride + (k - 1) * dilation + 1
        for size, stride, k, dilation in zip((height, width), op.strides, (kh, kw), op.dilations, strict=True)
    ]
    return 64 + (reach[0] * reach[1] * channels if any(op.pads) else 0)


def vnni_constants(step: Step, call: Call, weights: NDArray[Any]) -> dict[str, NDArray[Any] | None]:
    """weights, bias, skip_multiplier, scale, with output channels rounded up to whole registers."""
    outputs = weights.shape[0]
    padding = -outputs % LANES
    bias, skip_multiplier = call.constants["bias"], call.constants["skip_multiplier"]
    assert bias is not None
    centred = bias.astype(np.int64) - CENTRE * weights.astype(np.int64).sum(axis=(1, 2))
    return {
        "weights": pack_weights(weights),
        # the sums wrap around like the accumulator does, and end where it is proved to end
        "bias": np.pad(centred, (0, padding)).astype(np.uint64).astype(np.uint32).view(np.int32),
        "skip_multiplier": None if skip_multiplier is None else np.pad(skip_multiplier, (0, padding)),
        "scale": np.pad(float_scale(step, outputs), (0, padding)),
    }


def _rows(
    root: str,
    symbol: str,
    params_type: str,
    lower: Callable[[Step], Call],
    accepts: Callable[[Step], str | None],
) -> tuple[Kernel, ...]:
    return tuple(
        Kernel(
            pattern=pattern,
            dtype="s8",
            symbol=symbol,
            params_type=params_type,
            source=source(symbol),
            lower=lower,
            accepts=accepts,
            priority=10,
            in_place=(1,),
        )
        for pattern in (f"{root}+requantize", f"{root}+add+requantize", f"{root}+sub+requantize")
    )


def lower_dense_vnni(step: Step) -> Call:
    """A dense layer is a 1x1 convolution over its rows."""
    call = lower_dense(step)
    weights = call.constants["weights"]
    assert weights is not None
    outputs, inputs = weights.shape
    dense = call.params
    params = {
        "batch": 1,
        "input_height": 1,
        "input_width": dense["rows"],
        "input_channels": inputs,
        "output_height": 1,
        "output_width": dense["rows"],
        "output_channels": outputs,
        **dict.fromkeys(
            (
                "kernel_height",
                "kernel_width",
                "stride_height",
                "stride_width",
                "dilation_height",
                "dilation_width",
            ),
            1,
        ),
        "pad_top": 0,
        "pad_left": 0,
        "pad_value": 0,
        "groups": 1,
        "skip_zero_point": dense["skip_zero_point"],
        "output_zero_point": dense["output_zero_point"],
        "low": dense["low"],
        "high": dense["high"],
    }
    constants = vnni_constants(step, call, weights.reshape(outputs, 1, inputs))
    return Call(params, constants, 64, inputs=call.inputs)


KERNELS: tuple[Kernel, ...] = (
    *_rows("conv2d", "qcc_s8_conv2d_avx512vnni", "qcc_conv2d_params", lower_conv2d_vnni, accepts_conv2d),
    *_rows("dense", "qcc_s8_conv2d_avx512vnni", "qcc_conv2d_params", lower_dense_vnni, accepts_certified),
)
