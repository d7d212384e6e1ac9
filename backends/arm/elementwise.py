"""Rows of sums, products, requantization, tables and softmax of two for NEON."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from qcc.backends.arm.lanes import accepts_requantize, requantization, source
from qcc.backends.kernel import Call, Kernel, Step
from qcc.backends.scalar.conversion import lower_table
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
from qcc.backends.scalar.lookups import accepts_pair, accepts_table, lower_pair

_SOURCE = source("qcc_s8_elementwise_neon")
_TABLE, _PAIR = "qcc_s8_table_neon", "qcc_s8_softmax_pair_neon"


def with_scale(lower: Callable[[Step], Call]) -> Callable[[Step], Call]:
    """The scalar row's numbers, with m and k of qcc_neon.h, s32[2, channels], for multipliers and shifts."""

    def lowered(step: Step) -> Call:
        call = lower(step)
        constants = {k: v for k, v in call.constants.items() if k not in ("multiplier", "shift")}
        multiplier = call.constants["multiplier"]
        assert multiplier is not None
        scale = np.stack(requantization(step, multiplier.size)).astype(np.int32)
        return Call(call.params, {**constants, "scale": scale}, inputs=call.inputs)

    return lowered


def lower_requantize_only(step: Step) -> Call:
    """s8_add_constant_neon: times 1, plus 0."""
    call = with_scale(lower_requantize)(step)
    scale, rows, channels = call.constants["scale"], call.params["rows"], call.params["channels"]
    assert scale is not None
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
    return Call(params, {**ones, "scale": scale}, inputs=call.inputs)


def _row(
    pattern: str, name: str, lower: Callable[[Step], Call], accepts: Callable[[Step], str | None]
) -> Kernel:
    return Kernel(
        pattern=pattern,
        dtype="s8",
        symbol=f"qcc_s8_{name}_neon",
        params_type="qcc_binary_params",
        source=_SOURCE,
        lower=lower,
        accepts=lambda step: accepts(step) or accepts_requantize(step),
        priority=10,
        in_place=(0, 1),
    )


ROWS: tuple[Kernel, ...] = (
    *(
        _row(f"{root}+requantize", name, with_scale(lower), accepts)
        for root in ("add", "sub")
        for name, lower, accepts in (
            ("add", lower_add, accepts_activations),
            ("add_constant", lower_add_constant, accepts_constant),
        )
    ),
    _row("mul+requantize", "mul", with_scale(lower_mul), accepts_activations),
    _row("mul+requantize", "mul_constant", with_scale(lower_mul_constant), accepts_small_constant),
    _row("requantize", "add_constant", lower_requantize_only, lambda step: None),
    Kernel(
        pattern="softmax",
        dtype="s8",
        symbol=_PAIR,
        params_type="qcc_softmax_params",
        source=source(_PAIR),
        lower=lower_pair,
        accepts=accepts_pair,
        priority=10,
        in_place=True,
    ),
)

TABLE_ROWS: tuple[Kernel, ...] = (  # of 64-bit Arm: a table takes 16 registers
    Kernel(
        pattern="table",
        dtype="s8",
        symbol=_TABLE,
        params_type="qcc_table_params",
        source=source(_TABLE),
        lower=lower_table,
        accepts=accepts_table,
        priority=10,
        in_place=True,
    ),
)
