"""Rows of convolution and dense layers for NEON: one family of kernels over three kinds of dot products."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcc.backends.arm.lanes import LANES, accepts_requantize, pack_scale, padded, source
from qcc.backends.kernel import Call, Kernel, Step
from qcc.backends.scalar import accumulators
from qcc.backends.scalar.convolution import accepts_skip, lower_conv2d, lower_dense
from qcc.backends.scalar.lowering import Params, constant
from qcc.ir.ops.conv import Conv2d

BLOCKS = (4, 3, 2, 1)  # vectors of a register tile
DENSE_BLOCKS = (8, 4, 2, 1)
CHUNK = 16  # taps of an activation register
QUAD = 4  # taps of one channel in 16 bytes
_BEFORE, _BEHIND = 16, 4  # bytes of the workspace around the image
_FIELDS = (
    *("batch", "input_height", "input_width", "input_channels"),
    *("output_height", "output_width", "output_channels", "kernel_height", "kernel_width"),
    *("stride_height", "stride_width", "dilation_height", "dilation_width"),
    *("pad_top", "pad_left", "pad_value", "output_step", "output_zero_point", "low", "high"),
)


@dataclass(frozen=True)
class Isa:
    """``order``: the byte of [4 channels][4 taps] at each place of 16 bytes; ``least``: the smallest weight."""

    name: str
    order: tuple[int, ...]
    least: int = -128


NEON = Isa("neon", (0, 1, 6, 7, 8, 9, 14, 15, 2, 3, 4, 5, 10, 11, 12, 13), -127)  # of qcc_dot_neon.h
DOTPROD = Isa("dotprod", tuple(range(16)))


# ---------------------------------------------------------------- packing
def taps_of(run: int, group: int = QUAD) -> NDArray[np.int64]:
    """[groups, group]: the tap of each byte of the groups of a run, -1 where the weight is zero."""
    chunks, groups = run // CHUNK * CHUNK, -(-(run % CHUNK) // group)
    first = run - group * groups if run >= CHUNK else 0  # of the last groups
    tail = np.arange(first, first + group * groups)
    tail = np.where((tail >= chunks) & (tail < run), tail, -1)
    return np.concatenate([np.arange(chunks), tail]).reshape(-1, group)


def pack_weights(weights: NDArray[Any], isa: Isa, blocks: tuple[int, ...]) -> NDArray[np.int8]:
    """s8[O, runs, run] to [blocks][runs][quads][vectors][16], flat; each block has the most vectors of ``blocks``."""
    taps = taps_of(weights.shape[2])
    chosen = np.where(taps < 0, 0, weights[:, :, taps])  # [O, runs, quads, 4]
    lanes = np.pad(chosen, ((0, -len(weights) % LANES), (0, 0), (0, 0), (0, 0)))
    vectors = lanes.reshape(-1, LANES, *lanes.shape[1:]).transpose(0, 2, 3, 1, 4)
    bytes_ = vectors.reshape(*vectors.shape[:3], -1)[..., list(isa.order)]  # [vectors, runs, quads, 16]
    parts, start = [], 0
    while start < len(bytes_):
        block = next(size for size in blocks if start + size <= len(bytes_))
        parts.append(bytes_[start : start + block].transpose(1, 2, 0, 3).reshape(-1))
        start += block
    return np.ascontiguousarray(np.concatenate(parts).astype(np.int8))


def folded(call: Call) -> NDArray[np.int32]:
    """The bias with the zero_point of the residual operand; the sums wrap around, and end where they are proved to end."""
    bias, skip = call.constants["bias"], call.constants["skip_multiplier"]
    assert bias is not None
    total = bias.astype(np.int64)
    if skip is not None:
        skip_zero_point = call.params["skip_zero_point"]
        assert isinstance(skip_zero_point, int)
        total = total - np.int64(skip_zero_point) * skip.astype(np.int64)
    return total.astype(np.uint64).astype(np.uint32).view(np.int32)


def channel_constants(step: Step, call: Call, multiple: int = LANES) -> dict[str, NDArray[Any] | None]:
    """bias, skip_multiplier and scale, padded."""
    skip = call.constants["skip_multiplier"]
    return {
        "bias": padded(folded(call), multiple),
        "skip_multiplier": None if skip is None else padded(skip, multiple),
        "scale": pack_scale(step, step.output.type.shape[-1], multiple),
    }


# ---------------------------------------------------------------- lowering
def as_convolution(step: Step) -> Call:
    """The scalar row's numbers; a dense layer is a 1x1 convolution of an image that is one pixel wide."""
    if isinstance(step.root.op, Conv2d):
        return lower_conv2d(step)
    call = lower_dense(step)
    dense, weights = call.params, call.constants["weights"]
    assert weights is not None
    params: Params = {"batch": 1}
    for side in ("input", "output"):
        params |= {f"{side}_height": dense["rows"], f"{side}_width": 1}
        params[f"{side}_channels"] = dense[f"{side}_channels"]
    ones = ("kernel", "stride", "dilation")
    params |= {f"{name}_{axis}": 1 for name in ones for axis in ("height", "width")}
    params |= {"pad_top": 0, "pad_left": 0, "pad_value": 0}
    params |= {k: v for k, v in dense.items() if k not in ("rows", "input_channels", "output_channels")}
    return Call(params, {**call.constants, "weights": weights[:, None, None]}, inputs=call.inputs)


