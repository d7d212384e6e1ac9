"""What the ONNX importers of image ops share: channels-first tensors in, channels-last images inside."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qcc.ir.ops.shape import Reshape

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qcc.ir.graph import Value
    from qcc.ir.importing import OnnxNode


def to_image(node: OnnxNode, x: Value) -> Value:
    """[N, C, W] or [N, C, H, W] as [N, H, W, C], with H = 1 for the first. ImportModelError otherwise."""
    if x.type.rank not in (3, 4):
        raise node.unsupported(f"only 1-D and 2-D images are supported, got {x.type}")
    y = node.to_nhwc(x)
    if x.type.rank == 3:
        n, width, c = y.type.shape
        y = node.emit(Reshape((n, 1, width, c)), y)
    return y


def from_image(node: OnnxNode, y: Value, rank: int) -> Value:
    """[N, H, W, C] back to channels-first of ``rank``: the inverse of ``to_image``."""
    if rank == 3:
        n, _, width, c = y.type.shape
        y = node.emit(Reshape((n, width, c)), y)
    return node.to_nchw(y)


def pair(values: Sequence[int], fill: int = 1) -> tuple[int, int]:
    """Two numbers per H and W from one (W alone, ``fill`` for H) or two."""
    height, width = (fill, *values)[-2:]
    return int(height), int(width)


def four(pads: Sequence[int]) -> tuple[int, int, int, int]:
    """top, left, bottom, right from ONNX pads (all begins, then all ends) of one or two axes."""
    half = len(pads) // 2
    return (*pair(pads[:half], 0), *pair(pads[half:], 0))
