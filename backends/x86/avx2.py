"""Rows of convolution and dense for 256-bit vectors: AVX2, and AVX-VNNI. One family of kernels over two dot products."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcc.backends.kernel import Call, Kernel, Step
from qcc.backends.scalar.convolution import (
    accepts_depthwise,
    accepts_skip,
    lower_conv2d,
    lower_dense,
    lower_depthwise,
)
from qcc.backends.x86.lanes import certified, float_scale, source
from qcc.ir.ops.conv import Conv2d

LANES = 8  # s32 accumulators of a register
BLOCK = 16  # output channels of a register tile
TAPS = 128  # of qcc_avx2_depthwise.h
BAND_BYTES = 24 * 1024  # of the image in the workspace, where that is enough for BAND_PIXELS
BAND_PIXELS = 48  # of output at least: every band reads all weights
_SLACK_BYTES = {"conv2d": 4, "depthwise": 32, "dense": 4}  # of the workspace, which whole vectors may read


@dataclass(frozen=True)
class Isa:
    """``group``: activations in 32 bits; ``centre``: what is added to an activation, its weights' share is in the bias.

    ``conv_weights``: dtype of the packed weights of a convolution, which are read many times; those of a dense layer are s8.
    """

    name: str
    group: int
    centre: int
    conv_weights: str

    @property
    def element_bytes(self) -> int:
        """Bytes of an activation in the workspace."""
        return 4 // self.group


AVX2 = Isa("avx2", group=2, centre=0, conv_weights="int16")
AVXVNNI = Isa("avxvnni", group=4, centre=128, conv_weights="int8")


def in_vectors(array: NDArray[Any], multiple: int = LANES) -> NDArray[Any]:
    """[..., C] in the order of qcc_avx2.h, zero-padded to ``multiple``: channel 16b + 8h + 4v + i at 16b + 8v + 4h + i."""
    padding = [(0, 0)] * (array.ndim - 1) + [(0, -array.shape[-1] % multiple)]
    padded = np.pad(array, padding)
    pairs = padded.shape[-1] // BLOCK * BLOCK
    split = padded[..., :pairs].reshape(*array.shape[:-1], -1, 2, 2, 4).swapaxes(-3, -2)
    ordered = split.reshape(*array.shape[:-1], pairs)
    return np.ascontiguousarray(np.concatenate([ordered, padded[..., pairs:]], axis=-1))


def pack_weights(weights: NDArray[Any], group: int, largest: int) -> NDArray[Any]:
    """[O, runs, run] to [blocks][runs][ceil(run / group)][vectors][8][group], flat.

    Blocks of ``largest`` vectors, then of half as many, and so on.
    """
    padded = np.pad(weights, ((0, 0), (0, 0), (0, -weights.shape[2] % group)))
    ordered = in_vectors(padded.transpose(1, 2, 0))
    vectors = ordered.shape[-1] // LANES
    tiles = ordered.reshape(-1, group, vectors, LANES).transpose(0, 2, 3, 1)
    parts, start = [], 0
    while start < vectors:
        if start + largest > vectors:
            largest //= 2
            continue
        parts.append(tiles[:, start : start + largest].reshape(-1))
        start += largest
    return np.ascontiguousarray(np.concatenate(parts))


def band_rows(step: Step, element_bytes: int) -> tuple[int, int]:
    """Rows of output that are computed from one copy of the image, and the elements of that copy."""
    op = step.root.op
    assert isinstance(op, Conv2d)
    _, height, width, _ = step.output.type.shape
    channels, (kh, kw) = step.root.input(0).type.shape[3], step.root.input(1).type.shape[1:3]
    line = ((width - 1) * op.strides[1] + (kw - 1) * op.dilations[1] + 1) * channels

    def elements(rows: int) -> int:
        return ((rows - 1) * op.strides[0] + (kh - 1) * op.dilations[0] + 1) * line

    fitting = (BAND_BYTES // element_bytes // line - (kh - 1) * op.dilations[0] - 1) // op.strides[0] + 1
    most = min(height, max(fitting, -(-BAND_PIXELS // width)))
    band = -(-height // -(-height // most))  # as many bands, of even sizes
    return band, elements(band)


def _constants(
    step: Step, call: Call, weights: NDArray[Any], bias: NDArray[np.int64], multiple: int = LANES
) -> dict[str, NDArray[Any] | None]:
    skip_multiplier = call.constants["skip_multiplier"]
    return {
        "weights": weights,
        # the sums wrap around like the accumulator does, and end where it is proved to end
        "bias": in_vectors(bias.astype(np.uint64).astype(np.uint32).view(np.int32), multiple),
        "skip_multiplier": None if skip_multiplier is None else in_vectors(skip_multiplier, multiple),
        "scale": in_vectors(float_scale(step, step.output.type.shape[-1]), multiple),
    }


def _product(
    isa: Isa, step: Step, call: Call, weights: NDArray[Any], largest: int, zero: int = 0
) -> dict[str, NDArray[Any] | None]:
    """``weights``: s8[O, runs, run]; ``zero``: what is subtracted from an activation besides, the value of the padding."""
    bias = call.constants["bias"]
    assert bias is not None
    centred = bias.astype(np.int64) - (isa.centre - zero) * weights.astype(np.int64).sum(axis=(1, 2))
    return _constants(step, call, pack_weights(weights, isa.group, largest), centred)


def _params(call: Call, band: int) -> dict[str, Any]:
    """Those of the scalar row, with ``band`` in the place of ``groups``."""
    return {
        "band" if name == "groups" else name: band if name == "groups" else value
        for name, value in call.params.items()
    }


# ---------------------------------------------------------------- convolution
def accepts_conv2d(step: Step) -> str | None:
    """One group, certified."""
    op = step.root.op
    assert isinstance(op, Conv2d)
    return "more than one group" if op.groups != 1 else certified(step) or accepts_skip(step)


def lower_conv2d_on(isa: Isa, step: Step) -> Call:
    """qcc_avx2_conv2d.h: the scalar row's numbers, packed."""
    call = lower_conv2d(step)
    op, weights = step.root.op, call.constants["weights"]
    assert isinstance(op, Conv2d)
    assert weights is not None
    outputs, _, kw, channels = weights.shape
    run = kw * channels if op.dilations[1] == 1 else channels
    band, elements = band_rows(step, isa.element_bytes)
    pad_value = call.params["pad_value"]
    assert isinstance(pad_value, int)
    zero = 0 if isa.centre else pad_value
    constants = _product(
        isa, step, call, weights.reshape(outputs, -1, run).astype(isa.conv_weights), BLOCK // LANES, zero
    )
    workspace = elements * isa.element_bytes + _SLACK_BYTES["conv2d"]
    return Call(_params(call, band), constants, workspace, inputs=call.inputs)


