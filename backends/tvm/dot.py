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
from qcc.backends.tvm.isa import Isa
from qcc.backends.tvm.rows import rows_of
from qcc.ir.ops.conv import Conv2d

TILE_BLOCKS = 4  # vectors of output channels in a tile, at most
TILE_QUADS = 4  # quads of input channels between two jumps, at most


def dot(step: Step, call: Call, isa: Isa) -> Template:
    """Implicit GEMM: a tile of pixels times vectors of output channels in registers, channels of the input in quads."""
    at, op = rows_of(step), step.root.op
    pad_value = op.pad_value if isinstance(op, Conv2d) else 0
    constants = placeholders(call)
    weights = constants["weights"]
    blocks, taps_y, taps_x, quads, lanes, _ = (int(n) for n in weights.shape)
    rows, columns, outputs = at.rows, at.columns, step.output.type.shape[-1]
    x = te.placeholder((at.height, at.width), "int8", name="x0")
    skips = skip_placeholder((rows, columns, outputs), constants)
    code = "uint8" if isa.centre else "int8"

    def bordered(i: Tensor, j: Tensor) -> Tensor:
        inside = tirx.all(i >= at.top, i < at.top + at.height, j >= at.left, j < at.left + at.width)
        value = tirx.if_then_else(inside, x[i - at.top, j - at.left], tirx.const(pad_value, "int8"))
        return (value.astype("int32") + isa.centre).astype(code) if isa.centre else value

    image = te.compute(at.image, bordered, name="workspace")
    ky, kx = te.reduce_axis((0, taps_y), "ky"), te.reduce_axis((0, taps_x), "kx")
    quad, byte = te.reduce_axis((0, quads), "quad"), te.reduce_axis((0, 4), "byte")

    def product(o: Tensor, i: Tensor, j: Tensor, v: Tensor) -> Tensor:
        across = j * at.steps[1] + kx * at.gaps[1] + quad * 4 + byte
        read = image[i * at.steps[0] + ky * at.gaps[0], across].astype("int32")
        return te.sum(read * weights[o, ky, kx, quad, v, byte].astype("int32"), [ky, kx, quad, byte])

    sums = te.compute((blocks, rows, columns, lanes), product, name="sums")

    def result(i: Tensor, j: Tensor, c: Tensor) -> Tensor:
        return finished(sums[c // lanes, i, j, c % lanes], (i, j, c), constants, skips, step)

    y = te.compute((rows, columns, outputs), result, name="output")
    arguments = [x, *skips, *constants.values(), y, image]
    tiles = _tiles(blocks, columns, isa.registers)
    return te.create_prim_func(arguments), *(partial(_tile_sums, tile=t, quads=quads, isa=isa) for t in tiles)


def _tiles(blocks: int, columns: int, registers: int) -> list[tuple[int, list[int]]]:
    """Vectors of channels of a tile, with its numbers of pixels: those that divide, most products for their loads first."""

    def reuse(across: int, along: int) -> tuple[float, int]:
        return across * along / (across + along), across

    def ranked(across: int) -> list[int]:
        return sorted(divisors(columns, registers // across), key=lambda n: reuse(across, n), reverse=True)

    tiles = [(across, ranked(across)) for across in divisors(blocks, TILE_BLOCKS)]
    return sorted(tiles, key=lambda tile: reuse(tile[0], tile[1][0]), reverse=True)


def _tile_sums(schedule: Any, tile: tuple[int, Sequence[int]], quads: int, isa: Isa) -> None:
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
    o, i, j, v, ky, kx, quad, byte = schedule.get_loops(sums)[-8:]
    quad, few = schedule.split(quad, [None, at_once])
    schedule.reorder(i, ky, kx, quad, few, j, o, v, byte)
    schedule.unroll(few)
    schedule.unroll(j)
    schedule.unroll(o)
    zeros = schedule.decompose_reduction(sums, ky)
    *_, first, second, vector = schedule.get_loops(zeros)
    schedule.unroll(first)
    schedule.unroll(second)
    schedule.vectorize(vector)
    schedule.tensorize(v, isa.dot)
