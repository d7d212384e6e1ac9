"""Time and memory of a whole compilation: qcc.compile with 100 calibration images, and saving the library.

    python benchmarks/compile_time.py

Each model is compiled in a process of its own, whose peak memory is that of the compilation, Python and its libraries
included; the calibration images are in a file. Exit status 1 above 15 seconds or 1 GB.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import numpy as np
from models import CALIBRATION_SAMPLES, models_option, zoo_option
from rich.console import Console
from rich.table import Table

import qcc

SECONDS, MEGABYTES = 15.0, 1000.0


@click.command()
@models_option("squeezenet,mobilenetv2")
@zoo_option
def main(models: list[str], zoo: ModuleType) -> None:
    """Measure a compilation of each model."""
    result = Table(title=f"compile and save, {CALIBRATION_SAMPLES} calibration images")
    for heading in ("model", "seconds", "CPU seconds", "peak MB", "slowest passes", "mark"):
        result.add_column(heading, justify="left" if heading in ("model", "slowest passes") else "right")
    passed = True
    for model in models:
        entry = zoo.load(model)
        with tempfile.TemporaryDirectory() as folder, multiprocessing.get_context("spawn").Pool(1) as pool:
            samples = Path(folder) / "calibration.npy"
            np.save(samples, entry.calib[:CALIBRATION_SAMPLES])
            found = pool.apply(compile_once, (entry.model, samples, Path(folder) / model))
        good = found["seconds"] <= SECONDS and found["megabytes"] <= MEGABYTES
        passed = passed and good
        numbers = [f"{found[k]:.1f}" for k in ("seconds", "cpu_seconds", "megabytes")]
        slowest = ", ".join(f"{name} {seconds:.1f}" for name, seconds in found["slowest"])
        result.add_row(model, *numbers, slowest, "[green]pass[/]" if good else "[red]fail[/]")
    Console().print(result)
    sys.exit(0 if passed else 1)


def compile_once(model: str, samples: Path, folder: Path) -> dict[str, Any]:
    """Compile one model in this process; what it took."""
    start, cpu_start = time.perf_counter(), os.times()
    compiled = qcc.compile(model, calibration=samples)
    compiled.save(folder)
    seconds, cpu = time.perf_counter() - start, os.times()
    return {
        "seconds": seconds,
        "cpu_seconds": cpu.user + cpu.system - cpu_start.user - cpu_start.system,
        "megabytes": peak_megabytes(),
        "slowest": sorted(compiled.compilation.seconds, key=lambda item: -item[1])[:2],
    }


def peak_megabytes() -> float:
    """Peak memory of this process. getrusage would count that of the process which started it, too."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    kilobytes = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
    return int(kilobytes) * 1024 / 1e6


if __name__ == "__main__":
    main()
