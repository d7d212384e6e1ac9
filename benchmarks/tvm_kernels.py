"""TVM beside itself and beside C: our schedules, our kernels in C, and TVM's own pipeline on the float model.

    python benchmarks/tvm_kernels.py
    python benchmarks/tvm_kernels.py --models kws,resnet18 --tune-file tvm.json --rounds 20 --json tvm.json

All on one thread, in processes that take turns, as in x86.py; compare figures of one run only. "C / it" divides the
least time of our C kernels by that of the engine. Both our libraries must first equal the interpreter (exit status 1).
``--tune-file`` takes tiles that ``qcc compile --tune --tune-file`` has found; ``--tune`` finds them now.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # of one process among others; before numpy is imported

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
from contest import Case, Entrant, Row, compile_ours, contend, cores_from, entrants, locked
from models import CACHE, find_zoo, load_entry
from peers import Installed, Peer
from rich.console import Console
from rich.table import Table

TVM, IN_C, FLOAT = "our schedules, TVM", "our kernels, C", "TVM f32"
TVM_TARGET, C_TARGET = "tvm", "x86-avx512vnni"
MARKS = {IN_C: 1.3, FLOAT: 1 / 3}  # the most that our schedules may take, over the time of these
PEER = Peer(FLOAT, "engines.relax:load", ("tvm",), "engines.relax:prepare", ("tvm", "onnx"), ".so")


@click.command()
@click.option("--models", default="resnet18,mobilenet_v2", show_default=True, metavar="A,B,...")
@click.option("--rounds", default=10, show_default=True, type=click.IntRange(1), help="Turns of an engine.")
@click.option("--seconds", default=0.2, show_default=True, help="Time of an engine in a round.")
@click.option("--core", default=-1, show_default=True, help="Processor; -1: the last one.")
@click.option("--tune", is_flag=True, help="Tune the tiles of our schedules first.")
@click.option("--tune-file", type=click.Path(path_type=Path), help="Tiles that tuning has found.")
@click.option("--folder", default=CACHE, type=click.Path(path_type=Path), help="Keeps models and libraries.")
@click.option("--lock", type=click.Path(path_type=Path), help="Hold a lock on this file while timing.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write all figures to this file.")
def main(
    models: str, rounds: int, seconds: float, core: int, tune: bool, tune_file: Path | None, folder: Path,
    lock: Path | None, json_file: Path | None,
) -> None:  # fmt: skip
    """Compile each model three times, and time the results."""
    if find_spec("tvm") is None:
        raise click.UsageError("TVM is not installed: pip install 'qcc[tvm]'")
    zoo, rows = find_zoo(), []
    choices = {"tune": tune, "tune_file": tune_file}
    with Console(stderr=True).status("") as status:
        for name in models.split(","):
            status.update(f"{name}: compiling")
            case = Case.make(name, load_entry(name, zoo, folder), folder)
            found = found_of(case, choices)
            with locked(lock):
                status.update(f"{name}: timing")
                rows += contend(case, found, None, cores_from(core), rounds, seconds)
    report(rows)
    if json_file is not None:
        figures = [asdict(row) | ({"min_us": row.min_us} if row.minima else {}) for row in rows]
        json_file.write_text(json.dumps({"rows": figures}, indent=1) + "\n", encoding="utf-8")
    sys.exit(1 if any(row.error for row in rows if row.engine != FLOAT) else 0)


def found_of(case: Case, choices: dict[str, Any]) -> list[Entrant]:
    """Our two libraries and TVM's own, in this order."""
    peer = Installed(PEER, Path(sys.executable), Path(sys.executable), (f"tvm {version('apache-tvm')}",))
    found = []
    for engine, target, chosen, peers in ((TVM, TVM_TARGET, choices, []), (IN_C, C_TARGET, {}, [peer])):
        ours = compile_ours(case, target, **chosen)
        _, loop, *others = entrants(case, ours, peers, lambda text: None)
        loop.row.engine = engine
        loop.row.error = "" if ours.exact else "differs from the interpreter"
        found += [loop, *others]
    return found


def report(rows: Sequence[Row]) -> None:
    """The table, and whether each mark is met."""
    console = Console(width=100)
    table = Table(title=f"one inference, one thread; apache-tvm {version('apache-tvm')}")
    for heading in ("model", "engine"):
        table.add_column(heading, no_wrap=True)
    for heading in ("median us", "min us", "C / it", "GMAC/s"):
        table.add_column(heading, justify="right")
    models = {row.model: {r.engine: r for r in rows if r.model == row.model} for row in rows}
    for model, engines in models.items():
        base = engines[IN_C]
        for row in engines.values():
            cells = [model if row.engine == TVM else "", row.engine]
            if row.minima:
                ratio = f"{base.min_us / row.min_us:.2f}" if base.minima else ""
                cells += [f"{row.median_us:.1f}", f"{row.min_us:.1f}", ratio, f"{row.gmacs:.1f}"]
            table.add_row(*cells, end_section=row.engine == FLOAT)
    console.print(table)
    for row in rows:
        if row.error:
            console.print(f"[red]{row.model}, {row.engine}: {row.error}")
    for model, engines in models.items():
        for other, most in MARKS.items():
            if engines[TVM].minima and engines[other].minima:
                share = engines[TVM].min_us / engines[other].min_us
                color = "green" if share <= most else "red"
                told = f"takes {share:.2f} of the time of {other} (at most {most:.2f})"
                console.print(f"[{color}]{model}: {TVM} {told}")


if __name__ == "__main__":
    main()
