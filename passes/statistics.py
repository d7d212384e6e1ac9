"""Streaming statistics of a tensor: one pass, constant memory, mergeable, independent of the cut into batches."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from math import floor, frexp, isfinite, ldexp
from typing import Any

import numpy as np
from numpy.typing import NDArray

BINS = 8192
SMALLEST_EXPONENT = -100  # a value times 2^100 stays in float32 while it falls into the first bins
AVERAGING = 0.1  # share of the newest batch in a moving average
# Of a sample with more elements than FEW every stride-th one is counted, at most MANY. Strides are prime: one that
# divides the width or the channels of an image would always pick the same columns or channels.
FEW, MANY, SMALLEST_STRIDE = 1024, 8192, 17
NO_COUNTS: NDArray[np.int64] = np.zeros(0, np.int64)


@dataclass(frozen=True)
class MovingRange:
    """Exponential moving average of the extremes of batches, in their order (Jacob et al. 2018, section 3.1).

    m_1 = x_1 and m_k = (1 - c) m_(k-1) + c x_k, c = AVERAGING. A run of n batches maps m to (1 - c)^n m + decayed,
    and such maps compose: ``then`` is associative, so parts may be collected apart. It is not commutative.
    """

    batches: int = 0
    first: tuple[float, float] = (0.0, 0.0)  # (low, high) of the first batch
    decayed: tuple[float, float] = (0.0, 0.0)

    @staticmethod
    def of_batch(low: float, high: float) -> MovingRange:
        """A run of one batch."""
        return MovingRange(1, (low, high), (AVERAGING * low, AVERAGING * high))

    def then(self, later: MovingRange) -> MovingRange:
        """This run of batches, and after it ``later``."""
        if self.batches == 0 or later.batches == 0:
            return later if self.batches == 0 else self
        share = (1 - AVERAGING) ** later.batches
        low, high = (share * a + b for a, b in zip(self.decayed, later.decayed, strict=True))
        return MovingRange(self.batches + later.batches, self.first, (low, high))

    def then_batch(self, low: float, high: float) -> MovingRange:
        """``self.then(of_batch(low, high))``, at once."""
        old_low, old_high = self.decayed
        kept = 1 - AVERAGING
        decayed = kept * old_low + AVERAGING * low, kept * old_high + AVERAGING * high
        return MovingRange(self.batches + 1, self.first if self.batches else (low, high), decayed)

    @property
    def range(self) -> tuple[float, float]:
        """(low, high) after the last batch; the average starts at the first one."""
        share = (1 - AVERAGING) ** self.batches
        low, high = (share * a + b for a, b in zip(self.first, self.decayed, strict=True))
        return low, high


@dataclass(frozen=True)
class Picked:
    """Of some samples: their extremes, the f64[4] that ``sample_sums`` adds up, and the elements to count, f32[n]."""

    extremes: tuple[float, float]
    sums: NDArray[np.float64]
    elements: NDArray[Any]


class TensorStatistics:
    """Count, extremes, a moving average of the extremes, and a histogram.

    The bins of the histogram are aligned to multiples of a power-of-two width: bin k counts x in
    [k * width, (k + 1) * width). The width follows from min and max alone; where it grows, neighbouring bins
    merge. So all but the moving average depend on the data, not on how it was cut into batches. Extremes are those
    of all elements; of large samples the histogram counts every ``histogram_stride``-th.

    The histogram is kept in layers, one for each part of the samples, which may be dropped one by one. So are sums over
    the same samples, with all their elements: ``sample_sums[layer]``, f64[4]: how many samples, and the sums of their
    minima, of their maxima and of their largest magnitudes.
    ``never_negative``: no element is below 0; ``min`` is 0 then, as every range holds 0.
    """

    def __init__(self, never_negative: bool = False) -> None:
        self.never_negative = never_negative
        self.count = 0
        self.min = np.inf
        self.max = -np.inf
        self.exponent = SMALLEST_EXPONENT  # width = 2 ** exponent
        self.first = 0  # index of the first bin
        self.layers: dict[int, NDArray[np.int64]] = {}  # each s64[BINS]
        self.sample_sums: dict[int, NDArray[np.float64]] = {}  # of the same layers
        self.moving = MovingRange()
        self._batch = (np.inf, -np.inf)  # extremes of the batch that has not ended
        self._covered = (0.0, 0.0)

    @property
    def counts(self) -> NDArray[np.int64]:
        """The histogram, s64[BINS], or empty where nothing was counted."""
        return np.sum(list(self.layers.values()), axis=0) if self.layers else NO_COUNTS

    def extend(self, x: NDArray[Any]) -> None:
        """Add ``x`` (float32), a batch or a part of one, to count and extremes.

        Raises ValueError, and adds nothing, if an element is not finite.
        """
        if x.size == 0:
            return
        self.widen(*self.extremes(x))
        self.count += x.size

    def extremes(self, x: NDArray[Any]) -> tuple[float, float]:
        """The least and the largest element of ``x``, which is not empty; nothing is added. Raises ValueError as ``extend``."""
        least = 0.0 if self.never_negative else np.minimum.reduce(x, axis=None)
        return self._finite(least, np.maximum.reduce(x, axis=None))

    def widen(self, low: float, high: float) -> None:
        """Add the extremes of a part of a batch."""
        self.min, self.max = min(self.min, low), max(self.max, high)
        self._batch = min(self._batch[0], low), max(self._batch[1], high)

    def tally(self, x: NDArray[Any], layer: int = 0, samples: int | None = None, every: bool = False) -> None:
        """``count_picked`` of what ``picked`` finds."""
        if x.size:
            self.count_picked(self.picked(x, samples, every), layer)

    def picked(self, x: NDArray[Any], samples: int | None = None, every: bool = False) -> Picked:
        """What the histogram wants of ``x`` (float32), which is not empty; nothing is added.

        Samples lie along axis 0; ``samples``: how many there are, where they may span several of its rows; ``every``: no element
        is left out. Raises ValueError as ``extend``.
        """
        each = x.reshape(samples or (len(x) if x.ndim else 1), -1)
        highs = each.max(axis=1).astype(np.float64)
        lows = np.zeros_like(highs) if self.never_negative else each.min(axis=1).astype(np.float64)
        extremes = self._finite(lows.min(), highs.max())
        sums = np.array([len(each), lows.sum(), highs.sum(), np.maximum(-lows, highs).sum()])
        rows = x.reshape(len(x), -1) if x.ndim else x.reshape(1, 1)
        return Picked(extremes, sums, rows[:, :: 1 if every else histogram_stride(rows.shape[1])].flatten())

    def count_picked(self, picked: Picked, layer: int) -> None:
        """Count elements in a layer of the histogram, as of data whose extremes are known.

        Computed in another way, extremes may differ a little: they widen those known.
        """
        (low, high), x = picked.extremes, picked.elements
        self.min, self.max = min(self.min, low), max(self.max, high)
        sums = self.sample_sums.setdefault(layer, np.zeros(4))
        sums += picked.sums
        self._cover()
        # A power of two scales exactly, so a value falls into the same bin in every batch; in wide bins a small
        # float32 would underflow.
        wide = x if self.exponent <= 0 else x.astype(np.float64)
        scaled = wide * wide.dtype.type(2.0**-self.exponent)
        index = (scaled if low >= 0 else np.floor(scaled)).astype(np.int64)
        if self.first:
            index -= self.first
        counts = self._layer(layer)
        counts += np.bincount(index, minlength=BINS)

    def keep_layers(self, first: int) -> None:
        """Drop the layers below ``first``; the bins of the others cover all that was seen."""
        self.layers = {n: counts for n, counts in self.layers.items() if n >= first}
        self.sample_sums = {n: sums for n, sums in self.sample_sums.items() if n >= first}
        if self.layers:
            self._cover()

    def end_batch(self) -> None:
        """The batch is complete: its extremes enter the moving average."""
        if self._batch[0] <= self._batch[1]:
            self.moving = self.moving.then_batch(*self._batch)
        self._batch = (np.inf, -np.inf)

    def merge(self, other: TensorStatistics) -> None:
        """Add the statistics of later batches of the same tensor; the order matters to the moving average only."""
        if other.count == 0:
            return
        self.count += other.count
        self.min, self.max = min(self.min, other.min), max(self.max, other.max)
        self.moving = self.moving.then(other.moving)
        if self.layers or other.layers:
            self._cover()
        for layer, counts in other.layers.items():
            self._add(self._layer(layer), counts, other.first, other.exponent)
        for layer, sums in other.sample_sums.items():
            self.sample_sums[layer] = self.sample_sums.get(layer, 0.0) + sums

    def mean_extremes(self) -> tuple[float, float, float]:
        """Means over the counted samples of the minimum, of the maximum and of the largest magnitude."""
        count, low, high, reach = np.sum(list(self.sample_sums.values()), axis=0)
        return low / count, high / count, reach / count

    def percentile_range(self, percent: float) -> tuple[float, float]:
        """(low, high) that leave (100 - percent) / 2 % of the elements outside at each end, within [min, max].

        Both are edges of bins: the elements of those ranks lie in the bin above ``low`` and below ``high``.
        """
        cumulative = np.cumsum(self.counts)
        counted = int(cumulative[-1])
        tail = counted * (100.0 - percent) / 200.0
        below = int(np.searchsorted(cumulative, tail, side="right"))
        above = int(np.searchsorted(cumulative, counted - tail, side="left"))
        if percent == 100.0:  # what was not counted may lie beyond the last used bins
            return self.min, self.max
        low, high = (ldexp(self.first + k, self.exponent) for k in (below, above + 1))
        return max(low, self.min), min(high, self.max)

    def bins(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """(centres, counts) of the bins that are not empty; a centre lies within [min, max]."""
        counts = self.counts
        used = np.flatnonzero(counts)
        centres = np.ldexp(used + self.first + 0.5, self.exponent)
        return np.clip(centres, self.min, self.max), counts[used]

    def _finite(self, least: float, largest: float) -> tuple[float, float]:
        low, high = float(least), float(largest)
        if not (isfinite(low) and isfinite(high)):
            raise ValueError(f"the elements are not finite: they span {low} to {high}")
        return low, high

    def _layer(self, layer: int) -> NDArray[np.int64]:
        return self.layers.setdefault(layer, np.zeros(BINS, np.int64))

    def _cover(self) -> None:
        """Let the bins cover [min, max], merging what was counted."""
        if self._covered == (self.min, self.max) and self.layers:
            return
        self._covered = self.min, self.max
        exponent = _exponent(self.min, self.max)
        first = floor(ldexp(self.min, -exponent))
        if (exponent, first) == (self.exponent, self.first):
            return
        counted, old_first, old_exponent = self.layers, self.first, self.exponent
        self.layers, self.first, self.exponent = {}, first, exponent
        for layer, counts in counted.items():
            self._add(self._layer(layer), counts, old_first, old_exponent)

    def _add(self, sums: NDArray[np.int64], counts: NDArray[np.int64], first: int, exponent: int) -> None:
        """Add a histogram of bins that are not wider to ``sums``."""
        used = np.flatnonzero(counts)
        index = ((used + first) >> (self.exponent - exponent)) - self.first
        np.add.at(sums, index, counts[used])


@cache
def histogram_stride(elements: int) -> int:
    """Of each sample of so many elements the histogram counts one in this many: 1, or a prime."""
    if elements <= FEW:
        return 1
    stride = max(SMALLEST_STRIDE, -(-elements // MANY))
    while any(stride % n == 0 for n in range(2, int(stride**0.5) + 1)):
        stride += 1
    return stride


def _exponent(low: float, high: float) -> int:
    """The width, 2^exponent, for data in [low, high]: never smaller for an interval that holds this one.

    It is the smallest that leaves indices under 4 * BINS in magnitude and covers the interval with BINS bins.
    """
    largest = max(abs(low), abs(high), high - low)
    exponent = max(SMALLEST_EXPONENT, frexp(largest / BINS)[1] - 2) if largest else SMALLEST_EXPONENT
    while floor(ldexp(high, -exponent)) - floor(ldexp(low, -exponent)) >= BINS:
        exponent += 1
    return exponent
