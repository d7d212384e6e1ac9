"""Resizing of images, channels last: x [N, H, W, C] to [N, OH, OW, C], each axis on its own.

Positions follow the ONNX operator Resize (https://onnx.ai/onnx/operators/onnx__Resize.html) and are computed in
float32 as onnxruntime does, since a tie in float64 may not be one there.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qcc.ir.errors import VerifyError
from qcc.ir.interval import Interval
from qcc.ir.op import Array, Case, Op, Signature, onnx_importer, register_op
from qcc.ir.ops.shape import Movement, as_interval, axis_index
from qcc.ir.ops.spatial import from_image, pair, to_image
from qcc.ir.qparams import QParams
from qcc.ir.types import DType, TensorType

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qcc.ir.graph import Node, Value
    from qcc.ir.importing import OnnxNode
    from qcc.ir.lowering import Lowering

TIE = 1e-6  # positions this near to the middle of two elements count as the middle: a scale is rarely exact
WEIGHT_BITS = 7  # per axis; two axes and 8-bit operands stay under 2^23

COORDINATES = (
    "half_pixel",
    "half_pixel_symmetric",
    "pytorch_half_pixel",
    "asymmetric",
    "align_corners",
    "tf_half_pixel_for_nn",
)
# "simple" is what came before opset 11: floor, or ceil where the axis shrinks
NEAREST_MODES = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil", "simple")


def positions(size: int, out: int, scale: float, coordinates: str) -> NDArray[np.float32]:
    """float32[out]: where each result element lies on an axis of ``size`` elements; it may lie outside."""
    i, s, one, half = np.arange(out, dtype=np.float32), np.float32(scale), np.float32(1), np.float32(0.5)
    n, m = np.float32(size), np.float32(out)
    if scale == 1 or coordinates == "asymmetric":
        return i / s
    if coordinates == "align_corners":
        return i * (n - one) / (m - one) if out > 1 else np.zeros(1, np.float32)
    if coordinates == "tf_half_pixel_for_nn":
        return (i + half) / s
    if coordinates == "pytorch_half_pixel" and out == 1:
        return np.zeros(1, np.float32)
    if coordinates == "half_pixel_symmetric":
        offset = n / 2 * (one - m / (s * n))
        wide = i.astype(np.float64)  # the sum alone is not rounded to float32 on the way
        return np.asarray(offset + (wide + 0.5) / s - 0.5, np.float32)
    return (i + half) / s - half


def nearest_indices(
    size: int, out: int, scale: float, coordinates: str, nearest_mode: str
) -> NDArray[np.int64]:
    """int64[out]: the operand's element that becomes each element of the result."""
    p = positions(size, out, scale, coordinates)
    if nearest_mode == "simple":
        nearest_mode = "ceil" if scale < 1 else "floor"
    if nearest_mode == "floor":
        index = np.floor(p)
    elif nearest_mode == "ceil":
        index = np.ceil(p)
    else:
        index = np.floor(p + np.float32(0.5))
        tie = np.abs(p - np.floor(p) - np.float32(0.5)) <= np.float32(TIE)
        index = np.where(tie, np.floor(p) if nearest_mode == "round_prefer_floor" else np.ceil(p), index)
    return np.clip(index, 0, size - 1).astype(np.int64)