def numbers(call: Call, **changed: int) -> dict[str, int]:
    """The fields of qcc_neon_conv2d_params."""
    given = {"output_step": call.params["output_channels"], **call.params, **changed}
    return {name: int(given[name]) for name in _FIELDS}  # type: ignore[arg-type]


def padded_image(p: dict[str, int]) -> tuple[bool, int]:
    """Whether a kernel must copy the image to see all taps, and the bytes of the copy."""
    height, width = (
        (p[f"output_{axis}"] - 1) * p[f"stride_{axis}"]
        + (p[f"kernel_{axis}"] - 1) * p[f"dilation_{axis}"]
        + 1
        for axis in ("height", "width")
    )
    inside = height <= p["input_height"] and width <= p["input_width"]
    return p["pad_top"] > 0 or p["pad_left"] > 0 or not inside, height * width * p["input_channels"]


def lower(isa: Isa, step: Step) -> Call:
    """qcc_neon_conv2d.h."""
    call = as_convolution(step)
    weights, p = call.constants["weights"], numbers(call)
    assert weights is not None
    outputs, _, width, channels = weights.shape
    run = width * channels if p["dilation_width"] == 1 else channels
    constants = {
        "weights": pack_weights(weights.reshape(outputs, -1, run), isa, BLOCKS),
        **channel_constants(step, call),
    }
    needed, bytes_ = padded_image(p)
    workspace = _BEFORE + bytes_ + _BEHIND if needed or run < CHUNK else 16
    return Call(p, constants, workspace, inputs=call.inputs)


def lower_row(isa: Isa, step: Step) -> Call:
    """qcc_neon_dense.h, of a dense layer or a convolution."""
    call = as_convolution(step)
    weights = call.constants["weights"]
    assert weights is not None
    flat = weights.reshape(len(weights), 1, -1)
    constants = {"weights": pack_weights(flat, isa, DENSE_BLOCKS), **channel_constants(step, call)}
    return Call(numbers(call, input_channels=flat.shape[2]), constants, inputs=call.inputs)


def lower_accumulators(isa: Isa, step: Step) -> Call:
    """qcc_neon_dense.h, its sums."""
    call = accumulators.lower_dense(step)
    weights, bias = call.constants["weights"], call.constants["bias"]
    assert weights is not None
    assert bias is not None
    packed = pack_weights(weights[:, None], isa, DENSE_BLOCKS)
    return replace(call, constants={"weights": packed, "bias": padded(bias)})


def accepts_row(isa: Isa, step: Step) -> str | None:
    """One row of activations: a dense layer, or a convolution whose filter covers the image."""
    if step.output.type.elements != step.output.type.shape[-1]:
        return "more than one row"
    op, shape = step.root.op, step.root.input(0).type.shape
    if isinstance(op, Conv2d) and (shape[1:3] != step.root.input(1).type.shape[1:3] or any(op.pads)):
        return "the filter is not as large as the image"
    return accepts(isa, step)


def accepts(isa: Isa, step: Step) -> str | None:
    """One group."""
    op = step.root.op
    if isinstance(op, Conv2d) and op.groups != 1:
        return "more than one group"
    return accepts_weights(isa.least, step) or accepts_skip(step) or accepts_requantize(step)


def accepts_weights(least: int, step: Step) -> str | None:
    """Two products of weights of at least -127 fit 16 bits, of -128 they do not."""
    weights = constant(step.root, "w")
    assert weights is not None
    return f"a weight is less than {least}" if weights.min(initial=0) < least else None


# ---------------------------------------------------------------- rows
def rows(
    root: str,
    symbol: str,
    lower: Callable[[Step], Call],
    accepts: Callable[[Step], str | None],
    priority: int,
    *,
    channel_block: int = 0,
    in_place: bool = True,
) -> tuple[Kernel, ...]:
    """One row without and two with a residual operand."""
    return tuple(
        Kernel(
            pattern=pattern,
            dtype="s8",
            symbol=symbol,
            params_type="qcc_neon_conv2d_params",
            source=source(symbol),
            lower=lower,
            accepts=accepts,
            priority=priority,
            in_place=(1,) if in_place else False,
            channel_block=channel_block,
        )
        for pattern in (f"{root}+requantize", f"{root}+add+requantize", f"{root}+sub+requantize")
    )


def _accumulators(isa: Isa) -> Kernel:
    symbol = f"qcc_s8_dense_accumulator_{isa.name}"
    return Kernel(
        pattern="dense",
        dtype="s8",
        symbol=symbol,
        params_type="qcc_dense_accumulator_params",
        source=source(symbol),
        lower=partial(lower_accumulators, isa),
        accepts=partial(accepts_weights, isa.least),
        priority=10,
        channel_block=4 * DENSE_BLOCKS[0],
    )


def _family(isa: Isa) -> tuple[Kernel, ...]:
    conv, dense = f"qcc_s8_conv2d_{isa.name}", f"qcc_s8_dense_{isa.name}"
    products = tuple(
        kernel
        for root in ("conv2d", "dense")
        for kernel in (
            *rows(root, conv, partial(lower, isa), partial(accepts, isa), 10, channel_block=4 * BLOCKS[0]),
            *rows(
                root,
                dense,
                partial(lower_row, isa),
                partial(accepts_row, isa),
                12,
                channel_block=4 * DENSE_BLOCKS[0],
            ),
        )
    )
    return (*products, _accumulators(isa))


NEON_ROWS = _family(NEON)
DOTPROD_ROWS = _family(DOTPROD)
