"""OnnxNode: what an op's importer sees of an ONNX node, without onnx itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcc.ir.builder import Builder
from qcc.ir.errors import ImportModelError
from qcc.ir.graph import Value
from qcc.ir.op import Op
from qcc.ir.ops.shape import Transpose


@dataclass
class OnnxNode:
    """One node: ``attrs`` hold Python numbers, strings, lists or numpy arrays; an absent input is None."""

    op_type: str
    name: str
    opset: int
    attrs: dict[str, Any]
    inputs: list[Value | None]
    constants: list[
        NDArray[Any] | None
    ]  # the array of each input known at import (any numpy dtype), else None
    outputs: int
    builder: Builder
    input_names: tuple[str, ...] = ()  # of the model, for constants

    def unsupported(self, reason: str) -> ImportModelError:
        """The error to raise when this node cannot be imported."""
        return ImportModelError(reason)

    def input(self, index: int) -> Value:
        """A float tensor that must be present."""
        value = self.optional(index)
        if value is None:
            raise self.unsupported(f"input {index} is missing")
        return value

    def optional(self, index: int) -> Value | None:
        """A float tensor or None."""
        if index >= len(self.inputs):
            return None
        value, array = self.inputs[index], self.constants[index]
        if value is None and array is not None:
            if array.dtype.kind != "f":
                raise self.unsupported(f"input {index} is {array.dtype}, expected a float tensor")
            if not array.size:
                raise self.unsupported(f"input {index} has shape {array.shape}: it holds no elements")
            name = self.input_names[index] if self.input_names else f"{self.name}_{index}"
            value = self.inputs[index] = self.builder.constant(array.astype(np.float32), name)
        return value

    def truth(self, index: int) -> Value:
        """A truth value that must be present: constants of booleans become 0 and 1."""
        array = self.constants[index]
        if array is not None and array.dtype.kind == "b":
            self.constants[index] = array.astype(np.float32)
        return self.input(index)

    def array(self, index: int) -> NDArray[Any] | None:
        """The constant array of input ``index``; None when absent; an error when it is computed at run time."""
        if index >= len(self.inputs):
            return None
        if self.constants[index] is None and self.inputs[index] is not None:
            raise self.unsupported(f"input {index} must be a constant, it is computed at run time")
        return self.constants[index]

    def ints(self, index: int, attr: str | None = None) -> tuple[int, ...] | None:
        """Integers given as an attribute (older opsets) or as a constant input (newer ones)."""
        if attr is not None and attr in self.attrs:
            value = self.attrs[attr]
            return tuple(int(v) for v in (value if isinstance(value, list | tuple) else [value]))
        array = self.array(index)
        return None if array is None else tuple(int(v) for v in np.ravel(array))

    def emit(self, op: Op, *inputs: Value | None, name: str | None = None) -> Value:
        """Add a node named after this ONNX node."""
        return self.builder.emit(op, *inputs, name=name or self.name)

    def constant(self, data: NDArray[Any], suffix: str) -> Value:
        """A constant named after this ONNX node."""
        return self.builder.constant(data, f"{self.name}_{suffix}")

    def to_nhwc(self, x: Value) -> Value:
        """Transpose channels-first (NC, NCW, NCHW) to channels-last."""
        perm = (0, *range(2, x.type.rank), 1)
        return self.emit(Transpose(perm), x)

    def to_nchw(self, x: Value) -> Value:
        """Transpose channels-last to channels-first."""
        rank = x.type.rank
        return self.emit(Transpose((0, rank - 1, *range(1, rank - 1))), x)
