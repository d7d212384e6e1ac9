"""Rows of steps with tensors of 16 bits for the DSP extension of Armv7E-M.

Sums are int32 and wrap around, so that only where they end must be proved. The requantization is that of qcc_arm_dsp.h, with
the accumulator moved up first where a shift is less than 33.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcc.backends.arm.cortex_m import KERNELS_FOLDER, PIXELS, SHIFTS, both
from qcc.backends.kernel import Call, Kernel, Step
from qcc.backends.scalar import elementwise, wide_convolution
from qcc.backends.scalar.convolution import skip_operand
from qcc.backends.scalar.lowering import Params, constant, requantize_constants, requantize_params, zero_point
from qcc.backends.scalar.wide import Accepts, accepts_equal_shapes, has_16_bits, type_bytes
from qcc.ir.graph import Value
from qcc.ir.ops.conv import Conv2d

QUAD = 4  # weights of a word
TAPS = 64  # of a depthwise convolution
_POINTER = 4  # bytes
_ORDER = {
    2: [0, 2, 1, 3],
    1: [0, 1, 2, 3],
}  # of four weights by input_bytes, and the other way round of four channels
_CONV_PARAMS = (
    *("batch", "input_height", "input_width", "input_channels"),
    *("output_height", "output_width", "output_channels", "kernel_height", "kernel_width"),
    *("stride_height", "stride_width", "dilation_height", "dilation_width"),
    *("pad_top", "pad_left", "pad_value", "input_bytes", "skip_bytes", "output_bytes"),
    *("output_zero_point", "low", "high"),
)
_DENSE_PARAMS = (
    *("input_channels", "output_channels", "input_bytes", "skip_bytes", "output_bytes"),
    *("output_zero_point", "low", "high"),
)


# ---------------------------------------------------------------- requantization
@dataclass(frozen=True)
class Requantization:
    """s64[C] each: multiplier, shift + up, up; ``low``, ``high``: proven ends of the accumulator."""

    multiplier: NDArray[np.int64]
    shift: NDArray[np.int64]
    up: NDArray[np.int64]
    low: NDArray[np.int64]
    high: NDArray[np.int64]

    @property
    def results(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Least and greatest result less the zero_point, up to 17 bits."""
        half = np.left_shift(1, self.shift - self.up - 1)
        low, high = (
            np.clip((end * self.multiplier + half) >> (self.shift - self.up), -(2**16), 2**16)
            for end in (self.low, self.high)
        )
        return low, high

    @property
    def refused(self) -> str | None:
        """Why the kernels cannot do it, constant channels aside."""
        if self.low.min(initial=0) < -(2**31) or self.high.max(initial=0) >= 2**31:
            return f"accumulators between {self.low.min()} and {self.high.max()} leave 32 bits"
        low, high = self.results
        changing = low != high
        if (changing & (self.shift > SHIFTS[1])).any():
            return f"a shift is greater than {SHIFTS[1]}"
        largest = np.maximum(-self.low, self.high + 1) << np.minimum(self.up, 31)
        return "a shift is too small" if (changing & (largest > 2**31)).any() else None


def requantization(step: Step) -> Requantization | None:
    """None where the accumulators have no proven interval."""
    node = step.nodes[-1]
    least, most = constant(node, "acc_min"), constant(node, "acc_max")
    if least is None or most is None:
        return None
    planned = requantize_constants(step)
    arrays = [a.astype(np.int64).reshape(-1) for a in (planned["multiplier"], planned["shift"], least, most)]
    multiplier, shift, low, high = np.broadcast_arrays(*arrays)
    up = np.maximum(SHIFTS[0] - shift, 0)
    return Requantization(multiplier, shift + up, up, low, high)


def accepts_requantize(step: Step) -> str | None:
    """Accumulators that are proved to stay within 32 bits, as far as they are moved."""
    found = requantization(step)
    return "the accumulators have no proven interval" if found is None else found.refused


def _wrapped(sums: NDArray[np.int64]) -> NDArray[np.int32]:
    """Modulo 2^32: they wrap around as the accumulator does."""
    return (sums & 0xFFFFFFFF).astype(np.uint32).view(np.int32)


# ---------------------------------------------------------------- convolution and dense
@dataclass(frozen=True)
class Numbers:
    """``weights`` as the portable kernel has them, [..., C last] for a depthwise one; ``channels``: s32[C, 4].

    A constant channel becomes a bias of its value, without weights.
    """

    call: Call
    weights: NDArray[np.int8]
    channels: NDArray[np.int32]
    skip_multiplier: NDArray[np.int32] | None


