"""Tables of one byte, or of the difference of two, as kernels of vectors see them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from qcc.backends.kernel import Call, Step
from qcc.backends.scalar.lowering import constant
from qcc.backends.scalar.reduction import lower_s8_softmax


def accepts_table(step: Step) -> str | None:
    """One table for all channels."""
    return None if step.root.input(1).type.rank == 1 else "a table for each channel"


def accepts_pair(step: Step) -> str | None:
    """Rows of two."""
    count = step.output.type.shape[-1]
    return None if count == 2 else f"rows of {count} elements, not 2"


def pair_table(step: Step) -> NDArray[np.int8]:
    """s8[512]: the first of two results, by the difference of the two operands plus 255."""
    difference = np.arange(-255, 256)
    pairs = np.stack([np.maximum(difference, 0), np.maximum(-difference, 0)], axis=-1) - 128
    results = step.root.op.int_ref(step.root.signature, pairs, constant(step.root, "table"))
    return np.append(results[:, 0], 0).astype(np.int8)


def lower_pair(step: Step) -> Call:
    """Of the kernels that look up the softmax of two."""
    return replace(lower_s8_softmax(step), constants={"table": pair_table(step)})
