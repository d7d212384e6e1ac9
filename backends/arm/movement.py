"""Rows of what moves runs of elements for NEON: concatenation, slices, padding, repetition, interleaving."""

from __future__ import annotations

from qcc.backends.arm.lanes import source
from qcc.backends.kernel import Kernel
from qcc.backends.scalar.movement import lower_concat, lower_copy
from qcc.backends.scalar.runs import (
    accepts_interleave,
    accepts_run_copy,
    accepts_run_gather,
    lower_interleave,
    lower_run_gather,
)
from qcc.ir.op import OPS
from qcc.ir.ops.shape import Movement

_RUNS = source("qcc_copy_runs_neon")
_INTERLEAVE = "qcc_s8_interleave_neon"

ROWS: tuple[Kernel, ...] = (
    *(
        Kernel(name, "s8", symbol, params_type, _RUNS, lower, accepts, priority=priority)
        for name, op in OPS.items()
        if issubclass(op, Movement) and op.operands == ("x",)
        for symbol, params_type, lower, accepts, priority in (
            ("qcc_s8_copy_neon", "qcc_copy_params", lower_copy, accepts_run_copy, 11),
            ("qcc_s8_gather_neon", "qcc_neon_gather_params", lower_run_gather, accepts_run_gather, 10),
        )
    ),
    Kernel(
        "concat",
        "s8",
        "qcc_concat_neon",
        "qcc_concat_params",
        _RUNS,
        lower_concat,
        priority=10,
        variadic=True,
    ),
    Kernel(
        "transpose",
        "s8",
        _INTERLEAVE,
        "qcc_neon_interleave_params",
        source(_INTERLEAVE),
        lower_interleave,
        accepts_interleave,
        priority=12,
    ),
)
