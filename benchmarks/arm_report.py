"""What benchmarks/arm.py found: rows of figures, tables, and the figures of other engines that are known from elsewhere."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from arm_mca import CPU, Loop
from arm_peers import PeerRow
from rich.console import Console
from rich.table import Table

from qcc.backends.c.image import Footprint

# Million instructions of one inference of the same trained models, quantized to 8 bits; not measured in any run of this.
_LITERT = "LiteRT with XNNPACK"
_MICRO = "TFLite-Micro with CMSIS-NN"
PUBLISHED: dict[str, tuple[str, dict[str, float]]] = {
    "arm-neon": (_LITERT, {"kws": 1.335, "ic": 5.009, "vww": 4.013, "ad": 0.137, "mobilenetv2": 132.0}),
    "arm-neon-dotprod": (
        _LITERT,
        {"kws": 0.710, "ic": 1.497, "vww": 1.925, "ad": 0.0433, "mobilenetv2": 49.2},
    ),
    "arm-neon-i8mm": (_LITERT, {"kws": 0.732, "ic": 1.251, "vww": 1.899, "ad": 0.0398, "mobilenetv2": 44.1}),
    "cortex-m4": (_MICRO, {"kws": 7.70, "ic": 29.86, "vww": 24.10, "ad": 0.583}),
    "cortex-m55": (_MICRO, {"kws": 1.70, "ic": 4.42, "vww": 6.04, "ad": 0.120}),
}


@dataclass(frozen=True)
class Layer:
    """Instructions of one step of a library, with what its kernel calls."""

    name: str
    kernel: str
    macs: int
    instructions: int


@dataclass
class Row:
    """One library. ``functions``, ``mnemonics``: instructions of one inference by what they belong to, the most first."""

    model: str
    target: str
    macs: int = 0
    instructions: int = 0
    layers: list[Layer] = field(default_factory=list)
    functions: dict[str, int] = field(default_factory=dict)
    mnemonics: dict[str, int] = field(default_factory=dict)
    loops: list[Loop] = field(default_factory=list)
    footprint: Footprint | None = None
    peers: list[PeerRow] = field(default_factory=list)
    error: str = ""

    @property
    def measured(self) -> dict[str, int]:
        """Instructions of the engines that were counted in this run."""
        return {peer.engine: peer.instructions for peer in self.peers if not peer.error}

    @property
    def published(self) -> float:
        """Instructions of another engine, NaN where none are known."""
        return PUBLISHED.get(self.target, ("", {}))[1].get(self.model, math.nan) * 1e6

    @property
    def rival(self) -> tuple[str, float]:
        """The engine with the fewest instructions: of those counted, or else the published one (NaN where there is none)."""
        if self.measured:
            return min(self.measured.items(), key=lambda pair: pair[1])
        return "published", self.published


def report(rows: Sequence[Row], layers: bool, top: int, tool: str) -> None:
    """The table, means for each target, then what was asked for; ``tool``: the version of llvm-mca."""
    console = Console(width=180)
    console.print(main_table(rows))
    for row in rows:
        for error in ([row.error] if row.error else []) + [
            f"{p.engine}: {p.error}" for p in row.peers if p.error
        ]:
            console.print(f"[red]{row.model}, {row.target}: {last_lines(error)}", highlight=False)
    for line in means(rows):
        console.print(line, highlight=False)
    versions = dict.fromkeys(f"{p.engine} {p.version}" for row in rows for p in row.peers)
    if versions:
        console.print(
            f"counted in this run: {', '.join(versions)}; the others are published figures", style="dim"
        )
    else:
        console.print("no other engine was counted in this run: see --peers", style="dim")
    for row in rows:
        if layers and row.layers:
            console.print(layer_table(row))
        if top and row.functions:
            console.print(hot_table(row, top))
        if row.loops:
            console.print(loop_table(row, tool))


def main_table(rows: Sequence[Row]) -> Table:
    """A line for each library."""
    engines = list(dict.fromkeys(peer.engine for row in rows for peer in row.peers))
    table = Table(title="one inference, million instructions; bytes")
    for heading in ("target", "model"):
        table.add_column(heading, no_wrap=True)
    bytes_of = ("code", "constants", "arena", "data+bss", "stack")
    for heading in ("qcc", *engines, "published", "ratio", "to", "MACs each", *bytes_of):
        table.add_column(heading, justify="left" if heading == "to" else "right", no_wrap=True)
    for group in by_target(rows):
        for row in group:
            cells, last = [row.target if row is group[0] else "", row.model], row is group[-1]
            if row.footprint is None:
                table.add_row(*cells, "[red]fails", end_section=last)
                continue
            f, (engine, fewest) = row.footprint, row.rival
            ratio = row.instructions / fewest
            cells += [million(row.instructions)]
            cells += [million(row.measured.get(name, math.nan)) for name in engines]
            cells += [million(row.published)]
            known = not math.isnan(ratio)
            cells += [f"[{'green' if ratio < 1 else 'red'}]{ratio:.2f}", engine] if known else ["", ""]
            cells += [f"{row.macs / row.instructions:.2f}", f"{f.code:,}", f"{f.constants:,}", f"{f.arena:,}"]
            table.add_row(*cells, f"{f.data + f.bss:,}", stack_text(f), end_section=last)
    return table


def by_target(rows: Iterable[Row]) -> list[list[Row]]:
    """Groups of the rows, in order of their first ones."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.target, []).append(row)
    return list(groups.values())


