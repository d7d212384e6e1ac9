"""Time of one inference on this x86 machine: qcc beside other engines, on pinned cores.

    python benchmarks/install_peers.py build/peers
    python benchmarks/x86.py --peers build/peers
    python benchmarks/x86.py --peers build/peers --models kws,resnet50 --threads 1,2 --rounds 20 --json x86.json

Every engine is a process. All take turns in every round, in an order that changes, so that a change of the clock meets them
all; the others stand still meanwhile. What is timed is one inference on an input in place, called from Python, which costs
each of them some of a microsecond; the second row of qcc is its library called in a loop in C. "peer / it" divides the least
time of the fastest peer by that of the engine. GMAC/s counts the multiply-accumulates of the model as it was, by the fastest
block; the share is that of the rate which a loop of the target's widest multiply-accumulate over registers reached in the same
rounds. MB is what loading the engine and one inference added to the memory of its process, SQNR that of the outputs against
float32. The library must first equal the interpreter (exit status 1). Compare figures of one run only.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # of one process among others; before numpy is imported

import json
import math
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import seeded_models
from contest import (
    OURS,
    OURS_IN_C,
    PEAK,
    Case,
    Entrant,
    Row,
    compile_ours,
    contend,
    cores_from,
    entrants,
    locked,
    peak_job,
)
from models import CACHE, MODELS, find_zoo, load_entry
from peers import Installed, peers_option
from rich.console import Console
from rich.table import Table

from qcc.backends.targets import find_target
from qcc.backends.x86.features import processor_features

EXACT_DB = 250.0  # more than float32 arithmetic in another order reaches


def path_option(name: str, variable: str, text: str) -> Callable[..., Any]:
    """An option that takes a path."""
    return click.option(name, variable, type=click.Path(path_type=Path), metavar="PATH", help=text)


@click.command()
@click.option(
    "--models", metavar="A,B,...", help="Default: those of the zoo, if it is here, and the random ones."
)
@peers_option
@click.option("--target", default="host", show_default=True, help="Of qcc.")
@click.option("--threads", default="1", show_default=True, metavar="N,...", help="Numbers of threads.")
@click.option("--rounds", default=10, show_default=True, type=click.IntRange(1), help="Turns of an engine.")
@click.option("--seconds", default=0.2, show_default=True, help="Time of an engine in a round.")
@click.option(
    "--core", default=-1, show_default=True, help="Processor of the first thread; -1: the last one."
)
@path_option("--folder", "folder", "Keeps random models and the peers' files (default: build/benchmarks).")
@path_option("--lock", "lock", "Hold a lock on this file while timing.")
@path_option("--json", "json_file", "Write all figures to this file.")
def main(
    models: str | None, peers: list[Installed], target: str, threads: str, rounds: int, seconds: float, core: int,
    folder: Path | None, lock: Path | None, json_file: Path | None,
) -> None:  # fmt: skip
    """Compile each model and time it beside its peers."""
    zoo, folder = find_zoo(), folder or CACHE
    names = models.split(",") if models else [*(MODELS if zoo else ()), *seeded_models.MODELS]
    counts, cores = [int(count) for count in threads.split(",")], cores_from(core)
    if max(counts) > len(cores):
        raise click.BadParameter(f"--threads {max(counts)}: this process may run on {len(cores)} processors")
    rows: list[Row] = []
    probe = peak_job(target, folder)
    peak = Row("", PEAK, 1, 0)
    loop = Entrant(peak, Path(sys.executable), "engines.library:load_peak", probe) if probe else None
    with Console(stderr=True).status("") as status:
        for name in names:
            status.update(f"{name}: model")
            case = Case.make(name, load_entry(name, zoo, folder), folder)
            for count in counts:
                status.update(f"{name}: qcc")
                ours = compile_ours(case, target, count)
                if not ours.exact:
                    rows.append(Row(name, OURS, count, ours.macs, error="differs from the interpreter"))
                    continue
                found = entrants(case, ours, peers, status.update)
                status.update(f"{name}: waiting for {lock}" if lock else f"{name}: timing")
                with locked(lock):
                    status.update(f"{name}: timing, {count} threads")
                    rows += contend(case, found, loop, cores, rounds, seconds)
                if json_file is not None:  # each time: a run may be interrupted
                    write_json(json_file, rows, peak, peers)
    report(rows, peak, target)
    Console(width=120).print(
        "; ".join(dict.fromkeys(v for peer in peers for v in peer.versions)), style="dim"
    )
    sys.exit(1 if any(row.error for row in rows if row.engine == OURS) else 0)


# ---------------------------------------------------------------- results
def report(rows: Sequence[Row], peak: Row, target: str) -> None:
    """The table, and the geometric means over the models."""
    console = Console(width=120)
    best = peak.gmacs if peak.minima else 0.0
    title = f"one inference; {find_target(target).description}"
    table = Table(title=f"{title}; peak {best:.0f} GMAC/s a core" if best else title)
    table.add_column("model", no_wrap=True)
    table.add_column("engine", no_wrap=True)
    for heading in ("threads", "median us", "min us", "peer / it", "GMAC/s", "of peak", "MB", "SQNR dB"):
        table.add_column(heading, justify="right")
    gains: dict[tuple[str, int], list[float]] = {}
    groups: dict[tuple[str, int], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.model, row.threads), []).append(row)
    for (model, threads), group in groups.items():
        peers = [row.min_us for row in group if not row.error and row.engine not in (OURS, OURS_IN_C)]
        for row in group:
            cells = [model if row is group[0] else "", row.engine, str(threads)]
            if row.error:
                table.add_row(*cells, "[red]fails", end_section=row is group[-1])
                continue
            ratio = min(peers) / row.min_us if peers else math.nan
            color = ""
            if row.engine in (OURS, OURS_IN_C):
                gains.setdefault((row.engine, threads), []).append(ratio)
                color = "[green]" if ratio >= 1 else "[red]"
            cells += [f"{row.median_us:.1f}", f"{row.min_us:.1f}", f"{color}{ratio:.2f}" if peers else ""]
            cells += [f"{row.gmacs:.1f}", f"{100 * row.gmacs / best / threads:.1f}%" if best else ""]
            cells += [f"{row.resident_bytes / 1e6:.1f}", decibels(row.sqnr_db)]
            table.add_row(*cells, end_section=row is group[-1])
    console.print(table)
    for row in rows:
        if row.error:
            console.print(f"[red]{row.model}, {row.engine}, threads {row.threads}: {row.error}")
    for (engine, threads), ratios in gains.items():
        if not math.isnan(sum(ratios)):
            mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
            worst = f"least {min(ratios):.2f}"
            what = f"fastest peer over {engine}, threads {threads}, geometric mean of {len(ratios)} models"
            console.print(f"{what}: {mean:.2f}; {worst}")


def decibels(value: float | None) -> str:
    """Empty where it was not measured."""
    return "" if value is None else "exact" if value > EXACT_DB else f"{value:.1f}"


def write_json(path: Path, rows: Sequence[Row], peak: Row, peers: Sequence[Installed]) -> None:
    """All figures of the run."""
    figures = [
        asdict(row) | ({"median_us": row.median_us, "min_us": row.min_us} if row.minima else {})
        for row in rows
    ]
    facts = {
        "machine": platform.machine(),
        "features": sorted(processor_features()),
        "versions": {peer.peer.name: list(peer.versions) for peer in peers},
        "peak_gmacs": peak.gmacs if peak.minima else None,
    }
    path.write_text(json.dumps(facts | {"rows": figures}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
