"""Observers against closed forms, brute force, onnxruntime's calibrators and slow direct definitions."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnxruntime.quantization.calibrate import HistogramCollector

from qcc.ir.errors import PassError
from qcc.ir.fixedpoint import fake_quantize
from qcc.ir.qparams import QParams
from qcc.ir.qspec import QSpec
from qcc.passes.observers import (
    CALIBRATORS,
    DefaultOptions,
    divergence_threshold,
    magnitudes,
    ranges_of,
    squared_error,
)
from qcc.passes.statistics import AVERAGING, MovingRange, TensorStatistics

Floats = NDArray[np.float32]
COUNT = 200_000
DRAW: dict[str, Callable[[np.random.Generator], NDArray[np.float64]]] = {
    "gauss": lambda rng: rng.normal(size=COUNT),
    "laplace": lambda rng: rng.laplace(size=COUNT),
    "uniform": lambda rng: rng.uniform(-1, 3, size=COUNT),
    "relu": lambda rng: np.maximum(rng.normal(size=COUNT), 0),
    "outlier": lambda rng: np.append(rng.normal(size=COUNT), 100.0),
}


def drawn(name: str) -> Floats:
    return DRAW[name](np.random.default_rng(11)).astype(np.float32)


def statistics_of(*batches: Floats) -> TensorStatistics:
    statistics = TensorStatistics()
    for x in batches:
        statistics.extend(x)
        statistics.tally(x)
        statistics.end_batch()
    return statistics


def options(**spec: object) -> DefaultOptions:
    return DefaultOptions(spec=QSpec(**spec))  # type: ignore[arg-type]


def true_error(x: Floats, qparams: QParams) -> float:
    return float(np.mean((x - fake_quantize(x, qparams).astype(np.float64)) ** 2))


# ---------------------------------------------------------------------- all of them
@pytest.mark.parametrize("name", sorted(CALIBRATORS))
@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("symmetry", ["asymmetric", "symmetric", "by-sign"])
@pytest.mark.parametrize(
    "data", [[0.0], [0.0, 0.0], [3.0], [-2.0, -2.0], [1e-30, -1e-40], [5.0, 6.0, 1e30], [-1.0, 0.0, 2.0]]
)
def test_a_range_is_finite_holds_zero_and_serves_a_quantizer(
    name: str, bits: int, symmetry: str, data: list[float]
) -> None:
    low, high = ranges_of(
        statistics_of(np.array(data, np.float32)), name, options(a_bits=bits, activations=symmetry)
    )
    assert np.isfinite([low, high]).all()
    assert low <= 0.0 <= high
    QSpec(a_bits=bits, activations=symmetry).activation(low, high)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", sorted(CALIBRATORS))
@pytest.mark.parametrize("sign", [-1, 1])
def test_a_one_sided_range_ends_at_zero(name: str, sign: int) -> None:
    x = np.abs(drawn("gauss")) + np.float32(2)
    low, high = ranges_of(statistics_of(np.float32(sign) * x), name)
    assert (low if sign > 0 else high) == 0.0
    assert 2 < (high if sign > 0 else -low) < 1.1 * x.max()


def test_an_unknown_name_is_an_error() -> None:
    with pytest.raises(PassError) as caught:
        ranges_of(statistics_of(np.ones(1, np.float32)), "best")
    assert caught.value.message == "unknown observer 'best'"
    assert caught.value.hint == f"known observers: {', '.join(sorted(CALIBRATORS))}"


def test_min_max_is_the_extremes() -> None:
    x = drawn("laplace")
    assert ranges_of(statistics_of(*np.split(x, 4)), "min-max") == (float(x.min()), float(x.max()))


# ---------------------------------------------------------------------- moving average
def test_a_moving_average_is_the_recurrence_over_batches() -> None:
    batches = np.split(drawn("gauss"), 20)
    low, high = float(batches[0].min()), float(batches[0].max())
    for x in batches[1:]:
        low += AVERAGING * (float(x.min()) - low)
        high += AVERAGING * (float(x.max()) - high)
    assert ranges_of(statistics_of(*batches), "moving-average") == pytest.approx((low, high), rel=1e-12)


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(-9, 0), st.floats(0, 9)), min_size=1, max_size=9), st.data())
def test_runs_of_batches_compose(extremes: list[tuple[float, float]], data: st.DataObject) -> None:
    runs = [MovingRange.of_batch(*e) for e in extremes]
    whole = MovingRange()
    for run in runs:
        whole = whole.then(run)
    cut = data.draw(st.integers(0, len(runs)))
    parts = [MovingRange(), MovingRange()]
    for index, run in enumerate(runs):
        parts[index >= cut] = parts[index >= cut].then(run)
    joined = parts[0].then(parts[1])
    assert joined.batches == whole.batches
    assert joined.range == pytest.approx(whole.range, abs=1e-12)


def test_pieces_of_a_batch_are_one_batch() -> None:
    pieces = TensorStatistics()
    for x in np.split(drawn("gauss"), 5):
        pieces.extend(x)
    pieces.end_batch()
    assert pieces.moving == statistics_of(drawn("gauss")).moving


# ---------------------------------------------------------------------- percentile
@pytest.mark.parametrize("percent", [99.99, 99.9, 99.0])
def test_percentiles_agree_with_onnxruntime(percent: float) -> None:
    x, bins = drawn("laplace"), 4096
    collector = HistogramCollector("percentile", False, bins, 128, percent, "")
    collector.collect_value({"x": [x]})
    low, high = (float(v) for v in collector.compute_percentile()["x"][:2])
    width = 2 * float(np.abs(x).max()) / bins
    found = ranges_of(statistics_of(x), "percentile", DefaultOptions(p=percent))
    assert found == pytest.approx((low, high), abs=1.5 * width)


# ---------------------------------------------------------------------- squared error
@pytest.mark.parametrize("bits", [2, 3, 4, 6, 8])
@pytest.mark.parametrize("name", DRAW)
def test_the_histogram_predicts_the_squared_error(name: str, bits: int) -> None:
    x = drawn(name)
    statistics, qparams = statistics_of(x), QSpec(a_bits=bits).activation(float(x.min()), float(x.max()))
    centres, counts = statistics.bins()
    assert squared_error(centres, counts, qparams) / len(x) == pytest.approx(true_error(x, qparams), rel=0.03)


@pytest.mark.parametrize("bits", [2, 3, 4, 6, 8])
@pytest.mark.parametrize("name", DRAW)
@pytest.mark.parametrize("symmetry", ["asymmetric", "symmetric"])
def test_mse_is_as_good_as_brute_force(name: str, bits: int, symmetry: str) -> None:
    """Both ends on a grid of their own, the error on the data itself."""
    x = drawn(name)[-5001:]
    spec = QSpec(a_bits=bits, activations=symmetry)  # type: ignore[arg-type]
    low, high = min(float(x.min()), 0.0), max(float(x.max()), 0.0)
    shares = np.geomspace(0.02, 1, 25)
    ends = [(a * low, b * high) for a in (shares if low else [0.0]) for b in shares]
    each = np.ones(len(x), np.int64)
    least = min(squared_error(x.astype(np.float64), each, spec.activation(*e)) for e in ends)
    found = spec.activation(*ranges_of(statistics_of(x), "mse", DefaultOptions(spec=spec)))
    assert squared_error(x.astype(np.float64), each, found) <= 1.03 * least


@pytest.mark.parametrize(
    ("bits", "step"), [(2, 0.9957), (3, 0.5860), (4, 0.3352), (5, 0.1881)]
)  # Max 1960, "Quantizing for minimum distortion", table II: uniform quantizers of a Gaussian of variance 1
def test_mse_finds_the_step_of_max_for_a_gaussian(bits: int, step: float) -> None:
    """With 0 exact, as here, the levels lie half a step off Max's, which costs little where there are many."""
    low, high = ranges_of(statistics_of(drawn("gauss")), "mse", options(a_bits=bits))
    assert (high - low) / (2**bits - 1) == pytest.approx(step, rel=0.12 if bits == 2 else 0.05)


