"""What all schedules share: buffers of a call, and the end of a sum in 8 bits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tvm import te, tirx

from qcc.backends.kernel import Call, Step
from qcc.backends.scalar.lowering import requantize_params, zero_point
from qcc.ir.ops.quant import Requantize

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


def requantizes_channels(constants: dict[str, Tensor]) -> bool:
    """Whether each channel is requantized in its own way."""
    return any(int(constants[name].shape[0]) > 1 for name in ("scale", "shift") if name in constants)


def requantized(sum_: Tensor, at: int, constants: dict[str, Tensor], step: Step) -> Tensor:
    """What a sum of channel ``at`` becomes: in float32 where that is certified, else in 64 bits; see fixedpoint.

    The constants have one element, or one for each channel.
    """
    dtype = step.output.type.dtype.numpy.name
    at = at if requantizes_channels(constants) else 0
    params = requantize_params(step)
    offset, low, high = (int(params[k]) for k in ("output_zero_point", "low", "high"))
    if "scale" in constants:
        real = sum_.astype("float32") * constants["scale"][at]
        real = tirx.max(
            tirx.min(real, tirx.const(high - offset, "float32")), tirx.const(low - offset, "float32")
        )
        even = offset - offset % 2  # which leaves ties what they are
        code = tirx.reinterpret("int32", real + tirx.const(MAGIC + even, "float32")) + (offset - even)
        return code.astype(dtype)
    shift = constants["shift"][at]
    half = tirx.const(1, "int64") << (shift - 1)
    scaled = ((sum_.astype("int64") * constants["multiplier"][at] + half) >> shift) + offset
    return tirx.max(tirx.min(scaled, tirx.const(high, "int64")), tirx.const(low, "int64")).astype(dtype)


def skip_placeholder(shape: tuple[int, ...], constants: dict[str, Tensor]) -> list[Tensor]:
    """The residual operand, s8 of the output's shape, where there is one."""
    return [te.placeholder(shape, "int8", name="x1")] if "skip_multiplier" in constants else []


def finished(
    total: Tensor, at: tuple[Tensor, ...], constants: dict[str, Tensor], skips: list[Tensor], step: Step
) -> Tensor:
    """The products' sum at an index of the output with bias and residual operand, requantized where the step does that."""
    channel = at[-1]
    total = total + constants["bias"][channel]
    for skip in skips:
        difference = skip[at].astype("int32") - zero_point(step.inputs[-1])
        total = total + difference * constants["skip_multiplier"][channel]
    return (
        requantized(total, channel, constants, step) if isinstance(step.nodes[-1].op, Requantize) else total
    )


def in_rows(schedule: Any, stages: Sequence[str], is_flat: bool = False) -> None:
    """Innermost are loops over channels, or over everything: as long as they can be, LLVM makes vectors of any length.

    ``stages``: blocks of reductions in the order of computation, each done for a row of the output before that.
    """
    loops = schedule.get_loops(schedule.get_sblock("output"))
    for name in reversed(stages):
        stage = schedule.get_sblock(name)
        if len(loops) > 1:
            schedule.compute_at(stage, loops[-2], preserve_unit_loops=True)
        axes = schedule.get(stage).iter_vars
        own = schedule.get_loops(stage)[-len(axes) :]
        reduced = [
            loop for loop, axis in zip(own, axes, strict=True) if axis.iter_type == tirx.IterVar.CommReduce
        ]
        *outer, channel = own[: -len(reduced)]
        if int(schedule.get(channel).extent) > 1:
            schedule.reorder(*outer, *reduced, channel)
        schedule.decompose_reduction(stage, reduced[0])
    if is_flat:
        schedule.fuse(*loops)
