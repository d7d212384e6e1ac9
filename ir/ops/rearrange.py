"""Movement ops that join, select, repeat or regroup elements."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from qcc.ir.errors import VerifyError
from qcc.ir.interval import Interval
from qcc.ir.op import Array, Case, Op, Signature, onnx_importer, register_op
from qcc.ir.ops.shape import Movement, as_interval, axis_index, reshape
from qcc.ir.types import TensorType

if TYPE_CHECKING:
    from qcc.ir.graph import Value
    from qcc.ir.importing import OnnxNode


@register_op
class Concat(Movement):
    """The operands one after the other along ``axis`` (counted from the front)."""

    name = "concat"
    operands = ("xs*",)
    axis: int = 0

    def infer(self, *operands: TensorType | None) -> TensorType:
        """Lengths of ``axis`` added up; all else, qparams of integers included, must be equal."""
        first, total = operands[0], 0
        assert first is not None
        if not 0 <= self.axis < first.rank:
            raise VerifyError(f"concat: {first} has no axis {self.axis}")
        for x in operands:
            assert x is not None
            rest = x.shape[: self.axis] + x.shape[self.axis + 1 :]
            if x.rank != first.rank or rest != first.shape[: self.axis] + first.shape[self.axis + 1 :]:
                raise VerifyError(f"concat: {x} does not fit {first} along axis {self.axis}")
            if x.dtype is not first.dtype or (x.dtype.is_integer and x.qparams != first.qparams):
                raise VerifyError(f"concat: operands must share dtype and qparams, got {first} and {x}")
            total += x.shape[self.axis]
        return first.with_shape((*first.shape[: self.axis], total, *first.shape[self.axis + 1 :]))

    def float_ref(self, *operands: Array | None) -> Array:
        """numpy.concatenate."""
        return np.concatenate([x for x in operands if x is not None], axis=self.axis)

    def interval(self, sig: Signature, *operands: Interval | Array | None) -> Interval:
        """Along the last axis the intervals side by side, else their join."""
        parts = [as_interval(o) for o in operands]
        if self.axis == sig.result.rank - 1:
            return Interval(np.concatenate([p.low for p in parts]), np.concatenate([p.high for p in parts]))
        joined = parts[0]
        for part in parts[1:]:
            joined = joined.join(part)
        return joined

    def channel_map(self, sig: Signature) -> tuple[int, ...]:
        """All operands, unless channels are what is joined."""
        return tuple(range(len(sig.operands))) if self.axis != sig.result.rank - 1 else ()

    def permuted(self, perm: tuple[int, ...], sig: Signature) -> Op | None:
        """Axis i of the permuted operands is axis perm[i] of the plain ones."""
        return Concat(perm[self.axis])

    @classmethod
    def cases(cls, rng: np.random.Generator) -> Iterable[Case]:
        """Three operands along channels, two along an inner axis, one operand."""
        x, y, z = (rng.normal(size=(1, 3, n, 2)).astype(np.float32) for n in (4, 4, 1))
        yield Case(cls(3), (x, y, x))
        yield Case(cls(2), (x, z))
        yield Case(cls(1), (y,))


@register_op
class Slice(Movement):
    """x[start:end:step] along each of ``axes``; every other axis is whole.

    Canonical form, which ``infer`` demands: ``axes`` ascend; for an axis of length n, a positive step has
    0 <= start < end <= n; a negative one has -1 <= end < start < n, where end = -1 means "down to element 0" and
    not "the last element". So the elements taken are exactly range(start, end, step), and never none.
    """

    name = "slice"
    axes: tuple[int, ...] = ()
    starts: tuple[int, ...] = ()
    ends: tuple[int, ...] = ()
    steps: tuple[int, ...] = ()

    def ranges(self, shape: tuple[int, ...]) -> tuple[range, ...]:
        """The elements taken along every axis of an operand of ``shape``, in the order of the result."""
        result = [range(n) for n in shape]
        for axis, start, end, step in zip(self.axes, self.starts, self.ends, self.steps, strict=True):
            result[axis] = range(start, end, step)
        return tuple(result)

    def infer(self, *operands: TensorType | None) -> TensorType:
        """Each axis as long as its range."""
        (x,) = operands
        assert x is not None
        if not len(self.axes) == len(self.starts) == len(self.ends) == len(self.steps):
            raise VerifyError("slice: axes, starts, ends and steps must be equally many")
        if list(self.axes) != sorted(set(self.axes)) or not all(0 <= a < x.rank for a in self.axes):
            raise VerifyError(f"slice: axes {self.axes} must be ascending axes of {x}")
        for axis, start, end, step in zip(self.axes, self.starts, self.ends, self.steps, strict=True):
            n = x.shape[axis]
            legal = 0 <= start < end <= n if step > 0 else step < 0 and -1 <= end < start < n
            if not legal:
                raise VerifyError(f"slice: {start}:{end}:{step} is no canonical range of axis {axis} of {x}")
        return x.with_shape(tuple(len(r) for r in self.ranges(x.shape)))

    def float_ref(self, *operands: Array | None) -> Array:
        """numpy slicing."""
        (x,) = operands
        assert x is not None
        window = [slice(None)] * x.ndim
        for axis, start, end, step in zip(self.axes, self.starts, self.ends, self.steps, strict=True):
            window[axis] = slice(start, None if end < 0 else end, step)
        return np.ascontiguousarray(x[tuple(window)])

    def interval(self, sig: Signature, *operands: Interval | Array | None) -> Interval:
        """The channels that are taken."""
        x = as_interval(operands[0])
        channels = list(self.ranges(sig.operand(0).shape)[-1])
        return Interval(x.low[channels], x.high[channels])

    def channel_map(self, sig: Signature) -> tuple[int, ...]:
        """Channels stay apart unless they are cut."""
        return (0,) if sig.result.rank - 1 not in self.axes else ()

    def permuted(self, perm: tuple[int, ...], sig: Signature) -> Op | None:
        """Axis i of the permuted operand is axis perm[i] of the plain one."""
        axes = (perm[a] for a in self.axes)
        rows = sorted(zip(axes, self.starts, self.ends, self.steps, strict=True))
        return Slice(*zip(*rows, strict=True)) if rows else self

    @classmethod
    def cases(cls, rng: np.random.Generator) -> Iterable[Case]:
        """Space, channels with a step, backwards."""
        x = rng.normal(size=(1, 5, 4, 6)).astype(np.float32)
        yield Case(cls((1, 2), (1, 0), (4, 3), (1, 1)), (x,))
        yield Case(cls((3,), (1,), (6,), (2,)), (x,))
        yield Case(cls((1, 3), (4, 3), (-1, 0), (-2, -1)), (x,))


@register_op
class Take(Movement):
    """Elements ``indices`` along ``axis``, in that order; the rank stays."""

    name = "take"
    axis: int = 0
    indices: tuple[int, ...] = ()

    def infer(self, *operands: TensorType | None) -> TensorType:
        """``axis`` as long as the indices, each in [0, length)."""
        (x,) = operands
        assert x is not None
        if not 0 <= self.axis < x.rank:
            raise VerifyError(f"take: {x} has no axis {self.axis}")
        if not self.indices or not all(0 <= i < x.shape[self.axis] for i in self.indices):
            raise VerifyError(f"take: indices {self.indices} are not in axis {self.axis} of {x}")
        return x.with_shape((*x.shape[: self.axis], len(self.indices), *x.shape[self.axis + 1 :]))

    def float_ref(self, *operands: Array | None) -> Array:
        """numpy.take."""
        (x,) = operands
        assert x is not None
        return np.take(x, self.indices, axis=self.axis)

    def interval(self, sig: Signature, *operands: Interval | Array | None) -> Interval:
        """The channels that are taken."""
        x = as_interval(operands[0])
        if self.axis != sig.result.rank - 1:
            return x
        return Interval(x.low[list(self.indices)], x.high[list(self.indices)])

    def channel_map(self, sig: Signature) -> tuple[int, ...]:
        """Channels stay apart unless they are taken from."""
        return (0,) if self.axis != sig.result.rank - 1 else ()

    def permuted(self, perm: tuple[int, ...], sig: Signature) -> Op | None:
        """Axis i of the permuted operand is axis perm[i] of the plain one."""
        return replace(self, axis=perm[self.axis])

    @classmethod
    def cases(cls, rng: np.random.Generator) -> Iterable[Case]:
        """A channel shuffle, a repeated row."""
        x = rng.normal(size=(1, 3, 4, 6)).astype(np.float32)
        yield Case(cls(3, (0, 3, 1, 4, 2, 5)), (x,))
        yield Case(cls(1, (2, 2)), (x,))


@onnx_importer("Concat")
def import_concat(node: OnnxNode) -> Value:
    """Along ``axis``, which may count from the back; constants without elements add nothing."""
    empty = [array is not None and not array.size for array in node.constants]
    xs = [node.input(i) for i in range(len(node.inputs)) if not empty[i]]
    axis = axis_index(node, int(node.attrs["axis"]), xs[0].type.rank)
    return xs[0] if len(xs) == 1 else node.emit(Concat(axis), *xs)


@onnx_importer("Slice")
def import_slice(node: OnnxNode) -> Value:
    """Starts, ends, axes as attributes (before opset 10) or as inputs, with steps."""
    x = node.input(0)
    starts, ends = node.ints(1, "starts"), node.ints(2, "ends")
    if starts is None or ends is None:
        raise node.unsupported("starts and ends are missing")
    named = node.ints(3, "axes")
    axes = [axis_index(node, a, x.type.rank) for a in (range(len(starts)) if named is None else named)]
    steps = node.ints(4) or (1,) * len(starts)
    if not len(starts) == len(ends) == len(axes) == len(steps) or 0 in steps:
        raise node.unsupported(f"starts {starts}, ends {ends}, axes {axes} and steps {steps} do not match")
    taken = {
        axis: onnx_range(x.type.shape[axis], *bounds)
        for axis, *bounds in zip(axes, starts, ends, steps, strict=True)
    }
    return slice_axes(node, x, taken)


@onnx_importer("Split")
def import_split(node: OnnxNode) -> list[Value]:
    """Lengths as an attribute (before opset 13) or an input; else as equal as possible, the last one shorter."""
    x = node.input(0)
    axis = axis_index(node, int(node.attrs.get("axis", 0)), x.type.rank)
    n = x.type.shape[axis]
    lengths = node.ints(1, "split")
    if lengths is None:
        if n % node.outputs and node.opset < 18:
            raise node.unsupported(f"axis {axis} of {x.type} has no {node.outputs} equal parts")
        each = -(-n // node.outputs)
        lengths = (*(each for _ in range(node.outputs - 1)), n - each * (node.outputs - 1))
    if sum(lengths) != n or len(lengths) != node.outputs or min(lengths) < 1:
        raise node.unsupported(f"axis {axis} of {x.type} cannot be split into lengths {lengths}")
    ends = [sum(lengths[: i + 1]) for i in range(len(lengths))]
    return [
        slice_axes(node, x, {axis: range(end - length, end)})
        for length, end in zip(lengths, ends, strict=True)
    ]


@onnx_importer("Gather")
def import_gather(node: OnnxNode) -> Value:
    """Constant indices of any rank, negative ones from the back; a scalar index drops the axis."""
    x, indices = node.input(0), node.array(1)
    axis = axis_index(node, int(node.attrs.get("axis", 0)), x.type.rank)
    n = x.type.shape[axis]
    if indices is None or not indices.size or indices.min() < -n or indices.max() >= n:
        raise node.unsupported(f"the indices must be constant and within axis {axis} of {x.type}")
    flat = tuple(int(i) % n for i in indices.ravel())
    one = range(flat[0], flat[0] + 1)
    y = slice_axes(node, x, {axis: one}) if len(flat) == 1 else node.emit(Take(axis, flat), x)
    return reshape(node, y, (*x.type.shape[:axis], *indices.shape, *x.type.shape[axis + 1 :]))


def onnx_range(n: int, start: int, end: int, step: int) -> range:
    """The elements that ONNX Slice takes of an axis of length ``n``: negative numbers count from the back, then clamp."""
    low, high = (0, n) if step > 0 else (0, n - 1)
    start = min(max(start + n if start < 0 else start, low), high)
    low, high = (0, n) if step > 0 else (-1, n - 1)
    end = min(max(end + n if end < 0 else end, low), high)
    return range(start, end, step)


def slice_axes(node: OnnxNode, x: Value, taken: dict[int, range]) -> Value:
    """The given range along each axis; ``x`` itself when all are whole."""
    if not all(taken.values()):
        raise node.unsupported(f"the slice of {x.type} has no elements")
    cut = sorted((a, r.start, r.stop, r.step) for a, r in taken.items() if r != range(x.type.shape[a]))
    return node.emit(Slice(*zip(*cut, strict=True)), x) if cut else x
