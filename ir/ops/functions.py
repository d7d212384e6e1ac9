"""Unary functions of mathematics, and the ONNX ops that change nothing at inference."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from qcc.ir.op import Array, onnx_importer, register_op
from qcc.ir.ops.activation import Function, Tanh, import_functions
from qcc.ir.ops.elementwise import Add, Div, Mul

if TYPE_CHECKING:
    from qcc.ir.graph import Value
    from qcc.ir.importing import OnnxNode


@register_op
class Erf(Function):
    """Error function."""

    name = "erf"

    def _value(self, x: Array) -> Array:
        return _erf(x)


@register_op
class Exp(Function):
    """e to the power x."""

    name = "exp"

    def _value(self, x: Array) -> Array:
        return np.exp(x)


@register_op
class Log(Function):
    """Natural logarithm."""

    name = "log"
    domain = (0.1, 4.0)

    def _value(self, x: Array) -> Array:
        return np.log(x)


@register_op
class Sqrt(Function):
    """Square root."""

    name = "sqrt"
    domain = (0.0, 4.0)

    def _value(self, x: Array) -> Array:
        return np.sqrt(x)


@register_op
class Reciprocal(Function):
    """1 / x."""

    name = "reciprocal"
    domain = (0.5, 4.0)

    def _value(self, x: Array) -> Array:
        return 1 / x


@register_op
class Neg(Function):
    """-x."""

    name = "neg"

    def _value(self, x: Array) -> Array:
        return -x


@register_op
class Abs(Function):
    """Magnitude."""

    name = "abs"

    def _value(self, x: Array) -> Array:
        return np.abs(x)


@register_op
class Sign(Function):
    """-1, 0 or 1."""

    name = "sign"

    def _value(self, x: Array) -> Array:
        return np.sign(x)


@register_op
class Floor(Function):
    """Largest integer not above x."""

    name = "floor"

    def _value(self, x: Array) -> Array:
        return np.floor(x)


@register_op
class Ceil(Function):
    """Smallest integer not below x."""

    name = "ceil"

    def _value(self, x: Array) -> Array:
        return np.ceil(x)


@register_op
class Round(Function):
    """Nearest integer, ties to even."""

    name = "round"

    def _value(self, x: Array) -> Array:
        return np.rint(x)


@register_op
class Sin(Function):
    """Sine."""

    name = "sin"

    def _value(self, x: Array) -> Array:
        return np.sin(x)


@register_op
class Cos(Function):
    """Cosine."""

    name = "cos"

    def _value(self, x: Array) -> Array:
        return np.cos(x)


@register_op
class Asin(Function):
    """Inverse sine."""

    name = "asin"
    domain = (-1.0, 1.0)

    def _value(self, x: Array) -> Array:
        return np.arcsin(x)


@register_op
class Acos(Function):
    """Inverse cosine."""

    name = "acos"
    domain = (-1.0, 1.0)

    def _value(self, x: Array) -> Array:
        return np.arccos(x)


@register_op
class Atan(Function):
    """Inverse tangent."""

    name = "atan"

    def _value(self, x: Array) -> Array:
        return np.arctan(x)


@register_op
class Asinh(Function):
    """Inverse hyperbolic sine."""

    name = "asinh"

    def _value(self, x: Array) -> Array:
        return np.arcsinh(x)


@register_op
class Atanh(Function):
    """Inverse hyperbolic tangent."""

    name = "atanh"
    domain = (-0.9, 0.9)

    def _value(self, x: Array) -> Array:
        return np.arctanh(x)


def _erf(x: Array) -> Array:
    return np.asarray(np.frompyfunc(math.erf, 1, 1)(x)).astype(x.dtype)


import_functions(Acos, Asin, Asinh, Atan, Atanh)
import_functions(Abs, Ceil, Cos, Erf, Exp, Floor, Log, Neg, Reciprocal, Round, Sign, Sin, Sqrt)


@onnx_importer("Tan")
def import_tan(node: OnnxNode) -> Value:
    """sin x / cos x."""
    x = node.input(0)
    return node.emit(Div(), node.emit(Sin(), x), node.emit(Cos(), x))


@onnx_importer("Sinh", "Cosh")
def import_hyperbolic(node: OnnxNode) -> Value:
    """cosh x = (e^x + e^-x) / 2; sinh x = tanh x * cosh x, which loses no digits near 0."""
    x = node.input(0)
    both = node.emit(Add(), node.emit(Exp(), x), node.emit(Exp(), node.emit(Neg(), x)))
    cosh = node.emit(Mul(), both, node.constant(np.asarray(0.5, np.float32), "half"))
    return cosh if node.op_type == "Cosh" else node.emit(Mul(), node.emit(Tanh(), x), cosh)


@onnx_importer("Identity")
def import_identity(node: OnnxNode) -> Value:
    """The operand itself."""
    return node.input(0)


@onnx_importer("Dropout")
def import_dropout(node: OnnxNode) -> Value:
    """The operand itself: at inference nothing is dropped."""
    training = node.array(2)
    if node.outputs > 1 or (training is not None and bool(training)):
        raise node.unsupported("a dropout with a mask output or in training mode is not supported")
    return node.input(0)


@onnx_importer("Cast")
def import_cast(node: OnnxNode) -> Value:
    """The operand itself for a cast between float32 and float64; all tensors are float32 here."""
    float32, float64 = 1, 11  # onnx.TensorProto.DataType
    if int(node.attrs["to"]) not in (float32, float64):
        raise node.unsupported("only casts of a run-time tensor to float32 or float64 are supported")
    return node.input(0)


@onnx_importer("CastLike")
def import_cast_like(node: OnnxNode) -> Value:
    """The operand itself where the other one, whose type is wanted, is float32 or float64."""
    like = node.constants[1]
    if like is not None and like.dtype not in (np.float32, np.float64):
        raise node.unsupported("only casts of a run-time tensor to float32 or float64 are supported")
    return node.input(0)
