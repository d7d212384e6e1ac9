"""Codes and roundings that are only simulated: a float op, which no integer form and no kernel stands behind."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from qcc.ir import codebook
from qcc.ir.errors import VerifyError
from qcc.ir.op import Array, Case, Op, Signature, register_op
from qcc.ir.types import TensorType


@register_op
class SimulatedQuant(Op):
    """scale * level: x rounded to a level of ``code`` (see qcc.ir.codebook), with a scale that broadcasts to x.

    ``code``: linear, sqrt, log2; ``bits``: 2 to 8; ``signed``: False for levels from 0 up. ``rounding``: nearest,
    stochastic (by ``seed``), or error-feedback: carried over all elements of ``axes`` in C order.
    """

    name = "simulated_quant"
    operands = ("x", "scale")
    simulated = True
    code: str = "linear"
    bits: int = 8
    signed: bool = True
    rounding: str = "nearest"
    seed: int = 0
    axes: tuple[int, ...] = (-1,)

    def infer(self, *operands: TensorType | None) -> TensorType:
        """The type of x."""
        x, scale = operands
        assert x is not None
        assert scale is not None
        for name, value, known in (
            ("code", self.code, tuple(codebook.EXPANDERS)),
            ("rounding", self.rounding, codebook.ROUNDINGS),
        ):
            if value not in known:
                raise VerifyError(f"{self.name}: unknown {name} {value!r}; known: {', '.join(known)}")
        if not codebook.MIN_BITS <= self.bits <= codebook.MAX_BITS:
            raise VerifyError(f"{self.name}: {self.bits} bits; 2 to 8 are possible")
        axes = {a % x.rank for a in self.axes if -x.rank <= a < x.rank}
        if self.rounding == "error-feedback" and (not axes or len(axes) != len(self.axes)):
            raise VerifyError(f"{self.name}: {list(self.axes)} are no axes of {x}")
        lengths = zip(reversed(scale.shape), reversed(x.shape), strict=False)
        if scale.rank > x.rank or not all(m in (1, n) for m, n in lengths):
            raise VerifyError(f"{self.name}: the scale {scale} does not broadcast to {x}")
        return x.with_qparams(None)

    @property
    def levels(self) -> Array:
        """The levels of a scale of 1."""
        return codebook.levels_of(self.code, self.bits, self.signed)

    def float_ref(self, *operands: Array | None) -> Array:
        """In float64, then the precision of x."""
        x, scale = operands
        assert x is not None
        assert scale is not None
        unit, factor = x.astype(np.float64) / scale, scale.astype(np.float64)
        if self.rounding == "nearest":
            rounded = codebook.nearest(unit, self.levels)
        elif self.rounding == "stochastic":
            rounded = codebook.stochastic(unit, self.levels, codebook.uniform_noise(x, self.seed))
        else:
            first = range(len(self.axes))
            moved = np.moveaxis(unit, self.axes, first)
            steps = moved.reshape(np.prod(moved.shape[: len(self.axes)], dtype=int), -1)
            rounded = codebook.error_feedback(steps, self.levels).reshape(moved.shape)
            rounded = np.moveaxis(rounded, first, self.axes)
        return np.asarray(rounded * factor, x.dtype)

    def batches(self, sig: Signature) -> bool:
        """Errors must not be carried from sample to sample."""
        rank = sig.result.rank
        return self.rounding != "error-feedback" or 0 not in {a % rank for a in self.axes}

    @classmethod
    def cases(cls, rng: np.random.Generator) -> Iterable[Case]:
        """Each code and rounding; one scale and several; not signed."""
        x = rng.normal(size=(1, 3, 4, 5)).astype(np.float32)
        one, five = np.asarray(2.5, np.float32), rng.uniform(1, 3, size=5).astype(np.float32)
        yield Case(cls("linear", 4), (x, one), (False, True))
        yield Case(cls("log2", 4), (x, five), (False, True))
        yield Case(cls("sqrt", 3, signed=False), (np.abs(x), one), (False, True))
        yield Case(cls("log2", 4, rounding="stochastic", seed=3), (x, one), (False, True))
        yield Case(cls("linear", 4, rounding="error-feedback", axes=(2, 3)), (x, one), (False, True))
