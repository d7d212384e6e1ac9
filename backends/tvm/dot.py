"""Convolutions and dense layers: an implicit matrix product in tiles of registers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from tvm import te, tirx

from qcc.backends.kernel import Call, Step
from qcc.backends.tvm.epilogue import (
    Template,
    Tensor,
    choose,
    divisors,
    finished,
    placeholders,
    skip_placeholder,
)
from qcc.backends.tvm.isa import Dot, Isa
from qcc.backends.tvm.rows import rows_of
from qcc.ir.ops.conv import Conv2d

TILE_BLOCKS = 4  # vectors of output channels in a tile, at most
TILE_QUADS = 4  # quads of input channels between two jumps, at most


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
    tiles = _tiles(blocks, columns, isa, unit)
    return te.create_prim_func(arguments), *(
        partial(_tile_sums, tile=t, quads=quads, isa=isa, unit=unit) for t in tiles
    )


def _tiles(blocks: int, columns: int, isa: Isa, unit: Dot) -> list[tuple[int, list[int]]]:
    """Blocks of channels of a tile, with its numbers of pixels: those that divide, most products for their loads first."""
    vectors = isa.lanes // unit.channels

    def reuse(across: int, along: int) -> tuple[float, int]:
        return across * along / (across * vectors + along), across

    def ranked(across: int) -> list[int]:
        units = divisors(columns // unit.pixels, isa.registers // (across * vectors))
        return sorted(units, key=lambda n: reuse(across, n), reverse=True)

    tiles = [(across, ranked(across)) for across in divisors(blocks, TILE_BLOCKS)]
    tiles.sort(key=lambda tile: reuse(tile[0], tile[1][0]), reverse=True)
    return [(across, [n * unit.pixels for n in alongs]) for across, alongs in tiles]


def _tile_sums(schedule: Any, tile: tuple[int, Sequence[int]], quads: int, isa: Isa, unit: Dot) -> None:
    across, alongs = tile
    along = choose(schedule, alongs, alongs[0])
    at_once = choose(schedule, divisors(quads, TILE_QUADS), 1)
    sums, output = schedule.get_sblock("sums"), schedule.get_sblock("output")
    row, column, channel = schedule.get_loops(output)
    block, lane = schedule.split(channel, [None, isa.lanes])
    outer, inner = schedule.split(block, [None, across])
    group, pixel = schedule.split(column, [None, along])
    schedule.reorder(outer, row, group, inner, pixel, lane)
    schedule.compute_at(sums, group, preserve_unit_loops=True)
    schedule.vectorize(lane)
    schedule.unroll(inner)
    schedule.unroll(pixel)
    o, i, j, u, p, v, ky, kx, quad, byte = schedule.get_loops(sums)[-10:]
    quad, few = schedule.split(quad, [None, at_once])
    schedule.reorder(i, ky, kx, quad, few, j, o, u, p, v, byte)
    for loop in (few, j, o, u):
        schedule.unroll(loop)
    if unit.pixels > 1:
        pixels = schedule.get_sblock("pixels")
        schedule.compute_at(pixels, few, preserve_unit_loops=True)
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
