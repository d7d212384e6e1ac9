"""Rows of steps with tensors of 16 bits for NEON, over the dot products of the 8-bit kernels. See qcc_neon_wide.h."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from qcc.backends.arm import wide
from qcc.backends.arm.lanes import LANES, padded, source
from qcc.backends.arm.neon import DOTPROD, NEON, Isa, accepts_weights, pack_weights
from qcc.backends.arm.wide import CONV_PARAMS, Numbers, numbers_of, portable, wrapped
from qcc.backends.kernel import Call, Kernel, Step
from qcc.backends.scalar.lowering import Params
from qcc.backends.scalar.wide import Accepts, has_16_bits, type_bytes

SHIFTS = (32, 62)
BLOCK = 16  # output channels, and taps that are padded to
PIXELS = 4
COLUMNS = 64  # output pixels whose input a direct convolution copies at once
FEW = 4  # input channels
_CENTRE = 128  # what turns the low byte into int8
_DOWN = 31  # of a doubled product's high half


def accepts_conv2d(isa: Isa, step: Step) -> str | None:
    """One group, and weights that the dot product takes."""
    return accepts_weights(isa.least, step) or wide.accepts_conv2d(step, SHIFTS)


def accepts_in_place(isa: Isa, step: Step) -> str | None:
    """A residual operand of the output's type, if any."""
    return wide.accepts_same_skip(step) or accepts_conv2d(isa, step)


def lower_conv2d(isa: Isa, step: Step) -> Call:
    """qcc_neon_wide_conv2d.h."""
    numbers = numbers_of(step, portable(step), 0, SHIFTS)
    element = type_bytes(step.root.input(0))
    flat = numbers.weights.reshape(len(numbers.weights), -1)
    bias = numbers.bias
    if element == 2:
        bias = bias + _CENTRE * flat.astype(np.int64).sum(axis=1)
    weights = np.pad(flat, ((0, -len(flat) % BLOCK), (0, -flat.shape[1] % BLOCK)))
    skip = numbers.skip_multiplier
    params: Params = {name: numbers.call.params[name] for name in CONV_PARAMS}
    return Call(
        params,
        {
            "weights": pack_weights(weights[:, None], isa, (BLOCK // LANES,)),
            "bias": padded(wrapped(bias), BLOCK),
            "skip_multiplier": None if skip is None else padded(skip, BLOCK),
            "scale": pack_scale(numbers),
        },
        PIXELS * element * weights.shape[1],
        numbers.call.inputs,
    )


def accepts_direct(step: Step) -> str | None:
    """Few input channels, of which the dot products' columns are short runs."""
    channels = step.root.input(0).type.shape[-1]
    return f"more than {FEW} input channels" if channels > FEW else wide.accepts_conv2d(step, SHIFTS)


def accepts_direct_in_place(step: Step) -> str | None:
    """A residual operand of the output's type, if any."""
    return wide.accepts_same_skip(step) or accepts_direct(step)


def lower_direct(step: Step) -> Call:
    """s16_conv2d_direct_neon."""
    numbers = numbers_of(step, portable(step), 0, SHIFTS)
    flat = numbers.weights.reshape(len(numbers.weights), -1)
    blocks = np.pad(flat, ((0, -len(flat) % BLOCK), (0, 0))).reshape(-1, BLOCK, flat.shape[1])
    skip = numbers.skip_multiplier
    p = {name: int(numbers.call.params[name]) for name in CONV_PARAMS}  # type: ignore[arg-type]
    columns = min(COLUMNS, p["output_height"] * p["output_width"])
    width = (columns - 1) * p["stride_width"] + (p["kernel_width"] - 1) * p["dilation_width"] + 1
    return Call(
        p,
        {
            "weights": np.ascontiguousarray(blocks.swapaxes(1, 2).astype(np.int16)),
            "bias": padded(wrapped(numbers.bias), BLOCK),
            "skip_multiplier": None if skip is None else padded(skip, BLOCK),
            "scale": pack_scale(numbers),
        },
        2 * (p["kernel_height"] * width * p["input_channels"] + FEW - 1),
        numbers.call.inputs,
    )


def pack_scale(numbers: Numbers) -> NDArray[np.int32]:
    """s32[vectors, 3, 4]: multiplier, up, -down; channels padded to 16."""
    columns = padded(np.stack([numbers.multiplier, numbers.up, _DOWN - numbers.shift]), BLOCK)
    return np.ascontiguousarray(columns.reshape(3, -1, LANES).swapaxes(0, 1).astype(np.int32))


def _sum(lower: Callable[[Step, wide.Shifts], Call], step: Step) -> Call:
    """s16_add_neon."""
    call = lower(step, SHIFTS)
    params: Params = {}
    for name, value in call.params.items():
        if name == "up":
            params |= {"up": value, "down": _DOWN - int(call.params["shift"])}  # type: ignore[arg-type]
        elif name != "shift":
            params[name] = value
    return replace(call, params=params)


def _row(
    pattern: str,
    symbol: str,
    params: str,
    lower: Callable[[Step], Call],
    accepts: Accepts,
    priority: int,
    in_place: tuple[int, ...],
    dtypes: tuple[str, ...] = ("s8", "s16"),
) -> tuple[Kernel, ...]:
    return tuple(
        Kernel(
            pattern,
            dtype,
            symbol,
            f"qcc_neon_wide_{params}_params",
            source(symbol),
            lower,
            accepts,
            priority,
            in_place=in_place,
            wide=True,
            meant_for=has_16_bits,
        )
        for dtype in dtypes
    )


_SUMS: tuple[Kernel, ...] = tuple(
    row
    for pattern, lower, accepts, in_place in (
        ("add+requantize", wide.lower_add, wide.accepts_add, (0, 1)),
        ("sub+requantize", wide.lower_add, wide.accepts_add, (0, 1)),
        ("requantize", wide.lower_alone, wide.accepts_alone, (0,)),
    )
    for row in _row(
        pattern,
        "qcc_s16_add_neon",
        "add",
        partial(_sum, lower),
        partial(accepts, shifts=SHIFTS),
        10,
        in_place,
    )
)

_DIRECT: tuple[Kernel, ...] = tuple(
    row
    for end in ("requantize", "add+requantize", "sub+requantize")
    for accepts, priority, in_place in ((accepts_direct_in_place, 13, (1,)), (accepts_direct, 12, ()))
    for row in _row(
        f"conv2d+{end}",
        "qcc_s16_conv2d_direct_neon",
        "conv2d",
        lower_direct,
        accepts,
        priority,
        in_place,
        ("s16",),
    )
)


def _family(isa: Isa) -> tuple[Kernel, ...]:
    products = (
        row
        for root in ("conv2d", "dense")
        for end in ("requantize", "add+requantize", "sub+requantize")
        for accepts, priority, in_place in ((accepts_in_place, 11, (1,)), (accepts_conv2d, 10, ()))
        for row in _row(
            f"{root}+{end}",
            f"qcc_s16_conv2d_{isa.name}",
            "conv2d",
            partial(lower_conv2d, isa),
            partial(accepts, isa),
            priority,
            in_place,
        )
    )
    return (*products, *_DIRECT, *_SUMS)


NEON_ROWS = _family(NEON)
DOTPROD_ROWS = _family(DOTPROD)
