"""Rows of steps with tensors of 16 bits for the DSP extension of Armv7E-M: the requantization is that of qcc_arm_dsp.h."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcc.backends.arm import wide
from qcc.backends.arm.cortex_m import KERNELS_FOLDER, PIXELS, SHIFTS, both
from qcc.backends.arm.wide import CONV_PARAMS, Numbers, numbers_of, portable, wrapped
from qcc.backends.kernel import Call, Kernel, Step
from qcc.backends.scalar import wide_convolution
from qcc.backends.scalar.lowering import Params
from qcc.backends.scalar.wide import Accepts, has_16_bits, type_bytes

QUAD = 4  # weights of a word
TAPS = 64  # of a depthwise convolution
_POINTER = 4  # bytes
_ORDER = {
    2: [0, 2, 1, 3],
    1: [0, 1, 2, 3],
}  # of four weights by input_bytes, and the other way round of four channels
_DENSE_PARAMS = (
    *("input_channels", "output_channels", "input_bytes", "skip_bytes", "output_bytes"),
    *("output_zero_point", "low", "high"),
)


# ---------------------------------------------------------------- convolution and dense
def _params(numbers: Numbers, names: Sequence[str]) -> Params:
    return {name: numbers.call.params[name] for name in names}


def _channels(numbers: Numbers) -> NDArray[np.int32]:
    """s32[C, 4]: bias, multiplier, shift + up - 32, up."""
    columns = (numbers.bias, numbers.multiplier, numbers.shift - 32, numbers.up)
    return np.stack([wrapped(np.asarray(column, np.int64)) for column in columns], axis=-1)


def _sum(lower: Callable[[Step, wide.Shifts], Call], step: Step) -> Call:
    """s16_add_dsp."""
    call = lower(step, SHIFTS)
    shift = call.params["shift"]
    assert isinstance(shift, int)
    return replace(call, params={**call.params, "shift": shift - 32})


def _padded(array: NDArray[Any], *axes: int) -> NDArray[Any]:
    """Zero-padded along ``axes`` to multiples of 4."""
    return np.pad(array, [(0, -size % QUAD if axis in axes else 0) for axis, size in enumerate(array.shape)])


def lower_conv2d(step: Step) -> Call:
    """s16_conv2d_dsp."""
    numbers = numbers_of(step, portable(step), 0, SHIFTS)
    p = numbers.call.params
    weights = numbers.weights.reshape(p["output_channels"], -1, p["input_channels"])  # type: ignore[arg-type]
    if p["dilation_width"] == 1:
        weights = weights.reshape(len(weights), p["kernel_height"], -1)  # type: ignore[arg-type]
    weights = _padded(weights, 2)
    order = _ORDER[type_bytes(step.root.input(0))]
    constants: dict[str, NDArray[Any] | None] = {
        "weights": np.ascontiguousarray(weights.reshape(*weights.shape[:2], -1, QUAD)[..., order]),
        "channels": _channels(numbers),
        "skip_multiplier": numbers.skip_multiplier,
    }
    workspace = 2 * PIXELS * int(weights[0].size)
    return Call(_params(numbers, CONV_PARAMS), constants, workspace, numbers.call.inputs)


def accepts_row(step: Step) -> str | None:
    """One row."""
    if step.output.type.elements != step.output.type.shape[-1]:
        return "more than one row"
    return wide.accepts_conv2d(step, SHIFTS)


def lower_dense(step: Step) -> Call:
    """s16_dense_dsp."""
    numbers = numbers_of(step, portable(step), 0, SHIFTS)
    padded = _padded(numbers.weights, 0, 1)
    words = padded.reshape(len(padded) // QUAD, QUAD, -1, QUAD).swapaxes(1, 2)
    padding = np.tile(np.array([[0, 0, 1, 0]], np.int32), (len(padded) - len(numbers.weights), 1))
    constants: dict[str, NDArray[Any] | None] = {
        "weights": np.ascontiguousarray(words[..., _ORDER[type_bytes(step.root.input(0))]]),
        "channels": np.concatenate([_channels(numbers), padding]),
        "skip_multiplier": numbers.skip_multiplier,
    }
    return Call(_params(numbers, _DENSE_PARAMS), constants, inputs=numbers.call.inputs)


def accepts_depthwise(step: Step) -> str | None:
    """Channels in fours, filters of up to 64 taps."""
    refused = wide_convolution.accepts_depthwise(step)
    if refused is None and step.output.type.shape[-1] % QUAD:
        return "the channels are no multiple of 4"
    taps = step.root.input(1).type.elements // step.output.type.shape[-1]
    if refused is None and taps > TAPS:
        return f"{taps} taps, the kernel has {TAPS}"
    return refused or wide.accepts_requantize(step, SHIFTS)


def lower_depthwise(step: Step) -> Call:
    """s16_depthwise_conv2d_dsp."""
    numbers = numbers_of(step, wide_convolution.lower_depthwise(step), 2, SHIFTS)
    channels = step.output.type.shape[-1]
    element = type_bytes(step.root.input(0))
    fours = numbers.weights.reshape(-1, channels // QUAD, QUAD).swapaxes(0, 1)  # [fours, taps, 4]
    constants: dict[str, NDArray[Any] | None] = {
        "weights": np.ascontiguousarray(fours[..., _ORDER[3 - element]], np.int16),
        "channels": _channels(numbers),
        "skip_multiplier": numbers.skip_multiplier,
    }
    workspace = _POINTER * fours.shape[1] + element * channels
    return Call(_params(numbers, CONV_PARAMS), constants, workspace, numbers.call.inputs)


# ---------------------------------------------------------------- rows
def _row(
    pattern: str,
    dtype: str,
    name: str,
    params: str,
    lower: Callable[[Step], Call],
    accepts: Accepts,
    priority: int,
    in_place: tuple[int, ...],
) -> Kernel:
    return Kernel(
        pattern,
        dtype,
        f"qcc_s16_{name}_dsp",
        f"qcc_dsp_wide_{params}_params",
        KERNELS_FOLDER / f"s16_{name}_dsp.c",
        lower,
        accepts,
        priority,
        in_place=in_place,
        wide=True,
        meant_for=has_16_bits,
    )


WIDE_KERNELS: tuple[Kernel, ...] = (
    *(
        _row(f"{root}+{end}", dtype, name, params, lower, both(accepts, same), priority, in_place)
        for roots, name, params, lower, accepts, best in (
            (
                ("conv2d", "dense"),
                "conv2d",
                "conv2d",
                lower_conv2d,
                partial(wide.accepts_conv2d, shifts=SHIFTS),
                11,
            ),
            (("dense",), "dense", "dense", lower_dense, accepts_row, 13),
            (("conv2d",), "depthwise_conv2d", "conv2d", lower_depthwise, accepts_depthwise, 15),
        )
        for same, priority, in_place in ((wide.accepts_same_skip, best, (1,)), (lambda _: None, best - 1, ()))
        for root in roots
        for end in ("requantize", "add+requantize", "sub+requantize")
        for dtype in ("s8", "s16")
    ),
    *(
        _row(
            pattern, dtype, "add", "add", partial(_sum, lower), partial(accepts, shifts=SHIFTS), 10, in_place
        )
        for pattern, lower, accepts, in_place in (
            ("add+requantize", wide.lower_add, wide.accepts_add, (0, 1)),
            ("sub+requantize", wide.lower_add, wide.accepts_add, (0, 1)),
            ("requantize", wide.lower_alone, wide.accepts_alone, (0,)),
        )
        for dtype in ("s8", "s16")
    ),
)
