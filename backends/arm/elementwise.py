"""Rows of sums, products, requantization, tables and softmax of two for NEON."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qcc.backends.arm.lanes import accepts_requantize, requantization, source
from qcc.backends.kernel import Kernel, Step
from qcc.backends.scalar.conversion import lower_table
from qcc.backends.scalar.lookups import accepts_pair, accepts_table, lower_pair
from qcc.backends.scalar.vectors import elementwise_rows

_TABLE, _PAIR = "qcc_s8_table_neon", "qcc_s8_softmax_pair_neon"


def _scale(step: Step, channels: int) -> NDArray[np.int32]:
    """m and k of qcc_neon.h, s32[2, channels]."""
    return np.stack(requantization(step, channels)).astype(np.int32)


ROWS: tuple[Kernel, ...] = (
    *elementwise_rows("neon", source("qcc_s8_elementwise_neon"), _scale, accepts_requantize),
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
