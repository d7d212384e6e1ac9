"""One TIR function with its schedule for each step: what the kernels compute, and in which order."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import reduce
from typing import Any

from tvm import s_tir, te, tirx

from qcc.backends.kernel import Call, Step
from qcc.backends.scalar.lowering import requantize_params, zero_point
from qcc.backends.target import Generated
from qcc.backends.tvm.isa import Isa
from qcc.backends.tvm.rows import filters_of, image_of, workspace_of
from qcc.ir.ops.conv import Conv2d
from qcc.ir.ops.pool import MaxPool2d, Pool

Tensor = Any  # of TVM, which has no types
MAGIC = 1.5 * 2**23  # float32 + this has the nearest integer, ties to even, in its low bits
MAGIC_BITS = 0x4B400000
TILE_BLOCKS = 4  # vectors of output channels in a tile, at most


def scheduled(function: Generated, isa: Isa) -> Any:
    """The scheduled PrimFunc: buffers of inputs, constants, output and workspace, as in ``prototype``."""
    return _BUILDERS[function.kernel.symbol](function.step, function.call, isa)


def _placeholders(call: Call) -> dict[str, Tensor]:
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
        nearest = tirx.reinterpret("int32", real + tirx.const(MAGIC, "float32")) - MAGIC_BITS + offset
        return nearest.astype("int8")
    shift = constants["shift"][at]
    half = tirx.const(1, "int64") << (shift - 1)
    scaled = ((sum_.astype("int64") * constants["multiplier"][at] + half) >> shift) + offset
    return tirx.max(tirx.min(scaled, tirx.const(high, "int64")), tirx.const(low, "int64")).astype("int8")


def _dot(step: Step, call: Call, isa: Isa) -> Any:
    """Implicit GEMM: a tile of pixels times vectors of output channels in registers, channels of the input in quads."""
    height, width, channels = image_of(step)
    op = step.root.op
    is_conv = isinstance(op, Conv2d)
    top, left, bottom, right = op.pads if is_conv else (0, 0, 0, 0)
    strides, dilations = (op.strides, op.dilations) if is_conv else ((1, 1), (1, 1))
    pad_value = op.pad_value if is_conv else 0
    constants = _placeholders(call)
    weights = constants["weights"]
    blocks, taps_y, taps_x, quads, lanes, _ = (int(n) for n in weights.shape)
    outputs = step.output.type.shape[-1]
    rows, columns = (step.output.type.shape[1:3]) if is_conv else (1, width)
    if (
        is_conv and (taps_y, taps_x) == (1, 1) and strides == (1, 1) and not any(op.pads)
    ):  # rows are one long row
        height, width, rows, columns = 1, height * width, 1, rows * columns
    x = te.placeholder((height, width, channels), "int8", name="x0")
    skip = (
        te.placeholder((rows, columns, outputs), "int8", name="x1")
        if "skip_multiplier" in constants
        else None
    )
    code = "uint8" if isa.centre else "int8"

    def bordered(i: Tensor, j: Tensor, c: Tensor) -> Tensor:
        inside = tirx.all(i >= top, i < top + height, j >= left, j < left + width, c < channels)
        value = tirx.if_then_else(inside, x[i - top, j - left, c], tirx.const(pad_value, "int8"))
        return (value.astype("int32") + isa.centre).astype(code) if isa.centre else value

    image = te.compute((height + top + bottom, width + left + right, 4 * quads), bordered, name="workspace")
    ky, kx = te.reduce_axis((0, taps_y), "ky"), te.reduce_axis((0, taps_x), "kx")
    quad, byte = te.reduce_axis((0, quads), "quad"), te.reduce_axis((0, 4), "byte")

    def product(o: Tensor, i: Tensor, j: Tensor, v: Tensor) -> Tensor:
        at = image[i * strides[0] + ky * dilations[0], j * strides[1] + kx * dilations[1], quad * 4 + byte]
        return te.sum(
            at.astype("int32") * weights[o, ky, kx, quad, v, byte].astype("int32"), [ky, kx, quad, byte]
        )

    sums = te.compute((blocks, rows, columns, lanes), product, name="sums")

    def result(i: Tensor, j: Tensor, c: Tensor) -> Tensor:
        total = sums[c // lanes, i, j, c % lanes] + constants["bias"][c]
        if skip is not None:
            difference = skip[i, j, c].astype("int32") - zero_point(step.inputs[-1])
            total = total + difference * constants["skip_multiplier"][c]
        return requantized(total, c, constants, step)

    y = te.compute((rows, columns, outputs), result, name="output")
    arguments = [x, *([skip] if skip is not None else []), *constants.values(), y, image]
    schedule = s_tir.Schedule(te.create_prim_func(arguments))
    across, along = _tile(blocks, columns, isa.registers)
    _tile_sums(schedule, across, along, lanes, isa.dot)
    return schedule.mod["main"]


def _tile(blocks: int, columns: int, registers: int) -> tuple[int, int]:
    """Vectors of channels and pixels of a tile: of those that divide, the one with most products for its loads."""
    sizes = [
        (across, along)
        for across in range(1, TILE_BLOCKS + 1)
        for along in range(1, registers // across + 1)
        if blocks % across == 0 and columns % along == 0
    ]
    return max(sizes, key=lambda s: (s[0] * s[1] / (s[0] + s[1]), s[0]))


def _tile_sums(schedule: Any, across: int, along: int, lanes: int, dot: str) -> None:
    sums, output = schedule.get_sblock("sums"), schedule.get_sblock("output")
    row, column, channel = schedule.get_loops(output)
    block, lane = schedule.split(channel, [None, lanes])
    outer, inner = schedule.split(block, [None, across])
    tile, pixel = schedule.split(column, [None, along])
    schedule.reorder(outer, row, tile, inner, pixel, lane)
    schedule.compute_at(sums, tile, preserve_unit_loops=True)
    schedule.vectorize(lane)
    schedule.unroll(inner)
    schedule.unroll(pixel)
    o, i, j, v, ky, kx, quad, byte = schedule.get_loops(sums)[-8:]
    schedule.reorder(i, ky, kx, quad, j, o, v, byte)
    schedule.unroll(j)
    schedule.unroll(o)
    zeros = schedule.decompose_reduction(sums, ky)
    *_, first, second, vector = schedule.get_loops(zeros)
    schedule.unroll(first)
    schedule.unroll(second)
    schedule.vectorize(vector)
    schedule.tensorize(v, dot)


def _with_borders(x: Tensor, pads: tuple[int, int, int, int], bottom: int, right: int, value: int) -> Tensor:
    """The image, s8[H, W, C], with ``value`` around it, down to row ``bottom`` and column ``right``."""
    height, width, channels = x.shape
    top, left = pads[:2]

    def bordered(i: Tensor, j: Tensor, c: Tensor) -> Tensor:
        inside = tirx.all(i >= top, i < top + height, j >= left, j < left + width)
        return tirx.if_then_else(inside, x[i - top, j - left, c], tirx.const(value, "int8"))

    return te.compute((bottom, right, channels), bordered, name="workspace")


def _windows(step: Step) -> tuple[Tensor, Callable[[Tensor, Tensor, int, int, Tensor], Tensor], list[Tensor]]:
    """The image x0; what the tap of a window reads; the workspace, where there are borders."""
    op = step.root.op
    assert isinstance(op, Conv2d | Pool)
    rows, columns, _ = step.output.type.shape[1:]
    taps = filters_of(step).shape[1:3] if isinstance(op, Conv2d) else op.kernel
    spans = [
        (out - 1) * stride + (k - 1) * dilation + 1
        for out, stride, k, dilation in zip((rows, columns), op.strides, taps, op.dilations, strict=True)
    ]
    x = te.placeholder(image_of(step), "int8", name="x0")
    image, scratch = x, []
    if workspace_of(step):
        value = op.pad_value if isinstance(op, Conv2d) else -128
        image = _with_borders(x, op.pads, *spans, value)
        scratch = [image]

    def tap(i: Tensor, j: Tensor, ky: int, kx: int, c: Tensor) -> Tensor:
        return image[i * op.strides[0] + ky * op.dilations[0], j * op.strides[1] + kx * op.dilations[1], c]

    return x, tap, scratch


def _depthwise(step: Step, call: Call, isa: Isa) -> Any:
    """A filter for each channel: products in 16 bits, which hold them exactly, sums in 32; vectors of channels."""
    constants = _placeholders(call)
    weights = constants["weights"]
    x, tap, scratch = _windows(step)
    shape = step.output.type.shape[1:]
    taps = [(ky, kx) for ky in range(int(weights.shape[0])) for kx in range(int(weights.shape[1]))]
    skip = te.placeholder(shape, "int8", name="x1") if "skip_multiplier" in constants else None

    def result(i: Tensor, j: Tensor, c: Tensor) -> Tensor:
        total = constants["bias"][c]
        for ky, kx in taps:
            product = tap(i, j, ky, kx, c).astype("int16") * weights[ky, kx, c]
            total = total + product.astype("int32")
        if skip is not None:
            difference = skip[i, j, c].astype("int32") - zero_point(step.inputs[-1])
            total = total + difference * constants["skip_multiplier"][c]
        return requantized(total, c, constants, step)

    y = te.compute(shape, result, name="output")
    skips = [skip] if skip is not None else []
    return _over_channels([x, *skips, *constants.values(), y, *scratch], 4 * isa.lanes)


def _max_pool(step: Step, call: Call, isa: Isa) -> Any:
    """The largest of each window: vectors of channels."""
    op = step.root.op
    assert isinstance(op, MaxPool2d)
    x, tap, scratch = _windows(step)

    def result(i: Tensor, j: Tensor, c: Tensor) -> Tensor:
        taps = [tap(i, j, ky, kx, c) for ky in range(op.kernel[0]) for kx in range(op.kernel[1])]
        return reduce(tirx.max, taps)

    y = te.compute(step.output.type.shape[1:], result, name="output")
    return _over_channels([x, y, *scratch], 4 * isa.lanes)


def _over_channels(arguments: list[Tensor], lanes: int) -> Any:
    """The channels of the output in vectors of at most ``lanes``, of those powers of two that divide their number."""
    schedule = s_tir.Schedule(te.create_prim_func(arguments))
    *_, channel = schedule.get_loops(schedule.get_sblock("output"))
    extent = int(schedule.get(channel).extent)
    size = math.gcd(extent, lanes)  # LLVM takes vectors of other lengths apart, lane by lane
    _, inner = schedule.split(channel, [None, size])
    schedule.vectorize(inner)
    return schedule.mod["main"]


_BUILDERS: dict[str, Callable[[Step, Call, Isa], Any]] = {
    "tvm_conv2d": _dot,
    "tvm_dense": _dot,
    "tvm_depthwise_conv2d": _depthwise,
    "tvm_max_pool2d": _max_pool,
}
