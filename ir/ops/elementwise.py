"""Elementwise ops of two operands with numpy broadcasting. On integers, sums and products leave an accumulator."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from qcc.ir.errors import VerifyError
from qcc.ir.interval import Interval
from qcc.ir.op import Array, Case, Op, Signature, onnx_importer, register_op
from qcc.ir.qparams import QParams
from qcc.ir.types import DType, TensorType, sum_dtype

if TYPE_CHECKING:
    from qcc.ir.graph import Node, Value
    from qcc.ir.importing import OnnxNode
    from qcc.ir.lowering import Lowering

SUM_MULTIPLIER_BITS = 14  # two 8-bit operands times 2^14 stay under 2^24: exact in float32 fast paths too
WIDE_MULTIPLIER_BITS = 20  # of 16-bit operands, whose sum is in 64 bits


class Binary(Op):
    """Base: broadcasting of two operands."""

    operands: ClassVar[tuple[str, ...]] = ("a", "b")
    elementwise = True

    def infer(self, *operands: TensorType | None) -> TensorType:
        """Broadcast shape; f32, or s32 for integers."""
        a, b = operands[0], operands[1]
        assert a is not None
        assert b is not None
        try:
            shape = np.broadcast_shapes(a.shape, b.shape)
        except ValueError:
            raise VerifyError(f"{self.name}: shapes {a.shape} and {b.shape} do not broadcast") from None
        if a.dtype is DType.F32 and b.dtype is DType.F32:
            return TensorType(DType.F32, shape)
        if not (a.dtype.is_integer and b.dtype.is_integer):
            raise VerifyError(f"{self.name}: operands are {a} and {b}, expected both float or both integer")
        return TensorType(DType.S32, shape)

    def batches(self, sig: Signature) -> bool:
        """Unless a stacked operand of lower rank would meet an axis that is not the samples'."""
        return broadcasts_over_samples(sig)

    @classmethod
    def cases(cls, rng: np.random.Generator) -> Iterable[Case]:
        """Equal shapes, a per-channel constant, a scalar constant, a broadcast over space."""
        x = rng.uniform(0.5, 2.0, size=(1, 3, 4, 5)).astype(np.float32)
        for shape, constant in (((1, 3, 4, 5), False), ((5,), True), ((), True), ((1, 1, 1, 5), False)):
            b = np.asarray(rng.uniform(0.5, 2.0, size=shape), np.float32)
            yield Case(cls(), (x, b), (False, constant))


class _Sum(Binary):
    """a + sign * b. Integer form: acc = (a - zp_a) * a_multiplier + (b - zp_b) * b_multiplier.

    Multipliers: s32[1] or s32[C] of the last axis, 1 when absent; they bring both operands to the scale of
    the result, and the sign of b is in its multiplier. An s32 operand has zero_point 0.
    """

    operands = ("a", "b", "a_multiplier?", "b_multiplier?")
    accumulates = True
    accepts_accumulator = True
    chooses_qparams = True
    wide_operands = True
    sign = 1

    def infer(self, *operands: TensorType | None) -> TensorType:
        """Broadcast shape; f32, s32 for integers, s64 where one has 16 bits or more sums in it."""
        result = super().infer(*operands)
        return result if result.dtype is DType.F32 else replace(result, dtype=sum_dtype(*operands[:2]))

    def float_ref(self, *operands: Array | None) -> Array:
        """a + b or a - b."""
        a, b = operands[:2]
        assert a is not None
        assert b is not None
        return np.asarray(a + self.sign * b)

    def int_ref(self, sig: Signature, *operands: Array | None) -> Array:
        """int64 sum of scaled operands."""
        total: Array = np.zeros((), np.int64)
        for index in range(2):
            x = operands[index]
            assert x is not None
            total = total + (x.astype(np.int64) - _zero_point(sig, index)) * _multiplier(operands, index)
        return total

    def interval(self, sig: Signature, *operands: Interval | Array | None) -> Interval:
        """Sum of the scaled intervals."""
        a, b = self._terms(sig, *operands)
        return _broadcast(a.plus(b), sig)

    def partial_sum_bound(self, sig: Signature, *operands: Interval | Array | None) -> int:
        """Sum of the largest magnitudes of both terms."""
        return sum(int(max(-t.low.min(), t.high.max(), 0)) for t in self._terms(sig, *operands))

    def _terms(self, sig: Signature, *operands: Interval | Array | None) -> tuple[Interval, Interval]:
        terms = []
        for index in range(2):
            x = operands[index]
            term = x if isinstance(x, Interval) else Interval.of_array(np.asarray(x))
            terms.append(term.shifted(-_zero_point(sig, index)).scaled(_multiplier(operands, index)))
        return terms[0], terms[1]

    def accumulate(self, q: Lowering, node: Node) -> Value | None:
        """Bring both operands to one scale: a fused operand's accumulator scale, or a fine common one."""
        a, b = node.input(0), node.input(1)
        if a.fused or b.fused:
            main = 0 if a.fused else 1
            acc = q.accumulator((a, b)[main])
            if acc is None:
                return None
            assert acc.type.qparams is not None
            scale = np.asarray(acc.type.qparams.scale)
        else:
            acc = None
            main = 0
            scales = [
                v.type.qparams.scale[0] for v in (a, b) if v.type.qparams is not None and not v.is_constant
            ]
            bits = WIDE_MULTIPLIER_BITS if any(map(q.is_wide, (a, b))) else SUM_MULTIPLIER_BITS
            scale = np.asarray([max(scales) / 2**bits])
            if any(v.is_constant for v in (a, b)):
                largest = max(float(np.abs(v.data).max()) for v in (a, b) if v.data is not None)
                scale = np.maximum(scale, largest / 2**28)
        wide = any(map(q.is_wide, (a, b))) or (acc is not None and acc.type.dtype is DType.S64)
        dtype = DType.S64 if wide else DType.S32
        inputs: list[Value] = []
        multipliers: list[Value | None] = []
        for index, value in enumerate((a, b)):
            sign = self.sign if index else 1
            if acc is not None and index == main:
                if sign < 0:
                    return None
                inputs.append(acc)
                multipliers.append(None)
            elif value.data is not None:
                # the constant joins the sum as it is, at the sum's own scale
                data = np.rint(sign * value.data.astype(np.float64) / scale).astype(dtype.numpy)
                inputs.append(q.constant(data, value.name))
                multipliers.append(None)
            else:
                x = q.integer(value)
                assert x.type.qparams is not None
                factor = np.rint(sign * x.type.qparams.scale[0] / scale).astype(np.int32)
                inputs.append(x)
                multipliers.append(q.constant(factor, f"{node.name}_multiplier"))
        axis = len(node.output.type.shape) - 1 if scale.size > 1 else None
        qparams = QParams(tuple(float(s) for s in scale), 0, axis, dtype.value)
        return q.emit(type(self)(), *inputs, *multipliers, name=node.name, qparams=qparams)


