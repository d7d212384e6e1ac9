"""Transposed convolution, channels last: x [N, H, W, C], w [O, KH, KW, C/groups], bias [O]. A 1-D one has H = KH = 1."""

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
from qcc.ir.ops.conv import accumulator_type, emit_biased
from qcc.ir.ops.spatial import four, from_image, pair, to_image
from qcc.ir.types import TensorType

if TYPE_CHECKING:
    from qcc.ir.graph import Node, Value
    from qcc.ir.importing import OnnxNode
    from qcc.ir.lowering import Lowering


@register_op
class ConvTranspose2d(Op):
    """y[n, i*sh + a*dh - top, j*sw + b*dw - left, o] += w[o,a,b,c] * x[n, i, j, group(o) + c], starting from bias[o].

    Integer form: acc = bias + sum w * (x - x_zero_point). The zero_point cannot move into the bias, as an element
    of the result receives only those taps that reach it. ``pads`` (top, left, bottom, right) crop the result,
    ``output_pads`` (bottom, right) extend it.
    """

    name = "conv_transpose2d"
    operands = ("x", "w", "bias?")
    accumulates = True
    wide_operands = True
    strides: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    output_pads: tuple[int, int] = (0, 0)
    dilations: tuple[int, int] = (1, 1)
    groups: int = 1
    x_zero_point: int = 0

    def output_size(self, h: int, w: int, kernel: tuple[int, int]) -> tuple[int, int]:
        """OH, OW for an image of [h, w]."""
        full = self._full_size(h, w, kernel)
        return full[0] - self.pads[0] - self.pads[2], full[1] - self.pads[1] - self.pads[3]

    def _full_size(self, h: int, w: int, kernel: tuple[int, int]) -> tuple[int, int]:
        height, width = (
            (n - 1) * s + (k - 1) * d + 1 + extra
            for n, s, k, d, extra in zip(
                (h, w), self.strides, kernel, self.dilations, self.output_pads, strict=True
            )
        )
        return height, width

    def infer(self, *operands: TensorType | None) -> TensorType:
        """[N, OH, OW, O]; s32 at scale s_x * s_w for integers."""
        x, w, bias = (*operands, None)[:3]
        assert x is not None
        assert w is not None
        if x.rank != 4 or w.rank != 4:
            raise VerifyError(f"conv_transpose2d needs x and w of rank 4, got {x} and {w}")
        n, h, width, c = x.shape
        o, kh, kw, per_group = w.shape
        if c != per_group * self.groups or o % self.groups:
            raise VerifyError(
                f"conv_transpose2d: {c} channels and weights {w.shape} do not fit {self.groups} groups"
            )
        if bias is not None and bias.shape != (o,):
            raise VerifyError(f"conv_transpose2d: bias must have shape ({o},), got {bias.shape}")
        if min(*self.pads, *self.output_pads) < 0 or min(*self.strides, *self.dilations) < 1:
            raise VerifyError("conv_transpose2d: pads must not be negative; strides and dilations start at 1")
        out = self.output_size(h, width, (kh, kw))
        if min(out) < 1:
            raise VerifyError(f"conv_transpose2d: pads {self.pads} leave nothing of the result of {x}")
        return accumulator_type(x, w, (n, *out, o))

    def float_ref(self, *operands: Array | None) -> Array:
        """Sum of float64 matrix products, one per tap."""
        x, w, bias = (*operands, None)[:3]
        assert x is not None
        assert w is not None
        y = self._sum(x.astype(np.float64), w.astype(np.float64))
        return np.asarray(y if bias is None else y + bias, np.float32)

    def int_ref(self, sig: Signature, *operands: Array | None) -> Array:
        """Exact accumulator, int64."""
        x, w, bias = (*operands, None)[:3]
        assert x is not None
        assert w is not None
        acc = self._sum(x.astype(np.int64) - self.x_zero_point, w.astype(np.int64))
        return acc if bias is None else acc + bias.astype(np.int64)

    def _sum(self, x: Array, w: Array) -> NDArray[Any]:
        n, h, width, _ = x.shape
        o, kh, kw, per_group = w.shape
        matmul = exact.matmul if x.dtype == np.int64 else np.matmul
        height, full_width = self._full_size(h, width, (kh, kw))
        full = np.zeros((n, height, full_width, o), x.dtype)
        per_out = o // self.groups
        for g in range(self.groups):
            xg = x[..., g * per_group : (g + 1) * per_group]
            outs = slice(g * per_out, (g + 1) * per_out)
            for a in range(kh):
                for b in range(kw):
                    top, left = a * self.dilations[0], b * self.dilations[1]
                    rows = slice(top, top + (h - 1) * self.strides[0] + 1, self.strides[0])
                    columns = slice(left, left + (width - 1) * self.strides[1] + 1, self.strides[1])
                    full[:, rows, columns, outs] += matmul(xg, w[outs, a, b].T)
        top, left, bottom, right = self.pads
        return np.ascontiguousarray(full[:, top : height - bottom, left : full_width - right])

    def quant_rule(self) -> QuantRule:
        """Weights per output channel, bias at the accumulator's scale."""
        return QuantRule(weight=1, weight_axis=0, bias=2)

    def accumulate(self, q: Lowering, node: Node) -> Value | None:
        """s32 transposed convolution of the quantized operands."""
        x, w = q.integer(node.input(0)), q.integer(node.input(1))
        bias = q.bias(node.operand("bias"), x, w)
        return q.emit(replace(self, x_zero_point=q.zero_point(x)), x, w, bias, name=node.name)

    def interval(self, sig: Signature, *operands: Interval | Array | None) -> Interval:
        """Bias plus the widest sum of any phase, each product joined with 0 for where its tap misses the image."""
        low, high, bias = self._phase_sums(*operands)
        return Interval(low.min(axis=0) + bias, high.max(axis=0) + bias)

    def partial_sum_bound(self, sig: Signature, *operands: Interval | Array | None) -> int:
        """|bias| plus the largest sum of positive or of negative products of any phase.

        As every product was joined with 0, all sums of negative parts and of positive parts only grow.
        """
        low, high, bias = self._phase_sums(*operands)
        return int((np.abs(bias) + np.maximum(-low, high).max(axis=0)).max())

    def _phase_sums(self, *operands: Interval | Array | None) -> tuple[Array, Array, Array]:
        """Bounds int64[phases, O] of the sums of products, and the bias int64[O].

        Tap (a, b) reaches rows congruent to a * dh - top modulo sh, and columns likewise: a result element
        receives taps of one residue pair, its phase. Absent phases have no tap: their sum, 0, is in all others.
        """
        x, w, bias = (*operands, None)[:3]
        assert isinstance(x, Interval)
        assert isinstance(w, np.ndarray)
        x = x.shifted(-self.x_zero_point)
        o, kh, kw, per_group = w.shape
        channel = (np.arange(o) // (o // self.groups))[:, None] * per_group + np.arange(per_group)
        bounds = [w.astype(np.int64) * bound[channel][:, None, None, :] for bound in (x.low, x.high)]
        low = np.minimum(np.minimum(*bounds), 0).sum(axis=3)  # [O, KH, KW]
        high = np.maximum(np.maximum(*bounds), 0).sum(axis=3)
        rows = np.arange(kh) * self.dilations[0] % self.strides[0]
        columns = np.arange(kw) * self.dilations[1] % self.strides[1]
        lows, highs = [], []
        for row in np.unique(rows):
            for column in np.unique(columns):
                phase = (rows == row)[:, None] & (columns == column)
                lows.append(low[:, phase].sum(axis=1))
                highs.append(high[:, phase].sum(axis=1))
        offset = np.zeros(o, np.int64) if bias is None else np.asarray(bias, np.int64)
        return np.stack(lows), np.stack(highs), offset

    def channel_map(self, sig: Signature) -> tuple[int, ...]:
        """A depthwise one keeps channels apart."""
        channels = (sig.operand(0).shape[-1], sig.result.shape[-1])
        return (0,) if self.groups > 1 and channels == (self.groups, self.groups) else ()

    def defines_channels(self, sig: Signature) -> bool:
        """One filter for each output channel."""
        return self.groups == 1

    def with_channels(self, count: int) -> Op:
        """A depthwise one has as many groups as channels."""
        return self if self.groups == 1 else replace(self, groups=count)

    def macs(self, sig: Signature) -> int:
        """Every weight meets every pixel of its group once."""
        n, h, w, _ = sig.operand(0).shape
        return n * h * w * sig.operand(1).elements

    @classmethod
    def cases(cls, rng: np.random.Generator) -> Iterable[Case]:
        """Plain, strided and cropped, stride beyond the kernel, dilated, grouped, depthwise, 1-D."""
        for op, x, w in (
            (cls(), (1, 3, 4, 3), (2, 2, 2, 3)),
            (cls((2, 2), (1, 1, 1, 1), (1, 1)), (1, 4, 3, 4), (5, 3, 3, 4)),
            (cls((3, 2), (0, 0, 1, 0)), (1, 3, 3, 2), (3, 2, 1, 2)),
            (cls((1, 2), (1, 0, 1, 2), (0, 0), (2, 1)), (1, 4, 4, 2), (3, 3, 3, 2)),
            (cls((2, 2), groups=2), (1, 3, 3, 4), (6, 2, 2, 2)),
            (cls((2, 1), (1, 1, 0, 1), groups=4), (1, 3, 5, 4), (4, 3, 3, 1)),
            (cls((1, 2), (0, 1, 0, 1)), (1, 1, 6, 3), (4, 1, 4, 3)),
        ):
            arrays = (rng.normal(size=x), rng.normal(size=w), rng.normal(size=w[0]))
            yield Case(op, tuple(a.astype(np.float32) for a in arrays), (False, True, True))


@onnx_importer("ConvTranspose")
def import_conv_transpose(node: OnnxNode) -> Value:
    """1-D or 2-D; auto_pad and output_shape become explicit pads and output_pads."""
    x, w, bias = node.input(0), node.array(1), node.optional(2)
    if w is None or w.ndim not in (3, 4):
        raise node.unsupported("only 1-D and 2-D transposed convolutions with constant weights are supported")
    spatial = w.ndim - 2
    image = to_image(node, x)
    groups = int(node.attrs.get("group", 1))
    strides, dilations = (pair(node.attrs.get(a, [1] * spatial)) for a in ("strides", "dilations"))
    output_pads = pair(node.attrs.get("output_padding", [0] * spatial), 0)
    w = w if spatial == 2 else w[:, :, None]
    c, per_out, kh, kw = w.shape
    grouped = w.reshape(groups, c // groups, per_out, kh, kw).transpose(0, 2, 3, 4, 1)
    weight = node.constant(
        np.ascontiguousarray(grouped.reshape(groups * per_out, kh, kw, c // groups), np.float32), "weight"
    )
    op = ConvTranspose2d(strides, (0, 0, 0, 0), output_pads, dilations, groups)
    mode = node.attrs.get("auto_pad", "NOTSET")
    if "output_shape" in node.attrs or mode in ("SAME_UPPER", "SAME_LOWER"):
        wanted = node.attrs.get("output_shape")
        size = image.type.shape[1:3]
        target = pair(wanted) if wanted else (size[0] * strides[0], size[1] * strides[1])
        op = _with_output(node, op, op.output_size(size[0], size[1], (kh, kw)), target, mode)
    elif mode == "NOTSET":
        op = replace(op, pads=four(node.attrs.get("pads", [0] * (2 * spatial))))
    return from_image(node, emit_biased(node, op, image, weight, bias), x.type.rank)


def _with_output(
    node: OnnxNode, op: ConvTranspose2d, full: tuple[int, int], target: tuple[int, int], mode: str
) -> ConvTranspose2d:
    """``op``, whose result is ``full``, with the pads that crop it to ``target``."""
    begins, ends = [], []
    for n, goal in zip(full, target, strict=True):
        if goal > n:
            raise node.unsupported(f"the output {target} is larger than what the input reaches, {full}")
        small, large = (n - goal) // 2, (n - goal + 1) // 2
        begins.append(small if mode == "SAME_UPPER" else large)
        ends.append(large if mode == "SAME_UPPER" else small)
    return replace(op, pads=(*pair(begins), *pair(ends)))
