"""Time per inference: of a built library, and of onnxruntime on the same float graph."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from qcc import verify
from qcc.backends.c import run
from qcc.ir.errors import TargetError
from qcc.ir.graph import Graph

BLOCK_SECONDS = 2e-4  # calls are timed in blocks of at least this, so that reading the clock does not count


@dataclass(frozen=True)
class Timing:
    """Microseconds per call: the median and the fastest of ``blocks`` blocks of ``calls`` calls each."""

    median_us: float
    min_us: float
    blocks: int
    calls: int


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
    first = {name: array[:1] for name, array in inputs.items()}
    given = first if float_boundary else verify.quantize_inputs(graph, first)
    return time_call(library.prepared(library.block(given)[0]), seconds)


def _seconds_of(call: Callable[[], object], calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        call()
    return time.perf_counter() - start
