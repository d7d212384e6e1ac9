"""Rows of the steps that TVM compiles, and how their constants are packed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from qcc.backends.kernel import Call, Kernel, Step
from qcc.backends.scalar.convolution import accepts_depthwise, accepts_skip, folded_bias, skip_operand
from qcc.backends.scalar.lowering import constant, requantize_constants
from qcc.backends.tvm.formula import REDUCTIONS, Formula, formula_of, operand
from qcc.backends.tvm.isa import Isa
from qcc.ir.graph import Value
from qcc.ir.ops.conv import Conv2d
from qcc.ir.ops.dense import Dense
from qcc.ir.ops.pool import AvgPool2d, Pool
from qcc.ir.ops.quant import Requantize

Array = NDArray[Any]
PRIORITY = 20  # before every row in C
GROUP = 16  # channels of a depthwise convolution that are computed together
STACK_BYTES = 2**15  # of the sums of a row
NARROW_OR_WIDE = ("s8", "s16")
# Steps that are compiled from the formulas of the reference, by dtype of the first operand.
FORMULAS = {
    **{
        f"{root}+requantize": NARROW_OR_WIDE
        for root in ("add", "sub", "mul", "reduce_mean", "reduce_sum", "resize_linear")
    },
    **dict.fromkeys(("requantize", "reduce_mean", "reduce_sum", "reduce_max", "reduce_min"), NARROW_OR_WIDE),
    **dict.fromkeys(("table", "softmax"), ("s8",)),
    "wide_softmax": ("s8", "s16", "s32", "s64"),
}
SCHEDULES = Path(__file__).parent


def requantize_arrays(step: Step, channels: int | None = None) -> dict[str, Array | None]:
    """``scale``, f32[channels], where float32 is certified to give the same integers, else multiplier and shift, s64.

    Without ``channels`` they have one element, or as many as the result has channels.
    """
    planned = requantize_constants(step, None if channels is None else step.output.type.shape[-1])
    multiplier, shift = (_filled(planned[k].astype(np.int64), channels) for k in ("multiplier", "shift"))
    op = step.nodes[-1].op
    assert isinstance(op, Requantize)
    if "f32" in op.certified:
        return {"scale": (multiplier * np.exp2(-shift.astype(np.float64))).astype(np.float32)}
    return {"multiplier": multiplier, "shift": np.maximum(shift, 1)}


def _filled(array: Array, length: int | None) -> Array:
    return array if length is None else np.pad(array, (0, length - len(array)))


def pack_dot(weights: Array, lanes: int, depth: int) -> NDArray[np.int8]:
    """s8[O, KH, KW, C] to [ceil(O / lanes), KH, KW, ceil(C / depth), lanes, depth], zero-padded."""
    outputs, height, width, channels = weights.shape
    full = np.pad(weights, ((0, -outputs % lanes), (0, 0), (0, 0), (0, -channels % depth)))
    blocks = full.reshape(-1, lanes, height, width, full.shape[-1] // depth, depth)
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


@dataclass(frozen=True)
class Rows:
    """A convolution as dot products along rows of bytes.

    ``height``, ``width``: of the input, in rows and bytes, ``top``, ``left``: before it; ``rows``, ``columns``: of the output;
    ``steps``: from one pixel of the output to the next, down in rows, across in bytes; ``gaps``: from tap to tap;
    ``filters``: s8[O, taps down, taps across, bytes]: pixels side by side are one tap.
    """

    height: int
    width: int
    top: int
    left: int
    rows: int
    columns: int
    steps: tuple[int, int]
    gaps: tuple[int, int]
    filters: Array

    def image(self, depth: int) -> tuple[int, int]:
        """Rows and bytes of what is read, with borders, in steps of ``depth`` bytes."""
        _, taps_y, taps_x, run = self.filters.shape
        down = (self.rows - 1) * self.steps[0] + (taps_y - 1) * self.gaps[0] + 1
        across = (self.columns - 1) * self.steps[1] + (taps_x - 1) * self.gaps[1]
        return down, across + -(-run // depth) * depth


def rows_of(step: Step) -> Rows:
    """A dense layer is a 1x1 convolution of a row of pixels, and so is one without borders that reads every pixel."""
    op, filters = step.root.op, filters_of(step)
    height, width, channels = image_of(step)
    if not isinstance(op, Conv2d):
        return Rows(1, width * channels, 0, 0, 1, width, (1, channels), (1, 1), filters)
    rows, columns = step.output.type.shape[1:3]
    outputs, taps_y, taps_x, _ = filters.shape
    if (taps_y, taps_x) == (1, 1) and op.strides == (1, 1) and not any(op.pads):
        height, width, rows, columns = 1, height * width, 1, rows * columns
    if op.dilations[1] == 1:
        filters = filters.reshape(outputs, taps_y, 1, -1)
    return Rows(
        height,
        width * channels,
        op.pads[0],
        op.pads[1] * channels,
        rows,
        columns,
        (op.strides[0], op.strides[1] * channels),
        (op.dilations[0], op.dilations[1] * channels),
        filters,
    )


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


def depthwise_image(step: Step) -> tuple[int, int, int, int]:
    """Blocks of 16 channels, columns, rows, 16: the image with its borders, and rows for quads of taps below each other."""
    op, channels = step.root.op, image_of(step)[2]
    assert isinstance(op, Conv2d)
    taps_y, taps_x = filters_of(step).shape[1:3]
    rows, columns = step.output.type.shape[1:3]
    span = (columns - 1) * op.strides[1] + (taps_x - 1) * op.dilations[1] + 1
    return -(-channels // GROUP), span, (rows - 1) * op.strides[0] + -(-taps_y // 4) * 4, GROUP


def lower_depthwise(isa: Isa, step: Step) -> Call:
    """Weights [blocks of 16 channels, fours of KH, KW, 16, 4], zeros for what is not there."""
    weights = filters_of(step)[..., 0]
    channels = -(-len(weights) // GROUP) * GROUP
    full = np.pad(weights, ((0, channels - len(weights)), (0, -weights.shape[1] % 4), (0, 0)))
    fours = full.reshape(-1, GROUP, full.shape[1] // 4, 4, full.shape[2])
    packed = np.ascontiguousarray(fours.transpose(0, 2, 4, 1, 3)).astype(np.int8)
    return _call(step, packed, channels, isa.centre, math.prod(depthwise_image(step)))


def lower_dilated_depthwise(step: Step) -> Call:
    """Weights s16[KH, KW, C]."""
    weights = filters_of(step)[..., 0]
    packed = np.ascontiguousarray(weights.transpose(1, 2, 0)).astype(np.int16)
    return _call(step, packed, len(weights), 0, workspace_of(step))


def accepts_quads(step: Step) -> str | None:
    """Depthwise, rows without gaps."""
    op = step.root.op
    assert isinstance(op, Conv2d)
    gaps = "the rows of the filter are dilated" if op.dilations[0] > 1 else None
    return accepts_one_depthwise(step) or gaps


def accepts_one_depthwise(step: Step) -> str | None:
    """One image, a filter for each channel."""
    return _one_image(step) or accepts_depthwise(step)


def _one_image(step: Step) -> str | None:
    return None if step.root.input(0).type.shape[0] == 1 else "more than one image"


def _call(step: Step, packed: Array, channels: int, centre: int, workspace: int) -> Call:
    """Packed weights, and a value of bias, scale and so on for each of ``channels``, with zeros behind the last one."""
    op, weights = step.root.op, filters_of(step)
    assert isinstance(op, Conv2d | Dense)
    skip, skip_multiplier, term = skip_operand(step)
    bias = folded_bias(step, weights, op.x_zero_point, term).astype(np.int64)
    bias -= centre * weights.reshape(len(weights), -1).astype(np.int64).sum(axis=1)
    # the sums wrap around like the accumulator does, and end where it is proved to end
    wrapped = _filled(bias, channels).astype(np.uint64).astype(np.uint32).view(np.int32)
    constants: dict[str, Array | None] = {"weights": packed, "bias": wrapped}
    inputs: tuple[Value | None, ...] = (step.root.input(0),)
    if skip is not None:
        assert skip_multiplier is not None
        constants["skip_multiplier"] = _filled(skip_multiplier, channels)
        inputs = (*inputs, skip)
    if isinstance(step.nodes[-1].op, Requantize):
        constants |= requantize_arrays(step, channels)
    return Call({}, constants, workspace, inputs)


def lower_dot(isa: Isa, step: Step) -> Call:
    """Convolution or dense layer by dot products."""
    rows = rows_of(step)
    depth = isa.dot(rows.columns).bytes
    packed = pack_dot(rows.filters, isa.lanes, depth)
    return _call(step, packed, len(packed) * isa.lanes, isa.centre, math.prod(rows.image(depth)))


def lower_average(step: Step) -> Call:
    """The factor of each window, s32[OH, OW], unless all are 1."""
    op = step.root.op
    assert isinstance(op, AvgPool2d)
    factors = op.factors(*image_of(step)[:2]).astype(np.int32)
    constants: dict[str, Array | None] = {} if (factors == 1).all() else {"factors": factors}
    return Call({}, constants | requantize_arrays(step), workspace_of(step))


def formula_of_step(step: Step) -> Formula:
    """What comes before the requantization: of a requantization by itself, the operand without its zero_point."""
    if not isinstance(step.root.op, Requantize):
        return formula_of(step.root)
    x = step.root.input(0).type
    return cast(Formula, operand(x, 0) - step.root.signature.qparams(0).zero_point)


def accepts_formula(step: Step) -> str | None:
    """Reductions keep a row of results on the stack."""
    reduced = (f for f in formula_of_step(step).walk() if f.kind in REDUCTIONS)
    return _stack(max((f.shape[-1] for f in reduced), default=0))


def accepts_average(step: Step) -> str | None:
    """One image, whose channels' sums fit the stack."""
    return _one_image(step) or _stack(step.output.type.shape[-1])


