"""The stats command: files of calibration statistics, shown and merged."""

from __future__ import annotations

from pathlib import Path

import click
from rich.table import Table

from qcc.cli_base import Commands, console, path_type
from qcc.ir.errors import QccError
from qcc.passes.statistics_file import load_statistics, save_statistics


@click.group("stats", cls=Commands)
def stats_command() -> None:
    """Calibration statistics in files: qcc compile --save-stats writes one, --stats reads it."""


@stats_command.command("merge")
@click.argument("files", nargs=-1, required=True, type=path_type)
@click.option("-o", "--out", required=True, type=path_type, metavar="FILE", help="Where the result goes.")
def merge_command(files: tuple[Path, ...], out: Path) -> None:
    """Statistics of all samples behind FILES, as if one run had seen them, in this order.

    The order matters to moving averages only.
    """
    merged = load_statistics(files[0])
    for path in files[1:]:
        other = load_statistics(path)
        if other.digest != merged.digest:
            raise QccError(
                f"{path} holds statistics of another model than {files[0]}",
                hint="merge statistics of one model, compiled with the same float passes",
            )
        merged.merge(other)
    save_statistics(merged, out)
    click.echo(f"{out}: {merged.count} samples of {len(merged.tensors)} values")


@stats_command.command("show")
@click.argument("file", type=path_type)
def show_command(file: Path) -> None:
    """The range of each value in FILE."""
    statistics = load_statistics(file)
    table = Table(title=f"{statistics.count} samples")
    for heading in ("value", "elements", "min", "max", "moving average"):
        table.add_column(heading, justify="left" if heading == "value" else "right")
    for name, tensor in statistics.tensors.items():
        low, high = tensor.moving.range
        table.add_row(
            name, str(tensor.count), f"{tensor.min:.6g}", f"{tensor.max:.6g}", f"{low:.6g}, {high:.6g}"
        )
    console().print(table)
