"""Integer intervals per channel: the abstract values of the overflow proof."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Interval:
    """low <= q <= high for every element of each channel (last axis). ``low``, ``high``: int64[C]."""

    low: NDArray[np.int64]
    high: NDArray[np.int64]

    @staticmethod
    def full(low: int, high: int, channels: int) -> Interval:
        """The same bounds for every channel."""
        return Interval(np.full(channels, low, np.int64), np.full(channels, high, np.int64))

    @staticmethod
    def of_array(data: NDArray[np.generic]) -> Interval:
        """Exact bounds of a constant, per channel of its last axis."""
        flat = np.asarray(data, np.int64).reshape(-1, data.shape[-1] if data.ndim else 1)
        return Interval(flat.min(axis=0), flat.max(axis=0))

    @property
    def channels(self) -> int:
        """Number of channels."""
        return int(self.low.size)

    @property
    def constant(self) -> NDArray[np.bool_]:
        """bool[C]: channels that hold one value for every input."""
        return np.asarray(self.low == self.high)

    def join(self, other: Interval) -> Interval:
        """Smallest interval that holds both."""
        return Interval(np.minimum(self.low, other.low), np.maximum(self.high, other.high))

    def include(self, value: int) -> Interval:
        """Smallest interval that also holds ``value``."""
        return Interval(np.minimum(self.low, value), np.maximum(self.high, value))

    def scaled(self, factor: NDArray[np.int64] | int) -> Interval:
        """Interval of factor * q."""
        a, b = self.low * factor, self.high * factor
        return Interval(np.minimum(a, b), np.maximum(a, b))

    def shifted(self, term: NDArray[np.int64] | int) -> Interval:
        """Interval of q + term."""
        return Interval(self.low + term, self.high + term)

    def over_channels(self, channels: int) -> Interval:
        """One interval for all channels, repeated ``channels`` times (when channel identity is lost)."""
        return Interval.full(int(self.low.min()), int(self.high.max()), channels)

    def plus(self, other: Interval) -> Interval:
        """Interval of the sum."""
        return Interval(self.low + other.low, self.high + other.high)
