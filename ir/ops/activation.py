"""Unary elementwise functions. On 8-bit integers any chain of them is one 256-entry table."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import fields
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from qcc.ir.errors import VerifyError
from qcc.ir.op import Array, Case, Op, onnx_importer, register_op
from qcc.ir.types import TensorType

if TYPE_CHECKING:
    from qcc.ir.graph import Node, Value
    from qcc.ir.importing import OnnxNode
    from qcc.ir.lowering import Lowering


class Unary(Op):
    """Base: one operand, same type. Subclasses give ``float_ref`` (float32 or float64 in, same out)."""

    operands = ("x",)
    elementwise = True
    domain: ClassVar[tuple[float, float]] = (-4.0, 4.0)  # where the generic tests try it

    def infer(self, *operands: TensorType | None) -> TensorType:
        """The operand's type."""
        (x,) = operands
        assert x is not None
        return x.with_qparams(None)

    @classmethod
    def cases(cls, rng: np.random.Generator) -> Iterable[Case]:
        """Values over ``domain``."""
        yield Case(cls(), (rng.uniform(*cls.domain, size=(1, 3, 4, 5)).astype(np.float32),))


@register_op
class Clamp(Unary):
    """min(max(x, low), high): Relu, Relu6, Clip. After an accumulator it costs nothing."""

    name = "clamp"
    accepts_accumulator = True
    wide_operands = True
    low: float = float("-inf")
    high: float = float("inf")

    def float_ref(self, *operands: Array | None) -> Array:
        """numpy clip: NaN stays NaN."""
        (x,) = operands
        assert x is not None
        return np.asarray(np.clip(x, x.dtype.type(self.low), x.dtype.type(self.high)))

    def accumulate(self, q: Lowering, node: Node) -> Value | None:
        """A clamp cannot act on an accumulator whose qparams are not chosen yet."""
        return None

    def quantize(self, q: Lowering, node: Node) -> Value | None:
        """The saturation of the requantize that follows the fused accumulator, or that of 16 bits."""
        x = node.input(0)
        acc = q.accumulator(x) if x.fused or q.is_wide(x) else None
        return None if acc is None else q.requantize(acc, node.output, self.low, self.high)

    @classmethod
    def cases(cls, rng: np.random.Generator) -> Iterable[Case]:
        """Relu and Relu6."""
        x = rng.uniform(-9, 9, size=(1, 3, 4, 5)).astype(np.float32)
        yield Case(cls(0.0), (x,))
        yield Case(cls(0.0, 6.0), (x,))


class Function(Unary):
    """Base of ops that are one numpy expression: a subclass gives its name, attributes and ``_value(x)``."""

    def _value(self, x: Array) -> Array:
        raise NotImplementedError

    def float_ref(self, *operands: Array | None) -> Array:
        """``_value`` in the precision of its operand; outside of its domain inf or NaN."""
        (x,) = operands
        assert x is not None
        with np.errstate(all="ignore"):
            return np.asarray(self._value(x), x.dtype)


@register_op
class Sigmoid(Function):
    """1 / (1 + exp(-x))."""

    name = "sigmoid"

    def _value(self, x: Array) -> Array:
        return _sigmoid(x)


@register_op
class HardSigmoid(Function):
    """alpha * x + beta, clamped to [0, 1]."""

    name = "hard_sigmoid"
    alpha: float = 0.2
    beta: float = 0.5

    def _value(self, x: Array) -> Array:
        return np.clip(self.alpha * x + self.beta, 0, 1)


@register_op
class HardSwish(Function):
    """x * min(max(x / 6 + 1/2, 0), 1)."""

    name = "hard_swish"

    def _value(self, x: Array) -> Array:
        return x * np.clip(x / 6 + 0.5, 0, 1)


@register_op
class Swish(Function):
    """x * sigmoid(alpha * x)."""

    name = "swish"
    alpha: float = 1.0

    def _value(self, x: Array) -> Array:
        return x * _sigmoid(self.alpha * x)


@register_op
class Mish(Function):
    """x * tanh(softplus(x))."""

    name = "mish"

    def _value(self, x: Array) -> Array:
        return x * np.tanh(np.logaddexp(0, x))


@register_op
class Softplus(Function):
    """log(1 + exp(x))."""

    name = "softplus"

    def _value(self, x: Array) -> Array:
        return np.logaddexp(0, x)


@register_op
class Softsign(Function):
    """x / (1 + abs(x))."""

    name = "softsign"

    def _value(self, x: Array) -> Array:
        return np.asarray(x / (1 + np.abs(x)))


@register_op
class Tanh(Function):
    """Hyperbolic tangent."""

    name = "tanh"

    def _value(self, x: Array) -> Array:
        return np.tanh(x)


