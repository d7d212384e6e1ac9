"""Rows of convolution and dense layers with tensors of 16 bits for AVX512-VNNI.

Sums are int32 and wrap around, so that only where they end must be proved. The requantization is the definition itself: a
float64 fused multiply-add holds the product of an int32 and a multiplier of 31 bits, and rounds once, downwards. It
needs no certificate, but results below 2^29.

Costs are cycles of one core, fitted to timings on a processor that starts two vpdpwssd of 64 bytes in every cycle: a word
(4 bytes of the reduction) of one pixel takes ``_WORD`` cycles with 1 to 4 vectors of channels, a vector of results
``_REQUANTIZE``, with a residual operand ``_RESIDUAL`` more; the copy of a padded image moves ``_COPY`` bytes in a cycle.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcc.backends.kernel import Call, Kernel, Step
from qcc.backends.scalar import wide_convolution
from qcc.backends.scalar.convolution import skip_operand
from qcc.backends.scalar.lowering import Params, constant, requantize_constants
from qcc.backends.scalar.wide import Accepts, has_16_bits
from qcc.backends.x86.lanes import source
from qcc.ir.ops.conv import Conv2d

LANES = 16  # s32 accumulators of a register
CENTRE = 128  # what turns s8 into u8
ROWS = (16, 12, 8, 6)  # pixels of the largest register tile with 1 to 4 vectors of channels; least: two fewer
PAIR = np.arange(2 * LANES).reshape(LANES, 2).T.reshape(-1)  # order of two vectors: qcc_avx512_wide.h
_RESULT = 2**29
_WORD = (0.70, 1.06, 1.55, 2.02)
_REQUANTIZE = 5.0
_RESIDUAL = 2.0
_COPY = 16.0
_DEPTHWISE_TAP, _DEPTHWISE_FINISH, _DEPTHWISE_ROW = 1.5, 9.0, 60.0
_CALL = 60.0

_CONV_PARAMS = (
    *("batch", "input_height", "input_width", "input_channels"),
    *("output_height", "output_width", "output_channels", "kernel_height", "kernel_width"),
    *("stride_height", "stride_width", "dilation_height", "dilation_width"),
    *("pad_top", "pad_left", "pad_value", "input_step", "output_step", "groups", "vectors"),
    *("skip_bytes", "output_bytes", "output_zero_point", "low", "high"),
)


# ---------------------------------------------------------------- predicates
def accepts_int32(step: Step) -> str | None:
    """The sum that is requantized must lie within 32 bits, and its result within 30."""
    node = step.nodes[-1]
    least, most = constant(node, "acc_min"), constant(node, "acc_max")
    if least is None or most is None:
        return "the accumulators have no proven interval"
    low, high = (b.astype(np.int64).reshape(-1) for b in (least, most))
    if low.min(initial=0) < -(2**31) or high.max(initial=0) >= 2**31:
        return f"accumulators between {low.min()} and {high.max()} leave 32 bits"
    planned = requantize_constants(step)
    scale = planned["multiplier"].astype(np.float64) * np.exp2(-planned["shift"].astype(np.float64))
    if (np.maximum(-low, high) * scale).max(initial=0) >= _RESULT:
        return "the products leave 30 bits"
    return None


def accepts_groups(step: Step) -> str | None:
    """One group, or groups of whole words."""
    op, word = step.root.op, 4 // step.root.input(0).type.dtype.bytes
    if isinstance(op, Conv2d) and op.groups > 1 and step.root.input(1).type.shape[3] % word:
        return f"more than one group, of channels that are no multiple of {word}"
    return None


def _skips_in_place(step: Step) -> bool:
    """Whether a residual operand has the type of the output: some channels are written before others are read."""
    skip = skip_operand(step)[0]
    return skip is None or skip.type.dtype is step.output.type.dtype


def in_place(accepts: Accepts) -> tuple[tuple[Accepts, tuple[int, ...]], ...]:
    """(accepts, arguments that the output may overwrite) of two rows, one for each answer of ``_skips_in_place``."""

    def same(step: Step) -> str | None:
        refused = accepts(step)
        return refused or (
            None if _skips_in_place(step) else "the residual operand and the output have other types"
        )

    return (same, (1,)), (accepts, ())


# ---------------------------------------------------------------- convolution and dense
@dataclass(frozen=True)
class Tile:
    """A register tile: ``vectors`` of 16 channels."""

    vectors: int

    @property
    def name(self) -> str:
        """Pixels times channels."""
        return f"{ROWS[self.vectors - 1]}x{LANES * self.vectors}"

    def accepts(self, step: Step) -> str | None:
        """Whether it can do the step at all."""
        if -(-_outputs(step) // LANES) < self.vectors:
            return f"fewer output channels than {LANES * self.vectors}"
        return accepts_groups(step) or wide_convolution.accepts_convolution(step) or accepts_int32(step)


def _outputs(step: Step) -> int:
    """Output channels of a group."""
    op = step.root.op
    return step.output.type.shape[-1] // (op.groups if isinstance(op, Conv2d) else 1)


def blocks(outputs: int, vectors: int) -> list[tuple[int, int, int]]:
    """(first channel, channels, vectors) of each block."""
    step = LANES * vectors
    sizes = [(start, min(step, outputs - start)) for start in range(0, outputs, step)]
    return [(start, count, -(-count // LANES)) for start, count in sizes]


def in_vectors(array: NDArray[Any]) -> NDArray[Any]:
    """[C, ...] to [vectors * 16, ...]: pairs of vectors in the order of qcc_avx512_wide.h, then a single one."""
    padded = np.pad(array, ((0, -len(array) % LANES), *((0, 0),) * (array.ndim - 1)))
    pairs = len(padded) // (2 * LANES) * 2 * LANES
    ordered = padded[:pairs].reshape(-1, 2 * LANES, *array.shape[1:])[:, PAIR]
    return np.concatenate([ordered.reshape(pairs, *array.shape[1:]), padded[pairs:]])


def in_blocks(array: NDArray[Any], groups: int, vectors: int) -> NDArray[Any]:
    """[groups * O, ...] to [vectors of all blocks * 16, ...]."""
    return np.concatenate(
        [
            in_vectors(group[start : start + count])
            for group in np.split(array, groups)
            for start, count, _ in blocks(len(group), vectors)
        ]
    )


def pack_weights(weights: NDArray[Any], groups: int, vectors: int, word: int) -> NDArray[np.int8]:
    """s8[groups * O, runs, run] to [groups][blocks][runs][run/word][vectors][16][word], zero-padded, flat."""
    outputs, runs, run = weights.shape
    words = -(-run // word)
    ordered = in_blocks(np.pad(weights, ((0, 0), (0, 0), (0, words * word - run))), groups, vectors)
    parts, first = [], 0
    for _, _, width in blocks(outputs // groups, vectors) * groups:
        block = ordered[first : first + width * LANES].reshape(width, LANES, runs, words, word)
        parts.append(block.transpose(2, 3, 0, 1, 4).reshape(-1))
        first += width * LANES
    return np.concatenate(parts).astype(np.int8)


def wrapped(sums: NDArray[Any] | int) -> NDArray[np.int32]:
    """s64 plus 2^31, modulo 2^32: they wrap around as the accumulator does, and end where it is proved to end."""
    return (np.asarray(sums, np.int64) + 2**31 & 0xFFFFFFFF).astype(np.uint32).view(np.int32)


def lower(step: Step, tile: Tile) -> Call:
    """The numbers of wide_conv2d_scalar, in blocks; the sums of -128 and the skip's zero_point in the bias."""
    is_conv = isinstance(step.root.op, Conv2d)
    call = (wide_convolution.lower_conv2d if is_conv else wide_convolution.lower_dense)(step)
    numbers: dict[str, int] = {k: int(v) for k, v in call.params.items()}  # type: ignore[arg-type]
    bias, weights = folded_bias(call), call.constants["weights"]
    assert weights is not None
    element, groups = numbers["input_bytes"], numbers["groups"]
    weights = weights if is_conv else weights[:, None, None]
    if element == 1:
        bias = bias - CENTRE * weights.astype(np.int64).sum(axis=(1, 2, 3))
    run = (numbers["kernel_width"] if numbers["dilation_width"] == 1 else 1) * weights.shape[3]
    packed = partial(in_blocks, groups=groups, vectors=tile.vectors)
    channels = {name: call.constants[name] for name in ("skip_multiplier", "multiplier", "shift")}
    changed = {
        "input_channels": weights.shape[3],
        "output_channels": len(weights) // groups,
        "input_step": numbers["input_channels"],
        "output_step": len(weights),
        "vectors": tile.vectors,
    }
    params: Params = {name: changed.get(name, numbers.get(name, 0)) for name in _CONV_PARAMS}
    return Call(
        params,
        {
            "weights": pack_weights(
                weights.reshape(len(weights), -1, run), groups, tile.vectors, 4 // element
            ),
            "bias": packed(wrapped(bias)),
            **{name: None if array is None else packed(array) for name, array in channels.items()},
        },
        element * _image_elements(params, element) + 64,
        inputs=call.inputs,
    )


