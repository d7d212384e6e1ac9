"""Observers: how the statistics of one tensor become a range. All read one histogram; none sees the data again."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from qcc.ir.errors import PassError
from qcc.ir.qparams import QParams
from qcc.ir.qspec import QSpec
from qcc.passes.statistics import TensorStatistics

Floats = NDArray[np.float64]
Range = tuple[float, float]

KL_BINS, PYTORCH_BINS = 2048, 2048
_PYTORCH_LEVELS, _PYTORCH_STEP = 256, 1e-5
_SHRINK = 2.0 ** -(np.arange(97) / 8)  # of both ends at once, down to 2^-12: outliers may lie that far away
_REFINE = (0.15, 0.04, 0.01)  # then of each end alone, this far up and down
_STARTS, _ROUNDS = 2.0 ** -(np.arange(24) / 6), 10  # of the alternation of scale and codes


class ObserverOptions(Protocol):
    """What observers may read: ``p``: share of the elements to keep, in percent; ``spec``: the codes there are."""

    @property
    def p(self) -> float: ...  # noqa: D102
    @property
    def spec(self) -> QSpec: ...  # noqa: D102


@dataclass(frozen=True)
class DefaultOptions:
    """8 asymmetric bits, and what the percentile observer keeps by default."""

    p: float = 99.99
    spec: QSpec = field(default_factory=QSpec)


Calibrator = Callable[[TensorStatistics, Any], Range]

CALIBRATORS: dict[str, Calibrator] = {}
WITHOUT_HISTOGRAM = ("min-max", "moving-average")


def register_calibrator(name: str) -> Callable[[Calibrator], Calibrator]:
    """Decorator: enter a function (statistics, options) -> (low, high) under ``observer=name``."""

    def enter(function: Calibrator) -> Calibrator:
        CALIBRATORS[name] = function
        return function

    return enter


def ranges_of(statistics: TensorStatistics, name: str, options: ObserverOptions | None = None) -> Range:
    """(low, high) that the observer ``name`` chooses for a tensor, widened to hold 0.

    So a one-sided range ends at 0, and real zero is exact. Raises PassError for an unknown name.
    """
    if name not in CALIBRATORS:
        known = ", ".join(sorted(CALIBRATORS))
        raise PassError(f"unknown observer {name!r}", hint=f"known observers: {known}")
    low, high = CALIBRATORS[name](statistics, options or DefaultOptions())
    return min(float(low), 0.0), max(float(high), 0.0)


# ---------------------------------------------------------------------- of extremes and ranks
@register_calibrator("min-max")
def min_max(statistics: TensorStatistics, options: ObserverOptions) -> Range:
    """The extremes seen."""
    return statistics.min, statistics.max


@register_calibrator("moving-average")
def moving_average(statistics: TensorStatistics, options: ObserverOptions) -> Range:
    """The exponential moving average of the extremes of each batch, in the order of the batches."""
    return statistics.moving.range if statistics.moving.batches else (statistics.min, statistics.max)


@register_calibrator("mean-min-max")
def mean_min_max(statistics: TensorStatistics, options: ObserverOptions) -> Range:
    """The means over the samples of their extremes; where codes are symmetric, of their largest magnitudes.

    NNCF's default for activations: RangeEstimatorParametersSet.MEAN_MINMAX, with ABS_MAX for symmetric quantizers
    (nncf/quantization/algorithms/min_max/algorithm.py).
    """
    low, high, reach = statistics.mean_extremes()
    return (-reach, reach) if options.spec.is_symmetric(low) else (low, high)


@register_calibrator("percentile")
def percentile(statistics: TensorStatistics, options: ObserverOptions) -> Range:
    """The range that holds ``p`` percent of the elements."""
    return statistics.percentile_range(options.p)


# ---------------------------------------------------------------------- of least squared error
@register_calibrator("mse")
def mse(statistics: TensorStatistics, options: ObserverOptions) -> Range:
    """The range of least mean squared quantization error: both ends shrink together, then each moves alone."""
    x, counts = statistics.bins()
    low, high = min(statistics.min, 0.0), max(statistics.max, 0.0)

    def error(low: float, high: float) -> float:
        return squared_error(x, counts, options.spec.activation(low, high))

    best = min(_SHRINK, key=lambda f: error(f * low, f * high))
    low, high = best * low, best * high
    for reach in _REFINE:
        steps = 1 + np.linspace(-reach, reach, 9)
        if low:
            low = min((f * low for f in steps), key=lambda end: error(end, high))
        if high:
            high = min((f * high for f in steps), key=lambda end: error(low, end))
    return max(low, statistics.min), min(high, statistics.max)


@register_calibrator("histogram")
def histogram(statistics: TensorStatistics, options: ObserverOptions) -> Range:
    """PyTorch's HistogramObserver: drop bins at the ends while the squared error of 256 levels falls.

    torch/ao/quantization/observer.py, which takes it from NormMinimization of Caffe2: whatever codes there are.
    """
    low, high = statistics.min, statistics.max
    if low == high:
        return low, high
    first, last = shrunk_bins(equal_bins(statistics, PYTORCH_BINS))
    width = (high - low) / PYTORCH_BINS
    return low + width * first, low + width * (last + 1)


def equal_bins(statistics: TensorStatistics, bins: int) -> Floats:
    """float64[bins]: how many elements lie in each of equal bins from min to max; shares where bins overlap."""
    edges, cumulative = _distribution(statistics)
    at = np.linspace(statistics.min, statistics.max, bins + 1)
    return np.diff(np.interp(at, np.minimum(edges, statistics.max), cumulative))


def shrunk_bins(counts: Floats) -> tuple[int, int]:
    """The first and the last bin that HistogramObserver._non_linear_param_search keeps of ``counts``.

    Quantiles close in from both ends in small steps. At each, the end with more bins to lose moves to its quantile; the
    first move that raises the error is taken back, and ends the search. Quantiles are float32 numbers, as there: with few
    elements they are whole counts.
    """
    cumulative = np.cumsum(counts)
    total, below = float(cumulative[-1]), cumulative.tolist()
    alpha, beta, first, last, least = 0.0, 1.0, 0, len(counts) - 1, np.inf
    while alpha < beta:
        low, high = (float(np.float32(total * q)) for q in (alpha + _PYTORCH_STEP, beta - _PYTORCH_STEP))
        left = min(max(first, bisect_left(below, low)), last)
        right = max(min(last, bisect_right(below, high) - 1), first)
        if left - first > last - right:
            moved, alpha = (left, last), alpha + _PYTORCH_STEP
        else:
            moved, beta = (first, right), beta - _PYTORCH_STEP
        if moved == (first, last):
            continue
        error = _uniform_error(counts, *moved)
        if error > least:
            break
        (first, last), least = moved, error
    return first, last


def _uniform_error(counts: Floats, first: int, last: int) -> float:
    """HistogramObserver._compute_quantization_error, in bins: elements are spread evenly over each bin.

    Levels lie in the middles of equal parts of the kept bins. That a bin ending where it begins, in one level, is counted
    as two halves less one whole is PyTorch's own sum.
    """
    step = (last - first + 1) / _PYTORCH_LEVELS
    begin = np.arange(len(counts), dtype=np.float64) - first
    level_of_begin, level_of_end = (
        np.clip(np.floor(edge / step), 0, _PYTORCH_LEVELS - 1) for edge in (begin, begin + 1)
    )
    half = (step / 2) ** 3
    error = half - (begin - (level_of_begin + 0.5) * step) ** 3
    error += (level_of_end - level_of_begin - 1) * 2 * half
    error += (begin + 1 - (level_of_end + 0.5) * step) ** 3 + half
    return float(counts @ error) / 3


@register_calibrator("admm")
def admm(statistics: TensorStatistics, options: ObserverOptions) -> Range:
    """min ||x - s q||: alternate the codes q of a scale s and the best scale s = <x, q> / <q, q> of these codes.

    These are the projections of Leng et al. 2018, "Extremely low bit neural network: squeeze the last bit out with
    ADMM", section 3.2. zero_point stays that of the extremes. An alternation ends in a local minimum: the best of
    those from several first scales is taken.
    """
    x, counts = statistics.bins()
    qparams = options.spec.activation(statistics.min, statistics.max)
    (lowest, highest), zero_point = qparams.code_range, qparams.zero_point
    found: list[tuple[float, float]] = []
    for start in _STARTS:
        scale = qparams.scale[0] * start
        for _ in range(_ROUNDS):
            q = np.clip(np.rint(x / scale), lowest - zero_point, highest - zero_point)
            power = counts @ (q * q)
            nearer = float(counts @ (x * q) / power) if power else scale
            if abs(nearer - scale) <= 1e-7 * scale:
                break
            scale = nearer
        q = np.clip(np.rint(x / scale), lowest - zero_point, highest - zero_point)
        found.append((float(counts @ (x - scale * q) ** 2), scale))
    scale = min(found)[1]
    return scale * (lowest - zero_point), scale * (highest - zero_point)


def squared_error(x: Floats, counts: NDArray[np.int64], qparams: QParams) -> float:
    """sum counts (x - fake_quantize(x))^2, in float64."""
    scale, (lowest, highest) = qparams.scale[0], qparams.code_range
    q = np.rint(x * (1 / scale))
    np.clip(q, lowest - qparams.zero_point, highest - qparams.zero_point, out=q)
    q *= -scale
    q += x
    q *= q
    return float(counts @ q)


# ---------------------------------------------------------------------- of least divergence
@register_calibrator("kl")
def kl(statistics: TensorStatistics, options: ObserverOptions) -> Range:
    """The threshold of |x| whose codes diverge least from the clipped distribution, of KL_BINS bins.

    TensorRT's way (Migacz, "8-bit inference with TensorRT", GTC 2017): symmetric for data of both signs; for data of
    one sign all codes lie on that side.
    """
    signed = statistics.min < 0 < statistics.max
    largest = max(-statistics.min, statistics.max)
    half = signed or options.spec.is_symmetric(statistics.min)
    levels = 2 ** (options.spec.a_bits - (1 if half else 0))
    if largest == 0.0:
        return 0.0, 0.0
    threshold = largest * divergence_threshold(magnitudes(statistics, KL_BINS), levels) / KL_BINS
    return max(statistics.min, -threshold), min(statistics.max, threshold)


def magnitudes(statistics: TensorStatistics, bins: int) -> Floats:
    """float64[bins]: how many elements have |x| in each of equal bins up to the largest; shares where bins overlap."""
    largest = max(-statistics.min, statistics.max)
    edges, cumulative = _distribution(statistics)
    at = np.linspace(0, largest, bins + 1)
    return np.diff(np.interp(at, edges, cumulative) - np.interp(-at, edges, cumulative))


def _distribution(statistics: TensorStatistics) -> tuple[Floats, Floats]:
    """Ascending edges of the bins, none below min, and how many elements lie below each."""
    counts = statistics.counts
    edges = np.ldexp(statistics.first + np.arange(len(counts) + 1.0), statistics.exponent)
    return np.maximum(edges, statistics.min), np.concatenate([[0.0], np.cumsum(counts)])


def divergence_threshold(counts: Floats, levels: int) -> int:
    """How many of the leading bins of ``counts`` are kept for the least KL divergence, at least ``levels``.

    Keeping i bins: P = counts[:i], what lies behind added to the last; Q = the mean over the non-empty bins of each of
    ``levels`` equal runs. Bin 0 counts as bin 1 does: the zeros behind a ReLU are exact in every scale. As
    pytorch-quantization does; but all i at once, with sums of runs taken from cumulative sums.
    """
    c = np.where(np.asarray(counts) < 1e-9, 0.0, counts)
    c[0] = c[1]
    kept = np.arange(min(levels, len(c)), len(c) + 1)
    total, used, entropy = (
        np.concatenate([[0.0], np.cumsum(a)])
        for a in (c, (c > 0).astype(np.float64), c * np.log(np.where(c > 0, c, 1.0)))
    )
    last, tail = c[kept - 1], total[-1] - total[kept]
    edges = np.ceil(np.arange(levels + 1) * kept[:, None] / levels).astype(np.int64)
    mass, share = np.diff(total[edges], axis=1), np.diff(used[edges], axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = np.log(np.where(mass > 0, mass / share, 1.0))
        # sum p log p - sum p log q, both unnormalized, with the last bin of P replaced
        cross = (mass * mean).sum(axis=1) + tail * mean[:, -1]
        clipped = last + tail
        own = entropy[kept] + np.where(
            clipped > 0, clipped * np.log(np.where(clipped > 0, clipped, 1.0)), 0.0
        )
        own -= np.where(last > 0, last * np.log(np.where(last > 0, last, 1.0)), 0.0)
        p_sum, q_sum = total[-1], total[kept]
        divergence = (own - cross) / p_sum - np.log(p_sum) + np.log(q_sum)
    divergence[(tail > 0) & (last == 0) | (q_sum == 0)] = np.inf  # Q has nothing where P has what was clipped
    if not np.isfinite(divergence).any():
        return len(c)
    return int(kept[len(kept) - 1 - np.argmin(divergence[::-1])])
