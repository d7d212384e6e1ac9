"""Comparisons and choices. Truth values are floats, 1 for true and 0 for false; a condition holds where it is not 0."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from qcc.ir.op import Array, Case, onnx_importer, register_op
from qcc.ir.ops.elementwise import Add, Binary, Max, Min, Sub
from qcc.ir.ops.functions import Abs, Neg

if TYPE_CHECKING:
    from qcc.ir.graph import Value
    from qcc.ir.importing import OnnxNode


class _Comparison(Binary):
    """Base: a numpy comparison as 0 and 1; false where an operand is NaN."""

    @classmethod
    def cases(cls, rng: np.random.Generator) -> Iterable[Case]:
        """Whole numbers, so that some are equal; equal shapes, a constant, a broadcast over space."""
        x = rng.integers(-2, 3, size=(1, 3, 4, 5)).astype(np.float32)
        for shape, constant in (((1, 3, 4, 5), False), ((5,), True), ((1, 1, 1, 5), False)):
            yield Case(cls(), (x, rng.integers(-2, 3, size=shape).astype(np.float32)), (False, constant))


@register_op
class Less(_Comparison):
    """a < b."""

    name = "less"

    def float_ref(self, *operands: Array | None) -> Array:
        """numpy less."""
        a, b = operands
        assert a is not None
        assert b is not None
        return np.less(a, b).astype(a.dtype)


@register_op
class LessOrEqual(_Comparison):
    """a <= b."""

    name = "less_or_equal"

    def float_ref(self, *operands: Array | None) -> Array:
        """numpy less_equal."""
        a, b = operands
        assert a is not None
        assert b is not None
        return np.less_equal(a, b).astype(a.dtype)


@register_op
class Equal(_Comparison):
    """a == b."""

    name = "equal"

    def float_ref(self, *operands: Array | None) -> Array:
        """numpy equal."""
        a, b = operands
        assert a is not None
        assert b is not None
        return np.equal(a, b).astype(a.dtype)


@register_op
class Keep(_Comparison):
    """a where b is not 0, and 0 elsewhere, whatever a is there (infinite or NaN)."""

    name = "keep"

    def float_ref(self, *operands: Array | None) -> Array:
        """numpy where."""
        a, b = operands
        assert a is not None
        assert b is not None
        return np.asarray(np.where(b != 0, a, a.dtype.type(0)))


def _one(node: OnnxNode) -> Value:
    return node.constant(np.ones((), np.float32), "one")


def negated(node: OnnxNode, x: Value) -> Value:
    """Not ``x``, a truth value."""
    return node.emit(Sub(), _one(node), x)


@onnx_importer("Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Equal")
def import_comparison(node: OnnxNode) -> Value:
    """A comparison of floats or truth values."""
    a, b = node.input(0), node.input(1)
    if node.op_type.startswith("Greater"):
        a, b = b, a
    op = {"L": LessOrEqual(), "G": LessOrEqual(), "E": Equal()}[node.op_type[0]]
    if node.op_type in ("Less", "Greater"):
        op = Less()
    return node.emit(op, a, b)


@onnx_importer("And", "Or", "Xor")
def import_logic(node: OnnxNode) -> Value:
    """The smaller, the larger, or the distance of two truth values."""
    a, b = node.truth(0), node.truth(1)
    if node.op_type == "Xor":
        return node.emit(Abs(), node.emit(Sub(), a, b))
    return node.emit(Min() if node.op_type == "And" else Max(), a, b)


@onnx_importer("Not")
def import_not(node: OnnxNode) -> Value:
    """1 - x."""
    return negated(node, node.truth(0))


@onnx_importer("IsNaN")
def import_is_nan(node: OnnxNode) -> Value:
    """A NaN alone differs from itself."""
    x = node.input(0)
    return negated(node, node.emit(Equal(), x, x))


@onnx_importer("IsInf")
def import_is_inf(node: OnnxNode) -> Value:
    """What is above the largest finite float; one sign alone is one side of that."""
    x = node.input(0)
    up, down = node.attrs.get("detect_positive", 1), node.attrs.get("detect_negative", 1)
    if not (up or down):
        raise node.unsupported("it looks for no infinity at all")
    if up and down:
        x = node.emit(Abs(), x)
    elif down:
        x = node.emit(Neg(), x)
    return node.emit(Less(), node.constant(np.asarray(np.finfo(np.float32).max), "largest"), x)


@onnx_importer("Where")
def import_where(node: OnnxNode) -> Value:
    """The sum of what is kept of each operand: the other term is 0."""
    condition, a, b = node.truth(0), node.input(1), node.input(2)
    kept = node.emit(Keep(), a, condition)
    return node.emit(Add(), kept, node.emit(Keep(), b, negated(node, condition)))
