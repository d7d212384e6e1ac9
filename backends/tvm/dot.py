"""Convolutions and dense layers: an implicit matrix product in tiles of registers."""

from __future__ import annotations

from typing import Any

from tvm import te, tirx

from qcc.backends.kernel import Call, Step
from qcc.backends.tvm.epilogue import Template, Tensor, finished, placeholders, skip_placeholder
from qcc.backends.tvm.isa import Dot, Isa
from qcc.backends.tvm.rows import rows_of
from qcc.ir.ops.conv import Conv2d

TILE_BLOCKS = 4  # vectors of output channels in a tile, at most


def dot(step: Step, call: Call, isa: Isa) -> Template:
    """Implicit GEMM: a tile of pixels times vectors of output channels in registers, channels of the input in quads.

    An intrinsic may take two pixels, and pairs of channels: sums lie as it leaves them.
    """
    at, op = rows_of(step), step.root.op
    pad_value = op.pad_value if isinstance(op, Conv2d) else 0
    constants = placeholders(call)
    weights = constants["weights"]
    blocks, taps_y, taps_x, quads, lanes, depth = (int(n) for n in weights.shape)
    rows, columns, outputs = at.rows, at.columns, step.output.type.shape[-1]
    unit = isa.dot(columns)
    x = te.placeholder((at.height, at.width), "int8", name="x0")
    skips = skip_placeholder((rows, columns, outputs), constants)
    code = "uint8" if isa.centre else "int8"

    def bordered(i: Tensor, j: Tensor) -> Tensor:
        inside = tirx.all(i >= at.top, i < at.top + at.height, j >= at.left, j < at.left + at.width)
        value = tirx.if_then_else(inside, x[i - at.top, j - at.left], tirx.const(pad_value, "int8"))
        return (value.astype("int32") + isa.centre).astype(code) if isa.centre else value

    image = te.compute(at.image(depth), bordered, name="workspace")
    ky, kx = te.reduce_axis((0, taps_y), "ky"), te.reduce_axis((0, taps_x), "kx")
    quad, byte = te.reduce_axis((0, quads), "quad"), te.reduce_axis((0, depth), "byte")

    units = columns // unit.pixels, lanes // unit.channels

    def read(i: Tensor, j: Tensor, y: Tensor, x: Tensor, q: Tensor, p: Tensor, b: Tensor) -> Tensor:
        across = (j * unit.pixels + p) * at.steps[1] + x * at.gaps[1] + q * depth + b
        return image[i * at.steps[0] + y * at.gaps[0], across]

    if unit.pixels > 1:  # side by side, as the intrinsic wants them
        shape = (rows, units[0], taps_y, taps_x, quads, unit.pixels, depth)
        read = te.compute(shape, read, name="pixels")

    def product(o: Tensor, i: Tensor, j: Tensor, u: Tensor, p: Tensor, v: Tensor) -> Tensor:
        weight = weights[o, ky, kx, quad, u * unit.channels + v, byte].astype("int32")
        return te.sum(read(i, j, ky, kx, quad, p, byte).astype("int32") * weight, [ky, kx, quad, byte])

    sums = te.compute((blocks, rows, *units, unit.pixels, unit.channels), product, name="sums")

    def result(i: Tensor, j: Tensor, c: Tensor) -> Tensor:
        total = sums[
            c // lanes, i, j // unit.pixels, c % lanes // unit.channels, j % unit.pixels, c % unit.channels
        ]
        return finished(total, (i, j, c), constants, skips, step)

    y = te.compute((rows, columns, outputs), result, name="output")
    arguments = [x, *skips, *constants.values(), y, image]
    tile = _tile(blocks, units[0], units[1], isa.registers)
    return te.create_prim_func(arguments), lambda s: _tile_sums(s, tile, lanes, unit)


def _tile(blocks: int, columns: int, vectors: int, registers: int) -> tuple[int, int]:
    """Blocks of channels, each so many vectors, and columns of a tile: of those that divide, with most products for the loads."""
    sizes = [
        (across, along)
        for across in range(1, TILE_BLOCKS + 1)
        for along in range(1, registers // (across * vectors) + 1)
        if blocks % across == 0 and columns % along == 0
    ]
    return max(sizes, key=lambda s: (s[0] * s[1] / (s[0] * vectors + s[1]), s[0]))


def _tile_sums(schedule: Any, sizes: tuple[int, int], lanes: int, unit: Dot) -> None:
    across, along = sizes
    sums, output = schedule.get_sblock("sums"), schedule.get_sblock("output")
    row, column, channel = schedule.get_loops(output)
    block, lane = schedule.split(channel, [None, lanes])
    outer, inner = schedule.split(block, [None, across])
    tile, pixel = schedule.split(column, [None, along * unit.pixels])
    schedule.reorder(outer, row, tile, inner, pixel, lane)
    schedule.compute_at(sums, tile, preserve_unit_loops=True)
    schedule.vectorize(lane)
    schedule.unroll(inner)
    schedule.unroll(pixel)
    o, i, j, u, p, v, ky, kx, quad, byte = schedule.get_loops(sums)[-10:]
    schedule.reorder(i, ky, kx, quad, j, o, u, p, v, byte)
    for loop in (j, o, u):
        schedule.unroll(loop)
    if unit.pixels > 1:
        pixels = schedule.get_sblock("pixels")
        schedule.compute_at(pixels, quad, preserve_unit_loops=True)
        *_, column, _, _, _, both, bytes_ = schedule.get_loops(pixels)
        schedule.unroll(column)
        schedule.unroll(both)
        schedule.vectorize(bytes_)
    zeros = schedule.decompose_reduction(sums, ky)
    *outside, p_, v_ = schedule.get_loops(zeros)
    for loop in outside[-3:]:
        schedule.unroll(loop)
    schedule.vectorize(schedule.fuse(p_, v_))
    schedule.tensorize(p if unit.pixels > 1 else v, unit.name)
