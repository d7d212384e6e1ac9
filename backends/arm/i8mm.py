"""Rows of convolution and dense layers for NEON with int8 matrix products (smmla)."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcc.backends.arm import neon
from qcc.backends.arm.lanes import LANES
from qcc.backends.kernel import Call, Kernel, Step

PAIR = 2  # channels, and pixels, of a matrix product
HALF = 8  # taps of it
_BEFORE, _BEHIND = 16, 16  # bytes of the workspace around the image
SYMBOL = "qcc_s8_conv2d_i8mm"


def pack_weights(weights: NDArray[Any]) -> NDArray[np.int8]:
    """s8[O, runs, run] to [blocks][runs][halves][2 * vectors][2][8], flat."""
    taps = neon.taps_of(weights.shape[2], HALF)
    chosen = np.where(taps < 0, 0, weights[:, :, taps])  # [O, runs, halves, 8]
    lanes = np.pad(chosen, ((0, -len(weights) % LANES), (0, 0), (0, 0), (0, 0)))
    pairs = lanes.reshape(-1, PAIR, *lanes.shape[1:]).transpose(0, 2, 3, 1, 4)  # [pairs, runs, halves, 2, 8]
    block = neon.BLOCKS[0] * LANES // PAIR
    parts = [
        pairs[start : start + block].transpose(1, 2, 0, 3, 4).reshape(-1)
        for start in range(0, len(pairs), block)
    ]
    return np.ascontiguousarray(np.concatenate(parts).astype(np.int8))


def twice(array: NDArray[Any]) -> NDArray[Any]:
    """[..., C] to [..., 2 * C]: every two channels twice."""
    pairs = array.reshape(*array.shape[:-1], -1, 1, PAIR)
    doubled = np.broadcast_to(pairs, (*pairs.shape[:-2], 2, PAIR))
    return np.ascontiguousarray(doubled.reshape(*array.shape[:-1], -1))


def lower(step: Step) -> Call:
    """s8_conv2d_i8mm: the constants of each channel twice, for both pixels of a matrix product."""
    call = neon.as_convolution(step)
    weights, p = call.constants["weights"], neon.numbers(call)
    assert weights is not None
    outputs, _, width, channels = weights.shape
    run = width * channels if p["dilation_width"] == 1 else channels
    constants = neon.channel_constants(step, call)
    scale, skip = constants["scale"], constants["skip_multiplier"]
    assert scale is not None
    assert constants["bias"] is not None
    halves = twice(scale.swapaxes(0, 1).reshape(2, -1)).reshape(2, -1, LANES).swapaxes(0, 1)
    arrays: dict[str, NDArray[Any] | None] = {
        "weights": pack_weights(weights.reshape(outputs, -1, run)),
        "bias": twice(constants["bias"]),
        "skip_multiplier": None if skip is None else twice(skip),
        "scale": np.ascontiguousarray(halves),
    }
    needed, bytes_ = neon.padded_image(p)
    workspace = _BEFORE + bytes_ + _BEHIND if needed or run < neon.CHUNK else 16
    return Call(p, arrays, workspace, inputs=call.inputs)


ROWS: tuple[Kernel, ...] = tuple(
    kernel
    for root in ("conv2d", "dense")
    for kernel in neon.rows(root, SYMBOL, lower, partial(neon.accepts, neon.DOTPROD), 11)
)
