"""Reductions over axes, which always stay as axes of size 1; the importers drop them with a reshape."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from qcc.ir.errors import VerifyError
from qcc.ir.interval import Interval
from qcc.ir.op import Array, Case, Op, QuantRule, Signature, onnx_importer, register_op
from qcc.ir.ops.activation import Function
from qcc.ir.ops.elementwise import Add, Mul, Sub
from qcc.ir.ops.functions import Abs, Exp, Log, Sqrt
from qcc.ir.ops.shape import Reshape, axis_index
from qcc.ir.qparams import QParams
from qcc.ir.types import DType, TensorType, sum_dtype

if TYPE_CHECKING:
    from qcc.ir.graph import Node, Value
    from qcc.ir.importing import OnnxNode
    from qcc.ir.lowering import Lowering


class _Reduce(Op):
    """Base: ``axes`` (counted from the front, ascending) of x become 1."""

    operands: ClassVar[tuple[str, ...]] = ("x",)
    axes: tuple[int, ...]

    def infer(self, *operands: TensorType | None) -> TensorType:
        """x with size 1 along ``axes``."""
        (x,) = operands
        assert x is not None
        if list(self.axes) != sorted(set(self.axes)) or any(not 0 <= a < x.rank for a in self.axes):
            raise VerifyError(f"{self.name}: {self.axes} are not ascending axes of {x}")
        return x.with_shape(tuple(1 if i in self.axes else n for i, n in enumerate(x.shape)))

    def permuted(self, perm: tuple[int, ...], sig: Signature) -> Op | None:
        """The axes of the operand before it is permuted."""
        return replace(self, axes=tuple(sorted(perm[a] for a in self.axes)))  # type: ignore[type-var]

    def channel_map(self, sig: Signature) -> tuple[int, ...]:
        """Channels stay apart unless they are reduced."""
        return () if sig.operand(0).rank - 1 in self.axes else (0,)

    def batches(self, sig: Signature) -> bool:
        """Samples must not be reduced together."""
        return 0 not in self.axes

    @classmethod
    def cases(cls, rng: np.random.Generator) -> Iterable[Case]:
        """Over space, over channels, over everything but the samples, over samples too."""
        for axes in ((1, 2), (3,), (1, 2, 3), (0, 2)):
            x = rng.uniform(-1, 3, size=(1, 3, 4, 5)).astype(np.float32)
            yield Case(cls(axes), (x,))  # type: ignore[call-arg]


class _Total(_Reduce):
    """Base of sum and mean. Integer form: acc = sum (x - zp), s32 at scale s_x (sum) or s_x / count (mean)."""

    accumulates = True
    wide_result = True
    wide_operands = True

    def _count(self, x: TensorType) -> int:
        return prod(x.shape[a] for a in self.axes)

    def _divisor(self, x: TensorType) -> int:
        return 1

    def infer(self, *operands: TensorType | None) -> TensorType:
        """Size 1 along ``axes``; s32 with per-tensor qparams for integers."""
        result = super().infer(*operands)
        if result.dtype is DType.F32:
            return result.with_qparams(None)
        if result.qparams is None or result.qparams.axis is not None:
            raise VerifyError(f"{self.name} needs per-tensor qparams, got {operands[0]}")
        assert operands[0] is not None
        scale = result.qparams.scale[0] / self._divisor(operands[0])
        dtype = sum_dtype(operands[0])
        return TensorType(dtype, result.shape, QParams.per_tensor(scale, 0, dtype.value))

    def int_ref(self, sig: Signature, *operands: Array | None) -> Array:
        """Exact sum, int64."""
        (x,) = operands
        assert x is not None
        centred = x.astype(np.int64) - sig.qparams(0).zero_point
        return np.asarray(centred.sum(axis=self.axes, keepdims=True))

    def accumulate(self, q: Lowering, node: Node) -> Value | None:
        """Sum of the quantized operand."""
        return q.emit(self, q.integer(node.input(0)), name=node.name)

    def interval(self, sig: Signature, *operands: Interval | Array | None) -> Interval:
        """Count times the operand's interval, summed over channels where these are reduced."""
        terms = self._terms(sig, *operands)
        return Interval(terms.low.sum(axis=0), terms.high.sum(axis=0))

    def partial_sum_bound(self, sig: Signature, *operands: Interval | Array | None) -> int:
        """Sum of the largest magnitudes."""
        terms = self._terms(sig, *operands)
        return int(np.maximum(np.abs(terms.low), np.abs(terms.high)).sum(axis=0).max())

    def _terms(self, sig: Signature, *operands: Interval | Array | None) -> Interval:
        """What each channel adds, int64[reduced channels, result channels]."""
        x, type_ = operands[0], sig.operand(0)
        assert isinstance(x, Interval)
        x = x.shifted(-sig.qparams(0).zero_point)
        count = self._count(type_)
        if type_.rank - 1 not in self.axes:
            x = x.scaled(count)
            return Interval(x.low[None, :], x.high[None, :])
        x = x.scaled(count // type_.shape[-1])
        return Interval(x.low[:, None], x.high[:, None])


@register_op
class ReduceMean(_Total):
    """Mean over ``axes``."""

    name = "reduce_mean"
    axes: tuple[int, ...] = ()

    def _divisor(self, x: TensorType) -> int:
        return self._count(x)

    def float_ref(self, *operands: Array | None) -> Array:
        """numpy mean in float64."""
        (x,) = operands
        assert x is not None
        return np.asarray(x.mean(axis=self.axes, keepdims=True, dtype=np.float64), np.float32)


@register_op
class ReduceSum(_Total):
    """Sum over ``axes``."""

    name = "reduce_sum"
    axes: tuple[int, ...] = ()

    def float_ref(self, *operands: Array | None) -> Array:
        """numpy sum in float64."""
        (x,) = operands
        assert x is not None
        return np.asarray(x.sum(axis=self.axes, keepdims=True, dtype=np.float64), np.float32)


class _Extreme(_Reduce):
    """Base of max and min: the same op on integers, qparams shared."""

    wide_operands = True

    def quant_rule(self) -> QuantRule:
        """Result and operand share qparams."""
        return QuantRule(shares=True)

    def int_ref(self, sig: Signature, *operands: Array | None) -> Array:
        """The same op."""
        return self.float_ref(*operands)

    def quantize(self, q: Lowering, node: Node) -> Value | None:
        """The same op on integers."""
        return q.emit(self, q.integer_as(node.input(0), node.output), name=node.name)

    def interval(self, sig: Signature, *operands: Interval | Array | None) -> Interval:
        """The operand's interval; over all channels where these are reduced."""
        x = operands[0]
        assert isinstance(x, Interval)
        return x.over_channels(1) if sig.operand(0).rank - 1 in self.axes else x


@register_op
class ReduceMax(_Extreme):
    """Maximum over ``axes``."""

    name = "reduce_max"
    axes: tuple[int, ...] = ()

    def float_ref(self, *operands: Array | None) -> Array:
        """numpy max."""
        (x,) = operands
        assert x is not None
        return np.asarray(x.max(axis=self.axes, keepdims=True))


@register_op
class ReduceMin(_Extreme):
    """Minimum over ``axes``."""

    name = "reduce_min"
    axes: tuple[int, ...] = ()

    def float_ref(self, *operands: Array | None) -> Array:
        """numpy min."""
        (x,) = operands
        assert x is not None
        return np.asarray(x.min(axis=self.axes, keepdims=True))


@register_op
class ReduceProd(_Reduce):
    """Product over ``axes``; it has no integer form, since scales would multiply."""

    name = "reduce_prod"
    axes: tuple[int, ...] = ()

    def infer(self, *operands: TensorType | None) -> TensorType:
        """Size 1 along ``axes``, for floats alone."""
        result = super().infer(*operands)
        if result.dtype is not DType.F32:
            raise VerifyError(f"reduce_prod has no integer form, got {operands[0]}")
        return result.with_qparams(None)

    def float_ref(self, *operands: Array | None) -> Array:
        """numpy product in float64."""
        (x,) = operands
        assert x is not None
        return np.asarray(x.prod(axis=self.axes, keepdims=True, dtype=np.float64), np.float32)


@onnx_importer("GlobalAveragePool", "GlobalMaxPool")
def import_global_pool(node: OnnxNode) -> Value:
    """A reduction over the spatial axes of a channels-first image."""
    x = node.input(0)
    if x.type.rank < 3:
        raise node.unsupported(f"a global pool needs spatial axes, got {x.type}")
    cls = ReduceMean if node.op_type == "GlobalAveragePool" else ReduceMax
    return node.to_nchw(node.emit(cls(tuple(range(1, x.type.rank - 1))), node.to_nhwc(x)))


# what is done to the operand, the sum, what is done to the sum
_REDUCTIONS: dict[str, tuple[Function | Mul | None, type[_Reduce], Function | None]] = {
    "ReduceMean": (None, ReduceMean, None),
    "ReduceSum": (None, ReduceSum, None),
    "ReduceMax": (None, ReduceMax, None),
    "ReduceMin": (None, ReduceMin, None),
    "ReduceProd": (None, ReduceProd, None),
    "ReduceL1": (Abs(), ReduceSum, None),
    "ReduceL2": (Mul(), ReduceSum, Sqrt()),
    "ReduceSumSquare": (Mul(), ReduceSum, None),
    "ReduceLogSum": (None, ReduceSum, Log()),
}


@onnx_importer(*_REDUCTIONS)
def import_reduce(node: OnnxNode) -> Value:
    """A reduction; axes as an attribute (older opsets) or a constant input; norms as compositions."""
    before, cls, after = _REDUCTIONS[node.op_type]
    x = node.input(0)
    axes = _reduced_axes(node)
    if before is not None:
        x = node.emit(before, *(x,) * len(before.operands))
    y = node.emit(cls(axes), x) if axes else x  # type: ignore[call-arg]
    if after is not None:
        y = node.emit(after, y)
    return _with_axes_kept(node, y, axes)


@onnx_importer("ReduceLogSumExp")
def import_reduce_log_sum_exp(node: OnnxNode) -> Value:
    """log(sum(e^x)) as m + log(sum(e^(x - m))) with the maximum m, so that nothing overflows."""
    x, axes = node.input(0), _reduced_axes(node)
    if not axes:
        return x
    largest = node.emit(ReduceMax(axes), x)
    terms = node.emit(Exp(), node.emit(Sub(), x, largest))
    y = node.emit(Add(), largest, node.emit(Log(), node.emit(ReduceSum(axes), terms)))
    return _with_axes_kept(node, y, axes)


def _reduced_axes(node: OnnxNode) -> tuple[int, ...]:
    rank = node.input(0).type.rank
    given = node.ints(1, "axes") or ()
    if not given and not node.attrs.get("noop_with_empty_axes", 0):
        given = tuple(range(rank))
    return tuple(sorted({axis_index(node, axis, rank) for axis in given}))


def _with_axes_kept(node: OnnxNode, y: Value, axes: tuple[int, ...]) -> Value:
    if node.attrs.get("keepdims", 1) or not axes:
        return y
    return node.emit(Reshape(tuple(n for i, n in enumerate(y.type.shape) if i not in axes)), y)
