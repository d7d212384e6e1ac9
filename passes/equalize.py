"""Cross-layer equalization: scale inner channels so that one 8-bit scale per tensor suits all of them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from qcc.ir import interpreter
from qcc.ir.graph import Graph, Node, Value
from qcc.passes.channel_groups import FIXED, ChannelGroups, channel_groups, linear_weight

Reals = NDArray[np.float64]

_EXPONENTS = (0.25, 0.5, 0.75, 1.0)
_SMALLEST = 2.0**-8  # of the largest range of a tensor: narrower channels count as this wide
_STEPS = 255.0


@dataclass
class _Read:
    """A tensor as one layer reads it, channels of groups ``ids``.

    ``peak``: largest magnitude, ``power``: mean square, of each channel; ``gain``: sum of squared weights on it;
    ``weights``: |w| [O, C], maxima over taps, empty where each output has one channel; ``signal``: output power.
    """

    ids: NDArray[np.intp]
    peak: Reals
    power: Reals
    gain: Reals
    weights: Reals
    signal: float

    def noise(self, s: Reals) -> float:
        """Predicted noise over signal at the layer's output when channel c is divided by s[c]."""
        step = (self.peak / s).max() / _STEPS
        noise = step**2 / 12 * float((self.gain * s**2).sum())
        if self.weights.size:
            steps = (self.weights * s).max(axis=1) / 127
            noise += float((steps**2).sum()) / 12 * float((self.power / s**2).sum())
        return noise / self.signal


@dataclass
class _Cluster:
    """Groups that some tensor holds together: they get their scales together."""

    groups: set[int] = field(default_factory=set)
    reads: list[_Read] = field(default_factory=list)
