"""What the passes that shape channels did to tensors: factors and offsets between the float graph and the calibrated one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from qcc.driver import Compilation
from qcc.float_runtime import FloatRuntime
from qcc.ir.graph import Graph
from qcc.report_errors import computed_values, observe, samples_measured

Reals = NDArray[np.float64]

CHANGED = 1e-3  # what changed by less, of its magnitude, was only rounded
_EXPLAINED = CHANGED**2  # of the power of a channel: noise that rounding leaves
_FLOOR = 1e-12  # of that of the whole tensor


@dataclass(frozen=True)
class Changes:
    """By value name, y = factors * x - offsets, x in the float graph, y in the calibrated one; both broadcast to the value.

    Only what changed is there. ``others``: values that are no such thing of what they were.
    """

    factors: dict[str, Reals] = field(default_factory=dict)
    offsets: dict[str, Reals] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)


@dataclass
class _Sums:
    """Over what is summed so far: products of x and y, of all elements that one factor is for."""

    count: int = 0
    x: Reals | float = 0.0
    y: Reals | float = 0.0
    xx: Reals | float = 0.0
    xy: Reals | float = 0.0
    yy: Reals | float = 0.0

    def add(self, x: Reals, y: Reals, axes: tuple[int, ...]) -> None:
        """Sum ``x`` and ``y`` over ``axes``."""
        self.count += int(np.prod([x.shape[a] for a in axes]))
        terms = {"x": x, "y": y, "xx": x * x, "xy": x * y, "yy": y * y}
        for name, term in terms.items():
            setattr(self, name, getattr(self, name) + term.sum(axis=axes, keepdims=True))

    def over(self, axes: tuple[int, ...]) -> _Sums:
        """What ``add`` with more axes gives."""
        size = int(np.prod([np.shape(self.xx)[a] for a in axes]))
        return _Sums(
            self.count * size,
            *(np.sum(a, axis=axes, keepdims=True) for a in (self.x, self.y, self.xx, self.xy, self.yy)),
        )

    def factors(self) -> Reals | None:
        """y / x, least squares; 1 where both are 0; None where that explains too little."""
        xx, xy = np.asarray(self.xx), np.asarray(self.xy)
        found = np.where(xx > 0, xy / np.where(xx > 0, xx, 1.0), 1.0)
        return found if self._small(self.yy - found * xy).all() else None

    def line(self) -> tuple[Reals, Reals] | None:
        """Factors and offsets, the latter 0 where factors alone explain y; None where both explain too little."""
        n, x, y, xx, xy = self.count, *(np.asarray(a) for a in (self.x, self.y, self.xx, self.xy))
        alone = np.where(xx > 0, xy / np.where(xx > 0, xx, 1.0), 1.0)
        explained = self._small(self.yy - alone * xy)
        variance = n * xx - x * x
        varies = variance > _FLOOR * n * xx
        slope = np.where(varies, (n * xy - x * y) / np.where(varies, variance, 1.0), 1.0)
        factors = np.where(explained, alone, slope)
        offsets = np.where(explained, 0.0, (slope * x - y) / n)
        rest = self.yy - 2 * factors * xy + factors**2 * xx + 2 * offsets * (y - factors * x) + n * offsets**2
        return (factors, offsets) if self._small(rest).all() else None

    def _small(self, noise: Reals) -> NDArray[np.bool_]:
        yy = np.asarray(self.yy)
        return np.asarray(noise <= _EXPLAINED * yy + _FLOOR * yy.sum())


def changes(made: Compilation) -> Changes:
    """Measured on the kept samples: equalization scales channels, migration other axes as well, absorption shifts channels."""
    before, after = made.float_graph, made.calibrated
    found = Changes()
    if after is None or not made.samples or _same_constants(before, after):
        return found
    shapes = {v.name: v.type.shape for v in computed_values(before)}
    common = [v.name for v in computed_values(after) if v.type.rank and shapes.get(v.name) == v.type.shape]
    sums = {name: _Sums() for name in common}
    for name, x, y in _both(made, after, common):
        sums[name].add(x, y, tuple(range(x.ndim - 1)))
    rest = []
    for name, channels in sums.items():
        line = channels.line()
        if line is None:
            rest.append(name)
            continue
        factors, offsets = (a.reshape(-1) for a in line)
        _keep(found.factors, name, factors, np.abs(factors - 1))
        size = np.sqrt(np.asarray(channels.yy).mean() / max(channels.count, 1)) + 1e-300
        _keep(found.offsets, name, offsets, np.abs(offsets) / size)
    elements = {name: _Sums() for name in rest}
    for name, x, y in _both(made, after, rest):
        elements[name].add(x, y, ())
    for name, each in elements.items():
        scaled = _along_axes(each, len(shapes[name]))
        if scaled is None:
            found.others.append(name)
        else:
            _keep(found.factors, name, scaled, np.abs(scaled - 1))
    return found


def _both(made: Compilation, after: Graph, names: list[str]) -> Iterator[tuple[str, Reals, Reals]]:
    """Values of both graphs, sample by sample; what is not finite counts as 0."""
    graphs = (made.float_graph, after)
    runtimes = [FloatRuntime(g, [v for v in computed_values(g) if v.name in names]) for g in graphs]
    for index in range(samples_measured(made) if names else 0):
        sample = {name: array[index : index + 1] for name, array in made.samples.items()}
        old, new = (observe(runtime, sample) for runtime in runtimes)
        for name in names:
            x, y = (a[name].astype(np.float64) for a in (old, new))
            finite = np.isfinite(x) & np.isfinite(y)
            yield name, np.where(finite, x, 0.0), np.where(finite, y, 0.0)


def _along_axes(each: _Sums, rank: int) -> Reals | None:
    """Factors along as few axes as explain the value."""
    for count in range(rank + 1):
        for kept in combinations(reversed(range(rank)), count):
            factors = each.over(tuple(a for a in range(rank) if a not in kept)).factors()
            if factors is not None:
                return factors
    return None


def _keep(found: dict[str, Reals], name: str, array: Reals, change: Reals) -> None:
    if change.max(initial=0.0) > CHANGED:
        found[name] = array


def _same_constants(a: Graph, b: Graph) -> bool:
    left, right = ([v.data for v in g.constants()] for g in (a, b))
    return len(left) == len(right) and all(
        x is y or np.array_equal(x, y, equal_nan=True)  # type: ignore[arg-type]
        for x, y in zip(left, right, strict=True)
    )
