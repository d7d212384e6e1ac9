"""Weights that are stored in fewer bits than they are computed with, and products that quantize at run time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from qcc.ir import exact
from qcc.ir.errors import VerifyError
from qcc.ir.op import Array, Case, Op, Signature, onnx_importer, register_op
from qcc.ir.types import DType, TensorType

if TYPE_CHECKING:
    from qcc.ir.graph import Value
    from qcc.ir.importing import OnnxNode

CODE_MAX = {"int8": 127, "int4": 7}
FORMATS = (*CODE_MAX, "fp16")
_DYNAMIC_DEPTH = (2**31 - 1) // (255 * 128)  # products of any codes whose sum int32 holds


@register_op
class StoredWeight(Op):
    """Constant codes as float32 weights; who reads them decodes them on the fly, so that only the codes take memory.

    ``format`` int8 or int4: w[o, k] = codes[o, k] * scale[o, k // group], one float32 product, where k runs over all axes
    but the first; codes s8, within [-7, 7] for int4; scale f32 [O, ceil(K / group)]; group 0 stands for all of K.
    fp16: codes s16 hold the bits of IEEE 754 binary16 numbers, all finite; no scale.
    """

    name = "stored_weight"
    operands = ("codes", "scale?")
    reads_codes = True
    format: str = "int8"
    group: int = 0

    def infer(self, *operands: TensorType | None) -> TensorType:
        """f32 of the shape of the codes."""
        codes, scale = (*operands, None)[:2]
        assert codes is not None
        if self.format not in FORMATS:
            raise VerifyError(f"{self.name}: unknown format {self.format!r}; known: {', '.join(FORMATS)}")
        dtype = DType.S16 if self.format == "fp16" else DType.S8
        if codes.dtype is not dtype or codes.rank < 2:
            raise VerifyError(f"{self.name}: codes of {self.format} are {dtype.value} [O, ...], got {codes}")
        if self.format == "fp16":
            if scale is not None or self.group:
                raise VerifyError(f"{self.name}: fp16 has neither scale nor group")
            return TensorType(DType.F32, codes.shape)
        wanted = (codes.shape[0], self.groups(codes.elements // codes.shape[0]))
        if scale is None or scale.dtype is not DType.F32 or scale.shape != wanted:
            raise VerifyError(f"{self.name}: the scale must be f32 {wanted}, got {scale}")
        return TensorType(DType.F32, codes.shape)

    def groups(self, depth: int) -> int:
        """Scales of a row of ``depth`` codes."""
        if self.group < 0:
            raise VerifyError(f"{self.name}: a group of {self.group} weights")
        return -(-depth // self.group) if self.group else 1

    def int_ref(self, sig: Signature, *operands: Array | None) -> Array:
        """float32 weights."""
        codes, scale = (*operands, None)[:2]
        assert codes is not None
        if self.format == "fp16":
            return np.ascontiguousarray(codes, np.int16).view(np.float16).astype(np.float32)
        assert scale is not None
        rows = codes.reshape(len(codes), -1).astype(np.float32)
        each = np.repeat(scale, self.group or rows.shape[1], axis=1)[:, : rows.shape[1]]
        return np.asarray(rows * each, np.float32).reshape(codes.shape)

    def batches(self, sig: Signature) -> bool:
        """It has no samples."""
        return False

    @classmethod
    def cases(cls, rng: np.random.Generator) -> Iterable[Case]:
        """None: its operands are codes, which the generic tests do not make."""
        return ()


@register_op
class DynamicDense(Op):
    """A dense layer that quantizes x as DynamicQuantizeLinear does, by the range of all of x, and multiplies integers.

    q = saturate(round_half_even(x / s) + zp) in u8, with s and zp of ``dynamic_range``;
    y[..., n] = float32(sum_k (q[..., k] - zp) * w[n, k]) * (s * scale[n]) + bias[n], each operation rounded to float32.
    w: s8 [N, K], scale: f32 [N]. The sum is exact: K is at most 65,793, so that 255 * 128 * K < 2^31, in any order.
    """

    name = "dynamic_dense"
    operands = ("x", "w", "scale", "bias?")
    reads_codes = True

    def infer(self, *operands: TensorType | None) -> TensorType:
        """f32 [..., N]."""
        x, w, scale, bias = (*operands, None)[:4]
        assert x is not None
        assert w is not None
        assert scale is not None
        if w.dtype is not DType.S8 or w.rank != 2 or x.rank < 1 or x.shape[-1] != w.shape[1]:
            raise VerifyError(f"{self.name}: x [..., K] and w s8 [N, K] are {x} and {w}")
        for what, operand in (("x", x), ("scale", scale), ("bias", bias)):
            if operand is None:
                continue
            if operand.dtype is not DType.F32 or (what != "x" and operand.shape != w.shape[:1]):
                raise VerifyError(f"{self.name}: {what} must be f32, of {w.shape[0]} channels, got {operand}")
        if w.shape[1] > _DYNAMIC_DEPTH:
            raise VerifyError(
                f"{self.name}: sums of {w.shape[1]} products may pass 32 bits; at most {_DYNAMIC_DEPTH} do not"
            )
        return TensorType(DType.F32, (*x.shape[:-1], w.shape[0]))

    def int_ref(self, sig: Signature, *operands: Array | None) -> Array:
        """float32, bit for bit what a kernel yields."""
        x, w, scale, bias = (*operands, None)[:4]
        assert x is not None
        assert w is not None
        assert scale is not None
        codes, s, zero_point = dynamic_quantize(x)
        acc = exact.matmul(codes.astype(np.int32) - zero_point, w.T)
        with np.errstate(over="ignore", invalid="ignore"):
            y = acc.astype(np.float32) * (s * scale)
            return y if bias is None else y + bias

    def batches(self, sig: Signature) -> bool:
        """The range is that of one sample."""
        return False

    def macs(self, sig: Signature) -> int:
        """Output elements times K."""
        return sig.result.elements * sig.operand(1).shape[1]

    @classmethod
    def cases(cls, rng: np.random.Generator) -> Iterable[Case]:
        """None: it has integer operands, which the generic tests do not make."""
        return ()


def dynamic_range(x: Array) -> tuple[np.float32, int]:
    """scale, zero_point for codes 0..255 of x, as onnxruntime has them; 1.0 and 0 where x is 0 everywhere.

    scale = (max(x, 0) - min(x, 0)) / 255, zero_point = saturate(round_half_even(-min / scale)): ONNX DynamicQuantizeLinear.
    NaN counts as 0, an infinity as the largest finite number, and a range is no wider than that.
    """
    largest = float(np.finfo(np.float32).max)
    finite = np.nan_to_num(x, nan=0.0, posinf=largest, neginf=-largest)
    low, high = np.float32(min(finite.min(), 0.0)), np.float32(max(finite.max(), 0.0))
    with np.errstate(over="ignore"):
        scale = np.float32(min(float(high - low), largest)) / np.float32(255)
    if scale == 0.0:
        return np.float32(1.0), 0
    return scale, int(np.clip(np.rint(-low / scale), 0, 255))


def dynamic_quantize(x: Array) -> tuple[NDArray[np.uint8], np.float32, int]:
    """Codes of x, their scale and zero_point."""
    scale, zero_point = dynamic_range(x)
    with np.errstate(over="ignore"):
        ratio = np.nan_to_num(np.rint(x / scale), nan=0.0)
    return np.clip(ratio + np.float32(zero_point), 0, 255).astype(np.uint8), scale, zero_point


@onnx_importer("com.microsoft.DynamicQuantizeMatMul")
def import_dynamic_matmul(node: OnnxNode) -> Value:
    """com.microsoft: A, B, b_scale, b_zero_point, bias; qcc writes MatMulInteger behind DynamicQuantizeLinear so, too."""
    weights, scale, zero_point = (node.array(i) for i in (1, 2, 3))
    if weights is None or scale is None or weights.ndim != 2:
        raise node.unsupported(
            "its weights must be a constant matrix [K, N] of integers, with a constant scale"
        )
    codes = weights.astype(np.int32) - (0 if zero_point is None else zero_point.astype(np.int32))
    if codes.min(initial=0) < -128 or codes.max(initial=0) > 127:
        raise node.unsupported(
            "its weights are asymmetric: minus the zero point they need more than 8 signed bits; "
            "quantize weights symmetrically (onnxruntime: weight_type=QInt8)"
        )
    scales = np.broadcast_to(scale.reshape(-1), codes.shape[1]).astype(np.float32)
    w = node.constant(np.ascontiguousarray(codes.T, np.int8), "codes")
    bias = node.array(4)
    row = None if bias is None else node.constant(bias.reshape(-1).astype(np.float32), "bias")
    return node.emit(DynamicDense(), node.input(0), w, node.constant(scales, "scale"), row)
