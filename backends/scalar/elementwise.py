"""Rows of sums, products and requantization of materialized activations."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcc.backends.kernel import Call, Kernel, Step
from qcc.backends.scalar.lowering import (
    constant,
    requantize_constants,
    requantize_params,
    source,
    zero_point,
)

Shape = tuple[int, ...]
_AXES = 4


def merged_axes(shape: Shape, operands: Sequence[Shape], keep_last: bool) -> tuple[Shape, list[Shape]]:
    """Extents and the strides of each operand, with neighbouring axes merged where all operands allow it.

    ``operands`` broadcast to ``shape``. ``keep_last``: the last axis stays on its own, as it indexes channels.
    """
    rank = len(shape)
    strides = []
    for operand in operands:
        padded = (1,) * (rank - len(operand)) + operand
        dense = [prod(padded[i + 1 :]) for i in range(rank)]
        strides.append([0 if padded[i] == 1 else dense[i] for i in range(rank)])
    extents: list[int] = []
    merged: list[list[int]] = [[] for _ in operands]
    for axis in range(rank):
        own = [s[axis] for s in strides]
        last = keep_last and axis == rank - 1
        if shape[axis] == 1 and not last:
            continue
        joins = bool(extents) and not last
        if joins and all(m[-1] == stride * shape[axis] for m, stride in zip(merged, own, strict=True)):
            extents[-1] *= shape[axis]
            for m, stride in zip(merged, own, strict=True):
                m[-1] = stride
        else:
            extents.append(shape[axis])
            for m, stride in zip(merged, own, strict=True):
                m.append(stride)
    return tuple(extents), [tuple(m) for m in merged]


def _is_per_channel(step: Step) -> bool:
    sizes = [a.size for a in requantize_constants(step).values()]
    for name in ("a_multiplier", "b_multiplier"):
        if name in step.root.op.operands or f"{name}?" in step.root.op.operands:
            data = constant(step.root, name)
            sizes.append(1 if data is None else data.size)
    return max(sizes) > 1


def _axes(step: Step) -> tuple[Shape, list[Shape]]:
    shapes = [step.root.input(i).type.shape for i in range(2)]
    return merged_axes(step.output.type.shape, shapes, _is_per_channel(step))


def accepts_activations(step: Step) -> str | None:
    """Two s8 activations."""
    for value in (step.root.input(0), step.root.input(1)):
        if value.is_constant or value.type.dtype.value != "s8":
            return f"operand %{value.name} is not an s8 activation"
    return accepts_axes(step)


def accepts_constant(step: Step) -> str | None:
    """One s8 activation and one constant."""
    values = (step.root.input(0), step.root.input(1))
    activations = [v for v in values if not v.is_constant]
    if len(activations) != 1 or activations[0].type.dtype.value != "s8":
        return "not an s8 activation and a constant"
    return accepts_axes(step)


def accepts_small_constant(step: Step) -> str | None:
    """As accepts_constant, with a constant that fits 16 bits once its zero_point is subtracted."""
    refused = accepts_constant(step)
    if refused is not None:
        return refused
    values = centred(step, 0 if step.root.input(0).is_constant else 1)
    fits = values.min() >= -(2**15) and values.max() < 2**15
    return None if fits else "the constant does not fit 16 bits"


def accepts_axes(step: Step) -> str | None:
    """At most four axes once neighbours are merged."""
    extents, _ = _axes(step)
    return (
        None if len(extents) <= _AXES else f"broadcasting needs {len(extents)} axes, the kernel has {_AXES}"
    )


def binary_params(step: Step, order: tuple[int, int]) -> dict[str, int | float | Sequence[int]]:
    """Fields of qcc_binary_params; ``order``: of the operands."""
    extents, strides = _axes(step)
    missing = _AXES - len(extents)
    a, b = (step.root.input(i) for i in order)
    return {
        "count": (1,) * missing + extents,
        "a_stride": (0,) * missing + strides[order[0]],
        "b_stride": (0,) * missing + strides[order[1]],
        "a_zero_point": zero_point(a),
        "b_zero_point": 0 if b.is_constant else zero_point(b),
        "per_channel": int(_is_per_channel(step)),
        **requantize_params(step),
    }


def operand_factors(step: Step, index: int) -> NDArray[np.int32]:
    """The operand's multiplier, s32[1] or s32[C] as ``per_channel`` says."""
    data = constant(step.root, ("a_multiplier", "b_multiplier")[index])
    factors = np.ones(1, np.int32) if data is None else data.reshape(-1)
    return np.broadcast_to(factors, requantize_channels(step)).astype(np.int32)


