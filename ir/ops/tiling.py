"""Movement ops that repeat a tensor, or regroup its channels and pixels in blocks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from qcc.ir.errors import VerifyError
from qcc.ir.interval import Interval
from qcc.ir.op import Array, Case, Op, Signature, onnx_importer, register_op
from qcc.ir.ops.rearrange import Take
from qcc.ir.ops.shape import Movement, as_interval, reshape, unpermuted
from qcc.ir.types import TensorType

if TYPE_CHECKING:
    from qcc.ir.graph import Value
    from qcc.ir.importing import OnnxNode


@register_op
class Expand(Movement):
    """Axes of length 1 broadcast to those of ``shape``, which has the operand's rank; its ones change nothing."""

    name = "expand"
    shape: tuple[int, ...] = ()

    def infer(self, *operands: TensorType | None) -> TensorType:
        """Broadcast shape."""
        (x,) = operands
        assert x is not None
        fits = len(self.shape) == x.rank and all(
            m in (1, n) or n == 1 for n, m in zip(x.shape, self.shape, strict=True)
        )
        if not fits:
            raise VerifyError(f"expand: {x} does not broadcast to {self.shape}")
        return x.with_shape(np.broadcast_shapes(x.shape, self.shape))

    def float_ref(self, *operands: Array | None) -> Array:
        """numpy.broadcast_to."""
        (x,) = operands
        assert x is not None
        return np.ascontiguousarray(np.broadcast_to(x, np.broadcast_shapes(x.shape, self.shape)))

    def interval(self, sig: Signature, *operands: Interval | Array | None) -> Interval:
        """The operand's channels; a single one serves all."""
        x, channels = as_interval(operands[0]), sig.result.shape[-1]
        return x if x.channels == channels else x.over_channels(channels)

    def channel_map(self, sig: Signature) -> tuple[int, ...]:
        """Channels stay apart unless they come from a single one."""
        return (0,) if sig.operand(0).shape[-1] == sig.result.shape[-1] else ()

    def with_channels(self, count: int) -> Op:
        """The last axis is not the one that grows."""
        return replace(self, shape=(*self.shape[:-1], 1))

    def permuted(self, perm: tuple[int, ...], sig: Signature) -> Op | None:
        """Axis i of the permuted operand is axis perm[i] of the plain one."""
        return Expand(unpermuted(self.shape, perm))

    @classmethod
    def cases(cls, rng: np.random.Generator) -> Iterable[Case]:
        """Over space, over channels."""
        yield Case(cls((1, 3, 4, 1)), (rng.normal(size=(1, 1, 1, 5)).astype(np.float32),))
        yield Case(cls((1, 1, 4, 3)), (rng.normal(size=(1, 2, 4, 1)).astype(np.float32),))


@register_op
class Tile(Movement):
    """The whole operand repeated ``repeats`` times along each axis."""

    name = "tile"
    repeats: tuple[int, ...] = ()

    def infer(self, *operands: TensorType | None) -> TensorType:
        """Lengths times repeats."""
        (x,) = operands
        assert x is not None
        if len(self.repeats) != x.rank or min(self.repeats, default=1) < 1:
            raise VerifyError(f"tile: {x} needs {x.rank} positive repeats, got {self.repeats}")
        return x.with_shape(tuple(n * r for n, r in zip(x.shape, self.repeats, strict=True)))

    def float_ref(self, *operands: Array | None) -> Array:
        """numpy.tile."""
        (x,) = operands
        assert x is not None
        return np.tile(x, self.repeats)

    def interval(self, sig: Signature, *operands: Interval | Array | None) -> Interval:
        """The channels, repeated as the last axis is."""
        x = as_interval(operands[0])
        return Interval(np.tile(x.low, self.repeats[-1]), np.tile(x.high, self.repeats[-1]))

    def channel_map(self, sig: Signature) -> tuple[int, ...]:
        """Channels stay apart unless they are repeated."""
        return (0,) if self.repeats[-1] == 1 else ()

    def permuted(self, perm: tuple[int, ...], sig: Signature) -> Op | None:
        """Axis i of the permuted operand is axis perm[i] of the plain one."""
        return Tile(unpermuted(self.repeats, perm))

    @classmethod
    def cases(cls, rng: np.random.Generator) -> Iterable[Case]:
        """Space and channels."""
        yield Case(cls((1, 2, 1, 3)), (rng.normal(size=(1, 2, 3, 2)).astype(np.float32),))


