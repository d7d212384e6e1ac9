"""Pooling, channels last: x [N, H, W, C]. A 1-D one has H = KH = 1. ``pads`` are top, left, bottom, right."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from math import lcm
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qcc.ir.errors import VerifyError
from qcc.ir.interval import Interval
from qcc.ir.op import Array, Case, Op, Signature, onnx_importer, register_op
from qcc.ir.ops.shape import Movement, as_interval
from qcc.ir.ops.spatial import four, from_image, pair, to_image
from qcc.ir.qparams import QParams
from qcc.ir.types import TensorType, sum_dtype
from qcc.ir.window import auto_pads, pad_for_windows, tap_counts, taps, window_output

if TYPE_CHECKING:
    from qcc.ir.graph import Node, Value
    from qcc.ir.importing import OnnxNode
    from qcc.ir.lowering import Lowering

_LOWEST = float(np.finfo(np.float32).min)
DIVISOR_MAX = 2**15  # 8-bit operands times this stay far from 2^31


class Pool(Op):
    """Base: the windows. Subclasses declare the attributes, as a dataclass does not take them from a plain base."""

    operands = ("x",)
    kernel: tuple[int, int]
    strides: tuple[int, int]
    pads: tuple[int, int, int, int]
    dilations: tuple[int, int]
    ceil_mode: bool

    def output_size(self, h: int, w: int) -> tuple[int, int]:
        """OH, OW for an image of [h, w]. Raises VerifyError when no window fits."""
        return window_output((h, w), self.kernel, self.strides, self.pads, self.dilations, self.ceil_mode)

    def counts(self, h: int, w: int, *, include_pad: bool) -> NDArray[np.int64]:
        """int64[OH, OW]: the taps of each window on the image, or on the image and its explicit padding.

        What a ceil-mode window covers beyond the padding counts in neither case.
        """
        out, per_axis = self.output_size(h, w), []
        for axis, size in enumerate((h, w)):
            begin, end = (self.pads[axis], self.pads[axis + 2]) if include_pad else (0, 0)
            per_axis.append(
                tap_counts(
                    (-begin, size + end),
                    out[axis],
                    self.kernel[axis],
                    self.strides[axis],
                    self.pads[axis],
                    self.dilations[axis],
                )
            )
        return per_axis[0][:, None] * per_axis[1]

    def channel_map(self, sig: Signature) -> tuple[int, ...]:
        """Each channel is pooled by itself."""
        return (0,)

    def _image_type(self, x: TensorType | None) -> TensorType:
        """``x`` with the pooled shape; VerifyError for a wrong rank."""
        assert x is not None
        if x.rank != 4:
            raise VerifyError(f"{self.name} needs an operand of rank 4, got {x}")
        n, h, w, c = x.shape
        return x.with_shape((n, *self.output_size(h, w), c))

    def _taps(self, x: Array, value: float) -> Iterable[Array]:
        """The operand of each kernel position, [N, OH, OW, C], with ``value`` outside the image."""
        out = self.output_size(*x.shape[1:3])
        padded = pad_for_windows(x, out, self.kernel, self.strides, self.pads, self.dilations, value)
        return (tap for _, tap in taps(padded, self.kernel, self.strides, self.dilations))


@register_op
class MaxPool2d(Pool, Movement):
    """Largest element of each window; padding never wins. Every window must hold an element of the image."""

    name = "max_pool2d"
    kernel: tuple[int, int] = (2, 2)
    strides: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilations: tuple[int, int] = (1, 1)
    ceil_mode: bool = False

    def infer(self, *operands: TensorType | None) -> TensorType:
        """[N, OH, OW, C]."""
        (x,) = operands
        result = self._image_type(x)
        assert x is not None
        if self.counts(*x.shape[1:3], include_pad=False).min() < 1:
            raise VerifyError(f"max_pool2d: a window of {self.kernel} holds nothing but padding of {x}")
        return result

    def float_ref(self, *operands: Array | None) -> Array:
        """Maximum over the taps; the padding is minus infinity."""
        (x,) = operands
        assert x is not None
        return self._maximum(x, float("-inf"))

    def int_ref(self, sig: Signature, *operands: Array | None) -> Array:
        """The same with the smallest integer as padding."""
        (x,) = operands
        assert x is not None
        return self._maximum(x, sig.result.dtype.min)

    def _maximum(self, x: Array, padding: float) -> Array:
        result: Any = None
        for tap in self._taps(x, padding):
            result = tap if result is None else np.maximum(result, tap)
        return np.ascontiguousarray(result)

    def with_padding(self, pads: tuple[int, int, int, int], value: float) -> Op | None:
        """What is below every float joins the pool's own padding, if each window still holds an element."""
        top, left, bottom, right = (own + more for own, more in zip(self.pads, pads, strict=True))
        high, wide = max(top, bottom) < self.kernel[0], max(left, right) < self.kernel[1]
        if value > _LOWEST or self.ceil_mode or self.dilations != (1, 1) or not (high and wide):
            return None
        return replace(self, pads=(top, left, bottom, right))

    def interval(self, sig: Signature, *operands: Interval | Array | None) -> Interval:
        """That of the operand."""
        return as_interval(operands[0])

    @classmethod
    def cases(cls, rng: np.random.Generator) -> Iterable[Case]:
        """Plain, strided and padded, dilated, ceil mode, 1-D."""
        for op in (
            cls(),
            cls((3, 3), (2, 2), (1, 1, 1, 1)),
            cls((2, 3), (1, 2), (0, 1, 1, 1), (2, 1)),
            cls((3, 2), (2, 2), (1, 0, 1, 0), (1, 1), True),
        ):
            yield Case(op, (rng.normal(size=(1, 6, 7, 3)).astype(np.float32),))
        yield Case(cls((1, 3), (1, 2), (0, 1, 0, 1)), (rng.normal(size=(1, 1, 9, 2)).astype(np.float32),))


