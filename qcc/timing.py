"""Time per inference: of a built library, of its steps, and of onnxruntime on the same float graph."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcc import verify
from qcc.backends.c import run
from qcc.backends.c.names import short_names
from qcc.ir.errors import TargetError
from qcc.ir.graph import Graph

Array = NDArray[Any]
PEAK_ROUNDS = 20_000  # of the loop over registers: about a tenth of a millisecond
BLOCK_SECONDS = 2e-4  # calls are timed in blocks of at least this, so that reading the clock does not count


@dataclass(frozen=True)
class Timing:
    """Microseconds per call: the median and the fastest of ``blocks`` blocks of ``calls`` calls each."""

    median_us: float
    min_us: float
    blocks: int
    calls: int


@dataclass(frozen=True)
class StepTiming:
    """Microseconds of one step of a library, over all runs. ``name``: of the value it computes, without what most
    names begin with."""

    name: str
    kernel: str
    macs: int
    median_us: float
    min_us: float


@dataclass(frozen=True)
class StepTimings:
    """All steps, in order. ``runs``: inferences timed; ``peak_gmacs``: what the processor can do, None where not known."""

    steps: tuple[StepTiming, ...]
    runs: int
    peak_gmacs: float | None


def time_call(call: Callable[[], object], seconds: float) -> Timing:
    """Time ``call`` for about ``seconds``, after calls that warm it up."""
    calls = 1
    while _seconds_of(call, calls) < BLOCK_SECONDS:
        calls *= 2
    _seconds_of(call, calls)
    blocks: list[float] = []
    end = time.perf_counter() + seconds
    while not blocks or time.perf_counter() < end:
        blocks.append(_seconds_of(call, calls) / calls * 1e6)
    return Timing(statistics.median(blocks), min(blocks), len(blocks), calls)


def time_library(
    library: run.Compiled, graph: Graph, inputs: verify.Arrays, float_boundary: bool, seconds: float
) -> Timing:
    """Time a built library on the first of ``inputs`` (float32, N samples), all conversions left out.

    Raises TargetError for a library that does not run in this process.
    """
    if not isinstance(library, run.Library):
        raise TargetError(
            f"target {library.meta['target']} cannot be timed here: the time of an emulator says nothing",
            hint="compile for target host",
        )
    return time_call(library.prepared(_first_block(library, graph, inputs, float_boundary)), seconds)


def time_steps(
    library: run.TimedLibrary, graph: Graph, inputs: verify.Arrays, float_boundary: bool, seconds: float
) -> StepTimings:
    """Time every step of a library for about ``seconds``, on the first of ``inputs`` (float32, N samples)."""
    call = library.step_microseconds(_first_block(library, graph, inputs, float_boundary))
    call()
    runs: list[Array] = []
    end = time.perf_counter() + seconds
    while not runs or time.perf_counter() < end:
        runs.append(call())
    times = np.stack(runs)
    layers = library.meta["layers"]
    names = [layer["name"] for layer in layers]
    short = short_names(names)
    steps = tuple(
        StepTiming(short[name], layer["kernel"], layer["macs"], median, least)
        for name, layer, median, least in zip(
            names, layers, np.median(times, 0).tolist(), times.min(0).tolist(), strict=True
        )
    )
    return StepTimings(steps, len(runs), _peak_gmacs(library, seconds / 10))


def _peak_gmacs(library: run.TimedLibrary, seconds: float) -> float | None:
    peak = library.peak
    if peak is None:
        return None
    return peak(PEAK_ROUNDS) / time_call(lambda: peak(PEAK_ROUNDS), seconds).min_us / 1e3


def _first_block(
    library: run.Compiled, graph: Graph, inputs: verify.Arrays, float_boundary: bool
) -> NDArray[np.uint8]:
    """The first sample as the library takes it."""
    first = {name: array[:1] for name, array in inputs.items()}
    given = first if float_boundary else verify.quantize_inputs(graph, first)
    block: NDArray[np.uint8] = library.block(given)[0]
    return block


def _seconds_of(call: Callable[[], object], calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        call()
    return time.perf_counter() - start
