"""Time of one inference on this x86 machine: qcc for the host beside other engines, on one pinned core.

    python benchmarks/x86.py
    python benchmarks/x86.py --models kws,ic --rounds 20 --json x86.json

All engines take turns in every round, in an order that changes, so that a change of the clock meets them all. What is
timed is one inference on an input in place, called from Python: the call itself costs each of them some of a
microsecond. GMAC/s counts the multiply-accumulates of the model as it was, by the fastest block; the share is that of
the vpdpbusd rate which a loop over registers reached in the same rounds. The library must first equal the interpreter
on a few samples (exit status 1). Compare figures of one run only.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # of one process among others; before numpy is imported

import ctypes
import json
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import numpy as np
from models import CALIBRATION_SAMPLES, models_option, zoo_option
from peers import Job, peers_of
from rich.console import Console
from rich.table import Table

import qcc
from qcc.backends.c.build import find_compiler
from qcc.backends.target import find_target
from qcc.backends.targets import host_target
from qcc.backends.x86.features import AVX512VNNI, lacking_features, processor_features
from qcc.timing import time_call

CHECKED_SAMPLES = 4
PEAK_CALLS = 20_000  # of the inner loop: about a tenth of a millisecond
OURS = "qcc"


@dataclass
class Row:
    """One engine on one model: medians and minima of the rounds, in microseconds."""

    model: str
    engine: str
    macs: int
    medians: list[float] = field(default_factory=list)
    minima: list[float] = field(default_factory=list)

    @property
    def median_us(self) -> float:
        """Median of the rounds' medians."""
        return statistics.median(self.medians)

    @property
    def min_us(self) -> float:
        """The fastest block of all rounds."""
        return min(self.minima)

    @property
    def gmacs(self) -> float:
        """Multiply-accumulates of the model per nanosecond."""
        return self.macs / self.min_us / 1e3


@dataclass
class Peak:
    """The vpdpbusd rate: the best of all rounds, GMAC/s; 0 where the processor has none."""

    gmacs: float = 0.0
    call: Callable[[], float] | None = None

    def measure(self) -> None:
        """One round."""
        if self.call is not None:
            self.gmacs = max(self.gmacs, self.call() / time_call(self.call, 0.02).min_us / 1e3)


@click.command()
@models_option()
@zoo_option
@click.option(
    "--rounds", default=10, show_default=True, type=click.IntRange(1), help="Turns of every engine."
)
@click.option("--seconds", default=0.2, show_default=True, help="Time of an engine in a round.")
@click.option("--core", default=-1, show_default=True, help="Processor to run on; -1: the last one.")
@click.option("--tflite", type=click.Path(path_type=Path), help="Folder of MODEL.tflite files, for LiteRT.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write all figures to this file.")
def main(
    models: list[str], zoo: ModuleType, rounds: int, seconds: float, core: int, tflite: Path | None, json_file: Path | None
) -> None:  # fmt: skip
    """Compile each model for the host and time it beside its peers."""
    pin(core)
    rows: list[Row] = []
    different: list[str] = []
    with tempfile.TemporaryDirectory() as name, Console(stderr=True).status("") as status:
        peak = Peak(call=peak_probe(Path(name)))
        for model in models:
            entry = zoo.load(model)
            folder = Path(name) / model
            folder.mkdir()
            job = Job(model, Path(entry.model), entry.calib[:CALIBRATION_SAMPLES], entry.x[:1], folder)
            status.update(f"{model}: qcc")
            macs, ours = compile_ours(job, entry.x[:CHECKED_SAMPLES])
            if ours is None:
                different.append(model)
                continue
            calls: dict[str, Callable[[], object]] = {OURS: ours}
            for peer, prepare in peers_of(job, tflite).items():
                status.update(f"{model}: {peer}")
                calls[peer] = prepare()
            status.update(f"{model}: timing {len(calls)} engines")
            rows += take_turns(model, macs, calls, peak, rounds, seconds)
    report(rows, peak, different)
    if json_file is not None:
        write_json(json_file, rows, peak)
    sys.exit(1 if different else 0)


