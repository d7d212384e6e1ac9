"""The command sensitivity, and how a precision contract is shown."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from qcc import driver, tables
from qcc.backends.c.names import short_names
from qcc.cli_base import (
    calib_option,
    console,
    observer_text,
    path_type,
    plugin_option,
    progress,
    shape_option,
    warn,
)
from qcc.ir.errors import QccError
from qcc.options import CompileOptions
from qcc.passes.graph_error import decibels
from qcc.passes.sensitivity import Sensitivities
from qcc.precision_search import sensitivities_of


@click.command("sensitivity")
@click.argument("model", type=path_type)
@calib_option
@click.option("--json", "out", type=path_type, metavar="FILE", help="Write all of it as JSON too.")
@click.option(
    "--top", type=click.IntRange(min=1), default=20, show_default=True, help="How many rows are printed."
)
@click.option(
    "--measure",
    type=click.IntRange(min=1),
    default=64,
    show_default=True,
    help="How many are measured, those with the largest noise of their own; the rest is predicted.",
)
@click.option("--observer", metavar="NAME", default="auto", show_default=True, help="As for compile.")
@click.option("--percentile", type=click.FloatRange(50, 100), metavar="P", help="As for compile.")
@click.option("--qspec", metavar="TEXT", default="", help="As for compile.")
@click.option("--corrections/--no-corrections", default=CompileOptions.corrections, help="As for compile.")
@shape_option
@plugin_option
def sensitivity_command(
    model: Path, calib: Path | None, out: Path | None, top: int, measure: int, observer: str,
    percentile: float | None, **choices: Any,
) -> None:  # fmt: skip
    """What the 8 bits of each tensor, and of the weights of each layer, do to the outputs of MODEL.

    Printed with the largest first: the SQNR of the outputs when this alone is quantized, and when all but this is (the
    tensor in 16 bits, the layer in float), and what that costs. Tensors that share a scale are one row.
    """
    options = CompileOptions(observer=observer_text(observer, percentile, ()), **choices)
    with progress() as report:
        made = driver.compile_graph(model, calib, options, report, warn)
        found = sensitivities_of(made, report, measure)
    if out is not None:
        try:
            out.write_text(json.dumps(_as_dict(found), indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            raise QccError(
                f"cannot write {out}: {error.strerror}", hint="name a file you may write"
            ) from error
    console().print(_table(found, top))


def _as_dict(found: Sensitivities) -> dict[str, Any]:
    return {
        "noise": found.noise,
        "samples": found.samples,
        "restorations": [
            {
                "to": s.restoration.to,
                "name": s.restoration.name,
                "tensors": list(s.restoration.values),
                "local": s.local,
                "alone": s.alone,
                "measured": s.measured,
                "restored": s.restored,
                "added_macs": s.added.macs,
                "added_bytes": s.added.bytes,
            }
            for s in found.found
        ],
    }


def _table(found: Sensitivities, top: int) -> Group:
    table = Table(header_style="cyan", box=None, padding=(0, 2, 0, 0))
    for heading in ("tensor or layer", "restored to", "itself", "alone", "restored", "gain", "MACs", "bytes"):
        left = heading in ("tensor or layer", "restored to")
        table.add_column(heading, justify="left" if left else "right", overflow="fold")
    short = short_names([s.restoration.name for s in found.found])
    for s in found.found[:top]:
        restored = None if s.restored is None else decibels(s.restored)
        table.add_row(
            Text(short[s.restoration.name]),
            "16 bits" if s.restoration.to == "int16" else "float",
            f"{decibels(s.local):.1f} dB",
            f"{'' if s.measured else '~ '}{decibels(s.alone):.1f} dB",
            "" if restored is None else f"{restored:.2f} dB",
            "" if restored is None else f"{restored - decibels(found.noise):+.2f}",
            f"+{s.added.macs:,}",
            f"+{s.added.bytes:,}",
        )
    total = f"SQNR of the outputs {decibels(found.noise):.2f} dB, on {found.samples} samples"
    more = f"; {len(found.found) - top} more rows" if len(found.found) > top else ""
    return Group(table, Text(), Text(total + more))


def contract_table(contract: Mapping[str, Any]) -> RenderableType:
    """How the precision asked for was reached."""
    line = (
        f"\n{contract['metric']} {contract['ratio']:.6g} of float on {contract['samples']} samples, "
        f"at least {contract['min_ratio']:g} asked for"
    )
    chosen = contract["restorations"]
    if not chosen:
        return Text(f"{line}: 8 bits suffice", tables.GOOD)
    table = Table(header_style="cyan", box=None, padding=(0, 2, 0, 0))
    for heading in ("restored", "to", "without it", "MACs", "bytes"):
        table.add_column(
            heading, justify="left" if heading in ("restored", "to") else "right", overflow="fold"
        )
    for entry in chosen:
        without = entry["ratio_without"]
        table.add_row(
            Text(entry["name"]),
            "16 bits" if entry["to"] == "int16" else "float",
            "" if without is None else f"{without:.6g}",
            f"+{entry['added_macs']:,}",
            f"+{entry['added_bytes']:,}",
        )
    paid = (
        f"8 bits alone {contract['ratio_before']:.6g}; in all {_share(contract, 'macs')} MACs (each counts once for 8 bits), "
        f"{_share(contract, 'bytes')} bytes"
    )
    return Group(Text(line, tables.GOOD), table, Text(paid))


def _share(contract: Mapping[str, Any], what: str) -> str:
    return f"{100 * contract[f'added_{what}'] / max(contract[what], 1):+.1f} %"
