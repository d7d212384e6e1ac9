"""Indices: the position of the largest element, and elements chosen one by one by constant indices."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qcc.ir.errors import VerifyError
from qcc.ir.op import Array, Case, Op, Signature, onnx_importer, register_op
from qcc.ir.ops.functions import Neg
from qcc.ir.ops.logic import Equal
from qcc.ir.ops.rearrange import Concat, Take
from qcc.ir.ops.shape import axis_index, reshape
from qcc.ir.types import TensorType

if TYPE_CHECKING:
    from qcc.ir.graph import Value
    from qcc.ir.importing import OnnxNode

MAX_CHOSEN = 1 << 16  # elements chosen one by one: their indices are attributes of a take


@register_op
class ArgMax(Op):
    """Index of the largest element along ``axis``, which becomes 1, as a float.

    Of equal elements the first, or the last where ``last``; a NaN is larger than everything, and the first one counts.
    """

    name = "arg_max"
    operands = ("x",)
    axis: int = 0
    last: bool = False

    def infer(self, *operands: TensorType | None) -> TensorType:
        """x with size 1 along ``axis``."""
        (x,) = operands
        assert x is not None
        if not 0 <= self.axis < x.rank:
            raise VerifyError(f"arg_max: {x} has no axis {self.axis}")
        return x.with_shape((*x.shape[: self.axis], 1, *x.shape[self.axis + 1 :])).with_qparams(None)

    def float_ref(self, *operands: Array | None) -> Array:
        """numpy argmax, of the reversed axis for the last."""
        (x,) = operands
        assert x is not None
        if not self.last:
            return np.asarray(np.argmax(x, self.axis, keepdims=True), x.dtype)
        behind = np.argmax(np.flip(x, self.axis), self.axis, keepdims=True)
        first_nan = np.argmax(np.isnan(x), self.axis, keepdims=True)
        has_nan = np.isnan(x).any(self.axis, keepdims=True)
        return np.asarray(np.where(has_nan, first_nan, x.shape[self.axis] - 1 - behind), x.dtype)

    def permuted(self, perm: tuple[int, ...], sig: Signature) -> Op | None:
        """The axis of the operand before it is permuted."""
        return replace(self, axis=perm[self.axis])

    def batches(self, sig: Signature) -> bool:
        """Samples must not be compared with each other."""
        return self.axis != 0

    @classmethod
    def cases(cls, rng: np.random.Generator) -> Iterable[Case]:
        """Whole numbers, so that some are equal: over channels and over rows."""
        x = rng.integers(-2, 3, size=(1, 6, 4, 5)).astype(np.float32)
        yield Case(cls(3), (x,))
        yield Case(cls(1, True), (x,))


@onnx_importer("ArgMax", "ArgMin")
def import_arg_max(node: OnnxNode) -> Value:
    """The smallest element is the largest one of -x. The axis goes unless keepdims."""
    x = node.input(0)
    axis = axis_index(node, int(node.attrs.get("axis", 0)), x.type.rank)
    if node.op_type == "ArgMin":
        x = node.emit(Neg(), x)
    y = node.emit(ArgMax(axis, bool(node.attrs.get("select_last_index", 0))), x)
    shape = x.type.shape
    return y if node.attrs.get("keepdims", 1) else reshape(node, y, (*shape[:axis], *shape[axis + 1 :]))


@onnx_importer("Hardmax")
def import_hardmax(node: OnnxNode) -> Value:
    """1 at the first of the largest elements along the axis, 0 elsewhere (opset 13: along one axis)."""
    x = node.input(0)
    if node.opset < 13:
        raise node.unsupported("before opset 13 it flattens its operand, which is not supported")
    axis = axis_index(node, int(node.attrs.get("axis", -1)), x.type.rank)
    count = x.type.shape[axis]
    index = np.arange(count, dtype=np.float32).reshape(-1, *[1] * (x.type.rank - 1 - axis))
    return node.emit(Equal(), node.emit(ArgMax(axis), x), node.constant(index, "index"))


def choose(node: OnnxNode, x: Value, positions: NDArray[Any], *others: Value) -> Value:
    """Elements at ``positions`` of x and then ``others``, all flattened; the result has the shape of positions."""
    if not positions.size or positions.size > MAX_CHOSEN:
        raise node.unsupported(f"{positions.size} elements chosen one by one: expected 1 to {MAX_CHOSEN}")
    flat = [reshape(node, v, (prod(v.type.shape),)) for v in (x, *others)]
    joined = node.emit(Concat(0), *flat) if others else flat[0]
    return reshape(node, node.emit(Take(0, tuple(positions.ravel().tolist())), joined), positions.shape)


def numbered(x: Value) -> NDArray[np.int64]:
    """The position of each element of ``x``."""
    return np.arange(prod(x.type.shape)).reshape(x.type.shape)


def constant_indices(node: OnnxNode, index: int, lengths: int | Sequence[int] | NDArray[Any]) -> NDArray[Any]:
    """The constant indices of input ``index``, negative ones counted from the back of ``lengths``."""
    given = node.array(index)
    if given is None or given.dtype.kind not in "iu" or not given.size:
        raise node.unsupported(f"input {index} must hold indices")
    indices, bounds = given.astype(np.int64), np.asarray(lengths, np.int64)
    if (indices < -bounds).any() or (indices >= bounds).any():
        raise node.unsupported(f"input {index} holds an index that is out of range")
    return np.where(indices < 0, indices + bounds, indices)


@onnx_importer("GatherElements")
def import_gather_elements(node: OnnxNode) -> Value:
    """Constant indices along one axis, for each element of the result."""
    x = node.input(0)
    axis = axis_index(node, int(node.attrs.get("axis", 0)), x.type.rank)
    indices = constant_indices(node, 1, x.type.shape[axis])
    return choose(node, x, _elements(node, x, indices, axis))


def _elements(node: OnnxNode, x: Value, indices: NDArray[Any], axis: int) -> NDArray[Any]:
    shape = x.type.shape
    if indices.ndim != len(shape) or any(
        n > m for a, (n, m) in enumerate(zip(indices.shape, shape, strict=True)) if a != axis
    ):
        raise node.unsupported(f"indices of shape {indices.shape} do not fit {x.type}")
    within = numbered(x)[tuple(slice(None) if a == axis else slice(n) for a, n in enumerate(indices.shape))]
    return np.take_along_axis(within, indices, axis)


@onnx_importer("GatherND")
def import_gather_nd(node: OnnxNode) -> Value:
    """Constant tuples of indices in the last axis, behind ``batch_dims`` common axes."""
    x, batch = node.input(0), int(node.attrs.get("batch_dims", 0))
    given = node.array(1)
    depth = 0 if given is None or not given.ndim else given.shape[-1]
    if not 0 < depth <= x.type.rank - batch or given is None or given.shape[:batch] != x.type.shape[:batch]:
        raise node.unsupported(f"the indices do not fit {x.type}")
    indices = constant_indices(node, 1, x.type.shape[batch : batch + depth])
    numbers = numbered(x).reshape(-1, *x.type.shape[batch:])
    tuples = indices.reshape(len(numbers), -1, depth)
    parts = [n[tuple(np.moveaxis(t, -1, 0))] for n, t in zip(numbers, tuples, strict=True)]
    return choose(node, x, np.stack(parts).reshape(*given.shape[:-1], *x.type.shape[batch + depth :]))


@onnx_importer("ScatterElements", "Scatter")
def import_scatter_elements(node: OnnxNode) -> Value:
    """Constant indices along one axis say which element each update replaces."""
    x, updates = node.input(0), node.input(2)
    axis = axis_index(node, int(node.attrs.get("axis", 0)), x.type.rank)
    return _scattered(
        node, x, updates, _elements(node, x, constant_indices(node, 1, x.type.shape[axis]), axis)
    )


@onnx_importer("ScatterND")
def import_scatter_nd(node: OnnxNode) -> Value:
    """Constant tuples of indices in the last axis say which part each update replaces."""
    x, updates = node.input(0), node.input(2)
    given = node.array(1)
    depth = 0 if given is None or not given.ndim else given.shape[-1]
    if not 0 < depth <= x.type.rank:
        raise node.unsupported(f"the indices do not fit {x.type}")
    indices = constant_indices(node, 1, x.type.shape[:depth])
    return _scattered(node, x, updates, numbered(x)[tuple(np.moveaxis(indices, -1, 0))])


def _scattered(node: OnnxNode, x: Value, updates: Value, replaced: NDArray[Any]) -> Value:
    if node.attrs.get("reduction", "none") != "none":
        raise node.unsupported(f"reduction {node.attrs['reduction']} is not supported")
    if replaced.shape != updates.type.shape or len(np.unique(replaced)) != replaced.size:
        raise node.unsupported("the updates must fit the indices, which must differ")
    positions = numbered(x)
    positions.reshape(-1)[replaced] = x.type.elements + numbered(updates)
    return choose(node, x, positions, updates)


@onnx_importer("Trilu")
def import_trilu(node: OnnxNode) -> Value:
    """The upper or lower triangle of the last two axes, 0 elsewhere."""
    x, diagonal = node.input(0), node.ints(1) or (0,)
    if x.type.rank < 2 or len(diagonal) != 1:
        raise node.unsupported(f"expected a matrix and one diagonal, got {x.type}")
    kept = np.triu if node.attrs.get("upper", 1) else lambda m, k: np.tril(m, k)
    inside = kept(np.ones(x.type.shape[-2:], bool), diagonal[0])
    zero = node.constant(np.zeros(1, np.float32), "zero")
    return choose(node, x, np.where(inside, numbered(x), x.type.elements), zero)


@onnx_importer("ReverseSequence")
def import_reverse_sequence(node: OnnxNode) -> Value:
    """The first elements along the time axis reversed, as many as the constant length of the batch entry says."""
    x, lengths = node.input(0), node.ints(1)
    batch, time = int(node.attrs.get("batch_axis", 1)), int(node.attrs.get("time_axis", 0))
    if {batch, time} != {0, 1} or x.type.rank < 2 or lengths is None:
        raise node.unsupported("the axes of batch and time must be 0 and 1")
    numbers = numbered(x)
    if len(lengths) != x.type.shape[batch] or not all(0 <= n <= x.type.shape[time] for n in lengths):
        raise node.unsupported(f"lengths {lengths} do not fit {x.type}")
    positions = np.moveaxis(numbers, (batch, time), (0, 1)).copy()
    for row, length in zip(positions, lengths, strict=True):
        row[:length] = row[:length][::-1].copy()
    return choose(node, x, np.moveaxis(positions, (0, 1), (batch, time)))


@onnx_importer("Compress")
def import_compress(node: OnnxNode) -> Value:
    """Entries of one axis (of the flat tensor without ``axis``) where a constant condition holds."""
    x, condition = node.input(0), node.array(1)
    assert condition is not None
    (chosen,) = np.nonzero(condition.reshape(-1))
    numbers, axis = numbered(x), node.attrs.get("axis")
    if axis is None:
        numbers, axis = numbers.reshape(-1), 0
    axis = axis_index(node, int(axis), numbers.ndim)
    if len(chosen) and chosen[-1] >= numbers.shape[axis]:
        raise node.unsupported(f"the condition is longer than axis {axis} of {x.type}")
    return choose(node, x, np.take(numbers, chosen, axis))
