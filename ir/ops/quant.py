"""The ops of quantization itself: quantize, dequantize, requantize, table."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcc.ir import fixedpoint
from qcc.ir.errors import VerifyError
from qcc.ir.interval import Interval
from qcc.ir.op import Array, Case, Op, Signature, register_op
from qcc.ir.qparams import QParams
from qcc.ir.types import DType, TensorType


@register_op
class Quantize(Op):
    """f32 to an integer type: equation (2) of fixedpoint."""

    name = "quantize"
    operands = ("x",)
    chooses_qparams = True

    def infer(self, *operands: TensorType | None) -> TensorType:
        """Shape of x; dtype and qparams are those of the result."""
        x = _present(operands[0])
        if x.dtype is not DType.F32:
            raise VerifyError(f"quantize needs a float operand, got {x}")
        return TensorType(DType.S8, x.shape)

    def int_ref(self, sig: Signature, *operands: Array | None) -> Array:
        """fixedpoint.quantize."""
        assert sig.result.qparams is not None
        return fixedpoint.quantize(_array(operands[0]), sig.result.qparams)

    @classmethod
    def cases(cls, rng: np.random.Generator) -> Iterable[Case]:
        """One tensor."""
        yield Case(cls(), (rng.normal(size=(1, 3, 5)).astype(np.float32),))


@register_op
class Dequantize(Op):
    """Integer to f32: equation (1) of fixedpoint."""

    name = "dequantize"
    operands = ("x",)

    def infer(self, *operands: TensorType | None) -> TensorType:
        """f32 of the same shape."""
        x = _present(operands[0])
        if x.qparams is None or not x.dtype.is_integer:
            raise VerifyError(f"dequantize needs an integer operand with qparams, got {x}")
        return TensorType(DType.F32, x.shape)

    def int_ref(self, sig: Signature, *operands: Array | None) -> Array:
        """fixedpoint.dequantize."""
        return fixedpoint.dequantize(_array(operands[0]), sig.qparams(0))

    @classmethod
    def cases(cls, rng: np.random.Generator) -> Iterable[Case]:
        """Made by the generic tests from the cases of quantize."""
        return ()


@register_op
class Requantize(Op):
    """Accumulator (or activation at another scale) to 8 or 16 bits: equation (4) of fixedpoint, saturated to [low, high].

    ``multiplier``, ``shift``: s32[1] or s32[C], from the planner; absent, they follow from the scales.
    ``acc_min``, ``acc_max``: s32[C], s64[C] for an s64 accumulator: the proven interval of x, minus its zero_point.
    ``rounding``: one of fixedpoint.ROUNDINGS. ``certified``: names of the fast paths proved equal over that interval.
    ``accumulator_bits``: two's complement bits that hold every partial sum of x, in any order (0: not planned).
    """

    name = "requantize"
    operands = ("x", "multiplier?", "shift?", "acc_min?", "acc_max?")
    chooses_qparams = True
    low: int = -128
    high: int = 127
    rounding: str = "ties_up"
    certified: tuple[str, ...] = ()
    accumulator_bits: int = 0

    def infer(self, *operands: TensorType | None) -> TensorType:
        """Shape of x; dtype and qparams are those of the result."""
        x = _present(operands[0])
        if x.qparams is None:
            raise VerifyError(f"requantize needs an operand with qparams, got {x}")
        if x.qparams.axis not in (None, x.rank - 1):
            raise VerifyError(f"requantize: the per-channel axis must be the last one, got {x.qparams.axis}")
        if self.rounding not in fixedpoint.ROUNDINGS:
            known = ", ".join(fixedpoint.ROUNDINGS)
            raise VerifyError(f"requantize: unknown rounding {self.rounding!r}; known: {known}")
        return TensorType(DType.S8, x.shape)

    def multipliers(self, sig: Signature, *operands: Array | None) -> tuple[Array, Array]:
        """(multiplier, shift), each int64[1] or [C]: the planned ones, or those nearest to the real scale."""
        if len(operands) > 2 and operands[1] is not None and operands[2] is not None:
            return np.asarray(operands[1], np.int64), np.asarray(operands[2], np.int64)
        bits = UNPLANNED_WIDE_BITS if sig.operand(0).dtype is DType.S64 else 31
        pairs = [fixedpoint.quantize_multiplier(float(r), bits) for r in self.real_multipliers(sig)]
        return np.array([p[0] for p in pairs], np.int64), np.array([p[1] for p in pairs], np.int64)

    def real_multipliers(self, sig: Signature) -> NDArray[np.float64]:
        """float64[1] or [C]: the scale of x over that of the result, as far as multiplier and shift reach.

        What lies beyond yields the same integers at the limit: up to 2^-32 all of 32 bits rounds to 0, from 2^17 on
        all but 0 saturates.
        """
        assert sig.result.qparams is not None
        real = np.asarray(sig.qparams(0).scale, np.float64) / sig.result.qparams.scale[0]
        return np.clip(real, 2.0**-32, 2.0**29)

    def int_ref(self, sig: Signature, *operands: Array | None) -> Array:
        """fixedpoint.requantize."""
        multiplier, shift = self.multipliers(sig, *operands)
        acc = _array(operands[0])
        zero_point = sig.qparams(0).zero_point
        if zero_point:
            acc = acc.astype(np.int64) - zero_point
        assert sig.result.qparams is not None
        return fixedpoint.requantize(
            acc,
            multiplier,
            shift,
            sig.result.qparams.zero_point,
            self.low,
            self.high,
            _RESULT[sig.result.dtype],
            self.rounding,
        )

    def interval(self, sig: Signature, *operands: Interval | Array | None) -> Interval:
        """Monotone in x: the images of the ends."""
        x = operands[0]
        assert isinstance(x, Interval)
        rest = tuple(o for o in operands[1:] if not isinstance(o, Interval))
        low, high = (self.int_ref(sig, bound, *rest).astype(np.int64) for bound in (x.low, x.high))
        return Interval(low, high)

    def channel_map(self, sig: Signature) -> tuple[int, ...]:
        """Channel by channel."""
        return (0,)

    @classmethod
    def cases(cls, rng: np.random.Generator) -> Iterable[Case]:
        """Made by the generic tests of accumulating ops; its own tests use exact big integers."""
        return ()


@register_op
class Table(Op):
    """y = table[x + 128]: any unary function of 8 bits, exact everywhere. ``table``: [256] or [C, 256] of s8 or s16."""

    name = "table"
    operands = ("x", "table")
    chooses_qparams = True

    def infer(self, *operands: TensorType | None) -> TensorType:
        """The type of the table's entries, in the shape of x."""
        x, table = _present(operands[0]), _present(operands[1])
        if x.dtype is not DType.S8 or table.dtype not in (DType.S8, DType.S16):
            raise VerifyError(f"table needs an s8 operand and entries of s8 or s16, got {x} and {table}")
        if table.shape not in ((256,), (*x.shape[-1:], 256)):
            raise VerifyError(f"table: shape must be (256,) or ({x.shape[-1:]}, 256), got {table.shape}")
        return TensorType(table.dtype, x.shape)

    def int_ref(self, sig: Signature, *operands: Array | None) -> Array:
        """Look-up, per channel of the last axis where the table has channels."""
        x, table = _array(operands[0]), _array(operands[1])
        index = x.astype(np.int64) + 128
        return table[index] if table.ndim == 1 else table[np.arange(x.shape[-1]), index]

    def interval(self, sig: Signature, *operands: Interval | Array | None) -> Interval:
        """Extremes of the entries that can be reached."""
        x, table = operands[0], operands[1]
        assert isinstance(x, Interval)
        assert isinstance(table, np.ndarray)
        rows = np.broadcast_to(table, (x.channels, 256)).astype(np.int64)
        reached = [row[lo + 128 : hi + 129] for row, lo, hi in zip(rows, x.low, x.high, strict=True)]
        return Interval(np.array([r.min() for r in reached]), np.array([r.max() for r in reached]))

    def channel_map(self, sig: Signature) -> tuple[int, ...]:
        """Channel by channel."""
        return (0,)

    def constant_channel_axis(self, sig: Signature, index: int) -> int | None:
        """Rows of a per-channel table; a table for all channels has no such axis."""
        return 0 if sig.operand(index).rank == 2 else None

    @classmethod
    def cases(cls, rng: np.random.Generator) -> Iterable[Case]:
        """Made by the generic tests of unary ops."""
        return ()


UNPLANNED_WIDE_BITS = (
    23  # of a multiplier before s64 sums, which stay under 2^39: 2^16 products of 16 and 8 bits
)
_RESULT: dict[DType, type[np.signedinteger[Any]]] = {DType.S8: np.int8, DType.S16: np.int16}


def _present(type_: TensorType | None) -> TensorType:
    assert type_ is not None
    return type_


def _array(array: Array | None) -> Array:
    assert array is not None
    return array


def wide_softmax_qparams() -> QParams:
    """[0, 1) in steps of 2^-15: what an integer softmax yields in 16 bits."""
    return QParams.per_tensor(2.0**-15, 0, "s16")


def softmax_qparams() -> QParams:
    """[0, 1) in steps of 1/256: what an integer softmax yields."""
    return QParams.per_tensor(1 / 256, -128)
