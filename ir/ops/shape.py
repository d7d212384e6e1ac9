"""Ops that move elements and never change them. Their integer form is the same op on integers.

This file holds the base class and what keeps or extends a tensor as a whole; ``rearrange`` holds the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from math import gcd, prod
from typing import TYPE_CHECKING, Any

import numpy as np

from qcc.ir.errors import VerifyError
from qcc.ir.fixedpoint import quantize_exactly
from qcc.ir.interval import Interval
from qcc.ir.op import Array, Case, Op, QuantRule, Signature, onnx_importer, register_op
from qcc.ir.types import TensorType

if TYPE_CHECKING:
    from qcc.ir.graph import Node, Value
    from qcc.ir.importing import OnnxNode
    from qcc.ir.lowering import Lowering


class Movement(Op):
    """Base of ops that only move elements of their operand(s): integers and floats alike, qparams shared."""

    operands = ("x",)
    wide_operands = True

    def quant_rule(self) -> QuantRule:
        """Result and operands share qparams."""
        return QuantRule(shares=True)

    def int_ref(self, sig: Signature, *operands: Array | None) -> Array:
        """The same movement."""
        return self.float_ref(*operands)

    def quantize(self, q: Lowering, node: Node) -> Value | None:
        """The same op on integers."""
        operands = (q.integer_as(v, node.output) for v in node.inputs if v is not None)
        return q.emit(self, *operands, name=node.name)

    def interval(self, sig: Signature, *operands: Interval | Array | None) -> Interval:
        """Channel identity is lost: one interval over all channels (subclasses may know better)."""
        channels = sig.result.shape[-1] if sig.result.shape else 1
        joined = as_interval(operands[0]).over_channels(channels)
        for operand in operands[1:]:
            joined = joined.join(as_interval(operand).over_channels(channels))
        return joined


def as_interval(operand: Interval | Array | None) -> Interval:
    """The interval of a present operand, computed or constant."""
    assert operand is not None
    return operand if isinstance(operand, Interval) else Interval.of_array(operand)


@register_op
class Transpose(Movement):
    """Axes permuted: result axis i is operand axis perm[i]."""

    name = "transpose"
    perm: tuple[int, ...] = ()

    def infer(self, *operands: TensorType | None) -> TensorType:
        """Permuted shape."""
        (x,) = operands
        assert x is not None
        if sorted(self.perm) != list(range(x.rank)):
            raise VerifyError(f"transpose: {self.perm} is not a permutation of the axes of {x}")
        return x.with_shape(tuple(x.shape[i] for i in self.perm))

    def float_ref(self, *operands: Array | None) -> Array:
        """numpy.transpose."""
        (x,) = operands
        assert x is not None
        return np.ascontiguousarray(x.transpose(self.perm))

    def interval(self, sig: Signature, *operands: Interval | Array | None) -> Interval:
        """Channels keep their intervals when the last axis stays last."""
        if self.perm and self.perm[-1] == len(self.perm) - 1:
            return as_interval(operands[0])
        return super().interval(sig, *operands)

    def channel_map(self, sig: Signature) -> tuple[int, ...]:
        """Channels stay apart when the last axis stays last."""
        return (0,) if self.perm and self.perm[-1] == len(self.perm) - 1 else ()

    @classmethod
    def cases(cls, rng: np.random.Generator) -> Iterable[Case]:
        """Channels first to last, and a reversal."""
        x = rng.normal(size=(1, 3, 4, 5)).astype(np.float32)
        yield Case(cls((0, 2, 3, 1)), (x,))
        yield Case(cls((3, 2, 1, 0)), (x,))


@register_op
class Reshape(Movement):
    """Another shape, same order of elements.

    A leading 1 in ``shape`` follows the operand's axis 0, so that samples may be stacked there.
    """

    name = "reshape"
    shape: tuple[int, ...] = ()

    def _target(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        if self.shape[:1] == (1,) and prod(shape) != prod(self.shape) and shape:
            return (shape[0], *self.shape[1:])
        return self.shape

    def infer(self, *operands: TensorType | None) -> TensorType:
        """``shape``, which must hold as many elements."""
        (x,) = operands
        assert x is not None
        target = self._target(x.shape)
        if prod(target) != x.elements:
            raise VerifyError(f"reshape: {x} does not hold {self.shape}")
        return x.with_shape(target)

    def float_ref(self, *operands: Array | None) -> Array:
        """numpy.reshape."""
        (x,) = operands
        assert x is not None
        return x.reshape(self._target(x.shape))

    def interval(self, sig: Signature, *operands: Interval | Array | None) -> Interval:
        """Channels as far as they can be told apart.

        The element at flat position f is in channel f mod C before and f mod C' after, so channel j of the
        result holds elements of channels j modulo gcd(C, C') only. A flatten to [1, H*W*C] loses nothing.
        """
        x = as_interval(operands[0])
        channels = sig.result.shape[-1] if sig.result.shape else 1
        common = gcd(x.channels, channels)
        low, high = x.low.reshape(-1, common).min(axis=0), x.high.reshape(-1, common).max(axis=0)
        return Interval(np.tile(low, channels // common), np.tile(high, channels // common))

    def channel_map(self, sig: Signature) -> tuple[int, ...]:
        """Channels stay apart when the last dimension stays."""
        return (0,) if sig.operand(0).shape[-1:] == sig.result.shape[-1:] != () else ()

    def with_channels(self, count: int) -> Op:
        """The last dimension is the number of channels."""
        return replace(self, shape=(*self.shape[:-1], count))

    @classmethod
    def cases(cls, rng: np.random.Generator) -> Iterable[Case]:
        """Flatten, and a reshape that drops the leading 1."""
        x = rng.normal(size=(1, 3, 4, 2)).astype(np.float32)
        yield Case(cls((1, 24)), (x,))
        yield Case(cls((4, 6)), (x,))


PAD_MODES = ("constant", "edge", "reflect")


@register_op
class Pad(Movement):
    """Padding of ``begins`` and ``ends`` elements per axis; negative numbers crop.

    ``mode``: "constant" pads with real ``value`` (its integer joins the range; the zero_point stands for 0),
    "edge" repeats the outermost element, "reflect" mirrors at it without repeating it.
    """

    name = "pad"
    begins: tuple[int, ...] = ()
    ends: tuple[int, ...] = ()
    value: float = 0.0
    mode: str = "constant"

    def infer(self, *operands: TensorType | None) -> TensorType:
        """Each axis grows by begin + end."""
        (x,) = operands
        assert x is not None
        if len(self.begins) != x.rank or len(self.ends) != x.rank:
            raise VerifyError(f"pad: {x} needs {x.rank} begins and ends")
        if self.mode not in PAD_MODES:
            raise VerifyError(f"pad: unknown mode {self.mode!r}; known: {', '.join(PAD_MODES)}")
        widths = list(zip(self.begins, x.shape, self.ends, strict=True))
        if self.mode != "constant" and any(min(b, e) < 0 for b, _, e in widths):
            raise VerifyError(f"pad: mode {self.mode} cannot crop, got {self.begins} and {self.ends}")
        if self.mode == "reflect" and any(max(b, e) >= n for b, n, e in widths):
            raise VerifyError(f"pad: a reflection of {x} must be shorter than each axis")
        shape = tuple(b + n + e for b, n, e in widths)
        if any(min(b, 0) + n + min(e, 0) < 1 for b, n, e in widths):
            raise VerifyError(f"pad: {self.begins} and {self.ends} leave nothing of {x}")
        return x.with_shape(shape)

    def float_ref(self, *operands: Array | None) -> Array:
        """numpy.pad after cropping."""
        (x,) = operands
        assert x is not None
        return _pad(x, self.begins, self.ends, self.mode, self.value)

    def int_ref(self, sig: Signature, *operands: Array | None) -> Array:
        """Pads with the quantized value."""
        (x,) = operands
        assert x is not None
        return _pad(x, self.begins, self.ends, self.mode, self.fill(sig))

    def fill(self, sig: Signature) -> int:
        """The integer that stands for ``value``."""
        return int(quantize_exactly(np.float64(self.value), sig.qparams(0)))

    def interval(self, sig: Signature, *operands: Interval | Array | None) -> Interval:
        """The operand's channels, padded as the last axis is; the fill joins them where another axis grows."""
        x = as_interval(operands[0])
        fill = self.fill(sig) if self.mode == "constant" else 0
        low, high = (_pad(b, self.begins[-1:], self.ends[-1:], self.mode, fill) for b in (x.low, x.high))
        grows = any(n > 0 for n in (*self.begins[:-1], *self.ends[:-1]))
        result = Interval(low, high)
        return result.include(fill) if grows and self.mode == "constant" else result

    def channel_map(self, sig: Signature) -> tuple[int, ...]:
        """Channels stay apart unless the last axis is padded or cropped."""
        return (0,) if self.begins[-1] == self.ends[-1] == 0 else ()

    def permuted(self, perm: tuple[int, ...], sig: Signature) -> Op | None:
        """Axis i of the permuted operand is axis perm[i] of the plain one."""
        return replace(self, begins=unpermuted(self.begins, perm), ends=unpermuted(self.ends, perm))

    @classmethod
    def cases(cls, rng: np.random.Generator) -> Iterable[Case]:
        """Spatial padding, a crop, channels, a value, the other modes."""
        x = rng.normal(size=(1, 4, 3, 2)).astype(np.float32)
        yield Case(cls((0, 1, 0, 0), (0, 2, 1, 0)), (x,))
        yield Case(cls((0, -1, 0, 0), (0, 1, -1, 1)), (x,))
        yield Case(cls((0, 0, 1, 2), (0, 0, 0, 1), 0.75), (x,))
        yield Case(cls((0, 1, 0, 1), (0, 3, 2, 0), mode="edge"), (x,))
        yield Case(cls((0, 3, 1, 1), (0, 0, 2, 0), mode="reflect"), (x,))


def unpermuted(values: tuple[int, ...], perm: tuple[int, ...]) -> tuple[int, ...]:
    """Per-axis values for x, given those for x transposed by ``perm``."""
    result = [0] * len(perm)
    for value, axis in zip(values, perm, strict=True):
        result[axis] = value
    return tuple(result)


def _pad(x: Array, begins: tuple[int, ...], ends: tuple[int, ...], mode: str, value: float) -> Array:
    widths = list(zip(begins, ends, strict=True))
    kept = x[tuple(slice(max(0, -b), n - max(0, -e)) for (b, e), n in zip(widths, x.shape, strict=True))]
    grown = [(max(0, b), max(0, e)) for b, e in widths]
    options: dict[str, Any] = {"constant_values": value} if mode == "constant" else {}
    return np.asarray(np.pad(kept, grown, mode, **options))  # type: ignore[call-overload]


@onnx_importer("Transpose")
def import_transpose(node: OnnxNode) -> Value:
    """Transpose; the default reverses the axes."""
    x = node.input(0)
    perm = node.attrs.get("perm") or list(range(x.type.rank))[::-1]
    return node.emit(Transpose(tuple(int(p) for p in perm)), x)


@onnx_importer("Reshape")
def import_reshape(node: OnnxNode) -> Value:
    """Constant target: 0 keeps the operand's dimension (unless allowzero), one -1 takes what is left."""
    x, target = node.input(0), node.ints(1, "shape")
    if target is None:
        raise node.unsupported("input 1, the shape, is missing")
    if node.attrs.get("allowzero", 0) and 0 in target:
        raise node.unsupported("tensors without elements are not supported")
    if any(n == 0 and axis >= x.type.rank for axis, n in enumerate(target)):
        raise node.unsupported(f"shape {target} copies a dimension that {x.type} does not have")
    shape = [x.type.shape[axis] if n == 0 else n for axis, n in enumerate(target)]
    if shape.count(-1) == 1:
        known = -prod(shape)
        if known == 0 or x.type.elements % known:
            raise node.unsupported(f"shape {target} does not divide {x.type}")
        shape[shape.index(-1)] = x.type.elements // known
    return reshape(node, x, shape)


@onnx_importer("Squeeze")
def import_squeeze(node: OnnxNode) -> Value:
    """Axes as an attribute (before opset 13) or an input; none: every axis of length 1."""
    x, axes = node.input(0), node.ints(1, "axes")
    shape = x.type.shape
    named = [i for i, n in enumerate(shape) if n == 1] if axes is None else axes
    dropped = {axis_index(node, a, x.type.rank) for a in named}
    if any(shape[i] != 1 for i in dropped):
        raise node.unsupported(f"axes {axes} of {x.type} are not all of length 1")
    return reshape(node, x, [n for i, n in enumerate(shape) if i not in dropped])


@onnx_importer("Unsqueeze")
def import_unsqueeze(node: OnnxNode) -> Value:
    """Axes of the result, as an attribute (before opset 13) or an input."""
    x, axes = node.input(0), node.ints(1, "axes") or ()
    rank = x.type.rank + len(axes)
    added = {axis_index(node, a, rank) for a in axes}
    if len(added) != len(axes):
        raise node.unsupported(f"axes {axes} name an axis twice")
    rest = iter(x.type.shape)
    return reshape(node, x, [1 if i in added else next(rest) for i in range(rank)])


@onnx_importer("Flatten")
def import_flatten(node: OnnxNode) -> Value:
    """Two axes: those before ``axis`` (default 1; it may equal the rank) and the others."""
    x, axis = node.input(0), int(node.attrs.get("axis", 1))
    axis = axis if axis == x.type.rank else axis_index(node, axis, x.type.rank)
    return reshape(node, x, [prod(x.type.shape[:axis]), prod(x.type.shape[axis:])])


@onnx_importer("Pad")
def import_pad(node: OnnxNode) -> Value:
    """Pads and value as attributes (before opset 11) or inputs, with axes since opset 18."""
    x, mode = node.input(0), node.attrs.get("mode", "constant")
    if mode not in PAD_MODES:
        raise node.unsupported(f"mode {mode} is not supported; supported: {', '.join(PAD_MODES)}")
    pads, axes = node.ints(1, "pads"), node.ints(3)
    value = node.array(2)
    real = (
        float(node.attrs.get("value", 0.0)) if value is None or not value.size else float(value.reshape(()))
    )
    axes = tuple(range(x.type.rank)) if axes is None else axes
    if pads is None or len(pads) != 2 * len(axes):
        raise node.unsupported(f"{pads} are not two pads for each of axes {axes}")
    begins, ends = [0] * x.type.rank, [0] * x.type.rank
    for i, axis in enumerate(axis_index(node, a, x.type.rank) for a in axes):
        begins[axis], ends[axis] = pads[i], pads[i + len(axes)]
    return node.emit(Pad(tuple(begins), tuple(ends), real if mode == "constant" else 0.0, mode), x)


def reshape(node: OnnxNode, x: Value, shape: Sequence[int]) -> Value:
    """``x`` with another shape; itself when it has that shape."""
    return x if tuple(shape) == x.type.shape else node.emit(Reshape(tuple(shape)), x)


def axis_index(node: OnnxNode, axis: int, rank: int) -> int:
    """``axis`` counted from the front. ImportModelError when there is no such axis."""
    if not -rank <= axis < rank:
        raise node.unsupported(f"axis {axis} is out of range for a tensor of rank {rank}")
    return axis % rank
