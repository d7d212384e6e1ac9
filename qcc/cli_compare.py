"""The compare command."""

from __future__ import annotations

from math import isinf
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Group
from rich.table import Table
from rich.text import Text

from qcc import calibration_data, tables
from qcc.backends.c.names import short_names
from qcc.cli_base import console, data_option, path_type, plugin_option, progress, shape_option, warn
from qcc.compare import SUSPICIOUS_DB, Comparison, compare, open_subject
from qcc.driver import synthetic_samples
from qcc.options import CompileOptions


@click.command("compare")
@click.argument("a", type=path_type)
@click.argument("b", type=path_type)
@data_option
@click.option(
    "--samples", type=click.IntRange(min=1), default=16, show_default=True, help="At most so many of DATA."
)
@click.option(
    "--threshold",
    type=float,
    metavar="DB",
    help="Status 1 if the SQNR of some value is lower; inf: if any differs.",
)
@click.option("--float-pipeline", metavar="TEXT", default=CompileOptions.float_pipeline, show_default=True,
              help="Passes that an .onnx file goes through first.")  # fmt: skip
@shape_option
@plugin_option
def compare_command(
    a: Path, b: Path, data: Path | None, samples: int, threshold: float | None, **choices: Any
) -> None:
    """Find where two runs of a model first diverge.

    A and B are .onnx models, .qir graphs or folders written by qcc compile, in any mixture; A is the reference. Both run
    the same samples, and the values they share by name are printed in the order of execution. Marked: the first whose
    SQNR is under the threshold (20 dB by default), or, where both hold the same integer codes, the first that differs.
    """
    options = CompileOptions(**choices)
    with progress() as report:
        report("reading", 0, 0)
        subjects = open_subject(a, options), open_subject(b, options)
        graph = subjects[0].graph
        if data is None:
            warn("no --data: both run seeded noise")
            inputs = synthetic_samples(graph, options)
        else:
            batches = list(calibration_data.load_calibration(data, graph.inputs))
            inputs = {name: np.concatenate([x[name] for x in batches]) for name in batches[0]}
        inputs = {name: x[:samples] for name, x in inputs.items()}
        found = compare(*subjects, inputs, threshold, report)
    console().print(_table(found, threshold))
    if threshold is not None and found.diverged:
        click.get_current_context().exit(1)


def _table(found: Comparison, threshold: float | None) -> Group:
    table = Table(header_style="cyan", box=None, padding=(0, 2, 0, 0))
    for heading in ("value", "op", "SQNR", "drop", "max error", "cosine", ""):
        right = heading in ("SQNR", "drop", "max error", "cosine")
        table.add_column(heading, justify="right" if right else "left", overflow="fold")
    first, steepest = found.first, found.steepest
    short = short_names([row.name for row in found.rows])
    for row in found.rows:
        marks = ["first divergence"] if row is first else []
        marks += ["largest drop"] if row is steepest else []
        if row.integers and not row.equal and row is not first:
            marks.append("differs")
        table.add_row(
            Text(short[row.name]),
            Text(row.op),
            "equal" if row.equal else tables.decibels(row.sqnr_db),
            f"{row.drop_db:.1f}" if row.drop_db >= 0.05 and not isinf(row.sqnr_db) else "",
            f"{row.max_error:.3g}",
            f"{row.cosine:.6f}",
            Text(", ".join(marks), tables.BAD if row is first else tables.LOUD),
        )
    if first is None:
        limit = SUSPICIOUS_DB if threshold is None else threshold
        end = Text(f"no value is under {limit:g} dB, and integers in the same codes are equal", tables.GOOD)
    else:
        end = Text(f"the runs part at {first.name} ({first.op})", tables.BAD)
    counts = f"{len(found.rows)} values compared, of {found.computed[0]} in A and {found.computed[1]} in B"
    return Group(table, Text(), end, Text(counts))