def folded_bias(call: Call) -> NDArray[np.int64]:
    """s64[O]: the bias of a call of wide_conv2d_scalar, less the zero_point of the residual operand."""
    bias, skip = call.constants["bias"], call.constants["skip_multiplier"]
    zero_point = call.params["skip_zero_point"]
    assert bias is not None
    assert isinstance(zero_point, int)
    return bias if skip is None else bias - zero_point * skip.astype(np.int64)


def _image_elements(params: Params, element: int) -> int:
    """Elements of the copy of the image, 0 where the kernel needs none."""
    p: dict[str, int] = {k: int(v) for k, v in params.items()}  # type: ignore[arg-type]
    height, width = (
        (p[f"output_{axis}"] - 1) * p[f"stride_{axis}"]
        + (p[f"kernel_{axis}"] - 1) * p[f"dilation_{axis}"]
        + 1
        for axis in ("height", "width")
    )
    run = (p["kernel_width"] if p["dilation_width"] == 1 else 1) * p["input_channels"]
    inside = height <= p["input_height"] and width <= p["input_width"]
    padded = p["pad_top"] > 0 or p["pad_left"] > 0 or not inside
    copied = padded or run * element % 4 > 0 or p["groups"] > 1
    return height * width * p["input_channels"] if copied else 0


