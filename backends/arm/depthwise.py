"""Rows of the depthwise convolutions for NEON."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcc.backends.arm.lanes import LANES, accepts_requantize, requantization
from qcc.backends.arm.neon import NEON, accepts_weights, folded, numbers, padded_image, rows
from qcc.backends.kernel import Call, Step
from qcc.backends.scalar.convolution import accepts_depthwise, lower_depthwise

BLOCK = 16  # channels
TAPS = 127  # of s8_depthwise_conv2d_neon.c
_SLACK_BYTES = 16  # of the image, which the last vector may read


def block_channels(channels: int) -> NDArray[np.int64]:
    """[blocks, 16]: the channel in each place; the last block ends with the last channel. -1: none."""
    if channels < BLOCK:
        return np.pad(np.arange(channels), (0, BLOCK - channels), constant_values=-1)[None]
    starts = np.minimum(np.arange(0, channels, BLOCK), channels - BLOCK)
    return starts[:, None] + np.arange(BLOCK)


def in_blocks(array: NDArray[Any]) -> NDArray[Any]:
    """[..., C] to [..., blocks, 16]."""
    order = block_channels(array.shape[-1])
    return np.where(order < 0, 0, array[..., order])


def _constants(step: Step, call: Call) -> dict[str, NDArray[Any] | None]:
    skip = call.constants["skip_multiplier"]
    channels = step.output.type.shape[-1]
    scale = np.stack([in_blocks(a).reshape(-1, LANES) for a in requantization(step, channels)], axis=1)
    return {
        "bias": in_blocks(folded(call)).reshape(-1).astype(np.int32),
        "skip_multiplier": None if skip is None else in_blocks(skip).reshape(-1).astype(np.int32),
        "scale": np.ascontiguousarray(scale.astype(np.int32)),
    }


def accepts(step: Step) -> str | None:
    """Depthwise, of multipliers that fit."""
    return accepts_depthwise(step) or accepts_requantize(step)


def accepts_pairs(step: Step) -> str | None:
    """The same, of up to TAPS taps, no weight -128."""
    taps = int(np.prod(step.root.input(1).type.shape[1:3]))
    if taps > TAPS:
        return f"{taps} taps, the kernel has {TAPS}"
    return accepts_weights(NEON.least, step) or accepts(step)


def lower_pairs(step: Step) -> Call:
    """s8_depthwise_conv2d_neon."""
    call = lower_depthwise(step)
    weights, p = call.constants["weights"], numbers(call)
    assert weights is not None
    taps = weights.reshape(-1, weights.shape[-1])
    even = np.pad(taps, ((0, len(taps) % 2), (0, 0)))
    packed = np.ascontiguousarray(in_blocks(even).swapaxes(0, 1).reshape(-1).astype(np.int8))
    workspace = padded_image(p)[1] + _SLACK_BYTES
    return Call(p, {"weights": packed, **_constants(step, call)}, workspace, inputs=call.inputs)


def lower_columns(step: Step) -> Call:
    """s8_depthwise_conv2d_dotprod."""
    call = lower_depthwise(step)
    weights, p = call.constants["weights"], numbers(call)
    assert weights is not None
    height, taps, _ = weights.shape
    quads = -(-height // 4)
    room = 4 * quads - height
    lines = 1 if p["dilation_height"] > 1 else room // p["stride_height"] + 1
    shifts = [p["stride_height"] * line for line in range(lines)]
    shifted = np.stack([np.pad(weights, ((s, room - s), (0, 0), (0, 0))) for s in shifts])
    split = in_blocks(shifted.reshape(lines, quads, 4, taps, -1))  # [lines, quads, 4, taps, blocks, 16]
    packed = np.ascontiguousarray(split.transpose(4, 0, 3, 1, 5, 2).reshape(-1).astype(np.int8))
    columns = (p["output_width"] - 1) * p["stride_width"] + (taps - 1) * p["dilation_width"] + 1
    constants = {"weights": packed, **_constants(step, call)}
    return Call(p, constants, 64 * quads * columns, inputs=call.inputs)


NEON_ROWS = rows("conv2d", "qcc_s8_depthwise_conv2d_neon", lower_pairs, accepts_pairs, 13, in_place=False)
DOTPROD_ROWS = rows("conv2d", "qcc_s8_depthwise_conv2d_dotprod", lower_columns, accepts, 13, in_place=False)
