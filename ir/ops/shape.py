"""Ops that move elements and never change them. Their integer form is the same op on integers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from qcc.ir.errors import VerifyError
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

    def quant_rule(self) -> QuantRule:
        """Result and operands share qparams."""
        return QuantRule(shares=True)

    def int_ref(self, sig: Signature, *operands: Array | None) -> Array:
        """The same movement."""
        return self.float_ref(*operands)

    def quantize(self, q: Lowering, node: Node) -> Value | None:
        """The same op on integers."""
        return q.emit(self, *(q.integer(v) for v in node.inputs if v is not None), name=node.name)

    def interval(self, sig: Signature, *operands: Interval | Array | None) -> Interval:
        """Channel identity is lost: one interval over all channels (subclasses may know better)."""
        channels = sig.result.shape[-1] if sig.result.shape else 1
        parts = [
            o if isinstance(o, Interval) else Interval.of_array(np.asarray(o))
            for o in operands
            if o is not None
        ]
        joined = parts[0].over_channels(channels)
        for part in parts[1:]:
            joined = joined.join(part.over_channels(channels))
        return joined


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
        x = operands[0]
        if isinstance(x, Interval) and self.perm and self.perm[-1] == len(self.perm) - 1:
            return x
        return super().interval(sig, *operands)

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
        """Channels keep their intervals when the last dimension does, or all other dimensions are 1."""
        x, shape = operands[0], sig.operand(0).shape
        if isinstance(x, Interval) and shape and sig.result.shape and shape[-1] == sig.result.shape[-1]:
            return x
        return super().interval(sig, *operands)

    @classmethod
    def cases(cls, rng: np.random.Generator) -> Iterable[Case]:
        """Flatten, and a reshape that drops the leading 1."""
        x = rng.normal(size=(1, 3, 4, 2)).astype(np.float32)
        yield Case(cls((1, 24)), (x,))
        yield Case(cls((4, 6)), (x,))


@register_op
class Pad(Movement):
    """Constant padding with real ``value`` (the zero_point stands for 0): ``begins`` and ``ends`` per axis; negative crops."""

    name = "pad"
    begins: tuple[int, ...] = ()
    ends: tuple[int, ...] = ()
    value: float = 0.0

    def infer(self, *operands: TensorType | None) -> TensorType:
        """Each axis grows by begin + end."""
        (x,) = operands
        assert x is not None
        if len(self.begins) != x.rank or len(self.ends) != x.rank:
            raise VerifyError(f"pad: {x} needs {x.rank} begins and ends")
        shape = tuple(b + n + e for b, n, e in zip(self.begins, x.shape, self.ends, strict=True))
        if any(n < 1 for n in shape):
            raise VerifyError(f"pad: result shape {shape} has an empty axis")
        return x.with_shape(shape)

    def float_ref(self, *operands: Array | None) -> Array:
        """numpy.pad after cropping."""
        (x,) = operands
        assert x is not None
        return self._pad(x, self.value)

    def int_ref(self, sig: Signature, *operands: Array | None) -> Array:
        """Pads with the quantized value."""
        (x,) = operands
        assert x is not None
        return self._pad(x, self.fill(sig))

    def fill(self, sig: Signature) -> int:
        """The integer that stands for ``value``."""
        qparams = sig.qparams(0)
        q = round(self.value / qparams.scale[0]) + qparams.zero_point
        return int(min(max(q, sig.result.dtype.min), sig.result.dtype.max))

    def _pad(self, x: Array, value: float) -> Array:
        window = tuple(
            slice(max(0, -b), n - max(0, -e)) for b, e, n in zip(self.begins, self.ends, x.shape, strict=True)
        )
        widths = [(max(0, b), max(0, e)) for b, e in zip(self.begins, self.ends, strict=True)]
        return np.pad(x[window], widths, constant_values=value)

    def interval(self, sig: Signature, *operands: Interval | Array | None) -> Interval:
        """The operand's interval with the fill; channels are kept unless the last axis itself is padded."""
        x = operands[0]
        assert isinstance(x, Interval)
        fill = self.fill(sig)
        if self.begins[-1] == 0 and self.ends[-1] == 0:
            return x.include(fill)
        return x.over_channels(sig.result.shape[-1]).include(fill)

    def permuted(self, perm: tuple[int, ...], sig: Signature) -> Op | None:
        """Axis i of the permuted operand is axis perm[i] of the plain one."""
        begins, ends = [0] * len(perm), [0] * len(perm)
        for i, axis in enumerate(perm):
            begins[axis], ends[axis] = self.begins[i], self.ends[i]
        return replace(self, begins=tuple(begins), ends=tuple(ends))

    @classmethod
    def cases(cls, rng: np.random.Generator) -> Iterable[Case]:
        """Spatial padding, and a crop."""
        x = rng.normal(size=(1, 4, 3, 2)).astype(np.float32)
        yield Case(cls((0, 1, 0, 0), (0, 2, 1, 0)), (x,))
        yield Case(cls((0, -1, 0, 0), (0, 1, -1, 1)), (x,))


@onnx_importer("Transpose")
def import_transpose(node: OnnxNode) -> Value:
    """Transpose; the default reverses the axes."""
    x = node.input(0)
    perm = node.attrs.get("perm") or list(range(x.type.rank))[::-1]
    return node.emit(Transpose(tuple(int(p) for p in perm)), x)
