"""Rows of tables and of softmax, for AVX512."""

from __future__ import annotations

from dataclasses import replace

from qcc.backends.kernel import Call, Kernel, Step
from qcc.backends.scalar import accumulators
from qcc.backends.scalar.conversion import lower_table
from qcc.backends.scalar.lookups import accepts_pair, accepts_table, lower_pair
from qcc.backends.scalar.reduction import lower_s8_softmax
from qcc.backends.x86.lanes import source

_LANES = 16
_LEAST_ROW = 8  # elements: for fewer, the scalar kernel is as fast
_ROW_MAX = 2**17  # elements: the bound of softmax_avx512.c


def accepts_row(step: Step) -> str | None:
    """Rows of half a vector at least."""
    count = step.output.type.shape[-1]
    return (
        None
        if _LEAST_ROW <= count < _ROW_MAX
        else f"rows of {count} elements, not {_LEAST_ROW} to {_ROW_MAX}"
    )


def lower_row(step: Step) -> Call:
    """s8_softmax_avx512: the scalar row's numbers, and room for a row."""
    return replace(lower_s8_softmax(step), workspace_bytes=_row_bytes(step))


def lower_wide(step: Step) -> Call:
    """s32_softmax_avx512: the scalar row's numbers, and room for a row."""
    return replace(accumulators.lower_softmax(step), workspace_bytes=_row_bytes(step))


def _row_bytes(step: Step) -> int:
    return 4 * (-(-step.output.type.shape[-1] // _LANES) * _LANES)


_LOOKUP, _SOFTMAX = source("qcc_s8_lookup_avx512"), source("qcc_softmax_avx512")

KERNELS: tuple[Kernel, ...] = (
    Kernel(
        "table",
        "s8",
        "qcc_s8_table_avx512",
        "qcc_table_params",
        _LOOKUP,
        lower_table,
        accepts_table,
        priority=10,
        in_place=True,
    ),
    Kernel(
        "softmax",
        "s8",
        "qcc_s8_softmax_pair_avx512",
        "qcc_softmax_params",
        _LOOKUP,
        lower_pair,
        accepts_pair,
        priority=10,
        in_place=True,
    ),
    Kernel(
        "softmax",
        "s8",
        "qcc_s8_softmax_avx512",
        "qcc_softmax_params",
        _SOFTMAX,
        lower_row,
        accepts_row,
        priority=10,
        uses_float=True,
        in_place=True,
    ),
    Kernel(
        "wide_softmax",
        "s32",
        "qcc_s32_softmax_avx512",
        "qcc_wide_softmax_params",
        _SOFTMAX,
        lower_wide,
        accepts_row,
        priority=10,
        uses_float=True,
    ),
)
