"""What the rows of steps with tensors of 16 bits share on Arm.

Sums are int32 and wrap around, so that only where they end must be proved. Where a shift is less than the least one that a
kernel has, the accumulator is moved up first, which is proved to stay within 32 bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qcc.backends.kernel import Call, Step
from qcc.backends.scalar import elementwise, wide_convolution
from qcc.backends.scalar.convolution import skip_operand
from qcc.backends.scalar.lowering import Params, constant, requantize_constants, requantize_params, zero_point
from qcc.backends.scalar.wide import accepts_equal_shapes, type_bytes
from qcc.ir.graph import Value
from qcc.ir.ops.conv import Conv2d

Shifts = tuple[int, int]  # least and greatest
_STEPS = 2**10  # results that are compared one by one
STILL_BIAS, STILL_MULTIPLIER, STILL_SHIFT = 8, 2**30, 33  # of a constant channel: 8 * 2^30 / 2^33 = 1
UNPROVEN = "the accumulators have no proven interval"
CONV_PARAMS = (
    *("batch", "input_height", "input_width", "input_channels"),
    *("output_height", "output_width", "output_channels", "kernel_height", "kernel_width"),
    *("stride_height", "stride_width", "dilation_height", "dilation_width"),
    *("pad_top", "pad_left", "pad_value", "input_bytes", "skip_bytes", "output_bytes"),
    *("output_zero_point", "low", "high"),
)


# ---------------------------------------------------------------- requantization
@dataclass(frozen=True)
class Requantization:
    """s64[C] each: ``multiplier``, ``shift`` with ``up``, ``up``; ``low``, ``high``: proven ends of the accumulator.

    bool[C] ``still``: channels whose result less the zero_point is ``value`` for every accumulator, as that of STILL_BIAS times
    ``value`` is with the numbers that stand here for them. ``greatest``: shift that the kernels have.
    """

    multiplier: NDArray[np.int64]
    shift: NDArray[np.int64]
    up: NDArray[np.int64]
    low: NDArray[np.int64]
    high: NDArray[np.int64]
    still: NDArray[np.bool_]
    value: NDArray[np.int64]
    greatest: int

    @property
    def refused(self) -> str | None:
        """Why the kernels cannot do it."""
        if self.low.min(initial=0) < -(2**31) or self.high.max(initial=0) >= 2**31:
            return f"accumulators between {self.low.min()} and {self.high.max()} leave 32 bits"
        if (self.shift > self.greatest).any():
            return f"a shift is greater than {self.greatest}"
        largest = np.maximum(-self.low, self.high + 1) << np.minimum(self.up, 31)
        return "a shift is too small" if (~self.still & (largest > 2**31)).any() else None


def requantization(step: Step, shifts: Shifts, channels: int = 1) -> Requantization | None:
    """None where the accumulators have no proven interval; ``shifts``: least and greatest; ``channels``: at least so many."""
    node = step.nodes[-1]
    least, most = constant(node, "acc_min"), constant(node, "acc_max")
    if least is None or most is None:
        return None
    planned = requantize_constants(step)
    arrays = [a.astype(np.int64).reshape(-1) for a in (planned["multiplier"], planned["shift"], least, most)]
    multiplier, shift, low, high, _ = (a.copy() for a in np.broadcast_arrays(*arrays, np.zeros(channels)))
    # what is beyond 16 bits is saturated like what is at their end
    ends = [
        np.clip((end * multiplier + np.left_shift(1, shift - 1)) >> shift, -(2**16), 2**16)
        for end in (low, high)
    ]
    still = ends[0] == ends[1]
    for c in np.flatnonzero(~still & (shift > shifts[1])):
        channel = (int(multiplier[c]), int(shift[c]), int(low[c]), int(high[c]))
        multiplier[c], shift[c] = shortened(*channel, shifts[1]) or channel[:2]
    up = np.where(still, 0, np.maximum(shifts[0] - shift, 0))
    return Requantization(
        np.where(still, STILL_MULTIPLIER, multiplier),
        np.where(still, STILL_SHIFT, shift + up),
        *(up, low, high, still, ends[0], shifts[1]),
    )


def shortened(multiplier: int, shift: int, low: int, high: int, greatest: int) -> tuple[int, int] | None:
    """A multiplier for the shift ``greatest``, less than ``shift``, with the same results from ``low`` to ``high``.

    Results are steps: the same at both ends, and rising at the same accumulators, they are the same. None: there is none.
    """

    def result(acc: int, m: int, s: int) -> int:
        return acc * m + (1 << s - 1) >> s

    ends = [result(acc, multiplier, shift) for acc in (low, high)]
    if ends[1] - ends[0] > _STEPS:
        return None

    def rises(m: int, s: int) -> list[int]:
        """The least accumulator of each result but the first."""
        return [-(((1 << s - 1) - (j << s)) // m) for j in range(ends[0] + 1, ends[1] + 1)]

    nearest = multiplier >> shift - greatest
    for m in (nearest, nearest + 1):
        same_ends = m > 0 and [result(acc, m, greatest) for acc in (low, high)] == ends
        if same_ends and rises(m, greatest) == rises(multiplier, shift):
            return m, greatest
    return None


def accepts_requantize(step: Step, shifts: Shifts) -> str | None:
    """Accumulators that are proved to stay within 32 bits, as far as they are moved."""
    found = requantization(step, shifts)
    return UNPROVEN if found is None else found.refused


def wrapped(sums: NDArray[np.int64]) -> NDArray[np.int32]:
    """Modulo 2^32: they wrap around as the accumulator does."""
    return (sums & 0xFFFFFFFF).astype(np.uint32).view(np.int32)


# ---------------------------------------------------------------- convolution and dense
@dataclass(frozen=True)
class Numbers:
    """``weights`` as the portable kernel has them, [..., C last] for a depthwise one; s64[C]: bias, multiplier, shift + up, up.

    A constant channel becomes a bias of its value, without weights.
    """

    call: Call
    weights: NDArray[np.int8]
    bias: NDArray[np.int64]
    multiplier: NDArray[np.int64]
    shift: NDArray[np.int64]
    up: NDArray[np.int64]
    skip_multiplier: NDArray[np.int32] | None


def numbers_of(step: Step, call: Call, axis: int, shifts: Shifts) -> Numbers:
    """Of a call of a portable kernel; ``axis``: of the channels in its weights."""
    channels = step.output.type.shape[-1]
    found = requantization(step, shifts, channels)
    weights, bias = call.constants["weights"], call.constants["bias"]
    assert found is not None
    assert weights is not None
    assert bias is not None
    skip, offset = call.constants["skip_multiplier"], call.params["skip_zero_point"]
    assert isinstance(offset, int)
    if skip is not None:
        bias = bias - offset * skip.astype(np.int64)
    still = found.still
    shape = [1] * weights.ndim
    shape[axis] = channels
    return Numbers(
        call,
        np.where(still.reshape(shape), 0, weights).astype(np.int8),
        np.where(still, found.value * STILL_BIAS, bias),
        *(found.multiplier, found.shift, found.up),
        None if skip is None else np.where(still, 0, skip).astype(np.int32),
    )


def portable(step: Step) -> Call:
    """The call of wide_conv2d_scalar."""
    is_conv = isinstance(step.root.op, Conv2d)
    return (wide_convolution.lower_conv2d if is_conv else wide_convolution.lower_dense)(step)


def accepts_conv2d(step: Step, shifts: Shifts) -> str | None:
    """One group."""
    op = step.root.op
    if isinstance(op, Conv2d) and op.groups != 1:
        return "more than one group"
    return wide_convolution.accepts_convolution(step) or accepts_requantize(step, shifts)


def accepts_same_skip(step: Step) -> str | None:
    """Some channels are written before others are read."""
    skip = skip_operand(step)[0]
    same = skip is None or skip.type.dtype is step.output.type.dtype
    return None if same else "the residual operand and the output have other types"


# ---------------------------------------------------------------- sums
def accepts_add(step: Step, shifts: Shifts) -> str | None:
    """Two activations of one shape, the same numbers for all channels."""
    if any(step.root.input(i).is_constant for i in range(2)):
        return "an operand is constant"
    if elementwise.requantize_channels(step) > 1:
        return "the multipliers differ between channels"
    return accepts_equal_shapes(step) or accepts_requantize(step, shifts)


def accepts_alone(step: Step, shifts: Shifts) -> str | None:
    """The same numbers for all channels."""
    if requantize_constants(step)["multiplier"].size > 1:
        return "the multipliers differ between channels"
    return accepts_requantize(step, shifts)


def lower_add(step: Step, shifts: Shifts) -> Call:
    """The sum: its params without the requantization, then multiplier, shift + up and up."""
    factors = [int(elementwise.operand_factors(step, i)[0]) for i in range(2)]
    return _sum(step, (step.root.input(0), step.root.input(1)), factors, shifts)


def lower_alone(step: Step, shifts: Shifts) -> Call:
    """The same: times 1, nothing added."""
    return _sum(step, (step.root.input(0), None), (1, 0), shifts)


def _sum(step: Step, operands: tuple[Value, Value | None], factors: Sequence[int], shifts: Shifts) -> Call:
    found = requantization(step, shifts)
    assert found is not None
    bias = -sum(zero_point(v) * f for v, f in zip(operands, factors, strict=True) if v is not None)
    if found.still[0]:
        bias, factors = int(found.value[0]) * STILL_BIAS, (0, 0)
    params: Params = {
        "count": step.output.type.elements,
        "a_bytes": type_bytes(operands[0]),
        "b_bytes": type_bytes(operands[1]),
        "output_bytes": type_bytes(step.output),
        "a_multiplier": factors[0],
        "b_multiplier": factors[1],
        "bias": int(wrapped(np.asarray([bias], np.int64))[0]),
        "multiplier": int(found.multiplier[0]),
        "shift": int(found.shift[0]),
        "up": int(found.up[0]),
        **requantize_params(step),
    }
    return Call(params, inputs=operands)
