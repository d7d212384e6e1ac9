"""Rows of convolution, dense and average pooling for the vectors of Armv8.1-M: Cortex-M55 and M85."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcc.backends.arm.cortex_m import (
    FORMS,
    KERNELS_FOLDER,
    SHIFTS,
    Numbers,
    accepts_conv2d,
    both,
    conv2d_params,
    is_in_place,
    numbers_of,
)
from qcc.backends.arm.wide import UNPROVEN, requantization
from qcc.backends.kernel import Call, Kernel, Step
from qcc.backends.scalar.convolution import accepts_depthwise, skip_operand
from qcc.backends.scalar.lowering import zero_point
from qcc.backends.scalar.vectors import mean_rows
from qcc.ir.ops.conv import Conv2d
from qcc.ir.ops.dense import Dense

VECTOR = 16  # int8 lanes
FOUR = 4  # int32 lanes
SHORT = 64  # taps of a column that s8_conv2d_short_mve keeps on the stack
BAND_BYTES = 4096  # of a depthwise convolution's workspace, where that is enough for one group of rows


def _padded(array: NDArray[Any], axis: int, multiple: int) -> NDArray[Any]:
    widths = [(0, -size % multiple if i == axis else 0) for i, size in enumerate(array.shape)]
    return np.pad(array, widths)


def _constants(numbers: Numbers, step: Step, multiple: int) -> NDArray[np.int32]:
    """s32[C, QCC_MVE_CHANNEL], as qcc_arm_mve.h has them; C is padded to ``multiple``."""
    up = [numbers.up] if numbers.up.any() else []
    columns = [numbers.bias, *up, numbers.multiplier, _rounding(step, numbers.shift), -numbers.shift]
    return _padded(np.stack(columns, axis=-1).astype(np.int32), 0, multiple)


def _rounding(step: Step, shift: NDArray[np.int64]) -> NDArray[np.int64]:
    """The term that rounds the upper half of a product before ``shift`` and adds the zero_point; see qcc_arm_dsp.h."""
    return (2 * zero_point(step.output) + 1) << (shift - 1)


def lower_conv2d(step: Step) -> Call:
    """s8_conv2d_mve."""
    numbers = numbers_of(step)
    flat = numbers.weights.reshape(len(numbers.weights), -1)
    padded = _padded(_padded(flat, 0, FOUR), 1, VECTOR)
    skip, channels = numbers.skip_multiplier, _constants(numbers, step, FOUR)
    constants: dict[str, NDArray[Any] | None] = {
        "weights": np.ascontiguousarray(
            padded.reshape(-1, FOUR, padded.shape[1] // VECTOR, VECTOR).swapaxes(1, 2)
        ),
        "channels": np.ascontiguousarray(channels.reshape(-1, FOUR, channels.shape[1]).swapaxes(1, 2)),
        "skip_multiplier": None if skip is None else _padded(skip, 0, FOUR),
    }
    inputs = (step.root.input(0), skip_operand(step)[0])
    return Call(conv2d_params(step), constants, 2 * padded.shape[1], inputs)


def lower_short(step: Step) -> Call:
    """s8_conv2d_short_mve: no workspace."""
    return replace(lower_conv2d(step), workspace_bytes=0)


def accepts_short(step: Step) -> str | None:
    """Columns that fit on the stack."""
    taps = step.root.input(1).type.elements // step.output.type.shape[-1]
    if taps <= SHORT:
        return accepts_conv2d(step)
    return f"columns of {taps} taps, the kernel has {SHORT}"


def accepts_one_row(step: Step) -> str | None:
    """A dense layer of one row, read where it is."""
    taps = step.root.input(1).type.elements // step.output.type.shape[-1]
    if not isinstance(step.root.op, Dense) or step.output.type.elements != step.output.type.shape[-1]:
        return "not a dense layer of one row"
    return accepts_conv2d(step) if taps % VECTOR == 0 else f"{taps} taps are no multiple of {VECTOR}"


def accepts_depthwise_mve(step: Step) -> str | None:
    """3x3, and no residual operand: the row has no such pattern."""
    if step.root.input(1).type.shape[1:3] != (3, 3):
        return "the filter is not 3x3"
    return accepts_depthwise(step)


@dataclass(frozen=True)
class _Windows:
    """Of a depthwise convolution: output rows computed together, groups of them, and the bytes that one group needs."""

    rows: int
    groups: int
    band_bytes: Callable[[int], int]


def _windows(step: Step) -> _Windows:
    op = step.root.op
    assert isinstance(op, Conv2d)
    _, height, width, _ = step.output.type.shape
    rows = 2 if op.strides[0] == op.dilations[0] == 1 and height > 1 else 1
    columns = (width - 1) * op.strides[1] + 2 * op.dilations[1] + 1

    def band_bytes(band: int) -> int:
        pixels = -(-band * width // FOUR) * FOUR
        return 4 * (band * columns * VECTOR + pixels * (FOUR + rows))

    return _Windows(rows, -(-height // rows), band_bytes)


def is_in_place_depthwise_mve(step: Step) -> str | None:
    """The workspace of the whole height replaces a second buffer, and is smaller."""
    if step.root.input(0).type.shape != step.output.type.shape:
        return "input and output differ in size"
    found = _windows(step)
    smaller = found.band_bytes(found.groups) <= step.output.type.bytes + found.band_bytes(1)
    return None if smaller else "a second buffer is smaller than the workspace"


def lower_depthwise(step: Step) -> Call:
    """s8_depthwise_conv2d_mve: all rows at once in place, else as many as BAND_BYTES hold."""
    found, band = _windows(step), 1
    if is_in_place_depthwise_mve(step) is None:
        band = found.groups
    while band < found.groups and found.band_bytes(band + 1) <= BAND_BYTES:
        band += 1
    numbers = numbers_of(step)
    taps = _padded(numbers.weights.reshape(-1, 3, 3).swapaxes(1, 2), 2, FOUR)
    constants: dict[str, NDArray[Any] | None] = {
        "weights": np.pad(taps.reshape(-1), (0, FOUR)),
        "channels": _constants(numbers, step, 1),
    }
    return Call(conv2d_params(step, band), constants, found.band_bytes(band), inputs=(step.root.input(0),))


# ---------------------------------------------------------------- pooling
def _packed(step: Step, channels: int) -> dict[str, NDArray[np.int32]]:
    """s32[C / 4, 4, 4]: what a kernel of pooling knows of each channel."""
    found = requantization(step, SHIFTS)
    assert found is not None
    # of a constant channel, what it is takes the place of the products
    rounding = _rounding(step, found.shift - 32) + np.where(found.still, 2 * found.value, 0)
    columns = [found.up, np.where(found.still, 0, found.multiplier), rounding, 32 - found.shift]
    packed = np.stack(columns, axis=-1).astype(np.int32)
    rows = _padded(np.tile(packed, (channels // len(packed), 1)), 0, FOUR)
    return {"constants": np.ascontiguousarray(rows.reshape(-1, FOUR, 4).swapaxes(1, 2))}


def accepts_mean(step: Step) -> str | None:
    """Accumulators that stay within 32 bits where they are moved up."""
    found = requantization(step, SHIFTS)
    return UNPROVEN if found is None else found.refused


_MEANS = "s8_avg_pool2d_mve"
_POOLING = mean_rows(f"qcc_{_MEANS}", KERNELS_FOLDER / f"{_MEANS}.c", _packed, accepts_mean, priority=20)

MVE_KERNELS: tuple[Kernel, ...] = _POOLING + tuple(
    Kernel(
        pattern=pattern,
        dtype="s8",
        symbol=f"qcc_s8_{name}{up}_mve",
        params_type="qcc_dsp_conv2d_params",
        source=KERNELS_FOLDER / f"s8_{name.removesuffix('_short')}{up}_mve.c",
        lower=lower,
        accepts=both(accepts, accepts_form),
        priority=priority - lower_by,
        variant=variant,
        in_place=in_place,
    )
    for up, accepts_form, lower_by in FORMS
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
        (("conv2d", "dense"), "conv2d_short", lower_short, accepts_short, 24, "", (1,)),
        (
            *(("conv2d", "dense"), "conv2d_short", lower_short),
            *(both(accepts_short, is_in_place), 25, "in place", (0, 1)),
        ),
        (("dense",), "conv2d_short", lower_short, accepts_one_row, 26, "one row", (1,)),
        (("conv2d",), "depthwise_conv2d", lower_depthwise, accepts_depthwise_mve, 22, "", ()),
        (
            *(("conv2d",), "depthwise_conv2d", lower_depthwise),
            *(both(accepts_depthwise_mve, is_in_place_depthwise_mve), 23, "in place", (0,)),
        ),
    )
    for root in roots
    for pattern in (f"{root}+requantize", f"{root}+add+requantize", f"{root}+sub+requantize")
    if name != "depthwise_conv2d" or pattern == "conv2d+requantize"
)
