"""Simulated codes: levels against their definitions, roundings against brute force, bounds and closed forms."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from qcc.ir import codebook
from qcc.ir.errors import VerifyError
from qcc.ir.ops.simulated import SimulatedQuant
from qcc.ir.types import f32

CODES = sorted(codebook.EXPANDERS)
codes, bits, signs = st.sampled_from(CODES), st.integers(2, 8), st.booleans()
vectors = arrays(np.float64, st.integers(1, 60), elements=st.floats(-1.5, 1.5))


def test_levels_of_three_bits() -> None:
    np.testing.assert_allclose(codebook.levels_of("linear", 3, True), np.arange(-3, 4) / 3)
    np.testing.assert_allclose(codebook.levels_of("sqrt", 3, True) * 9, [-9, -4, -1, 0, 1, 4, 9])
    np.testing.assert_allclose(codebook.levels_of("log2", 3, True), [-1, -0.5, -0.25, 0, 0.25, 0.5, 1])
    np.testing.assert_allclose(codebook.levels_of("log2", 2, False), [0, 0.25, 0.5, 1])


@given(codes, bits, signs)
def test_levels_ascend_and_hold_zero_and_the_ends(code: str, bits: int, signed: bool) -> None:
    levels = codebook.levels_of(code, bits, signed)
    assert len(levels) == 2**bits - int(signed)
    assert (np.diff(levels) > 0).all()
    assert 0.0 in levels
    assert levels[-1] == 1
    assert levels[0] == (-1 if signed else 0)


@given(codes, bits, signs, vectors)
def test_nearest_is_nearest(code: str, bits: int, signed: bool, x: np.ndarray) -> None:
    levels = codebook.levels_of(code, bits, signed)
    distances = np.abs(x[:, None] - levels)
    np.testing.assert_allclose(np.abs(codebook.nearest(x, levels) - x), distances.min(axis=1), atol=1e-15)


@given(codes, bits, signs, vectors, st.integers(0, 2**70))
def test_stochastic_takes_a_neighbour(code: str, bits: int, signed: bool, x: np.ndarray, seed: int) -> None:
    levels = codebook.levels_of(code, bits, signed)
    noise = codebook.uniform_noise(x, seed)
    assert ((noise >= 0) & (noise < 1)).all()
    clipped = np.clip(x, levels[0], levels[-1])
    result = codebook.stochastic(x, levels, noise)
    assert np.isin(result, levels).all()
    for a, b in zip(clipped, result, strict=True):
        between = (levels > min(a, b)) & (levels < max(a, b))
        assert not between.any()
        assert a == b or a not in levels


@pytest.mark.parametrize("code", CODES)
def test_stochastic_rounding_has_no_bias(code: str) -> None:
    """The mean over seeds is x to 5 sigma; the variance is (x - lower) (upper - x)."""
    levels, seeds = codebook.levels_of(code, 4, True), 4000
    x = np.random.default_rng(0).uniform(-1, 1, size=(1, 200))
    results = np.stack([codebook.stochastic(x, levels, codebook.uniform_noise(x, s)) for s in range(seeds)])
    lower = np.array([levels[levels <= v].max() for v in x.ravel()])
    upper = np.array([levels[levels > v].min() for v in x.ravel()])
    variance = ((x - lower) * (upper - x)).ravel()
    deviation = np.abs(results.mean(axis=0).ravel() - x.ravel())
    assert (deviation <= 5 * np.sqrt(variance / seeds)).all()
    np.testing.assert_allclose(results.var(axis=0).ravel().mean(), variance.mean(), rtol=0.02)


def test_noise_is_uniform_and_does_not_see_the_stacking_of_samples() -> None:
    x = np.random.default_rng(0).normal(size=(8, 50, 50)).astype(np.float32)
    noise = codebook.uniform_noise(x, 1)
    counts = np.histogram(noise, bins=20, range=(0, 1))[0]
    chi_squared = ((counts - x.size / 20) ** 2 / (x.size / 20)).sum()
    assert chi_squared < 50  # 19 degrees of freedom: exceeded with probability 1.3e-4
    flat = noise.ravel()
    assert abs(np.corrcoef(flat[:-1], flat[1:])[0, 1]) < 5 / np.sqrt(x.size)
    assert abs(np.corrcoef(flat, codebook.uniform_noise(x, 2).ravel())[0, 1]) < 5 / np.sqrt(x.size)
    for i in range(8):
        np.testing.assert_array_equal(codebook.uniform_noise(x[i : i + 1], 1)[0], noise[i])
    equal = codebook.uniform_noise(np.ones((1, 10_000), np.float32), 1)  # places differ where values do not
    assert abs(equal.mean() - 0.5) < 5 / np.sqrt(12 * 10_000)


@given(codes, bits, signs, vectors)
def test_running_sums_of_error_feedback_are_bounded(
    code: str, bits: int, signed: bool, x: np.ndarray
) -> None:
    levels = codebook.levels_of(code, bits, signed)
    result = codebook.error_feedback(x, levels)
    assert np.isin(result, levels).all()
    error = np.cumsum(np.clip(x, levels[0], levels[-1])) - np.cumsum(result)
    assert np.abs(error).max() <= np.diff(levels).max() / 2 + 1e-12


def test_error_feedback_sums_over_its_axes_alone() -> None:
    """Each of the other elements has its own sum, which a loop in C order gives too."""
    x = np.random.default_rng(0).uniform(-1, 1, size=(2, 3, 4, 5)).astype(np.float32)
    op = SimulatedQuant("linear", 3, rounding="error-feedback", axes=(1, 3))
    y = op.float_ref(x, np.float32(1.0).reshape(()))
    for i in range(2):
        for k in range(4):
            carried = 0.0
            for j in range(3):
                for c in range(5):
                    wanted = float(x[i, j, k, c]) + carried
                    level = np.clip(np.rint(wanted * 3), -3, 3) / 3
                    carried = wanted - level
                    assert y[i, j, k, c] == pytest.approx(level, abs=1e-6)


@pytest.mark.parametrize(
    ("op", "x", "scale", "message"),
    [
        (SimulatedQuant("cubic"), f32(1, 3), f32(), "unknown code 'cubic'; known: linear, sqrt, log2"),
        (SimulatedQuant(rounding="up"), f32(1, 3), f32(), "unknown rounding 'up'"),
        (SimulatedQuant(bits=9), f32(1, 3), f32(), "9 bits; 2 to 8 are possible"),
        (SimulatedQuant(rounding="error-feedback", axes=(2,)), f32(1, 3), f32(), "are no axes of"),
        (SimulatedQuant(rounding="error-feedback", axes=(1, -1)), f32(1, 3), f32(), "are no axes of"),
        (SimulatedQuant(), f32(1, 3), f32(2, 3), "does not broadcast to"),
        (SimulatedQuant(), f32(1, 3), f32(2), "does not broadcast to"),
    ],
)
def test_what_does_not_fit_is_refused(op: SimulatedQuant, x: object, scale: object, message: str) -> None:
    with pytest.raises(VerifyError, match=message):
        op.infer(x, scale)
