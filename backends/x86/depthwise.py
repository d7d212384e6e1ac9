"""Rows of the depthwise convolutions for AVX512-VNNI: one kernel, which goes along either axis of the image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcc.backends.kernel import Call, Kernel, Step
from qcc.backends.scalar.convolution import accepts_depthwise, lower_depthwise
from qcc.backends.x86.lanes import LANES, ORDER, QUARTER, certified, float_scale, source
from qcc.ir.ops.conv import Conv2d

SYMBOL = "qcc_s8_depthwise_conv2d_avx512vnni"
COLUMNS = 64  # of the kernel's scratch array, times quads
CENTRE = 128  # what turns s8 into u8
_PARAMS = (
    *("batch", "input_height", "input_width", "channels", "output_height", "output_width"),
    *("kernel_height", "kernel_width", "stride_height", "stride_width", "dilation_height", "dilation_width"),
    *("pad_top", "pad_left", "pad_value", "along_height"),
    *("skip_zero_point", "output_zero_point", "low", "high"),
)


@dataclass(frozen=True)
class Plan:
    """How the kernel computes a step: taps of the axis across its lines in ``quads``, which ``lines`` of output share."""

    across: int  # axis of the image, 0 (height) or 1 (width); the lines lie along the other one
    taps: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    output: tuple[int, int]
    channels: int

    @property
    def along(self) -> int:
        """The other axis."""
        return 1 - self.across

    @property
    def quads(self) -> int:
        """Vectors that hold the taps across, four in each."""
        return -(-self.taps[self.across] // 4)

    @property
    def lines(self) -> int:
        """Lines of output whose taps the same quads hold."""
        if self.dilations[self.across] > 1:
            return 1
        return (4 * self.quads - self.taps[self.across]) // self.strides[self.across] + 1

    @property
    def reach(self) -> int:
        """Columns that one output reads."""
        return (self.taps[self.along] - 1) * self.dilations[self.along] + 1

    @property
    def cycles(self) -> float:
        """Measured on Zen 5: 5.5 for a column of a quad; for each 16 sums half a cycle for a product and for the scaling,
        with a tenth for what is around (half, if weights come from memory); 80 for each call of the first pass.
        """
        taps, stride = self.taps[self.along], self.strides[self.along]
        unrolled = (taps, self.quads) in ((3, 1), (5, 2)) and stride <= 2 and self.dilations[self.along] == 1
        sums = (taps * self.quads + 1) * (0.56 if unrolled else 0.75)
        lines, count = self.output[self.across], self.output[self.along]
        groups = -(-lines // self.lines)
        columns = ((count - 1) * stride + self.reach) * self.quads * groups
        return sum(
            80 * groups + 5.5 * columns + lines * (count * (quarters * sums + 1) + 5 * quarters)
            for _, quarters in blocks(self.channels)
        )


def blocks(channels: int) -> Iterator[tuple[slice, int]]:
    """Channels of each vector, and its quarters: 4, and of the last vector what it needs of 1, 2 or 4."""
    for start in range(0, channels, LANES):
        left = channels - start
        yield (
            slice(start, min(start + LANES, channels)),
            4 if left > 2 * QUARTER else 2 if left > QUARTER else 1,
        )


def plan(step: Step, across: int) -> Plan:
    """Of a depthwise convolution."""
    op = step.root.op
    assert isinstance(op, Conv2d)
    _, kernel_height, kernel_width, _ = step.root.input(1).type.shape
    _, height, width, channels = step.output.type.shape
    return Plan(across, (kernel_height, kernel_width), op.strides, op.dilations, (height, width), channels)


def accepts(across: int, step: Step) -> str | None:
    """A certified depthwise convolution whose interleaved columns under one output fit into the scratch array."""
    refused = accepts_depthwise(step) or certified(step)
    if refused:
        return refused
    p = plan(step, across)
    columns = p.reach * p.quads
    return f"one output reads {columns} columns, the kernel has {COLUMNS}" if columns > COLUMNS else None


def cost(across: int, step: Step) -> float:
    """Cycles."""
    return plan(step, across).cycles


def pack_weights(weights: NDArray[np.int8], p: Plan) -> NDArray[np.int8]:
    """s8[KH, KW, C] to [blocks][lines][quarters][taps along][quads][16][4], flat: each line shifted by the stride."""
    across_first = weights if p.across == 0 else weights.transpose(1, 0, 2)
    room = 4 * p.quads - p.taps[p.across]
    shifts = [p.strides[p.across] * line for line in range(p.lines)]
    shifted = np.stack([np.pad(across_first, ((s, room - s), (0, 0), (0, 0))) for s in shifts])
    quads = shifted.reshape(p.lines, p.quads, 4, p.taps[p.along], -1).transpose(0, 3, 1, 4, 2)
    return np.concatenate(  # of [lines, taps, quads, C, 4]
        [
            np.moveaxis(_quarters(quads[..., part, :], quarters, 3), 3, 1).reshape(-1)
            for part, quarters in blocks(p.channels)
        ]
    )


def _quarters(array: NDArray[Any], quarters: int, axis: int) -> NDArray[Any]:
    """Axis ``axis`` of channels to two axes [quarters, 16], zero-padded, in the order of interleaved lanes."""
    lanes = quarters * QUARTER
    padding = [(0, lanes - n if i == axis else 0) for i, n in enumerate(array.shape)]
    ordered = np.pad(array, padding).take(ORDER[lanes], axis)
    return ordered.reshape(*array.shape[:axis], quarters, QUARTER, *array.shape[axis + 1 :])


def pack_channels(array: NDArray[Any]) -> NDArray[Any]:
    """[C] to the blocks' lanes, flat."""
    return np.concatenate([_quarters(array[part], q, 0).reshape(-1) for part, q in blocks(len(array))])


def lower(across: int, step: Step) -> Call:
    """The scalar row's numbers in lanes, the sums of -128 in the bias, the multiplier as float32."""
    call, p = lower_depthwise(step), plan(step, across)
    weights, bias, skip = (call.constants[name] for name in ("weights", "bias", "skip_multiplier"))
    assert weights is not None
    assert bias is not None
    values = {**call.params, "channels": p.channels, "along_height": p.across}
    centred = bias.astype(np.int64) - CENTRE * weights.astype(np.int64).sum(axis=(0, 1))
    constants: dict[str, NDArray[Any] | None] = {
        "weights": pack_weights(weights, p),
        # the sums wrap around like the accumulator does, and end where it is proved to end
        "bias": pack_channels(centred.astype(np.uint64).astype(np.uint32).view(np.int32)),
        "skip_multiplier": None if skip is None else pack_channels(skip),
        "scale": pack_channels(float_scale(step, p.channels)),
    }
    return Call({name: values[name] for name in _PARAMS}, constants, inputs=call.inputs)


KERNELS: tuple[Kernel, ...] = tuple(
    Kernel(
        pattern=pattern,
        dtype="s8",
        symbol=SYMBOL,
        params_type="qcc_avx512_depthwise_params",
        source=source(SYMBOL),
        lower=partial(lower, across),
        accepts=partial(accepts, across),
        priority=11,
        cost=partial(cost, across),
        variant=variant,
        in_place=(1,),
        uses_float=True,
    )
    for across, variant in ((0, "along rows"), (1, "along columns"))
    for pattern in ("conv2d+requantize", "conv2d+add+requantize", "conv2d+sub+requantize")
)
