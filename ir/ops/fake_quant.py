"""The codes that a model was trained or calibrated with, as a float op: what a QuantizeLinear-DequantizeLinear pair is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from qcc.ir import fixedpoint
from qcc.ir.op import Array, Case, Op, register_op
from qcc.ir.qparams import QParams
from qcc.ir.types import TensorType

if TYPE_CHECKING:
    from qcc.ir.graph import Value


@register_op
class FakeQuant(Op):
    """scale * (saturate(round_half_even(x / scale) + zero_point, low, high) - zero_point), per tensor.

    The pass adopt-qparams takes it away and fixes its qparams on a value. One that stays, between two values that have
    their own codes, is a table. ``given``: "s8" or "u8" where the operand is a graph input that the model takes as
    codes of that type; those of u8 are held minus 128.
    """

    name = "fake_quant"
    operands = ("x",)
    elementwise = True
    scale: float = 1.0
    zero_point: int = 0
    low: int = -128
    high: int = 127
    given: str = ""

    @property
    def qparams(self) -> QParams:
        """The same as qparams of s8."""
        codes = None if (self.low, self.high) == (-128, 127) else (self.low, self.high)
        return QParams((self.scale,), self.zero_point, codes=codes)

    @staticmethod
    def of(qparams: QParams, given: str = "") -> FakeQuant:
        """The op that rounds to ``qparams``."""
        return FakeQuant(qparams.scale[0], qparams.zero_point, *qparams.code_range, given)

    def reals(self, codes: Array) -> Array:
        """float32: what codes of the type ``given`` mean."""
        shift = 128 if self.given == "u8" else 0
        return fixedpoint.dequantize(np.asarray(codes, np.int64) - shift, self.qparams)

    def infer(self, *operands: TensorType | None) -> TensorType:
        """The operand's type."""
        (x,) = operands
        assert x is not None
        return x.with_qparams(None)

    def float_ref(self, *operands: Array | None) -> Array:
        """In the precision of x, as fixedpoint.fake_quantize in float32."""
        (x,) = operands
        assert x is not None
        scale = x.dtype.type(self.scale)
        codes = np.clip(np.rint(x / scale), self.low - self.zero_point, self.high - self.zero_point)
        return np.asarray(codes * scale, x.dtype)

    @classmethod
    def cases(cls, rng: np.random.Generator) -> Iterable[Case]:
        """Away from ties, which float32 and float64 may round apart: all codes, and fewer."""
        for op in (cls(0.1, 3), cls(0.25, 0, -8, 7)):
            codes = rng.integers(-140, 140, size=(1, 3, 4, 5)) + rng.uniform(-0.3, 0.3, size=(1, 3, 4, 5))
            yield Case(op, (np.asarray(codes * op.scale, np.float32),))


def input_codes(value: Value) -> FakeQuant | None:
    """The fake_quant that a graph input reaches, directly or moved."""
    for user in value.users:
        if isinstance(user.op, FakeQuant):
            return user.op
        found = input_codes(user.output) if user.op.quant_rule().shares else None
        if found is not None:
            return found
    return None
