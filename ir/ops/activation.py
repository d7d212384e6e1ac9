"""Unary elementwise functions. On 8-bit integers any chain of them is one 256-entry table."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from qcc.ir.op import Array, Case, Op, onnx_importer, register_op
from qcc.ir.types import TensorType

if TYPE_CHECKING:
    from qcc.ir.graph import Node, Value
    from qcc.ir.importing import OnnxNode
    from qcc.ir.lowering import Lowering


class Unary(Op):
    """Base: one operand, same type. Subclasses give ``float_ref`` (float32 or float64 in, same out)."""

    operands = ("x",)
    elementwise = True

    def infer(self, *operands: TensorType | None) -> TensorType:
        """The operand's type."""
        (x,) = operands
        assert x is not None
        return x.with_qparams(None)

    @classmethod
    def cases(cls, rng: np.random.Generator) -> Iterable[Case]:
        """Values on both sides of zero."""
        yield Case(cls(), (rng.uniform(-4, 4, size=(1, 3, 4, 5)).astype(np.float32),))


@register_op
class Clamp(Unary):
    """min(max(x, low), high): Relu, Relu6, Clip. After an accumulator it costs nothing."""

    name = "clamp"
    low: float = float("-inf")
    high: float = float("inf")

    def float_ref(self, *operands: Array | None) -> Array:
        """numpy minimum and maximum; NaN stays NaN."""
        (x,) = operands
        assert x is not None
        return np.minimum(np.maximum(x, x.dtype.type(self.low)), x.dtype.type(self.high))

    def accumulate(self, q: Lowering, node: Node) -> Value | None:
        """A clamp cannot act on an accumulator whose qparams are not chosen yet."""
        return None

    def quantize(self, q: Lowering, node: Node) -> Value | None:
        """The saturation of the requantize that follows the fused accumulator."""
        if not node.input(0).fused:
            return None
        return q.requantize(q.accumulator(node.input(0)), node.output, self.low, self.high)

    @classmethod
    def cases(cls, rng: np.random.Generator) -> Iterable[Case]:
        """Relu and Relu6."""
        x = rng.uniform(-9, 9, size=(1, 3, 4, 5)).astype(np.float32)
        yield Case(cls(0.0), (x,))
        yield Case(cls(0.0, 6.0), (x,))


@onnx_importer("Relu")
def import_relu(node: OnnxNode) -> Value:
    """max(x, 0)."""
    return node.emit(Clamp(0.0), node.input(0))


@onnx_importer("Clip")
def import_clip(node: OnnxNode) -> Value:
    """Bounds as attributes (opset 7 to 10) or as constant inputs (11 and later)."""
    bounds = []
    for index, name, default in ((1, "min", float("-inf")), (2, "max", float("inf"))):
        array = node.array(index)
        bounds.append(float(array) if array is not None else float(node.attrs.get(name, default)))
    return node.emit(Clamp(*bounds), node.input(0))
