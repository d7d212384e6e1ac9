"""Codes that no kernel has: levels of a unit scale, and ways to round to them. For simulation and study only.

A codebook is an ascending array of levels within [-1, 1] that holds 0 and both of its ends; real = scale * level. Where
levels lie densely errors are small: with many levels of density d(x) the mean squared error is E[1 / d(x)^2] / 12
(Bennett, "Spectra of quantized signals", 1948), and least for d proportional to the cube root of the probability density
(Panter and Dite 1951). d is constant for ``linear``, |x|^-1/2 for ``sqrt`` and 1/|x| for ``log2``, whose error is the
same share of small and of large values.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

EXPANDERS: dict[str, Callable[[NDArray[np.int64], int], Floats]] = {
    "linear": lambda k, largest: k / largest,
    "sqrt": lambda k, largest: (k / largest) ** 2,
    "log2": lambda k, largest: np.where(k > 0, np.exp2((k - largest).astype(np.float64)), 0.0),
}
"""The magnitude of code k in 0..largest. log2: powers of two below 1, and zero (Miyashita et al. 2016, section 3)."""
ROUNDINGS = ("nearest", "stochastic", "error-feedback")
MIN_BITS, MAX_BITS = 2, 8


def levels_of(code: str, bits: int, signed: bool) -> Floats:
    """float64[2^bits - 1] with a sign, as s8 weights without the lowest code; float64[2^bits] from 0 without."""
    largest = 2 ** (bits - 1) - 1 if signed else 2**bits - 1
    magnitudes = EXPANDERS[code](np.arange(largest + 1), largest)
    return np.concatenate([-magnitudes[:0:-1], magnitudes]) if signed else magnitudes


def nearest(x: Floats, levels: Floats) -> Floats:
    """The level of least |x - level|; of two the lower. Miyashita rounds log2(x) instead, with larger errors."""
    return np.asarray(levels[np.searchsorted((levels[:-1] + levels[1:]) / 2, x)])


def stochastic(x: Floats, levels: Floats, uniform: Floats) -> Floats:
    """One of the levels on both sides, the upper one with probability (x - lower) / (upper - lower): no bias.

    Gupta et al. 2015, "Deep learning with limited numerical precision", section 3. Outside of the levels x is clipped.
    ``uniform``: numbers in [0, 1) of the shape of x.
    """
    x = np.clip(x, levels[0], levels[-1])
    index = np.clip(np.searchsorted(levels, x, side="right") - 1, 0, len(levels) - 2)
    lower, upper = levels[index], levels[index + 1]
    return np.where(uniform * (upper - lower) < x - lower, upper, lower)


def error_feedback(x: Floats, levels: Floats) -> Floats:
    """Along axis 0 each element takes over the error of those before it, then is rounded (sigma-delta).

    So every running sum of x, clipped to the levels, and of the result differ by at most half the widest gap.
    """
    result, error = np.empty_like(x), np.zeros(x.shape[1:])
    for index, row in enumerate(np.clip(x, levels[0], levels[-1])):
        wanted = row + error
        result[index] = nearest(wanted, levels)
        error = wanted - result[index]
    return result


def uniform_noise(x: NDArray[Any], seed: int) -> Floats:
    """Numbers in [0, 1) by seed, place behind axis 0, and value: the same however samples are stacked on axis 0."""
    place = np.arange(np.prod(x.shape[1:], dtype=np.int64), dtype=np.uint64).reshape(x.shape[1:])
    bits = np.asarray(x, np.float32).view(np.uint32).astype(np.uint64)
    with np.errstate(over="ignore"):  # modulo 2^64
        mixed = _mixed(_mixed(_mixed(np.uint64(seed % 2**64)) ^ place) ^ bits)
    return np.asarray((mixed >> np.uint64(11)) * 2.0**-53)


def _mixed(z: Any) -> Any:
    """One step of SplitMix64 (Steele, Lea and Flood 2014), of uint64."""
    z = z + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
