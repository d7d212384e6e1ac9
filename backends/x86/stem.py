"""Rows of the AVX512-VNNI convolution of images with few channels, whose kernel rows are one byte more than whole quads.

Costs are cycles of one core, as those of short runs in vnni.py; ``_LASTS`` those of gathering 64 bytes of a kernel row,
``_ROW`` what a row of the output takes besides.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from math import ceil

import numpy as np
from numpy.typing import NDArray

from qcc.backends.kernel import Call, Kernel, Step
from qcc.backends.scalar.lowering import constant
from qcc.backends.split import split_window_rows
from qcc.backends.x86 import vnni
from qcc.backends.x86.lanes import source
from qcc.ir.ops.conv import Conv2d

SYMBOL = "qcc_s8_conv2d_stem_avx512vnni"
QUADS = 128  # at most
PIXEL = (4, 64)  # bytes from output pixel to pixel, least and most
ROWS = {4: 3, 2: 6}  # pixels of a register tile, by its vectors of channels
_SLACK = 64  # bytes read behind the image
_QUAD = {4: 2.02, 2: 1.06}
_REQUANTIZE = {4: 3.5, 2: 2.5}
_LASTS = 1.5
_ROW = 40.0
_COPY = 32.0
_CALL = 100.0


def accepts(step: Step, vectors: int) -> str | None:
    """What the head of the C file says, and the certified requantize of one rounding."""
    op = step.root.op
    assert isinstance(op, Conv2d)
    outputs, height, width, channels = step.root.input(1).type.shape
    pixel = op.strides[1] * channels
    if op.groups > 1 or tuple(op.dilations) != (1, 1):
        return "groups or dilation"
    if width * channels % 4 != 1 or _quads(height, width * channels) > QUADS:
        return f"kernel rows of {width * channels} bytes do not leave one over, or are too many"
    if not PIXEL[0] <= pixel <= PIXEL[1]:
        return f"output pixels see the image in steps of {pixel} bytes, not {PIXEL[0]} to {PIXEL[1]}"
    if ceil(outputs / vnni.LANES) % vectors:
        return f"{outputs} output channels do not fill registers of {vnni.LANES * vectors}"
    return vnni.accepts_rounded(step)


def _quads(height: int, run: int) -> int:
    """Those of `height` kernel rows of `run` bytes, and of their last bytes."""
    return height * (run // 4) + ceil(height / 4)


def lower(step: Step, vectors: int) -> Call:
    """As the general kernel, but for the weights and the workspace."""
    call = vnni.lower(step, vnni.Tile(vectors))
    op, weights = step.root.op, constant(step.root, "w")
    assert isinstance(op, Conv2d)
    assert weights is not None
    _, *taps, channels = weights.shape
    _, *extents, _ = step.output.type.shape
    height, width = ((n - 1) * by + k for n, by, k in zip(extents, op.strides, taps, strict=True))
    lasts = ceil(taps[0] / 4) * ceil(extents[1] * op.strides[1] * channels / 64) * 64
    constants = {
        "weights": vnni.pack_weights(last_bytes_apart(weights), 1, vectors),
        **{name: call.constants[name] for name in ("bias", "scale")},
    }
    workspace = height * width * channels + _SLACK + lasts + max(ROWS.values()) * op.strides[1] * channels
    return replace(call, constants=constants, workspace_bytes=workspace, inputs=(step.root.input(0),))


def last_bytes_apart(weights: NDArray[np.int8]) -> NDArray[np.int8]:
    """s8[O, KH, KW, C] to [O, 1, K]: kernel rows without their last byte, then these, up to a multiple of four."""
    rows = weights.reshape(*weights.shape[:2], -1)
    lasts = np.pad(rows[:, :, -1], ((0, 0), (0, -rows.shape[1] % 4)))
    return np.concatenate([rows[:, :, :-1].reshape(len(rows), -1), lasts], axis=1)[:, None]


def cost(step: Step, vectors: int) -> float:
    """Cycles of the step: its tiles, the quads of last bytes, and the copy of the image."""
    op = step.root.op
    assert isinstance(op, Conv2d)
    outputs, height, width, channels = step.root.input(1).type.shape
    _, rows, columns, _ = step.output.type.shape
    quads = _quads(height, width * channels)
    each = ceil(outputs / (vnni.LANES * vectors)) * (quads * _QUAD[vectors] + _REQUANTIZE[vectors])
    gathered = height * ceil(columns * op.strides[1] * channels / 64) * _LASTS
    copied = step.root.input(0).type.elements / _COPY
    tiled = ceil(columns / ROWS[vectors]) * ROWS[vectors]
    return _CALL + copied + rows * (_ROW + tiled * each + gathered)


KERNELS: tuple[Kernel, ...] = tuple(
    Kernel(
        pattern="conv2d+requantize",
        dtype="s8",
        symbol=SYMBOL,
        params_type="qcc_avx512_conv_params",
        source=source(SYMBOL),
        lower=partial(lower, vectors=vectors),
        accepts=partial(accepts, vectors=vectors),
        priority=10,
        cost=partial(cost, vectors=vectors),
        variant=f"{ROWS[vectors]}x{vnni.LANES * vectors}",
        split=split_window_rows,
        channel_block=vnni.LANES * vectors,
        uses_float=True,
    )
    for vectors in ROWS
)
