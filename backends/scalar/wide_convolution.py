"""Rows of convolution and dense with tensors of 16 bits, or with weights of 4 bits, two in a byte."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcc.backends.kernel import Call, Kernel, Step
from qcc.backends.scalar.convolution import geometry, skip_operand
from qcc.backends.scalar.lowering import (
    Params,
    constant,
    requantize_constants,
    requantize_params,
    source,
    zero_point,
)
from qcc.backends.scalar.wide import inserted, rows, type_bytes
from qcc.ir.ops.conv import Conv2d
from qcc.ir.ops.conv_transpose import ConvTranspose2d
from qcc.ir.ops.dense import Dense

RUN = 480  # QCC_WIDE_RUN in qcc_wide.h
CONV = "qcc_wide_conv2d_params"
_PRODUCTS, _OUTPUT = 0.8, 8.0  # in a cycle; cycles
PACKED_PRIORITY = 30  # above all others: packing is chosen for its bytes


def accepts_convolution(step: Step) -> str | None:
    """A residual operand, if any, of the output's shape (a constant one: a value per channel or less)."""
    for node in step.fused[:-1]:
        index = 1 if node.input(0) is step.root.output else 0
        skip = node.input(index)
        if constant(node, ("a_multiplier", "b_multiplier")[1 - index]) is not None:
            return "the sum scales the accumulator"
        if skip.data is not None and skip.data.size not in (1, step.output.type.shape[-1]):
            return "the constant that is added is not per channel"
        if skip.data is None and skip.type.shape != step.output.type.shape:
            return f"the residual operand is {skip.type}, not of the output's shape"
    return None


def accepts_depthwise(step: Step) -> str | None:
    """One input channel for each output channel, and so few taps that int32 holds their sum."""
    op, weights = step.root.op, constant(step.root, "w")
    assert isinstance(op, Conv2d)
    assert weights is not None
    channels = step.root.input(0).type.shape[-1]
    if op.groups != channels or step.output.type.shape[-1] != channels:
        return "not depthwise: groups, input channels and output channels differ"
    if weights[0].size > RUN:
        return f"{weights[0].size} taps, the kernel has {RUN}"
    return accepts_convolution(step)


def lower_conv2d(step: Step) -> Call:
    """wide_conv2d_scalar: weights stay [O, KH, KW, C/groups]."""
    op, weights = step.root.op, constant(step.root, "w")
    assert isinstance(op, Conv2d)
    assert weights is not None
    return _convolution(step, geometry(step, op, weights), weights, op.x_zero_point, op.pad_value, op.groups)


def lower_depthwise(step: Step) -> Call:
    """wide_depthwise_conv2d_scalar: weights become [KH, KW, C]."""
    call = lower_conv2d(step)
    weights = call.constants["weights"]
    assert weights is not None
    packed = np.ascontiguousarray(weights[..., 0].transpose(1, 2, 0))
    return replace(call, constants={**call.constants, "weights": packed})


def lower_dense(step: Step) -> Call:
    """wide_conv2d_scalar: a row of pixels, one for each vector, and filters of one tap."""
    op, weights = step.root.op, constant(step.root, "w")
    assert isinstance(op, Dense)
    assert weights is not None
    outputs, depth = weights.shape
    rows = step.root.input(0).type.elements // depth
    shape: Params = {"batch": 1}
    for side, channels in (("input", depth), ("output", outputs)):
        shape |= {f"{side}_height": 1, f"{side}_width": rows, f"{side}_channels": channels}
    for name in ("kernel", "stride", "dilation"):
        shape |= {f"{name}_height": 1, f"{name}_width": 1}
    return _convolution(step, {**shape, "pad_top": 0, "pad_left": 0}, weights, op.x_zero_point, 0, 1)


def _convolution(
    step: Step,
    shape: Mapping[str, Any],
    weights: NDArray[Any],
    x_zero_point: int,
    pad_value: int,
    groups: int,
) -> Call:
    x = step.root.input(0)
    skip, skip_multiplier, term = skip_operand(step)
    params: Params = {
        **shape,
        "pad_value": pad_value,
        "groups": groups,
        "input_bytes": type_bytes(x),
        "skip_bytes": type_bytes(skip),
        "output_bytes": type_bytes(step.output),
        "skip_zero_point": zero_point(skip) if skip else 0,
        **requantize_params(step),
    }
    bias = constant(step.root, "bias")
    sums = weights.reshape(len(weights), -1).astype(np.int64).sum(axis=1)
    total = (0 if bias is None else bias.astype(np.int64)) - x_zero_point * sums + term
    constants = {
        "weights": np.ascontiguousarray(weights),
        "bias": np.asarray(total, np.int64),
        "skip_multiplier": skip_multiplier,
        **requantize_constants(step, step.output.type.shape[-1]),
    }
    return Call(params, constants, inputs=(x, skip))


