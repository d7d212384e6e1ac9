"""Movement of runs of elements, as kernels of vectors see it: slices, padding, repetition, interleaving."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qcc.backends.kernel import Call, Step
from qcc.backends.scalar.lowering import Params
from qcc.backends.scalar.movement import Integers, accepts_copy, accepts_gather, movement
from qcc.ir.ops.shape import Transpose

_PLANES = (2, 4)  # that interleave
_GATHER_AXES = 5
_LEAST_RUN = 2  # bytes: single ones are no runs


@dataclass(frozen=True)
class Runs:
    """Rows of ``before`` fills, ``run`` consecutive elements and ``after`` fills, and the tables of the other axes."""

    before: int
    run: int
    after: int
    tables: tuple[Integers, ...]


def runs(step: Step) -> Runs | None:
    """None where the innermost rows are of another kind."""
    moves = movement(step.root.op, step.root.signature)
    if moves is None:
        return None
    *outer, row = moves.tables
    inside = np.flatnonzero(row >= 0)
    first, last = (int(inside[0]), int(inside[-1])) if len(inside) else (0, -1)
    run = last - first + 1
    if run < _LEAST_RUN or not np.array_equal(row[first : last + 1], row[first] + np.arange(run)):
        return None
    tables = [np.zeros(1, np.int64)] * (_GATHER_AXES - len(outer)) + list(outer)
    tables[0] = np.where(tables[0] < 0, -1, tables[0] + row[first])
    return Runs(first, run, len(row) - 1 - last, tuple(tables))


def accepts_run_copy(step: Step) -> str | None:
    """As the scalar copy, by runs."""
    refused = accepts_copy(step)
    if refused is not None:
        return refused
    moves = movement(step.root.op, step.root.signature)
    assert moves is not None
    assert moves.strides is not None
    if moves.strides[-1] != 1 or len(moves.tables[-1]) < _LEAST_RUN:
        return "no neighbouring elements stay neighbours"
    return None


def accepts_run_gather(step: Step) -> str | None:
    """As the scalar gather, by runs that may have fills around them."""
    refused = accepts_gather(step)
    if refused is not None:
        return refused
    found = runs(step)
    if found is None:
        return "the innermost rows are not a run, with or without fills around it"
    return None if len(found.tables) == _GATHER_AXES else f"more than {_GATHER_AXES} axes and rows"


def lower_run_gather(step: Step) -> Call:
    """Of the kernels that gather runs."""
    found, moves = runs(step), movement(step.root.op, step.root.signature)
    assert found is not None
    assert moves is not None
    params: Params = {
        "before": found.before,
        "run": found.run,
        "after": found.after,
        "fill": int(moves.fill),
        "shape": [len(t) for t in found.tables],
    }
    return Call(params, {"index": np.concatenate(found.tables).astype(np.int32)})


def accepts_interleave(step: Step) -> str | None:
    """Few planes to pixels."""
    op, shape = step.root.op, step.root.input(0).type.shape
    assert isinstance(op, Transpose)
    if op.perm != (0, 2, 3, 1) or not _PLANES[0] <= shape[1] <= _PLANES[1]:
        return "not 2 to 4 planes that become pixels"
    return None


def lower_interleave(step: Step) -> Call:
    """Of the kernels that interleave planes."""
    batch, channels, height, width = step.root.input(0).type.shape
    return Call({"batch": batch, "channels": channels, "pixels": height * width})