def numbers_of(step: Step, call: Call, axis: int) -> Numbers:
    """Of a call of a portable kernel; ``axis``: of the channels in its weights."""
    found, channels = requantization(step), step.output.type.shape[-1]
    weights, bias = call.constants["weights"], call.constants["bias"]
    assert found is not None
    assert weights is not None
    assert bias is not None
    skip, offset = call.constants["skip_multiplier"], call.params["skip_zero_point"]
    assert isinstance(offset, int)
    if skip is not None:
        bias = bias - offset * skip.astype(np.int64)
    low, high = (np.broadcast_to(end, channels) for end in found.results)
    still = low == high
    columns = (
        np.where(still, low * 8, bias),
        np.where(still, 2**30, found.multiplier),
        np.where(still, SHIFTS[0], found.shift) - 32,
        np.where(still, 0, found.up),
    )
    shape = [1] * weights.ndim
    shape[axis] = channels
    return Numbers(
        call,
        np.where(still.reshape(shape), 0, weights).astype(np.int8),
        np.stack([_wrapped(np.asarray(column, np.int64)) for column in columns], axis=-1),
        None if skip is None else np.where(still, 0, skip).astype(np.int32),
    )


def _portable(step: Step) -> Call:
    is_conv = isinstance(step.root.op, Conv2d)
    return (wide_convolution.lower_conv2d if is_conv else wide_convolution.lower_dense)(step)


def _params(numbers: Numbers, names: Sequence[str]) -> Params:
    return {name: numbers.call.params[name] for name in names}


def _padded(array: NDArray[Any], *axes: int) -> NDArray[Any]:
    """Zero-padded along ``axes`` to multiples of 4."""
    return np.pad(array, [(0, -size % QUAD if axis in axes else 0) for axis, size in enumerate(array.shape)])


def accepts_conv2d(step: Step) -> str | None:
    """One group."""
    op = step.root.op
    if isinstance(op, Conv2d) and op.groups != 1:
        return "more than one group"
    return wide_convolution.accepts_convolution(step) or accepts_requantize(step)


def accepts_same_skip(step: Step) -> str | None:
    """Some channels are written before others are read."""
    skip = skip_operand(step)[0]
    same = skip is None or skip.type.dtype is step.output.type.dtype
    return None if same else "the residual operand and the output have other types"


def lower_conv2d(step: Step) -> Call:
    """s16_conv2d_dsp."""
    numbers = numbers_of(step, _portable(step), 0)
    p = numbers.call.params
    weights = numbers.weights.reshape(p["output_channels"], -1, p["input_channels"])  # type: ignore[arg-type]
    if p["dilation_width"] == 1:
        weights = weights.reshape(len(weights), p["kernel_height"], -1)  # type: ignore[arg-type]
    weights = _padded(weights, 2)
    order = _ORDER[type_bytes(step.root.input(0))]
    constants: dict[str, NDArray[Any] | None] = {
        "weights": np.ascontiguousarray(weights.reshape(*weights.shape[:2], -1, QUAD)[..., order]),
        "channels": numbers.channels,
        "skip_multiplier": numbers.skip_multiplier,
    }
    workspace = 2 * PIXELS * int(weights[0].size)
    return Call(_params(numbers, _CONV_PARAMS), constants, workspace, numbers.call.inputs)


def accepts_row(step: Step) -> str | None:
    """One row."""
    if step.output.type.elements != step.output.type.shape[-1]:
        return "more than one row"
    return accepts_conv2d(step)


