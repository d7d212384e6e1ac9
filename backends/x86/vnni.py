"""Rows of the AVX512-VNNI kernels: convolution and dense layers of many rows as one family.

Costs are cycles of one core, fitted to timings of the kernel on a processor that starts two vpdpbusd of 64 bytes in
every cycle: a quad (4 bytes of the reduction) of one pixel takes ``_QUAD`` cycles with a register tile of 1 to 4 vectors
of channels (with 4, half a cycle for each vpdpbusd; with fewer, broadcasts and addresses come on top), its requantization
``_REQUANTIZE``, a residual operand ``_RESIDUAL``, and less, ``_SHORT``, where these overlap with the products of the next
tile (``qcc_conv_short``); the copy of a padded image moves ``_COPY`` bytes in a cycle.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcc.backends.kernel import Call, Kernel, Step
from qcc.backends.scalar.convolution import accepts_skip, lower_conv2d, lower_dense, skip_operand
from qcc.backends.scalar.lowering import Params, constant, requantize_constants, zero_point
from qcc.backends.x86.lanes import certified, float_scale, source
from qcc.ir.ops.conv import Conv2d

LANES = 16  # s32 accumulators of a register
CENTRE = 128  # what turns s8 into u8
ROWS = (16, 12, 8, 6)  # pixels of the largest register tile with 1 to 4 vectors of channels; least: two fewer
_FLOAT_EXACT = 2**24  # integers up to here are float32 numbers
_SATURATED = 2**9  # a product that, with any zero_point, leaves int8
_INTEGER_BITS = 2**22  # and up to here, added to 1.5 * 2^23, they are the low bits of one
_QUAD = (0.70, 1.06, 1.55, 2.02)
_REQUANTIZE = (3.5, 4.0, 7.0, 5.5)
_RESIDUAL = (3.4, 3.0, 8.0, 7.5)
_SHORT = ((0.56, 1.00, 1.52, 2.00), (3.1, 1.9, 2.7, 2.6), (2.2, 1.5, 2.8, 2.5))
_SHORT_QUADS = 4, 128  # of a kernel row at least, of all at most
_EXACT = 10.0  # cycles more for each vector, in 64 bits
_COPY = 32.0
_CALL = 60.0


# ---------------------------------------------------------------- predicates
def single_rounding(step: Step) -> str | None:
    """float(acc) * scale, rounded once to an integer, must equal the definition wherever the certified form does.

    The certified form rounds the product to float32 first. With acc a float32 number (|acc| <= 2^24) both agree unless
    the product is a tie, and a tie needs so few bits that the first rounding leaves it alone: there the certificate
    says which way it must go, and round-half-even of product + zero_point goes the same way when zero_point is even.
    Products beyond 2^9 saturate whatever their rounding, so what lies there needs no care but that the integer fits.
    """
    node = step.nodes[-1]
    bounds = [constant(node, name) for name in ("acc_min", "acc_max")]
    if bounds[0] is None or bounds[1] is None:
        return "the accumulators have no proven interval"
    reach = np.maximum(-bounds[0].astype(np.int64), bounds[1].astype(np.int64)).reshape(-1)
    scale = float_scale(step).astype(np.float64)
    if (reach * scale).max(initial=0) >= _INTEGER_BITS:
        return "the products leave 22 bits"
    unsaturated = np.minimum(reach, np.ceil(_SATURATED / scale))
    if unsaturated.max(initial=0) > _FLOAT_EXACT:
        return "accumulators beyond 2^24 are no float32 numbers"
    if zero_point(step.output) % 2 and _has_tie(step, unsaturated):
        return "products can be ties, and the zero_point is odd"
    return None


def _has_tie(step: Step, reach: NDArray[Any]) -> bool:
    """Whether some |acc| <= reach times the multiplier is an integer and a half."""
    planned = requantize_constants(step)
    multiplier, shift = (planned[name].astype(np.int64) for name in ("multiplier", "shift"))
    power = multiplier & -multiplier  # of two, in the multiplier
    smallest = np.exp2(shift - 1.0) / power
    return bool((reach >= smallest).any())


def accepts_rounded(step: Step) -> str | None:
    """What s8_conv2d_avx512vnni computes: a certified requantize of one rounding, a residual operand of 17 bits."""
    reason = certified(step) or accepts_skip(step) or single_rounding(step)
    multiplier = None if reason else skip_operand(step)[1]
    if multiplier is not None and np.abs(multiplier.astype(np.int64)).max(initial=0) >= 2**16 - 1:
        return "the multiplier of the residual operand leaves 17 bits"
    return reason


def accepts_groups(step: Step) -> str | None:
    """One group, or groups of whole quads."""
    op = step.root.op
    if isinstance(op, Conv2d) and op.groups > 1 and step.root.input(1).type.shape[3] % 4:
        return "more than one group, of channels that are no multiple of 4"
    return None


# ---------------------------------------------------------------- lowering
@dataclass(frozen=True)
class Tile:
    """A register tile: ``vectors`` of 16 channels; ``pixels`` neighbours in a row count as one with more channels.

    Two pixels of 16 channels fill a tile of 32, and share what their taps have in common: their kernel is
    wider by the stride, with zeros. ``exact``: requantize in 64 bits.
    """

    vectors: int
    pixels: int = 1
    exact: bool = False

    @property
    def name(self) -> str:
        """Pixels times channels."""
        rows = ROWS[self.vectors - 1]
        return f"{rows}x{LANES * self.vectors}" if self.pixels == 1 else f"{rows}x{self.pixels}x16"

    def accepts(self, step: Step) -> str | None:
        """Whether it can do the step at all."""
        op = step.root.op
        if self.pixels > 1:
            if not isinstance(op, Conv2d) or op.groups > 1 or op.dilations[1] > 1:
                return "not a convolution of one group without dilation"
            if step.output.type.shape[2] % self.pixels or step.output.type.shape[3] > LANES:
                return f"the output has no {self.pixels} pixels of up to {LANES} channels"
        if self.exact:
            return accepts_skip(step)
        if -(-_outputs(step) * self.pixels // LANES) < self.vectors:
            return f"fewer output channels than {LANES * self.vectors}"
        return accepts_rounded(step)


def _outputs(step: Step) -> int:
    """Output channels of a group."""
    op = step.root.op
    return step.output.type.shape[-1] // (op.groups if isinstance(op, Conv2d) else 1)


def _scalar(step: Step) -> Call:
    """The scalar row's numbers; a dense layer is a 1x1 convolution of an image that is one pixel wide."""
    if isinstance(step.root.op, Conv2d):
        return lower_conv2d(step)
    call = lower_dense(step)
    dense, weights = call.params, call.constants["weights"]
    assert weights is not None
    shapes = ("input", dense["input_channels"]), ("output", dense["output_channels"])
    params: Params = {"batch": 1}
    for side, channels in shapes:
        params |= {f"{side}_height": dense["rows"], f"{side}_width": 1, f"{side}_channels": channels}
    ones = ("kernel", "stride", "dilation")
    params |= {f"{name}_{axis}": 1 for name in ones for axis in ("height", "width")}
    params |= {"pad_top": 0, "pad_left": 0, "pad_value": 0, "groups": 1}
    params |= {k: v for k, v in dense.items() if k not in ("rows", "input_channels", "output_channels")}
    return Call(params, {**call.constants, "weights": weights[:, None, None]}, inputs=call.inputs)


