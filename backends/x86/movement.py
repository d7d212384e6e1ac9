"""Rows of what moves runs of elements, for AVX512: concatenation, slices, padding, repetition, interleaving."""

from __future__ import annotations

from qcc.backends.kernel import Kernel, Step
from qcc.backends.scalar.movement import lower_concat, lower_copy, movement
from qcc.backends.scalar.runs import (
    accepts_interleave,
    accepts_run_copy,
    accepts_run_gather,
    lower_interleave,
    lower_run_gather,
    runs,
)
from qcc.backends.x86.lanes import source
from qcc.ir.op import OPS
from qcc.ir.ops.shape import Movement

_COPY_CYCLES, _GATHER_CYCLES = 2.0, 6.0  # of a run that fits one vector


def copy_cycles(step: Step) -> float:
    """Each run, and its vectors."""
    moves = movement(step.root.op, step.root.signature)
    assert moves is not None
    return _cycles(step, len(moves.tables[-1]), _COPY_CYCLES)


def gather_cycles(step: Step) -> float:
    """Each row, and its vectors."""
    found = runs(step)
    assert found is not None
    return _cycles(step, found.before + found.run + found.after, _GATHER_CYCLES)


def _cycles(step: Step, row: int, cycles: float) -> float:
    rows = step.output.type.elements // row
    return rows * (cycles + row // 64)


_RUNS = source("qcc_copy_runs_avx512")

KERNELS: tuple[Kernel, ...] = (
    *(
        row
        for name, op in OPS.items()
        if issubclass(op, Movement) and op.operands == ("x",)
        for row in (
            Kernel(
                name,
                "s8",
                "qcc_s8_copy_avx512",
                "qcc_copy_params",
                _RUNS,
                lower_copy,
                accepts_run_copy,
                priority=10,
                cost=copy_cycles,
            ),
            Kernel(
                name,
                "s8",
                "qcc_s8_gather_avx512",
                "qcc_avx512_gather_params",
                _RUNS,
                lower_run_gather,
                accepts_run_gather,
                priority=10,
                cost=gather_cycles,
            ),
        )
    ),
    Kernel(
        "concat",
        "s8",
        "qcc_concat_avx512",
        "qcc_concat_params",
        _RUNS,
        lower_concat,
        priority=10,
        variadic=True,
    ),
    Kernel(
        "transpose",
        "s8",
        "qcc_s8_interleave_avx512",
        "qcc_avx512_interleave_params",
        source("qcc_s8_interleave_avx512"),
        lower_interleave,
        accepts_interleave,
        priority=10,
    ),
)