def means(rows: Iterable[Row]) -> list[str]:
    """For each target, our instructions by those of each engine: geometric means over the models."""
    lines = []
    for group in by_target(rows):
        ratios: dict[str, list[float]] = {}
        for row in (row for row in group if row.instructions):
            figures: dict[str, float] = dict(row.measured)
            if not math.isnan(row.published):
                figures[f"published {PUBLISHED[row.target][0]}"] = row.published
            for engine, count in figures.items():
                ratios.setdefault(engine, []).append(row.instructions / count)
        for engine, found in ratios.items():
            mean = math.exp(sum(map(math.log, found)) / len(found))
            lines.append(f"{group[0].target}: {mean:.3f} of {engine}, geometric mean of {len(found)} models")
    return lines


def last_lines(error: str) -> str:
    """Where a compiler or linker says what went wrong; the whole message is in the file of figures."""
    return "; ".join(line.rpartition(": ")[2] for line in error.splitlines()[-2:])


def million(count: float) -> str:
    """Three decimals, empty for NaN."""
    return "" if math.isnan(count) else f"{count / 1e6:,.3f}"


def stack_text(footprint: Footprint) -> str:
    """Bytes; a lower bound is marked."""
    return f"{'>=' if footprint.unmeasured else ''}{footprint.stack:,}"


def layer_table(row: Row) -> Table:
    """Every layer of one library."""
    table = Table(title=f"{row.model}, {row.target}: layers", title_justify="left")
    for heading in ("#", "name", "kernel"):
        table.add_column(heading, no_wrap=True)
    for heading in ("MACs", "instructions", "share", "MACs each"):
        table.add_column(heading, justify="right")
    for index, layer in enumerate(row.layers, 1):
        share = f"{100 * layer.instructions / row.instructions:.1f}%"
        each = f"{layer.macs / max(1, layer.instructions):.2f}"
        cells = (f"{layer.macs:,}", f"{layer.instructions:,}", share, each)
        table.add_row(str(index), layer.name[-40:], layer.kernel, *cells)
    return table


def hot_table(row: Row, top: int) -> Table:
    """The functions and the mnemonics that are executed most."""
    table = Table(title=f"{row.model}, {row.target}: hottest", title_justify="left")
    for heading in ("function", "share", "mnemonic", "share"):
        table.add_column(heading, justify="right" if heading == "share" else "left", no_wrap=True)
    functions, mnemonics = list(row.functions.items())[:top], list(row.mnemonics.items())[:top]
    for index in range(max(len(functions), len(mnemonics))):
        cells: list[str] = []
        for found in (functions, mnemonics):
            what, times = found[index] if index < len(found) else ("", 0)
            cells += [what, f"{100 * times / row.instructions:.1f}%" if what else ""]
        table.add_row(*cells)
    return table


def loop_table(row: Row, tool: str) -> Table:
    """What the static model says of the hottest loop of each kernel with vectors."""
    title = f"{row.model}, {row.target}: hottest loops; llvm-mca {tool} -mcpu={CPU}, a static model, not a measurement"
    caption = "no caches, no mispredicted branches; in-order cores (Cortex-A53) behave differently"
    table = Table(title=title, caption=caption, title_justify="left", caption_justify="left")
    table.add_column("function", no_wrap=True)
    for heading in ("share", "instructions", "cycles", "least", "IPC", "Mcycles"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("mnemonics", no_wrap=True)
    for loop in row.loops:
        share = f"{100 * loop.executed / row.instructions:.1f}%"
        cells = [loop.function, share, str(loop.instructions), f"{loop.cycles:.1f}", f"{loop.bound:.1f}"]
        cells += [f"{loop.instructions / loop.cycles:.2f}", f"{loop.cycles * loop.rounds / 1e6:.3f}"]
        table.add_row(*cells, " ".join(f"{n} {name}" for name, n in list(loop.shown.items())[:5]))
    return table


def write_json(path: Path, rows: Sequence[Row]) -> None:
    """All figures of the run, in instructions and bytes."""
    known = [
        asdict(row) | {"published": None if math.isnan(row.published) else row.published} for row in rows
    ]
    path.write_text(json.dumps({"rows": known}, indent=1) + "\n", encoding="utf-8")
