"""Means and sums over neighbouring axes, as kernels of vectors see them: one window over an image one pixel high."""

from __future__ import annotations

from math import prod

from qcc.backends.kernel import Call, Step
from qcc.backends.scalar.lowering import requantize_params, zero_point
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


def _extents(step: Step) -> tuple[int, int, int]:
    """Elements before, along and behind the reduced axes."""
    op, shape = step.root.op, step.root.input(0).type.shape
    assert isinstance(op, ReduceMean | ReduceSum)
    first, last = min(op.axes, default=0), max(op.axes, default=-1)
    return prod(shape[:first]), prod(shape[axis] for axis in op.axes), prod(shape[last + 1 :])


def sum_window(step: Step) -> dict[str, int]:
    """The params of average pooling: a window of one row; the scale of a mean is in the requantization."""
    before, count, inner = _extents(step)
    return {
        "batch": before,
        **_one_row(count, inner),
        "input_zero_point": zero_point(step.root.input(0)),
        "requantize_channels": inner,
        **requantize_params(step),
    }


def lower_sum(step: Step) -> Call:
    """Of the kernels that leave sums: batch, count, channels and bias."""
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
