"""Element types and tensor types."""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from math import prod

import numpy as np
from numpy.typing import DTypeLike

from qcc.ir.errors import VerifyError
from qcc.ir.qparams import INTEGER_RANGE, QParams


class DType(enum.Enum):
    """Element type of a tensor; the value is its spelling in the textual IR."""

    F32 = "f32"
    S8 = "s8"
    U8 = "u8"
    S16 = "s16"
    S32 = "s32"
    S64 = "s64"

    @property
    def numpy(self) -> np.dtype[np.generic]:
        """The numpy dtype of the elements."""
        return np.dtype(_NUMPY[self])

    @property
    def bytes(self) -> int:
        """Bytes of one element."""
        return int(self.numpy.itemsize)

    @property
    def is_integer(self) -> bool:
        """True for all but f32."""
        return self is not DType.F32

    @property
    def is_accumulator(self) -> bool:
        """True for the types of sums of products: s32, and s64 where an operand has 16 bits."""
        return self in (DType.S32, DType.S64)

    @property
    def min(self) -> int:
        """Smallest value of an integer type."""
        return INTEGER_RANGE[self.value][0]

    @property
    def max(self) -> int:
        """Largest value of an integer type."""
        return INTEGER_RANGE[self.value][1]

    @staticmethod
    def of(dtype: DTypeLike) -> DType:
        """The DType of a numpy dtype; KeyError if the IR has none."""
        return _FROM_NUMPY[np.dtype(dtype)]


_NUMPY: dict[DType, type[np.generic]] = {
    DType.F32: np.float32,
    DType.S8: np.int8,
    DType.U8: np.uint8,
    DType.S16: np.int16,
    DType.S32: np.int32,
    DType.S64: np.int64,
}
_FROM_NUMPY = {np.dtype(v): k for k, v in _NUMPY.items()}


@dataclass(frozen=True)
class TensorType:
    """dtype, static shape and, for quantized or annotated tensors, qparams.

    An integer tensor with qparams means real = scale * (q - zero_point). An f32 tensor with qparams is
    *annotated*: its fake-quant meaning rounds it to the grid of those qparams.
    """

    dtype: DType
    shape: tuple[int, ...]
    qparams: QParams | None = None

    @property
    def rank(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    @property
    def elements(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def bytes(self) -> int:
        """Bytes of the whole tensor."""
        return self.elements * self.dtype.bytes

    def with_shape(self, shape: tuple[int, ...]) -> TensorType:
        """The same type with another shape."""
        return replace(self, shape=tuple(int(d) for d in shape))

    def with_qparams(self, qparams: QParams | None) -> TensorType:
        """The same type with other qparams."""
        return replace(self, qparams=qparams)

    def __str__(self) -> str:
        dims = "x".join(map(str, self.shape)) or "scalar"
        text = f"{self.dtype.value}<{dims}>"
        return f"{text} {self.qparams}" if self.qparams else text


def f32(*shape: int) -> TensorType:
    """Shorthand for a float tensor type."""
    return TensorType(DType.F32, tuple(shape))


def sum_dtype(*operands: TensorType | None) -> DType:
    """What holds a sum of such operands, or of their products with 8 bits: s64 where one has 16 bits or more sums in it."""
    wide = any(t is not None and t.dtype in (DType.S16, DType.S64) for t in operands)
    return DType.S64 if wide else DType.S32


def product_qparams(x: TensorType, w: TensorType, axis: int) -> QParams:
    """qparams of a sum of products x * w: scale s_x * s_w, along ``axis`` when w is per channel."""
    if x.qparams is None or w.qparams is None or x.qparams.axis is not None:
        raise VerifyError(
            f"a product of {x} and {w} needs per-tensor qparams on the first and qparams on the second"
        )
    s_x, dtype = x.qparams.scale[0], sum_dtype(x, w).value
    if w.qparams.axis is None:
        return QParams.per_tensor(s_x * w.qparams.scale[0], 0, dtype)
    return QParams.per_channel(np.asarray(w.qparams.scale) * s_x, axis, dtype)
