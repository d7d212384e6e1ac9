"""Rows of steps with tensors of 16 bits for 256-bit vectors: AVX2 and AVX-VNNI. See qcc_avx2_wide.h.

Sums are int32 and wrap around, so that only where they end must be proved. The requantization is the definition itself, in
64 bits: it needs no certificate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcc.backends.kernel import Call, Kernel, Step
from qcc.backends.scalar import wide_convolution
from qcc.backends.scalar.lowering import Params, requantize_constants, requantize_params
from qcc.backends.scalar.runs import accepts_interleave, lower_interleave
from qcc.backends.scalar.sums import accepts_sum, lower_sum
from qcc.backends.scalar.wide import Accepts, type_bytes
from qcc.backends.split import split_rows, split_window_rows
from qcc.backends.x86 import wide_elementwise
from qcc.backends.x86.avx2 import AVX2, AVXVNNI, BAND_BYTES, BAND_PIXELS, BLOCK, Isa, in_vectors, pack_weights
from qcc.backends.x86.lanes import source
from qcc.backends.x86.wide import accepts_int32, folded_bias, in_place, wide_row
from qcc.ir.ops.conv import Conv2d

_CONV_PARAMS = (
    *("batch", "input_height", "input_width", "input_channels"),
    *("output_height", "output_width", "output_channels", "kernel_height", "kernel_width"),
    *("stride_height", "stride_width", "dilation_height", "dilation_width"),
    *("pad_top", "pad_left", "pad_value", "band", "vectors", "input_bytes", "skip_bytes", "output_bytes"),
    *("output_zero_point", "low", "high"),
)
_WORD = 2  # int16 in 32 bits
_SLACK_BYTES = 4  # of the workspace, which the last word may read


def wrapped(sums: NDArray[np.int64]) -> NDArray[np.int32]:
    """Modulo 2^32: they wrap around as the accumulator does."""
    return (sums & 0xFFFFFFFF).astype(np.uint32).view(np.int32)


# ---------------------------------------------------------------- convolution and dense
def accepts_conv2d(step: Step) -> str | None:
    """One group, and sums of 32 bits."""
    op = step.root.op
    if isinstance(op, Conv2d) and op.groups > 1:
        return "more than one group"
    return wide_convolution.accepts_convolution(step) or accepts_int32(step)


def lower_conv2d(step: Step) -> Call:
    """qcc_avx2_wide_conv2d.h: the numbers of wide_conv2d_scalar, packed. A dense layer is an image one pixel wide."""
    is_conv = isinstance(step.root.op, Conv2d)
    call = (wide_convolution.lower_conv2d if is_conv else wide_convolution.lower_dense)(step)
    numbers: dict[str, int] = {k: int(v) for k, v in call.params.items()}  # type: ignore[arg-type]
    weights = call.constants["weights"]
    assert weights is not None
    if not is_conv:
        weights = weights[:, None, None]
        for side in ("input", "output"):
            numbers |= {f"{side}_height": numbers[f"{side}_width"], f"{side}_width": 1}
    run = (numbers["kernel_width"] if numbers["dilation_width"] == 1 else 1) * weights.shape[3]
    vectors = 8 if prod(step.output.type.shape) == len(weights) else 2
    band, elements = _band(numbers)
    numbers |= {"band": band, "vectors": vectors}
    params: Params = {name: numbers[name] for name in _CONV_PARAMS}
    channels = {name: call.constants[name] for name in ("skip_multiplier", "multiplier", "shift")}
    return Call(
        params,
        {
            "weights": pack_weights(weights.reshape(len(weights), -1, run), _WORD, vectors),
            "bias": in_vectors(wrapped(folded_bias(call))),
            **{name: None if array is None else in_vectors(array) for name, array in channels.items()},
        },
        2 * elements + _SLACK_BYTES,
        call.inputs,
    )


def _band(numbers: Mapping[str, int]) -> tuple[int, int]:
    """Rows of output that are computed from one copy of the image, and the elements of that copy."""
    height, width = numbers["output_height"], numbers["output_width"]
    reach = (numbers["kernel_height"] - 1) * numbers["dilation_height"] + 1
    columns = (
        (width - 1) * numbers["stride_width"] + (numbers["kernel_width"] - 1) * numbers["dilation_width"] + 1
    )
    line, stride = columns * numbers["input_channels"], numbers["stride_height"]
    fitting = (BAND_BYTES // 2 // line - reach) // stride + 1
    most = min(height, max(fitting, -(-BAND_PIXELS // width)))
    band = -(-height // -(-height // most))  # as many bands, of even sizes
    return band, ((band - 1) * stride + reach) * line


def _products(isa: Isa) -> Iterable[Kernel]:
    for root in ("conv2d", "dense"):
        for end in ("requantize", "add+requantize", "sub+requantize"):
            for accepts, overwritten in in_place(accepts_conv2d):
                yield from _rows(
                    f"{root}+{end}",
                    f"qcc_s16_conv2d_{isa.name}",
                    "qcc_avx2_wide_conv2d_params",
                    lower_conv2d,
                    accepts,
                    in_place=overwritten,
                    priority=10 if overwritten else 9,
                    split=split_window_rows,
                )


# ---------------------------------------------------------------- means and sums
def accepts_mean(step: Step) -> str | None:
    """Over neighbouring axes, not the last ones, with sums of 32 bits."""
    return accepts_sum(step) or accepts_int32(step)


def lower_mean(step: Step) -> Call:
    """s16_sum_avx2."""
    call = lower_sum(step)
    params: Params = {
        **call.params,
        "input_bytes": type_bytes(step.root.input(0)),
        "output_bytes": type_bytes(step.output),
        **requantize_params(step),
    }
    channels = params["channels"]
    assert isinstance(channels, int)
    constants = requantize_constants(step)
    return Call(
        params,
        {name: in_vectors(np.tile(a, channels // a.size), BLOCK) for name, a in constants.items()},
        inputs=(step.root.input(0),),
    )


# ---------------------------------------------------------------- elementwise
def lower_elementwise(lower: Callable[[Step], Call], step: Step) -> Call:
    """s16_add_avx2: as for AVX512, whose sums have 2^31 added."""
    call = lower(step)
    bias = call.params["bias"]
    assert isinstance(bias, int)
    return replace(call, params={**call.params, "bias": bias - 2**31 if bias >= 0 else bias + 2**31})


# ---------------------------------------------------------------- rows
def _rows(
    pattern: str,
    symbol: str,
    params_type: str,
    lower: Callable[[Step], Call],
    accepts: Accepts,
    **fields: Any,
) -> tuple[Kernel, ...]:
    return tuple(
        wide_row(pattern, dtype, symbol, params_type, lower, accepts, **{"uses_float": False, **fields})
        for dtype in ("s16", "s8")
    )


_SUMS: tuple[Kernel, ...] = tuple(
    row
    for pattern, lower, accepts, overwritten in (
        ("add+requantize", wide_elementwise.lower_add, wide_elementwise.accepts_add, (0, 1)),
        ("sub+requantize", wide_elementwise.lower_add, wide_elementwise.accepts_add, (0, 1)),
        ("requantize", wide_elementwise.lower_requantize, wide_elementwise.accepts_requantize, (0,)),
    )
    for row in _rows(
        pattern,
        "qcc_s16_add_avx2",
        "qcc_avx2_wide_add_params",
        partial(lower_elementwise, lower),
        accepts,
        in_place=overwritten,
        split=split_rows("count"),
    )
)
MEANS: tuple[Kernel, ...] = tuple(
    row
    for op in ("reduce_mean", "reduce_sum")
    for row in _rows(
        f"{op}+requantize", "qcc_s16_sum_avx2", "qcc_avx2_wide_sum_params", lower_mean, accepts_mean
    )
)
INTERLEAVE = Kernel(
    "transpose",
    "s16",
    "qcc_s16_interleave_avx2",
    "qcc_avx2_wide_interleave_params",
    source("qcc_s16_interleave_avx2"),
    lower_interleave,
    accepts_interleave,
    priority=10,
)
SHARED: tuple[Kernel, ...] = (*MEANS, INTERLEAVE)  # fast enough for wider vectors, too
AVX2_ROWS: tuple[Kernel, ...] = (*_products(AVX2), *_SUMS, *SHARED)
AVXVNNI_ROWS: tuple[Kernel, ...] = (*_products(AVXVNNI), *_SUMS, *SHARED)
