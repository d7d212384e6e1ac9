"""Rows of the AVX512-VNNI convolution with pixels in the lanes, which any multiple of 8 output channels fills.

Costs are cycles of one core, fitted to timings on a processor that starts two vpdpbusd of 64 bytes in every cycle: 16 pixels
of 8 channels take ``_QUAD`` cycles for each quad and ``_REQUANTIZE`` at the end; 16 pixels of 16 channels ``_RESIDUAL`` for a
residual operand, ``_APART`` more where the pixels of the output do not fill whole registers, and ``_COPY`` in the copy of the
image, where the channels of the input are 4 or fewer, 16, or others.
"""

from __future__ import annotations

from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcc.backends.kernel import Call, Kernel, Step
from qcc.backends.scalar.convolution import lower_conv2d, skip_operand
from qcc.backends.scalar.lowering import Params
from qcc.backends.split import split_window_rows
from qcc.backends.x86.lanes import float_scale, source
from qcc.backends.x86.vnni import CENTRE, LANES, accepts_rounded
from qcc.ir.ops.conv import Conv2d

ROWS = 8  # of the output, of which the workspace has the image
SYMBOL = "qcc_s8_conv2d_few_avx512vnni"
_BLOCK = 8  # channels of a register tile
_QUAD = 4.0
_REQUANTIZE = 22.0
_RESIDUAL = 19.0
_APART = 16.0
_COPY = (11.0, 23.0, 32.0)
_CALL = 60.0


def accepts(step: Step) -> str | None:
    """One group without dilation, and columns one pixel apart; the certified requantize of one rounding."""
    op = step.root.op
    assert isinstance(op, Conv2d)
    if op.groups > 1 or tuple(op.dilations) != (1, 1) or op.strides[1] > 1:
        return "groups, dilation, or a stride between columns"
    if op.pads[1] >= LANES:
        return f"{LANES} columns or more are padded"
    reason = accepts_rounded(step)
    multiplier = None if reason else skip_operand(step)[1]
    if multiplier is not None and np.abs(multiplier.astype(np.int64)).max(initial=0) >= 2**15:
        return "the multiplier of the residual operand leaves 16 bits"
    return reason


def lower(step: Step) -> Call:
    """Weights packed for broadcasts, the sums of -128 and the skip's zero_point in the bias."""
    call = lower_conv2d(step)
    weights, bias, skip = (call.constants[name] for name in ("weights", "bias", "skip_multiplier"))
    assert weights is not None
    assert bias is not None
    given: dict[str, int] = {k: int(v) for k, v in call.params.items()}  # type: ignore[arg-type]
    centred = bias.astype(np.int64) - CENTRE * weights.astype(np.int64).sum(axis=(1, 2, 3))
    if skip is not None:
        centred -= given["skip_zero_point"] * skip.astype(np.int64)
    arrays: dict[str, NDArray[Any] | None] = {
        "weights": pack_weights(weights),
        # the sums wrap around like the accumulator does, and end where it is proved to end
        "bias": _padded(centred.astype(np.uint64).astype(np.uint32).view(np.int32)),
        "skip_multiplier": None if skip is None else _pairs(_padded(skip)),
        "scale": _padded(float_scale(step, len(bias))),
    }
    names = (
        *("batch", "input_height", "input_width", "input_channels"),
        *("output_height", "output_width", "output_channels", "kernel_height", "kernel_width"),
        *("stride_height", "stride_width", "dilation_height", "dilation_width"),
        *("pad_top", "pad_left", "pad_value", "input_step", "output_step", "groups", "vectors"),
        *("output_zero_point", "low", "high"),
    )
    steps = {f"{side}_step": given[f"{side}_channels"] for side in ("input", "output")}
    numbers = given | steps | {"vectors": 1}
    params: Params = {name: numbers[name] for name in names}
    rows = (min(ROWS, numbers["output_height"]) - 1) * numbers["stride_height"] + numbers["kernel_height"]
    width = ceil(numbers["output_width"] / LANES) * LANES + numbers["kernel_width"] - 1
    quads = ceil(numbers["input_channels"] / 4)
    return Call(params, arrays, rows * quads * width * 4 + 64, inputs=call.inputs)


def pack_weights(weights: NDArray[Any]) -> NDArray[np.int8]:
    """s8[O, KH, KW, C] to [ceil(O / 16) * 2, KH, ceil(C / 4), KW, 8, 4], zero-padded."""
    outputs, height, width, channels = weights.shape
    padded = np.pad(weights, ((0, -outputs % LANES), (0, 0), (0, 0), (0, -channels % 4)))
    blocks = padded.reshape(-1, _BLOCK, height, width, ceil(channels / 4), 4)
    return np.ascontiguousarray(blocks.transpose(0, 2, 4, 3, 1, 5))


def _padded(array: NDArray[Any]) -> NDArray[Any]:
    return np.pad(array, (0, -len(array) % LANES))


def _pairs(multiplier: NDArray[Any]) -> NDArray[np.int16]:
    """[O] to [O, 2]: of four channels the first two are first of their pair, the others second; the rest is 0."""
    pairs = np.zeros((len(multiplier), 2), np.int16)
    channels = np.arange(len(multiplier))
    pairs[channels, channels % 4 // 2] = multiplier
    return pairs


def cost(step: Step) -> float:
    """Cycles of the step: its tiles, the last ones of each row with what they waste, and the copy of the image."""
    _, height, width, channels = step.root.input(0).type.shape
    batch, rows, columns, outputs = step.output.type.shape
    taps = step.root.input(1).type.shape[1:3]
    quads = taps[0] * taps[1] * ceil(channels / 4)
    each = ceil(outputs / _BLOCK) * (_QUAD * quads + _REQUANTIZE)
    if len(step.inputs) > 1:
        each += ceil(outputs / LANES) * _RESIDUAL
    if outputs != LANES:
        each += ceil(outputs / LANES) * _APART
    copied = _COPY[0 if channels <= 4 else 1 if channels == LANES else 2] * ceil(channels / LANES)
    return _CALL + batch * (rows * ceil(columns / LANES) * each + height * ceil(width / LANES) * copied)


KERNELS: tuple[Kernel, ...] = tuple(
    Kernel(
        pattern=pattern,
        dtype="s8",
        symbol=SYMBOL,
        params_type="qcc_avx512_conv_params",
        source=source(SYMBOL),
        lower=lower,
        accepts=accepts,
        priority=10,
        cost=cost,
        in_place=(1,),
        split=split_window_rows,  # no longer rows: the workspace holds some
        channel_block=LANES,
        uses_float=True,
    )
    for pattern in ("conv2d+requantize", "conv2d+add+requantize", "conv2d+sub+requantize")
)
