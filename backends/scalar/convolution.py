"""Rows of convolution and dense kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcc.backends.kernel import Call, Kernel, Step
from qcc.backends.scalar.lowering import (
    constant,
    requantize_constants,
    requantize_params,
    source,
    window_params,
    zero_point,
)
from qcc.ir.graph import Value
from qcc.ir.ops.conv import Conv2d
from qcc.ir.ops.conv_transpose import ConvTranspose2d
from qcc.ir.ops.dense import Dense


def skip_operand(step: Step) -> tuple[Value | None, NDArray[np.int32] | None, NDArray[np.int64] | int]:
    """The residual operand of a fused sum: (materialized skip, its multiplier s32[C], constant term of the bias)."""
    if len(step.fused) < 2:
        return None, None, 0
    node = step.fused[0]
    index = 1 if node.input(0) is step.root.output else 0
    skip, channels = node.input(index), step.output.type.shape[-1]
    scale = constant(node, ("a_multiplier", "b_multiplier")[index])
    multiplier = np.broadcast_to(1 if scale is None else scale, channels).astype(np.int32)
    if skip.data is not None:
        return None, None, (skip.data.astype(np.int64) - zero_point(skip)).reshape(-1) * multiplier
    return skip, multiplier, 0


def accepts_skip(step: Step) -> str | None:
    """A residual operand must have the output's shape (a constant one: a value per channel or less)."""
    for node in step.fused[:-1]:
        index = 1 if node.input(0) is step.root.output else 0
        skip = node.input(index)
        if constant(node, ("a_multiplier", "b_multiplier")[1 - index]) is not None:
            return "the sum scales the accumulator"
        if skip.data is not None:
            if skip.data.size not in (1, step.output.type.shape[-1]):
                return "the constant that is added is not per channel"
        elif skip.type.dtype.value != "s8" or skip.type.shape != step.output.type.shape:
            return f"the residual operand is {skip.type}, not s8 of the output's shape"
    return None


def folded_bias(
    step: Step, weights: NDArray[Any], x_zero_point: int, term: NDArray[Any] | int
) -> NDArray[np.int32]:
    """bias - x_zero_point * sum(w) + term, in s32[O]: the kernels never see the input's zero_point."""
    bias = constant(step.root, "bias")
    sums = weights.reshape(weights.shape[0], -1).astype(np.int64).sum(axis=1)
    total = (0 if bias is None else bias.astype(np.int64)) - x_zero_point * sums + term
    assert np.abs(total).max(initial=0) < 2**31, f"the bias of {step.root.name} leaves 32 bits"
    return np.asarray(total, np.int32)


def accepts_depthwise(step: Step) -> str | None:
    """One input channel for each output channel, and a residual operand as for all convolutions."""
    op = step.root.op
    assert isinstance(op, Conv2d)
    channels = step.root.input(0).type.shape[-1]
    if op.groups != channels or step.output.type.shape[-1] != channels:
        return "not depthwise: groups, input channels and output channels differ"
    return accepts_skip(step)


def geometry(step: Step, op: Conv2d | ConvTranspose2d, weights: NDArray[Any]) -> dict[str, int]:
    """batch to pad_left: the first fields of the params structs of all convolutions."""
    batch, height, width, channels = step.root.input(0).type.shape
    _, output_height, output_width, output_channels = step.output.type.shape
    return {
        "batch": batch,
        "input_height": height,
        "input_width": width,
        "input_channels": channels,
        "output_height": output_height,
        "output_width": output_width,
        "output_channels": output_channels,
        **window_params(weights.shape[1:3], op),
    }


def lower_conv2d(step: Step) -> Call:
    """s8_conv2d_scalar: weights stay [O, KH, KW, C/groups]."""
    return _convolution(step, lambda weights: weights)


def lower_depthwise(step: Step) -> Call:
    """s8_depthwise_conv2d_scalar: weights become [KH, KW, C]."""
    return _convolution(step, lambda weights: weights[..., 0].transpose(1, 2, 0))


def _convolution(step: Step, pack: Callable[[NDArray[Any]], NDArray[Any]]) -> Call:
    op = step.root.op
    assert isinstance(op, Conv2d)
    x, weights = step.root.input(0), constant(step.root, "w")
    assert weights is not None
    skip, skip_multiplier, term = skip_operand(step)
    params = {
        **geometry(step, op, weights),
        "pad_value": op.pad_value,
        "groups": op.groups,
        "skip_zero_point": zero_point(skip) if skip else 0,
        **requantize_params(step),
    }
    constants = {
        "weights": np.ascontiguousarray(pack(weights)),
        "bias": folded_bias(step, weights, op.x_zero_point, term),
        "skip_multiplier": skip_multiplier,
        **requantize_constants(step, step.output.type.shape[-1]),
    }
    return Call(params, constants, inputs=(x, skip))


def lower_dense(step: Step) -> Call:
    """s8_dense_scalar: weights stay [N, K], all leading axes are rows."""
    op = step.root.op
    assert isinstance(op, Dense)
    x, weights = step.root.input(0), constant(step.root, "w")
    assert weights is not None
    skip, skip_multiplier, term = skip_operand(step)
    outputs, inputs = weights.shape
    params = {
        "rows": x.type.elements // inputs,
        "input_channels": inputs,
        "output_channels": outputs,
        "skip_zero_point": zero_point(skip) if skip else 0,
        **requantize_params(step),
    }
    constants = {
        "weights": weights,
        "bias": folded_bias(step, weights, op.x_zero_point, term),
        "skip_multiplier": skip_multiplier,
        **requantize_constants(step, outputs),
    }
    return Call(params, constants, inputs=(x, skip))


def _rows(
    root: str,
    symbol: str,
    params_type: str,
    lower: Callable[[Step], Call],
    accepts: Callable[[Step], str | None],
    priority: int = 0,
    channel_block: int = 1,
    rounding: str = "ties_up",
) -> tuple[Kernel, ...]:
    """One row without and two with a residual operand.

    That operand is read right before the output is written to the same place, so argument 1 may be overwritten.
    """
    return tuple(
        Kernel(
            pattern=pattern,
            dtype="s8",
            symbol=symbol,
            params_type=params_type,
            source=source(symbol),
            lower=lower,
            accepts=accepts,
            priority=priority,
            in_place=(1,),
            channel_block=channel_block,
            rounding=rounding,
        )
        for pattern in (f"{root}+requantize", f"{root}+add+requantize", f"{root}+sub+requantize")
    )


KERNELS: tuple[Kernel, ...] = (
    *_rows("conv2d", "qcc_s8_conv2d_scalar", "qcc_conv2d_params", lower_conv2d, accepts_skip),
    *_rows(
        "conv2d",
        "qcc_s8_depthwise_conv2d_scalar",
        "qcc_conv2d_params",
        lower_depthwise,
        accepts_depthwise,
        priority=1,
        channel_block=0,
    ),
    *_rows(
        "conv2d",
        "qcc_s8_conv2d_twice_scalar",
        "qcc_conv2d_params",
        lower_conv2d,
        accepts_skip,
        rounding="twice",
    ),
    *_rows(
        "conv2d",
        "qcc_s8_depthwise_conv2d_twice_scalar",
        "qcc_conv2d_params",
        lower_depthwise,
        accepts_depthwise,
        priority=1,
        channel_block=0,
        rounding="twice",
    ),
    *_rows("dense", "qcc_s8_dense_scalar", "qcc_dense_params", lower_dense, accepts_skip),
)
