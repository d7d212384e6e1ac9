"""Closed forms of the mean squared error of a quantizer, for data of a Gaussian or a Laplace distribution."""

from __future__ import annotations

from dataclasses import dataclass
from math import erf, exp, inf, log, pi, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Distribution:
    """A density of reals: an atom ``zeros`` at 0; the rest Gaussian or Laplace around ``mean``, cut off at the ends.

    ``spread``: sigma of the Gaussian, b of the Laplace, exp(-|x - mean| / b) / (2 b). ``low``, ``high``: where it ends.
    """

    family: str
    mean: float
    spread: float
    zeros: float = 0.0
    low: float = -inf
    high: float = inf

    @staticmethod
    def fit(x: NDArray[Any]) -> Distribution:
        """The more likely of both, each with its most likely parameters; half of one with mean 0 for x of one sign.

        Zeros, such as those behind a ReLU, are counted apart: every code holds them exactly.
        """
        x = np.asarray(x, np.float64).ravel()
        rest = x[x != 0]
        if rest.size == 0:
            return Distribution("gaussian", 0.0, 0.0, 1.0)
        low, high = float(rest.min()), float(rest.max())
        half = low > 0 or high < 0
        mean, median = (0.0, 0.0) if half else (float(rest.mean()), float(np.median(rest)))
        sigma, b = float(np.sqrt(np.mean((rest - mean) ** 2))), float(np.mean(np.abs(rest - median)))
        ends = (min(low, 0.0), max(high, 0.0)) if half else (low, high)
        zeros = 1 - rest.size / x.size
        if b == 0 or log(2 * b) + 1 < log(sigma * sqrt(2 * pi)) + 0.5:  # of -log likelihood per element
            return Distribution("laplace", median, b, zeros, *ends)
        return Distribution("gaussian", mean, sigma, zeros, *ends)

    def mass(self, levels: Floats) -> Floats:
        """Probability of each of the intervals between ``levels``, the atom left out."""
        return (
            np.diff([self._cumulative(float(v)) for v in np.clip(levels, self.low, self.high)]) * self._share
        )

    def overload(self, low: float, high: float) -> float:
        """E[(x - low)^2; x < low] + E[(x - high)^2; x > high]: what clipping adds (Banner et al. 2019, section 3).

        Of a side where the distribution ends before: nothing; of one where it ends behind: the whole tail.
        """
        below = self._tail(self.mean - low) if self.low < low else 0.0
        above = self._tail(high - self.mean) if self.high > high else 0.0
        return (below + above) * self._share

    @property
    def _share(self) -> float:
        """By what the uncut density is multiplied."""
        within = self._cumulative(self.high) - self._cumulative(self.low)
        return (1 - self.zeros) / within if within > 0 else 0.0

    def _cumulative(self, x: float) -> float:
        if self.spread == 0:
            return float(x >= self.mean)
        t = (x - self.mean) / self.spread
        if self.family == "gaussian":
            return 0.5 * (1 + erf(t / sqrt(2)))
        return 0.5 * exp(t) if t < 0 else 1 - 0.5 * exp(-t)

    def _tail(self, c: float) -> float:
        """E[(x - mean - c)^2; x - mean > c], uncut."""
        if self.spread == 0:
            return 0.0
        t = c / self.spread
        if self.family == "gaussian":
            beyond, density = 0.5 * (1 - erf(t / sqrt(2))), exp(-t * t / 2) / sqrt(2 * pi)
            return max(0.0, self.spread**2 * ((1 + t * t) * beyond - t * density))
        if t >= 0:
            return self.spread**2 * exp(-t)
        return self.spread**2 * (t * t + 2 - exp(t))


@dataclass(frozen=True)
class ErrorParts:
    """Mean squared error of what lies between the levels (``rounding``) and of what lies outside (``clipping``)."""

    rounding: float
    clipping: float

    @property
    def total(self) -> float:
        """The mean squared error."""
        return self.rounding + self.clipping


def predicted(data: Distribution, levels: Floats, rounding: str = "nearest") -> ErrorParts:
    """Bennett's integral over the gaps g between ascending ``levels``: sum P(gap) g^2 / 12; and the overload.

    Equal gaps give scale^2 / 12 times the share inside (Bennett 1948). That holds where the density changes little
    within a gap. Stochastic rounding has g^2 / 6: the mean of f (1 - f) g^2, f the place in the gap. Error feedback adds
    the error of one element to the next: with its own, 2 g^2 / 12, where they do not depend on each other.
    """
    share = 1 / 12 if rounding == "nearest" else 1 / 6
    granular = float(np.sum(data.mass(levels) * np.diff(levels) ** 2)) * share
    return ErrorParts(granular, data.overload(float(levels[0]), float(levels[-1])))


def measured(x: NDArray[Any], rounded: NDArray[Any], low: float, high: float) -> ErrorParts:
    """The error of ``rounded``, split by whether x lies within [low, high]."""
    squares = (np.asarray(x, np.float64) - rounded) ** 2
    inside = (x >= low) & (x <= high)
    return ErrorParts(*(float(squares[part].sum()) / squares.size for part in (inside, ~inside)))
