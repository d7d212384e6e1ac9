"""Rows of sums, products and requantization of activations, for AVX512."""

from __future__ import annotations

from collections.abc import Callable
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
from qcc.backends.x86.lanes import certified, float_scale, source


def lower_requantize_only(step: Step) -> Call:
    """s8_add_constant_avx512: times 1, plus 0."""
    scalar = lower_requantize(step)
    rows, channels = int(scalar.params["rows"]), int(scalar.params["channels"])  # type: ignore[arg-type]
    extents = (1, 1, rows, channels) if channels > 1 else (1, 1, 1, rows)
    params = {
        "count": extents,
        "a_stride": (0, 0, extents[3], 1),
        "b_stride": (0, 0, 0, 0),
        "a_zero_point": scalar.params["input_zero_point"],
        "b_zero_point": 0,
        "per_channel": int(channels > 1),
        **{name: scalar.params[name] for name in ("output_zero_point", "low", "high")},
    }
    constants: dict[str, NDArray[Any]] = {
        "b": np.zeros(1, np.int32),
        "a_multiplier": np.ones(channels, np.int32),
        "scale": float_scale(step),
    }
    return Call(params, constants, inputs=scalar.inputs)


def _with_scale(lower: Callable[[Step], Call]) -> Callable[[Step], Call]:
    """The scalar row's numbers, with the float multiplier."""

    def lowered(step: Step) -> Call:
        call = lower(step)
        constants = {k: v for k, v in call.constants.items() if k not in ("multiplier", "shift")}
        multiplier = call.constants["multiplier"]
        assert multiplier is not None
        return Call(
            call.params, {**constants, "scale": float_scale(step, multiplier.size)}, inputs=call.inputs
        )

    return lowered


def _and_certified(accepts: Callable[[Step], str | None]) -> Callable[[Step], str | None]:
    return lambda step: accepts(step) or certified(step)


def _row(
    pattern: str, name: str, lower: Callable[[Step], Call], accepts: Callable[[Step], str | None]
) -> Kernel:
    return Kernel(
        pattern=pattern,
        dtype="s8",
        symbol=f"qcc_s8_{name}_avx512",
        params_type="qcc_binary_params",
        source=source("qcc_s8_elementwise_avx512"),
        lower=lower,
        accepts=_and_certified(accepts),
        priority=10,
        in_place=(0, 1),
        uses_float=True,
    )


KERNELS: tuple[Kernel, ...] = (
    *(
        _row(f"{root}+requantize", name, _with_scale(lower), accepts)
        for root in ("add", "sub")
        for name, lower, accepts in (
            ("add", lower_add, accepts_activations),
            ("add_constant", lower_add_constant, accepts_constant),
        )
    ),
    _row("mul+requantize", "mul", _with_scale(lower_mul), accepts_activations),
    _row("mul+requantize", "mul_constant", _with_scale(lower_mul_constant), accepts_small_constant),
    _row("requantize", "add_constant", lower_requantize_only, lambda step: None),
)
