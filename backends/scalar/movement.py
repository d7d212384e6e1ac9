"""Rows of ops that move elements. What moves where is read off the op's own reference, so no op is named here.

The reference runs on an array of element numbers. The result says for each output element which input element it
is, and becomes strides (``copy``), or one index table per axis (``gather``), or one table of all elements.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from qcc.backends.kernel import Call, Kernel, Step
from qcc.backends.scalar.lowering import Params, source
from qcc.ir.op import OPS, Op, Signature
from qcc.ir.ops.rearrange import Concat
from qcc.ir.ops.shape import Movement

Integers = NDArray[np.int64]
_COPY_AXES, _GATHER_AXES = 6, 5


@dataclass(frozen=True)
class Moves:
    """output[i0, i1, ...] = input[sum of tables[k][ik]], or ``fill`` where one of them is negative."""

    tables: tuple[Integers, ...]
    fill: float

    @property
    def strides(self) -> tuple[int, ...] | None:
        """Input stride along each axis, None when the tables are not all arithmetic progressions."""
        strides = [_stride(t) for t in self.tables]
        found = tuple(s for s in strides if s is not None)
        return found if len(found) == len(strides) else None


def movement(op: Op, sig: Signature) -> Moves | None:
    """How ``op`` moves the elements of its single operand; None when it does more than move them."""
    shape = sig.operand(0).shape
    count = prod(shape)

    def reference(x: Integers) -> Integers:
        if sig.result.dtype.is_integer:
            return np.asarray(op.int_ref(sig, x), np.int64)
        return np.asarray(op.float_ref(x.astype(np.float64)), np.float64).astype(np.int64)

    numbers = np.arange(count).reshape(shape)
    base = count + 1 + abs(_fill_bound(sig))  # element numbers that no fill value can be taken for
    first, second = reference(numbers + base), reference(numbers + 2 * base)
    if first.shape != sig.result.shape or not np.isin(second - first, (0, base)).all():
        return None
    filled = first == second
    index = np.where(filled, -1, first - base)
    if index.min(initial=0) < -1 or index.max(initial=0) >= count:
        return None
    # rising numbers let a maximum look like a move: falling ones tell every window of two or more apart
    for order in (numbers.reshape(-1)[::-1], np.random.default_rng(0).permutation(count)):
        moved = order + base
        if not np.array_equal(np.where(filled, first, moved[index]), reference(moved.reshape(shape))):
            return None
    zero = np.zeros(shape, np.float32)
    values = op.int_ref(sig, zero.astype(np.int64)) if sig.result.dtype.is_integer else op.float_ref(zero)
    fill = float(np.asarray(values)[filled][0]) if filled.any() else 0.0
    return Moves(_merge(_tables(index)), fill)


def _fill_bound(sig: Signature) -> int:
    return 1 << 20 if not sig.result.dtype.is_integer else max(-sig.result.dtype.min, sig.result.dtype.max)


def _tables(index: Integers) -> tuple[Integers, ...]:
    """One table per axis whose sums are ``index``; one table of all elements when there are none."""
    inside = np.argwhere(index >= 0)
    if len(inside) == 0:
        return (np.full(index.size, -1, np.int64),)
    origin = inside[0]
    tables = []
    for axis in range(index.ndim):
        line = index[tuple(slice(None) if k == axis else origin[k] for k in range(index.ndim))]
        tables.append(np.where(line < 0, -1, line - line[line >= 0].min()))
    start = index[tuple(origin)] - sum(int(t[i]) for t, i in zip(tables, origin, strict=True))
    if tables:
        tables[0] = np.where(tables[0] < 0, -1, tables[0] + start)
    if start < 0 or not np.array_equal(_sum(tables, index.ndim), index):
        return (index.reshape(-1),)
    return tuple(tables)


def _sum(tables: list[Integers], rank: int) -> Integers:
    total: Integers = np.zeros((1,) * rank, np.int64)
    outside = np.zeros((1,) * rank, bool)
    for axis, table in enumerate(tables):
        column = table.reshape([-1 if k == axis else 1 for k in range(rank)])
        total, outside = total + column, outside | (column < 0)
    return np.where(outside, -1, total)


def _stride(table: Integers) -> int | None:
    """The constant difference of the entries, 0 for a single one; None when there is none."""
    if (table < 0).any():
        return None
    steps = np.diff(table)
    if len(steps) == 0:
        return 0
    return int(steps[0]) if (steps == steps[0]).all() else None


def _merge(tables: tuple[Integers, ...]) -> tuple[Integers, ...]:
    """Drop axes of size 1; join neighbours that together are one progression (or repeat one element)."""
    merged: list[Integers] = []
    start = sum(int(t[0]) for t in tables if len(t) == 1 and t[0] >= 0)
    for table in (t for t in tables if len(t) > 1 or t[0] < 0):
        if merged:
            joined = np.add.outer(merged[-1], table).reshape(-1)
            outer, inner = _stride(merged[-1]), _stride(table)
            if outer is not None and inner is not None and outer == inner * len(table):
                merged[-1] = joined
                continue
        merged.append(table)
    if not merged:
        return (np.array([start], np.int64),)
    merged[0] = np.where(merged[0] < 0, -1, merged[0] + start)
    return tuple(merged)


def accepts_copy(step: Step) -> str | None:
    """Fixed strides along at most six axes."""
    moves = movement(step.root.op, step.root.signature)
    if moves is None:
        return f"{step.root.op.name} does more than move elements"
    if moves.strides is None:
        return "the operand is not read with fixed strides"
    return None if len(moves.strides) <= _COPY_AXES else f"more than {_COPY_AXES} axes"


def lower_copy(step: Step) -> Call:
    """copy_scalar: strides from the tables."""
    moves = movement(step.root.op, step.root.signature)
    assert moves is not None
    assert moves.strides is not None
    padding = _COPY_AXES - len(moves.tables)
    params: Params = {
        "element_bytes": step.output.type.dtype.bytes,
        "offset": sum(int(t[0]) for t in moves.tables),
        "shape": [1] * padding + [len(t) for t in moves.tables],
        "strides": [0] * padding + list(moves.strides),
    }
    return Call(params)


def accepts_gather(step: Step) -> str | None:
    """Anything that only moves elements of one operand."""
    moves = movement(step.root.op, step.root.signature)
    return None if moves is not None else f"{step.root.op.name} does more than move elements"


def lower_gather(step: Step) -> Call:
    """gather_scalar: a table per axis; a contiguous last axis becomes the block."""
    moves = movement(step.root.op, step.root.signature)
    assert moves is not None
    dtype = step.output.type.dtype
    tables, block = list(moves.tables), 1
    if len(tables) > 1 and _stride(tables[-1]) == 1 and tables[-1][0] == 0:
        block = len(tables.pop())
    while len(tables) > _GATHER_AXES:
        outer, inner = tables[0], tables[1]
        joined = np.where((outer[:, None] < 0) | (inner < 0), -1, outer[:, None] + inner)
        tables[:2] = [joined.reshape(-1)]
    tables = [np.zeros(1, np.int64)] * (_GATHER_AXES - len(tables)) + tables
    params: Params = {
        "element_bytes": dtype.bytes,
        "fill": int(np.array(moves.fill, dtype.numpy).reshape(1).view(f"i{dtype.bytes}")[0]),
        "block": block,
        "shape": [len(t) for t in tables],
    }
    return Call(params, {"index": np.concatenate(tables).astype(np.int32)})


def lower_concat(step: Step) -> Call:
    """concat_scalar: every operand is a run of bytes in each block."""
    op = step.root.op
    assert isinstance(op, Concat)
    shape, element = step.output.type.shape, step.output.type.dtype.bytes
    axis = op.axis % len(shape)
    operands = [v for v in step.root.inputs if v is not None]
    lengths = [prod(v.type.shape[axis:]) * element for v in operands]
    constants = [v.data.reshape(-1) for v in operands if v.data is not None]
    return Call(
        {"inputs": len(operands), "blocks": prod(shape[:axis])},
        {
            "block_bytes": np.array(lengths, np.int32),
            "constant": np.concatenate(constants) if constants else None,
        },
        inputs=tuple(None if v.is_constant else v for v in operands),
    )


def _rows() -> list[Kernel]:
    movers = [name for name, op in OPS.items() if issubclass(op, Movement) and op.operands == ("x",)]
    kinds: list[tuple[str, Callable[[Step], Call], Callable[[Step], str | None], int]] = [
        ("copy", lower_copy, accepts_copy, 1),
        ("gather", lower_gather, accepts_gather, 0),
    ]
    return [
        Kernel(
            pattern=name,
            dtype=dtype,
            symbol=f"qcc_{kind}_scalar",
            params_type=f"qcc_{kind}_params",
            source=source(f"qcc_{kind}_scalar"),
            lower=lower,
            accepts=accepts,
            priority=priority,
        )
        for name in movers
        for dtype in ("s8", "s16", "f32")
        for kind, lower, accepts, priority in kinds
    ]


KERNELS: tuple[Kernel, ...] = (
    *_rows(),
    *(
        Kernel(
            pattern="concat",
            dtype=dtype,
            symbol="qcc_concat_scalar",
            params_type="qcc_concat_params",
            source=source("qcc_concat_scalar"),
            lower=lower_concat,
            variadic=True,
        )
        for dtype in ("s8", "s16", "f32")
    ),
)
