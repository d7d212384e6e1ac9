"""Calibration: run the float graph on sample inputs and give every materialized value a range."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

from qcc.ir.errors import PassError
from qcc.ir.graph import Graph, Value
from qcc.ir.qspec import QSpec
from qcc.passes.adopt_qparams import undictated
from qcc.passes.base import Note, Pass, PassContext, PassResult, register_pass
from qcc.passes.extremes import prefer_extremes
from qcc.passes.graph_statistics import Batch, GraphStatistics, collect
from qcc.passes.observers import CALIBRATORS, WITHOUT_HISTOGRAM, ranges_of, register_calibrator
from qcc.passes.output_error import ReaderErrors

__all__ = ["CALIBRATORS", "Calibrate", "collect", "observed_values", "observer_names", "register_calibrator"]

SEARCHES = ("auto", "eq")  # observers that need the graph and a few samples besides the statistics
AUTO_CHOICES = ("min-max", "percentile", "mse", "kl", "admm", "moving-average")


@register_pass
class Calibrate(Pass):
    """Give each value that will be materialized its real range.

    A value whose qparams the model brings needs none; where that is all of them, no data is read.

    Reads ctx.resources: ``calibration``, an iterable of batches {input name: float32[n, ...]}, or ``statistics``,
    GraphStatistics of earlier runs, which take its place; ``observer_factory`` (optional), (graph, values) ->
    Observe: how to run the graph; the interpreter where absent; ``full_statistics``: True where the statistics will be
    stored. Leaves ``collected_statistics`` there. A range is widened to hold 0, so that real zero is exact. Values
    fused into a residual add get a range too: choose-qparams may have to undo that fusion.

    ``observer``: one of CALIBRATORS; ``auto``: for each value that of AUTO_CHOICES with the least error in the results
    of the nodes that read it, the first where none is clearly better, and min-max for all where the outputs then have less
    error (see prefer_extremes); ``eq``: scales of values and weights in turns, which gives weights a range too. Both
    measure on samples that the statistics keep. ``tensors``: GLOB=OBSERVER for names of values; the first match counts.
    ``outputs``: that of the graph's outputs, where it is another one; with auto, min-max, as nothing reads them. ``p``:
    what percentile keeps. ``every``: histograms count every element of their samples. ``qspec``: the codes that ranges are
    chosen for, as for choose-qparams.
    Raises PassError without calibration data, where a value is not finite, and for statistics of another graph.
    """

    name = "calibrate"
    stage = "float"
    result_stage = "annotated"
    ensures = ("has_ranges",)
    exactness = "exact"
    observer: str = "min-max"
    p: float = 99.99
    tensors: tuple[str, ...] = ()
    outputs: str = ""
    every: bool = False
    qspec: str = ""

    @property
    def spec(self) -> QSpec:
        """``qspec`` as a QSpec."""
        return QSpec.parse(self.qspec)

    def run(self, graph: Graph, ctx: PassContext) -> PassResult:
        """Set ``range`` on values; the graph becomes annotated."""
        if not 0 < self.p <= 100:
            raise PassError(f"p = {self.p} is no percentage", hint="give the share to keep, such as p=99.99")
        spec, values = self.spec, undictated(observed_values(graph))
        for value in observed_values(graph):
            if value.type.qparams is not None:
                value.range = value.type.qparams.range
        if not values:
            graph.stage = "annotated"
            return PassResult(True)
        chosen = self._observers(graph, values)
        statistics = self._statistics(graph, values, set(chosen.values()), ctx)
        notes, readers, taken = list[Note](), None, dict[str, str]()
        for number, value in enumerate(values):
            tensor, name = statistics.tensors[value.name], chosen[value.name]
            if name in SEARCHES and readers is None:
                readers = ReaderErrors(graph, statistics.sketch.batch(), spec)
            if name == "auto" and readers is not None:
                ranges = {n: ranges_of(tensor, n, self) for n in AUTO_CHOICES}
                name = readers.least_error(value, ranges)
                value.range = ranges[name]
            elif name == "eq" and readers is not None:
                value.range, factors = readers.alternating_cosine(value, ranges_of(tensor, "min-max", self))
                notes += _clip_weights(value, factors)
            else:
                value.range = ranges_of(tensor, name, self)
            taken[value.name] = name
            if readers is not None:
                ctx.progress("choosing ranges", number + 1, len(values))
        extremes = {
            v.name: ranges_of(statistics.tensors[v.name], "min-max", self)
            for v in values
            if chosen[v.name] == "auto"
        }
        if extremes and (note := prefer_extremes(graph, extremes, self.qspec, self._judge(statistics, ctx))):
            notes.append(note)
            taken |= dict.fromkeys(extremes, "min-max") if note.applied else {}
        for value in values:
            low, high = value.range or (0.0, 0.0)
            notes.append(Note(value.name, f"calibrate-{taken[value.name]}", True, f"[{low:.6g}, {high:.6g}]"))
        graph.stage = "annotated"
        ctx.resources["collected_statistics"] = statistics
        ctx.resources["calibrated_graph"] = graph.clone()  # what every later error is measured against
        return PassResult(True, tuple(notes))

    def _judge(self, statistics: GraphStatistics, ctx: PassContext) -> PassContext:
        """``ctx``; where statistics will be stored, with their samples: the file must lead to the same ranges."""
        if not (ctx.resources.get("full_statistics") and ctx.resources.get("correction_samples")):
            return ctx
        return PassContext(ctx.resources | {"correction_samples": statistics.sketch.batch()}, ctx.progress)

    def _observers(self, graph: Graph, values: list[Value]) -> dict[str, str]:
        """The observer of each value, by its name."""
        patterns = []
        for text in self.tensors:
            pattern, equals, observer = text.rpartition("=")
            if not equals:
                raise PassError(
                    f"{text!r} names no observer", hint="write GLOB=OBSERVER, such as *conv1*=mse"
                )
            if not any(fnmatchcase(v.name, pattern) for v in values):
                some = ", ".join(v.name for v in values[:5])
                raise PassError(f"no value matches {pattern!r}", hint=f"some of the values: {some}")
            patterns.append((pattern, observer))
        outputs = self.outputs or ("min-max" if self.observer == "auto" else self.observer)
        for observer in (self.observer, outputs, *(o for _, o in patterns)):
            if observer not in observer_names():
                known = ", ".join(observer_names())
                raise PassError(f"unknown observer {observer!r}", hint=f"known observers: {known}")
        others = {v.name: outputs if graph.is_output(v) else self.observer for v in values}
        return {n: next((o for pattern, o in patterns if fnmatchcase(n, pattern)), others[n]) for n in others}

    def _statistics(
        self, graph: Graph, values: list[Value], observers: set[str], ctx: PassContext
    ) -> GraphStatistics:
        """Those that were lent, or collected now."""
        given: GraphStatistics | None = ctx.resources.get("statistics")
        if given is not None:
            given.require(graph, [v.name for v in values])
            return given
        batches: Iterable[Batch] | None = ctx.resources.get("calibration")
        if batches is None:
            raise PassError(
                "calibrate has no calibration data", hint="pass --calib data.npz, or samples in resources"
            )
        full = bool(ctx.resources.get("full_statistics")) or not observers <= {*WITHOUT_HISTOGRAM}
        return collect(graph, values, batches, ctx, histogram=full, every=self.every)


def observer_names() -> list[str]:
    """All that ``observer`` may be."""
    return sorted([*CALIBRATORS, *SEARCHES])


def observed_values(graph: Graph) -> list[Value]:
    """Values that need a range: all that are materialized, and weighted sums fused into an add."""
    computed = [*graph.inputs, *(n.output for n in graph.nodes)]
    return [v for v in computed if not v.fused or _may_be_unfused(v)]


def _may_be_unfused(value: Value) -> bool:
    weighted = value.producer is not None and value.producer.op.quant_rule().weight is not None
    return weighted and any(u.op.accumulates for u in value.users)


def _clip_weights(value: Value, factors: dict[str, float]) -> list[Note]:
    """Give the weights of the readers their range, where it is less than all they have."""
    notes = []
    for reader in dict.fromkeys(value.users):
        factor, index = factors.get(reader.name, 1.0), reader.op.quant_rule().weight
        if factor == 1.0 or index is None:
            continue
        weight = reader.input(index)
        assert weight.data is not None
        largest = factor * float(abs(weight.data).max())
        weight.range = (-largest, largest)
        notes.append(Note(reader.name, "clip-weight", True, f"scales times {factor:.3g}"))
    return notes
