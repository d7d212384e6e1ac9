"""Rows of sums and requantization with tensors of 16 bits, for AVX512-VNNI. See wide.py for the arithmetic."""

from __future__ import annotations

from collections.abc import Sequence

from qcc.backends.kernel import Call, Kernel, Step
from qcc.backends.scalar import elementwise
from qcc.backends.scalar.lowering import Params, requantize_constants, requantize_params, zero_point
from qcc.backends.scalar.wide import accepts_equal_shapes, type_bytes
from qcc.backends.x86.wide import accepts_int32, wide_row, wrapped
from qcc.ir.graph import Value

SYMBOL = "qcc_s16_add_avx512vnni"
_VECTOR = 14.0  # cycles of 32 elements
_CALL = 60.0


def accepts_add(step: Step) -> str | None:
    """Two activations of one shape, the same numbers for all channels."""
    if any(step.root.input(i).is_constant for i in range(2)):
        return "an operand is constant"
    if elementwise.requantize_channels(step) > 1:
        return "the multipliers differ between channels"
    return accepts_equal_shapes(step) or accepts_int32(step)


def accepts_requantize(step: Step) -> str | None:
    """The same numbers for all channels."""
    if requantize_constants(step)["multiplier"].size > 1:
        return "the multipliers differ between channels"
    return accepts_int32(step)


def lower_add(step: Step) -> Call:
    """s16_add_avx512vnni."""
    factors = [int(elementwise.operand_factors(step, i)[0]) for i in range(2)]
    return _call(step, (step.root.input(0), step.root.input(1)), factors)


def lower_requantize(step: Step) -> Call:
    """s16_add_avx512vnni: times 1, nothing added."""
    return _call(step, (step.root.input(0), None), (1, 0))


def _call(step: Step, operands: tuple[Value, Value | None], factors: Sequence[int]) -> Call:
    offset = sum(zero_point(v) * f for v, f in zip(operands, factors, strict=True) if v is not None)
    params: Params = {
        "count": step.output.type.elements,
        "a_bytes": type_bytes(operands[0]),
        "b_bytes": type_bytes(operands[1]),
        "output_bytes": type_bytes(step.output),
        "a_multiplier": factors[0],
        "b_multiplier": factors[1],
        "bias": int(wrapped(-offset)),
        **{name: int(array[0]) for name, array in requantize_constants(step).items()},
        **requantize_params(step),
    }
    return Call(params, inputs=operands)


def cost(step: Step) -> float:
    """Cycles."""
    return _CALL + step.output.type.elements / 32 * _VECTOR


KERNELS: tuple[Kernel, ...] = tuple(
    wide_row(
        pattern,
        dtype,
        SYMBOL,
        "qcc_avx512_wide_add_params",
        lower,
        accepts,
        cost,
        in_place=in_place,
    )
    for dtype in ("s16", "s8")
    for pattern, lower, accepts, in_place in (
        ("add+requantize", lower_add, accepts_add, (0, 1)),
        ("sub+requantize", lower_add, accepts_add, (0, 1)),
        ("requantize", lower_requantize, accepts_requantize, (0,)),
    )
)