def pin(core: int) -> None:
    """Keep this process, and the threads it starts, on one processor."""
    if hasattr(os, "sched_setaffinity"):
        allowed = sorted(os.sched_getaffinity(0))
        if core >= 0 and core not in allowed:
            raise click.BadParameter(f"--core {core}: this process may run on {allowed}")
        os.sched_setaffinity(0, {allowed[-1] if core < 0 else core})


def compile_ours(job: Job, samples: Any) -> tuple[int, Callable[[], object] | None]:
    """The model's multiply-accumulates, and the call of its library; None where that differs from the interpreter."""
    compiled = qcc.compile(job.model, target="host", calibration=job.calibration, name=job.name)
    library = compiled.build(compiled.save(job.folder / "library"))
    verified = compiled.verify(library, samples)
    block = library.compiled.block({compiled.graph.inputs[0].name: compiled.quantize_input(job.sample)})
    return compiled.report["dead_channels"]["macs_before"], library.compiled.prepared(
        block[0]
    ) if verified.exact else None


def take_turns(
    model: str, macs: int, calls: dict[str, Callable[[], object]], peak: Peak, rounds: int, seconds: float
) -> list[Row]:
    """Time every engine once in every round."""
    rows = [Row(model, engine, macs) for engine in calls]
    for number in range(rounds):
        peak.measure()
        for index in range(len(rows)):
            row = rows[(index + number) % len(rows)]
            timing = time_call(calls[row.engine], seconds)
            row.medians.append(timing.median_us)
            row.minima.append(timing.min_us)
    return rows


def peak_probe(folder: Path) -> Callable[[], float] | None:
    """Runs the loop over registers, and returns its multiply-accumulates; None where this processor cannot."""
    target = find_target("x86-avx512vnni")
    compiler = find_compiler(target)
    if compiler is None or lacking_features(AVX512VNNI):
        return None
    library = folder / "vnni_peak.so"
    source = Path(__file__).with_name("vnni_peak.c")
    command = [*compiler.argv, *target.flags, "-shared", "-fPIC", str(source), "-o", str(library)]
    subprocess.run(command, check=True, timeout=120)
    function = ctypes.CDLL(str(library)).qcc_vnni_peak
    function.argtypes, function.restype = [ctypes.c_long], ctypes.c_double
    return lambda: float(function(PEAK_CALLS))


def report(rows: list[Row], peak: Peak, different: list[str]) -> None:
    """The table, and the geometric mean over the models."""
    console = Console(width=110)
    title = f"one inference, one thread; {host_target(processor_features()).description}"
    table = Table(title=f"{title}; vpdpbusd peak {peak.gmacs:.0f} GMAC/s" if peak.gmacs else title)
    for heading in ("model", "engine", "median us", "min us", "fastest peer / it", "GMAC/s", "share of peak"):
        table.add_column(heading, justify="left" if heading in ("model", "engine") else "right")
    gains = []
    for model in dict.fromkeys(row.model for row in rows):
        group = [row for row in rows if row.model == model]
        fastest = min(row.min_us for row in group if row.engine != OURS)
        for row in group:
            ratio = fastest / row.min_us
            color = "" if row.engine != OURS else "[green]" if ratio >= 1 else "[red]"
            share = f"{100 * row.gmacs / peak.gmacs:.1f}%" if peak.gmacs else ""
            numbers = [
                f"{row.median_us:.1f}",
                f"{row.min_us:.1f}",
                f"{color}{ratio:.2f}",
                f"{row.gmacs:.1f}",
                share,
            ]
            table.add_row(
                model if row is group[0] else "", row.engine, *numbers, end_section=row is group[-1]
            )
            if row.engine == OURS:
                gains.append(ratio)
    console.print(table)
    if gains:
        mean = float(np.exp(np.mean(np.log(gains))))
        console.print(f"fastest peer over qcc, geometric mean of {len(gains)} models: {mean:.2f}")
    for model in different:
        console.print(f"[red]{model}: the library differs from the interpreter; not timed")


def write_json(path: Path, rows: list[Row], peak: Peak) -> None:
    """All figures of the run."""
    figures = [{**asdict(row), "median_us": row.median_us, "min_us": row.min_us} for row in rows]
    machine = {"machine": platform.machine(), "features": sorted(processor_features())}
    text = json.dumps({**machine, "peak_gmacs": peak.gmacs, "rows": figures}, indent=1)
    path.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
