"""Windows over each channel by itself: vectors of channels."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from functools import reduce
from typing import Any

from tvm import te, tirx

from qcc.backends.kernel import Call, Step
from qcc.backends.scalar.lowering import zero_point
from qcc.backends.tvm.epilogue import (
    Template,
    Tensor,
    choose,
    finished,
    in_rows,
    placeholders,
    requantized,
    skip_placeholder,
)
from qcc.backends.tvm.isa import Isa
from qcc.backends.tvm.rows import filters_of, image_of, workspace_of
from qcc.ir.ops.conv import Conv2d
from qcc.ir.ops.pool import AvgPool2d, MaxPool2d, Pool


def _with_borders(x: Tensor, pads: tuple[int, int, int, int], bottom: int, right: int, value: int) -> Tensor:
    """The image, s8[H, W, C], with ``value`` around it, down to row ``bottom`` and column ``right``."""
    height, width, channels = x.shape
    top, left = pads[:2]

    def bordered(i: Tensor, j: Tensor, c: Tensor) -> Tensor:
        inside = tirx.all(i >= top, i < top + height, j >= left, j < left + width)
        return tirx.if_then_else(inside, x[i - top, j - left, c], tirx.const(value, "int8"))

    return te.compute((bottom, right, channels), bordered, name="workspace")


def _windows(step: Step, border: int) -> tuple[Tensor, Callable[..., Tensor], list[Tensor]]:
    """The image x0; what the tap of a window reads; the workspace, where there are borders, which hold ``border``."""
    op = step.root.op
    assert isinstance(op, Conv2d | Pool)
    rows, columns, _ = step.output.type.shape[1:]
    taps = filters_of(step).shape[1:3] if isinstance(op, Conv2d) else op.kernel
    down, across = (
        (out - 1) * stride + (k - 1) * dilation + 1
        for out, stride, k, dilation in zip((rows, columns), op.strides, taps, op.dilations, strict=True)
    )
    x = te.placeholder(image_of(step), "int8", name="x0")
    image, scratch = x, []
    if workspace_of(step):
        image = _with_borders(x, op.pads, down, across, border)
        scratch = [image]

    def tap(i: Tensor, j: Tensor, ky: int, kx: int, c: Tensor) -> Tensor:
        return image[i * op.strides[0] + ky * op.dilations[0], j * op.strides[1] + kx * op.dilations[1], c]

    return x, tap, scratch


def dilated_depthwise(step: Step, call: Call, isa: Isa) -> Template:
    """A filter for each channel: products in 16 bits, which hold them exactly, sums in 32; vectors of channels."""
    op, constants = step.root.op, placeholders(call)
    assert isinstance(op, Conv2d)
    weights = constants["weights"]
    x, tap, scratch = _windows(step, op.pad_value)
    shape = step.output.type.shape[1:]
    taps = [(ky, kx) for ky in range(int(weights.shape[0])) for kx in range(int(weights.shape[1]))]
    skips = skip_placeholder(shape, constants)

    def result(i: Tensor, j: Tensor, c: Tensor) -> Tensor:
        products = [tap(i, j, ky, kx, c).astype("int16") * weights[ky, kx, c] for ky, kx in taps]
        total = reduce(operator.add, [product.astype("int32") for product in products])
        return finished(total, (i, j, c), constants, skips, step)

    y = te.compute(shape, result, name="output")
    return _over_channels([x, *skips, *constants.values(), y, *scratch], 4 * isa.lanes)


def max_pool(step: Step, call: Call, isa: Isa) -> Template:
    """The largest of each window: vectors of channels."""
    op = step.root.op
    assert isinstance(op, MaxPool2d)
    x, tap, scratch = _windows(step, -128)

    def result(i: Tensor, j: Tensor, c: Tensor) -> Tensor:
        taps = [tap(i, j, ky, kx, c) for ky in range(op.kernel[0]) for kx in range(op.kernel[1])]
        return reduce(tirx.max, taps)

    y = te.compute(step.output.type.shape[1:], result, name="output")
    return _over_channels([x, y, *scratch], 4 * isa.lanes)


def average_pool(step: Step, call: Call, isa: Isa) -> Template:
    """Sums of windows, times their factors; borders hold the zero_point, which adds nothing."""
    op, constants = step.root.op, placeholders(call)
    assert isinstance(op, AvgPool2d)
    offset = zero_point(step.inputs[0])
    x, tap, scratch = _windows(step, offset)
    ky, kx = (te.reduce_axis((0, k), name) for k, name in zip(op.kernel, ("ky", "kx"), strict=True))
    shape = step.output.type.shape[1:]
    sums = te.compute(
        shape, lambda i, j, c: te.sum(tap(i, j, ky, kx, c).astype("int32"), [ky, kx]), name="sums"
    )

    def result(i: Tensor, j: Tensor, c: Tensor) -> Tensor:
        total = sums[i, j, c] - math.prod(op.kernel) * offset
        total = total * constants["factors"][i, j] if "factors" in constants else total
        return requantized(total, c, constants, step)

    y = te.compute(shape, result, name="output")
    function = te.create_prim_func([x, *constants.values(), y, *scratch])
    return function, lambda schedule: in_rows(schedule, ["sums"])


def _over_channels(arguments: list[Tensor], lanes: int) -> Template:
    """The channels of the output in vectors of at most ``lanes``, of those powers of two that divide their number."""

    def vectorize(schedule: Any) -> None:
        *_, channel = schedule.get_loops(schedule.get_sblock("output"))
        # LLVM takes vectors of other lengths apart, lane by lane
        size = math.gcd(int(schedule.get(channel).extent), lanes)
        sizes = [size >> k for k in range(3) if size >> k]
        _, inner = schedule.split(channel, [None, choose(schedule, sizes, size)])
        schedule.vectorize(inner)

    return te.create_prim_func(arguments), vectorize