@register_op
class Add(_Sum):
    """a + b."""

    name = "add"


@register_op
class Sub(_Sum):
    """a - b."""

    name = "sub"
    sign = -1


@register_op
class Mul(Binary):
    """a * b. Integer form: acc = (a - zp_a) * (b - zp_b), at scale s_a * s_b; a constant is held in s16."""

    name = "mul"
    accumulates = True
    chooses_qparams = True
    wide_operands = True  # symmetric ones: a product of two stays within 2^30

    def float_ref(self, *operands: Array | None) -> Array:
        """numpy multiply."""
        a, b = operands
        assert a is not None
        assert b is not None
        return np.asarray(a * b)

    def int_ref(self, sig: Signature, *operands: Array | None) -> Array:
        """int64 product of centred operands."""
        a, b = operands
        assert a is not None
        assert b is not None
        return (a.astype(np.int64) - _zero_point(sig, 0)) * (b.astype(np.int64) - _zero_point(sig, 1))

    def interval(self, sig: Signature, *operands: Interval | Array | None) -> Interval:
        """Extremes of the four corner products."""
        terms = []
        for index in range(2):
            x = operands[index]
            term = x if isinstance(x, Interval) else Interval.of_array(np.asarray(x))
            terms.append(term.shifted(-_zero_point(sig, index)))
        a, b = terms
        corners = [a.low * b.low, a.low * b.high, a.high * b.low, a.high * b.high]
        return _broadcast(Interval(np.minimum.reduce(corners), np.maximum.reduce(corners)), sig)

    def accumulate(self, q: Lowering, node: Node) -> Value | None:
        """Product of the quantized operands."""
        inputs = []
        for value in (node.input(0), node.input(1)):
            if value.data is not None:
                scale = max(float(np.abs(value.data).max()), 1e-30) / (2**15 - 1)
                qparams = QParams.per_tensor(scale, 0, "s16")
                data = np.rint(value.data.astype(np.float64) / scale).astype(np.int16)
                inputs.append(q.constant(data, value.name, qparams))
            else:
                inputs.append(q.integer(value))
        a, b = (v.type.qparams for v in inputs)
        assert a is not None
        assert b is not None
        qparams = QParams.per_tensor(a.scale[0] * b.scale[0], 0, "s32")
        return q.emit(self, *inputs, name=node.name, qparams=qparams)


@register_op
class Div(Binary):
    """a / b; by a constant it joins a table, otherwise it runs in float."""

    name = "div"

    def float_ref(self, *operands: Array | None) -> Array:
        """numpy divide (inf and NaN as IEEE says)."""
        a, b = operands
        assert a is not None
        assert b is not None
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(a / b)


@register_op
class Min(Binary):
    """Smaller of a and b; NaN when one is NaN."""

    name = "min"

    def float_ref(self, *operands: Array | None) -> Array:
        """numpy minimum."""
        a, b = operands
        assert a is not None
        assert b is not None
        return np.asarray(np.minimum(a, b))


