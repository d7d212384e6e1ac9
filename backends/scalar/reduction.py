"""Rows of reductions, softmax and normalizations, on integers and floats."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from qcc.backends.kernel import Call, Kernel, Step
from qcc.backends.scalar.lowering import (
    Params,
    accepts_parameters,
    constant,
    requantize_constants,
    requantize_params,
    source,
    zero_point,
)
from qcc.ir.ops.indexing import ArgMax
from qcc.ir.ops.norm import InstanceNorm, LayerNorm, Lrn
from qcc.ir.ops.reduce import ReduceMax, ReduceMean, ReduceMin, ReduceProd, ReduceSum
from qcc.ir.ops.softmax import LogSoftmax, Softmax

# Values of qcc_f32_reduction in qcc_float.h, in its order.
REDUCTIONS = ("sum", "max", "min", "prod")
_AXES = 3
_COUNT_MAX = 2**23  # as many 8-bit values add up within 32 bits, whatever they are

_Reduce = ReduceMax | ReduceMean | ReduceMin | ReduceProd | ReduceSum


def _split(step: Step) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """(extent, stride) of the axes that stay and of those that are reduced, neighbours of one kind merged."""
    op, shape = step.root.op, step.root.input(0).type.shape
    assert isinstance(op, _Reduce)
    kinds: list[tuple[bool, int, int]] = []
    for axis, size in enumerate(shape):
        if size == 1:
            continue
        reduced, stride = axis in op.axes, prod(shape[axis + 1 :])
        if kinds and kinds[-1][0] == reduced:
            size *= kinds.pop()[1]
        kinds.append((reduced, size, stride))
    kept = [(size, stride) for reduced, size, stride in kinds if not reduced]
    return kept, [(size, stride) for reduced, size, stride in kinds if reduced]


def accepts_reduce(step: Step) -> str | None:
    """Up to three axes of each kind once neighbours are merged."""
    longest = max(map(len, _split(step)))
    return None if longest <= _AXES else f"{longest} separate axes of one kind, the kernel has {_AXES}"


def accepts_s8_sum(step: Step) -> str | None:
    """As accepts_reduce, and sums that fit 32 bits."""
    if reduced_count(step) >= _COUNT_MAX:
        return f"{reduced_count(step)} elements are added, the kernel's limit is {_COUNT_MAX}"
    return accepts_reduce(step)


def reduced_count(step: Step) -> int:
    """Elements added or compared for each result."""
    return step.root.input(0).type.elements // step.output.type.elements


def reduced_axes(step: Step) -> dict[str, Sequence[int]]:
    """kept, kept_strides, reduced, reduced_strides: fields of the params structs of reductions."""
    fields: dict[str, Sequence[int]] = {}
    for name, axes in zip(("kept", "reduced"), _split(step), strict=True):
        padded = [(1, 0)] * (_AXES - len(axes)) + axes
        fields[name] = [extent for extent, _ in padded]
        fields[f"{name}_strides"] = [stride for _, stride in padded]
    return fields


def lower_reduce(step: Step) -> Call:
    """f32_reduce_scalar."""
    op = step.root.op
    kind = "sum" if isinstance(op, ReduceMean) else step.root.op.name.removeprefix("reduce_")
    factor = float(np.float32(1 / reduced_count(step))) if isinstance(op, ReduceMean) else 1.0
    return Call({"reduction": REDUCTIONS.index(kind), **reduced_axes(step), "factor": factor})


def lower_s8_sum(step: Step) -> Call:
    """s8_reduce_sum_scalar: the scale of a mean is in the requantization."""
    requantize = requantize_constants(step)
    params: Params = {
        **reduced_axes(step),
        "bias": -reduced_count(step) * zero_point(step.root.input(0)),
        "requantize_channels": requantize["multiplier"].size,
        **requantize_params(step),
    }
    return Call(params, dict(requantize))


def lower_s8_extreme(step: Step) -> Call:
    """s8_reduce_extreme_scalar."""
    return Call({"minimum": int(isinstance(step.root.op, ReduceMin)), **reduced_axes(step)})


def lower_softmax(step: Step) -> Call:
    """f32_softmax_scalar: the axes before, the axis, the axes behind."""
    op, shape = step.root.op, step.output.type.shape
    assert isinstance(op, Softmax | LogSoftmax)
    params: Params = {
        "outer": prod(shape[: op.axis]),
        "count": shape[op.axis],
        "inner": prod(shape[op.axis + 1 :]),
        "logarithm": int(isinstance(op, LogSoftmax)),
    }
    return Call(params)


def lower_arg_max(step: Step) -> Call:
    """f32_arg_max_scalar: the axes before, the axis, the axes behind."""
    op, x = step.root.op, step.root.input(0)
    assert isinstance(op, ArgMax)
    shape = x.type.shape
    sizes = {
        "outer": prod(shape[: op.axis]),
        "count": shape[op.axis],
        "inner": prod(shape[op.axis + 1 :]),
    }
    return Call({**sizes, "last": int(op.last)}, inputs=(x,))


def lower_s8_softmax(step: Step) -> Call:
    """s8_softmax_scalar."""
    count = step.output.type.shape[-1]
    params: Params = {"rows": step.output.type.elements // count, "count": count}
    return Call(params, {"table": constant(step.root, "table")}, inputs=(step.root.input(0),))


def lower_instance_norm(step: Step) -> Call:
    """f32_normalize_scalar: over the pixels of each channel."""
    op, shape = step.root.op, step.output.type.shape
    assert isinstance(op, InstanceNorm)
    params: Params = {
        "outer": shape[0],
        "count": prod(shape[1:-1]),
        "inner": shape[-1],
        "parameter_strides": (0, 0, 1),
        "epsilon": op.epsilon,
    }
    return Call(params, _scale_and_bias(step), inputs=(step.root.input(0),))


def lower_layer_norm(step: Step) -> Call:
    """f32_normalize_scalar: over the last axes; parameters that differ between rows are expanded."""
    op, shape = step.root.op, step.output.type.shape
    assert isinstance(op, LayerNorm)
    given = _scale_and_bias(step)
    rows = any(
        a is not None and prod(((1,) * len(shape) + a.shape)[-len(shape) :][: op.axis]) > 1
        for a in given.values()
    )
    target = shape if rows else shape[op.axis :]
    arrays = {name: None if a is None else _expand(a, target) for name, a in given.items()}
    count = prod(shape[op.axis :])
    params: Params = {
        "outer": prod(shape[: op.axis]),
        "count": count,
        "inner": 1,
        "parameter_strides": (count if rows else 0, 1, 0),
        "epsilon": op.epsilon,
    }
    return Call(params, arrays, inputs=(step.root.input(0),))


def _expand(array: Any, shape: tuple[int, ...]) -> Any:
    """Broadcast; leading axes of size 1 beyond the rank of ``shape`` go."""
    trailing = array.reshape(array.shape[max(0, array.ndim - len(shape)) :])
    return np.ascontiguousarray(np.broadcast_to(trailing, shape))


def _scale_and_bias(step: Step) -> dict[str, Any]:
    return {name: constant(step.root, name) for name in ("scale", "bias")}


def lower_lrn(step: Step) -> Call:
    """f32_lrn_scalar."""
    op, channels = step.root.op, step.output.type.shape[-1]
    assert isinstance(op, Lrn)
    params: Params = {
        "rows": step.output.type.elements // channels,
        "channels": channels,
        "size": op.size,
        "alpha": op.alpha,
        "beta": op.beta,
        "bias": op.bias,
    }
    return Call(params)


def row(pattern: str, dtype: str, name: str, params: str, **fields: Any) -> Kernel:
    """A row of the scalar table; symbol and file follow from ``dtype`` and ``name``."""
    symbol = f"qcc_{dtype}_{name}_scalar"
    return Kernel(pattern, dtype, symbol, params, source(symbol), **fields)


KERNELS: tuple[Kernel, ...] = (
    *(
        row(
            f"{op}+requantize",
            "s8",
            "reduce_sum",
            "qcc_reduce_sum_params",
            lower=lower_s8_sum,
            accepts=accepts_s8_sum,
        )
        for op in ("reduce_mean", "reduce_sum")
    ),
    *(
        row(
            op,
            "s8",
            "reduce_extreme",
            "qcc_reduce_extreme_params",
            lower=lower_s8_extreme,
            accepts=accepts_reduce,
        )
        for op in ("reduce_max", "reduce_min")
    ),
    *(
        row(op, "f32", "reduce", "qcc_f32_reduce_params", lower=lower_reduce, accepts=accepts_reduce)
        for op in ("reduce_mean", "reduce_sum", "reduce_max", "reduce_min", "reduce_prod")
    ),
    row("arg_max", "f32", "arg_max", "qcc_f32_arg_max_params", lower=lower_arg_max),
    row("softmax", "s8", "softmax", "qcc_softmax_params", lower=lower_s8_softmax, in_place=True),
    *(
        row(op, "f32", "softmax", "qcc_f32_softmax_params", lower=lower_softmax, in_place=True)
        for op in ("softmax", "log_softmax")
    ),
    *(
        row(
            op,
            "f32",
            "normalize",
            "qcc_f32_normalize_params",
            lower=lower,
            accepts=accepts_parameters,
            in_place=True,
        )
        for op, lower in (("instance_norm", lower_instance_norm), ("layer_norm", lower_layer_norm))
    ),
    row("lrn", "f32", "lrn", "qcc_f32_lrn_params", lower=lower_lrn),
)