def linear_taps(
    size: int, out: int, scale: float, coordinates: str
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """(i0, i1, weight), each [out]: element = (1 - weight) * x[i0] + weight * x[i1], with 0 <= weight <= 1."""
    p = np.clip(positions(size, out, scale, coordinates), np.float32(0), np.float32(size - 1))
    i0 = np.floor(p).astype(np.int64)
    return i0, np.minimum(i0 + 1, size - 1), p.astype(np.float64) - i0


@register_op
class ResizeNearest(Movement):
    """Each element is the nearest one of the operand, by ``coordinates`` and ``nearest_mode``.

    ``out_size``: OH, OW; ``scales``: what the positions are divided by, OH / H and OW / W or near them.
    """

    name = "resize_nearest"
    out_size: tuple[int, int] = (1, 1)
    scales: tuple[float, float] = (1.0, 1.0)
    coordinates: str = "half_pixel"
    nearest_mode: str = "round_prefer_floor"

    def infer(self, *operands: TensorType | None) -> TensorType:
        """[N, OH, OW, C]."""
        if self.nearest_mode not in NEAREST_MODES:
            raise VerifyError(
                f"{self.name}: unknown nearest_mode {self.nearest_mode!r}; known: {NEAREST_MODES}"
            )
        return _resized(self, operands[0])

    def indices(self, h: int, w: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The rows int64[OH] and columns int64[OW] taken from an image of [h, w]."""
        rows, columns = (
            nearest_indices(size, out, scale, self.coordinates, self.nearest_mode)
            for size, out, scale in zip((h, w), self.out_size, self.scales, strict=True)
        )
        return rows, columns

    def float_ref(self, *operands: Array | None) -> Array:
        """Rows, then columns."""
        (x,) = operands
        assert x is not None
        rows, columns = self.indices(*x.shape[1:3])
        return x.take(rows, axis=1).take(columns, axis=2)

    def channel_map(self, sig: Signature) -> tuple[int, ...]:
        """Each channel is resized by itself."""
        return (0,)

    def interval(self, sig: Signature, *operands: Interval | Array | None) -> Interval:
        """That of the operand."""
        return as_interval(operands[0])

    @classmethod
    def cases(cls, rng: np.random.Generator) -> Iterable[Case]:
        """Twice as large, smaller, uneven, 1-D."""
        x = rng.normal(size=(1, 4, 5, 3)).astype(np.float32)
        yield Case(cls((8, 10), (2.0, 2.0), "asymmetric", "floor"), (x,))
        yield Case(cls((2, 3), (0.5, 0.6), "half_pixel", "round_prefer_ceil"), (x,))
        yield Case(cls((7, 9), (1.75, 1.8), "align_corners"), (x,))
        yield Case(cls((1, 10), (1.0, 2.0)), (rng.normal(size=(1, 1, 5, 2)).astype(np.float32),))


@register_op
class ResizeLinear(Op):
    """Bilinear: linear along H and along W between the two elements around each position.

    Integer form: weights in units of 2^-7 per axis, each pair adding up to 128, so acc = sum wh * ww * (x -
    x_zero_point) at scale s_x / 2^14. A rounded weight is off by at most 2^-8, which moves the result by at most
    2^-8 of the difference of the two elements: less than 2 steps of x for both axes. Scales that are powers of two
    up to 64 lose nothing.
    """

    name = "resize_linear"
    operands = ("x",)
    accumulates = True
    wide_operands = True
    out_size: tuple[int, int] = (1, 1)
    scales: tuple[float, float] = (1.0, 1.0)
    coordinates: str = "half_pixel"

    def infer(self, *operands: TensorType | None) -> TensorType:
        """[N, OH, OW, C]; s32 at scale s_x / 2^14 for integers."""
        result = _resized(self, operands[0])
        if not result.dtype.is_integer:
            return result.with_qparams(None)
        if result.qparams is None or result.qparams.axis is not None:
            raise VerifyError(f"resize_linear needs an operand with per-tensor qparams, got {operands[0]}")
        scale = result.qparams.scale[0] / 4**WEIGHT_BITS
        return TensorType(DType.S32, result.shape, QParams.per_tensor(scale, 0, "s32"))

    def taps(self, h: int, w: int) -> list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]]:
        """``linear_taps`` of rows and of columns."""
        return [
            linear_taps(size, out, scale, self.coordinates)
            for size, out, scale in zip((h, w), self.out_size, self.scales, strict=True)
        ]

    def integer_taps(
        self, h: int, w: int
    ) -> list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]]:
        """``taps`` with weights int64 in 0..128."""
        return [(i0, i1, np.rint(u * 2**WEIGHT_BITS).astype(np.int64)) for i0, i1, u in self.taps(h, w)]

    def float_ref(self, *operands: Array | None) -> Array:
        """In float64."""
        (x,) = operands
        assert x is not None
        return _interpolate(x.astype(np.float64), self.taps(*x.shape[1:3]), 1).astype(np.float32)

    def int_ref(self, sig: Signature, *operands: Array | None) -> Array:
        """Exact accumulator, int64."""
        (x,) = operands
        assert x is not None
        centred = x.astype(np.int64) - sig.qparams(0).zero_point
        return _interpolate(centred, self.integer_taps(*x.shape[1:3]), 2**WEIGHT_BITS)

    def accumulate(self, q: Lowering, node: Node) -> Value | None:
        """The weighted sum."""
        return q.emit(self, q.integer(node.input(0)), name=node.name)

    def channel_map(self, sig: Signature) -> tuple[int, ...]:
        """Each channel is resized by itself."""
        return (0,)

    def interval(self, sig: Signature, *operands: Interval | Array | None) -> Interval:
        """The weights are not negative and add up to 2^14."""
        x = as_interval(operands[0])
        return x.shifted(-sig.qparams(0).zero_point).scaled(4**WEIGHT_BITS)

    @classmethod
    def cases(cls, rng: np.random.Generator) -> Iterable[Case]:
        """Twice as large, uneven, smaller, 1-D."""
        x = rng.normal(size=(1, 4, 5, 3)).astype(np.float32)
        yield Case(cls((8, 10), (2.0, 2.0)), (x,))
        yield Case(cls((7, 9), (1.75, 1.8), "align_corners"), (x,))
        yield Case(cls((2, 3), (0.5, 0.6), "asymmetric"), (x,))
        yield Case(cls((1, 12), (1.0, 2.4)), (rng.normal(size=(1, 1, 5, 2)).astype(np.float32),))


def _resized(op: ResizeNearest | ResizeLinear, x: TensorType | None) -> TensorType:
    assert x is not None
    if op.coordinates not in COORDINATES:
        raise VerifyError(
            f"{op.name}: unknown coordinates {op.coordinates!r}; known: {', '.join(COORDINATES)}"
        )
    if x.rank != 4 or min(op.out_size) < 1 or min(op.scales) <= 0:
        raise VerifyError(f"{op.name}: {x} cannot be resized to {op.out_size} by {op.scales}")
    return x.with_shape((x.shape[0], *op.out_size, x.shape[3]))


def _interpolate(x: Array, taps: Sequence[tuple[Array, Array, Array]], one: int) -> Array:
    """``x`` interpolated along axes 1 and 2; the weights of a pair add up to ``one``."""
    for axis, (i0, i1, weight) in enumerate(taps, start=1):
        u: Array = weight.reshape(-1, *[1] * (3 - axis))
        x = x.take(i0, axis=axis) * (one - u) + x.take(i1, axis=axis) * u
    return x


@onnx_importer("Resize")
def import_resize(node: OnnxNode) -> Value:
    """Nearest and linear over spatial axes, by constant scales or sizes (opset 10 and later)."""
    attrs = node.attrs
    # opset 10 had neither the inputs roi and sizes nor the attributes about positions
    scales, sizes = (node.array(2), node.array(3)) if node.opset >= 11 else (node.array(1), None)
    coordinates = attrs.get("coordinate_transformation_mode", "half_pixel")
    nearest_mode = attrs.get("nearest_mode", "round_prefer_floor")
    if node.opset < 11:
        coordinates, nearest_mode = "asymmetric", "simple"
    if coordinates not in COORDINATES:
        raise node.unsupported(f"coordinate_transformation_mode {coordinates} is not supported")
    if attrs.get("antialias", 0) or attrs.get("exclude_outside", 0):
        raise node.unsupported("antialias and exclude_outside are not supported")
    if attrs.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise node.unsupported("only keep_aspect_ratio_policy stretch is supported")
    return _import(node, scales, sizes, coordinates, nearest_mode)


@onnx_importer("Upsample")
def import_upsample(node: OnnxNode) -> Value:
    """The forerunner of Resize: scales as an attribute (opset 7) or an input (9)."""
    scales = np.asarray(node.attrs["scales"], np.float32) if "scales" in node.attrs else node.array(1)
    return _import(node, scales, None, "asymmetric", "simple")


def _import(
    node: OnnxNode,
    scales: NDArray[Any] | None,
    sizes: NDArray[Any] | None,
    coordinates: str,
    nearest_mode: str,
) -> Value:
    x = node.input(0)
    shape = np.asarray(x.type.shape)
    axes = [axis_index(node, int(a), x.type.rank) for a in node.attrs.get("axes", range(x.type.rank))]
    all_scales: Array = np.ones(x.type.rank, np.float32)
    out = shape.copy()
    if sizes is not None and sizes.size == len(axes):
        out[axes] = sizes
        all_scales = (out.astype(np.float32) / shape.astype(np.float32)).astype(np.float32)
    elif scales is not None and scales.size == len(axes):
        all_scales[axes] = scales
        out = np.floor(all_scales * shape.astype(np.float32)).astype(np.int64)
    else:
        raise node.unsupported(f"scales or sizes must be given for each of axes {axes}")
    if (out == shape).all():
        return x  # onnxruntime does no more either, whatever the scales
    if (all_scales[:2] != 1).any():
        raise node.unsupported(f"only spatial axes can be resized, got scales {all_scales.tolist()}")
    mode = node.attrs.get("mode", "nearest")
    image = to_image(node, x)
    factors = [float(s) for s in all_scales[2:]]
    size, scale = pair([int(n) for n in out[2:]]), ((1.0, *factors)[-2], factors[-1])
    op: Op
    if mode == "nearest":
        op = ResizeNearest(size, scale, coordinates, nearest_mode)
    elif mode in ("linear", "bilinear"):
        op = ResizeLinear(size, scale, coordinates)
    else:
        raise node.unsupported(f"mode {mode} is not supported; supported: nearest, linear")
    return from_image(node, node.emit(op, image), x.type.rank)
