"""Rows of the steps that TVM compiles, and how their constants are packed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcc.backends.kernel import Call, Kernel, Step
from qcc.backends.scalar.convolution import accepts_depthwise, accepts_skip, folded_bias, skip_operand
from qcc.backends.scalar.lowering import constant, requantize_constants
from qcc.backends.tvm.isa import Isa
from qcc.ir.graph import Value
from qcc.ir.ops.conv import Conv2d
from qcc.ir.ops.dense import Dense
from qcc.ir.ops.pool import Pool
from qcc.ir.ops.quant import Requantize

Array = NDArray[Any]
PRIORITY = 20  # before every row in C
SCHEDULES = Path(__file__).parent


def requantize_arrays(step: Step, channels: int) -> dict[str, Array | None]:
    """``scale``, f32[channels], where float32 is certified to give the same integers, else multiplier and shift, s64."""
    planned = requantize_constants(step, step.output.type.shape[-1])
    multiplier, shift = (_filled(planned[k].astype(np.int64), channels) for k in ("multiplier", "shift"))
    op = step.nodes[-1].op
    assert isinstance(op, Requantize)
    if "f32" in op.certified:
        return {"scale": (multiplier * np.exp2(-shift.astype(np.float64))).astype(np.float32)}
    return {"multiplier": multiplier, "shift": np.maximum(shift, 1)}


def _filled(array: Array, length: int) -> Array:
    return np.pad(array, (0, length - len(array)))


def pack_dot(weights: Array, lanes: int) -> NDArray[np.int8]:
    """s8[O, KH, KW, C] to [ceil(O / lanes), KH, KW, ceil(C / 4), lanes, 4], zero-padded."""
    outputs, height, width, channels = weights.shape
    full = np.pad(weights, ((0, -outputs % lanes), (0, 0), (0, 0), (0, -channels % 4)))
    blocks = full.reshape(-1, lanes, height, width, full.shape[-1] // 4, 4)
    return np.ascontiguousarray(blocks.transpose(0, 2, 3, 4, 1, 5)).astype(np.int8)


def image_of(step: Step) -> tuple[int, int, int]:
    """Height, width and channels of what a convolution reads; a dense layer is a 1x1 convolution of a row of pixels."""
    x = step.root.input(0).type
    if isinstance(step.root.op, Dense):
        return 1, x.elements // x.shape[-1], x.shape[-1]
    _, height, width, channels = x.shape
    return height, width, channels


def filters_of(step: Step) -> Array:
    """s8[O, KH, KW, C]."""
    weights = constant(step.root, "w")
    assert weights is not None
    return weights[:, None, None, :] if isinstance(step.root.op, Dense) else weights


def padded_bytes(step: Step) -> int:
    """Of the image with its borders, channels filled up to quads: the workspace."""
    height, width, channels = image_of(step)
    top, left, bottom, right = step.root.op.pads if isinstance(step.root.op, Conv2d) else (0, 0, 0, 0)
    return (height + top + bottom) * (width + left + right) * (-(-channels // 4) * 4)


def workspace_of(step: Step) -> int:
    """Bytes of the image with borders that windows read, 0 where none leaves the image."""
    op = step.root.op
    assert isinstance(op, Conv2d | Pool)
    height, width, channels = image_of(step)
    taps = filters_of(step).shape[1:3] if isinstance(op, Conv2d) else op.kernel
    span_y, span_x = (
        (out - 1) * stride + (k - 1) * dilation + 1
        for out, stride, k, dilation in zip(
            step.output.type.shape[1:3], op.strides, taps, op.dilations, strict=True
        )
    )
    is_inside = not any(op.pads[:2]) and span_y <= height and span_x <= width
    return 0 if is_inside else span_y * span_x * channels


def lower_depthwise(step: Step) -> Call:
    """Weights s16[KH, KW, C]; all else as for the rows in C."""
    op, weights = step.root.op, filters_of(step)
    assert isinstance(op, Conv2d)
    skip, skip_multiplier, term = skip_operand(step)
    packed = np.ascontiguousarray(weights[..., 0].transpose(1, 2, 0)).astype(np.int16)
    constants: dict[str, Array | None] = {
        "weights": packed,
        "bias": folded_bias(step, weights, op.x_zero_point, term),
    }
    inputs: tuple[Value | None, ...] = (step.root.input(0),)
    if skip is not None:
        constants["skip_multiplier"] = skip_multiplier
        inputs = (*inputs, skip)
    constants |= requantize_arrays(step, len(weights))
    return Call({}, constants, workspace_of(step), inputs)


def accepts_one_depthwise(step: Step) -> str | None:
    """One image, a filter for each channel."""
    return _one_image(step) or accepts_depthwise(step)


def _one_image(step: Step) -> str | None:
    return None if step.root.input(0).type.shape[0] == 1 else "more than one image"


def lower_dot(isa: Isa, step: Step) -> Call:
    """Convolution or dense layer by dot products of four."""
    op, weights = step.root.op, filters_of(step)
    assert isinstance(op, Conv2d | Dense)
    skip, skip_multiplier, term = skip_operand(step)
    packed = pack_dot(weights, isa.lanes)
    channels = len(packed) * isa.lanes
    bias = folded_bias(step, weights, op.x_zero_point, term).astype(np.int64)
    bias -= isa.centre * weights.reshape(len(weights), -1).astype(np.int64).sum(axis=1)
    # the sums wrap around like the accumulator does, and end where it is proved to end
    wrapped = _filled(bias, channels).astype(np.uint64).astype(np.uint32).view(np.int32)
    constants: dict[str, Array | None] = {"weights": packed, "bias": wrapped}
    inputs: tuple[Value | None, ...] = (step.root.input(0),)
    if skip is not None:
        assert skip_multiplier is not None
        constants["skip_multiplier"] = _filled(skip_multiplier, channels)
        inputs = (*inputs, skip)
    constants |= requantize_arrays(step, channels)
    return Call({}, constants, padded_bytes(step), inputs)


def accepts_dot(step: Step) -> str | None:
    """One image, no groups."""
    op = step.root.op
    if isinstance(op, Conv2d):
        if op.groups != 1:
            return "the convolution has groups"
        return _one_image(step) or accepts_skip(step)
    return accepts_skip(step)


def _generated(
    root: str,
    symbol: str,
    lower: Callable[[Step], Call],
    accepts: Callable[[Step], str | None],
    endings: tuple[str, ...],
    priority: int = PRIORITY,
) -> tuple[Kernel, ...]:
    return tuple(
        Kernel(
            f"{root}{ending}",
            "s8",
            symbol,
            "",
            SCHEDULES / "schedules.py",
            lower,
            accepts,
            priority,
            uses_float=True,
            is_generated=True,
        )
        for ending in endings
    )


def rows(isa: Isa) -> tuple[Kernel, ...]:
    """The kernel table of an instruction set, without the rows in C behind it."""
    fused = ("+requantize", "+add+requantize", "+sub+requantize")
    dot = partial(lower_dot, isa)
    return (
        *_generated("conv2d", "tvm_conv2d", dot, accepts_dot, fused),
        *_generated("dense", "tvm_dense", dot, accepts_dot, fused),
        *_generated(
            "conv2d", "tvm_depthwise_conv2d", lower_depthwise, accepts_one_depthwise, fused, PRIORITY + 1
        ),
        *_generated(
            "max_pool2d",
            "tvm_max_pool2d",
            lambda step: Call({}, workspace_bytes=workspace_of(step)),
            _one_image,
            ("",),
        ),
    )
