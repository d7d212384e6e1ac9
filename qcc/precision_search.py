"""The contract ``min_ratio``: 16 bits and float where they are needed to come close enough to the float model."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcc import calibration_data, driver, verify
from qcc.driver import Compilation, Progress
from qcc.float_runtime import FloatRuntime
from qcc.ir.errors import QccError
from qcc.ir.graph import Graph
from qcc.metrics import Metric, Outputs, find_metric
from qcc.options import CompileOptions
from qcc.passes.base import PassContext
from qcc.passes.sensitivity import (
    Sensitivities,
    Sensitivity,
    by_worth,
    cost_of,
    restorations,
    restore,
    sensitivities,
)

ATTEMPTS = 6  # at what integers reach, the last with all restorations
PRUNED, PRUNINGS = 24, 3  # restorations that are tried to be left out, the dearest first; and how often
LISTED = 16  # restorations that are tried one by one where the contract fails

Chosen = Sequence[Sensitivity]


def reach(made: Compilation, goal: Goal, progress: Progress = lambda what, done, total: None) -> Compilation:
    """``made``, or what it takes to reach the min_ratio of its options on the samples of ``goal``.

    Restorations are ordered by the noise they remove for their cost; the shortest beginning of that order that suffices
    is found by bisection, in fake-quant runs. Integers have the last word: where they fall short, their simulation must
    reach as much more. At the end what is not needed is left out. The result has ``contract`` set. Raises QccError where
    the ratio is not reached, with what each restoration would have brought.
    """
    options = made.options
    assert options.min_ratio is not None
    progress("measuring integers", 0, 0)
    before = goal.of_integers(made)
    if before >= options.min_ratio:
        return replace(made, contract=_record(goal, made, made, before, before, [], {}))
    search = _Search(made, goal, progress)
    if not search.order:
        raise _refusal(search, before, before, [])
    best, target, chosen = before, options.min_ratio, list[Sensitivity]()
    for attempt in range(1, ATTEMPTS + 1):
        count = len(search.order) if attempt == ATTEMPTS else search.shortest(target, len(chosen))
        chosen = search.order[:count]
        found, ratio = search.integers(chosen)
        best = max(best, ratio)
        if ratio >= options.min_ratio:
            break
        if len(chosen) == len(search.order):
            raise _refusal(search, before, best, search.one_by_one())
        target += 2 * (options.min_ratio - ratio)
    for _ in range(PRUNINGS):
        kept, without = search.needed(chosen, target)
        if len(kept) == len(chosen):
            break
        fewer, reached = search.integers(kept)
        if reached >= options.min_ratio:
            found, ratio, chosen = fewer, reached, kept
            break
        target += 2 * (options.min_ratio - reached)
    return replace(found, contract=_record(goal, made, found, before, ratio, chosen, without))


def sensitivities_of(
    made: Compilation, progress: Progress = lambda what, done, total: None, most: int = 64
) -> Sensitivities:
    """Those of all tensors and layers of ``made``. Raises QccError where nothing can be restored."""
    if made.calibrated is None or made.annotated is None or made.resources.get("has_own_qparams"):
        raise QccError(
            f"{made.model} brings its own scales, which are kept: there is nothing to restore",
            hint="analyze the float model it was made from",
        )
    found = restorations(made.annotated, made.calibrated)
    return sensitivities(made.annotated, made.calibrated, found, _context(made, progress), most, both=True)


def with_restorations(options: CompileOptions, chosen: Iterable[Sensitivity]) -> CompileOptions:
    """``options`` that restore ``chosen`` too."""
    names: dict[str, list[str]] = {"int16": [], "float": []}
    for s in chosen:
        names[s.restoration.to].append(s.restoration.name)
    return replace(
        options,
        int16=(*options.int16, *names["int16"]),
        float_nodes=(*options.float_nodes, *names["float"]),
    )


@dataclass(frozen=True)
class Goal:
    """A metric on samples, and what the float model has of it."""

    metric: Metric
    inputs: dict[str, NDArray[np.float32]]
    labels: NDArray[Any] | None
    reference: Outputs
    real: float

    @staticmethod
    def of(made: Compilation, evaluation: object) -> Goal:
        """``evaluation``: as calibration data, with labels. Reads the float graph and the options of ``made``.

        Raises QccError for data that do not fit the model, or the metric.
        """
        metric = find_metric(made.options.metric)
        loaded = calibration_data.load_calibration(evaluation, made.float_graph.inputs)
        batches = list(loaded)
        inputs = {name: np.concatenate([b[name] for b in batches]) for name in batches[0]}
        reference = FloatRuntime(made.float_graph).run(inputs)
        goal = Goal(metric, inputs, loaded.labels, reference, 1.0)
        real = goal.ratio(reference)
        if real <= 0:
            raise QccError(
                f"the float model has {made.options.metric} = {real:g} on the evaluation data: nothing to keep a share of",
                hint="check the preprocessing and the labels",
            )
        return replace(goal, real=real)

    def ratio(self, outputs: Outputs) -> float:
        """The metric of ``outputs`` as a share of that of the float model."""
        found = self.metric(outputs, self.reference, self.labels)
        if not isinstance(found, int | float | np.number) or not math.isfinite(found):
            raise QccError(f"the metric returned {found!r}", hint="it must return a finite number")
        return float(found) / self.real

    def of_integers(self, made: Compilation) -> float:
        """The ratio of the integer program."""
        assert made.planned is not None
        results = verify.program_results(made.planned, self.inputs)
        return self.ratio(verify.dequantize_outputs(made.planned, results))

    def of_fake_quant(self, annotated: Graph) -> float:
        """The ratio that rounded floats reach."""
        return self.ratio(FloatRuntime(annotated, fake_quant=True).run(self.inputs))


class _Search:
    """Sets of restorations of one compilation, and what they reach in fake-quant runs."""

    def __init__(self, made: Compilation, goal: Goal, progress: Progress) -> None:
        assert made.annotated is not None
        assert made.planned is not None
        self.made, self.goal, self.progress = made, goal, progress
        self.annotated, self.options = made.annotated, made.options
        self.calibrated = made.calibrated
        self.order: list[Sensitivity] = []
        if self.calibrated is None or made.resources.get("has_own_qparams"):
            return
        found = restorations(made.annotated, self.calibrated, _boundary(made))
        if made.options.no_float or made.options.strict:
            found = [r for r in found if r.to == "int16"]
        if made.options.rounding != "ties_up":
            found = [r for r in found if r.to == "float"]
        if found:
            effects = sensitivities(made.annotated, self.calibrated, found, _context(made, progress))
            self.order = by_worth(made.annotated, self.calibrated, effects)

    def ratio(self, chosen: Chosen) -> float:
        """What the metric becomes with ``chosen`` restored."""
        assert self.calibrated is not None
        graph = self.annotated.clone()
        for s in chosen:
            restore(graph, self.calibrated, s.restoration)
        return self.goal.of_fake_quant(graph)

    def integers(self, chosen: Chosen) -> tuple[Compilation, float]:
        """The integer program with ``chosen`` restored, and the ratio it reaches."""
        self.progress(f"measuring integers with {len(chosen)} restorations", 0, 0)
        found = driver.quantize_again(self.made, with_restorations(self.options, chosen))
        return found, self.goal.of_integers(found)

    def shortest(self, target: float, above: int) -> int:
        """How many of the order, more than ``above``, reach ``target``; all of them where none do."""
        low, high, tries = above, len(self.order), 0  # low is too few, high enough or all
        while high - low > 1:
            middle = (low + high) // 2
            reached = self.ratio(self.order[:middle]) >= target
            low, high = (low, middle) if reached else (middle, high)
            tries += 1
            self.progress("searching", tries, len(self.order).bit_length())
        return high

    def needed(self, chosen: Chosen, target: float) -> tuple[list[Sensitivity], dict[str, float]]:
        """``chosen`` less what ``target`` does not need, and, for each that stays, the ratio without it."""
        kept, without = list(chosen), dict[str, float]()
        dearest = sorted(chosen, key=lambda s: (-s.added.total, s.restoration.name))[:PRUNED]
        for number, s in enumerate(dearest, 1):
            rest = [k for k in kept if k is not s]
            ratio = self.ratio(rest)
            if ratio >= target:
                kept = rest
            else:
                without[s.restoration.name] = ratio
            self.progress("leaving out what is not needed", number, len(dearest))
        return kept, without

    def one_by_one(self) -> list[tuple[Sensitivity, float]]:
        """The restorations with the largest effect, and the ratio with each alone."""
        found = []
        for number, s in enumerate(sorted(self.order, key=lambda s: -s.alone)[:LISTED], 1):
            found.append((s, self.ratio([s])))
            self.progress("trying restorations one by one", number, min(LISTED, len(self.order)))
        return sorted(found, key=lambda f: -f[1])


def _context(made: Compilation, progress: Progress) -> PassContext:
    """What sensitivities are measured with: the samples for corrections, or the noise that stands for data."""
    samples = made.resources["correction_samples"] or made.samples
    return PassContext(made.resources | {"correction_samples": samples}, progress)


def _boundary(made: Compilation) -> frozenset[str]:
    """Values whose type a caller of the library sees."""
    if made.options.boundary == "float" or made.annotated is None:
        return frozenset()
    return frozenset(v.name for v in (*made.annotated.inputs, *made.annotated.outputs))


def _record(
    goal: Goal,
    made: Compilation,
    found: Compilation,
    before: float,
    ratio: float,
    chosen: Chosen,
    without: dict[str, float],
) -> dict[str, Any]:
    """How the contract was met, as plain data."""
    assert made.annotated is not None
    assert found.annotated is not None
    cost, base = cost_of(found.annotated), cost_of(made.annotated)
    return {
        "metric": made.options.metric,
        "labels": goal.labels is not None,
        "samples": len(next(iter(goal.inputs.values()))),
        "min_ratio": made.options.min_ratio,
        "ratio_before": before,
        "ratio": ratio,
        "macs": base.macs,
        "added_macs": cost.macs - base.macs,
        "bytes": base.bytes,
        "added_bytes": cost.bytes - base.bytes,
        "restorations": [
            {
                "to": s.restoration.to,
                "name": s.restoration.name,
                "tensors": list(s.restoration.values),
                "noise": s.alone,
                "added_macs": s.added.macs,
                "added_bytes": s.added.bytes,
                "ratio_without": without.get(s.restoration.name),
            }
            for s in chosen
        ],
    }


def _refusal(search: _Search, before: float, best: float, tried: list[tuple[Sensitivity, float]]) -> QccError:
    """The error of a contract that cannot be met."""
    options = search.options
    assert options.min_ratio is not None
    digits = 2 - math.floor(math.log10(max(1 - options.min_ratio, 1e-8)))  # that tell ratios near it apart
    lines = [
        f"{options.metric} reaches {best:.{digits}f} of float, not {options.min_ratio:g}; "
        f"with 8 bits alone {before:.{digits}f}"
    ]
    lines += [
        f"  {ratio - before:+.{digits}f}  %{s.restoration.name} in "
        f"{'16 bits' if s.restoration.to == 'int16' else 'float'}, "
        f"for {s.added.macs:,} MACs and {s.added.bytes:,} bytes"
        for s, ratio in tried
    ]
    if len(search.order) > len(tried):
        lines.append(f"  and {len(search.order) - len(tried)} with less effect")
    if search.made.resources.get("has_own_qparams"):
        lines.append("  the model brings its own scales, which are kept: there is nothing to restore")
    ways = ["lower --min-ratio"]
    if options.boundary == "int8":
        ways.append("let inputs and outputs have more than 8 bits (--io float, or --int16 with their names)")
    if not options.corrections:
        ways.append("add --corrections")
    if options.no_float or options.strict:
        ways.append(f"leave out {'--no-float' if options.no_float else '--strict'}")
    return QccError("\n".join(lines), hint="; or ".join(ways))
