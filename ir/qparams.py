"""QParams: the scale, zero_point and axis that give an integer tensor its real values."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class QParams:
    """real = scale * (q - zero_point).

    ``scale``: one float for per-tensor, or one per channel of ``axis``; each > 0 and finite.
    ``zero_point``: one integer for all channels (0 for per-channel tensors).
    ``dtype``: spelling of the integer type that holds q ("s8", "s16", "s32", "s64", "u8").
    ``codes``: lowest and highest q where they are fewer than those of dtype, which are the default.
    """

    scale: tuple[float, ...]
    zero_point: int = 0
    axis: int | None = None
    dtype: str = "s8"
    codes: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if not self.scale or not all(0 < s < inf for s in self.scale):
            raise ValueError(f"scale must be finite and positive, got {self.scale[:4]}")
        if self.axis is None and len(self.scale) != 1:
            raise ValueError("a per-tensor QParams has one scale")
        if self.axis is not None and self.zero_point != 0:
            raise ValueError("per-channel qparams are symmetric: zero_point must be 0")
        low, high = INTEGER_RANGE[self.dtype]
        if self.codes is not None and not low <= self.codes[0] < self.codes[1] <= high:
            raise ValueError(f"codes {list(self.codes)} are not within {self.dtype} [{low}, {high}]")
        low, high = self.code_range
        if not low <= self.zero_point <= high:
            raise ValueError(f"zero_point {self.zero_point} is outside {self.dtype} [{low}, {high}]")

    @staticmethod
    def per_tensor(scale: float, zero_point: int = 0, dtype: str = "s8") -> QParams:
        """One scale and zero_point for the whole tensor."""
        return QParams((float(scale),), int(zero_point), None, dtype)

    @staticmethod
    def per_channel(scale: NDArray[np.float64], axis: int, dtype: str = "s8") -> QParams:
        """One scale for each channel of ``axis``, zero_point 0."""
        return QParams(tuple(np.asarray(scale, np.float64).ravel().tolist()), 0, axis, dtype)

    def scale_array(self, rank: int) -> NDArray[np.float64]:
        """The scales shaped to broadcast against a tensor of ``rank`` dimensions."""
        scale = np.asarray(self.scale, np.float64)
        if self.axis is None:
            return scale.reshape(())
        shape = [1] * rank
        shape[self.axis] = scale.size
        return scale.reshape(shape)

    @property
    def code_range(self) -> tuple[int, int]:
        """Lowest and highest q."""
        return self.codes or INTEGER_RANGE[self.dtype]

    @property
    def range(self) -> tuple[float, float]:
        """Smallest and largest real value that per-tensor qparams can hold."""
        low, high = self.code_range
        return self.scale[0] * (low - self.zero_point), self.scale[0] * (high - self.zero_point)

    def __str__(self) -> str:
        scale = repr(self.scale[0]) if self.axis is None else f"[{len(self.scale)} scales]"
        axis = "" if self.axis is None else f", axis={self.axis}"
        codes = "" if self.codes is None else f", codes={list(self.codes)}"
        return f"q({scale}, {self.zero_point}{axis}{codes})"


INTEGER_RANGE: dict[str, tuple[int, int]] = {
    "s8": (-128, 127),
    "u8": (0, 255),
    "s16": (-(2**15), 2**15 - 1),
    "s32": (-(2**31), 2**31 - 1),
    "s64": (-(2**63), 2**63 - 1),
}