def lower_dense(step: Step) -> Call:
    """s16_dense_dsp."""
    numbers = numbers_of(step, _portable(step), 0)
    padded = _padded(numbers.weights, 0, 1)
    words = padded.reshape(len(padded) // QUAD, QUAD, -1, QUAD).swapaxes(1, 2)
    padding = np.tile(np.array([[0, 0, 1, 0]], np.int32), (len(padded) - len(numbers.weights), 1))
    constants: dict[str, NDArray[Any] | None] = {
        "weights": np.ascontiguousarray(words[..., _ORDER[type_bytes(step.root.input(0))]]),
        "channels": np.concatenate([numbers.channels, padding]),
        "skip_multiplier": numbers.skip_multiplier,
    }
    return Call(_params(numbers, _DENSE_PARAMS), constants, inputs=numbers.call.inputs)


def accepts_depthwise(step: Step) -> str | None:
    """Channels in fours, filters of up to 64 taps."""
    refused = wide_convolution.accepts_depthwise(step)
    if refused is None and step.output.type.shape[-1] % QUAD:
        return "the channels are no multiple of 4"
    taps = step.root.input(1).type.elements // step.output.type.shape[-1]
    if refused is None and taps > TAPS:
        return f"{taps} taps, the kernel has {TAPS}"
    return refused or accepts_requantize(step)


def lower_depthwise(step: Step) -> Call:
    """s16_depthwise_conv2d_dsp."""
    numbers = numbers_of(step, wide_convolution.lower_depthwise(step), 2)
    channels = step.output.type.shape[-1]
    element = type_bytes(step.root.input(0))
    fours = numbers.weights.reshape(-1, channels // QUAD, QUAD).swapaxes(0, 1)  # [fours, taps, 4]
    constants: dict[str, NDArray[Any] | None] = {
        "weights": np.ascontiguousarray(fours[..., _ORDER[3 - element]], np.int16),
        "channels": numbers.channels,
        "skip_multiplier": numbers.skip_multiplier,
    }
    workspace = _POINTER * fours.shape[1] + element * channels
    return Call(_params(numbers, _CONV_PARAMS), constants, workspace, numbers.call.inputs)


# ---------------------------------------------------------------- sums
def accepts_add(step: Step) -> str | None:
    """Two activations of one shape, the same numbers for all channels."""
    if any(step.root.input(i).is_constant for i in range(2)):
        return "an operand is constant"
    if elementwise.requantize_channels(step) > 1:
        return "the multipliers differ between channels"
    return accepts_equal_shapes(step) or accepts_requantize(step)


def accepts_alone(step: Step) -> str | None:
    """The same numbers for all channels."""
    if requantize_constants(step)["multiplier"].size > 1:
        return "the multipliers differ between channels"
    return accepts_requantize(step)


def lower_add(step: Step) -> Call:
    """s16_add_dsp."""
    factors = [int(elementwise.operand_factors(step, i)[0]) for i in range(2)]
    return _sum(step, (step.root.input(0), step.root.input(1)), factors)


def lower_alone(step: Step) -> Call:
    """s16_add_dsp: times 1, nothing added."""
    return _sum(step, (step.root.input(0), None), (1, 0))


def _sum(step: Step, operands: tuple[Value, Value | None], factors: Sequence[int]) -> Call:
    found = requantization(step)
    assert found is not None
    offset = sum(zero_point(v) * f for v, f in zip(operands, factors, strict=True) if v is not None)
    params: Params = {
        "count": step.output.type.elements,
        "a_bytes": type_bytes(operands[0]),
        "b_bytes": type_bytes(operands[1]),
        "output_bytes": type_bytes(step.output),
        "a_multiplier": factors[0],
        "b_multiplier": factors[1],
        "bias": int(_wrapped(np.asarray([-offset], np.int64))[0]),
        "multiplier": int(found.multiplier[0]),
        "shift": int(found.shift[0]) - 32,
        "up": int(found.up[0]),
        **requantize_params(step),
    }
    return Call(params, inputs=operands)


# ---------------------------------------------------------------- rows
def _row(
    pattern: str,
    dtype: str,
    name: str,
    params: str,
    lower: Callable[[Step], Call],
    accepts: Accepts,
    priority: int,
    in_place: tuple[int, ...],
) -> Kernel:
    return Kernel(
        pattern,
        dtype,
        f"qcc_s16_{name}_dsp",
        f"qcc_dsp_wide_{params}_params",
        KERNELS_FOLDER / f"s16_{name}_dsp.c",
        lower,
        accepts,
        priority,
        in_place=in_place,
        wide=True,
        meant_for=has_16_bits,
    )


WIDE_KERNELS: tuple[Kernel, ...] = (
    *(
        _row(f"{root}+{end}", dtype, name, params, lower, both(accepts, same), priority, in_place)
        for roots, name, params, lower, accepts, best in (
            (("conv2d", "dense"), "conv2d", "conv2d", lower_conv2d, accepts_conv2d, 11),
            (("dense",), "dense", "dense", lower_dense, accepts_row, 13),
            (("conv2d",), "depthwise_conv2d", "conv2d", lower_depthwise, accepts_depthwise, 15),
        )
        for same, priority, in_place in ((accepts_same_skip, best, (1,)), (lambda _: None, best - 1, ()))
        for root in roots
        for end in ("requantize", "add+requantize", "sub+requantize")
        for dtype in ("s8", "s16")
    ),
    *(
        _row(pattern, dtype, "add", "add", lower, accepts, 10, in_place)
        for pattern, lower, accepts, in_place in (
            ("add+requantize", lower_add, accepts_add, (0, 1)),
            ("sub+requantize", lower_add, accepts_add, (0, 1)),
            ("requantize", lower_alone, accepts_alone, (0,)),
        )
        for dtype in ("s8", "s16")
    ),
)
