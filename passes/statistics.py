"""Streaming statistics of a tensor: one pass, constant memory, mergeable, independent of the order of batches."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

BINS = 4096


class TensorStatistics:
    """Count, min, max and a histogram whose bins are aligned to multiples of a power-of-two width.

    Bin k counts x in [k * width, (k + 1) * width). When values no longer fit in ``BINS`` bins the width doubles and
    neighbours merge, so the result depends on the data alone, not on how it was cut into batches.
    """

    def __init__(self) -> None:
        self.count = 0
        self.min = np.inf
        self.max = -np.inf
        self.exponent = 0  # width = 2 ** exponent
        self.first = 0  # index of the first bin
        self.counts: NDArray[np.int64] = np.zeros(0, np.int64)

    def update(self, x: NDArray[Any], histogram: bool = True) -> None:
        """Add the elements of ``x`` (float32, any shape, finite)."""
        if x.size == 0:
            return
        low, high = float(x.min()), float(x.max())
        self.count += x.size
        self.min, self.max = min(self.min, low), max(self.max, high)
        if not histogram:
            return
        self._cover(low, high)
        # scaling by a power of two is exact, so a value falls into the same bin in every batch
        index = np.floor(x.reshape(-1) * np.float32(2.0**-self.exponent)).astype(np.int32)
        index -= np.int32(self.first)
        self.counts += np.bincount(index, minlength=BINS)[:BINS]

    def merge(self, other: TensorStatistics) -> None:
        """Add the statistics of other batches of the same tensor."""
        if other.count == 0:
            return
        self.count += other.count
        self.min, self.max = min(self.min, other.min), max(self.max, other.max)
        if other.counts.size:
            self._cover(other.min, other.max)
            shift = self.exponent - other.exponent
            index = (np.arange(BINS) + other.first) >> shift
            used = other.counts > 0
            np.add.at(self.counts, index[used] - self.first, other.counts[used])

    def _cover(self, low: float, high: float) -> None:
        """Widen the bins until [low, high] fits, merging what was counted."""
        if self.counts.size:
            low = min(low, float(self._low_edge()))
            high = max(high, float(self._high_edge()))
        exponent = self.exponent if self.counts.size else _exponent_for(low, high)
        while np.floor(high * 2.0**-exponent) - np.floor(low * 2.0**-exponent) >= BINS:
            exponent += 1
        first = int(np.floor(low * 2.0**-exponent))
        if self.counts.size and (exponent, first) != (self.exponent, self.first):
            used = np.flatnonzero(self.counts)
            index = ((used + self.first) >> (exponent - self.exponent)) - first
            counts = np.zeros(BINS, np.int64)
            np.add.at(counts, index, self.counts[used])
            self.counts = counts
        elif not self.counts.size:
            self.counts = np.zeros(BINS, np.int64)
        self.exponent, self.first = exponent, first

    def _low_edge(self) -> float:
        used = np.flatnonzero(self.counts)
        return float((used[0] + self.first) * 2.0**self.exponent)

    def _high_edge(self) -> float:
        used = np.flatnonzero(self.counts)
        return float((used[-1] + self.first) * 2.0**self.exponent)

    def percentile_range(self, percent: float) -> tuple[float, float]:
        """(low, high) that leave (100 - percent) / 2 % of the elements outside at each end, within [min, max]."""
        tail = self.count * (100.0 - percent) / 200.0
        cumulative = np.cumsum(self.counts)
        below = int(np.searchsorted(cumulative, tail, side="right"))
        above = int(np.searchsorted(cumulative, self.count - tail, side="left"))
        width = 2.0**self.exponent
        low, high = (below + self.first) * width, (above + 1 + self.first) * width
        return max(low, self.min), min(high, self.max)


def _exponent_for(low: float, high: float) -> int:
    """Smallest width that covers [low, high] with BINS bins (about; the caller widens if needed)."""
    span = max(high - low, abs(low), abs(high)) / BINS
    if span == 0.0:
        return -100
    return max(-100, int(np.floor(np.log2(span))) - 1)
