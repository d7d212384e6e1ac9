"""Closed forms of quantization errors: published values, numerical integrals, and what analyze-mse finds in graphs."""

import re
from itertools import pairwise
from math import erfc, exp, inf, pi, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from quantized_nets import Net, run_pass

from qcc.ir import codebook
from qcc.ir.errors import PassError
from qcc.passes.mse_prediction import Distribution, measured, predicted

# Max, "Quantizing for minimum distortion", 1960, table II: uniform quantizers of a Gaussian with sigma 1:
# levels, step, mean squared error
MAX_UNIFORM = ((8, 0.5860, 0.03744), (16, 0.3352, 0.01154))
FAMILIES = ("gaussian", "laplace")


def midrise(count: int, step: float) -> np.ndarray:
    return (np.arange(count) - (count - 1) / 2) * step


def density(d: Distribution, x: np.ndarray) -> np.ndarray:
    """Of the uncut distribution, from its definition."""
    t = (x - d.mean) / d.spread
    if d.family == "gaussian":
        return np.exp(-t * t / 2) / (d.spread * sqrt(2 * pi))
    return np.exp(-np.abs(t)) / (2 * d.spread)


def exact_mse(d: Distribution, levels: np.ndarray) -> float:
    """The integral of (x - nearest(x))^2 f(x) on a fine grid."""
    x = np.linspace(d.mean - 40 * d.spread, d.mean + 40 * d.spread, 4_000_001)
    return float(np.sum((x - codebook.nearest(x, levels)) ** 2 * density(d, x)) * (x[1] - x[0]))


@pytest.mark.parametrize(("count", "step", "mse"), MAX_UNIFORM)
def test_uniform_quantizers_of_a_gaussian_are_those_of_max(count: int, step: float, mse: float) -> None:
    gaussian = Distribution("gaussian", 0.0, 1.0)
    assert exact_mse(gaussian, midrise(count, step)) == pytest.approx(mse, rel=1e-3)
    assert predicted(gaussian, midrise(count, step)).total == pytest.approx(mse, rel=0.02)


@pytest.mark.parametrize(("count", "step", "mse"), MAX_UNIFORM)
def test_the_closed_form_has_its_least_where_max_has(count: int, step: float, mse: float) -> None:
    gaussian = Distribution("gaussian", 0.0, 1.0)
    steps = step * np.linspace(0.7, 1.4, 141)
    best = min(steps, key=lambda s: predicted(gaussian, midrise(count, s)).total)
    assert best == pytest.approx(step, rel=0.03)


def test_uniform_noise_has_a_twelfth_of_the_squared_step() -> None:
    x, scale = np.random.default_rng(0).uniform(-1, 1, 1_000_000), 2 / 255
    levels = scale * np.arange(-128, 129)
    found = measured(x, codebook.nearest(x, levels), levels[0], levels[-1])
    assert found.total == pytest.approx(scale**2 / 12, rel=5e-3)
    assert found.clipping == 0


@pytest.mark.parametrize("family", FAMILIES)
@given(st.floats(-1, 1), st.floats(0.1, 3), st.floats(-3, 3), st.floats(0.1, 3), st.floats(-0.2, 2))
def test_overload_is_the_integral_of_the_tails(
    family: str, mean: float, spread: float, low: float, width: float, reach: float
) -> None:
    """Of data that end ``reach`` behind the ends of the levels, or before them; and of data that do not end."""
    low, high = mean + spread * low, mean + spread * (low + width)
    ends = (low - reach * spread, high + reach * spread)
    for cut in ((-inf, inf), ends):
        if cut[0] >= cut[1]:
            continue
        d = Distribution(family, mean, spread, low=cut[0], high=cut[1])
        x = np.linspace(*np.clip(cut, mean - 40 * spread, mean + 40 * spread), 200_001)
        f = density(d, x)
        f[[0, -1]] /= 2
        beyond = np.maximum(low - x, 0) ** 2 + np.maximum(x - high, 0) ** 2
        assert d.overload(low, high) == pytest.approx(
            float((beyond * f).sum() / f.sum()), rel=1e-3, abs=1e-6 * spread**2
        )


def test_tails_in_closed_form_by_hand() -> None:
    """Laplace: 2 b^2 exp(-a / b) (Banner et al. 2019, equation 5); Gaussian: 2 ((1 + a^2) Q(a) - a phi(a))."""
    assert Distribution("laplace", 0.0, 0.5).overload(-2, 2) == pytest.approx(2 * 0.25 * exp(-4))
    q, phi = erfc(2 / sqrt(2)) / 2, exp(-2) / sqrt(2 * pi)
    assert Distribution("gaussian", 0.0, 1.0).overload(-2, 2) == pytest.approx(2 * (5 * q - 2 * phi))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("cut", [(-inf, inf), (-0.5, 2.0), (0.0, inf), (-inf, 0.0)])