def _widened(weights: NDArray[Any], pixels: int, stride: int) -> NDArray[Any]:
    """s8[O, KH, KW, C] to [pixels * O, KH, KW + (pixels - 1) * stride, C]: as many neighbours at once."""
    last = (pixels - 1) * stride
    parts = [
        np.pad(weights, ((0, 0), (0, 0), (p * stride, last - p * stride), (0, 0))) for p in range(pixels)
    ]
    return np.concatenate(parts)


def lower(step: Step, tile: Tile) -> Call:
    """Weights packed in blocks; the sums of -128, and the skip's 128 and zero_point, in the bias."""
    call = _scalar(step)
    given, constants = call.params, call.constants
    weights, bias = constants["weights"], constants["bias"]
    assert weights is not None
    assert bias is not None
    numbers: dict[str, int] = {k: int(v) for k, v in given.items()}  # type: ignore[arg-type]
    groups, outputs = numbers["groups"], len(weights) // numbers["groups"] * tile.pixels
    weights = _widened(weights, tile.pixels, numbers["stride_width"])
    skip, planned = constants["skip_multiplier"], requantize_constants(step, len(bias))
    centred = np.tile(bias.astype(np.int64), tile.pixels)
    centred -= CENTRE * weights.astype(np.int64).sum(axis=(1, 2, 3))
    if skip is not None:
        skip = np.tile(skip, tile.pixels)
        centred -= (CENTRE + numbers["skip_zero_point"]) * skip.astype(np.int64)
    run = (weights.shape[2] if numbers["dilation_width"] == 1 else 1) * weights.shape[3]
    packed = partial(in_blocks, groups=groups, vectors=tile.vectors)
    arrays: dict[str, NDArray[Any] | None] = {
        "weights": pack_weights(weights.reshape(len(weights), -1, run), groups, tile.vectors),
        # the sums wrap around like the accumulator does, and end where it is proved to end
        "bias": packed(centred.astype(np.uint64).astype(np.uint32).view(np.int32)),
    }
    if tile.exact:
        arrays["skip_multiplier"] = None if skip is None else packed(skip)
        arrays |= {name: packed(planned[name]) for name in ("multiplier", "shift")}
    else:
        halves = None if skip is None else np.stack([skip // 2, skip - skip // 2], -1).astype(np.int16)
        arrays["skip_multiplier"] = None if halves is None else packed(halves)
        arrays["scale"] = packed(np.tile(float_scale(step, len(bias)), tile.pixels))
    names = (
        *("batch", "input_height", "input_width", "input_channels"),
        *("output_height", "output_width", "output_channels", "kernel_height", "kernel_width"),
        *("stride_height", "stride_width", "dilation_height", "dilation_width"),
        *("pad_top", "pad_left", "pad_value", "input_step", "output_step", "groups", "vectors"),
        *("output_zero_point", "low", "high"),
    )
    changed = {
        "input_channels": weights.shape[3],
        "output_width": numbers["output_width"] // tile.pixels,
        "output_channels": outputs,
        "kernel_width": weights.shape[2],
        "stride_width": numbers["stride_width"] * tile.pixels,
        "input_step": numbers["input_channels"],
        "output_step": outputs * groups,
        "vectors": tile.vectors,
    }
    params: Params = {name: changed[name] if name in changed else numbers[name] for name in names}
    return Call(params, arrays, _image_bytes(params)[1] + 64, inputs=call.inputs)


def _image_bytes(params: Params) -> tuple[bool, int]:
    """Whether the kernel copies the image, and the bytes of the copy, without those that a last read may touch."""
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
    copied = padded or run % 4 > 0 or p["groups"] > 1
    return copied, height * width * p["input_channels"] if copied else 0


def blocks(outputs: int, vectors: int) -> list[tuple[int, int, int]]:
    """(first channel, channels, vectors) of each block."""
    step = LANES * vectors
    sizes = [(start, min(step, outputs - start)) for start in range(0, outputs, step)]
    return [(start, count, -(-count // LANES)) for start, count in sizes]


def in_blocks(array: NDArray[Any], groups: int, vectors: int) -> NDArray[Any]:
    """[groups * O, ...] to [vectors of all blocks * 16, ...] in the order of qcc_avx512vnni_conv.h, zero-padded."""
    parts = []
    for group in np.split(array, groups):
        for start, count, width in blocks(len(group), vectors):
            padded = np.zeros((width * LANES, *array.shape[1:]), array.dtype)
            padded[:count] = group[start : start + count]
            lanes = padded.reshape(4, width, 4, *array.shape[1:])
            parts.append(lanes.swapaxes(0, 1).reshape(padded.shape))
    return np.ascontiguousarray(np.concatenate(parts))


def pack_weights(weights: NDArray[Any], groups: int, vectors: int) -> NDArray[np.int8]:
    """s8[groups * O, runs, run] to [groups][blocks][runs][run/4][vectors][16][4], zero-padded, flat."""
    outputs, runs, run = weights.shape
    quads = -(-run // 4)
    ordered = in_blocks(np.pad(weights, ((0, 0), (0, 0), (0, quads * 4 - run))), groups, vectors)
    parts, first = [], 0
    for _ in range(groups):
        for _, _, width in blocks(outputs // groups, vectors):
            block = ordered[first : first + width * LANES].reshape(width, LANES, runs, quads, 4)
            parts.append(block.transpose(2, 3, 0, 1, 4).reshape(-1))
            first += width * LANES
    return np.ascontiguousarray(np.concatenate(parts))


# ---------------------------------------------------------------- cost
def cost(step: Step, tile: Tile) -> float:
    """Cycles of the step: its tiles, the last ones with what they waste, and the copy of the image."""
    shape, weights = step.output.type.shape, step.root.input(1).type.shape
    op = step.root.op
    pixels, outputs = step.output.type.elements // shape[-1] // tile.pixels, weights[0] * tile.pixels
    quads, groups, copied, lines, runs = ceil(weights[-1] / 4), 1, 0, 1, 1
    inside = 1.0
    if isinstance(op, Conv2d):
        height, groups = weights[1], op.groups
        width = weights[2] + (tile.pixels - 1) * op.strides[1]
        quads = height * (
            ceil(width * weights[3] / 4) if op.dilations[1] == 1 else width * ceil(weights[3] / 4)
        )
        if any(op.pads) or groups > 1 or weights[2] * weights[3] % 4:
            copied = step.root.input(0).type.elements
        lines, runs = height, 1 if op.dilations[1] == 1 else width
        inside = _inside(step)
    short = runs == 1 and (copied > 0 or lines == 1) and not tile.exact
    short &= quads >= _SHORT_QUADS[0] * lines and quads <= _SHORT_QUADS[1]
    cycles = _CALL + copied / _COPY
    for _, _, vectors in blocks(outputs // groups, tile.vectors):
        v = vectors - 1
        least = ROWS[v] - 2
        rows = pixels if pixels // ceil(pixels / ROWS[v]) >= least else ceil(pixels / least) * least
        quad, requantize, residual = _QUAD, _REQUANTIZE, _RESIDUAL
        if short and pixels > ROWS[v]:
            rows, (quad, requantize, residual) = pixels, _SHORT
        each = quads * inside * quad[v] + requantize[v] + (residual[v] if len(step.inputs) > 1 else 0)
        cycles += groups * rows * (each + _EXACT * vectors * tile.exact)
    return cycles


def _inside(step: Step) -> float:
    """Share of the taps that the kernel multiplies: not those in a padding of zeros."""
    op, image, taps = step.root.op, step.root.input(0), step.root.input(1).type.shape
    assert isinstance(op, Conv2d)
    if zero_point(image) != -CENTRE:
        return 1.0
    share = 1.0
    for axis in (0, 1):
        first = np.arange(step.output.type.shape[1 + axis]) * op.strides[axis] - op.pads[axis]
        at = first[:, None] + np.arange(taps[1 + axis]) * op.dilations[axis]
        share *= float(((at >= 0) & (at < image.type.shape[1 + axis])).mean())
    return share


def _rows(root: str, tile: Tile) -> tuple[Kernel, ...]:
    symbol = "qcc_s8_conv2d_exact_avx512vnni" if tile.exact else "qcc_s8_conv2d_avx512vnni"
    return tuple(
        Kernel(
            pattern=pattern,
            dtype="s8",
            symbol=symbol,
            params_type="qcc_avx512_conv_params",
            source=source(symbol),
            lower=partial(lower, tile=tile),
            accepts=_accepts(tile),
            priority=10,
            cost=partial(cost, tile=tile),
            variant=tile.name,
            in_place=(1,),
            uses_float=True,
        )
        for pattern in (f"{root}+requantize", f"{root}+add+requantize", f"{root}+sub+requantize")
    )


def _accepts(tile: Tile) -> Callable[[Step], str | None]:
    return lambda step: accepts_groups(step) or tile.accepts(step)


TILES = (Tile(4), Tile(3), Tile(2), Tile(1), Tile(2, pixels=2), Tile(4, exact=True))
KERNELS: tuple[Kernel, ...] = tuple(
    row for root in ("conv2d", "dense") for tile in TILES for row in _rows(root, tile)
)
