"""Calibration: run the float graph on sample inputs and give every materialized value a range."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from numpy.typing import NDArray

from qcc.ir import interpreter
from qcc.ir.errors import PassError
from qcc.ir.graph import Graph, Value
from qcc.passes.base import Note, Pass, PassContext, PassResult, register_pass
from qcc.passes.statistics import TensorStatistics

Batch = Mapping[str, NDArray[Any]]
Calibrator = Callable[[TensorStatistics, "Calibrate"], tuple[float, float]]
# runs the graph on one batch and hands every wanted value, in any layout, to the callback
Observe = Callable[[Batch, Callable[[Value, NDArray[Any]], None]], None]

CALIBRATORS: dict[str, Calibrator] = {}


def register_calibrator(name: str) -> Callable[[Calibrator], Calibrator]:
    """Decorator: enter a function (statistics, pass options) -> (low, high) under ``observer=name``."""

    def enter(function: Calibrator) -> Calibrator:
        CALIBRATORS[name] = function
        return function

    return enter


@register_calibrator("min-max")
def min_max(statistics: TensorStatistics, options: Calibrate) -> tuple[float, float]:
    """The extremes seen."""
    return statistics.min, statistics.max


@register_calibrator("percentile")
def percentile(statistics: TensorStatistics, options: Calibrate) -> tuple[float, float]:
    """The range that holds ``p`` percent of the elements."""
    return statistics.percentile_range(options.p)


@register_pass
class Calibrate(Pass):
    """Give each value that will be materialized its real range.

    Reads ctx.resources: ``calibration``, an iterable of batches {input name: float32[n, ...]}; ``observer_factory``
    (optional), (graph, values) -> Observe: how to run the graph; the interpreter where absent. A range is
    widened to hold 0, so that real zero is exact. Values fused into a residual add get a range too:
    choose-qparams may have to undo that fusion.
    Raises PassError without calibration data, and where a value is not finite.
    """

    name = "calibrate"
    stage = "float"
    result_stage = "annotated"
    ensures = ("has_ranges",)
    exactness = "exact"
    observer: str = "min-max"
    p: float = 99.99

    def run(self, graph: Graph, ctx: PassContext) -> PassResult:
        """Set ``range`` on values; the graph becomes annotated."""
        if self.observer not in CALIBRATORS:
            known = ", ".join(sorted(CALIBRATORS))
            raise PassError(f"unknown observer {self.observer!r}", hint=f"known observers: {known}")
        if not 0 < self.p <= 100:
            raise PassError(f"p = {self.p} is no percentage", hint="give the share to keep, such as p=99.99")
        batches: Iterable[Batch] | None = ctx.resources.get("calibration")
        if batches is None:
            raise PassError(
                "calibrate has no calibration data", hint="pass --calib data.npz, or samples in resources"
            )
        values = observed_values(graph)
        statistics = collect(graph, values, batches, ctx, histogram=self.observer != "min-max")
        notes = []
        for value in values:
            found = statistics[id(value)]
            low, high = CALIBRATORS[self.observer](found, self)
            value.range = (min(low, 0.0), max(high, 0.0))
            notes.append(Note(value.name, f"calibrate-{self.observer}", True, f"[{low:.6g}, {high:.6g}]"))
        graph.stage = "annotated"
        return PassResult(True, tuple(notes))


def observed_values(graph: Graph) -> list[Value]:
    """Values that need a range: all that are materialized, and weighted sums fused into an add."""
    computed = [*graph.inputs, *(n.output for n in graph.nodes)]
    return [v for v in computed if not v.fused or _may_be_unfused(v)]


def _may_be_unfused(value: Value) -> bool:
    weighted = value.producer is not None and value.producer.op.quant_rule().weight is not None
    return weighted and any(u.op.accumulates for u in value.users)


def collect(
    graph: Graph, values: list[Value], batches: Iterable[Batch], ctx: PassContext, histogram: bool = True
) -> dict[int, TensorStatistics]:
    """Statistics of ``values`` over all batches, by id(value). One pass, constant memory."""
    statistics = {id(v): TensorStatistics() for v in values}
    names = {id(v) for v in values}

    def record(value: Value, array: NDArray[Any]) -> None:
        if id(value) not in names:
            return
        try:
            statistics[id(value)].update(array, histogram)
        except ValueError:
            raise PassError(
                f"%{value.name} is not finite on the calibration data",
                _location(value),
                "the float model overflows, or is not a number, on these samples: check them and the weights",
            ) from None

    factory = ctx.resources.get("observer_factory")
    observe: Observe = factory(graph, values) if factory is not None else _interpret(graph)
    samples = 0
    total = int(ctx.resources.get("calibration_samples", 0))
    for batch in batches:
        count = len(next(iter(batch.values())))
        if count == 0:
            continue
        observe(batch, record)
        samples += count
        ctx.progress("calibrating", samples, total)
    if samples == 0:
        raise PassError("the calibration data is empty", hint="give at least one sample")
    return statistics


def _location(value: Value) -> Any:
    return value.producer.location if value.producer else None


def _interpret(graph: Graph) -> Observe:
    def observe(batch: Batch, record: Callable[[Value, NDArray[Any]], None]) -> None:
        interpreter.run(graph, batch, observe=record)

    return observe
