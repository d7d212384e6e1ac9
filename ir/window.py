"""Sliding windows over channels-last images: shared by convolution and pooling."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from qcc.ir.errors import VerifyError

if TYPE_CHECKING:
    from qcc.ir.importing import OnnxNode

_MAX_WINDOWS = 2**26  # far above any image: a text with absurd attributes must not make infer allocate
_PATCH_BYTES = 32 * 2**20  # im2col works on blocks of samples so that patches stay in this much memory


def window_output(
    size: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int] = (1, 1),
    ceil_mode: bool = False,
) -> tuple[int, int]:
    """Output height and width of a window op; ``pads`` are top, left, bottom, right, none negative."""
    if min(pads) < 0:
        raise VerifyError(f"pads must not be negative, got {tuple(pads)}", hint="crop with a pad op before")
    out = []
    for axis in range(2):
        padded = size[axis] + pads[axis] + pads[axis + 2]
        extent = (kernel[axis] - 1) * dilations[axis] + 1
        room = padded - extent
        if room < 0 or strides[axis] < 1:
            raise VerifyError(
                f"window of {extent} with stride {strides[axis]} does not fit {padded} padded elements"
            )
        steps = -(-room // strides[axis]) if ceil_mode else room // strides[axis]
        # a ceil-mode window must start inside the image or its leading padding
        if ceil_mode and steps * strides[axis] >= size[axis] + pads[axis]:
            steps -= 1
        out.append(steps + 1)
    if out[0] * out[1] > _MAX_WINDOWS:
        raise VerifyError(f"{out[0]} x {out[1]} windows are too many, at most {_MAX_WINDOWS}")
    return out[0], out[1]


def tap_counts(
    bounds: tuple[int, int], out: int, kernel: int, stride: int, pad: int, dilation: int
) -> NDArray[np.int64]:
    """For each of ``out`` windows along one axis: how many taps fall on an element index in [low, high).

    Tap a of window i lies on element i * stride + a * dilation - pad.
    """
    start = np.arange(out) * stride - pad
    # the first tap at or behind each bound, at most `kernel`
    first, end = (np.clip(-((start - bound) // dilation), 0, kernel) for bound in bounds)
    return np.asarray(end - first, np.int64)


def pad_spatial(x: NDArray[Any], pads: Sequence[int], value: float) -> NDArray[Any]:
    """Pad H and W of [N, H, W, C] with ``value``."""
    if not any(pads):
        return x
    top, left, bottom, right = pads
    return np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=value)


def pad_for_windows(
    x: NDArray[Any],
    out: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int],
    value: float,
) -> NDArray[Any]:
    """Pad ``x`` so that exactly ``out`` windows fit: a ceil-mode window may reach beyond the padding."""
    needed = [
        (n - 1) * s + (k - 1) * d + 1 for n, s, k, d in zip(out, strides, kernel, dilations, strict=True)
    ]
    ends = [max(0, needed[axis] - pads[axis] - x.shape[axis + 1]) for axis in range(2)]
    padded = pad_spatial(x, (pads[0], pads[1], *ends), value)
    return padded[:, : needed[0], : needed[1]]


def taps(
    x: NDArray[Any], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> Iterator[tuple[tuple[int, int], NDArray[Any]]]:
    """For each kernel position (a, b): the view [N, OH, OW, C] of padded ``x`` that it multiplies."""
    oh, ow = window_output(x.shape[1:3], kernel, strides, (0, 0, 0, 0), dilations)
    for a in range(kernel[0]):
        for b in range(kernel[1]):
            top, left = a * dilations[0], b * dilations[1]
            rows = slice(top, top + (oh - 1) * strides[0] + 1, strides[0])
            columns = slice(left, left + (ow - 1) * strides[1] + 1, strides[1])
            yield (a, b), x[:, rows, columns, :]


def sliding_windows(
    x: NDArray[Any], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> NDArray[Any]:
    """The view [N, OH, OW, KH, KW, C] of padded ``x`` [N, H, W, C]."""
    extent = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    windows = sliding_window_view(x, extent, axis=(1, 2))[:, :: strides[0], :: strides[1]]
    windows = windows[..., :: dilations[0], :: dilations[1]]  # [N, OH, OW, C, KH, KW]
    return windows.transpose(0, 1, 2, 4, 5, 3)


def patches(
    x: NDArray[Any], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> Iterator[NDArray[Any]]:
    """im2col in blocks of samples: each [n, OH, OW, KH*KW*C] with the channel fastest."""
    windows = sliding_windows(x, kernel, strides, dilations)
    sample_bytes = int(np.prod(windows.shape[1:])) * 8
    block = max(1, _PATCH_BYTES // max(1, sample_bytes))
    for start in range(0, len(x), block):
        part = windows[start : start + block]
        yield part.reshape(*part.shape[:3], -1)


def auto_pads(
    node: OnnxNode,
    size: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
) -> list[int]:
    """Explicit pads (all begins, then all ends) of an ONNX Conv or Pool node, auto_pad resolved."""
    mode = node.attrs.get("auto_pad", "NOTSET")
    if mode in ("NOTSET", "VALID"):
        pads = node.attrs.get("pads") if mode == "NOTSET" else None
        return [int(p) for p in pads] if pads else [0] * (2 * len(kernel))
    begins, ends = [], []
    for n, k, s, d in zip(size, kernel, strides, dilations, strict=True):
        total = max(0, (-(-n // s) - 1) * s + (k - 1) * d + 1 - n)
        small, large = total // 2, total - total // 2
        begins.append(small if mode == "SAME_UPPER" else large)
        ends.append(large if mode == "SAME_UPPER" else small)
    return begins + ends