def _stack(numbers: int) -> str | None:
    return None if 8 * numbers <= STACK_BYTES else f"{numbers} sums are too many for the stack"


def lower_formula(step: Step) -> Call:
    """The arrays of the formula, and how its result is requantized."""
    constants: dict[str, Array | None] = {
        f"constant{i}": f.data for i, f in enumerate(formula_of_step(step).constants)
    }
    if isinstance(step.nodes[-1].op, Requantize):
        constants |= requantize_arrays(step)
    inputs = tuple(v for v in step.root.inputs if v is not None and not v.is_constant)
    return Call({}, constants, inputs=inputs)


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
    dot, quads = partial(lower_dot, isa), partial(lower_depthwise, isa)
    return (
        *_generated("conv2d", "tvm_conv2d", dot, accepts_dot, fused),
        *_generated("dense", "tvm_dense", dot, accepts_dot, ("", *fused)),
        *_generated("conv2d", "tvm_depthwise_conv2d", quads, accepts_quads, fused, PRIORITY + 2),
        *_generated(
            "conv2d",
            "tvm_dilated_depthwise_conv2d",
            lower_dilated_depthwise,
            accepts_one_depthwise,
            fused,
            PRIORITY + 1,
        ),
        *(
            replace(row, dtype=dtype, wide=True)
            for pattern, dtypes in FORMULAS.items()
            for dtype in dtypes
            for row in _generated(pattern, "tvm_reference", lower_formula, accepts_formula, ("",))
        ),
        *_generated(
            "max_pool2d",
            "tvm_max_pool2d",
            lambda step: Call({}, workspace_bytes=workspace_of(step)),
            _one_image,
            ("",),
        ),
        *_generated("avg_pool2d", "tvm_avg_pool2d", lower_average, accepts_average, ("+requantize",)),
    )
