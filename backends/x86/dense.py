"""Rows of dense layers of few rows for AVX512-VNNI: matrix by vector, as fast as the weights come."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcc.backends.kernel import Call, Kernel, Step
from qcc.backends.scalar import accumulators
from qcc.backends.scalar.convolution import folded_bias
from qcc.backends.scalar.lowering import constant, requantize_params
from qcc.backends.x86.lanes import LANES, ORDER, certified, float_scale, source
from qcc.ir.ops.conv import Conv2d
from qcc.ir.ops.dense import Dense

BLOCK = 128  # output channels of the largest block, which comes first
VECTOR = 16  # s32 accumulators of a register
CENTRE = 128  # what turns s8 into u8
ROWS_MAX = 2  # every row reads all weights again: with more, the tiles of the convolution win
CACHED_BYTES = 2**19  # of weights that stay in the second level of cache from row to row
LINE_CYCLES = 1.1, 2.2  # measured for 64 bytes of weights: from that level, and from the next
BLOCK_CYCLES = 40  # the ends of a block: the chain of requantization, and its set-up


def blocks(outputs: int) -> list[int]:
    """Vectors of 16 channels of each block: 8 while 128 channels are left, then 4, and 1 to 3 at the end."""
    found, left = [], outputs
    while left > 0:
        found.append(8 if left >= 8 * VECTOR else 4 if left > 3 * VECTOR else -(-left // VECTOR))
        left -= found[-1] * VECTOR
    return found


def _ordered(array: NDArray[Any], in_natural_order: bool) -> list[NDArray[Any]]:
    """[..., O] to the parts that the blocks read, [..., 16 * vectors] each, zero-padded."""
    parts, start = [], 0
    for vectors in blocks(array.shape[-1]):
        part = array[..., start : start + VECTOR * vectors]
        start += part.shape[-1]
        if vectors % 4 == 0 and not in_natural_order:
            part = _padded(part, LANES).reshape(*part.shape[:-1], -1, LANES)[..., ORDER[LANES]]
            part = part.reshape(*part.shape[:-2], -1)
        parts.append(_padded(part, VECTOR))
    return parts


def _padded(array: NDArray[Any], multiple: int) -> NDArray[Any]:
    """The last axis filled up with zeros."""
    return np.pad(array, [(0, 0)] * (array.ndim - 1) + [(0, -array.shape[-1] % multiple)])


def pack_dense(weights: NDArray[Any], in_natural_order: bool = False) -> NDArray[np.int8]:
    """s8[O, I] to [blocks][ceil(I / 4)][vectors][16][4], zero-padded, flat."""
    padded = np.pad(weights, ((0, 0), (0, -weights.shape[1] % 4)))
    quads = padded.T.reshape(-1, 4, len(weights))  # [I / 4][4][O]
    parts = [part.transpose(0, 2, 1).reshape(-1) for part in _ordered(quads, in_natural_order)]
    return np.concatenate(parts).astype(np.int8)


def _constants(step: Step, in_natural_order: bool) -> dict[str, NDArray[Any] | None]:
    weights, x_zero_point = _matrix(step)
    bias = folded_bias(step, weights, x_zero_point, 0).astype(np.int64)
    centred = bias - CENTRE * weights.astype(np.int64).sum(axis=1)
    # the sums wrap around like the accumulator does, and end where it is proved to end
    wrapped = np.concatenate(_ordered(centred, in_natural_order)).astype(np.uint64).astype(np.uint32)
    return {"weights": pack_dense(weights, in_natural_order), "bias": wrapped.view(np.int32)}


def _matrix(step: Step) -> tuple[NDArray[Any], int]:
    """The weights, s8[O, I] with the inputs in the order of memory, and the zero_point of the input."""
    op, weights = step.root.op, constant(step.root, "w")
    assert isinstance(op, Dense | Conv2d)
    assert weights is not None
    return weights.reshape(len(weights), -1), op.x_zero_point


def _rows(step: Step) -> int:
    return step.output.type.elements // step.output.type.shape[-1]


def accepts_rows(step: Step) -> str | None:
    """One row, or two with weights that stay in the cache."""
    rows, count = _rows(step), step.root.input(1).type.elements
    if rows > ROWS_MAX:
        return f"{rows} rows, the kernel is for up to {ROWS_MAX}"
    return f"{rows} rows, and {count} weights to read for each" if rows > 1 and count > CACHED_BYTES else None


def accepts_dense(step: Step) -> str | None:
    """Few rows, and certified."""
    return accepts_rows(step) or certified(step)


def accepts_conv2d(step: Step) -> str | None:
    """A filter over the whole image is a dense layer of all its elements."""
    op, image = step.root.op, step.root.input(0).type.shape[1:]
    assert isinstance(op, Conv2d)
    if op.groups != 1 or any(op.pads) or step.root.input(1).type.shape[1:] != image:
        return "the filter is not the whole image"
    return accepts_dense(step)


def cycles(step: Step) -> float:
    """All weights for each row; the latency of a block's sums and of its requantization."""
    outputs, *inputs = step.root.input(1).type.shape
    lines = -(-prod(inputs) // 4) * sum(blocks(outputs))
    line_cycles = LINE_CYCLES[lines * 64 > CACHED_BYTES]
    return _rows(step) * (lines * line_cycles + BLOCK_CYCLES * len(blocks(outputs)))


def lower_dense(step: Step) -> Call:
    """s8_dense_avx512vnni."""
    outputs, inputs = _matrix(step)[0].shape
    params = {
        "rows": _rows(step),
        "input_channels": inputs,
        "output_channels": outputs,
        "skip_zero_point": 0,
        **requantize_params(step),
    }
    scale = np.concatenate(_ordered(float_scale(step, outputs), False))
    return Call(params, {**_constants(step, False), "scale": scale})


def lower_accumulator(step: Step) -> Call:
    """s8_dense_accumulator_avx512vnni: the scalar row's numbers."""
    return Call(accumulators.lower_dense(step).params, _constants(step, True))


_SOURCE = source("qcc_s8_dense_avx512vnni")


def _row(pattern: str, lower: Callable[[Step], Call], accepts: Callable[[Step], str | None]) -> Kernel:
    symbol = "qcc_s8_dense_avx512vnni"
    return Kernel(
        pattern,
        "s8",
        symbol,
        "qcc_dense_params",
        _SOURCE,
        lower,
        accepts,
        priority=11,
        cost=cycles,
        channel_block=BLOCK,
        uses_float=True,
    )


# before the tiles of the convolution, which have no estimate of what it costs to read the weights: accepts_rows has
KERNELS: tuple[Kernel, ...] = (
    _row("dense+requantize", lower_dense, accepts_dense),
    _row("conv2d+requantize", lower_dense, accepts_conv2d),
    Kernel(
        "dense",
        "s8",
        "qcc_s8_dense_accumulator_avx512vnni",
        "qcc_dense_accumulator_params",
        _SOURCE,
        lower_accumulator,
        accepts_rows,
        priority=10,
        cost=cycles,
        channel_block=BLOCK,
        uses_float=True,
    ),
)
