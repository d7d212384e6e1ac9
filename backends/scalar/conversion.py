"""Rows of tables, and of the conversions between integers and floats."""

from __future__ import annotations

import numpy as np

from qcc.backends.kernel import Call, Kernel, Step
from qcc.backends.scalar.lowering import constant, source
from qcc.ir.graph import Value


def lower_table(step: Step) -> Call:
    """s8_table_scalar: one table, or one for each channel."""
    table = constant(step.root, "table")
    assert table is not None
    channels = len(table) if table.ndim == 2 else 1
    params = {"rows": step.output.type.elements // channels, "channels": channels}
    return Call(params, {"table": table}, inputs=(step.root.input(0),))


def _accepts(value: Value) -> str | None:
    qparams = value.type.qparams
    if value.type.dtype.value != "s8":
        return f"%{value.name} is {value.type.dtype.value}, not s8"
    return None if qparams is not None and qparams.axis is None else f"%{value.name} is not per tensor"


def accepts_quantize(step: Step) -> str | None:
    """To s8 with one scale."""
    return _accepts(step.output)


def accepts_dequantize(step: Step) -> str | None:
    """From s8 with one scale."""
    return _accepts(step.root.input(0))


def _params(value: Value) -> dict[str, int | float]:
    qparams = value.type.qparams
    assert qparams is not None
    return {
        "count": value.type.elements,
        "zero_point": qparams.zero_point,
        "scale": float(np.float32(qparams.scale[0])),
    }


def lower_quantize(step: Step) -> Call:
    """f32_quantize_scalar."""
    return Call(_params(step.output))


def lower_dequantize(step: Step) -> Call:
    """s8_dequantize_scalar."""
    return Call(_params(step.root.input(0)))


KERNELS: tuple[Kernel, ...] = (
    Kernel(
        pattern="table",
        dtype="s8",
        symbol="qcc_s8_table_scalar",
        params_type="qcc_table_params",
        source=source("qcc_s8_table_scalar"),
        lower=lower_table,
        in_place=True,
    ),
    Kernel(
        pattern="quantize",
        dtype="f32",
        symbol="qcc_f32_quantize_scalar",
        params_type="qcc_quantize_params",
        source=source("qcc_f32_quantize_scalar"),
        lower=lower_quantize,
        accepts=accepts_quantize,
    ),
    Kernel(
        pattern="dequantize",
        dtype="s8",
        symbol="qcc_s8_dequantize_scalar",
        params_type="qcc_quantize_params",
        source=source("qcc_s8_dequantize_scalar"),
        lower=lower_dequantize,
        accepts=accepts_dequantize,
    ),
)
