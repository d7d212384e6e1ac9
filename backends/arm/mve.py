"""Rows of convolution and dense for the vectors of Armv8.1-M: Cortex-M55 and M85."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcc.backends.arm.cortex_m import (
    KERNELS_FOLDER,
    Numbers,
    accepts_conv2d,
    accepts_requantize,
    both,
    conv2d_params,
    is_in_place,
    numbers_of,
)
from qcc.backends.kernel import Call, Kernel, Step
from qcc.backends.scalar.convolution import accepts_depthwise, skip_operand
from qcc.ir.ops.conv import Conv2d

VECTOR = 16  # int8 lanes
FOUR = 4  # int32 lanes
WIDENED = np.array(
    [[0, 4, 8, 12], [2, 6, 10, 14], [1, 5, 9, 13], [3, 7, 11, 15]]
)  # lanes of s8_depthwise_conv2d_mve.c


def _padded(array: NDArray[Any], axis: int, multiple: int) -> NDArray[Any]:
    widths = [(0, -size % multiple if i == axis else 0) for i, size in enumerate(array.shape)]
    return np.pad(array, widths)


def _constants(numbers: Numbers, step: Step, multiple: int) -> NDArray[np.int32]:
    """s32[C, 4] of bias, multiplier, rounding with zero_point, 32 - shift; C is padded to ``multiple``."""
    output = step.output.type.qparams
    zero_point = output.zero_point if output is not None else 0
    bias, multiplier, shift = numbers.channels.astype(np.int64).T
    columns = np.stack([bias, multiplier, (2 * zero_point + 1) << (shift - 1), -shift], axis=-1)
    return _padded(columns.astype(np.int32), 0, multiple)


def lower_conv2d(step: Step) -> Call:
    """s8_conv2d_mve."""
    numbers = numbers_of(step)
    flat = numbers.weights.reshape(len(numbers.weights), -1)
    padded = _padded(_padded(flat, 0, FOUR), 1, VECTOR)
    skip = numbers.skip_multiplier
    constants: dict[str, NDArray[Any] | None] = {
        "weights": np.ascontiguousarray(
            padded.reshape(-1, FOUR, padded.shape[1] // VECTOR, VECTOR).swapaxes(1, 2)
        ),
        "channels": np.ascontiguousarray(_constants(numbers, step, FOUR).reshape(-1, FOUR, 4).swapaxes(1, 2)),
        "skip_multiplier": None if skip is None else _padded(skip, 0, FOUR),
    }
    inputs = (step.root.input(0), skip_operand(step)[0])
    return Call(conv2d_params(step), constants, 2 * padded.shape[1], inputs)


def accepts_depthwise_mve(step: Step) -> str | None:
    """3x3, no weight of -128, and no residual operand: the row has no such pattern."""
    if step.root.input(1).type.shape[1:3] != (3, 3):
        return "the filter is not 3x3"
    return accepts_depthwise(step) or accepts_requantize(step)


def lower_depthwise(step: Step) -> Call:
    """s8_depthwise_conv2d_mve."""
    assert isinstance(step.root.op, Conv2d)
    numbers = numbers_of(step)
    taps = _padded(numbers.weights.reshape(-1, 9), 0, VECTOR).reshape(-1, VECTOR, 9).swapaxes(1, 2)
    columns = _constants(numbers, step, VECTOR).reshape(-1, VECTOR, 4)[:, WIDENED].swapaxes(2, 3)
    constants: dict[str, NDArray[Any] | None] = {
        "weights": np.ascontiguousarray(taps),
        "channels": np.ascontiguousarray(columns),
    }
    channels = step.output.type.shape[-1]
    return Call(conv2d_params(step), constants, channels, inputs=(step.root.input(0),))


MVE_KERNELS: tuple[Kernel, ...] = tuple(
    Kernel(
        pattern=pattern,
        dtype="s8",
        symbol=f"qcc_s8_{name}_mve",
        params_type="qcc_dsp_conv2d_params",
        source=KERNELS_FOLDER / f"s8_{name}_mve.c",
        lower=lower,
        accepts=accepts,
        priority=priority,
        variant=variant,
        in_place=in_place,
    )
    for roots, name, lower, accepts, priority, variant, in_place in (
        (("conv2d", "dense"), "conv2d", lower_conv2d, accepts_conv2d, 20, "", (1,)),
        (
            ("conv2d", "dense"),
            "conv2d",
            lower_conv2d,
            both(accepts_conv2d, is_in_place),
            21,
            "in place",
            (0, 1),
        ),
        (("conv2d",), "depthwise_conv2d", lower_depthwise, accepts_depthwise_mve, 22, "", ()),
    )
    for root in roots
    for pattern in (f"{root}+requantize", f"{root}+add+requantize", f"{root}+sub+requantize")
    if name == "conv2d" or pattern == "conv2d+requantize"
)