@register_op
class Max(Binary):
    """Larger of a and b; NaN when one is NaN."""

    name = "max"

    def float_ref(self, *operands: Array | None) -> Array:
        """numpy maximum."""
        a, b = operands
        assert a is not None
        assert b is not None
        return np.asarray(np.maximum(a, b))


@register_op
class Pow(Binary):
    """a to the power b; NaN for a negative a and a fractional b."""

    name = "pow"

    def float_ref(self, *operands: Array | None) -> Array:
        """numpy power."""
        a, b = operands
        assert a is not None
        assert b is not None
        with np.errstate(all="ignore"):
            return np.asarray(np.power(a, b))


@register_op
class PRelu(Binary):
    """x where x >= 0, slope * x elsewhere; the slope broadcasts to x and never widens it."""

    name = "prelu"
    operands = ("x", "slope")

    def infer(self, *operands: TensorType | None) -> TensorType:
        """The type of x."""
        result = super().infer(*operands)
        x, slope = operands
        assert x is not None
        if result.shape != x.shape:
            raise VerifyError(f"prelu: slope {slope} does not broadcast to x {x}")
        return result

    def float_ref(self, *operands: Array | None) -> Array:
        """numpy where."""
        x, slope = operands
        assert x is not None
        assert slope is not None
        return np.where(x < 0, slope * x, x)

    @classmethod
    def cases(cls, rng: np.random.Generator) -> Iterable[Case]:
        """A slope per channel, and one for all."""
        x = rng.uniform(-2, 2, size=(1, 3, 4, 5)).astype(np.float32)
        for shape in ((5,), (1, 1, 1, 5), ()):
            yield Case(cls(), (x, np.asarray(rng.uniform(0, 1, size=shape), np.float32)), (False, True))


def broadcasts_over_samples(sig: Signature) -> bool:
    """Whether stacking samples on axis 0 keeps numpy broadcasting right.

    An operand of lower rank with a leading 1 would have its samples meet an inner axis of the result.
    """
    present = [t for t in sig.operands if t is not None]
    return all(t.rank == sig.result.rank or t.shape[:1] != (1,) for t in present[:2])


def _zero_point(sig: Signature, index: int) -> int:
    qparams = sig.operand(index).qparams
    return qparams.zero_point if qparams is not None else 0


def _multiplier(operands: tuple[Interval | Array | None, ...], index: int) -> Array:
    multiplier = operands[2 + index] if len(operands) > 2 + index else None
    return np.ones(1, np.int64) if multiplier is None else np.asarray(multiplier, np.int64)


def _broadcast(interval: Interval, sig: Signature) -> Interval:
    channels = sig.result.shape[-1] if sig.result.shape else 1
    return Interval(np.broadcast_to(interval.low, channels), np.broadcast_to(interval.high, channels))


@onnx_importer("Add", "Sub", "Mul", "Div", "PRelu")
def import_binary(node: OnnxNode) -> Value:
    """Two operands with numpy broadcasting (opset 7 and later)."""
    op = {"Add": Add, "Sub": Sub, "Mul": Mul, "Div": Div, "PRelu": PRelu}[node.op_type]()
    return _emit(node, op, *_operands(node))


@onnx_importer("Pow")
def import_pow(node: OnnxNode) -> Value:
    """Pow; a constant exponent may be an integer tensor."""
    exponent = node.constants[1]
    if exponent is not None:
        node.constants[1] = exponent.astype(np.float32)
    return _emit(node, Pow(), *_operands(node))


@onnx_importer("Sum", "Mean", "Min", "Max")
def import_variadic(node: OnnxNode) -> Value:
    """Any number of operands, as a chain of binary ops from left to right."""
    op = {"Sum": Add, "Mean": Add, "Min": Min, "Max": Max}[node.op_type]()
    first, *rest = _operands(node)
    for value in rest:
        first = _emit(node, op, first, value)
    if node.op_type == "Mean" and rest:
        share = node.constant(np.asarray(1 / (1 + len(rest)), np.float32), "share")
        first = node.emit(Mul(), first, share)
    return first


def _operands(node: OnnxNode) -> list[Value]:
    return [node.input(index) for index in range(len(node.inputs))]


def _emit(node: OnnxNode, op: Op, a: Value, b: Value) -> Value:
    """``op(a, b)``; a constant of lower rank loses its leading 1s, so that samples of the other can stack."""
    return node.emit(op, _stripped(node, a, b), _stripped(node, b, a))


def _stripped(node: OnnxNode, value: Value, other: Value) -> Value:
    shape = value.type.shape
    if value.data is None or value.type.rank >= other.type.rank or shape[:1] != (1,):
        return value
    while shape[:1] == (1,):
        shape = shape[1:]
    return node.constant(value.data.reshape(shape), "constant")