def accepts_taps(step: Step) -> str | None:
    """A certified depthwise convolution of up to TAPS taps."""
    taps = int(np.prod(step.root.input(1).type.shape[1:3]))
    if taps > TAPS:
        return f"{taps} taps, the kernel has {TAPS}"
    return accepts_depthwise(step) or certified(step)


def lower_depthwise_on(isa: Isa, step: Step) -> Call:
    """qcc_avx2_depthwise.h: int16 on both, pairs of taps."""
    call = lower_depthwise(step)
    weights, bias = call.constants["weights"], call.constants["bias"]
    assert weights is not None
    assert bias is not None
    band, elements = band_rows(step, 2)
    constants = _constants(step, call, pack_taps(weights), bias.astype(np.int64), BLOCK)
    workspace = 2 * elements + _SLACK_BYTES["depthwise"]
    return Call(_params(call, band), constants, workspace, inputs=call.inputs)


def pack_taps(weights: NDArray[np.int8]) -> NDArray[np.int16]:
    """s8[KH, KW, C] to s16[blocks, pairs, 2, 8, 2]."""
    flat = weights.reshape(-1, weights.shape[-1]).astype(np.int16)
    pairs = in_vectors(np.pad(flat, ((0, len(flat) % 2), (0, 0))), BLOCK)
    return np.ascontiguousarray(
        pairs.reshape(-1, 2, pairs.shape[-1] // BLOCK, 2, LANES).transpose(2, 0, 3, 4, 1)
    )


# ---------------------------------------------------------------- one row of activations
def accepts_dense(step: Step) -> str | None:
    """One row, certified."""
    if step.output.type.elements != step.output.type.shape[-1]:
        return "more than one row"
    return certified(step) or accepts_skip(step)


def accepts_whole(step: Step) -> str | None:
    """A convolution whose filter covers the image is a dense layer."""
    op = step.root.op
    assert isinstance(op, Conv2d)
    if step.root.input(0).type.shape[1:3] != step.root.input(1).type.shape[1:3] or any(op.pads):
        return "the filter is not as large as the image"
    return accepts_dense(step) or accepts_conv2d(step)


def lower_dense_on(isa: Isa, step: Step) -> Call:
    """qcc_avx2_dense.h, of a dense layer or a convolution."""
    is_conv = isinstance(step.root.op, Conv2d)
    call = (lower_conv2d if is_conv else lower_dense)(step)
    weights = call.constants["weights"]
    assert weights is not None
    flat = weights.reshape(len(weights), 1, -1)
    names = ("skip_zero_point", "output_zero_point", "low", "high")
    params = {"input_channels": flat.shape[2], "output_channels": len(flat)}
    workspace = flat.shape[2] * isa.element_bytes + _SLACK_BYTES["dense"]
    constants = _product(isa, step, call, flat, largest=8)
    return Call({**params, **{n: call.params[n] for n in names}}, constants, workspace, inputs=call.inputs)


def accepts_rows(step: Step) -> str | None:
    """Certified."""
    return certified(step) or accepts_skip(step)


def lower_rows_on(isa: Isa, step: Step) -> Call:
    """A dense layer of many rows is a 1x1 convolution over an image one pixel wide."""
    call = lower_dense(step)
    weights = call.constants["weights"]
    assert weights is not None
    outputs, inputs = weights.shape
    dense = call.params
    rows = step.output.type.elements // outputs
    band = min(rows, max(BAND_PIXELS, BAND_BYTES // (inputs * isa.element_bytes)))
    steps = ("stride_height", "stride_width", "dilation_height", "dilation_width")
    params = {
        "batch": 1,
        "input_height": rows,
        "input_width": 1,
        "input_channels": inputs,
        "output_height": rows,
        "output_width": 1,
        "output_channels": outputs,
        **dict.fromkeys(("kernel_height", "kernel_width", *steps), 1),
        **dict.fromkeys(("pad_top", "pad_left", "pad_value"), 0),
        "band": band,
        **{name: dense[name] for name in ("skip_zero_point", "output_zero_point", "low", "high")},
    }
    constants = _product(
        isa, step, call, weights.reshape(outputs, 1, inputs).astype(isa.conv_weights), BLOCK // LANES
    )
    workspace = band * inputs * isa.element_bytes + _SLACK_BYTES["conv2d"]
    return Call(params, constants, workspace, inputs=call.inputs)


# ---------------------------------------------------------------- rows
def _lowering(isa: Isa, lower: Callable[[Isa, Step], Call]) -> Callable[[Step], Call]:
    return lambda step: lower(isa, step)


def _rows(isa: Isa) -> tuple[Kernel, ...]:
    conv = "qcc_avx2_conv2d_params"
    return tuple(
        Kernel(
            pattern=pattern,
            dtype="s8",
            symbol=f"qcc_s8_{name}_{isa.name}",
            params_type=params_type,
            source=source(f"qcc_s8_{name}_{isa.name}"),
            lower=_lowering(isa, lower),
            accepts=accepts,
            priority=priority,
            in_place=(1,),
            uses_float=True,
            channel_block=64 if name == "dense" else 0,  # of 8 vectors
        )
        for root, name, params_type, lower, accepts, priority in (
            ("conv2d", "conv2d", conv, lower_conv2d_on, accepts_conv2d, 10),
            ("conv2d", "depthwise_conv2d", conv, lower_depthwise_on, accepts_taps, 11),
            ("conv2d", "dense", "qcc_avx2_dense_params", lower_dense_on, accepts_whole, 12),
            ("dense", "conv2d", conv, lower_rows_on, accepts_rows, 10),
            ("dense", "dense", "qcc_avx2_dense_params", lower_dense_on, accepts_dense, 11),
        )
        for pattern in (f"{root}+requantize", f"{root}+add+requantize", f"{root}+sub+requantize")
    )


AVX2_ROWS = _rows(AVX2)
AVXVNNI_ROWS = _rows(AVXVNNI)
