"""Weights of 4 bits: how much of what rounding to nearest loses the corrections win back.

    python benchmarks/w4a8.py
    python benchmarks/w4a8.py --models kws --samples 200 --json w4a8.json

Per model: 8-bit weights and 4-bit weights, each without and with corrections (equalization, migration of scales, bias correction,
rounding with error feedback), on the same calibration and test samples. Of the output's SQNR and of the agreement with float32
it says which share of the loss, from 8 bits to 4 without corrections, 4 bits with corrections win back. A loss of SQNR is one
of decibels; "noise won" is the share of the noise power that was added (10^(-SQNR/10)), which is far easier to win back.
Agreement and labels are shares of samples, so a loss of few samples says little. The mark is half of the decibels and half of
the agreement. Exit status 1 when it is missed.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # of one process among others; before numpy is imported

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import click
from accuracy import Case, percent, run_integers
from models import models_option, zoo_option
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

import qcc

WANTED, MARKED = 0.5, ("sqnr_db", "agree")  # of the loss in these
CONTENDERS: dict[str, dict[str, Any]] = {
    "8 bits": {"corrections": False},
    "8 bits, corrected": {"corrections": True},
    "4 bits": {"qspec": "w_bits=4", "corrections": False},
    "4 bits, corrected": {"qspec": "w_bits=4", "corrections": True},
}


@dataclass
class Result:
    """``metrics``: by contender; ``won``: by figure, the share of the loss that was won back, None where nothing was lost;
    ``notes``: what each correction brought with 4 bits."""

    model: str
    metrics: dict[str, dict[str, Any]]
    won: dict[str, float | None]
    notes: dict[str, str]

    @property
    def passes(self) -> bool:
        """Whether half is won back, of both figures."""
        return all(share is None or share >= WANTED for name, share in self.won.items() if name in MARKED)


@click.command()
@models_option("kws,ic,resnet20,squeezenet")
@zoo_option
@click.option("--samples", type=click.IntRange(min=1), help="No more test samples than these.")
@click.option("--json", "file", type=click.Path(path_type=Path), help="Write all figures there.")
def main(models: list[str], zoo: ModuleType, samples: int | None, file: Path | None) -> None:
    """Compare weights of 8 and 4 bits, without and with corrections."""
    results = []
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=len(models) * len(CONTENDERS))
        for model in models:
            case = Case.of(zoo, model, samples)
            metrics, notes = {}, dict[str, str]()
            for name, choices in CONTENDERS.items():
                progress.update(task, description=f"{model}: {name}", refresh=True)
                compiled = qcc.compile(case.model, calibration=case.calibration, **choices)
                metrics[name] = case.metric(run_integers(compiled, case.x))
                found = compiled.compilation.notes
                notes = {p: n.reason for p, n in found if n.rule == p and n.reason.startswith("SQNR")}
                progress.advance(task)
            results.append(Result(model, metrics, won_back(metrics), notes))
    Console(width=120).print(table(results))
    if file is not None:
        lines = [asdict(r) | {"passes": r.passes} for r in results]
        file.write_text(json.dumps(lines, indent=1) + "\n", encoding="utf-8")
    sys.exit(0 if all(r.passes for r in results) else 1)


def won_back(metrics: dict[str, dict[str, Any]]) -> dict[str, float | None]:
    """The shares, by figure: SQNR and noise power of the worst output, agreement, labels."""
    found: dict[str, float | None] = {}
    for name in ("sqnr_db", "agree", "top1"):
        if name in metrics["8 bits"]:
            whole, nearest, corrected = (
                min(value) if isinstance(value := metrics[c][name], list) else value
                for c in ("8 bits", "4 bits", "4 bits, corrected")
            )
            found[name] = (corrected - nearest) / (whole - nearest) if whole > nearest else None
            if name == "sqnr_db":
                whole, nearest, corrected = (10 ** (-db / 10) for db in (whole, nearest, corrected))
                found["noise"] = (nearest - corrected) / (nearest - whole) if nearest > whole else None
    return found


def table(results: list[Result]) -> Table:
    """One line for each contender."""
    table = Table(title="Weights of 4 bits on the test samples")
    for heading in (
        "model",
        "weights",
        "SQNR dB",
        "agree %",
        "top-1 %",
        "dB won",
        "noise won",
        "agreement won",
        "labels won",
        "mark",
    ):
        table.add_column(heading, justify="left" if heading in ("model", "weights", "mark") else "right")
    for result in results:
        for number, (name, metric) in enumerate(result.metrics.items()):
            last = number + 1 == len(result.metrics)
            table.add_row(
                "" if number else result.model,
                name,
                f"{min(metric['sqnr_db']):.2f}",
                percent(metric, "agree"),
                percent(metric, "top1"),
                *(
                    share(result.won.get(key)) if last else ""
                    for key in ("sqnr_db", "noise", "agree", "top1")
                ),
                ("[green]pass[/]" if result.passes else "[red]fail[/]") if last else "",
                end_section=last,
            )
    return table


def share(value: float | None) -> str:
    """As a percentage."""
    return "" if value is None else f"{100 * value:.0f} %"


if __name__ == "__main__":
    main()
