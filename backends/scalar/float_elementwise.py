"""Rows of float32 functions, operations with broadcasting, and batch normalization."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from qcc.backends.kernel import Call, Kernel, Step
from qcc.backends.scalar.elementwise import merged_axes
from qcc.backends.scalar.lowering import Params, accepts_parameters, constant, finite, float_bounds, source
from qcc.ir.op import Op
from qcc.ir.ops.activation import (
    Celu,
    Clamp,
    Elu,
    Gelu,
    HardSigmoid,
    LeakyRelu,
    Selu,
    Shrink,
    Swish,
    ThresholdedRelu,
)
from qcc.ir.ops.fake_quant import FakeQuant
from qcc.ir.ops.norm import BatchNorm

_AXES = 6

# Values of qcc_f32_function in qcc_float.h, in its order: lower-case names without the prefix.
FUNCTIONS = (
    "clamp",
    "sigmoid",
    "hard_sigmoid",
    "hard_swish",
    "swish",
    "mish",
    "softplus",
    "softsign",
    "tanh",
    "leaky_relu",
    "thresholded_relu",
    "elu",
    "selu",
    "celu",
    "gelu",
    "gelu_tanh",
    "erf",
    "exp",
    "log",
    "sqrt",
    "reciprocal",
    "neg",
    "abs",
    "sign",
    "floor",
    "ceil",
    "round",
    "sin",
    "cos",
    "asin",
    "acos",
    "atan",
    "asinh",
    "atanh",
    "shrink",
)
# Values of qcc_f32_operation in qcc_float.h, in its order.
OPERATIONS = (
    "add",
    "sub",
    "mul",
    "div",
    "min",
    "max",
    "pow",
    "prelu",
    "less",
    "less_or_equal",
    "equal",
    "keep",
)

_PARAMETERS: dict[type[Op], Callable[..., tuple[float, float]]] = {
    Clamp: lambda op: (op.low, op.high),
    HardSigmoid: lambda op: (op.alpha, op.beta),
    Swish: lambda op: (op.alpha, 0.0),
    LeakyRelu: lambda op: (op.alpha, 0.0),
    ThresholdedRelu: lambda op: (op.alpha, 0.0),
    Elu: lambda op: (op.alpha, 0.0),
    Selu: lambda op: (op.alpha, op.gamma),
    Celu: lambda op: (op.alpha, 0.0),
    Shrink: lambda op: (op.lambd, op.bias),
}


def lower_unary(step: Step) -> Call:
    """f32_unary_scalar: which function, and its attributes as alpha and beta."""
    op = step.root.op
    name = "gelu_tanh" if isinstance(op, Gelu) and op.approximate == "tanh" else op.name
    alpha, beta = _PARAMETERS[type(op)](op) if type(op) in _PARAMETERS else (0.0, 0.0)
    params = {
        "function": FUNCTIONS.index(name),
        "count": step.output.type.elements,
        "alpha": finite(alpha),
        "beta": finite(beta),
    }
    return Call(params, inputs=(step.root.input(0),))


def lower_fake_quant(step: Step) -> Call:
    """f32_fake_quant_scalar."""
    op = step.root.op
    assert isinstance(op, FakeQuant)
    codes = {"low": float(op.low - op.zero_point), "high": float(op.high - op.zero_point)}
    params: Params = {"count": step.output.type.elements, "scale": op.scale, **codes}
    return Call(params, inputs=(step.root.input(0),))


def accepts_binary(step: Step) -> str | None:
    """At most one constant, and at most six axes once neighbours are merged."""
    operands = step.root.input(0), step.root.input(1)
    if all(v.is_constant for v in operands):
        return "both operands are constant"
    extents, _ = merged_axes(step.output.type.shape, [v.type.shape for v in operands], False)
    return (
        None if len(extents) <= _AXES else f"broadcasting needs {len(extents)} axes, the kernel has {_AXES}"
    )


def lower_binary(step: Step) -> Call:
    """f32_binary_scalar: strides of both operands over the merged axes."""
    operands = step.root.input(0), step.root.input(1)
    extents, strides = merged_axes(step.output.type.shape, [v.type.shape for v in operands], False)
    missing = _AXES - len(extents)
    params: Params = {
        "operation": OPERATIONS.index(step.root.op.name),
        "shape": (1,) * missing + extents,
        "a_strides": (0,) * missing + strides[0],
        "b_strides": (0,) * missing + strides[1],
        **float_bounds(step),
    }
    data = next((v.data for v in operands if v.data is not None), None)
    return Call(params, {"constant": data}, inputs=tuple(None if v.is_constant else v for v in operands))


def lower_batch_norm(step: Step) -> Call:
    """f32_affine_scalar: the statistics become one factor and one offset per channel."""
    op, x = step.root.op, step.root.input(0)
    assert isinstance(op, BatchNorm)
    arrays = [constant(step.root, name) for name in ("scale", "bias", "mean", "var")]
    multiplier, offset = op.as_affine(*(a for a in arrays if a is not None))
    channels = x.type.shape[-1]
    return Call(
        {"rows": x.type.elements // channels, "channels": channels},
        {"multiplier": multiplier.astype(np.float32), "offset": offset.astype(np.float32)},
        inputs=(x,),
    )


def _row(pattern: str, name: str, **fields: Any) -> Kernel:
    symbol = f"qcc_f32_{name}_scalar"
    return Kernel(pattern, "f32", symbol, f"qcc_f32_{name}_params", source(symbol), **fields)


KERNELS: tuple[Kernel, ...] = (
    *(_row(name, "unary", lower=lower_unary, in_place=True) for name in FUNCTIONS if name != "gelu_tanh"),
    *(
        _row(pattern, "binary", lower=lower_binary, accepts=accepts_binary, in_place=(0, 1))
        for pattern in (*OPERATIONS, "add+clamp")
    ),
    _row("fake_quant", "fake_quant", lower=lower_fake_quant, in_place=True),
    _row("batch_norm", "affine", lower=lower_batch_norm, accepts=accepts_parameters, in_place=True),
)