def test_mass_is_that_of_the_cut_distribution(family: str, cut: tuple[float, float]) -> None:
    d = Distribution(family, 0.2, 0.7, zeros=0.25, low=cut[0], high=cut[1])
    x = np.linspace(-30, 30, 6_000_001)
    f = density(d, x) * ((x >= cut[0]) & (x <= cut[1]))
    f *= 0.75 / (f.sum() * (x[1] - x[0]))
    levels = np.array([-4, -1, 0, 0.3, 1, 5.0])
    expected = [f[(x >= a) & (x < b)].sum() * (x[1] - x[0]) for a, b in pairwise(levels)]
    np.testing.assert_allclose(d.mass(levels), expected, atol=1e-5)


@pytest.mark.parametrize("code", ["linear", "sqrt", "log2"])
@pytest.mark.parametrize("rounding", codebook.ROUNDINGS)
def test_every_code_and_rounding_is_predicted(code: str, rounding: str) -> None:
    """Bennett's integral over unequal gaps, and twice that for roundings whose error does not end with a gap's half."""
    levels = codebook.levels_of(code, 6 if code != "log2" else 4, True)
    x = np.clip(np.random.default_rng(0).normal(0, 0.3, size=(100, 4000)), -1, 1)
    if rounding == "nearest":
        rounded = codebook.nearest(x, levels)
    elif rounding == "stochastic":
        rounded = codebook.stochastic(x, levels, codebook.uniform_noise(x, 1))
    else:
        rounded = codebook.error_feedback(x, levels)
    found, expected = measured(x, rounded, -1, 1), predicted(Distribution.fit(x), levels, rounding)
    # log2: the density falls within the widest gap; and what is fed back passes from wide gaps into narrow ones
    tolerance = 0.1 if code != "log2" else 0.5 if rounding == "error-feedback" else 0.2
    assert expected.total == pytest.approx(found.total, rel=tolerance)


def test_fit_recognizes_families_and_zeros() -> None:
    rng = np.random.default_rng(0)
    gaussian, laplace = (
        Distribution.fit(rng.normal(1, 2, 50_000)),
        Distribution.fit(rng.laplace(1, 2, 50_000)),
    )
    for found, family in ((gaussian, "gaussian"), (laplace, "laplace")):
        assert found.family == family
        assert (found.mean, found.spread) == pytest.approx((1, 2), rel=0.03)
    relu = Distribution.fit(np.maximum(rng.normal(0, 2, 50_000), 0))
    assert (relu.family, relu.mean, relu.low) == ("gaussian", 0.0, 0.0)
    assert (relu.zeros, relu.spread) == pytest.approx((0.5, 2), rel=0.03)
    nothing = Distribution.fit(np.zeros(10))
    assert predicted(nothing, np.arange(-2.0, 3)).total == 0
    constant = Distribution.fit(np.full(10, 0.7))
    assert np.isfinite(predicted(constant, np.arange(-2.0, 3)).total)


def found_in(reason: str) -> tuple[float, float]:
    numbers = re.search(r"measured (\S+) .*closed form (\S+) ", reason)
    assert numbers is not None
    return float(numbers[1]), float(numbers[2])


def test_notes_of_a_graph_agree_with_a_direct_computation() -> None:
    net = Net(1, 12, 12, 3)
    hidden = net.relu(net.conv(net.x, 16, 3, name="first"), name="middle")
    graph, samples = net.finish(net.conv(hidden, 64, 3, name="last")), net.samples(8)
    for text in ("fuse-epilogues", "calibrate", "choose-qparams"):
        graph, result = run_pass(graph, text, calibration=[samples])
    x_qparams = graph.inputs[0].type.qparams
    graph, result = run_pass(graph, "analyze-mse", calibration=[samples])
    assert not result.changed
    notes = {n.node: found_in(n.reason) for n in result.notes}
    assert sorted(notes) == ["first weight", "last", "last weight", "middle", "x"]
    scale, zero_point = x_qparams.scale[0], x_qparams.zero_point
    q = np.clip(np.rint(samples["x"] / scale) + zero_point, -128, 127)
    error = float(np.mean((samples["x"] - scale * (q - zero_point)) ** 2))
    assert notes["x"][0] == pytest.approx(error, rel=1e-2)
    for name in ("x", "middle", "last", "last weight"):
        assert notes[name][1] == pytest.approx(notes[name][0], rel=0.1), name

    graph, _ = run_pass(graph, "simulate-codes{code=sqrt values=last}")
    graph, result = run_pass(graph, 'analyze-mse{values="last*"}', calibration=[samples])
    notes = {n.node: found_in(n.reason) for n in result.notes}
    assert sorted(notes) == ["last", "last weight"]
    assert notes["last weight"][1] == pytest.approx(notes["last weight"][0], rel=0.1)


def test_refusals() -> None:
    net = Net(1, 4, 4, 3)
    graph, samples = net.finish(net.conv(net.x, 2, name="first")), net.samples(2)
    graph, _ = run_pass(graph, "calibrate", calibration=[samples])
    with pytest.raises(PassError, match=r"no tensor that matches '\*' has a code"):
        run_pass(graph, "analyze-mse", calibration=[samples])
    graph, _ = run_pass(graph, "choose-qparams")
    with pytest.raises(PassError, match="analyze-mse has no samples"):
        run_pass(graph, "analyze-mse")
