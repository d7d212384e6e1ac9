"""Convolutions, channels last: x [N, H, W, C], w [O, KH, KW, C/groups], bias [O]. A 1-D one has H = KH = 1."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qcc.ir import exact
from qcc.ir.errors import VerifyError
from qcc.ir.interval import Interval
from qcc.ir.op import Array, Case, Op, QuantRule, Signature, onnx_importer, register_op
from qcc.ir.ops.elementwise import Add
from qcc.ir.ops.shape import Pad
from qcc.ir.ops.spatial import four, from_image, pair, to_image
from qcc.ir.types import DType, TensorType, product_qparams, sum_dtype
from qcc.ir.window import auto_pads, pad_spatial, patches, sliding_windows, taps, window_output

if TYPE_CHECKING:
    from qcc.ir.graph import Node, Value
    from qcc.ir.importing import OnnxNode
    from qcc.ir.lowering import Lowering


@register_op
class Conv2d(Op):
    """y[n,i,j,o] = bias[o] + sum w[o,a,b,c] * x[n, i*sh + a*dh - top, j*sw + b*dw - left, group(o) + c].

    Integer form: acc = bias + sum w * (x' - x_zero_point), where x' is x padded with ``pad_value``.
    ``pads`` are top, left, bottom, right.
    """

    name = "conv2d"
    operands = ("x", "w", "bias?")
    accumulates = True
    folds_zero_point = True
    wide_operands = True
    strides: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilations: tuple[int, int] = (1, 1)
    groups: int = 1
    x_zero_point: int = 0
    pad_value: int = 0

    def infer(self, *operands: TensorType | None) -> TensorType:
        """[N, OH, OW, O]; s32 at scale s_x * s_w for integers."""
        x, w, bias = (*operands, None)[:3]
        assert x is not None
        assert w is not None
        if x.rank != 4 or w.rank != 4:
            raise VerifyError(f"conv2d needs x and w of rank 4, got {x} and {w}")
        n, h, width, c = x.shape
        o, kh, kw, per_group = w.shape
        if c != per_group * self.groups or o % self.groups:
            raise VerifyError(f"conv2d: {c} channels and weights {w.shape} do not fit {self.groups} groups")
        if bias is not None and bias.shape != (o,):
            raise VerifyError(f"conv2d: bias must have shape ({o},), got {bias.shape}")
        oh, ow = window_output((h, width), (kh, kw), self.strides, self.pads, self.dilations)
        return accumulator_type(x, w, (n, oh, ow, o))

    def float_ref(self, *operands: Array | None) -> Array:
        """Sum of float64 matrix products over im2col patches."""
        x, w, bias = (*operands, None)[:3]
        assert x is not None
        assert w is not None
        y = self._sum(x, w, 0.0, np.float64)
        return np.asarray((y if bias is None else y + bias), np.float32)

    def int_ref(self, sig: Signature, *operands: Array | None) -> Array:
        """Exact accumulator, int32 or int64."""
        x, w, bias = (*operands, None)[:3]
        assert x is not None
        assert w is not None
        filters = w.astype(np.int64).reshape(len(w), -1)
        dtype = exact.carrier(max(exact.largest(x), abs(self.pad_value)), filters.T)
        offset = -self.x_zero_point * filters.sum(axis=1)
        if bias is not None:
            offset += bias
        return exact.plus(self._sum(x, w, self.pad_value, dtype), offset)

    def _sum(self, x: Array, w: Array, pad_value: float, dtype: Any) -> NDArray[Any]:
        """The convolution, computed in ``dtype``."""
        x, w = pad_spatial(x.astype(dtype), self.pads, pad_value), w.astype(dtype)
        o, kh, kw, per_group = w.shape
        if per_group == 1 and o == self.groups == x.shape[-1]:
            return self._depthwise_sum(x, w)
        per_out = o // self.groups
        parts = []
        for g in range(self.groups):
            xg = x[..., g * per_group : (g + 1) * per_group]
            wg = w[g * per_out : (g + 1) * per_out].reshape(per_out, -1).T
            blocks = [exact.product(p, wg) for p in patches(xg, (kh, kw), self.strides, self.dilations)]
            parts.append(np.concatenate(blocks) if len(blocks) > 1 else blocks[0])
        return np.concatenate(parts, axis=-1) if len(parts) > 1 else parts[0]

    def _depthwise_sum(self, x: Array, w: Array) -> NDArray[Any]:
        """One image at a time, so that the sums stay in the cache while the taps are added."""
        _, kh, kw, _ = w.shape
        sums = []
        for image in x:
            total: Any = 0
            for (a, b), tap in taps(image[None], (kh, kw), self.strides, self.dilations):
                total = total + tap * w[:, a, b, 0]
            sums.append(total)
        return np.concatenate(sums)

    def with_padding(self, pads: tuple[int, int, int, int], value: float) -> Op | None:
        """Zeros join the convolution's own padding."""
        top, left, bottom, right = (own + more for own, more in zip(self.pads, pads, strict=True))
        return replace(self, pads=(top, left, bottom, right)) if value == 0 else None

    def quant_rule(self) -> QuantRule:
        """Weights per output channel, bias at the accumulator's scale."""
        return QuantRule(weight=1, weight_axis=0, bias=2)

    def weight_rows(self, x: Array, w: TensorType, positions: int) -> Array | None:
        """The patches of each group, taps before channels, as ``w`` has them."""
        _, kh, kw, per_group = w.shape
        windows = sliding_windows(pad_spatial(x, self.pads, 0.0), (kh, kw), self.strides, self.dilations)
        n, oh, ow = windows.shape[:3]
        step = max(1, oh * ow // positions)
        chosen = np.arange(step // 2, oh * ow, step)
        rows = windows[:, chosen // ow, chosen % ow]  # [N, P, KH, KW, C]
        rows = rows.reshape(n, len(chosen), kh * kw, self.groups, per_group)
        return np.asarray(np.moveaxis(rows, 3, 2)).reshape(n, len(chosen), self.groups, -1)

    def accumulate(self, q: Lowering, node: Node) -> Value | None:
        """s32 convolution of the quantized operands."""
        x, w = q.integer(node.input(0)), q.integer(node.input(1))
        zero_point = q.zero_point(x)
        bias = q.bias(node.operand("bias"), x, w)
        op = replace(self, x_zero_point=zero_point, pad_value=zero_point)
        return q.emit(op, x, w, bias, name=node.name)

    def interval(self, sig: Signature, *operands: Interval | Array | None) -> Interval:
        """b' + [sum min(w x_min, w x_max), sum max(...)] with the padding value included."""
        low, high, bias = self._products(sig, *operands)
        return Interval(low.sum(axis=1) + bias, high.sum(axis=1) + bias)

    def partial_sum_bound(self, sig: Signature, *operands: Interval | Array | None) -> int:
        """|b'| + sum max(|w x_min|, |w x_max|)."""
        low, high, bias = self._products(sig, *operands)
        return int((np.abs(bias) + np.maximum(np.abs(low), np.abs(high)).sum(axis=1)).max())

    def _products(self, sig: Signature, *operands: Interval | Array | None) -> tuple[Array, Array, Array]:
        """Bounds of each product, int64[O, KH*KW*C/groups], and the bias."""
        x, w, bias = (*operands, None)[:3]
        assert isinstance(x, Interval)
        assert isinstance(w, np.ndarray)
        if any(self.pads):
            x = x.include(self.pad_value)
        x = x.shifted(-self.x_zero_point)
        o, _, _, per_group = w.shape
        w = w.astype(np.int64)
        group = np.arange(o) // (o // self.groups)
        channel = group[:, None] * per_group + np.arange(per_group)  # [O, C/groups]
        a, b = (w * bound[channel][:, None, None, :] for bound in (x.low, x.high))
        low, high = np.minimum(a, b).reshape(o, -1), np.maximum(a, b).reshape(o, -1)
        offset = np.zeros(o, np.int64) if bias is None else np.asarray(bias, np.int64)
        return low, high, offset

    def channel_map(self, sig: Signature) -> tuple[int, ...]:
        """A depthwise convolution keeps channels apart."""
        return (
            (0,)
            if self.groups > 1 and self.groups == sig.result.shape[-1] == sig.operand(0).shape[-1]
            else ()
        )

    def defines_channels(self, sig: Signature) -> bool:
        """One filter for each output channel."""
        return self.groups == 1

    def with_channels(self, count: int) -> Op:
        """A depthwise convolution has as many groups as channels."""
        return self if self.groups == 1 else replace(self, groups=count)

    def macs(self, sig: Signature) -> int:
        """Output elements times taps times channels of a group."""
        return sig.result.elements * sig.operand(1).elements // sig.operand(1).shape[0]

    @classmethod
    def cases(cls, rng: np.random.Generator) -> Iterable[Case]:
        """Dense, strided and padded, dilated, grouped, depthwise, 1-D."""
        for op, x, w in (
            (cls(), (1, 5, 4, 3), (2, 1, 1, 3)),
            (cls((2, 2), (1, 1, 1, 0)), (1, 7, 6, 4), (5, 3, 3, 4)),
            (cls(dilations=(2, 1), pads=(2, 1, 2, 1)), (1, 6, 5, 2), (3, 3, 3, 2)),
            (cls(groups=2), (1, 4, 4, 4), (6, 2, 2, 2)),
            (cls((2, 1), (1, 1, 1, 1), groups=5), (1, 6, 5, 5), (5, 3, 3, 1)),
            (cls(pads=(0, 2, 0, 1)), (1, 1, 9, 3), (4, 1, 4, 3)),
        ):
            arrays = (rng.normal(size=x), rng.normal(size=w), rng.normal(size=w[0]))
            yield Case(op, tuple(a.astype(np.float32) for a in arrays), (False, True, True))


def accumulator_type(x: TensorType, w: TensorType, shape: tuple[int, ...]) -> TensorType:
    """f32 for float operands; s32 (s64 for 16 bits) at scale s_x * s_w, per channel of the last axis, for integer ones."""
    if x.dtype is DType.F32 and w.dtype is DType.F32:
        return TensorType(DType.F32, shape)
    return TensorType(sum_dtype(x, w), shape, product_qparams(x, w, len(shape) - 1))


@onnx_importer("Conv")
def import_conv(node: OnnxNode) -> Value:
    """Conv, 1-D or 2-D, wrapped in the transposes that make it channels-last."""
    x, w, bias = node.input(0), node.array(1), node.optional(2)
    if w is None or w.ndim not in (3, 4):
        raise node.unsupported("only 1-D and 2-D convolutions are supported")
    attrs, spatial = node.attrs, w.ndim - 2
    strides, dilations = (attrs.get(name, [1] * spatial) for name in ("strides", "dilations"))
    pads = four(auto_pads(node, x.type.shape[2:], w.shape[2:], strides, dilations))
    image = to_image(node, x)
    if min(pads) < 0:  # ONNX allows negative pads: they crop
        top, left, bottom, right = pads
        image = node.emit(Pad((0, top, left, 0), (0, bottom, right, 0)), image)
        pads = (0, 0, 0, 0)
    weights = np.moveaxis(w if spatial == 2 else w[:, :, None], 1, -1)
    op = Conv2d(pair(strides), pads, pair(dilations), int(attrs.get("group", 1)))
    weight = node.constant(np.ascontiguousarray(weights, np.float32), "weight")
    return from_image(node, emit_biased(node, op, image, weight, bias), x.type.rank)


def emit_biased(node: OnnxNode, op: Op, image: Value, weight: Value, bias: Value | None) -> Value:
    """``op`` with its bias; one that is computed is added afterwards, as integers need a constant."""
    if bias is None or bias.is_constant:
        return node.emit(op, image, weight, bias)
    return node.emit(Add(), node.emit(op, image, weight), bias)
