"""A large model: ResNet-50 with random weights and 32 calibration samples, from the ONNX file to a loaded library.

    python benchmarks/large.py --peers build/peers

Seconds of each stage, the slowest passes, bytes of the shared library against those of the int8 weights, and the memory that
loading a model and one inference take in a process of each engine. Marks: less than 45 seconds (of which reading the clock
begins when Python has loaded qcc), a library within 10 percent of its weights plus 300 kB, less memory than any peer. Exit
status 1 when one is missed.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # of one process among others; before numpy is imported

import multiprocessing
import sys
from pathlib import Path

import click
import numpy as np
import onnx
import seeded_models
from contest import OURS, OURS_IN_C, Case, Ours, compile_ours, contend, cores_from, entrants
from models import CACHE
from peers import Installed, peers_option
from rich.console import Console
from rich.table import Table

SECONDS, SHARE, EXTRA_BYTES = 45.0, 1.10, 300_000


@click.command()
@click.option("--model", default="resnet50", type=click.Choice(list(seeded_models.MODELS)), show_default=True)
@peers_option
@click.option("--target", default="host", show_default=True, help="Of qcc.")
@click.option("--core", default=-1, show_default=True, help="Processor of the engines; -1: the last one.")
@click.option("--folder", type=click.Path(path_type=Path), default=CACHE, help="Keeps the models and files.")
def main(model: str, peers: list[Installed], target: str, core: int, folder: Path) -> None:
    """Compile once, load everywhere."""
    with Console(stderr=True).status("") as status:
        status.update("model")
        case = Case.make(model, seeded_models.load(model, folder), folder)
        status.update("qcc")
        with multiprocessing.get_context("spawn").Pool(
            1
        ) as pool:  # its memory and its clock are of nothing else
            ours, peak_bytes, cpu_seconds = pool.apply(compile_alone, (case, target))
        found = entrants(case, ours, peers, status.update)
        status.update("loading")
        rows = contend(case, found, None, cores_from(core), rounds=1, seconds=0.05)
    console = Console(width=100)
    total, stages = (
        sum(ours.seconds.values()),
        Table(title=f"{model}, {len(case.entry.calib)} calibration samples"),
    )
    for heading in ("stage", "seconds"):
        stages.add_column(heading, justify="right" if heading == "seconds" else "left")
    for stage, seconds in ours.seconds.items():
        stages.add_row(stage, f"{seconds:.1f}")
        if stage == "compile":
            for name, part in sorted(ours.passes, key=lambda item: -item[1])[:5]:
                stages.add_row(f"  of it {name}", f"{part:.1f}")
    stages.add_row("all", f"{total:.1f} {verdict(total < SECONDS)}")
    stages.add_row("CPU time, the comparison with the interpreter included", f"{cpu_seconds:.1f}")
    console.print(stages)
    weights, size = weight_bytes(Path(case.entry.model)), ours.library.stat().st_size
    limit = SHARE * weights + EXTRA_BYTES
    console.print(f"peak memory of the compilation: {peak_bytes / 1e6:.0f} MB")
    console.print(
        f"shared library: {size / 1e6:.2f} MB, int8 weights {weights / 1e6:.2f} MB, limit {limit / 1e6:.2f} MB "
        + verdict(size <= limit)
    )
    memory = Table(title="loading, and one inference")
    for heading in ("engine", "MB", "seconds to load"):
        memory.add_column(heading, justify="left" if heading == "engine" else "right")
    for row in rows:
        if row.engine != OURS_IN_C:
            memory.add_row(
                row.engine, row.error or f"{row.resident_bytes / 1e6:.1f}", f"{row.load_seconds:.3f}"
            )
    console.print(memory)
    resident = {row.engine: row.resident_bytes for row in rows if not row.error and row.engine != OURS_IN_C}
    least = resident.pop(OURS) < min(resident.values(), default=np.inf)
    console.print(
        f"less memory than every peer {verdict(least)}; library equals interpreter {verdict(ours.exact)}"
    )
    sys.exit(0 if total < SECONDS and size <= limit and least and ours.exact else 1)


def compile_alone(case: Case, target: str) -> tuple[Ours, int, float]:
    """In a process of its own: our library, and the most memory and the CPU seconds that took, the comparison included."""
    ours = compile_ours(case, target)
    status = Path("/proc/self/status").read_text(encoding="ascii")
    peak = 1024 * int(next(x.split()[1] for x in status.splitlines() if x.startswith("VmHWM")))
    return ours, peak, sum(os.times()[:4])


def weight_bytes(model: Path) -> int:
    """Elements of all constants with more than one axis: their bytes as int8."""
    return sum(int(np.prod(t.dims)) for t in onnx.load(model).graph.initializer if len(t.dims) > 1)


def verdict(good: bool) -> str:
    """In color."""
    return "[green]pass[/]" if good else "[red]fail[/]"


if __name__ == "__main__":
    main()