@register_op
class AvgPool2d(Pool):
    """Sum of each window divided by its count: the taps on the image, or also those on ``pads``.

    Integer form: acc = factor * sum (x - x_zero_point) at scale s_x / divisor, where the divisor is the least
    common multiple of all counts and the factor of a window is divisor / count. Padding adds nothing.
    """

    name = "avg_pool2d"
    accumulates = True
    wide_operands = True
    kernel: tuple[int, int] = (2, 2)
    strides: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilations: tuple[int, int] = (1, 1)
    ceil_mode: bool = False
    count_include_pad: bool = False

    def divisor(self, h: int, w: int) -> int:
        """Least common multiple of the counts of all windows over an image of [h, w]."""
        return lcm(*(int(c) for c in np.unique(self._divisors(h, w))))

    def factors(self, h: int, w: int) -> NDArray[np.int64]:
        """int64[OH, OW]: divisor / count of each window."""
        return self.divisor(h, w) // self._divisors(h, w)

    def _divisors(self, h: int, w: int) -> NDArray[np.int64]:
        return self.counts(h, w, include_pad=self.count_include_pad)

    def infer(self, *operands: TensorType | None) -> TensorType:
        """[N, OH, OW, C]; s32 at scale s_x / divisor for integers."""
        (x,) = operands
        result = self._image_type(x).with_qparams(None)
        assert x is not None
        if self._divisors(*x.shape[1:3]).min() < 1:
            raise VerifyError(f"avg_pool2d: a window of {self.kernel} holds nothing but padding of {x}")
        if not x.dtype.is_integer:
            return result
        if x.qparams is None or x.qparams.axis is not None:
            raise VerifyError(f"avg_pool2d needs an operand with per-tensor qparams, got {x}")
        scale = x.qparams.scale[0] / self.divisor(*x.shape[1:3])
        dtype = sum_dtype(x)
        return TensorType(dtype, result.shape, QParams.per_tensor(scale, 0, dtype.value))

    def float_ref(self, *operands: Array | None) -> Array:
        """Sum in float64, then the division."""
        (x,) = operands
        assert x is not None
        total = self._sum(x.astype(np.float64))
        return np.asarray(total / self._divisors(*x.shape[1:3])[..., None], np.float32)

    def int_ref(self, sig: Signature, *operands: Array | None) -> Array:
        """Exact accumulator, int64."""
        (x,) = operands
        assert x is not None
        total = self._sum(x.astype(np.int64) - sig.qparams(0).zero_point)
        return total * self.factors(*x.shape[1:3])[..., None]

    def _sum(self, x: Array) -> Array:
        total: Any = 0
        for tap in self._taps(x, 0):
            total = total + tap
        return np.asarray(total)

    def with_padding(self, pads: tuple[int, int, int, int], value: float) -> Op | None:
        """Zeros join the pool's own padding if all of it counts; ceil mode would place other windows."""
        if value != 0 or self.ceil_mode or (any(self.pads) and not self.count_include_pad):
            return None
        top, left, bottom, right = (own + more for own, more in zip(self.pads, pads, strict=True))
        return replace(self, pads=(top, left, bottom, right), count_include_pad=True)

    def accumulate(self, q: Lowering, node: Node) -> Value | None:
        """The sum, unless the divisor is so large that the pool is better left in float."""
        if self.divisor(*node.input(0).type.shape[1:3]) > DIVISOR_MAX:
            return None
        return q.emit(self, q.integer(node.input(0)), name=node.name)

    def interval(self, sig: Signature, *operands: Interval | Array | None) -> Interval:
        """A window adds up n elements of the image, each times its factor: n * factor times the operand.

        It is also the bound of any partial sum, as n * factor counts up from 0.
        """
        h, w = sig.operand(0).shape[1:3]
        weights = self.counts(h, w, include_pad=False) * self.factors(h, w)
        x = as_interval(operands[0]).shifted(-sig.qparams(0).zero_point)
        return x.scaled(int(weights.min())).join(x.scaled(int(weights.max())))

    @classmethod
    def cases(cls, rng: np.random.Generator) -> Iterable[Case]:
        """Plain, padded without and with the padding counted, ceil mode, dilated, 1-D."""
        for op in (
            cls(),
            cls((3, 3), (2, 2), (1, 1, 1, 1)),
            cls((3, 3), (1, 1), (1, 1, 1, 1), count_include_pad=True),
            cls((3, 2), (2, 2), (1, 0, 1, 0), ceil_mode=True),
            cls((3, 3), (2, 3), (1, 1, 1, 1), ceil_mode=True, count_include_pad=True),
            cls((2, 2), (1, 2), (1, 0, 0, 1), (2, 3)),
        ):
            yield Case(op, (rng.normal(size=(1, 6, 7, 3)).astype(np.float32),))
        yield Case(cls((1, 3), (1, 2), (0, 1, 0, 1)), (rng.normal(size=(1, 1, 9, 2)).astype(np.float32),))


@onnx_importer("MaxPool", "AveragePool")
def import_pool(node: OnnxNode) -> Value:
    """MaxPool without Indices and AveragePool, 1-D or 2-D, all attributes."""
    x = node.input(0)
    if node.outputs > 1:
        raise node.unsupported("the output Indices is not supported")
    image = to_image(node, x)
    kernel = [int(k) for k in node.attrs["kernel_shape"]]
    strides = [int(s) for s in node.attrs.get("strides", [1] * len(kernel))]
    dilations = [int(d) for d in node.attrs.get("dilations", [1] * len(kernel))]
    pads = four(auto_pads(node, x.type.shape[2:], kernel, strides, dilations))
    windows = (pair(kernel), pair(strides), pads, pair(dilations), bool(node.attrs.get("ceil_mode", 0)))
    op: Op
    if node.op_type == "MaxPool":
        op = MaxPool2d(*windows)
    else:
        op = AvgPool2d(*windows, count_include_pad=bool(node.attrs.get("count_include_pad", 0)))
    return from_image(node, node.emit(op, image), x.type.rank)
