"""The ``.qstats`` file: statistics of a graph as an ``.npz`` of plain arrays with a JSON header; nothing in it runs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcc.ir.errors import ParseError
from qcc.ir.location import Location
from qcc.ir.npz import load_arrays, pack_arrays, write_aside
from qcc.passes.graph_statistics import LAYERS, GraphStatistics, SampleSketch
from qcc.passes.statistics import AVERAGING, BINS, SMALLEST_EXPONENT, MovingRange, TensorStatistics

FORMAT = "qcc-statistics-3"
_HEADER = "header"  # JSON in UTF-8, u8[n]
# Of each tensor f64: min, max, first and decayed of the moving average; s64: count, batches, exponent, first bin, number
# of layers. Of each layer s64: its number, first and number of used bins, whose counts follow each other in "counts";
# f64: the sums over its samples.
_REALS, _INTEGERS, _LAYER, _SUMS = 6, 5, 3, 4
_LARGEST_BIN = 4 * BINS

Layer = tuple[int, NDArray[np.int64], NDArray[np.float64]]


def save_statistics(statistics: GraphStatistics, path: Path) -> None:
    """Write the file; equal statistics give equal bytes."""
    tensors = list(statistics.tensors.values())
    keys = sorted(statistics.sketch.samples)
    inputs = sorted(statistics.sketch.samples[keys[0]]) if keys else []
    header = {
        "format": FORMAT,
        "digest": statistics.digest,
        "seen": statistics.seen,
        "averaging": AVERAGING,
        "values": list(statistics.tensors),
        "inputs": inputs,
        "kept": statistics.sketch.limit,
    }
    layers = [(n, *_used(counts), counts) for t in tensors for n, counts in sorted(t.layers.items())]
    arrays: dict[str, NDArray[Any]] = {
        _HEADER: np.frombuffer(json.dumps(header).encode(), np.uint8),
        "reals": np.array(
            [(t.min, t.max, *t.moving.first, *t.moving.decayed) for t in tensors], np.float64
        ).reshape(-1, _REALS),
        "integers": np.array(
            [(t.count, t.moving.batches, t.exponent, t.first, len(t.layers)) for t in tensors],
            np.int64,
        ).reshape(-1, _INTEGERS),
        "layers": np.array([(n, start, end - start) for n, start, end, _ in layers], np.int64).reshape(
            -1, _LAYER
        ),
        "sums": np.array([t.sample_sums[n] for t in tensors for n in sorted(t.layers)], np.float64).reshape(
            -1, _SUMS
        ),
        "counts": np.concatenate([np.zeros(0, np.int64), *(c[start:end] for _, start, end, c in layers)]),
        "keys": np.array(keys, np.uint64),
    }
    for number, name in enumerate(inputs):
        arrays[f"input_{number}"] = np.stack([statistics.sketch.samples[key][name] for key in keys])
    write_aside(path, pack_arrays(arrays))


def load_statistics(path: Path) -> GraphStatistics:
    """Read the file. Raises ParseError for one that is damaged, or no such file."""
    arrays = load_arrays(path)
    try:
        header = json.loads(bytes(arrays[_HEADER]).decode())
        if header["format"] != FORMAT or header["averaging"] != AVERAGING:
            raise ValueError(f"it is {header['format']!r}, expected {FORMAT!r}")
        return _statistics(header, arrays)
    except (KeyError, ValueError, TypeError, IndexError, AttributeError) as error:
        raise ParseError(
            f"these are no statistics that this version reads: {error}",
            Location(str(path)),
            "write them with qcc compile --save-stats",
        ) from error


def _statistics(header: Any, arrays: dict[str, NDArray[Any]]) -> GraphStatistics:
    names = [str(n) for n in header["values"]]
    reals, integers = arrays["reals"], arrays["integers"]
    if reals.shape != (len(names), _REALS) or integers.shape != (len(names), _INTEGERS):
        raise ValueError("its arrays do not fit its header")
    if reals.dtype != np.float64 or integers.dtype != np.int64:
        raise ValueError("its arrays have other types")
    layers = _layers(arrays["layers"], arrays["counts"], arrays["sums"])
    tensors = {}
    for name, real, integer in zip(names, reals.tolist(), integers.tolist(), strict=True):
        tensors[name] = _tensor(real, integer, list(islice(layers, integer[4])))
    if next(layers, None) is not None:
        raise ValueError("it holds other counts than its header says")
    sketch = SampleSketch(int(header["kept"]))
    inputs = {str(n): arrays[f"input_{i}"] for i, n in enumerate(header["inputs"])}
    for number, key in enumerate(arrays["keys"].tolist()):
        sketch.samples[key] = {n: a[number] for n, a in inputs.items()}
    seen = [int(n) for n in header["seen"]]
    if len(seen) != LAYERS or min(seen) < 0:
        raise ValueError("its numbers of samples cannot be")
    return GraphStatistics(str(header["digest"]), tensors, sketch, seen)


def _layers(table: NDArray[Any], counts: NDArray[Any], sums: NDArray[Any]) -> Iterator[Layer]:
    """(number, histogram, sums over samples) of the layers of all tensors."""
    if table.shape != (len(table), _LAYER) or table.dtype != np.int64 or counts.dtype != np.int64:
        raise ValueError("its arrays have other types")
    if sums.shape[1:] != (_SUMS,) or sums.dtype != np.float64:
        raise ValueError("its arrays have other types")
    if not np.isfinite(sums).all() or (sums[:, 0] < 1).any():
        raise ValueError("its means over samples cannot be")
    position = 0
    for (layer, start, held), sample_sums in zip(table.tolist(), sums, strict=False):
        if not (0 <= layer < LAYERS and start >= 0 and 0 <= held <= BINS - start):
            raise ValueError("a histogram has bins that cannot be")
        part = counts[position : position + held]
        if len(part) != held or (held and part.min() < 0):
            raise ValueError("a histogram is cut short")
        position += held
        whole = np.zeros(BINS, np.int64)
        whole[start : start + held] = part
        yield layer, whole, sample_sums.copy()
    if position != len(counts) or len(sums) != len(table):
        raise ValueError("it holds other counts than its header says")


def _tensor(real: list[float], integer: list[int], layers: list[Layer]) -> TensorStatistics:
    made = TensorStatistics()
    made.min, made.max = real[:2]
    made.moving = MovingRange(integer[1], (real[2], real[3]), (real[4], real[5]))
    made.count, _, made.exponent, made.first, held = integer
    made.layers = {number: counts for number, counts, _ in layers}
    made.sample_sums = {number: sums for number, _, sums in layers}
    if len(made.layers) != held:
        raise ValueError("a histogram is cut short")
    if abs(made.first) >= _LARGEST_BIN:
        raise ValueError("a histogram has bins that cannot be")
    if not SMALLEST_EXPONENT <= made.exponent <= 128 or not (np.isfinite(real).all() and real[0] <= real[1]):
        raise ValueError("a range is not finite")
    return made


def _used(counts: NDArray[np.int64]) -> tuple[int, int]:
    """First used bin and the one behind the last."""
    used = np.flatnonzero(counts)
    return (int(used[0]), int(used[-1]) + 1) if used.size else (0, 0)