@register_op
class LeakyRelu(Function):
    """x where x >= 0, alpha * x elsewhere."""

    name = "leaky_relu"
    alpha: float = 0.01

    def _value(self, x: Array) -> Array:
        return np.where(x < 0, self.alpha * x, x)


@register_op
class ThresholdedRelu(Function):
    """x where x > alpha, 0 elsewhere."""

    name = "thresholded_relu"
    alpha: float = 1.0

    def _value(self, x: Array) -> Array:
        return np.where(x > self.alpha, x, np.zeros_like(x))


@register_op
class Shrink(Function):
    """x + bias below -lambd, x - bias above lambd, 0 between."""

    name = "shrink"
    bias: float = 0.0
    lambd: float = 0.5

    def _value(self, x: Array) -> Array:
        return np.where(
            x < -self.lambd, x + self.bias, np.where(x > self.lambd, x - self.bias, np.zeros_like(x))
        )


@register_op
class Elu(Function):
    """x where x > 0, alpha * (exp(x) - 1) elsewhere."""

    name = "elu"
    alpha: float = 1.0

    def _value(self, x: Array) -> Array:
        return np.where(x > 0, x, self.alpha * np.expm1(x))


@register_op
class Selu(Function):
    """gamma * elu(x); the defaults are the self-normalizing constants."""

    name = "selu"
    alpha: float = 1.67326319217681884765625
    gamma: float = 1.05070102214813232421875

    def _value(self, x: Array) -> Array:
        return self.gamma * np.where(x > 0, x, self.alpha * np.expm1(x))


@register_op
class Celu(Function):
    """x where x > 0, alpha * (exp(x / alpha) - 1) elsewhere."""

    name = "celu"
    alpha: float = 1.0

    def _value(self, x: Array) -> Array:
        return np.where(x > 0, x, self.alpha * np.expm1(x / self.alpha))


@register_op
class Gelu(Function):
    """x * Phi(x), the normal distribution function; ``approximate`` is none, or tanh for its usual stand-in."""

    name = "gelu"
    approximate: str = "none"

    def infer(self, *operands: TensorType | None) -> TensorType:
        """The operand's type."""
        if self.approximate not in ("none", "tanh"):
            raise VerifyError(f"gelu: approximate must be none or tanh, got {self.approximate!r}")
        return super().infer(*operands)

    def _value(self, x: Array) -> Array:
        if self.approximate == "tanh":
            twice = 1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x))
        else:
            twice = _erfc(-math.sqrt(0.5) * x)  # unlike 1 + erf, it keeps the digits of small results
        return np.asarray(0.5 * x * twice)

    @classmethod
    def cases(cls, rng: np.random.Generator) -> Iterable[Case]:
        """Both forms."""
        x = rng.uniform(*cls.domain, size=(1, 3, 4, 5)).astype(np.float32)
        yield Case(cls(), (x,))
        yield Case(cls("tanh"), (x,))


def _sigmoid(x: Array) -> Array:
    e = np.exp(-np.abs(x))  # at most 1: no overflow, and small results keep their digits
    return np.asarray(np.where(x < 0, e, 1) / (1 + e))


def _erfc(x: Array) -> Array:
    return np.asarray(np.frompyfunc(math.erfc, 1, 1)(x)).astype(x.dtype)


def import_functions(*classes: type[Function]) -> None:
    """Import each class from the ONNX op that has its name, its attributes and its defaults."""

    def function(node: OnnxNode) -> Value:
        cls = by_name[node.op_type]
        names = [f.name for f in fields(cls)]  # type: ignore[arg-type]
        attributes: dict[str, Any] = {n: node.attrs[n] for n in names if n in node.attrs}
        return node.emit(cls(**attributes), node.input(0))

    by_name = {cls.__name__: cls for cls in classes}
    onnx_importer(*by_name)(function)


import_functions(Celu, Elu, Gelu, HardSigmoid, HardSwish, LeakyRelu, Mish, Selu)
import_functions(Sigmoid, Shrink, Softplus, Softsign, Swish, Tanh)
import_functions(ThresholdedRelu)


@onnx_importer("Relu")
def import_relu(node: OnnxNode) -> Value:
    """max(x, 0)."""
    return node.emit(Clamp(0.0), node.input(0))


@onnx_importer("Clip")
def import_clip(node: OnnxNode) -> Value:
    """Bounds as attributes (opset 7 to 10) or as constant inputs (11 and later)."""
    bounds = []
    for index, name, default in ((1, "min", float("-inf")), (2, "max", float("inf"))):
        array = node.array(index)
        bounds.append(float(array) if array is not None else float(node.attrs.get(name, default)))
    return node.emit(Clamp(*bounds), node.input(0))