@register_op
class DepthToSpace(Movement):
    """Channels to blocks of ``block`` x ``block`` pixels: [N, H, W, C] to [N, H*b, W*b, C/b^2].

    ``mode``: channel (i*b + j) * C/b^2 + c ("DCR") or c * b^2 + i*b + j ("CRD") becomes pixel (i, j), channel c.
    """

    name = "depth_to_space"
    block: int = 2
    mode: str = "DCR"

    def infer(self, *operands: TensorType | None) -> TensorType:
        """[N, H*b, W*b, C/b^2]."""
        (x,) = operands
        assert x is not None
        if self.mode not in ("DCR", "CRD"):
            raise VerifyError(f"depth_to_space: unknown mode {self.mode!r}; known: DCR, CRD")
        if x.rank != 4 or self.block < 1 or x.shape[3] % self.block**2:
            raise VerifyError(f"depth_to_space: {x} has no channels for blocks of {self.block}")
        n, h, w, c = x.shape
        return x.with_shape((n, h * self.block, w * self.block, c // self.block**2))

    def float_ref(self, *operands: Array | None) -> Array:
        """Reshape, transpose, reshape."""
        (x,) = operands
        assert x is not None
        n, h, w, c = x.shape
        b, left = self.block, c // self.block**2
        if self.mode == "DCR":
            y = x.reshape(n, h, w, b, b, left).transpose(0, 1, 3, 2, 4, 5)
        else:
            y = x.reshape(n, h, w, left, b, b).transpose(0, 1, 4, 2, 5, 3)
        return y.reshape(n, h * b, w * b, left)

    def interval(self, sig: Signature, *operands: Interval | Array | None) -> Interval:
        """Join of the channels that make up each result channel."""
        x = as_interval(operands[0])
        blocks = self.block**2
        shape, axis = ((blocks, -1), 0) if self.mode == "DCR" else ((-1, blocks), 1)
        return Interval(x.low.reshape(shape).min(axis=axis), x.high.reshape(shape).max(axis=axis))

    @classmethod
    def cases(cls, rng: np.random.Generator) -> Iterable[Case]:
        """Both modes."""
        x = rng.normal(size=(1, 2, 3, 12)).astype(np.float32)
        yield Case(cls(2, "DCR"), (x,))
        yield Case(cls(2, "CRD"), (x,))


@register_op
class SpaceToDepth(Movement):
    """Blocks of ``block`` x ``block`` pixels to channels: the inverse of depth_to_space in mode DCR."""

    name = "space_to_depth"
    block: int = 2

    def infer(self, *operands: TensorType | None) -> TensorType:
        """[N, H/b, W/b, C*b^2]."""
        (x,) = operands
        assert x is not None
        if x.rank != 4 or self.block < 1 or x.shape[1] % self.block or x.shape[2] % self.block:
            raise VerifyError(f"space_to_depth: {x} is not made of blocks of {self.block}")
        n, h, w, c = x.shape
        return x.with_shape((n, h // self.block, w // self.block, c * self.block**2))

    def float_ref(self, *operands: Array | None) -> Array:
        """Reshape, transpose, reshape."""
        (x,) = operands
        assert x is not None
        n, h, w, c = x.shape
        b = self.block
        y = x.reshape(n, h // b, b, w // b, b, c).transpose(0, 1, 3, 2, 4, 5)
        return y.reshape(n, h // b, w // b, b * b * c)

    def interval(self, sig: Signature, *operands: Interval | Array | None) -> Interval:
        """The channels once for each pixel of a block."""
        x = as_interval(operands[0])
        return Interval(np.tile(x.low, self.block**2), np.tile(x.high, self.block**2))

    @classmethod
    def cases(cls, rng: np.random.Generator) -> Iterable[Case]:
        """Blocks of 2 and of 3."""
        yield Case(cls(2), (rng.normal(size=(1, 4, 6, 3)).astype(np.float32),))
        yield Case(cls(3), (rng.normal(size=(1, 3, 6, 2)).astype(np.float32),))


@onnx_importer("Expand")
def import_expand(node: OnnxNode) -> Value:
    """Broadcasting of both the tensor and the constant shape: missing leading axes are added first."""
    x, shape = node.input(0), node.ints(1)
    if shape is None or min(shape, default=1) < 1:
        raise node.unsupported(f"shape {shape} is missing or has an axis without elements")
    rank = max(x.type.rank, len(shape))
    y = reshape(node, x, (1,) * (rank - x.type.rank) + x.type.shape)
    target = (1,) * (rank - len(shape)) + shape
    return (
        y
        if all(n in (1, m) for n, m in zip(target, y.type.shape, strict=True))
        else node.emit(Expand(target), y)
    )


@onnx_importer("Tile")
def import_tile(node: OnnxNode) -> Value:
    """Constant repeats, one per axis."""
    x, repeats = node.input(0), node.ints(1)
    if repeats is None or len(repeats) != x.type.rank or min(repeats, default=1) < 1:
        raise node.unsupported(f"repeats {repeats} are not one positive number per axis of {x.type}")
    return x if set(repeats) <= {1} else node.emit(Tile(repeats), x)


@onnx_importer("DepthToSpace", "SpaceToDepth")
def import_blocks(node: OnnxNode) -> Value:
    """Wrapped in the transposes that make it channels-last; the mode CRD of SpaceToDepth permutes its channels."""
    block, mode = int(node.attrs["blocksize"]), node.attrs.get("mode", "DCR")
    x = node.to_nhwc(node.input(0))
    if node.op_type == "DepthToSpace":
        return node.to_nchw(node.emit(DepthToSpace(block, mode), x))
    y = node.emit(SpaceToDepth(block), x)
    if mode == "CRD":
        channels = np.arange(y.type.shape[-1]).reshape(block**2, -1).T.ravel()
        y = node.emit(Take(y.type.rank - 1, tuple(int(c) for c in channels)), y)
    elif mode != "DCR":
        raise node.unsupported(f"mode {mode} is not supported; supported: DCR, CRD")
    return node.to_nchw(y)
