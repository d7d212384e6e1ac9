"""Depthwise convolutions: dot products of four taps that stand below each other, for 16 channels at a time."""

from __future__ import annotations

from typing import Any

from tvm import te, tirx

from qcc.backends.kernel import Call, Step
from qcc.backends.tvm.epilogue import Template, Tensor, finished, placeholders, skip_placeholder
from qcc.backends.tvm.isa import Isa
from qcc.backends.tvm.rows import GROUP, depthwise_image, image_of
from qcc.ir.ops.conv import Conv2d

TILE = 8  # pixels, at most


def depthwise(step: Step, call: Call, isa: Isa) -> Template:
    """The image in blocks of 16 channels, down and across; of each column, four rows are interleaved for the dot product."""
    op = step.root.op
    assert isinstance(op, Conv2d)
    (height, width, channels), (top, left, _, _) = image_of(step), op.pads
    constants = placeholders(call)
    weights = constants["weights"]
    blocks, fours, taps_x = (int(n) for n in weights.shape[:3])
    rows, columns = step.output.type.shape[1:3]
    x = te.placeholder((height, width, channels), "int8", name="x0")
    skips = skip_placeholder((rows, columns, channels), constants)
    code = "uint8" if isa.centre else "int8"

    def bordered(o: Tensor, j: Tensor, i: Tensor, v: Tensor) -> Tensor:
        c = o * GROUP + v
        inside = tirx.all(i >= top, i < top + height, j >= left, j < left + width, c < channels)
        value = tirx.if_then_else(inside, x[i - top, j - left, c], tirx.const(op.pad_value, "int8"))
        return (value.astype("int32") + isa.centre).astype(code) if isa.centre else value

    image = te.compute(depthwise_image(step), bordered, name="workspace")
    along = max(n for n in range(1, TILE + 1) if columns % n == 0)
    span = (along - 1) * op.strides[1] + (taps_x - 1) * op.dilations[1] + 1
    # tiles overlap in the image: with an axis of their own, each has its columns whole
    quads = te.compute(
        (blocks, rows, columns // along, fours, span, GROUP, 4),
        lambda o, i, tile, q, j, v, byte: image[
            o, tile * (along * op.strides[1]) + j, i * op.strides[0] + 4 * q + byte, v
        ],
        name="quads",
    )
    four, kx = te.reduce_axis((0, fours), "four"), te.reduce_axis((0, taps_x), "kx")
    byte = te.reduce_axis((0, 4), "byte")

    def product(o: Tensor, i: Tensor, tile: Tensor, j: Tensor, v: Tensor) -> Tensor:
        at = quads[o, i, tile, four, j * op.strides[1] + kx * op.dilations[1], v, byte]
        return te.sum(at.astype("int32") * weights[o, four, kx, v, byte].astype("int32"), [four, kx, byte])

    sums = te.compute((blocks, rows, columns // along, along, GROUP), product, name="sums")

    def result(i: Tensor, j: Tensor, c: Tensor) -> Tensor:
        total = sums[c // GROUP, i, j // along, j % along, c % GROUP]
        return finished(total, (i, j, c), constants, skips, step)

    y = te.compute((rows, columns, channels), result, name="output")
    function = te.create_prim_func([x, *skips, *constants.values(), y, image])
    return function, lambda schedule: _tile(schedule, along, isa)


def _tile(schedule: Any, along: int, isa: Isa) -> None:
    image, quads, sums, output = (schedule.get_sblock(n) for n in ("workspace", "quads", "sums", "output"))
    row, column, channel = schedule.get_loops(output)
    block, lane = schedule.split(channel, [None, GROUP])
    tile, pixel = schedule.split(column, [None, along])
    schedule.reorder(block, row, tile, pixel, lane)
    schedule.compute_at(sums, tile, preserve_unit_loops=True)
    schedule.compute_at(quads, tile, preserve_unit_loops=True)
    schedule.vectorize(lane)
    schedule.unroll(pixel)
    *_, four, j, v, _ = schedule.get_loops(quads)
    schedule.unroll(four)
    schedule.unroll(j)
    schedule.tensorize(v, f"qcc.interleave.{'uint8' if isa.centre else 'int8'}")
    o, i, t, j, v, four, kx, byte = schedule.get_loops(sums)[-8:]
    vector, v = schedule.split(v, [None, isa.lanes])
    schedule.reorder(o, i, t, four, kx, j, vector, v, byte)
    zeros = schedule.decompose_reduction(sums, four)
    for loop in (four, kx, j, vector):
        schedule.unroll(loop)
    *_, j, lane = schedule.get_loops(zeros)
    schedule.unroll(j)
    schedule.vectorize(lane)
    schedule.tensorize(v, isa.lanes_dot)
    block, column, row, lane = schedule.get_loops(image)
    schedule.reorder(row, column, block, lane)  # as the image lies in memory
    schedule.vectorize(lane)
