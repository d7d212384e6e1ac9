"""Proof at scale: compiled C against the integer interpreter, byte for byte, on every test sample of the zoo.

    python benchmarks/exactness.py                            all models, all samples at -O3, some at -O0 and sanitized
    python benchmarks/exactness.py --targets arm-neon --some 2 --samples 0
    python benchmarks/exactness.py --targets cortex-m4 --some 1 --samples 0 --models kws,ic,ad

Exit status 1 when a single byte differs anywhere.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # of one process among others; before numpy is imported

import sys
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import numpy as np
from models import CALIBRATION_SAMPLES, models_option, zoo_option
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

import qcc
from qcc import checker
from qcc.backends.c import run
from qcc.backends.target import Compiler, Target
from qcc.backends.targets import find_target
from qcc.ir.graph import Graph

SANITIZED = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
BATCH = 50
Array = NDArray[Any]


@dataclass
class Row:
    """One model: (equal, samples) by way of building it, and what the plan says."""

    model: str
    counts: dict[str, tuple[int, int]] = field(default_factory=dict)
    arena_bytes: int = 0
    lower_bound_bytes: int = 0
    dead: str = ""
    proof: str = ""

    @property
    def exact(self) -> bool:
        """Not one sample differs."""
        return all(equal == samples for equal, samples in self.counts.values())


@click.command()
@models_option()
@zoo_option
@click.option("--samples", type=int, default=-1, help="Test samples at -O3; -1: all of them, 0: none.")
@click.option("--some", type=int, default=8, help="Test samples of the other ways.")
@click.option(
    "--targets",
    default="",
    metavar="A,B,...",
    help="More targets, under their emulators: arm-neon, cortex-m4.",
)
def main(models: list[str], zoo: ModuleType, samples: int, some: int, targets: str) -> None:
    """Count the samples on which compiled C equals the integer interpreter."""
    ways = [*(("-O3", "-O0", "sanitized") if samples else ()), *filter(None, targets.split(","))]
    rows = []
    with Console(stderr=True).status("") as status:
        for model in models:
            rows.append(measure(zoo.load(model), samples, some, ways, status))
    Console(width=130).print(table(rows, ways))
    sys.exit(0 if all(row.exact for row in rows) else 1)


def measure(entry: Any, samples: int, some: int, ways: list[str], status: Any) -> Row:
    """Compile one model, check its plan and run it in each way."""
    status.update(f"{entry.name}: compiling")
    compiled = qcc.compile(entry.model, target="c", calibration=entry.calib[:CALIBRATION_SAMPLES])
    proof = checker.check_plan(compiled.graph)
    before, after = (weighted_channels(g) for g in (compiled.compilation.float_graph, compiled.graph))
    row = Row(entry.name)
    row.arena_bytes, row.lower_bound_bytes = (
        compiled.program.plan.arena_bytes,
        compiled.program.plan.lower_bound_bytes,
    )
    row.dead = f"{before - after} of {before}"
    row.proof = f"{proof.accumulator_bits} bits, {proof.certified}/{proof.channels}"
    count = {
        way: len(entry.x)
        if way == "-O3" and samples < 0
        else min(len(entry.x), samples if way == "-O3" else some)
        for way in ways
    }
    xq = compiled.quantize_input(entry.x[: max(count.values())])
    expected: list[Array] = []
    with tempfile.TemporaryDirectory() as name:
        for way in ways:
            status.update(f"{entry.name}: building {way}")
            library = build(compiled, entry, way, Path(name) / way.strip("-"))
            equal = 0
            for start in range(0, count[way], BATCH):
                status.update(f"{entry.name}: {way}, {start} of {count[way]} samples")
                part = slice(start, min(start + BATCH, count[way]))
                if len(expected) <= start // BATCH:
                    expected.append(rows_of(compiled.run_integer(xq[start : start + BATCH])))
                got = rows_of(library.run(xq[part]))
                equal += int((got == expected[start // BATCH][: len(got)]).all(axis=1).sum())
            row.counts[way] = equal, count[way]
    return row


def build(compiled: qcc.CompiledModel, entry: Any, way: str, folder: Path) -> run.Compiled:
    """The library in ``folder``, built with the flags, the sanitizers or for the target that ``way`` names."""
    target = find_target("c")
    if way == "-O3":
        return run.load(compiled.save(folder / entry.name), target)
    if way == "-O0":
        return run.load(compiled.save(folder / entry.name), replace(target, flags=("-O0",)))
    if way == "sanitized":
        gcc = tuple(Compiler((name,), "install gcc or clang") for name in ("gcc", "clang"))
        return as_program(compiled.save(folder / entry.name), replace(target, flags=SANITIZED, compilers=gcc))
    other = qcc.compile(entry.model, target=way, calibration=entry.calib[:CALIBRATION_SAMPLES])
    return run.load(other.save(folder / entry.name), find_target(way))


def as_program(folder: Path, target: Target) -> run.Compiled:
    """A program of its own: sanitized code cannot be loaded into a Python that is not."""
    meta = run.read_metadata(folder)
    return run.Emulated(run.build_batch(folder, target, meta, folder / "build"), meta, target)


def rows_of(outputs: Any) -> Array:
    """All outputs of each sample as one row."""
    arrays = list(outputs.values()) if isinstance(outputs, dict) else [outputs]
    return np.concatenate([a.reshape(len(a), -1) for a in arrays], axis=1)


def weighted_channels(graph: Graph) -> int:
    """Output channels of all nodes with weights."""
    return sum(n.output.type.shape[-1] for n in graph.nodes if n.op.quant_rule().weight is not None)


def table(rows: list[Row], ways: list[str]) -> Table:
    """Counts of equal samples, memory and proofs."""
    result = Table(title="samples on which compiled C equals the integer interpreter")
    for heading in ("model", *ways, "arena", "lower bound", "dead channels", "accumulators, certified"):
        result.add_column(heading, justify="left" if heading == "model" else "right")
    for row in rows:
        counts = [f"[{'green' if e == n else 'red'}]{e}/{n}[/]" for e, n in (row.counts[way] for way in ways)]
        result.add_row(
            row.model, *counts, str(row.arena_bytes), str(row.lower_bound_bytes), row.dead, row.proof
        )
    return result


if __name__ == "__main__":
    main()