def _is_packed(step: Step) -> bool:
    """Weights chosen to be stored in at most 4 bits; those of a depthwise convolution are few and stay in 8."""
    if isinstance(step.root.op, Conv2d) and step.root.op.groups == step.root.input(0).type.shape[-1] > 1:
        return False
    qparams = step.root.input(1).type.qparams
    return (
        qparams is not None and qparams.codes is not None and -8 <= qparams.codes[0] <= qparams.codes[1] <= 7
    )


def accepts_packed_in_place(step: Step) -> str | None:
    """As accepts_convolution; a residual operand of other size is not overwritten, as some channels are written before others."""
    skip, _, _ = skip_operand(step)
    if skip is not None and skip.type.dtype is not step.output.type.dtype:
        return "the residual operand and the output have other types"
    return accepts_convolution(step)


def pack_halves(weights: NDArray[Any]) -> NDArray[np.uint8]:
    """s8[O, ...] with codes in [-8, 7] as u8[O, ceil(K / 2)], the low half of a byte first."""
    rows = weights.reshape(len(weights), -1)
    even = np.pad(rows, ((0, 0), (0, rows.shape[1] % 2))).astype(np.uint8) & 15
    return np.asarray(even[:, ::2] | even[:, 1::2] << 4, np.uint8)


def _packed(lower: Callable[[Step], Call]) -> Callable[[Step], Call]:
    """The call of wide_conv2d_scalar with the weights of s4_conv2d_scalar."""

    def lowered(step: Step) -> Call:
        call = lower(step)
        weights = call.constants["weights"]
        assert weights is not None
        constants = {**call.constants, "weights": pack_halves(weights)}
        return replace(call, constants=constants, workspace_bytes=4 * weights[0].size)

    return lowered


def lower_conv_transpose2d(step: Step) -> Call:
    """wide_conv_transpose2d_scalar: weights as they are, the zero_point as a parameter."""
    op, weights = step.root.op, constant(step.root, "w")
    assert isinstance(op, ConvTranspose2d)
    assert weights is not None
    call = _convolution(step, geometry(step, op, weights), weights, 0, 0, op.groups)
    params: Params = {k: v for k, v in call.params.items() if k != "pad_value"}
    return replace(call, params=inserted(params, "skip_zero_point", {"input_zero_point": op.x_zero_point}))


def cost(step: Step) -> float:
    """Cycles: measured at 0.6 to 1.3 products in each, with code for any vector unit, and some for an output."""
    macs = sum(node.op.macs(node.signature) for node in step.nodes)
    return macs / _PRODUCTS + step.output.type.elements * _OUTPUT


def _with_skip(root: str) -> tuple[str, ...]:
    return tuple(f"{root}{middle}+requantize" for middle in ("", "+add", "+sub"))


KERNELS: tuple[Kernel, ...] = (
    *rows(
        _with_skip("conv2d"),
        "qcc_wide_conv2d_scalar",
        CONV,
        lower_conv2d,
        accepts_convolution,
        in_place=(1,),
        cost=cost,
        channel_block=1,
    ),
    *rows(
        _with_skip("conv2d"),
        "qcc_wide_depthwise_conv2d_scalar",
        CONV,
        lower_depthwise,
        accepts_depthwise,
        cost=cost,
        priority=1,
        in_place=(1,),
    ),
    *rows(
        _with_skip("dense"),
        "qcc_wide_conv2d_scalar",
        CONV,
        lower_dense,
        accepts_convolution,
        in_place=(1,),
        cost=cost,
        channel_block=1,
    ),
    *rows(
        _with_skip("conv_transpose2d"),
        "qcc_wide_conv_transpose2d_scalar",
        "qcc_wide_conv_transpose2d_params",
        lower_conv_transpose2d,
        accepts_convolution,
        in_place=(1,),
    ),
    *(
        Kernel(
            pattern,
            dtype,
            "qcc_s4_conv2d_scalar",
            CONV,
            source("qcc_s4_conv2d_scalar"),
            _packed(lower),
            accepts,
            cost=cost,
            channel_block=1,
            priority=priority,
            in_place=in_place,
            wide=True,
            meant_for=_is_packed,
        )
        for root, lower in (("conv2d", lower_conv2d), ("dense", lower_dense))
        for pattern in _with_skip(root)
        for dtype in ("s8", "s16")
        for accepts, priority, in_place in (
            (accepts_packed_in_place, PACKED_PRIORITY, (1,)),
            (accepts_convolution, PACKED_PRIORITY - 1, ()),
        )
    ),
)
