"""Softmax over one axis: in float, and in integers with one 256-entry table and one division per element."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from qcc.ir import fixedpoint
from qcc.ir.errors import VerifyError
from qcc.ir.op import Array, Case, Op, QuantRule, Signature, onnx_importer, register_op
from qcc.ir.ops.quant import softmax_qparams, wide_softmax_qparams
from qcc.ir.ops.shape import Reshape, Transpose, axis_index
from qcc.ir.types import DType, TensorType

if TYPE_CHECKING:
    from qcc.ir.graph import Node, Value
    from qcc.ir.importing import OnnxNode
    from qcc.ir.lowering import Lowering

LOG_BITS = 16  # a wide softmax works on x * log2(e) in steps of 2^-16
_EXPONENT_MAX = 31  # 2^23 halved as often is 0
SUM_BITS = 20  # of a multiplier of s64 sums, which have at most 43
EXP_ONE = 2**23  # exp(0) in the table: 2^23 * 256 * 256 elements stay within 2^39


class _OverAxis(Op):
    """Base: one axis of the operand is normalized. ``axis`` counts from the front."""

    operands: ClassVar[tuple[str, ...]] = ("x",)
    axis: int

    def infer(self, *operands: TensorType | None) -> TensorType:
        """f32 of the same shape."""
        x = operands[0]
        assert x is not None
        if not 0 <= self.axis < x.rank:
            raise VerifyError(f"{self.name}: axis {self.axis} is not an axis of {x}")
        if x.dtype is not DType.F32:
            raise VerifyError(f"{self.name} needs a float operand, got {x}")
        return x.with_qparams(None)

    def permuted(self, perm: tuple[int, ...], sig: Signature) -> Op | None:
        """The axis of the operand before it is permuted."""
        return replace(self, axis=perm[self.axis])  # type: ignore[type-var]

    def batches(self, sig: Signature) -> bool:
        """Samples must not be normalized together."""
        return self.axis != 0

    @classmethod
    def cases(cls, rng: np.random.Generator) -> Iterable[Case]:
        """The last axis, an inner one, and a long one."""
        for axis, shape in ((1, (1, 10)), (3, (1, 2, 3, 7)), (1, (1, 4, 3, 2)), (1, (1, 300))):
            yield Case(cls(axis), (rng.uniform(-5, 5, size=shape).astype(np.float32),))  # type: ignore[call-arg]


@register_op
class Softmax(_OverAxis):
    """exp(x - max) / sum exp(x - max) along ``axis``.

    Integer form, last axis only, x: s8 at scale s, table: s32[256], table[d] = round(2^23 exp(-s d)):
    e = table[max(x) - x], y = min((256 e + sum(e) // 2) // sum(e), 255) - 128, in 64 bits; y has scale 1/256
    and zero_point -128. Over n elements it is within 1/2 + (n + 1) / 2^16 LSB of the real softmax of the
    dequantized x (the table is within half a unit of 2^-23, the division within half an LSB), or is 255/256
    where the real value is nearer to 1.
    """

    name = "softmax"
    operands = ("x", "table?")
    accepts_accumulator = True
    wide_operands = True
    axis: int = 1

    def accumulator_problem(self, sig: Signature, producer: Op) -> str:
        """Needs the accumulator in memory, and the last axis."""
        if self.axis != sig.result.rank - 1:
            return f"the softmax is over axis {self.axis}, not the last"
        return "" if producer.wide_result else f"the accumulator of {producer.name} is never in memory"

    def infer(self, *operands: TensorType | None) -> TensorType:
        """The same shape; f32, or s8 with ``softmax_qparams()``."""
        x, table = (*operands, None)[:2]
        assert x is not None
        if table is None:
            return super().infer(x)
        if x.dtype is not DType.S8 or table.dtype is not DType.S32 or table.shape != (256,):
            raise VerifyError(f"softmax needs s8 x and s32[256] table, got {x} and {table}")
        if self.axis != x.rank - 1:
            raise VerifyError(f"softmax of integers works on the last axis, got {self.axis} of {x}")
        return TensorType(DType.S8, x.shape, softmax_qparams())

    def float_ref(self, *operands: Array | None) -> Array:
        """numpy, in the precision of x."""
        x = operands[0]
        assert x is not None
        e = np.exp(x - x.max(axis=self.axis, keepdims=True))
        return np.asarray(e / e.sum(axis=self.axis, keepdims=True))

    def int_ref(self, sig: Signature, *operands: Array | None) -> Array:
        """The integer form of the class docstring."""
        x, table = operands
        assert x is not None
        assert table is not None
        wide = x.astype(np.int64)
        e = table.astype(np.int64)[wide.max(axis=-1, keepdims=True) - wide]
        total = e.sum(axis=-1, keepdims=True)
        return np.asarray(np.minimum((256 * e + total // 2) // total, 255) - 128)

    def quant_rule(self) -> QuantRule:
        """The result is a fraction of 256, or of 2^15."""
        return QuantRule(result=softmax_qparams(), wide_result=wide_softmax_qparams())

    def quantize(self, q: Lowering, node: Node) -> Value | None:
        """Softmax of the last axis, between transposes when ``axis`` is another."""
        x = q.accumulator(node.input(0))
        if x is None:
            return None
        qparams = x.type.qparams
        assert qparams is not None
        wide = node.output.type.qparams == wide_softmax_qparams()
        last = x.type.rank - 1
        perm = (*(i for i in range(last + 1) if i != self.axis), self.axis)
        if self.axis != last:
            x = q.emit(Transpose(perm), x, name=node.name)
        if x.type.dtype is DType.S8 and not wide:
            steps = np.arange(256) * qparams.scale[0]
            table = q.constant(np.rint(EXP_ONE * np.exp(-steps)).astype(np.int32), f"{node.name}_table")
            y = q.emit(Softmax(last), x, table, name=node.name)
        else:
            y = _wide(q, node, x, 15 if wide else 8)
        if self.axis != last:
            y = q.emit(Transpose(tuple(int(i) for i in np.argsort(perm))), y, name=node.name)
        return y if node.output.type.qparams == y.type.qparams else q.requantize(y, node.output)


@register_op
class WideSoftmax(Op):
    """Softmax over the last axis of an accumulator, which never passes through 8 bits, or of 8 or 16 bits. Integers only.

    u = (x * multiplier + 2^(shift-1)) >> shift, in 64 bits, is x * log2(e) in steps of 2^-16, for scales per tensor or
    per channel (s32[1] or s32[C]). With d = max(u) - u, f = d mod 2^16 and ``power_table()``:

        e = (table[f / 256] * table[256 + f mod 256] / 2^8) / 2^(d / 2^16),   rounded down at each division
        y = min((256 e + sum(e) // 2) // sum(e), 255) - 128

    y has scale 1/256 and zero_point -128; with 15 ``bits`` it is min((2^15 e + sum(e) // 2) // sum(e), 2^15 - 1), s16 at
    scale 2^-15. An s64 accumulator has multipliers of SUM_BITS bits, so that the product stays within 64.
    Each e is within 2^-14 of its value and one unit of 2^-23, so over n elements y is within 1/2 + 1/16 + n / 2^14 LSB of
    the real softmax, of 15 bits within 1/2 + 8 + n / 2^7.
    """

    name = "wide_softmax"
    operands = ("x", "multiplier", "shift", "table")
    bits: int = 8

    def infer(self, *operands: TensorType | None) -> TensorType:
        """s8 with ``softmax_qparams()``, s16 with ``wide_softmax_qparams()``."""
        x, multiplier, shift, table = operands
        assert x is not None
        constants = [t for t in (x, multiplier, shift, table) if t is not None]
        if len(constants) != 4 or any(t.dtype is not DType.S32 for t in constants[1:]) or x.rank == 0:
            raise VerifyError(f"wide_softmax needs x and three s32 operands, got {operands}")
        if not x.dtype.is_integer or self.bits not in (8, 15):
            raise VerifyError(f"wide_softmax to 8 or 15 bits needs integers, got {x} and {self.bits} bits")
        if constants[3].shape != (512,):
            raise VerifyError(f"wide_softmax: table must have shape (512,), got {constants[3].shape}")
        for given in constants[1:3]:
            if given.shape not in ((1,), x.shape[-1:]):
                raise VerifyError(f"wide_softmax: {given} must have one element, or one per channel of {x}")
        qparams = softmax_qparams() if self.bits == 8 else wide_softmax_qparams()
        return TensorType(DType(qparams.dtype), x.shape, qparams)

    def int_ref(self, sig: Signature, *operands: Array | None) -> Array:
        """The class docstring in numpy."""
        x, multiplier, shift, table = (o.astype(np.int64) for o in operands if o is not None)
        u = (x * multiplier + (np.int64(1) << (shift - 1))) >> shift
        d = u.max(axis=-1, keepdims=True) - u
        f = d & (2**LOG_BITS - 1)
        e = ((table[f >> 8] * table[256 + (f & 255)]) >> 8) >> np.minimum(d >> LOG_BITS, _EXPONENT_MAX)
        total, one = e.sum(axis=-1, keepdims=True), 2**self.bits
        zero_point = -128 if self.bits == 8 else 0
        return np.asarray(np.minimum((one * e + total // 2) // total, one - 1) + zero_point)

    @classmethod
    def cases(cls, rng: np.random.Generator) -> Iterable[Case]:
        """It has no float form: its tests are those of softmax behind an accumulator."""
        return ()


def power_table() -> Array:
    """s32[512]: 2^16 * 2^(-i / 2^8), then 2^15 * 2^(-i / 2^16); their products fit 32 bits without sign."""
    i = np.arange(256)
    return np.concatenate([np.rint(2.0 ** (16 - i / 2**8)), np.rint(2.0 ** (15 - i / 2**16))]).astype(
        np.int32
    )


def _wide(q: Lowering, node: Node, acc: Value, bits: int) -> Value:
    """Softmax of an accumulator, or of an activation."""
    assert acc.type.qparams is not None
    real = np.asarray(acc.type.qparams.scale) * np.log2(np.e) * 2**LOG_BITS
    # outside these bounds the result is one-hot, or uniform, whatever the multiplier
    width = SUM_BITS if acc.type.dtype is DType.S64 else 31
    largest = 2.0 ** (width - 2)
    pairs = [fixedpoint.quantize_multiplier(float(r), width) for r in np.clip(real, 2.0**-30, largest)]
    multiplier, shift = (np.array(column, np.int32) for column in zip(*pairs, strict=True))
    constants = (("multiplier", multiplier), ("shift", shift), ("table", power_table()))
    made = (q.constant(a, f"{node.name}.{n}") for n, a in constants)
    return q.emit(WideSoftmax(bits), acc, *made, name=node.name)


@register_op
class LogSoftmax(_OverAxis):
    """x - max - log(sum exp(x - max)) along ``axis``; float only."""

    name = "log_softmax"
    axis: int = 1

    def float_ref(self, *operands: Array | None) -> Array:
        """numpy, in the precision of x."""
        x = operands[0]
        assert x is not None
        shifted = x - x.max(axis=self.axis, keepdims=True)
        return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=self.axis, keepdims=True)))


@onnx_importer("Softmax", "LogSoftmax")
def import_softmax(node: OnnxNode) -> Value:
    """One axis (opset 13 and later), or all axes from ``axis`` on as one (before)."""
    cls = Softmax if node.op_type == "Softmax" else LogSoftmax
    x = node.input(0)
    shape = x.type.shape
    axis = axis_index(node, int(node.attrs.get("axis", -1 if node.opset >= 13 else 1)), len(shape))
    if node.opset >= 13 or prod(shape[axis + 1 :]) == 1:
        return node.emit(cls(axis), x)
    flat = node.emit(Reshape((*shape[:axis], prod(shape[axis:]))), x)
    return node.emit(Reshape(shape), node.emit(cls(axis), flat))
