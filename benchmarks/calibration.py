"""Calibration of many samples: memory and time, against onnxruntime running the same samples in float.

    python benchmarks/calibration.py
    python benchmarks/calibration.py --models ic,kws --samples 5000

Samples are streamed: the calibration set of the zoo again and again, at a contrast that differs from round to round.
Few and many samples run in processes of their own, so that their peak memory is their own. Times are the least of all
rounds; that of calibration includes loading the float graph into onnxruntime; it is measured with the histograms that most
observers read, and without, for the extremes that the default reads. A whole compilation with corrections, which
keep the first samples, runs once with few and once with many. onnxruntime runs the same graph in
batches of 32, as calibration does, and one sample at a time. The marks: no more memory than with few samples (to 2 %)
either way, and at most 1.5 times the time of the faster of both, histograms included. Exit status 1 when one is missed.
"""

from __future__ import annotations

import json
import math
import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # of one process among others; before numpy is imported

import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import click
import numpy as np
from models import CALIBRATION_SAMPLES, models_option, zoo_option
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

import qcc
from qcc import float_runtime, onnx_importer
from qcc.ir.graph import Graph
from qcc.passes.base import PassContext
from qcc.passes.calibrate import collect, observed_values
from qcc.passes.manager import PassManager

ALLOWED_TIME, ALLOWED_MEMORY = 1.5, 1.02
BATCH = 32
Array = NDArray[Any]


def stream(samples: Array, count: int) -> Iterator[Array]:
    """``count`` samples in batches, each of 64 rounds over ``samples`` at another contrast."""
    for start in range(0, count, BATCH):
        index = np.arange(start, min(start + BATCH, count))
        factor = (1 - index // len(samples) % 64 / 128).astype(np.float32)
        yield samples[index % len(samples)] * factor.reshape(-1, *[1] * (samples.ndim - 1))


def float_graph(zoo: ModuleType, model: str) -> tuple[Graph, Array]:
    """The graph that calibrate sees, and the calibration samples."""
    entry = zoo.load(model)
    graph = PassManager("float,fuse-epilogues").run(onnx_importer.import_model(entry.model))
    return graph, entry.calib[:CALIBRATION_SAMPLES]


def run_child(zoo: ModuleType, model: str, count: int, rounds: int) -> None:
    """Calibrate on ``count`` samples; print seconds and the peak memory in bytes as JSON."""
    graph, samples = float_graph(zoo, model)
    name = graph.inputs[0].name
    runtime = float_runtime.FloatRuntime(graph)
    warm = {name: samples[:BATCH]}
    seconds: dict[str, float] = {}

    def calibrate(count: int, histogram: bool) -> None:
        context = PassContext({"observer_factory": float_runtime.observer})
        batches = ({name: x} for x in stream(samples, count))
        collect(graph, observed_values(graph), batches, context, histogram)

    runs: dict[str, Callable[[], object]] = {
        "calibrate": lambda: calibrate(count, True),
        "extremes": lambda: calibrate(count, False),
        "batches": lambda: [runtime.run({name: x}) for x in stream(samples, count)],
        "single": lambda: [
            runtime.run({name: x[i : i + 1]}) for x in stream(samples, count) for i in range(len(x))
        ],
    }
    runtime.run(warm)
    peak = 0
    for _ in range(rounds):
        for what, run in runs.items():
            start = time.perf_counter()
            run()
            seconds[what] = min(seconds.get(what, math.inf), time.perf_counter() - start)
            peak = peak or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # of calibrate alone
    print(json.dumps({"seconds": seconds, "peak": peak * 1024}))


def compile_child(zoo: ModuleType, model: str, count: int) -> None:
    """Compile with corrections, calibrated on ``count`` samples; print the peak memory in bytes as JSON."""
    entry = zoo.load(model)
    samples = entry.calib[:CALIBRATION_SAMPLES]
    qcc.compile(entry.model, calibration=stream(samples, count), corrections=True)
    print(json.dumps({"peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))


@click.command()
@models_option("ic,kws")
@zoo_option
@click.option("--samples", default=5000, show_default=True, type=click.IntRange(min=200))
@click.option("--rounds", default=7, show_default=True, type=click.IntRange(min=1))
@click.option("--child", type=int, hidden=True)
@click.option("--compiling", is_flag=True, hidden=True)
def main(
    models: list[str], zoo: ModuleType, samples: int, rounds: int, child: int | None, compiling: bool
) -> None:
    """Compare calibration on few and on many samples with onnxruntime in float."""
    if child is not None and compiling:
        compile_child(zoo, models[0], child)
        return
    if child is not None:
        run_child(zoo, models[0], child, rounds)
        return
    table = Table(title=f"Calibration, {samples} samples")
    for heading in (
        "model", "RAM, 100 samples", f"RAM, {samples}", "histogram", "extremes", "float, batches",
        "float, single", "ratios", "RAM, compile, 100", f"RAM, compile, {samples}", "marks",
    ):  # fmt: skip
        table.add_column(heading, justify="left" if heading == "model" else "right")
    passed = True
    for model in models:
        few, many = child_result(model, 100, 1), child_result(model, samples, rounds)
        seconds, peak = many["seconds"], many["peak"]
        fastest = min(seconds["batches"], seconds["single"])
        ratio, plain = (seconds[what] / fastest for what in ("calibrate", "extremes"))
        whole = [child_result(model, n, 1, "--compiling")["peak"] for n in (100, samples)]
        good = ratio <= ALLOWED_TIME and peak <= ALLOWED_MEMORY * few["peak"]
        good &= whole[1] <= ALLOWED_MEMORY * whole[0]
        passed &= good
        table.add_row(
            model,
            *(f"{p / 2**20:.0f} MiB" for p in (few["peak"], peak)),
            *(f"{seconds[key]:.2f} s" for key in ("calibrate", "extremes", "batches", "single")),
            f"{ratio:.2f}, {plain:.2f}",
            *(f"{p / 2**20:.0f} MiB" for p in whole),
            "[green]pass[/]" if good else "[red]fail[/]",
        )
    Console(width=130).print(table)
    sys.exit(0 if passed else 1)


def child_result(model: str, count: int, rounds: int, *more: str) -> Any:
    """What a process of its own prints for one run."""
    command = [
        sys.executable,
        __file__,
        "--models",
        model,
        "--child",
        str(count),
        "--rounds",
        str(rounds),
        *more,
    ]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


if __name__ == "__main__":
    main()
