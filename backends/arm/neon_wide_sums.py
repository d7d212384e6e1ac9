"""Rows of means, sums and interleaving of tensors with 16 bits for NEON. See qcc_neon_wide.h."""

from __future__ import annotations

import numpy as np

from qcc.backends.arm import wide
from qcc.backends.arm.lanes import LANES, padded, source
from qcc.backends.arm.neon_wide import BLOCK, SHIFTS
from qcc.backends.kernel import Call, Kernel, Step
from qcc.backends.scalar.lowering import requantize_params
from qcc.backends.scalar.runs import accepts_interleave, lower_interleave
from qcc.backends.scalar.sums import accepts_sum, lower_sum
from qcc.backends.scalar.wide import has_16_bits, type_bytes

_DOWN = 31  # of a doubled product's high half
_SUM = "qcc_s16_sum_neon"
_INTERLEAVE = "qcc_s16_interleave_neon"


def accepts_mean(step: Step) -> str | None:
    """Over neighbouring axes, not the last ones; sums of 32 bits, of which no channel is constant."""
    refused = accepts_sum(step) or wide.accepts_requantize(step, SHIFTS)
    if refused is not None:
        return refused
    found = wide.requantization(step, SHIFTS)
    assert found is not None
    return "the result is constant" if found.still.any() else None


def lower_mean(step: Step) -> Call:
    """s16_sum_neon."""
    call, found = lower_sum(step), wide.requantization(step, SHIFTS)
    channels = call.params["channels"]
    assert found is not None
    assert isinstance(channels, int)
    columns = np.stack([found.multiplier, found.up, _DOWN - found.shift])
    columns = padded(np.tile(columns, channels // columns.shape[1]), BLOCK)
    scale = columns.reshape(3, -1, LANES).swapaxes(0, 1)
    return Call(
        {
            **call.params,
            "input_bytes": type_bytes(step.root.input(0)),
            "output_bytes": type_bytes(step.output),
            **requantize_params(step),
        },
        {"scale": np.ascontiguousarray(scale, np.int32)},
        inputs=(step.root.input(0),),
    )


ROWS: tuple[Kernel, ...] = (
    *(
        Kernel(
            f"{op}+requantize",
            dtype,
            _SUM,
            "qcc_neon_wide_sum_params",
            source(_SUM),
            lower_mean,
            accepts_mean,
            priority=10,
            wide=True,
            meant_for=has_16_bits,
        )
        for op in ("reduce_mean", "reduce_sum")
        for dtype in ("s8", "s16")
    ),
    Kernel(
        "transpose",
        "s16",
        _INTERLEAVE,
        "qcc_neon_wide_interleave_params",
        source(_INTERLEAVE),
        lower_interleave,
        accepts_interleave,
        priority=12,
    ),
)
