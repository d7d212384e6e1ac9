"""Rows of pooling and bilinear resizing, on integers and floats."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcc.backends.kernel import Call, Kernel, Step
from qcc.backends.scalar.lowering import (
    requantize_constants,
    requantize_params,
    source,
    window_params,
    zero_point,
)
from qcc.ir.ops.pool import AvgPool2d, Pool
from qcc.ir.ops.resize import WEIGHT_BITS, ResizeLinear


def _sizes(step: Step) -> dict[str, int]:
    batch, height, width, channels = step.root.input(0).type.shape
    return {
        "batch": batch,
        "input_height": height,
        "input_width": width,
        "channels": channels,
        "output_height": step.output.type.shape[1],
        "output_width": step.output.type.shape[2],
    }


def _pool_params(step: Step) -> dict[str, int]:
    op = step.root.op
    assert isinstance(op, Pool)
    return {**_sizes(step), **window_params(op.kernel, op)}


def _requantized(step: Step, constants: dict[str, NDArray[Any]]) -> tuple[dict[str, int], dict[str, Any]]:
    requantize = requantize_constants(step)
    params = {
        "input_zero_point": zero_point(step.root.input(0)),
        "requantize_channels": requantize["multiplier"].size,
        **requantize_params(step),
    }
    return params, {**constants, **requantize}


def lower_max_pool2d(step: Step) -> Call:
    """s8_max_pool2d_scalar and f32_max_pool2d_scalar."""
    return Call(_pool_params(step))


def lower_avg_pool2d(step: Step) -> Call:
    """f32_avg_pool2d_scalar: the reciprocal count of each window."""
    op = step.root.op
    assert isinstance(op, AvgPool2d)
    size = step.root.input(0).type.shape[1:3]
    weight = op.factors(*size) / op.divisor(*size)
    return Call(_pool_params(step), {"weight": weight.astype(np.float32)})


def lower_s8_avg_pool2d(step: Step) -> Call:
    """s8_avg_pool2d_scalar: the factor of each window, unless all are 1."""
    op = step.root.op
    assert isinstance(op, AvgPool2d)
    factors = op.factors(*step.root.input(0).type.shape[1:3])
    used = None if (factors == 1).all() else factors.astype(np.int32)
    params, constants = _requantized(step, {})
    return Call({**_pool_params(step), **params}, {"factors": used, **constants})


def lower_resize_linear(step: Step) -> Call:
    """f32_resize_linear_scalar: the two rows and columns of each position, and the weight of the second."""
    op = step.root.op
    assert isinstance(op, ResizeLinear)
    return Call(_sizes(step), _taps(op.taps(*step.root.input(0).type.shape[1:3]), np.float32))


def lower_s8_resize_linear(step: Step) -> Call:
    """s8_resize_linear_scalar: the same with integer weights."""
    op = step.root.op
    assert isinstance(op, ResizeLinear)
    taps = _taps(op.integer_taps(*step.root.input(0).type.shape[1:3]), np.int32)
    params, constants = _requantized(step, taps)
    return Call({**_sizes(step), "one": 2**WEIGHT_BITS, **params}, constants)


def _taps(taps: list[tuple[Any, Any, Any]], dtype: Any) -> dict[str, NDArray[Any]]:
    constants: dict[str, NDArray[Any]] = {}
    for name, (first, second, weight) in zip(("row", "column"), taps, strict=True):
        constants[f"{name}s"] = np.stack([first, second], axis=1).astype(np.int32)
        constants[f"{name}_weights"] = weight.astype(dtype)
    return constants


def _row(pattern: str, dtype: str, name: str, params: str, lower: Any) -> Kernel:
    symbol = f"qcc_{dtype}_{name}_scalar"
    return Kernel(pattern, dtype, symbol, params, source(symbol), lower)


KERNELS: tuple[Kernel, ...] = (
    _row("max_pool2d", "s8", "max_pool2d", "qcc_max_pool2d_params", lower_max_pool2d),
    _row("avg_pool2d+requantize", "s8", "avg_pool2d", "qcc_avg_pool2d_params", lower_s8_avg_pool2d),
    _row(
        "resize_linear+requantize", "s8", "resize_linear", "qcc_resize_linear_params", lower_s8_resize_linear
    ),
    _row("max_pool2d", "f32", "max_pool2d", "qcc_f32_pool2d_params", lower_max_pool2d),
    _row("avg_pool2d", "f32", "avg_pool2d", "qcc_f32_pool2d_params", lower_avg_pool2d),
    _row("resize_linear", "f32", "resize_linear", "qcc_f32_resize_linear_params", lower_resize_linear),
)
