"""Rows of float32 convolutions and dense layers, of transposed convolution and of products of two matrices."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcc.backends.kernel import Call, Kernel, Step
from qcc.backends.scalar.convolution import accepts_skip, geometry, skip_operand
from qcc.backends.scalar.elementwise import merged_axes
from qcc.backends.scalar.lowering import (
    Params,
    accepts_parameters,
    constant,
    float_bounds,
    requantize_constants,
    requantize_params,
    source,
    zero_point,
)
from qcc.ir.ops.conv import Conv2d
from qcc.ir.ops.conv_transpose import ConvTranspose2d

F32_BLOCK = 16  # QCC_F32_BLOCK in qcc_float.h
_BATCH_AXES = 4


def pack_blocks(weights: NDArray[Any], groups: int) -> NDArray[np.float32]:
    """[O, KH, KW, C/groups] as, for each group, blocks of output channels [KH, KW, C/groups, up to F32_BLOCK]."""
    per_group = len(weights) // groups
    parts = []
    for group in range(groups):
        filters = weights[group * per_group : (group + 1) * per_group]
        for first in range(0, per_group, F32_BLOCK):
            parts.append(filters[first : first + F32_BLOCK].transpose(1, 2, 3, 0).reshape(-1))
    return np.concatenate(parts).astype(np.float32)


def accepts_depthwise(step: Step) -> str | None:
    """As many groups as input and output channels."""
    op = step.root.op
    assert isinstance(op, Conv2d)
    if not op.groups == step.root.input(0).type.shape[-1] == step.output.type.shape[-1]:
        return "not depthwise: groups, input channels and output channels differ"
    return accepts_parameters(step)


def lower_conv2d(step: Step) -> Call:
    """f32_conv2d_scalar and f32_conv_transpose2d_scalar: weights in blocks of output channels."""
    op, weights = step.root.op, constant(step.root, "w")
    assert isinstance(op, Conv2d | ConvTranspose2d)
    assert weights is not None
    constants = {"weights": pack_blocks(weights, op.groups), "bias": constant(step.root, "bias")}
    params = {**geometry(step, op, weights), "groups": op.groups, **float_bounds(step)}
    return Call(params, constants, inputs=(step.root.input(0),))


def lower_depthwise(step: Step) -> Call:
    """f32_depthwise_conv2d_scalar: weights with the channel fastest."""
    op, weights = step.root.op, constant(step.root, "w")
    assert isinstance(op, Conv2d)
    assert weights is not None
    packed = np.ascontiguousarray(weights[..., 0].transpose(1, 2, 0), np.float32)
    params = {**geometry(step, op, weights), "groups": op.groups, **float_bounds(step)}
    return Call(
        params, {"weights": packed, "bias": constant(step.root, "bias")}, inputs=(step.root.input(0),)
    )


def lower_dense(step: Step) -> Call:
    """f32_conv2d_scalar: a row of pixels, one for each vector, and 1x1 filters."""
    weights = constant(step.root, "w")
    assert weights is not None
    packed = pack_blocks(weights[:, None, None, :], 1)
    return Call(
        {**dense_geometry(step), **float_bounds(step)},
        {"weights": packed, "bias": constant(step.root, "bias")},
        inputs=(step.root.input(0),),
    )


def dense_geometry(step: Step) -> Params:
    """The params of a convolution up to the groups, for a dense layer."""
    x = step.root.input(0)
    outputs, depth = step.root.input(1).type.shape
    rows = x.type.elements // depth
    return {
        "batch": 1,
        "input_height": 1,
        "input_width": rows,
        "input_channels": depth,
        "output_height": 1,
        "output_width": rows,
        "output_channels": outputs,
        "kernel_height": 1,
        "kernel_width": 1,
        "stride_height": 1,
        "stride_width": 1,
        "dilation_height": 1,
        "dilation_width": 1,
        "pad_top": 0,
        "pad_left": 0,
        "groups": 1,
    }


def lower_s8_conv_transpose2d(step: Step) -> Call:
    """s8_conv_transpose2d_scalar: weights as they are, the zero_point as a parameter."""
    op, weights = step.root.op, constant(step.root, "w")
    assert isinstance(op, ConvTranspose2d)
    assert weights is not None
    skip, skip_multiplier, term = skip_operand(step)
    bias, channels = constant(step.root, "bias"), len(weights)
    total = np.broadcast_to((0 if bias is None else bias.astype(np.int64)) + term, channels)
    assert np.abs(total).max(initial=0) < 2**31, f"the bias of {step.root.name} leaves 32 bits"
    params = {
        **geometry(step, op, weights),
        "groups": op.groups,
        "input_zero_point": op.x_zero_point,
        "skip_zero_point": zero_point(skip) if skip else 0,
        **requantize_params(step),
    }
    constants = {
        "weights": weights,
        "bias": total.astype(np.int32),
        "skip_multiplier": skip_multiplier,
        **requantize_constants(step, channels),
    }
    return Call(params, constants, inputs=(step.root.input(0), skip))


def _matmul_params(step: Step) -> Params:
    a, b = step.root.input(0).type.shape, step.root.input(1).type.shape
    extents, strides = merged_axes(step.output.type.shape[:-2], (a[:-2], b[:-2]), False)
    missing = _BATCH_AXES - len(extents)
    return {
        "batch": (1,) * missing + extents,
        "a_strides": (0,) * missing + tuple(s * prod(a[-2:]) for s in strides[0]),
        "b_strides": (0,) * missing + tuple(s * prod(b[-2:]) for s in strides[1]),
        "rows": a[-2],
        "columns": b[-1],
        "depth": a[-1],
    }


def accepts_matmul(step: Step) -> str | None:
    """At most one constant, and at most four leading axes once neighbours are merged."""
    operands = step.root.input(0), step.root.input(1)
    if all(v.is_constant for v in operands):
        return "both operands are constant"
    shapes = [v.type.shape[:-2] for v in operands]
    extents, _ = merged_axes(step.output.type.shape[:-2], shapes, False)
    return (
        None if len(extents) <= _BATCH_AXES else f"{len(extents)} leading axes, the kernel has {_BATCH_AXES}"
    )


def _matmul(step: Step, params: Params, constants: dict[str, NDArray[Any]]) -> Call:
    operands = step.root.input(0), step.root.input(1)
    data = next((v.data for v in operands if v.data is not None), None)
    inputs = tuple(None if v.is_constant else v for v in operands)
    return Call(params, {"constant": data, **constants}, inputs=inputs)


def lower_matmul(step: Step) -> Call:
    """f32_matmul_scalar."""
    return _matmul(step, _matmul_params(step), {})


def lower_s8_matmul(step: Step) -> Call:
    """s8_matmul_scalar."""
    constants = dict(requantize_constants(step))
    params: Params = {
        **_matmul_params(step),
        "a_zero_point": zero_point(step.root.input(0)),
        "b_zero_point": zero_point(step.root.input(1)),
        "requantize_channels": constants["multiplier"].size,
        **requantize_params(step),
    }
    return _matmul(step, params, constants)


def accepts_s8_matmul(step: Step) -> str | None:
    """As accepts_matmul, and both operands s8."""
    for value in (step.root.input(0), step.root.input(1)):
        if value.type.dtype.value != "s8":
            return f"operand %{value.name} is {value.type.dtype.value}, not s8"
    return accepts_matmul(step)


def _row(pattern: str, dtype: str, name: str, params: str, **fields: Any) -> Kernel:
    symbol = f"qcc_{dtype}_{name}_scalar"
    return Kernel(pattern, dtype, symbol, params, source(symbol), **fields)


def _conv2d_rows(end: str) -> tuple[Kernel, ...]:
    params = "qcc_f32_conv2d_params"
    return (
        _row(
            f"conv2d{end}",
            "f32",
            "depthwise_conv2d",
            params,
            lower=lower_depthwise,
            accepts=accepts_depthwise,
            priority=1,
        ),
        _row(
            f"conv2d{end}",
            "f32",
            "conv2d",
            params,
            lower=lower_conv2d,
            accepts=accepts_parameters,
            channel_block=F32_BLOCK,
        ),
        _row(
            f"dense{end}",
            "f32",
            "conv2d",
            params,
            lower=lower_dense,
            accepts=accepts_parameters,
            channel_block=F32_BLOCK,
        ),
    )


KERNELS: tuple[Kernel, ...] = (
    *_conv2d_rows(""),
    *_conv2d_rows("+clamp"),
    _row(
        "conv_transpose2d",
        "f32",
        "conv_transpose2d",
        "qcc_f32_conv_transpose2d_params",
        lower=lower_conv2d,
        accepts=accepts_parameters,
    ),
    _row("matmul", "f32", "matmul", "qcc_f32_matmul_params", lower=lower_matmul, accepts=accepts_matmul),
    *(
        _row(
            f"conv_transpose2d{middle}+requantize",
            "s8",
            "conv_transpose2d",
            "qcc_conv_transpose2d_params",
            lower=lower_s8_conv_transpose2d,
            accepts=accepts_skip,
            in_place=(1,),
        )
        for middle in ("", "+add", "+sub")
    ),
    _row(
        "matmul+requantize",
        "s8",
        "matmul",
        "qcc_matmul_params",
        lower=lower_s8_matmul,
        accepts=accepts_s8_matmul,
    ),
)
