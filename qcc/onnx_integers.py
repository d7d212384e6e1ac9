"""Integer graphs in ONNX: each node is the float operation on what codes stand for, between Dequantize- and QuantizeLinear.

Codes of weights and biases, scales and zero points are those of the graph. Sums are exact in integers and in float32 as far as
2^24; a runtime rounds a result that lies between two codes its own way (QuantizeLinear: ties to even), so that now and then a
code differs by one, and softmax and interpolation, for which qcc has integer algorithms, by a few.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcc.ir.graph import Node, Value
from qcc.ir.qparams import QParams
from qcc.ir.types import DType
from qcc.onnx_export_ops import EXPORTERS
from qcc.onnx_writer import Writer

# Ops whose real meaning is that of their float form on the same operands, without attributes or operands of their own.
_SAME = (
    *("conv2d", "conv_transpose2d", "dense", "matmul", "mul", "max_pool2d", "avg_pool2d"),
    *("reduce_mean", "reduce_sum", "reduce_max", "reduce_min", "resize_nearest", "resize_linear"),
)


class IntegerWriter(Writer):
    """Writes values of an integer graph: ``tensor`` is what the codes stand for, ``codes`` the codes themselves."""

    def __init__(self, *arguments: Any, **choices: Any) -> None:
        super().__init__(*arguments, **choices)
        self._codes: dict[int, str] = {}

    def define(self, value: Value, tensor: str) -> None:
        """``tensor`` holds reals; sums are not rounded to codes, as no QuantizeLinear has 32 bits."""
        if value.type.dtype.is_accumulator or value.type.qparams is None:
            self._tensors[id(value)] = tensor
            return
        codes = self.quantize(tensor, value.type.qparams, value.name)
        self.define_codes(value, codes)

    def define_codes(self, value: Value, codes: str) -> None:
        """``codes`` holds the codes of ``value``."""
        assert value.type.qparams is not None
        self._codes[id(value)] = codes
        self._tensors[id(value)] = self.dequantize(codes, value.type.qparams, value.name)

    def codes(self, value: Value) -> str:
        """The tensor of the codes, u8 where activations are written so."""
        return self._codes[id(value)]

    def constant(self, value: Value, perm: Sequence[int] | None = None) -> str:
        """Codes with DequantizeLinear; floats as they are."""
        if value.type.qparams is None or value.data is None:
            return super().constant(value, perm)
        return self.constant_codes(value.data, value.type.qparams, value.name, perm)

    def bias(self, node: Node) -> str:
        """Codes of the bias, without the share of the zero point that was folded into it."""
        bias = node.operand("bias")
        if bias is None:
            return ""
        x, weight, qparams = node.input(0).type.qparams, node.input(1), bias.type.qparams
        assert x is not None
        assert weight.data is not None
        assert bias.data is not None
        assert qparams is not None
        sums = np.moveaxis(weight.data.astype(np.int64), node.op.quant_rule().weight_axis, 0)
        moved = x.zero_point - node.op.attributes()["x_zero_point"]
        codes = bias.data + moved * sums.reshape(len(sums), -1).sum(axis=1)
        return self.constant_codes(codes, qparams, bias.name)

    def constant_codes(
        self, codes: NDArray[Any], qparams: QParams, name: str, perm: Sequence[int] | None = None
    ) -> str:
        """Codes with DequantizeLinear; as floats where ONNX has no such integers (sums of 64 bits)."""
        if qparams.dtype == "s64" or (qparams.dtype == "s32" and np.abs(codes).max(initial=0) >= 2**31):
            reals = (codes - qparams.zero_point) * qparams.scale_array(codes.ndim)
            return self.array(reals.astype(np.float32).transpose(perm or range(codes.ndim)), name)
        return self.dequantized(codes.astype(DType(qparams.dtype).numpy), qparams, name, perm)


IntegerExporter = Callable[[IntegerWriter, Node], str | None]  # None: the result is defined already
_EXPORTERS: dict[str, IntegerExporter] = {}


def find_exporter(node: Node) -> IntegerExporter | None:
    """How ``node`` of an integer graph is written; None where ONNX has nothing for it."""
    is_float = all(v is None or v.type.dtype is DType.F32 for v in (*node.inputs, node.output))
    if not is_float and node.op.name in _EXPORTERS:
        return _EXPORTERS[node.op.name]
    known = is_float or node.op.name in _SAME or node.op.quant_rule().shares
    return EXPORTERS.get(node.op.name) if known else None


def _exports(*names: str) -> Callable[[IntegerExporter], IntegerExporter]:
    def enter(function: IntegerExporter) -> IntegerExporter:
        _EXPORTERS.update(dict.fromkeys(names, function))
        return function

    return enter


@_exports("quantize", "dequantize")
def _conversion(w: IntegerWriter, node: Node) -> str:
    """The same reals: the codes are what differs."""
    return w.tensor(node.input(0))


@_exports("requantize")
def _requantize(w: IntegerWriter, node: Node) -> str:
    """The same reals, clipped where an activation is fused."""
    x, qparams, op = w.tensor(node.input(0)), node.output.type.qparams, node.op.attributes()
    assert qparams is not None
    low, high = op["low"], op["high"]
    if low <= qparams.code_range[0] and high >= qparams.code_range[1]:
        return x
    bounds = [
        w.scalar(qparams.scale[0] * (q - qparams.zero_point), f"{node.name}_bound") for q in (low, high)
    ]
    return w.node("Clip", [x, *bounds], f"{node.name}_clipped")


@_exports("add", "sub")
def _sum(w: IntegerWriter, node: Node) -> str:
    """Multipliers bring codes to one scale, which reals need not."""
    operands = [w.tensor(node.input(i)) for i in (0, 1)]
    return w.node("Add" if node.op.name == "add" else "Sub", operands, node.name)


@_exports("softmax", "wide_softmax")
def _softmax(w: IntegerWriter, node: Node) -> str:
    axis = node.op.attributes().get("axis", node.output.type.rank - 1)
    return w.node("Softmax", [w.tensor(node.input(0))], node.name, axis=axis)


@_exports("table")
def _table(w: IntegerWriter, node: Node) -> None:
    """The entries are gathered: any function of 8 bits, with the very codes of the graph."""
    x, table, qparams = node.input(0), node.input(1).data, node.output.type.qparams
    assert table is not None
    assert qparams is not None
    first = np.asarray(0 if w.unsigned else 128, np.int32)
    if table.ndim == 2:
        first = first + 256 * np.arange(len(table), dtype=np.int32)
    if w.unsigned and qparams.dtype == "s8":
        table = (table.astype(np.int16) + 128).astype(np.uint8)
    wide = w.node("Cast", [w.codes(x)], f"{node.name}_codes", to=6)
    index = w.node("Add", [wide, w.array(first, f"{node.name}_first")], f"{node.name}_index")
    w.define_codes(
        node.output, w.node("Gather", [w.array(table.reshape(-1), f"{node.name}_table"), index], node.name)
    )
