"""TensorStatistics: the same from any cut of the data, percentiles against numpy's, extreme numbers."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from qcc.passes.statistics import BINS, SMALLEST_EXPONENT, TensorStatistics

Floats = NDArray[np.float32]
LARGEST = float(np.finfo(np.float32).max)


def add(statistics: TensorStatistics, x: Floats) -> None:
    statistics.extend(x)
    statistics.tally(x)


def collected(*batches: Floats) -> TensorStatistics:
    statistics = TensorStatistics()
    for batch in batches:
        add(statistics, batch)
    return statistics


def facts(statistics: TensorStatistics) -> tuple[object, ...]:
    return (
        statistics.count,
        statistics.min,
        statistics.max,
        statistics.exponent,
        statistics.first,
        statistics.counts.tolist(),
    )


def width(statistics: TensorStatistics) -> float:
    return float(2.0**statistics.exponent)


@st.composite
def arrays(draw: st.DrawFn) -> Floats:
    """Numbers of one size, of every size, or of few values, shifted or not."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    size = draw(st.integers(1, 200))
    kind = draw(st.integers(0, 4))
    x = rng.normal(size=size)
    if kind == 1:
        x *= 2.0 ** rng.uniform(-148, 126, size=size)
    elif kind == 2:
        x = rng.choice([0.0, 1.0, -1.0, 1023.9, 1024.0], size=size)
    elif kind == 3:
        x = 1000 + x * draw(st.sampled_from([1e-3, 1.0, 100.0]))
    elif kind == 4:
        x = -np.abs(x) * draw(st.sampled_from([1e-42, 1e-38, 1e-6, 1e6, 1e30]))
    return x.astype(np.float32)


@settings(deadline=None, max_examples=150)
@given(arrays(), st.randoms(use_true_random=False), st.lists(st.integers(1, 199), max_size=5))
def test_the_cut_into_batches_and_their_order_do_not_matter(
    x: Floats, random: object, cuts: list[int]
) -> None:
    shuffled = x.copy()
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    whole = facts(collected(x))
    assert facts(collected(*np.split(shuffled, sorted(c for c in cuts if c < x.size)))) == whole
    assert facts(collected(*shuffled)) == whole


@settings(deadline=None, max_examples=150)
@given(arrays(), arrays(), arrays())
def test_merge_is_the_statistics_of_the_union(a: Floats, b: Floats, c: Floats) -> None:
    union = facts(collected(np.concatenate([a, b, c])))
    left = collected(a)
    left.merge(collected(b))
    left.merge(collected(c))
    right = collected(c)
    inner = collected(b)
    inner.merge(collected(a))
    right.merge(inner)
    assert facts(left) == union
    assert facts(right) == union


def test_merge_with_nothing_changes_nothing() -> None:
    x = np.arange(5, dtype=np.float32)
    statistics, empty = collected(x), TensorStatistics()
    statistics.merge(TensorStatistics())
    empty.merge(statistics)
    assert facts(statistics) == facts(empty) == facts(collected(x))


def test_a_boundary_between_widths_is_the_same_from_both_sides() -> None:
    """1023.9 alone would have bins half as wide as 1024 alone."""
    a, b = np.full(3, 1023.9, np.float32), np.full(3, 1024.0, np.float32)
    assert facts(collected(a, b)) == facts(collected(b, a)) == facts(collected(np.concatenate([a, b])))


def test_small_negative_numbers_stay_below_zero_in_wide_bins() -> None:
    """-1e-38 in bins of 2^80 is bin -1, although its quotient underflows."""
    tiny, huge = np.full(3, -1e-38, np.float32), np.full(1, 1e30, np.float32)
    first, last = collected(tiny, huge), collected(huge, tiny)
    assert facts(first) == facts(last)
    assert first.first == -1
    assert first.counts[0] == 3


@settings(deadline=None, max_examples=200)
@given(arrays(), st.sampled_from([100.0, 99.99, 99.0, 90.0, 50.0, 1.0]))
@example(np.arange(1000, dtype=np.float32), 99.0)
def test_percentiles_are_within_one_bin_of_numpy(x: Floats, percent: float) -> None:
    statistics = collected(x)
    low, high = statistics.percentile_range(percent)
    tail = x.size * (100 - percent) / 200
    ordered = np.sort(x.astype(np.float64))
    exact_low, exact_high = ordered[int(tail)], ordered[max(0, int(np.ceil(x.size - tail)) - 1)]
    assert exact_low - width(statistics) <= low <= exact_low
    assert exact_high <= high <= exact_high + width(statistics)
    assert statistics.min <= low
    assert high <= statistics.max


