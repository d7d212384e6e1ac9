"""Rows that the kernels of every vector unit have: sums, products, requantization, pooling, means.

They take the scalar rows' numbers; what they differ in is how multipliers and shifts are packed, and which ones they take.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcc.backends.kernel import Call, Kernel, Step
from qcc.backends.scalar.elementwise import (
    accepts_activations,
    accepts_constant,
    accepts_small_constant,
    lower_add,
    lower_add_constant,
    lower_mul,
    lower_mul_constant,
    lower_requantize,
)
from qcc.backends.scalar.sums import accepts_sum, sum_window
from qcc.backends.scalar.window import lower_s8_avg_pool2d

Lower = Callable[[Step], Call]
Accepts = Callable[[Step], str | None]
Scale = Callable[[Step, int], NDArray[Any]]  # of so many channels


def elementwise_rows(
    isa: str, source: Path, scale: Scale, accepts: Accepts, *, uses_float: bool = False
) -> tuple[Kernel, ...]:
    """Rows of add, add_constant, mul and mul_constant over qcc_binary_params, with ``scale`` behind the other constants.

    ``accepts`` looks at the requantize.
    """

    def row(pattern: str, name: str, lower: Lower, accepts_operands: Accepts = lambda step: None) -> Kernel:
        return Kernel(
            pattern=pattern,
            dtype="s8",
            symbol=f"qcc_s8_{name}_{isa}",
            params_type="qcc_binary_params",
            source=source,
            lower=lambda step: _with_scale(lower(step), step, scale),
            accepts=lambda step: accepts_operands(step) or accepts(step),
            priority=10,
            in_place=(0, 1),
            uses_float=uses_float,
        )

    return (
        *(
            row(f"{root}+requantize", name, lower, accepts_operands)
            for root in ("add", "sub")
            for name, lower, accepts_operands in (
                ("add", lower_add, accepts_activations),
                ("add_constant", lower_add_constant, accepts_constant),
            )
        ),
        row("mul+requantize", "mul", lower_mul, accepts_activations),
        row("mul+requantize", "mul_constant", lower_mul_constant, accepts_small_constant),
        row("requantize", "add_constant", lower_requantize_as_sum),
    )


def _with_scale(call: Call, step: Step, scale: Scale) -> Call:
    constants = {k: v for k, v in call.constants.items() if k not in ("multiplier", "shift")}
    multiplier = call.constants["multiplier"]
    assert multiplier is not None
    return Call(call.params, {**constants, "scale": scale(step, multiplier.size)}, inputs=call.inputs)


def lower_requantize_as_sum(step: Step) -> Call:
    """s8_requantize_scalar's numbers for add_constant: times 1, plus 0."""
    call = lower_requantize(step)
    rows, channels = call.params["rows"], call.params["channels"]
    assert isinstance(rows, int)
    assert isinstance(channels, int)
    extents = (1, 1, rows, channels) if channels > 1 else (1, 1, 1, rows)
    params = {
        "count": extents,
        "a_stride": (0, 0, extents[3], 1),
        "b_stride": (0, 0, 0, 0),
        "a_zero_point": call.params["input_zero_point"],
        "b_zero_point": 0,
        "per_channel": int(channels > 1),
        **{name: call.params[name] for name in ("output_zero_point", "low", "high")},
    }
    ones = {"b": np.zeros(1, np.int32), "a_multiplier": np.ones(channels, np.int32)}
    return Call(params, {**ones, **call.constants}, inputs=call.inputs)


def mean_rows(
    symbol: str,
    source: Path,
    packed: Callable[[Step, int], Mapping[str, NDArray[Any]]],
    accepts: Accepts,
    *,
    priority: int = 10,
    uses_float: bool = False,
) -> tuple[Kernel, ...]:
    """Rows of one kernel for average pooling, and for means and sums over neighbouring axes: a window of one row.

    ``packed``: what stands for multipliers and shifts, for so many channels. ``accepts`` looks at the requantize.
    """

    def lower_pool(step: Step) -> Call:
        call = lower_s8_avg_pool2d(step)
        channels = step.output.type.shape[-1]
        return Call(call.params, {"factors": call.constants["factors"], **packed(step, channels)})

    def lower_reduce(step: Step) -> Call:
        params = sum_window(step)
        return Call(params, {"factors": None, **packed(step, params["channels"])})

    def accepts_reduce(step: Step) -> str | None:
        return accepts_sum(step) or accepts(step)

    return tuple(
        Kernel(
            pattern=f"{op}+requantize",
            dtype="s8",
            symbol=symbol,
            params_type="qcc_avg_pool2d_params",
            source=source,
            lower=lower,
            accepts=accepts_step,
            priority=priority,
            uses_float=uses_float,
        )
        for op, lower, accepts_step in (
            ("avg_pool2d", lower_pool, accepts),
            ("reduce_mean", lower_reduce, accepts_reduce),
            ("reduce_sum", lower_reduce, accepts_reduce),
        )
    )
