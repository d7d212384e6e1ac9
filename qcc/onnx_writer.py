"""Writer: an ONNX graph under construction, with the constants, names and layouts its nodes need."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from qcc.ir.errors import QccError
from qcc.ir.fixedpoint import quantize_exactly
from qcc.ir.graph import Node, Value
from qcc.ir.qparams import QParams

_MAX_BYTES = 2**31 - 2**20  # of all constants: one protobuf message holds 2 GB
_ZERO_POINT_DTYPES: dict[str, Any] = {"s8": np.int8, "u8": np.uint8, "s16": np.int16, "s32": np.int32}


class Writer:
    """Collects nodes and initializers. Each IR value has one ONNX tensor, in the layout of the IR.

    ``qdq``: values with qparams pass through QuantizeLinear and DequantizeLinear.
    ``unsigned``: activations of s8 are written as u8, the same codes plus 128. ``float_bias``: biases stay float.
    ``carried``: ids of the values whose axis 0 is a free batch dimension.
    ``channels_first``: for values that an op computed channels-first, the tensor before its Transpose.
    """

    def __init__(
        self,
        reserved: Iterable[str],
        *,
        qdq: bool,
        carried: set[int],
        unsigned: bool = False,
        float_bias: bool = False,
    ) -> None:
        self.qdq = qdq
        self.unsigned = unsigned
        self.float_bias = float_bias
        self.carried = carried
        self.nodes: list[NodeProto] = []
        self.initializers: list[TensorProto] = []
        self.channels_first: dict[int, str] = {}
        self._tensors: dict[int, str] = {}
        self._shared: dict[tuple[str, QParams], tuple[str, str]] = {}
        self._taken: dict[str, int] = dict.fromkeys(reserved, 1)
        self._bytes = 0

    # ------------------------------------------------------------------ values
    def define(self, value: Value, tensor: str) -> None:
        """``tensor`` holds ``value``; readers see it quantized and dequantized where that is asked for."""
        qparams = value.type.qparams
        if self.qdq and qparams is not None:
            tensor = self.pair(tensor, qparams, value.name)
        self._tensors[id(value)] = tensor

    def pair(self, tensor: str, qparams: QParams, name: str) -> str:
        """``tensor`` quantized and dequantized."""
        return self.dequantize(self.quantize(tensor, qparams, name), qparams, name)

    def quantize(self, tensor: str, qparams: QParams, name: str) -> str:
        """The codes of ``tensor``; it is clipped before, where the codes are fewer than those of their type."""
        if qparams.codes is not None:
            bounds = [self.scalar(b, f"{name}_bound") for b in qparams.range]
            tensor = self.node("Clip", [tensor, *bounds], f"{name}_clipped")
        return self._convert("QuantizeLinear", tensor, qparams, name)

    def dequantize(self, codes: str, qparams: QParams, name: str) -> str:
        """What ``codes`` of an activation stand for."""
        return self._convert("DequantizeLinear", codes, qparams, name)

    def _convert(self, op_type: str, tensor: str, qparams: QParams, name: str) -> str:
        if self.unsigned and qparams.dtype == "s8":
            qparams = QParams(qparams.scale, qparams.zero_point + 128, qparams.axis, "u8")
        if (name, qparams) not in self._shared:  # both nodes read the same scale and zero point
            self._shared[name, qparams] = self._qparams(qparams, name)
        axis = {} if qparams.axis is None else {"axis": qparams.axis}
        result = f"{name}_quantized" if op_type == "QuantizeLinear" else f"{name}_dequantized"
        return self.node(op_type, [tensor, *self._shared[name, qparams]], result, **axis)

    def tensor(self, value: Value) -> str:
        """Name of the tensor that holds ``value``; a constant is written when it is first read."""
        if id(value) not in self._tensors:
            self._tensors[id(value)] = self.constant(value)
        return self._tensors[id(value)]

    def constant(self, value: Value, perm: Sequence[int] | None = None) -> str:
        """A constant, transposed by ``perm``; integers with DequantizeLinear where it has qparams."""
        assert value.data is not None
        qparams = value.type.qparams
        if self.qdq and qparams is not None:
            return self.quantized(value.data, qparams, value.name, perm)
        data = value.data if perm is None else value.data.transpose(perm)
        return self.array(data, value.name)

    def quantized(
        self, data: NDArray[Any], qparams: QParams, name: str, perm: Sequence[int] | None = None
    ) -> str:
        """Integers of ``qparams`` and the node that dequantizes them."""
        return self.dequantized(quantize_exactly(data, qparams), qparams, name, perm)

    def dequantized(
        self, q: NDArray[Any], qparams: QParams, name: str, perm: Sequence[int] | None = None
    ) -> str:
        """Constant codes, transposed by ``perm``, and the node that dequantizes them."""
        axis = qparams.axis
        if perm is not None:
            q = q.transpose(perm)
            axis = None if axis is None else list(perm).index(axis)
        attributes = {} if axis is None else {"axis": axis}
        scale, zero_point = self._qparams(qparams, name)
        return self.node(
            "DequantizeLinear",
            [self.array(q, f"{name}_quantized"), scale, zero_point],
            f"{name}_dequantized",
            **attributes,
        )

    def bias(self, node: Node) -> str:
        """The optional bias of an op with weights: s32 at scale s_x * s_w where both are quantized."""
        bias = node.operand("bias")
        if bias is None:
            return ""
        x, w = node.input(0).type.qparams, node.input(1).type.qparams
        if not self.qdq or self.float_bias or bias.data is None or x is None or w is None:
            return self.tensor(bias)
        scale = np.broadcast_to(np.asarray(w.scale) * x.scale[0], bias.type.shape)
        return self.quantized(bias.data, QParams.per_channel(scale, 0, "s32"), bias.name)

    def _qparams(self, qparams: QParams, name: str) -> tuple[str, str]:
        scale = np.asarray(qparams.scale, np.float32)
        zero_point = np.full(scale.shape, qparams.zero_point, _ZERO_POINT_DTYPES[qparams.dtype])
        if qparams.axis is None:
            scale, zero_point = scale.reshape(()), zero_point.reshape(())
        return self.array(scale, f"{name}_scale"), self.array(zero_point, f"{name}_zero_point")

    # ------------------------------------------------------------------ emission
    def fresh_name(self, wanted: str) -> str:
        """A tensor name nobody else has."""
        count = self._taken.get(wanted, 0)
        self._taken[wanted] = count + 1
        return wanted if count == 0 else self.fresh_name(f"{wanted}_{count + 1}")

    def array(self, data: NDArray[Any], name: str) -> str:
        """An initializer. Raises QccError when the model passes what one file can hold."""
        self._bytes += data.nbytes
        if self._bytes > _MAX_BYTES:
            raise QccError(
                "the constants of the model pass 2 GB, which an ONNX file cannot hold",
                hint="split the model, or compile a smaller one",
            )
        fresh = self.fresh_name(name)
        self.initializers.append(
            numpy_helper.from_array(np.ascontiguousarray(data).reshape(data.shape), fresh)
        )
        return fresh

    def ints(self, values: Iterable[int], name: str) -> str:
        """A 1-D int64 initializer."""
        return self.array(np.asarray(list(values), np.int64), name)

    def scalar(self, value: float, name: str) -> str:
        """A float32 initializer of rank 0."""
        return self.array(np.asarray(value, np.float32), name)

    def node(self, op_type: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
        """A node with one result, which gets a name like ``name``. Absent trailing inputs are dropped."""
        operands = list(inputs)
        while operands and not operands[-1]:
            operands.pop()
        result = self.fresh_name(name)
        self.nodes.append(helper.make_node(op_type, operands, [result], name=result, **attributes))
        return result

    def results(self, op_type: str, inputs: Sequence[str], name: str, count: int) -> list[str]:
        """A node with ``count`` results, named like ``name``."""
        found = [self.fresh_name(name) for _ in range(count)]
        self.nodes.append(helper.make_node(op_type, list(inputs), found, name=found[0]))
        return found

    # ------------------------------------------------------------------ layout
    def to_channels_first(self, tensor: str, rank: int) -> str:
        """[N, ..., C] as [N, C, ...]."""
        if rank < 3:
            return tensor
        return self.node("Transpose", [tensor], f"{tensor}_nchw", perm=[0, rank - 1, *range(1, rank - 1)])

    def from_channels_first(self, value: Value, tensor: str) -> str:
        """The result of an op computed channels-first, in the layout of the IR."""
        rank = value.type.rank
        if rank < 3:
            return tensor
        self.channels_first[id(value)] = tensor
        return self.node("Transpose", [tensor], value.name, perm=[0, *range(2, rank), 1])
