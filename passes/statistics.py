"""Streaming statistics of a tensor: one pass, constant memory, mergeable, independent of the order of batches."""

from __future__ import annotations

from math import floor, frexp, ldexp
from typing import Any

import numpy as np
from numpy.typing import NDArray

BINS = 4096
SMALLEST_EXPONENT = -100  # a value times 2^100 stays in float32 while it falls into the first bins


class TensorStatistics:
    """Count, min, max and a histogram whose bins are aligned to multiples of a power-of-two width.

    Bin k counts x in [k * width, (k + 1) * width). The width follows from min and max alone; where it grows,
    neighbouring bins merge. So the result depends on the data, not on how it was cut into batches.
    """

    def __init__(self) -> None:
        self.count = 0
        self.min = np.inf
        self.max = -np.inf
        self.exponent = SMALLEST_EXPONENT  # width = 2 ** exponent
        self.first = 0  # index of the first bin
        self.counts: NDArray[np.int64] = np.zeros(0, np.int64)

    def update(self, x: NDArray[Any], histogram: bool = True) -> None:
        """Add the elements of ``x`` (float32, any shape). Raises ValueError, and adds nothing, if one is not finite.

        ``histogram``: False for those who read count, min and max only; the same in every call.
        """
        if x.size == 0:
            return
        low, high = float(x.min()), float(x.max())
        if not (np.isfinite(low) and np.isfinite(high)):
            raise ValueError(f"the elements are not finite: they span {low} to {high}")
        self._extend(x.size, low, high)
        if not histogram:
            return
        self._cover()
        # A power of two scales exactly, so a value falls into the same bin in every batch; in wide bins a small
        # float32 would underflow.
        wide = x.reshape(-1) if self.exponent <= 0 else x.reshape(-1).astype(np.float64)
        index = np.floor(wide * wide.dtype.type(2.0**-self.exponent)).astype(np.int32)
        index -= np.int32(self.first)
        self.counts += np.bincount(index, minlength=BINS)

    def merge(self, other: TensorStatistics) -> None:
        """Add the statistics of other batches of the same tensor."""
        if other.count == 0:
            return
        self._extend(other.count, other.min, other.max)
        if other.counts.size:
            self._cover()
            self._add(other.counts, other.first, other.exponent)

    def percentile_range(self, percent: float) -> tuple[float, float]:
        """(low, high) that leave (100 - percent) / 2 % of the elements outside at each end, within [min, max].

        Both are edges of bins: the elements of those ranks lie in the bin above ``low`` and below ``high``.
        """
        tail = self.count * (100.0 - percent) / 200.0
        cumulative = np.cumsum(self.counts)
        below = int(np.searchsorted(cumulative, tail, side="right"))
        above = int(np.searchsorted(cumulative, self.count - tail, side="left"))
        low, high = (ldexp(self.first + k, self.exponent) for k in (below, above + 1))
        return max(low, self.min), min(high, self.max)

    def _extend(self, count: int, low: float, high: float) -> None:
        self.count += count
        self.min, self.max = min(self.min, low), max(self.max, high)

    def _cover(self) -> None:
        """Let the bins cover [min, max], merging what was counted."""
        exponent = _exponent(self.min, self.max)
        first = floor(ldexp(self.min, -exponent))
        if self.counts.size and (exponent, first) == (self.exponent, self.first):
            return
        counted, old_first, old_exponent = self.counts, self.first, self.exponent
        self.counts, self.first, self.exponent = np.zeros(BINS, np.int64), first, exponent
        self._add(counted, old_first, old_exponent)

    def _add(self, counts: NDArray[np.int64], first: int, exponent: int) -> None:
        """Add a histogram of bins that are not wider."""
        used = np.flatnonzero(counts)
        index = ((used + first) >> (self.exponent - exponent)) - self.first
        np.add.at(self.counts, index, counts[used])


def _exponent(low: float, high: float) -> int:
    """The width, 2^exponent, for data in [low, high]: never smaller for an interval that holds this one.

    It is the smallest that leaves indices under 4 * BINS in magnitude and covers the interval with BINS bins.
    """
    largest = max(abs(low), abs(high), high - low)
    exponent = max(SMALLEST_EXPONENT, frexp(largest / BINS)[1] - 2) if largest else SMALLEST_EXPONENT
    while floor(ldexp(high, -exponent)) - floor(ldexp(low, -exponent)) >= BINS:
        exponent += 1
    return exponent