def requantize_channels(step: Step) -> int:
    """Entries of multiplier and shift: 1, or one for each channel."""
    return step.output.type.shape[-1] if _is_per_channel(step) else 1


def centred(step: Step, index: int) -> NDArray[np.int64]:
    """A constant operand minus its zero_point."""
    value = step.root.input(index)
    assert value.data is not None
    return np.asarray(value.data, np.int64) - zero_point(value)


def _requantize(step: Step) -> dict[str, NDArray[Any]]:
    return dict(requantize_constants(step, requantize_channels(step)))


def lower_add(step: Step) -> Call:
    """s8_add_scalar."""
    factors = {"a_multiplier": operand_factors(step, 0), "b_multiplier": operand_factors(step, 1)}
    inputs = (step.root.input(0), step.root.input(1))
    return Call(binary_params(step, (0, 1)), {**factors, **_requantize(step)}, inputs=inputs)


def lower_add_constant(step: Step) -> Call:
    """s8_add_constant_scalar: the constant is brought to the accumulator's scale here."""
    activation, other = (1, 0) if step.root.input(0).is_constant else (0, 1)
    data = constant(step.root, ("a_multiplier", "b_multiplier")[other])
    b = centred(step, other) * (1 if data is None else data.astype(np.int64))
    constants = {
        "b": b.astype(np.int32),
        "a_multiplier": operand_factors(step, activation),
        **_requantize(step),
    }
    return Call(binary_params(step, (activation, other)), constants, inputs=(step.root.input(activation),))


def lower_mul(step: Step) -> Call:
    """s8_mul_scalar."""
    inputs = (step.root.input(0), step.root.input(1))
    return Call(binary_params(step, (0, 1)), _requantize(step), inputs=inputs)


def lower_mul_constant(step: Step) -> Call:
    """s8_mul_constant_scalar."""
    activation, other = (1, 0) if step.root.input(0).is_constant else (0, 1)
    constants = {"b": centred(step, other).astype(np.int16), **_requantize(step)}
    return Call(binary_params(step, (activation, other)), constants, inputs=(step.root.input(activation),))


def lower_requantize(step: Step) -> Call:
    """s8_requantize_scalar."""
    x = step.root.input(0)
    channels = max(a.size for a in requantize_constants(step).values())
    params = {
        "rows": x.type.elements // channels,
        "channels": channels,
        "input_zero_point": zero_point(x),
        **requantize_params(step),
    }
    return Call(params, dict(requantize_constants(step)), inputs=(x,))


def _row(pattern: str, name: str, params: str, lower: Any, accepts: Any = lambda step: None) -> Kernel:
    symbol = f"qcc_s8_{name}_scalar"
    return Kernel(pattern, "s8", symbol, params, source(symbol), lower, accepts, in_place=(0, 1))


KERNELS: tuple[Kernel, ...] = (
    *(
        _row(f"{root}+requantize", name, "qcc_binary_params", lower, accepts)
        for root in ("add", "sub")
        for name, lower, accepts in (
            ("add", lower_add, accepts_activations),
            ("add_constant", lower_add_constant, accepts_constant),
        )
    ),
    _row("mul+requantize", "mul", "qcc_binary_params", lower_mul, accepts_activations),
    _row("mul+requantize", "mul_constant", "qcc_binary_params", lower_mul_constant, accepts_small_constant),
    _row("requantize", "requantize", "qcc_requantize_params", lower_requantize),
)
