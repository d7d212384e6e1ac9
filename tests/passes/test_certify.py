"""Certified multipliers against brute force over whole intervals and against exact big integers."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from qcc.passes.certify import Certified, agrees_in_float32, certify


def canonical(acc: int, multiplier: int, shift: int) -> int:
    """Nearest integer to acc * multiplier / 2^shift, ties upward, by exact fractions."""
    return int((Fraction(acc * multiplier, 2**shift) + Fraction(1, 2)) // 1)


def fast(acc: np.ndarray, multiplier: int, shift: int) -> np.ndarray:
    """cvtdq2ps, mulps, cvtps2dq."""
    m = np.float32(multiplier * 2.0**-shift)
    return np.rint(acc.astype(np.int32).astype(np.float32) * m).astype(np.int64)


def agrees(
    multiplier: int, shift: int, low: int, high: int, zero_point: int, q_low: int, q_high: int
) -> bool:
    def row(value: int) -> np.ndarray:
        return np.array([value], np.int64)

    found = agrees_in_float32(row(multiplier), row(shift), row(low), row(high), zero_point, q_low, q_high)
    return bool(found[0])


def codes(data: st.DataObject) -> tuple[int, int, int]:
    """zero_point, q_low, q_high: the whole type, or clamped as by a relu or relu6."""
    zero_point = data.draw(st.integers(-128, 127))
    q_low = data.draw(st.sampled_from([-128, zero_point]))
    return zero_point, q_low, data.draw(st.sampled_from([127, q_low]) | st.integers(q_low, 127))


@settings(deadline=None, max_examples=150)
@given(
    st.data(),
    # few significant bits make exact ties, where rounding to even and upward differ
    st.integers(1, 2**24 - 1) | st.integers(1, 40),
    st.integers(0, 20),
    st.integers(-(2**24), 2**24),
    st.integers(0, 3000),
)
def test_agreement_is_what_brute_force_says(
    data: st.DataObject, significant: int, spread: int, low: int, width: int
) -> None:
    multiplier = significant << (31 - significant.bit_length())
    shift = 31 + spread  # real multipliers from 2^-21 to 1: the product stays inside int32
    zero_point, q_low, q_high = codes(data)
    acc = np.arange(low, low + width + 1)
    slow = np.array([canonical(a, multiplier, shift) for a in acc.tolist()])
    equal = np.clip(slow + zero_point, q_low, q_high) == np.clip(
        fast(acc, multiplier, shift) + zero_point, q_low, q_high
    )
    assert agrees(multiplier, shift, low, low + width, zero_point, q_low, q_high) == bool(equal.all())


def test_a_tie_is_no_agreement() -> None:
    """1 * 0.5 rounds upward to 1 and to even 0."""
    assert not agrees(2**30, 31, 0, 1, 0, -128, 127)
    assert agrees(2**30, 31, 2, 4, 0, -128, 127)
    assert agrees(2**30, 31, 0, 1, 0, -128, 0)  # saturation hides it


def test_a_product_beyond_int32_is_no_agreement() -> None:
    """The conversion back would yield the smallest integer, although saturation would hide the value itself."""
    assert not agrees(2**30, 28, 0, 2**29, 0, -128, 127)
    assert agrees(2**30, 30, 0, 2**29, 0, -128, 127)


@settings(deadline=None, max_examples=60)
@given(
    st.data(),
    st.floats(1e-7, 0.02),
    st.integers(-(2**31), 2**31 - 1),
    st.integers(-(2**31), 2**31 - 1),
)
@example(None, 2.0**-20, -(2**31), 2**31 - 1)
@example(None, 1 - 2.0**-30, -(2**20), 2**20)
def test_certificates_hold_by_big_integers(
    data: st.DataObject | None, real: float, one_end: int, other_end: int
) -> None:
    """Both sides of every threshold, found with exact fractions, on intervals of any size."""
    zero_point, q_low, q_high = (3, -128, 127) if data is None else codes(data)
    low, high = sorted((one_end, other_end))
    found = certify(np.array([real]), np.array([low]), np.array([high]), zero_point, q_low, q_high)
    multiplier, shift = int(found.multiplier[0]), int(found.shift[0])
    assert 2**30 <= multiplier < 2**31
    if not found.certified[0]:
        assert abs(Fraction(multiplier, 2**shift) / Fraction(real) - 1) <= Fraction(1, 2**31)
        return
    assert multiplier % 128 == 0  # 24 significant bits: exact in float32
    points = {low, high}
    for level in range(q_low - zero_point + 1, q_high - zero_point + 1):
        threshold = -(
            (Fraction(1, 2) - level) * 2**shift // multiplier
        )  # smallest acc that reaches the level
        points.update(min(max(int(p), low), high) for p in (threshold - 1, threshold))
    acc = np.array(sorted(points))
    slow = np.array([canonical(a, multiplier, shift) for a in acc.tolist()])
    np.testing.assert_array_equal(
        np.clip(slow + zero_point, q_low, q_high),
        np.clip(fast(acc, multiplier, shift) + zero_point, q_low, q_high),
    )


def layers(rng: np.random.Generator) -> tuple[np.ndarray, Certified]:
    """The real multipliers of many channels, as layers of several depths have them, and what certify finds."""
    reals, parts = [], []
    for depth in (9, 27, 64, 144, 576, 1280, 4608):
        w = np.clip(np.rint(rng.normal(size=(40, depth)) * 40), -127, 127).astype(np.int64)
        bias = np.rint(rng.normal(size=40) * 2000).astype(np.int64)
        # the output range holds 4 standard deviations of a sum whose inputs spread over 8 bits
        real = 255 / (8 * np.sqrt((w**2).sum(axis=1)) * 60) * rng.uniform(0.5, 2, size=40)
        reach = (np.abs(w) * 128).sum(axis=1)
        zero_point = int(rng.integers(-128, 100))
        q_low = zero_point if depth % 2 else -128
        reals.append(real)
        parts.append(certify(real, bias - reach, bias + reach, zero_point, q_low, 127))
    joined = [
        np.concatenate([getattr(p, name) for p in parts]) for name in ("multiplier", "shift", "certified")
    ]
    return np.concatenate(reals), Certified(*joined)


def test_nearly_all_channels_of_realistic_layers_certify() -> None:
    real, found = layers(np.random.default_rng(7))
    share = float(found.certified.mean())
    change = np.abs(found.multiplier * 2.0**-found.shift / real - 1)
    assert share >= 0.99, f"{share:.2%} of {real.size} channels certify"
    assert change.max() < 1e-4, f"a scale moves by {change.max():.2e}"
    assert change.mean() < 1e-5, f"scales move by {change.mean():.2e} on average"


def test_the_wrong_neighbours_are_refused() -> None:
    """The search is needed: of the nearest 24-bit multipliers many do not agree."""
    rng = np.random.default_rng(3)
    real = rng.uniform(1e-4, 2e-4, size=50)
    reach = np.full(50, 2_000_000)
    found = certify(real, -reach, reach, 0, -128, 127)
    moved = np.abs(found.multiplier * 2.0**-found.shift / real - 1) > 2.0**-24
    assert found.certified.all()
    assert moved.any()


def test_no_channels() -> None:
    empty = np.zeros(0, np.int64)
    assert certify(np.zeros(0), empty, empty, 0, -128, 127).multiplier.size == 0


@pytest.mark.parametrize("real", [2.0**40, 2.0**-40])
def test_a_scale_without_multiplier_is_an_error(real: float) -> None:
    with pytest.raises(ValueError, match="outside the range"):
        certify(np.array([real]), np.array([-5]), np.array([5]), 0, -128, 127)
