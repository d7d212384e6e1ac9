"""Statistics of a whole graph: of every value that needs a range, with a few samples; mergeable, constant memory."""

from __future__ import annotations

import hashlib
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from qcc.ir import interpreter
from qcc.ir.errors import PassError
from qcc.ir.graph import Graph, Value
from qcc.ir.ops.activation import Clamp
from qcc.ir.printer import print_graph
from qcc.passes.base import PassContext
from qcc.passes.statistics import Picked, TensorStatistics

Batch = Mapping[str, NDArray[Any]]
Arrays = dict[str, NDArray[Any]]
Record = Callable[[Value, NDArray[Any]], None]
Extremes = tuple[float, float]
T = TypeVar("T")
# runs the graph on one batch and hands every wanted value, in any layout, to the callback; several threads call it at once
Observe = Callable[[Batch, Record], None]

KEPT_SAMPLES, KEPT_BYTES = 32, 16 * 2**20  # at most so many samples, in so much memory, but at least one
_HASHED = 256  # elements of each input of a sample, at most
# Histograms count at most so many samples: all, or those whose keys end in so many zero bits. Layer n ends in n.
COUNTED_SAMPLES, LAYERS = 192, 8
# Samples that one thread runs at a time: at most so many, with as much memory for all their values, but at least one
_TOGETHER, _HELD_BYTES = 32, 8 * 2**20


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
    total = int(ctx.resources.get("calibration_samples", 0))
    together = max(1, min(_TOGETHER, _HELD_BYTES // (sum(v.type.bytes for v in values) or 1)))
    with _InOrder(processors()) as jobs:
        counting = None
        if histogram:
            counting = _Counting(graph, factory(graph, values, []), found, jobs, together, every)
        for batch in batches:
            count = len(next(iter(batch.values())))
            if count == 0:
                continue
            for part in _parts(batch, -(-count // together)):
                jobs.add(partial(_extremes, observe, part, tensors), partial(_widen, tensors))
            jobs.add(None, lambda _: _end_batch(tensors))
            layers = _layers(found.sketch.update(batch))
            for layer in layers:
                found.seen[layer] += 1
            if counting is not None:
                counting.add(batch, layers)
            ctx.progress("calibrating", found.count, total)
        if counting is not None:
            counting.finish()
    if found.count == 0:
        raise PassError("the calibration data is empty", hint="give at least one sample")
    for value in values:
        tensors[value.name].count = found.count * value.type.elements
        tensors[value.name].keep_layers(found.first_layer)
    return found


def _parts(batch: Batch, count: int) -> list[Batch]:
    """``batch`` cut along its samples."""
    split = {name: np.array_split(array, count) for name, array in batch.items()}
    return [dict(zip(split, arrays, strict=True)) for arrays in zip(*split.values(), strict=True)]


def _extremes(observe: Observe, batch: Batch, tensors: Mapping[str, TensorStatistics]) -> dict[str, Extremes]:
    """By name, those of the values in ``tensors``, to which nothing is added."""
    found: dict[str, Extremes] = {}

    def record(value: Value, array: NDArray[Any]) -> None:
        tensor = tensors.get(value.name)
        if tensor is not None and array.size:
            low, high = _finite(value, tensor.extremes, array)
            least, largest = found.get(value.name, (low, high))
            found[value.name] = min(least, low), max(largest, high)

    observe(batch, record)
    return found


def _widen(tensors: Mapping[str, TensorStatistics], found: Mapping[str, Extremes]) -> None:
    for name, (low, high) in found.items():
        tensors[name].widen(low, high)


def _end_batch(tensors: Mapping[str, TensorStatistics]) -> None:
    for tensor in tensors.values():
        tensor.end_batch()


def processors() -> int:
    """Those that this process may use, and as many threads as call an Observe at once."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


class _InOrder:
    """Jobs that threads do, and what follows each, done here in the order of the jobs, whatever the threads do first.

    Few wait: one more than there are threads. With one processor all is done here.
    """

    def __init__(self, threads: int) -> None:
        self._pool, self._threads = ThreadPoolExecutor(threads), threads
        self._waiting: deque[tuple[Future[Any] | None, Callable[[Any], object]]] = deque()

    def add(self, job: Callable[[], Any] | None, then: Callable[[Any], object]) -> None:
        """Do ``job`` some time, if there is one, and ``then`` with its result."""
        if self._threads == 1:
            then(job() if job is not None else None)
            return
        self._waiting.append((None if job is None else self._pool.submit(job), then))
        while sum(future is not None for future, _ in self._waiting) > self._threads + 1:
            self._follow()

    def _follow(self) -> None:
        future, then = self._waiting.popleft()
        then(None if future is None else future.result())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error: type[BaseException] | None, *more: object) -> None:
        """Wait for all jobs; after an error, for those that run."""
        try:
            while self._waiting and error is None:
                self._follow()
        finally:
            self._pool.shutdown(cancel_futures=True)


class _Counting:
    """Runs samples for the histograms, those of one layer together, and late: most are dropped while they wait."""

    def __init__(
        self,
        graph: Graph,
        observe: Observe,
        found: GraphStatistics,
        jobs: _InOrder,
        together: int,
        every: bool,
    ) -> None:
        self._observe, self._found, self._jobs = observe, found, jobs
        self._together, self._every = together, every
        self._waiting: dict[int, list[Arrays]] = {}
        self._first = 0
        sample_bytes = sum(v.type.bytes for v in graph.inputs) or 1
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

    def _count(self, layer: int) -> None:
        samples = self._waiting.pop(layer)
        while samples:
            together = [samples.pop() for _ in range(min(self._together, len(samples)))]
            batch = {name: np.stack([s[name] for s in together]) for name in together[0]}
            self._jobs.add(partial(self._pick, batch), partial(_count_picked, layer))

    def _pick(self, batch: Batch) -> list[tuple[TensorStatistics, Picked]]:
        found = []

        def record(value: Value, array: NDArray[Any]) -> None:
            tensor = self._found.tensors.get(value.name)
            if tensor is not None and array.size:
                samples = max(1, array.size // value.type.elements)
                found.append((tensor, _finite(value, tensor.picked, array, samples, self._every)))

        self._observe(batch, record)
        return found


def _count_picked(layer: int, found: list[tuple[TensorStatistics, Picked]]) -> None:
    for tensor, picked in found:
        tensor.count_picked(picked, layer)


def _finite(value: Value, reader: Callable[..., T], *arguments: object) -> T:
    """``reader`` of the arguments, where ``value`` is finite. Raises PassError."""
    try:
        return reader(*arguments)
    except ValueError:
        raise PassError(
            f"%{value.name} is not finite on the calibration data",
            value.producer.location if value.producer else None,
            "the float model overflows, or is not a number, on these samples: check them and the weights",
        ) from None


def _interpret(graph: Graph, values: list[Value], peaks: list[Value]) -> Observe:
    def observe(batch: Batch, record: Record) -> None:
        interpreter.run(graph, batch, observe=record)

    return observe