@pytest.mark.parametrize("percent", [99.9, 99.0, 80.0])
def test_percentiles_of_much_data_against_numpy_percentile(percent: float) -> None:
    x = np.random.default_rng(5).uniform(-3, 5, size=100_000).astype(np.float32)  # no gaps to interpolate
    statistics = collected(*np.split(x, 10))
    low, high = np.percentile(x, [(100 - percent) / 2, (100 + percent) / 2])
    assert statistics.percentile_range(percent) == pytest.approx((low, high), abs=2 * width(statistics))


def test_a_percentile_of_100_is_the_range() -> None:
    x = np.random.default_rng(6).normal(size=1000).astype(np.float32)
    assert collected(x).percentile_range(100.0) == (float(x.min()), float(x.max()))


EXTREMES = {
    "zeros": [0.0] * 9,
    "one value": [0.1] * 7,
    "one negative value": [-3.0],
    "denormals": [1e-45, -1e-45, 3e-42],
    "large": [1e30, -1e30, 2.5],
    "largest": [LARGEST, -LARGEST, 0.0],
    "of every size": [1e-45, 1e-30, 1e-10, 1.0, 1e10, LARGEST],
    "negative only": [-5.0, -4.0, -4.5],
    "far from zero": [1e6, 1e6 + 1, 1e6 + 0.5],
    "neighbours": [16777215.0, 16777216.0],
}


@pytest.mark.parametrize("name", EXTREMES)
def test_extremes(name: str) -> None:
    x = np.array(EXTREMES[name], np.float32)
    statistics = collected(x)
    assert (statistics.count, statistics.min, statistics.max) == (x.size, x.min(), x.max())
    assert statistics.counts.sum() == x.size
    assert statistics.percentile_range(100.0) == (float(x.min()), float(x.max()))
    low, high = statistics.percentile_range(50.0)
    assert statistics.min <= low <= high <= statistics.max


def test_zeros_do_not_choose_the_width() -> None:
    zeros, small = np.zeros(4, np.float32), np.array([1e-7, -2e-7], np.float32)
    assert collected(zeros).exponent == SMALLEST_EXPONENT
    assert facts(collected(zeros, small)) == facts(collected(small, zeros))


def test_bin_indices_stay_far_from_32_bits() -> None:
    """Data far from zero: indices count from zero, not from the smallest element."""
    for offset in (1e3, 1e9, 1e38):
        x = np.linspace(offset, np.nextafter(np.float32(offset), np.float32(np.inf)), 5).astype(np.float32)
        statistics = collected(x)
        assert abs(statistics.first) < 4 * BINS
        assert statistics.counts.sum() == x.size


def test_memory_is_constant() -> None:
    statistics, rng = TensorStatistics(), np.random.default_rng(8)
    for exponent in range(-40, 38):
        add(statistics, (rng.normal(size=50) * 10.0**exponent).astype(np.float32))
        assert statistics.counts.size == BINS
    assert statistics.counts.sum() == statistics.count == 78 * 50


def test_nothing_is_no_data() -> None:
    statistics = collected(np.zeros((0, 3), np.float32))
    assert statistics.count == 0
    assert statistics.counts.size == 0


def test_without_histogram_only_the_range_is_kept() -> None:
    statistics = TensorStatistics()
    statistics.extend(np.array([3.0, -1.0], np.float32))
    other = TensorStatistics()
    other.extend(np.array([7.0], np.float32))
    statistics.merge(other)
    assert (statistics.count, statistics.min, statistics.max) == (3, -1.0, 7.0)
    assert statistics.counts.size == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused_in_every_batch(bad: float) -> None:
    statistics = collected(np.ones(3, np.float32))
    before = facts(statistics)
    with pytest.raises(ValueError, match="the elements are not finite: they span"):
        add(statistics, np.array([1.0, bad, 2.0], np.float32))
    assert facts(statistics) == before


def test_every_element_counts_where_asked() -> None:
    x = np.random.default_rng(3).normal(size=(2, 5000)).astype(np.float32)
    some, all_of_them = TensorStatistics(), TensorStatistics()
    some.tally(x)
    all_of_them.tally(x, every=True)
    assert some.counts.sum() < x.size == all_of_them.counts.sum()
