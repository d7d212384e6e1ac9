"""Closed forms of the mean squared error of a quantizer, for data of a Gaussian or a Laplace distribution."""

from __future__ import annotations

from dataclasses import dataclass
from math import erf, erfc, exp, inf, log, pi, sqrt
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

        Data end at their extremes: a tail is integrated up to there, not to infinity.
        """
        below = self._beyond(self.mean - low, self.mean - self.low)
        return (below + self._beyond(high - self.mean, self.high - self.mean)) * self._share

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

    def _beyond(self, c: float, end: float) -> float:
        """E[y^2; 0 < y < end - c] of y = x - mean - c, uncut; both families are symmetric around the mean."""
        if self.spread == 0 or end <= c:
            return 0.0
        square = self._moments(c)[2]
        if end < inf:  # y = z + d, z counted from the end
            d, (p, first, second) = end - c, self._moments(end)
            square -= second + 2 * d * first + d * d * p
        return max(0.0, square)

    def _moments(self, c: float) -> tuple[float, float, float]:
        """P(y > 0), E[y; y > 0], E[y^2; y > 0] of y = x - mean - c, uncut."""
        t, s = c / self.spread, self.spread
        if self.family == "gaussian":
            q, density = 0.5 * erfc(t / sqrt(2)), exp(-t * t / 2) / sqrt(2 * pi)
            return q, s * (density - t * q), s * s * ((1 + t * t) * q - t * density)
        if t >= 0:
            return 0.5 * exp(-t), 0.5 * s * exp(-t), s * s * exp(-t)
        return 1 - 0.5 * exp(t), s * (0.5 * exp(t) - t), s * s * (t * t + 2 - exp(t))


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
