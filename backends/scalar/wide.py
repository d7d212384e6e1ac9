"""Rows of steps with tensors of 16 bits. Types are parameters: one kernel takes every mixture of 8 and 16 bits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcc.backends.kernel import Call, Kernel, Step
from qcc.backends.scalar import accumulators, elementwise, products, reduction, window
from qcc.backends.scalar.lowering import (
    Params,
    constant,
    requantize_constants,
    source,
    zero_point,
)
from qcc.ir.graph import Value
from qcc.ir.ops.softmax import WideSoftmax

Accepts = Callable[[Step], str | None]


def has_16_bits(step: Step) -> bool:
    """What all these rows are for."""
    return step.wide


def type_bytes(value: Value | None) -> int:
    """1 or 2; 1 for what is absent or constant."""
    return 1 if value is None or value.is_constant else value.type.dtype.bytes


def inserted(params: Mapping[str, Any], before: str, fields: Mapping[str, int]) -> Params:
    """``params`` with ``fields`` in front of one of them: the order is that of the struct."""
    made: Params = {}
    for name, value in params.items():
        if name == before:
            made.update(fields)
        made[name] = value
    return made


def accepts_binary(step: Step) -> str | None:
    """As of the kernels of 8 bits: two activations or one and a constant."""
    values = (step.root.input(0), step.root.input(1))
    if all(v.is_constant for v in values):
        return "both operands are constant"
    return elementwise.accepts_axes(step)


def accepts_equal_shapes(step: Step) -> str | None:
    """As accepts_binary, without broadcasting of activations."""
    if any(v.type.shape != step.output.type.shape for v in step.inputs):
        return "an operand is broadcast"
    return accepts_binary(step)


def lower_matmul(step: Step) -> Call:
    """wide_matmul_scalar."""
    call = products.lower_s8_matmul(step)
    a, b = step.root.input(0), step.root.input(1)
    sizes = {"a_bytes": type_bytes(a), "b_bytes": type_bytes(b), "output_bytes": type_bytes(step.output)}
    return replace(call, params=inserted(call.params, "a_zero_point", sizes))


def lower_add(step: Step) -> Call:
    """wide_add_scalar."""
    order = (1, 0) if step.root.input(0).is_constant else (0, 1)
    factors = [elementwise.operand_factors(step, index) for index in order]
    constants: dict[str, NDArray[Any] | None] = {
        "constant": None,
        "a_multiplier": factors[0],
        "b_multiplier": factors[1],
    }
    if step.root.input(order[1]).is_constant:
        data = constant(step.root, ("a_multiplier", "b_multiplier")[order[1]])
        scaled = elementwise.centred(step, order[1]) * (1 if data is None else data.astype(np.int64))
        constants |= {"constant": scaled, "b_multiplier": None}
    return _binary(step, order, constants)


def lower_mul(step: Step) -> Call:
    """wide_mul_scalar."""
    order = (1, 0) if step.root.input(0).is_constant else (0, 1)
    other = step.root.input(order[1]).is_constant
    return _binary(
        step, order, {"constant": elementwise.centred(step, order[1]).astype(np.int16) if other else None}
    )


def _binary(step: Step, order: tuple[int, int], constants: Mapping[str, NDArray[Any] | None]) -> Call:
    a, b = (step.root.input(i) for i in order)
    sizes = {"a_bytes": type_bytes(a), "b_bytes": type_bytes(b), "output_bytes": type_bytes(step.output)}
    params = inserted(elementwise.binary_params(step, order), "output_zero_point", sizes)
    requantize = requantize_constants(step, elementwise.requantize_channels(step))
    return Call(params, {**constants, **requantize}, inputs=(a, None if b.is_constant else b))


def _typed(lower: Callable[[Step], Call], before: str) -> Callable[[Step], Call]:
    """The call of the 8-bit kernel with the sizes of the types in front of one of its params."""

    def lowered(step: Step) -> Call:
        call = lower(step)
        sizes = {"input_bytes": type_bytes(step.root.input(0)), "output_bytes": type_bytes(step.output)}
        return replace(call, params=inserted(call.params, before, sizes))

    return lowered


def lower_table(step: Step) -> Call:
    """wide_table_scalar: one table, or one for each channel."""
    table = constant(step.root, "table")
    assert table is not None
    channels = len(table) if table.ndim == 2 else 1
    params = {"rows": step.output.type.elements // channels, "channels": channels}
    return Call(params, {"table": table}, inputs=(step.root.input(0),))


def lower_softmax(step: Step) -> Call:
    """wide_softmax_scalar."""
    op, call = step.root.op, accumulators.lower_softmax(step)
    assert isinstance(op, WideSoftmax)
    return Call(
        {
            **call.params,
            "input_bytes": step.root.input(0).type.dtype.bytes,
            "output_bytes": type_bytes(step.output),
            "bits": op.bits,
            "output_zero_point": zero_point(step.output),
        },
        call.constants,
    )


def lower_dense_accumulator(step: Step) -> Call:
    """wide_dense_accumulator_scalar: weights stay [N, K], all leading axes are rows."""
    weights, bias = constant(step.root, "w"), constant(step.root, "bias")
    assert weights is not None
    outputs, inputs = weights.shape
    rows = step.root.input(0).type.elements // inputs
    params = {"rows": rows, "input_channels": inputs, "output_channels": outputs}
    return Call(params, {"weights": weights, "bias": np.zeros(outputs, np.int64) if bias is None else bias})


def accepts_quantize(step: Step) -> str | None:
    """To s16."""
    return (
        None
        if step.output.type.dtype.value == "s16"
        else f"the result is {step.output.type.dtype.value}, not s16"
    )


def lower_quantize(step: Step) -> Call:
    """f32_quantize_wide_scalar."""
    return _conversion(step.output)


def lower_dequantize(step: Step) -> Call:
    """s16_dequantize_scalar."""
    return _conversion(step.root.input(0))


def _conversion(value: Value) -> Call:
    qparams = value.type.qparams
    assert qparams is not None
    return Call({"count": value.type.elements, "scale": float(np.float32(qparams.scale[0]))})


def rows(
    patterns: Sequence[str],
    symbol: str,
    params_type: str,
    lower: Callable[[Step], Call],
    accepts: Accepts = lambda _: None,
    **fields: Any,
) -> tuple[Kernel, ...]:
    """A row for each pattern and type of input 0."""
    return tuple(
        Kernel(
            pattern,
            dtype,
            symbol,
            params_type,
            source(symbol),
            lower,
            accepts,
            wide=True,
            meant_for=has_16_bits,
            **fields,
        )
        for pattern in patterns
        for dtype in ("s8", "s16")
    )


def _row(
    pattern: str, dtype: str, symbol: str, params_type: str, lower: Any, accepts: Any = lambda _: None
) -> Kernel:
    return Kernel(
        pattern, dtype, symbol, params_type, source(symbol), lower, accepts, wide=True, meant_for=has_16_bits
    )


def _binary_rows(patterns: Sequence[str], symbol: str, lower: Callable[[Step], Call]) -> tuple[Kernel, ...]:
    """Rows in place, and rows for operands that are broadcast: 16 bits of those may be as many bytes as the output."""
    params = "qcc_wide_binary_params"
    return (
        *rows(patterns, symbol, params, lower, accepts_equal_shapes, priority=1, in_place=(0, 1)),
        *rows(patterns, symbol, params, lower, accepts_binary),
    )


KERNELS: tuple[Kernel, ...] = (
    *rows(
        ("matmul+requantize",),
        "qcc_wide_matmul_scalar",
        "qcc_wide_matmul_params",
        lower_matmul,
        products.accepts_matmul,
    ),
    *rows(
        ("resize_linear+requantize",),
        "qcc_wide_resize_linear_scalar",
        "qcc_wide_resize_linear_params",
        _typed(window.lower_s8_resize_linear, "input_zero_point"),
    ),
    *_binary_rows(("add+requantize", "sub+requantize"), "qcc_wide_add_scalar", lower_add),
    *_binary_rows(("mul+requantize",), "qcc_wide_mul_scalar", lower_mul),
    *rows(
        ("requantize",),
        "qcc_wide_requantize_scalar",
        "qcc_wide_requantize_params",
        _typed(elementwise.lower_requantize, "input_zero_point"),
        in_place=True,
    ),
    *rows(
        ("avg_pool2d+requantize",),
        "qcc_wide_avg_pool2d_scalar",
        "qcc_wide_avg_pool2d_params",
        _typed(window.lower_s8_avg_pool2d, "input_zero_point"),
    ),
    *rows(
        ("reduce_mean+requantize", "reduce_sum+requantize"),
        "qcc_wide_reduce_sum_scalar",
        "qcc_wide_reduce_sum_params",
        _typed(reduction.lower_s8_sum, "bias"),
        reduction.accepts_reduce,
    ),
    _row("table", "s8", "qcc_wide_table_scalar", "qcc_wide_table_params", lower_table),
    _row(
        "max_pool2d",
        "s16",
        "qcc_s16_max_pool2d_scalar",
        "qcc_wide_max_pool2d_params",
        window.lower_max_pool2d,
    ),
    *(
        _row(
            name,
            "s16",
            "qcc_s16_reduce_extreme_scalar",
            "qcc_wide_reduce_extreme_params",
            reduction.lower_s8_extreme,
            reduction.accepts_reduce,
        )
        for name in ("reduce_max", "reduce_min")
    ),
    _row(
        "quantize",
        "f32",
        "qcc_f32_quantize_wide_scalar",
        "qcc_wide_quantize_params",
        lower_quantize,
        accepts_quantize,
    ),
    *(
        _row("wide_softmax", dtype, "qcc_wide_softmax_scalar", "qcc_any_softmax_params", lower_softmax)
        for dtype in ("s8", "s16", "s32", "s64")
    ),
    _row(
        "dense",
        "s16",
        "qcc_wide_dense_accumulator_scalar",
        "qcc_wide_dense_accumulator_params",
        lower_dense_accumulator,
    ),
    *(
        _row(
            name,
            "s16",
            "qcc_wide_reduce_sum_accumulator_scalar",
            "qcc_wide_reduce_sum_accumulator_params",
            accumulators.lower_sum,
            reduction.accepts_reduce,
        )
        for name in ("reduce_mean", "reduce_sum")
    ),
    _row("dequantize", "s16", "qcc_s16_dequantize_scalar", "qcc_wide_quantize_params", lower_dequantize),
)
