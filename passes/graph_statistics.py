"""Statistics of a whole graph: of every value that needs a range, with a few samples; mergeable, constant memory."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcc.ir import interpreter
from qcc.ir.errors import PassError
from qcc.ir.graph import Graph, Value
from qcc.ir.ops.activation import Clamp
from qcc.ir.printer import print_graph
from qcc.passes.base import PassContext
from qcc.passes.statistics import TensorStatistics

Batch = Mapping[str, NDArray[Any]]
Arrays = dict[str, NDArray[Any]]
Record = Callable[[Value, NDArray[Any]], None]
# runs the graph on one batch and hands every wanted value, in any layout, to the callback
Observe = Callable[[Batch, Record], None]

KEPT_SAMPLES, KEPT_BYTES = 32, 16 * 2**20  # at most so many samples, in so much memory, but at least one
_HASHED = 256  # elements of each input of a sample, at most
# Histograms count at most so many samples: all, or those whose keys end in so many zero bits. Layer n ends in n.
COUNTED_SAMPLES, LAYERS = 192, 8
_TOGETHER = 32  # samples in one run for the histograms


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

    def update(self, batch: Batch) -> NDArray[np.uint64]:
        """Add the samples of a batch; returns their keys."""
        keys = _keys(batch)
        largest = max(self.samples) if len(self.samples) >= self.limit else 2**64
        for index in np.flatnonzero(keys < largest) if largest < 2**64 else range(len(keys)):
            self.samples[int(keys[index])] = {name: array[index].copy() for name, array in batch.items()}
            self._trim()
        return keys

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


def _keys(batch: Batch) -> NDArray[np.uint64]:
    """A hash of each sample: sum of its words times odd numbers, modulo 2^64, and then mixed (Steele et al. 2014)."""
    keys = np.zeros(len(next(iter(batch.values()), ())), np.uint64)
    for number, name in enumerate(sorted(batch)):
        rows = batch[name].reshape(len(keys), -1)
        kept = np.ascontiguousarray(rows[:, :: max(1, -(-rows.shape[1] // _HASHED))])
        words: NDArray[Any] = kept.view(np.uint32 if kept.itemsize % 4 == 0 else np.uint8)
        keys += words @ _odd_numbers(number, words.shape[1])
    return _mixed(keys)


@cache
def _odd_numbers(row: int, count: int) -> NDArray[np.uint64]:
    return _mixed(np.arange(count, dtype=np.uint64) + np.uint64(row << 32)) | np.uint64(1)


def _mixed(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64: numbers that look random, all different for different ``x``."""
    x = (x + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _layers(keys: NDArray[np.uint64]) -> list[int]:
    """The layers of histograms that samples count in; a layer has as many as all behind it."""
    return [min((key & -key).bit_length() - 1, LAYERS - 1) if key else LAYERS - 1 for key in keys.tolist()]


@dataclass
class GraphStatistics:
    """What one pass over the calibration data leaves of a float graph, whatever observer reads it later.

    ``digest``: of the graph, weights included, at the place of calibrate in the pipeline. ``tensors``: by value name.
    ``seen``: how many samples there were of each layer. Histograms keep the layers from ``first_layer`` on.
    """

    digest: str
    tensors: dict[str, TensorStatistics]
    sketch: SampleSketch
    seen: list[int] = field(default_factory=lambda: [0] * LAYERS)

    @property
    def count(self) -> int:
        """How many samples there were."""
        return sum(self.seen)

    @property
    def first_layer(self) -> int:
        """The first layer that leaves at most COUNTED_SAMPLES, or else the last one that has any."""
        fits = next((n for n in range(LAYERS) if sum(self.seen[n:]) <= COUNTED_SAMPLES), LAYERS)
        return min(fits, max((n for n in range(LAYERS) if self.seen[n]), default=0))

    def merge(self, other: GraphStatistics) -> None:
        """Add the statistics of later batches. Raises PassError where they are those of another graph."""
        if other.digest != self.digest or list(other.tensors) != list(self.tensors):
            raise PassError(
                "the statistics are those of different models",
                hint="merge statistics of one model, compiled with the same float passes",
            )
        self.seen = [a + b for a, b in zip(self.seen, other.seen, strict=True)]
        for name, tensor in self.tensors.items():
            tensor.merge(other.tensors[name])
            tensor.keep_layers(self.first_layer)
        self.sketch.merge(other.sketch)

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


def never_negative(value: Value) -> bool:
    """Whether an op in front of ``value`` keeps it from being below 0."""
    node = value.producer
    if node is None:
        return False
    if node.op.name in ("max_pool2d", "concat"):
        return all(never_negative(v) for v in node.inputs if v is not None)
    return isinstance(node.op, Clamp) and min(node.op.low, node.op.high) >= 0.0


def collect(
    graph: Graph,
    values: list[Value],
    batches: Iterable[Batch],
    ctx: PassContext,
    histogram: bool = True,
    every: bool = False,
) -> GraphStatistics:
    """Statistics of ``values`` over all batches. One pass, constant memory.

    ``histogram``: False where only extremes and their moving average will be read. Histograms are those of some
    samples, in a run of their own, of which ``every`` element counts, or some; the run of all samples hands out no more
    than the extremes need.
    Raises PassError where a value is not finite, and where there is no sample.
    """
    peaks = [v for v in values if never_negative(v)]
    tensors = {v.name: TensorStatistics(v in peaks) for v in values}
    found = GraphStatistics(digest_of(graph), tensors, SampleSketch.of_graph(graph))
    factory = ctx.resources.get("observer_factory", _interpret)
    observe: Observe = factory(graph, values, peaks)
    sample_bytes = sum(v.type.bytes for v in graph.inputs) or 1
    counting = _Counting(factory(graph, values, []), found, sample_bytes, every) if histogram else None
    total = int(ctx.resources.get("calibration_samples", 0))
    for batch in batches:
        count = len(next(iter(batch.values())))
        if count == 0:
            continue
        observe(batch, _checking(tensors, lambda tensor, array, count: tensor.extend(array)))
        for tensor in tensors.values():
            tensor.end_batch()
        layers = _layers(found.sketch.update(batch))
        for layer in layers:
            found.seen[layer] += 1
        if counting is not None:
            counting.add(batch, layers)
        ctx.progress("calibrating", found.count, total)
    if found.count == 0:
        raise PassError("the calibration data is empty", hint="give at least one sample")
    if counting is not None:
        counting.finish()
    for value in values:
        tensors[value.name].count = found.count * value.type.elements
    return found


class _Counting:
    """Runs samples for the histograms, those of one layer together, and late: most are dropped while they wait."""

    def __init__(self, observe: Observe, found: GraphStatistics, sample_bytes: int, every: bool) -> None:
        self._observe = observe
        self._every = every
        self._found = found
        self._waiting: dict[int, list[Arrays]] = {}
        self._first = 0
        self._limit = max(1, min(COUNTED_SAMPLES, KEPT_BYTES // sample_bytes))

    def add(self, batch: Batch, layers: list[int]) -> None:
        """Add those samples that may be kept; drop what can no longer be."""
        if self._found.first_layer > self._first:
            self._first = self._found.first_layer
            for layer in [n for n in self._waiting if n < self._first]:
                del self._waiting[layer]
            for tensor in self._found.tensors.values():
                tensor.keep_layers(self._first)
        for index, layer in enumerate(layers):
            if layer < self._first:
                continue
            waiting = self._waiting.setdefault(layer, [])
            waiting.append({name: array[index].copy() for name, array in batch.items()})
            if sum(map(len, self._waiting.values())) > self._limit:
                self._count(max(self._waiting, key=lambda n: len(self._waiting[n])))

    def finish(self) -> None:
        """Count those that wait."""
        for layer in sorted(self._waiting):
            self._count(layer)
        for tensor in self._found.tensors.values():
            tensor.keep_layers(self._first)

    def _count(self, layer: int) -> None:
        samples = self._waiting.pop(layer)
        record = _checking(
            self._found.tensors, lambda tensor, array, count: tensor.tally(array, layer, count, self._every)
        )
        while samples:
            together = [samples.pop() for _ in range(min(_TOGETHER, len(samples)))]
            self._observe({name: np.stack([s[name] for s in together]) for name in together[0]}, record)


def _checking(
    tensors: Mapping[str, TensorStatistics], add: Callable[[TensorStatistics, NDArray[Any], int], None]
) -> Record:
    """``add``, of statistics, an array and its number of samples, for those values that are in ``tensors``."""

    def record(value: Value, array: NDArray[Any]) -> None:
        if value.name not in tensors:
            return
        try:
            add(tensors[value.name], array, max(1, array.size // value.type.elements))
        except ValueError:
            raise PassError(
                f"%{value.name} is not finite on the calibration data",
                value.producer.location if value.producer else None,
                "the float model overflows, or is not a number, on these samples: check them and the weights",
            ) from None

    return record


def _interpret(graph: Graph, values: list[Value], peaks: list[Value]) -> Observe:
    def observe(batch: Batch, record: Record) -> None:
        interpreter.run(graph, batch, observe=record)

    return observe