@pytest.mark.parametrize(("bits", "clip"), [(3, 3.89), (4, 5.03)])
def test_mse_beside_aciq_for_a_laplacian(bits: int, clip: float) -> None:
    """Banner et al. 2019: the clip at a b minimises 2 b^2 exp(-a) + a^2 b^2 / (3 4^bits), a high-resolution estimate."""
    a = np.linspace(1, 9, 8001)
    estimate = 2 * np.exp(-a) + a**2 / (3 * 4**bits)
    assert a[estimate.argmin()] == pytest.approx(clip, abs=0.01)
    x = drawn("laplace")
    spec = QSpec(a_bits=bits)
    # its 2^bits cells of width 2 a / 2^bits have their outer levels half a cell inside the clip
    levels = clip * (1 - 2.0**-bits)
    theirs = true_error(x, spec.activation(-levels, levels))
    ours = true_error(x, spec.activation(*ranges_of(statistics_of(x), "mse", DefaultOptions(spec=spec))))
    assert ours <= theirs
    assert ours == pytest.approx(theirs, rel=0.15)
    assert ours == pytest.approx(float(estimate.min()), rel=0.35)


@pytest.mark.parametrize("bits", [2, 4, 6, 8])
@pytest.mark.parametrize("name", DRAW)
def test_admm_is_as_good_as_the_best_of_all_scales(name: str, bits: int) -> None:
    x, spec = drawn(name), QSpec(a_bits=bits)
    statistics = statistics_of(x)
    centres, counts = statistics.bins()
    first = spec.activation(statistics.min, statistics.max)
    (lowest, highest), zero_point = first.code_range, first.zero_point

    def error(scale: float) -> float:
        return squared_error(centres, counts, QParams((scale,), zero_point, codes=(lowest, highest)))

    least = min(error(first.scale[0] * f) for f in np.geomspace(1 / 16, 1.1, 400))
    low, high = ranges_of(statistics, "admm", DefaultOptions(spec=spec))
    found = spec.activation(low, high)
    assert found.zero_point == zero_point
    assert squared_error(centres, counts, found) <= 1.04 * least


