"""What all schedules share: buffers of a call, and the end of a sum in 8 bits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tvm import te, tirx

from qcc.backends.kernel import Call, Step
from qcc.backends.scalar.lowering import requantize_params, zero_point

Tensor = Any  # of TVM, which has no types
# A PrimFunc as tensor expressions make it, what schedules it, and what else could: of these a tuner may choose.
Template = tuple[Any, *tuple[Callable[[Any], None], ...]]
MAGIC = 1.5 * 2**23  # float32 + this has the nearest integer, ties to even, in its low byte


def choose(schedule: Any, candidates: Sequence[int], preferred: int) -> Any:
    """A size in ``schedule``: ``preferred``, unless a tuner finds another one of ``candidates`` to be faster."""
    if len(candidates) == 1:
        return preferred
    shares = [1 / len(candidates)] * len(candidates)
    return schedule.sample_categorical(list(candidates), shares, decision=candidates.index(preferred))


def divisors(extent: int, limit: int) -> list[int]:
    """Those of ``extent``, up to ``limit``."""
    return [n for n in range(1, limit + 1) if extent % n == 0]


def placeholders(call: Call) -> dict[str, Tensor]:
    """The constants of a call by name."""
    return {
        what: te.placeholder(array.shape, array.dtype.name, name=what)
        for what, array in call.constants.items()
        if array is not None
    }


def requantized(sum_: Tensor, at: int, constants: dict[str, Tensor], step: Step) -> Tensor:
    """s8 of an s32 sum of channel ``at``: in float32 where that is certified, else in 64 bits; see fixedpoint."""
    params = requantize_params(step)
    offset, low, high = (int(params[k]) for k in ("output_zero_point", "low", "high"))
    if "scale" in constants:
        real = sum_.astype("float32") * constants["scale"][at]
        real = tirx.max(
            tirx.min(real, tirx.const(high - offset, "float32")), tirx.const(low - offset, "float32")
        )
        even = offset - offset % 2  # which leaves ties what they are
        code = tirx.reinterpret("int32", real + tirx.const(MAGIC + even, "float32")) + (offset - even)
        return code.astype("int8")
    shift = constants["shift"][at]
    half = tirx.const(1, "int64") << (shift - 1)
    scaled = ((sum_.astype("int64") * constants["multiplier"][at] + half) >> shift) + offset
    return tirx.max(tirx.min(scaled, tirx.const(high, "int64")), tirx.const(low, "int64")).astype("int8")


def skip_placeholder(shape: tuple[int, ...], constants: dict[str, Tensor]) -> list[Tensor]:
    """The residual operand, s8 of the output's shape, where there is one."""
    return [te.placeholder(shape, "int8", name="x1")] if "skip_multiplier" in constants else []


def finished(
    total: Tensor, at: tuple[Tensor, ...], constants: dict[str, Tensor], skips: list[Tensor], step: Step
) -> Tensor:
    """s8 of the products' sum at an index of the output: bias, residual operand, requantize."""
    channel = at[-1]
    total = total + constants["bias"][channel]
    for skip in skips:
        difference = skip[at].astype("int32") - zero_point(step.inputs[-1])
        total = total + difference * constants["skip_multiplier"][channel]
    return requantized(total, channel, constants, step)
