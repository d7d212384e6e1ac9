"""Rows of pooling, and of means and sums over neighbouring axes, for AVX512."""

from __future__ import annotations

from math import prod

import numpy as np

from qcc.backends.kernel import Call, Kernel, Step
from qcc.backends.scalar.lowering import requantize_params, zero_point
from qcc.backends.scalar.window import lower_max_pool2d, lower_s8_avg_pool2d
from qcc.backends.x86.lanes import certified, float_scale, in_lanes, source
from qcc.ir.ops.reduce import ReduceMean, ReduceSum

_COUNT_MAX = 2**23  # as many sums of 8 bits fit 32, whatever they are


def accepts_sum(step: Step) -> str | None:
    """Neighbouring axes, not the last ones."""
    before, count, inner = _extents(step)
    if before * count * inner != step.root.input(0).type.elements or inner == 1:
        return "the reduced axes are not neighbours, or the last ones"
    if count >= _COUNT_MAX:
        return f"{count} elements are added, the kernel's limit is {_COUNT_MAX}"
    return None


def accepts_reduce(step: Step) -> str | None:
    """As accepts_sum, and certified."""
    return accepts_sum(step) or certified(step)


def _extents(step: Step) -> tuple[int, int, int]:
    """Elements before, along and behind the reduced axes."""
    op, shape = step.root.op, step.root.input(0).type.shape
    assert isinstance(op, ReduceMean | ReduceSum)
    first, last = min(op.axes, default=0), max(op.axes, default=-1)
    return prod(shape[:first]), prod(shape[axis] for axis in op.axes), prod(shape[last + 1 :])


def lower_reduce(step: Step) -> Call:
    """s8_avg_pool2d_avx512vnni: a window of one row; the scale of a mean is in the requantization."""
    before, count, inner = _extents(step)
    scale = float_scale(step)
    params = {
        "batch": before,
        **_one_row(count, inner),
        "input_zero_point": zero_point(step.root.input(0)),
        "requantize_channels": inner,
        **requantize_params(step),
    }
    return Call(params, {"factors": None, "scale": in_lanes(np.tile(scale, inner // scale.size))})


def lower_sum(step: Step) -> Call:
    """s8_sum_accumulator_avx512vnni."""
    before, count, inner = _extents(step)
    bias = -count * zero_point(step.root.input(0))
    return Call({"batch": before, "count": count, "channels": inner, "bias": bias})


def _one_row(count: int, channels: int) -> dict[str, int]:
    """One window over all of an image one pixel high."""
    ones = ("output_height", "output_width", "kernel_height")
    steps = ("stride_height", "stride_width", "dilation_height", "dilation_width")
    image = {"input_height": 1, "input_width": count, "channels": channels}
    window = {**dict.fromkeys(ones, 1), "kernel_width": count, **dict.fromkeys(steps, 1)}
    return {**image, **window, "pad_top": 0, "pad_left": 0}


def lower_avg_pool2d(step: Step) -> Call:
    """s8_avg_pool2d_avx512vnni: the scalar row's numbers, and the scale of each channel."""
    call = lower_s8_avg_pool2d(step)
    scale = float_scale(step, step.output.type.shape[-1])
    return Call(call.params, {"factors": call.constants["factors"], "scale": in_lanes(scale)})


_MEANS = "qcc_s8_avg_pool2d_avx512vnni"
_SUMS = "qcc_s8_sum_accumulator_avx512vnni"
_MAX = "qcc_s8_max_pool2d_avx512"

KERNELS: tuple[Kernel, ...] = (
    *(
        Kernel(
            pattern=f"{op}+requantize",
            dtype="s8",
            symbol=_MEANS,
            params_type="qcc_avg_pool2d_params",
            source=source(_MEANS),
            lower=lowering,
            accepts=accepts,
            priority=10,
            uses_float=True,
        )
        for op, lowering, accepts in (
            ("avg_pool2d", lower_avg_pool2d, certified),
            ("reduce_mean", lower_reduce, accepts_reduce),
            ("reduce_sum", lower_reduce, accepts_reduce),
        )
    ),
    *(
        Kernel(op, "s8", _SUMS, "qcc_avx512_sum_params", source(_SUMS), lower_sum, accepts_sum, priority=10)
        for op in ("reduce_mean", "reduce_sum")
    ),
    Kernel("max_pool2d", "s8", _MAX, "qcc_max_pool2d_params", source(_MAX), lower_max_pool2d, priority=10),
)
