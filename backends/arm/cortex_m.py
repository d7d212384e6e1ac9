"""Rows of convolution and dense for the DSP extension of Armv7E-M: Cortex-M4, M7 and M33."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcc.backends.arm.wide import STILL_BIAS, UNPROVEN, Requantization, requantization, wrapped
from qcc.backends.kernel import Call, Kernel, Step
from qcc.backends.scalar.convolution import (
    accepts_depthwise,
    accepts_skip,
    folded_bias,
    geometry,
    skip_operand,
)
from qcc.backends.scalar.lowering import constant, requantize_params, zero_point
from qcc.ir.ops.conv import Conv2d
from qcc.ir.ops.dense import Dense

Accepts = Callable[[Step], str | None]
KERNELS_FOLDER = Path(__file__).parent / "kernels"
PIXELS = 4  # of output that s8_conv2d_dsp.c computes together
SHORT = 32  # elements of a column that s8_conv2d_short_dsp keeps on the stack
BAND_BYTES = 2048  # of a depthwise convolution's workspace, where that is enough for one row of output
SHIFTS = (33, 55)  # those that qcc_arm_dsp.h can do
LOWER = 8  # priority by which the rows that move accumulators up come behind the others


def _requantization(step: Step) -> Requantization | None:
    return requantization(step, SHIFTS, step.output.type.shape[-1])


def accepts_requantize(step: Step) -> str | None:
    """Shifts in range as they are, constant channels aside; what a residual operand may be."""
    found = _requantization(step)
    if found is not None and found.up.any():
        return f"a shift is less than {SHIFTS[0]}"
    return accepts_moved(step)


def accepts_moved(step: Step) -> str | None:
    """The same for accumulators that are moved up: they stay within 32 bits."""
    found = _requantization(step)
    return UNPROVEN if found is None else found.refused or accepts_skip(step)


@dataclass(frozen=True)
class Numbers:
    """``weights`` as in the graph; s64[C]: ``bias``, ``multiplier``, ``shift`` (with ``up``) - 32, ``up``; ``skip_multiplier``:
    s32[C] or None.

    A constant channel becomes a bias of its value, without weights.
    """

    weights: NDArray[np.int8]
    bias: NDArray[np.int64]
    multiplier: NDArray[np.int64]
    shift: NDArray[np.int64]
    up: NDArray[np.int64]
    skip_multiplier: NDArray[np.int32] | None

    @property
    def channels(self) -> NDArray[np.int32]:
        """s32[C, QCC_DSP_CHANNEL], as qcc_arm_dsp.h has them."""
        columns = [self.bias, self.multiplier, self.shift, *([self.up] if self.up.any() else [])]
        return np.stack(columns, axis=-1).astype(np.int32)


def numbers_of(step: Step) -> Numbers:
    """The constants of a convolution or dense layer."""
    op, weights, found = step.root.op, constant(step.root, "w"), _requantization(step)
    assert isinstance(op, Conv2d | Dense)
    assert weights is not None
    assert found is not None
    skip, skip_multiplier, term = skip_operand(step)
    bias = folded_bias(step, weights, op.x_zero_point, term).astype(np.int64)
    if skip is not None and skip_multiplier is not None:
        bias -= zero_point(skip) * skip_multiplier.astype(np.int64)
    still = found.still
    # the sums wrap around like the accumulator does, and end where it is proved to end
    return Numbers(
        np.where(still.reshape(-1, *[1] * (weights.ndim - 1)), 0, weights).astype(np.int8),
        wrapped(np.where(still, found.value * STILL_BIAS, bias)).astype(np.int64),
        *(found.multiplier, found.shift - 32, found.up),
        None if skip_multiplier is None else np.where(still, 0, skip_multiplier).astype(np.int32),
    )


def _padded(array: NDArray[Any], *axes: int) -> NDArray[Any]:
    """Zero-padded along ``axes`` to multiples of 4."""
    return np.pad(array, [(0, -size % 4 if axis in axes else 0) for axis, size in enumerate(array.shape)])


# ---------------------------------------------------------------- convolution
def _runs(step: Step, weights: NDArray[Any]) -> NDArray[np.int8]:
    """Weights s8[O, runs, run], as s8_conv2d_dsp.c reads them."""
    op = step.root.op
    if isinstance(op, Dense):
        return _padded(weights[:, None, :], 2)
    assert isinstance(op, Conv2d)
    outputs, _, kw, channels = weights.shape
    return _padded(weights.reshape(outputs, -1, kw * channels if op.dilations[1] == 1 else channels), 2)


def _column(step: Step) -> int:
    """Elements of the column of an output pixel."""
    weights = constant(step.root, "w")
    assert weights is not None
    return int(_runs(step, weights)[0].size)


def conv2d_params(step: Step, band: int = 0) -> dict[str, int]:
    """A dense layer of many rows is a 1x1 convolution over an image one pixel wide."""
    op, weights = step.root.op, constant(step.root, "w")
    assert weights is not None
    if isinstance(op, Conv2d):
        shape, pad_value = geometry(step, op, weights), op.pad_value
    else:
        outputs, inputs = weights.shape
        rows = step.output.type.elements // outputs
        ones = (
            "kernel_height",
            "kernel_width",
            "stride_height",
            "stride_width",
            "dilation_height",
            "dilation_width",
        )
        shape = {
            "batch": 1,
            "input_height": rows,
            "input_width": 1,
            "input_channels": inputs,
            "output_height": rows,
            "output_width": 1,
            "output_channels": outputs,
            **dict.fromkeys(ones, 1),
            "pad_top": 0,
            "pad_left": 0,
        }
        pad_value = 0
    return {**shape, "pad_value": pad_value, "band": band, **requantize_params(step)}


def accepts_conv2d(step: Step) -> str | None:
    """One group; a dense layer has one."""
    op = step.root.op
    return "more than one group" if isinstance(op, Conv2d) and op.groups != 1 else None


def accepts_short(step: Step) -> str | None:
    """Columns that fit on the stack."""
    if (reason := accepts_conv2d(step)) is not None:
        return reason
    column = _column(step)
    return None if column <= SHORT else f"columns of {column} elements, the kernel has {SHORT}"


def is_in_place(step: Step) -> str | None:
    """Each output pixel is written where input pixels were that have been read."""
    op, x, y = step.root.op, step.root.input(0).type, step.output.type
    if isinstance(op, Conv2d) and (
        step.root.input(1).type.shape[1:3] != (1, 1) or x.shape[:3] != y.shape[:3] or any(op.pads)
    ):
        return "not pointwise"
    return None if y.shape[-1] <= x.shape[-1] else "more output channels than input channels"


def lower_conv2d(step: Step) -> Call:
    """s8_conv2d_dsp: columns in the workspace."""
    call = lower_short(step)
    column = _column(step)
    return Call(call.params, call.constants, 2 * PIXELS * column, call.inputs)


def lower_short(step: Step) -> Call:
    """s8_conv2d_short_dsp."""
    inputs = (step.root.input(0), skip_operand(step)[0])
    numbers = numbers_of(step)
    constants: dict[str, NDArray[Any] | None] = {
        "weights": _runs(step, numbers.weights),
        "channels": numbers.channels,
        "skip_multiplier": numbers.skip_multiplier,
    }
    return Call(conv2d_params(step), constants, inputs=inputs)


# ---------------------------------------------------------------- depthwise
def accepts_depthwise_dsp(step: Step) -> str | None:
    """3x3, no dilation, strides of 1 or 2, channels in fours."""
    op = step.root.op
    assert isinstance(op, Conv2d)
    if (reason := accepts_depthwise(step)) is not None:
        return reason
    if step.root.input(1).type.shape[1:3] != (3, 3) or op.dilations != (1, 1):
        return "the filter is not 3x3"
    if op.strides not in ((1, 1), (2, 2)):
        return f"strides of {op.strides[0]} and {op.strides[1]}"
    if step.output.type.shape[-1] % 4 != 0:
        return "the channels are no multiple of 4"
    return None


def is_in_place_depthwise(step: Step) -> str | None:
    """Each row of output is written where rows of the input were that have been read."""
    op = step.root.op
    assert isinstance(op, Conv2d)
    same = op.strides == (1, 1) and op.pads == (1, 1, 1, 1)
    return None if same else "input and output differ in size"


def lower_depthwise(step: Step) -> Call:
    """s8_depthwise_conv2d_dsp: as many rows of output from one copy of the input as the workspace should hold."""
    op = step.root.op
    assert isinstance(op, Conv2d)
    _, height, width, channels = step.output.type.shape
    stride = op.strides[0]
    row_bytes = 4 * 2 * ((width + 1) // 2 * 2 + 2 if stride == 1 else 2 * width + 2)
    band = min(height, max(1, (BAND_BYTES // row_bytes - 3) // stride + 1))
    band = -(-height // -(-height // band))  # as many bands, of even sizes
    workspace = ((band - 1) * stride + 3) * row_bytes
    numbers = numbers_of(step)
    constants: dict[str, NDArray[Any] | None] = {
        "weights": numbers.weights.reshape(channels, 9),
        "channels": numbers.channels,
    }
    return Call(conv2d_params(step, band), constants, workspace, inputs=(step.root.input(0),))


# ---------------------------------------------------------------- one row of activations
def accepts_row(step: Step) -> str | None:
    """One row."""
    return "more than one row" if step.output.type.elements != step.output.type.shape[-1] else None


def lower_dense(step: Step) -> Call:
    """s8_dense_dsp."""
    numbers = numbers_of(step)
    outputs, inputs = numbers.weights.shape
    padded = _padded(numbers.weights, 0, 1)
    channels = numbers.channels
    padding = np.tile(np.array([0, 0, 1, 0], np.int32)[: channels.shape[1]], (len(padded) - outputs, 1))
    constants: dict[str, NDArray[Any] | None] = {
        "weights": np.ascontiguousarray(padded.reshape(len(padded) // 4, 4, -1, 4).swapaxes(1, 2)),
        "channels": np.concatenate([channels, padding]),
        "skip_multiplier": numbers.skip_multiplier,
    }
    params = {"input_channels": inputs, "output_channels": outputs, **requantize_params(step)}
    return Call(params, constants, inputs=(step.root.input(0), skip_operand(step)[0]))


# ---------------------------------------------------------------- rows
def _source(name: str) -> Path:
    return KERNELS_FOLDER / f"s8_{name}_dsp.c"


def both(*accepts: Accepts) -> Accepts:
    """Accepts what all of them accept."""
    return lambda step: next((reason for a in accepts if (reason := a(step)) is not None), None)


# of the name of a kernel, what it says of the requantize, and what that takes from the priority of its row
FORMS = (("", accepts_requantize, 0), ("_up", accepts_moved, LOWER))

_CONV = "qcc_dsp_conv2d_params"

_DENSE = "qcc_dsp_dense_params"

DSP_KERNELS: tuple[Kernel, ...] = tuple(
    Kernel(
        pattern=pattern,
        dtype="s8",
        symbol=f"qcc_s8_{name}{up}_dsp",
        params_type=params_type,
        source=_source(name.removesuffix("_short") + up),
        lower=lower,
        accepts=both(accepts, accepts_form),
        priority=priority - lower_by,
        variant=variant,
        in_place=(0, 1) if variant else (1,),
    )
    for up, accepts_form, lower_by in FORMS
    for roots, name, params_type, lower, accepts, priority, variant in (
        (("conv2d", "dense"), "conv2d", _CONV, lower_conv2d, accepts_conv2d, 10, ""),
        (
            ("conv2d", "dense"),
            "conv2d",
            _CONV,
            lower_conv2d,
            both(accepts_conv2d, is_in_place),
            11,
            "in place",
        ),
        (("conv2d", "dense"), "conv2d_short", _CONV, lower_short, accepts_short, 12, ""),
        (
            ("conv2d", "dense"),
            "conv2d_short",
            _CONV,
            lower_short,
            both(accepts_short, is_in_place),
            13,
            "in place",
        ),
        (("dense",), "dense", _DENSE, lower_dense, accepts_row, 14, ""),
        (("conv2d",), "depthwise_conv2d", _CONV, lower_depthwise, accepts_depthwise_dsp, 14, ""),
        (
            *(("conv2d",), "depthwise_conv2d", _CONV, lower_depthwise),
            *(both(accepts_depthwise_dsp, is_in_place_depthwise), 15, "in place"),
        ),
    )
    for root in roots
    for pattern in (f"{root}+requantize", f"{root}+add+requantize", f"{root}+sub+requantize")
    if name != "depthwise_conv2d" or pattern == "conv2d+requantize"
)
