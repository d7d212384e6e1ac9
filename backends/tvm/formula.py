"""What ``Op.int_ref`` computes, as an expression: numpy's functions record themselves when they meet a Formula."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin
from numpy.typing import NDArray

from qcc.ir.graph import Node
from qcc.ir.types import TensorType

Array = NDArray[Any]
WIDTHS = (np.int8, np.int16, np.int32, np.int64)
REDUCTIONS = ("sum", "max", "min")
INT32, INT64 = np.iinfo(np.int32), np.iinfo(np.int64)
# The ufuncs that are recorded: each monotone in either operand, which is what its interval rests on.
_UFUNCS: dict[np.ufunc, Callable[[int, int], int]] = {
    np.add: operator.add,
    np.subtract: operator.sub,
    np.multiply: operator.mul,
    np.minimum: min,
    np.maximum: max,
    np.left_shift: operator.lshift,
    np.right_shift: operator.rshift,
    np.floor_divide: operator.floordiv,
    np.bitwise_and: operator.and_,
}


@dataclass(frozen=True, eq=False)
class Formula(NDArrayOperatorsMixin):
    """An integer array of ``shape``, with elements from ``low`` to ``high``, which 32 or 64 bits hold.

    ``kind``: "operand" (activation number ``at`` of the node), "constant" (``data``), the name of a ufunc, "sum", "max",
    "min" (over ``axes``, which stay as 1), "look" (the first of ``terms`` indexed by the others), "take" (its
    second term holds indices along axis ``at``).
    """

    kind: str
    shape: tuple[int, ...]
    low: int
    high: int
    terms: tuple[Formula, ...] = ()
    at: int = 0
    axes: tuple[int, ...] = ()
    data: Array | None = None

    @property
    def dtype(self) -> str:
        """The least that holds all elements, 32 bits or 64, in which it is computed."""
        return "int32" if INT32.min <= self.low and self.high <= INT32.max else "int64"

    @property
    def ndim(self) -> int:
        """Axes."""
        return len(self.shape)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        if method != "__call__" or options or ufunc not in _UFUNCS:
            return NotImplemented
        terms = tuple(_formula(x) for x in inputs)
        shape = np.broadcast_shapes(*(t.shape for t in terms))
        return _bounded(ufunc.__name__, shape, *_interval(ufunc, *terms), terms)

    def astype(self, dtype: Any) -> Formula:
        """Itself: integers have the width they need."""
        assert np.dtype(dtype) == np.int64, "formulas compute in 64 bits, or less where that is the same"
        return self

    def sum(self, axis: int | tuple[int, ...], keepdims: Literal[True]) -> Formula:
        """Along ``axis``, which stays."""
        axes = _axes(axis, self.ndim)
        count = prod(self.shape[a] for a in axes)
        return self._reduced("sum", axes, min(0, count * self.low), max(0, count * self.high))

    def max(self, axis: int | tuple[int, ...], keepdims: Literal[True]) -> Formula:
        """The largest along ``axis``, which stays."""
        return self._reduced("max", _axes(axis, self.ndim), self.low, self.high)

    def min(self, axis: int | tuple[int, ...], keepdims: Literal[True]) -> Formula:
        """The smallest along ``axis``, which stays."""
        return self._reduced("min", _axes(axis, self.ndim), self.low, self.high)

    def _reduced(self, kind: str, axes: tuple[int, ...], low: int, high: int) -> Formula:
        shape = tuple(1 if i in axes else n for i, n in enumerate(self.shape))
        return _bounded(kind, shape, low, high, (self,), axes)

    def take(self, indices: Array, axis: int) -> Formula:
        """The elements at ``indices`` along ``axis``."""
        shape = (*self.shape[:axis], len(indices), *self.shape[axis + 1 :])
        return Formula("take", shape, self.low, self.high, (self, _formula(indices)), axis)

    def walk(self) -> Iterator[Formula]:
        """All formulas in it, each once, terms first."""
        found: dict[int, Formula] = {}

        def visit(formula: Formula) -> None:
            if id(formula) not in found:
                for term in formula.terms:
                    visit(term)
                found[id(formula)] = formula

        visit(self)
        return iter(found.values())

    @property
    def constants(self) -> list[Formula]:
        """Arrays in it of more than one element."""
        return [f for f in self.walk() if f.data is not None and f.data.size > 1]

    @property
    def is_pointwise(self) -> bool:
        """Whether element i of the result depends on element i of each array in it, and on single numbers."""
        leaves = [f for f in self.walk() if not f.terms]
        return all(not f.terms or f.kind in _NAMES for f in self.walk()) and all(
            f.shape == self.shape or prod(f.shape) == 1 for f in leaves
        )


class _Indexed(np.ndarray[Any, Any]):
    """A constant that may be indexed by formulas."""

    def __getitem__(self, index: Any) -> Any:
        indices = index if isinstance(index, tuple) else (index,)
        if not any(isinstance(i, Formula) for i in indices):
            return super().__getitem__(index)
        terms = tuple(_formula(i) for i in indices)
        shape = np.broadcast_shapes(*(t.shape for t in terms))
        return Formula("look", shape, int(self.min()), int(self.max()), (_formula(self), *terms))


_NAMES = frozenset(ufunc.__name__ for ufunc in _UFUNCS)


def operand(type_: TensorType, number: int) -> Formula:
    """An activation."""
    return Formula("operand", type_.shape, type_.dtype.min, type_.dtype.max, at=number)


def formula_of(node: Node) -> Formula:
    """What the ``int_ref`` of an op computes from its activations. Constants are those of the node."""
    operands: list[Any] = []
    count = 0
    for value in node.inputs:
        if value is None:
            operands.append(None)
        elif value.data is not None:
            operands.append(value.data.view(_Indexed))
        else:
            operands.append(operand(value.type, count))
            count += 1
    result = node.op.int_ref(node.signature, *operands)
    return _formula(np.asarray(result).item())  # int_ref may have put it into an array of objects


def _formula(x: Any) -> Formula:
    """A number or array of integers as it is, in as few bits as hold it."""
    if isinstance(x, Formula):
        return x
    array = np.asarray(x)
    assert array.dtype.kind in "iu", f"{array.dtype} is no integer"
    low, high = int(array.min()), int(array.max())
    narrow = next(t for t in WIDTHS if np.iinfo(t).min <= low and high <= np.iinfo(t).max)
    return Formula("constant", array.shape, low, high, data=np.asarray(array, narrow))


def _axes(axis: int | tuple[int, ...], rank: int) -> tuple[int, ...]:
    return tuple(a % rank for a in (axis if isinstance(axis, tuple) else (axis,)))


def _interval(ufunc: np.ufunc, a: Formula, b: Formula) -> tuple[int, int]:
    """Of the corners, where the operands are such that it is monotone; else all there is."""
    shifts = ufunc in (np.left_shift, np.right_shift)
    if ufunc is np.bitwise_and:
        masks = [f.high for f in (a, b) if f.low >= 0]
        return (0, min(masks)) if masks else (int(INT64.min), int(INT64.max))
    if (shifts and not 0 <= b.low <= b.high < 64) or (ufunc is np.floor_divide and b.low <= 0):
        return int(INT64.min), int(INT64.max)
    corners = [_UFUNCS[ufunc](x, y) for x in (a.low, a.high) for y in (b.low, b.high)]
    return min(corners), max(corners)


def _bounded(
    kind: str,
    shape: tuple[int, ...],
    low: int,
    high: int,
    terms: tuple[Formula, ...],
    axes: tuple[int, ...] = (),
) -> Formula:
    """What leaves 64 bits wraps around there, as in numpy."""
    if low < INT64.min or high > INT64.max:
        low, high = int(INT64.min), int(INT64.max)
    return Formula(kind, shape, low, high, terms, axes=axes)
