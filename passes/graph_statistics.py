"""Statistics of a whole graph: of every value that needs a range, with a few samples; mergeable, constant memory."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcc.ir import interpreter
from qcc.ir.errors import PassError
from qcc.ir.graph import Graph, Value
from qcc.ir.printer import print_graph
from qcc.passes.base import PassContext
from qcc.passes.statistics import TensorStatistics

Batch = Mapping[str, NDArray[Any]]
Arrays = dict[str, NDArray[Any]]
# runs the graph on one batch and hands every wanted value, in any layout, to the callback
Observe = Callable[[Batch, Callable[[Value, NDArray[Any]], None]], None]

KEPT_SAMPLES, KEPT_BYTES = 32, 16 * 2**20  # at most so many samples, in so much memory, but at least one
_HASHED = 512  # elements of each input of a sample


@dataclass
class SampleSketch:
    """The samples whose keys, hashes of their content, are smallest: a random choice that merges in any order.

    ``samples``: by key; each holds one array for each graph input, without the axis of samples. Equal samples count once.
    """

    limit: int
    samples: dict[int, Arrays] = field(default_factory=dict)

    @staticmethod
    def of_graph(graph: Graph) -> SampleSketch:
        """An empty one that suits the inputs of ``graph``."""
        size = sum(v.type.bytes for v in graph.inputs) or 1
        return SampleSketch(max(1, min(KEPT_SAMPLES, KEPT_BYTES // size)))

    def update(self, batch: Batch) -> None:
        """Add the samples of a batch."""
        for index in range(len(next(iter(batch.values()), ()))):
            sample = {name: array[index] for name, array in batch.items()}
            key = _key(sample)
            if len(self.samples) < self.limit or key < max(self.samples):
                self.samples[key] = {name: array.copy() for name, array in sample.items()}
                self._trim()

    def merge(self, other: SampleSketch) -> None:
        """Add the samples of another sketch of the same limit."""
        self.samples |= other.samples
        self._trim()

    def batch(self, count: int | None = None) -> Arrays:
        """The first ``count`` samples in the order of their keys, stacked."""
        chosen = [self.samples[key] for key in sorted(self.samples)[:count]]
        return {name: np.stack([s[name] for s in chosen]) for name in chosen[0]} if chosen else {}

    def _trim(self) -> None:
        for key in sorted(self.samples)[self.limit :]:
            del self.samples[key]


def _key(sample: Arrays) -> int:
    content = hashlib.blake2b(digest_size=8)
    for name in sorted(sample):
        flat = sample[name].reshape(-1)
        content.update(np.ascontiguousarray(flat[:: max(1, len(flat) // _HASHED)]).tobytes())
    return int.from_bytes(content.digest(), "big")


@dataclass
class GraphStatistics:
    """What one pass over the calibration data leaves of a float graph, whatever observer reads it later.

    ``digest``: of the graph, weights included, at the place of calibrate in the pipeline. ``tensors``: by value name.
    """

    digest: str
    tensors: dict[str, TensorStatistics]
    sketch: SampleSketch
    count: int = 0

    def merge(self, other: GraphStatistics) -> None:
        """Add the statistics of later batches. Raises PassError where they are those of another graph."""
        if other.digest != self.digest or list(other.tensors) != list(self.tensors):
            raise PassError(
                "the statistics are those of different models",
                hint="merge statistics of one model, compiled with the same float passes",
            )
        for name, tensor in self.tensors.items():
            tensor.merge(other.tensors[name])
        self.sketch.merge(other.sketch)
        self.count += other.count

    def require(self, graph: Graph, names: Iterable[str]) -> None:
        """Raise PassError unless these are statistics of ``graph`` and have what ``names`` lists."""
        if self.digest == digest_of(graph) and list(self.tensors) == list(names):
            return
        missing = [n for n in names if n not in self.tensors]
        what = f"%{missing[0]} is not in them" if missing else "the graph was another one"
        raise PassError(
            f"the statistics are those of another model: {what}",
            hint="collect them again with --save-stats, for this model and these float passes",
        )


def digest_of(graph: Graph) -> str:
    """SHA-256 of the text of ``graph`` and of all its constants."""
    text, arrays = print_graph(graph)
    content = hashlib.sha256(text.encode())
    for array in arrays.values():
        content.update(np.ascontiguousarray(array).tobytes())
    return content.hexdigest()


def collect(
    graph: Graph, values: list[Value], batches: Iterable[Batch], ctx: PassContext, histogram: bool = True
) -> GraphStatistics:
    """Statistics of ``values`` over all batches. One pass, constant memory.

    ``histogram``: False where only extremes and their moving average will be read.
    Raises PassError where a value is not finite, and where there is no sample.
    """
    found = GraphStatistics(
        digest_of(graph), {v.name: TensorStatistics() for v in values}, SampleSketch.of_graph(graph)
    )
    wanted = {id(v): found.tensors[v.name] for v in values}

    def record(value: Value, array: NDArray[Any]) -> None:
        if id(value) not in wanted:
            return
        try:
            wanted[id(value)].update(array, histogram)
        except ValueError:
            raise PassError(
                f"%{value.name} is not finite on the calibration data",
                value.producer.location if value.producer else None,
                "the float model overflows, or is not a number, on these samples: check them and the weights",
            ) from None

    factory = ctx.resources.get("observer_factory")
    observe: Observe = factory(graph, values) if factory is not None else _interpret(graph)
    total = int(ctx.resources.get("calibration_samples", 0))
    for batch in batches:
        count = len(next(iter(batch.values())))
        if count == 0:
            continue
        observe(batch, record)
        for tensor in wanted.values():
            tensor.end_batch()
        found.sketch.update(batch)
        found.count += count
        ctx.progress("calibrating", found.count, total)
    if found.count == 0:
        raise PassError("the calibration data is empty", hint="give at least one sample")
    return found


def _interpret(graph: Graph) -> Observe:
    def observe(batch: Batch, record: Callable[[Value, NDArray[Any]], None]) -> None:
        interpreter.run(graph, batch, observe=record)

    return observe
