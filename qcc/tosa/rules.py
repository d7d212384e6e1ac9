"""What the functions that write ops share: the table of them, refusals, and look-ups by GATHER."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from qcc.ir.errors import QccError
from qcc.ir.graph import Node, Value
from qcc.ir.interval import Interval
from qcc.ir.types import DType
from qcc.tosa.writer import Tensor, Writer

Exporter = Callable[[Writer, Node], Tensor]
EXPORTERS: dict[str, Exporter] = {}
_MIN_SHIFT = 2  # of apply_scale_32


def exports(*names: str) -> Callable[[Exporter], Exporter]:
    """Decorator: the function writes the ops of these names."""

    def enter(function: Exporter) -> Exporter:
        EXPORTERS.update(dict.fromkeys(names, function))
        return function

    return enter


def refuse(node: Node, reason: str) -> NoReturn:
    """Raise QccError with the node, the reason and a way out."""
    raise QccError(
        f"{node.op.name} ({node.name}) cannot be written to TOSA: {reason}",
        node.location,
        "the C backend takes this program: qcc compile",
    )


def op_of(node: Node) -> Any:
    """The op, untyped: each function reads the attributes of its own op."""
    return node.op


def zero_point(value: Value) -> int:
    """0 for a value without qparams."""
    return value.type.qparams.zero_point if value.type.qparams is not None else 0


def data(node: Node, index: int, what: str) -> NDArray[Any]:
    """The elements of a constant operand; another one is refused."""
    found = node.input(index).data
    if found is None:
        refuse(node, f"its {what} must be constant")
    return np.asarray(found)


def interval(value: Value) -> Interval:
    """What an accumulator can hold, from its constants and any code of 8 bits."""
    producer = value.producer
    if value.type.dtype is DType.S8 or producer is None:
        low, high = value.type.dtype.min, value.type.dtype.max
        return Interval.full(low, high, value.type.shape[-1] if value.type.rank else 1)
    operands = [None if v is None else (interval(v) if v.data is None else v.data) for v in producer.inputs]
    return producer.op.interval(producer.signature, *operands)


def largest(bounds: Interval) -> int:
    """The largest magnitude."""
    return max(-int(bounds.low.min()), int(bounds.high.max()))


def check_scale(node: Node, shift: NDArray[Any], centre: int = 0) -> None:
    """Refuse what apply_scale_32 does not take: it wants a shift of 2 at least, and |value| < 2^(shift-1)."""
    if int(shift.min()) < _MIN_SHIFT:
        refuse(node, f"RESCALE shifts by {_MIN_SHIFT} bits or more, this one by {int(shift.min())}")
    reach = largest(interval(node.input(0)).shifted(-centre))
    if reach >= 2 ** (int(shift.min()) - 1):
        refuse(node, f"its operand reaches {reach}, RESCALE takes less than 2^{int(shift.min()) - 1}")


def look_up(w: Writer, table: NDArray[Any], index: Tensor, name: str) -> Tensor:
    """table[index] of i8 or i32, for an index of i32: GATHER, as TABLE takes 256 bytes."""
    count = int(np.prod(index.shape, dtype=np.int64))
    values = w.constant(table[None, :, None], f"{name}_table")
    found = w.op("gather", (values, w.reshape(index, (1, count), name)), values.element, (1, count, 1), name)
    return w.reshape(found, index.shape, name)


def gathered(w: Writer, x: Tensor, axis: int, indices: NDArray[Any], name: str) -> Tensor:
    """x[..., indices, ...] on one axis: GATHER on [outer, axis, inner]."""
    outer, inner = (int(np.prod(dims, dtype=np.int64)) for dims in (x.shape[:axis], x.shape[axis + 1 :]))
    rows = w.ints(np.tile(indices, (outer, 1)), f"{name}_indices")
    flat = w.reshape(x, (outer, x.shape[axis], inner), name)
    found = w.op("gather", (flat, rows), x.element, (outer, len(indices), inner), name)
    return w.reshape(found, (*x.shape[:axis], len(indices), *x.shape[axis + 1 :]), name)
