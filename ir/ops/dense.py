"""Matrix products: dense has constant weights w [N, K]; matmul has two operands of any origin."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from qcc.ir import exact
from qcc.ir.errors import VerifyError
from qcc.ir.interval import Interval
from qcc.ir.op import Array, Case, Op, QuantRule, Signature, onnx_importer, register_op
from qcc.ir.ops.conv import accumulator_type
from qcc.ir.ops.elementwise import Add, Mul, broadcasts_over_samples
from qcc.ir.ops.shape import Reshape, Transpose, axis_index
from qcc.ir.qparams import QParams
from qcc.ir.types import TensorType

if TYPE_CHECKING:
    from qcc.ir.graph import Node, Value
    from qcc.ir.importing import OnnxNode
    from qcc.ir.lowering import Lowering

MAX_CUMULATED = 1024  # of a CumSum, whose work grows with the square


@register_op
class Dense(Op):
    """y[..., n] = bias[n] + sum_k x[..., k] * w[n, k].

    Integer form: acc = bias + sum w * (x - x_zero_point), s32 at scale s_x * s_w[n].
    """

    name = "dense"
    operands = ("x", "w", "bias?")
    accumulates = True
    wide_result = True
    folds_zero_point = True
    wide_operands = True
    x_zero_point: int = 0

    def infer(self, *operands: TensorType | None) -> TensorType:
        """[..., N]; s32 at scale s_x * s_w for integers."""
        x, w, bias = (*operands, None)[:3]
        assert x is not None
        assert w is not None
        if x.rank < 1 or w.rank != 2 or x.shape[-1] != w.shape[1]:
            raise VerifyError(f"dense: x [..., K] and w [N, K] are {x} and {w}")
        if bias is not None and bias.shape != w.shape[:1]:
            raise VerifyError(f"dense: bias must have shape {w.shape[:1]}, got {bias.shape}")
        return accumulator_type(x, w, (*x.shape[:-1], w.shape[0]))

    def float_ref(self, *operands: Array | None) -> Array:
        """Matrix product in float64."""
        x, w, bias = (*operands, None)[:3]
        assert x is not None
        assert w is not None
        y = x.astype(np.float64) @ w.T.astype(np.float64)
        return np.asarray(y if bias is None else y + bias, np.float32)

    def int_ref(self, sig: Signature, *operands: Array | None) -> Array:
        """Exact accumulator, int64."""
        x, w, bias = (*operands, None)[:3]
        assert x is not None
        assert w is not None
        acc = exact.matmul(x, w.T)
        if self.x_zero_point:
            acc = acc - self.x_zero_point * w.astype(np.int64).sum(axis=1)
        return np.asarray(acc if bias is None else acc + bias.astype(np.int64))

    def quant_rule(self) -> QuantRule:
        """Weights per output channel, bias at the accumulator's scale."""
        return QuantRule(weight=1, weight_axis=0, bias=2)

    def weight_rows(self, x: Array, w: TensorType, positions: int) -> Array | None:
        """The vectors themselves."""
        rows = x.reshape(len(x), -1, 1, w.shape[1])
        return rows[:, :: max(1, rows.shape[1] // positions)]

    def accumulate(self, q: Lowering, node: Node) -> Value | None:
        """s32 product of the quantized operands."""
        x, w = q.integer(node.input(0)), q.integer(node.input(1))
        bias = q.bias(node.operand("bias"), x, w)
        return q.emit(replace(self, x_zero_point=q.zero_point(x)), x, w, bias, name=node.name)

    def interval(self, sig: Signature, *operands: Interval | Array | None) -> Interval:
        """b + [sum min(w x_min, w x_max), sum max(...)] for each output channel."""
        low, high, bias = self._products(*operands)
        return Interval(low.sum(axis=1) + bias, high.sum(axis=1) + bias)

    def partial_sum_bound(self, sig: Signature, *operands: Interval | Array | None) -> int:
        """max over channels of |b| + sum max(|w x_min|, |w x_max|)."""
        low, high, bias = self._products(*operands)
        return int((np.abs(bias) + np.maximum(np.abs(low), np.abs(high)).sum(axis=1)).max())

    def _products(self, *operands: Interval | Array | None) -> tuple[Array, Array, Array]:
        """Bounds of each product, int64[N, K], and the bias, int64[N]."""
        x, w, bias = (*operands, None)[:3]
        assert isinstance(x, Interval)
        assert isinstance(w, np.ndarray)
        x = x.shifted(-self.x_zero_point)
        a, b = w.astype(np.int64) * x.low, w.astype(np.int64) * x.high
        offset = np.zeros(len(w), np.int64) if bias is None else np.asarray(bias, np.int64)
        return np.minimum(a, b), np.maximum(a, b), offset

    def defines_channels(self, sig: Signature) -> bool:
        """One row of weights for each output channel."""
        return True

    def permuted(self, perm: tuple[int, ...], sig: Signature) -> Op | None:
        """The same op while the last axis stays last."""
        return self if perm and perm[-1] == len(perm) - 1 else None

    def macs(self, sig: Signature) -> int:
        """Output elements times K."""
        return sig.result.elements * sig.operand(1).shape[1]

    @classmethod
    def cases(cls, rng: np.random.Generator) -> Iterable[Case]:
        """A classifier head, no bias, K = 1, more axes."""
        for x, w, has_bias in (
            ((1, 9), (4, 9), True),
            ((1, 17), (3, 17), False),
            ((1, 1), (2, 1), True),
            ((1, 4, 3, 6), (5, 6), True),
        ):
            arrays = [rng.normal(size=x), rng.normal(size=w)] + [rng.normal(size=w[0])] * has_bias
            inputs = tuple(a.astype(np.float32) for a in arrays)
            yield Case(cls(), inputs, (False, True, True)[: len(inputs)])


@register_op
class MatMul(Op):
    """a [..., M, K] times b [..., K, N] with numpy broadcasting of the leading axes.

    Integer form: acc = sum_k (a - zp_a) * (b - zp_b), s32 at scale s_a * s_b; a constant is held in s8.
    """

    name = "matmul"
    operands = ("a", "b")
    accumulates = True
    wide_operands = True

    def infer(self, *operands: TensorType | None) -> TensorType:
        """[..., M, N]; s32 at scale s_a * s_b for integers."""
        a, b = operands
        assert a is not None
        assert b is not None
        if a.rank < 2 or b.rank < 2 or a.shape[-1] != b.shape[-2]:
            raise VerifyError(f"matmul: a [..., M, K] and b [..., K, N] are {a} and {b}")
        try:
            leading = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        except ValueError:
            raise VerifyError(f"matmul: leading axes of {a} and {b} do not broadcast") from None
        return accumulator_type(a, b, (*leading, a.shape[-2], b.shape[-1]))

    def batches(self, sig: Signature) -> bool:
        """As any op that broadcasts."""
        return broadcasts_over_samples(sig)

    def float_ref(self, *operands: Array | None) -> Array:
        """numpy.matmul in float64."""
        a, b = operands
        assert a is not None
        assert b is not None
        return np.asarray(np.matmul(a.astype(np.float64), b.astype(np.float64)), np.float32)

    def int_ref(self, sig: Signature, *operands: Array | None) -> Array:
        """Exact accumulator, int64."""
        a, b = operands
        assert a is not None
        assert b is not None
        zero_a, zero_b = sig.qparams(0).zero_point, sig.qparams(1).zero_point
        return exact.matmul(a.astype(np.int32) - zero_a, b.astype(np.int32) - zero_b)

    def accumulate(self, q: Lowering, node: Node) -> Value | None:
        """s32 product of the quantized operands; a constant gets symmetric s8 qparams of its own."""
        inputs = []
        for value in (node.input(0), node.input(1)):
            if value.data is None:
                inputs.append(q.integer(value))
                continue
            scale = max(float(np.abs(value.data).max()), 1e-30) / 127
            data = np.rint(value.data.astype(np.float64) / scale).astype(np.int8)
            inputs.append(q.constant(data, value.name, QParams.per_tensor(scale)))
        return q.emit(self, *inputs, name=node.name)

    def interval(self, sig: Signature, *operands: Interval | Array | None) -> Interval:
        """Sum over k of the extremes of each product, for each column of b."""
        low, high = self._products(sig, *operands)
        return Interval(low.sum(axis=0), high.sum(axis=0))

    def partial_sum_bound(self, sig: Signature, *operands: Interval | Array | None) -> int:
        """max over columns of sum_k of the largest |product|."""
        low, high = self._products(sig, *operands)
        return int(np.maximum(np.abs(low), np.abs(high)).sum(axis=0).max())

    def _products(self, sig: Signature, *operands: Interval | Array | None) -> tuple[Array, Array]:
        """Bounds of a[.., k] * b[k, n] over all rows and leading axes, int64[K, N]."""
        a, b = operands
        rows = a if isinstance(a, Interval) else Interval.of_array(np.asarray(a))
        rows = rows.shifted(-sig.qparams(0).zero_point)
        if isinstance(b, Interval):
            low, high = b.low[None, :], b.high[None, :]
        else:
            matrices = np.asarray(b, np.int64).reshape(-1, *sig.operand(1).shape[-2:])
            low, high = matrices.min(axis=0), matrices.max(axis=0)
        zero_b = sig.qparams(1).zero_point
        corners = [r[:, None] * (c - zero_b) for r in (rows.low, rows.high) for c in (low, high)]
        return np.minimum.reduce(corners), np.maximum.reduce(corners)

    def macs(self, sig: Signature) -> int:
        """Output elements times K."""
        return sig.result.elements * sig.operand(0).shape[-1]

    @classmethod
    def cases(cls, rng: np.random.Generator) -> Iterable[Case]:
        """Attention scores, a broadcast operand, and a constant on either side."""
        for a, b, constant in (
            ((1, 2, 5, 4), (1, 2, 4, 3), (False, False)),
            ((1, 3, 4), (1, 2, 4, 5), (False, False)),
            ((6, 5), (1, 5, 3), (True, False)),
            ((1, 2, 3, 4), (2, 4, 6), (False, True)),
        ):
            arrays = (rng.normal(size=a).astype(np.float32), rng.normal(size=b).astype(np.float32))
            yield Case(cls(), arrays, constant)


@onnx_importer("MatMul")
def import_matmul(node: OnnxNode) -> Value:
    """Dense for a constant matrix on the right; operands of rank 1 are a row (left) or a column (right)."""
    a, constant = node.input(0), node.constants[1]
    if constant is not None and constant.ndim == 2:
        return node.emit(Dense(), a, node.constant(_weights(constant.T), "weight"))
    b = node.input(1)
    rank_a, rank_b = a.type.rank, b.type.rank
    if rank_a == 1:
        a = node.emit(Reshape((1, *a.type.shape)), a)
    if rank_b == 1:
        b = node.emit(Reshape((*b.type.shape, 1)), b)
    y = node.emit(MatMul(), a, b)
    shape = list(y.type.shape)
    if rank_b == 1:
        del shape[-1]
    if rank_a == 1:
        del shape[-1 if rank_b == 1 else -2]
    return y if tuple(shape) == y.type.shape else node.emit(Reshape(tuple(shape)), y)


@onnx_importer("Gemm")
def import_gemm(node: OnnxNode) -> Value:
    """alpha * A' * B' + beta * C, with what is constant of alpha, B, beta and C folded into a dense."""
    alpha, beta = (float(node.attrs.get(name, 1.0)) for name in ("alpha", "beta"))
    a, b = node.input(0), node.constants[1]
    if node.attrs.get("transA", 0):
        a = node.emit(Transpose((1, 0)), a)
    c = node.optional(2)
    if b is None:
        right = node.input(1)
        if node.attrs.get("transB", 0):
            right = node.emit(Transpose((1, 0)), right)
        y = node.emit(MatMul(), a, right)
        if alpha != 1:
            y = node.emit(Mul(), y, node.constant(np.asarray(alpha, np.float32), "alpha"))
    else:
        weights = _weights(alpha * (b if node.attrs.get("transB", 0) else b.T))
        bias, channels = None, len(weights)
        if (
            c is not None
            and c.data is not None
            and c.data.size in (1, c.type.shape[-1] if c.type.rank else 1)
        ):
            row = np.broadcast_to(beta * c.data.reshape(-1), channels).astype(np.float32)
            bias, c = node.constant(row, "bias"), None
        y = node.emit(Dense(), a, node.constant(weights, "weight"), bias)
    if c is None:
        return y
    if c.data is not None:
        c = node.constant((beta * c.data).astype(np.float32), "bias")
    elif beta != 1:
        c = node.emit(Mul(), c, node.constant(np.asarray(beta, np.float32), "beta"))
    return node.emit(Add(), y, c)


def _weights(matrix: Array) -> Array:
    return np.ascontiguousarray(matrix, np.float32)


@onnx_importer("CumSum")
def import_cum_sum(node: OnnxNode) -> Value:
    """Sums up to each element of one axis: a product with a triangle of ones."""
    x, given = node.input(0), node.ints(1)
    if given is None or len(given) != 1:
        raise node.unsupported(f"it needs one axis, got {given}")
    axis, rank = axis_index(node, given[0], x.type.rank), x.type.rank
    count = x.type.shape[axis]
    if count > MAX_CUMULATED:
        raise node.unsupported(f"it adds {count} elements: at most {MAX_CUMULATED} are supported")
    counted = np.tril(np.ones((count, count), np.float32), -int(node.attrs.get("exclusive", 0)))
    w = counted.T.copy() if node.attrs.get("reverse", 0) else counted
    perm = (*(i for i in range(rank) if i != axis), axis)
    y = node.emit(Dense(), node.emit(Transpose(perm), x), node.constant(w, "ones"))
    return node.emit(Transpose(tuple(int(i) for i in np.argsort(perm))), y)