def test_admm_leaves_a_scale_that_its_codes_confirm() -> None:
    """A fixed point: the best scale of the codes of the scale found is that scale."""
    statistics = statistics_of(drawn("laplace"))
    centres, counts = statistics.bins()
    found = QSpec(a_bits=3).activation(*ranges_of(statistics, "admm", options(a_bits=3)))
    low, high = (code - found.zero_point for code in found.code_range)
    q = np.clip(np.rint(centres / found.scale[0]), low, high)
    assert counts @ (centres * q) / (counts @ (q * q)) == pytest.approx(found.scale[0], rel=1e-3)


# ---------------------------------------------------------------------- divergence
def slow_threshold(counts: NDArray[np.float64], levels: int) -> NDArray[np.float64]:
    """The divergence for each number of kept bins, as pytorch-quantization's entropy calibrator defines it."""
    c = counts.astype(np.float64).copy()
    c[0] = c[1]
    divergences = []
    for kept in range(levels, len(c) + 1):
        run = np.digitize(np.arange(kept), np.linspace(0, kept, levels + 1)) - 1
        q = np.zeros(kept)
        for level in range(levels):
            members = (run == level) & (c[:kept] > 0)
            if members.any():
                q[members] = c[:kept][members].sum() / members.sum()
        p = c[:kept].copy()
        p[-1] += c[kept:].sum()
        if q.sum() == 0 or ((p > 0) & (q == 0)).any():
            divergences.append(np.inf)
            continue
        p, q = p / p.sum(), q / q.sum()
        divergences.append(float((p[p > 0] * np.log(p[p > 0] / q[p > 0])).sum()))
    return np.array(divergences)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.sampled_from([4, 8, 16]), st.integers(20, 90), st.booleans())
def test_the_divergence_of_all_thresholds_at_once(seed: int, levels: int, bins: int, holes: bool) -> None:
    rng = np.random.default_rng(seed)
    counts = np.floor(1000 * rng.exponential(size=bins) * np.exp(-np.arange(bins) / rng.uniform(3, 40)))
    if holes:
        counts *= rng.integers(0, 2, size=bins)
    slow = slow_threshold(counts, levels)
    kept = divergence_threshold(counts, levels)
    if np.isfinite(slow).any():
        assert slow[kept - levels] == pytest.approx(slow.min(), abs=1e-9)
    else:
        assert kept == bins


@pytest.mark.parametrize("name", ["gauss", "laplace"])
def test_kl_agrees_with_onnxruntime(name: str) -> None:
    """Its entropy calibrator on the same data, at 6 bits, as it is slow: 32 levels of each sign.

    It rounds the width of its runs of bins down, so that its thresholds lie on either side of ours.
    """
    x, bins = drawn(name), 513
    collector = HistogramCollector("entropy", True, bins, 63, 99.99, "")
    collector.collect_value({"x": [x]})
    theirs = float(collector.get_entropy_threshold(collector.histogram_dict["x"], 63)[1])
    largest = float(np.abs(x).max())
    ours = largest * divergence_threshold(magnitudes(statistics_of(x), bins // 2), 32) / (bins // 2)
    assert ours == pytest.approx(theirs, rel=0.2)


def test_magnitudes_are_the_folded_histogram() -> None:
    x = drawn("gauss")
    found = magnitudes(statistics_of(x), 64)
    exact = np.histogram(np.abs(x), 64, (0, float(np.abs(x).max())))[0]
    assert found.sum() == pytest.approx(len(x))
    np.testing.assert_allclose(found, exact, atol=0.01 * exact.max())


def test_kl_clips_what_is_rare_and_keeps_what_is_uniform() -> None:
    assert ranges_of(statistics_of(drawn("outlier")), "kl")[1] < 10
    x = drawn("uniform")
    assert ranges_of(statistics_of(x), "kl") == pytest.approx((float(x.min()), float(x.max())), rel=0.01)