def cost(step: Step, tile: Tile) -> float:
    """Cycles of the step: its tiles, the last ones with what they waste, and the copy of the image."""
    shape, weights, x = step.output.type.shape, step.root.input(1).type.shape, step.root.input(0)
    op, word = step.root.op, 4 // x.type.dtype.bytes
    pixels = step.output.type.elements // shape[-1]
    words, groups, copied = ceil(weights[-1] / word), 1, 0
    if isinstance(op, Conv2d):
        _, height, width, depth = weights
        words = height * (ceil(width * depth / word) if op.dilations[1] == 1 else width * words)
        groups = op.groups
        if any(op.pads) or groups > 1 or width * depth % word:
            copied = x.type.bytes
    cycles = _CALL + copied / _COPY
    for _, _, vectors in blocks(weights[0] // groups, tile.vectors):
        least = ROWS[vectors - 1] - 2
        few = pixels // ceil(pixels / ROWS[vectors - 1])
        rows = pixels if few >= least else ceil(pixels / least) * least
        finish = vectors * (_REQUANTIZE + (_RESIDUAL if len(step.inputs) > 1 else 0))
        cycles += groups * (rows * words * _WORD[vectors - 1] + pixels * finish)
    return cycles


def _rows(root: str, tile: Tile) -> Iterable[Kernel]:
    for dtype, symbol in (("s16", "qcc_s16_conv2d_avx512vnni"), ("s8", "qcc_s8_conv2d_s16_avx512vnni")):
        for accepts, overwritten in in_place(tile.accepts):
            for end in ("requantize", "add+requantize", "sub+requantize"):
                yield wide_row(
                    f"{root}+{end}",
                    dtype,
                    symbol,
                    "qcc_avx512_wide_conv_params",
                    partial(lower, tile=tile),
                    accepts,
                    partial(cost, tile=tile),
                    variant=tile.name,
                    in_place=overwritten,
                    priority=10 if overwritten else 9,
                )


def wide_row(
    pattern: str,
    dtype: str,
    symbol: str,
    params_type: str,
    lower: Callable[[Step], Call],
    accepts: Accepts,
    cost: Callable[[Step], float] | None = None,
    **fields: Any,
) -> Kernel:
    """A row for steps with tensors of 16 bits."""
    row = Kernel(pattern, dtype, symbol, params_type, source(symbol), lower, accepts, cost=cost, wide=True)
    return replace(row, **{"meant_for": has_16_bits, "uses_float": True, "priority": 10, **fields})


# ---------------------------------------------------------------- depthwise convolution
TAPS = 64
_DEPTHWISE_PARAMS = (
    *("batch", "input_height", "input_width", "channels", "output_height", "output_width"),
    *("kernel_height", "kernel_width", "stride_height", "stride_width", "dilation_height", "dilation_width"),
    *("pad_top", "pad_left", "pad_value", "input_bytes", "skip_bytes", "output_bytes"),
    *("output_zero_point", "low", "high"),
)


def accepts_depthwise(step: Step) -> str | None:
    """A depthwise convolution of up to 64 taps, with sums of 32 bits."""
    refused = wide_convolution.accepts_depthwise(step)
    taps = step.root.input(1).type.elements // step.output.type.shape[-1]
    if refused is None and taps > TAPS:
        return f"{taps} taps, the kernel has {TAPS}"
    return refused or accepts_int32(step)


def lower_depthwise(step: Step) -> Call:
    """The numbers of wide_depthwise_conv2d_scalar, in blocks of 32 channels."""
    call = wide_convolution.lower_depthwise(step)
    weights = call.constants["weights"]
    assert weights is not None
    channels = weights.shape[2]
    params: Params = {
        name: channels if name == "channels" else call.params[name] for name in _DEPTHWISE_PARAMS
    }
    others = {name: call.constants[name] for name in ("skip_multiplier", "multiplier", "shift")}
    return Call(
        params,
        {
            "weights": pack_taps(weights.reshape(-1, channels)),
            "bias": in_pairs(wrapped(folded_bias(call))),
            **{name: None if array is None else in_pairs(array) for name, array in others.items()},
        },
        inputs=call.inputs,
    )


def in_pairs(array: NDArray[Any]) -> NDArray[Any]:
    """[C, ...] to [blocks * 32, ...], zero-padded: pairs of vectors only."""
    padding = (0, -len(array) % (2 * LANES)), *((0, 0),) * (array.ndim - 1)
    return in_vectors(np.pad(array, padding))


def pack_taps(weights: NDArray[Any]) -> NDArray[np.int8]:
    """s8[taps, C] to [blocks][taps][32], zero-padded, flat."""
    of_blocks = np.pad(weights, ((0, 0), (0, -weights.shape[1] % (2 * LANES)))).reshape(
        len(weights), -1, 2 * LANES
    )
    return np.ascontiguousarray(of_blocks.swapaxes(0, 1), np.int8).reshape(-1)


def cost_depthwise(step: Step) -> float:
    """Cycles: a tap of 32 channels, what each 32 results take, and each row of them."""
    _, height, width, channels = step.output.type.shape
    taps = step.root.input(1).type.elements // channels
    finish = _DEPTHWISE_FINISH + (2 * _RESIDUAL if len(step.inputs) > 1 else 0)
    row = _DEPTHWISE_ROW + width * (taps * _DEPTHWISE_TAP + finish)
    return _CALL + height * ceil(channels / (2 * LANES)) * row


def _depthwise_rows() -> Iterable[Kernel]:
    for dtype in ("s16", "s8"):
        for accepts, overwritten in in_place(accepts_depthwise):
            for end in ("requantize", "add+requantize", "sub+requantize"):
                yield wide_row(
                    f"conv2d+{end}",
                    dtype,
                    "qcc_s16_depthwise_conv2d_avx512vnni",
                    "qcc_avx512_wide_depthwise_params",
                    lower_depthwise,
                    accepts,
                    cost_depthwise,
                    in_place=overwritten,
                    priority=12 if overwritten else 11,
                )


TILES = (Tile(4), Tile(3), Tile(2), Tile(1))
KERNELS: tuple[Kernel, ...] = tuple(
    row
    for rows in (*(_rows(root, tile) for root in ("conv2d", "dense") for tile in TILES), _depthwise_rows())
    for row in rows
)
