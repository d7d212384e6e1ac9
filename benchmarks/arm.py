"""Instructions of one inference on Arm, counted under QEMU: whole models and their layers, with flash, RAM and stack.

    python benchmarks/arm.py
    python benchmarks/arm.py --targets cortex-m4 --models kws,vww --layers --top 8 --json arm.json

Each library is compiled for the target, linked with a program that runs it on its test vectors (exit status 1 where a byte
differs), and executed by the target's emulator with a plugin that counts every instruction between two marks. Counts are
exact; they are not cycles: caches, wait states and instructions issued together are not seen. Flash, RAM and stack are those of
the library linked alone. "published" are figures of other engines for the same models, not measured in this run.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # of one process among others; before numpy is imported

import json
import math
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import click
import seeded_models
from models import CACHE, find_zoo, load_entry
from rich.console import Console
from rich.table import Table

import qcc
from qcc.backends.c.build import run_program, run_tool
from qcc.backends.c.image import Footprint, disassemble, measure
from qcc.backends.c.names import short_names
from qcc.backends.c.run import build_main, read_metadata
from qcc.backends.stream import STREAMING, Streaming
from qcc.backends.target import TARGETS, Target
from qcc.backends.targets import availability, find_target
from qcc.ir.errors import QccError

HERE = Path(__file__).resolve().parent
MODELS = ("kws", "ic", "vww", "ad", "mobilenetv2")
SYSTEM = ("qemu-aarch64", "qemu-arm", "qemu-system-arm")  # emulators that take the plugin

# Million instructions of one inference of the same trained models, quantized to 8 bits.
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
    footprint: Footprint | None = None
    error: str = ""

    @property
    def published(self) -> float:
        """Instructions of another engine, NaN where none are known."""
        return PUBLISHED.get(self.target, ("", {}))[1].get(self.model, math.nan) * 1e6


@click.command()
@click.option("--models", default=",".join(MODELS), show_default=True, metavar="A,B,...")
@click.option("--targets", metavar="A,B,...", help="Default: those of Arm that can be built and run here.")
@click.option(
    "--stream", type=click.Choice(STREAMING), default="auto", show_default=True, help="See qcc compile."
)
@click.option("--layers", is_flag=True, help="Print every layer.")
@click.option("--top", default=0, metavar="N", help="Print the N hottest functions and mnemonics.")
@click.option("--folder", type=click.Path(path_type=Path), metavar="PATH", help="Keeps the libraries.")
@click.option(
    "--json", "json_file", type=click.Path(path_type=Path), metavar="PATH", help="Write all figures."
)
def main(
    models: str,
    targets: str | None,
    stream: Streaming,
    layers: bool,
    top: int,
    folder: Path | None,
    json_file: Path | None,
) -> None:
    """Compile each model for each target and count."""
    folder, zoo = folder or CACHE, find_zoo()
    chosen = [find_target(name) for name in targets.split(",")] if targets else arm_targets()
    plugin = build_plugin(folder / "arm")
    rows: list[Row] = []
    with Console(stderr=True).status("") as status:
        for name in models.split(","):
            entry = load_entry(name, zoo, folder)
            for target in chosen:
                status.update(f"{name} for {target.name}")
                rows.append(count(name, entry, target, plugin, folder / "arm" / target.name / name, stream))
                if json_file is not None:  # each time: a run may be interrupted
                    write_json(json_file, rows)
    report(rows, layers, top)
    sys.exit(1 if any(row.error for row in rows) else 0)


# ---------------------------------------------------------------- counting
def arm_targets() -> list[Target]:
    """Those whose programs run here under an emulator that takes the plugin."""
    return [t for t in TARGETS.values() if t.runner and t.runner[0] in SYSTEM and availability(t).runs]


def build_plugin(folder: Path) -> Path:
    """Compile qemu_count.c."""
    folder.mkdir(parents=True, exist_ok=True)
    result = folder / "qemu_count.so"
    run_tool(["cc", "-O2", "-shared", "-fPIC", str(HERE / "qemu_count.c"), "-o", str(result)], 60)
    return result.absolute()


def count(
    name: str,
    entry: seeded_models.Entry,
    target: Target,
    plugin: Path,
    folder: Path,
    stream: Streaming = "auto",
) -> Row:
    """Compile, run and look at one library, which ``folder`` keeps."""
    row = Row(name, target.name)
    try:
        compiled = qcc.compile(
            entry.model,
            target.name,
            calibration=entry.calib,
            name=name,
            stream=stream,
            warn=lambda message: None,
        )
        compiled.save(folder)
        meta = read_metadata(folder)
        program = build_counted(folder, target, meta)
        steps = run_counted(program, target, plugin)
        row.footprint = measure(folder, target, meta)
    except QccError as error:
        row.error = str(error)
        return row
    enter_counts(row, steps, program, target, meta)
    return row


def enter_counts(
    row: Row, steps: Counter[tuple[int, int]], program: Path, target: Target, meta: Mapping[str, Any]
) -> None:
    """Sum how often (step, address) was executed by what it belongs to."""
    row.macs = meta["macs"]
    where = {i.address: i for i in disassemble(program, target)}
    by_function, by_mnemonic = Counter[str](), Counter[str]()
    for (_, address), times in steps.items():
        by_function[where[address].function] += times
        by_mnemonic[where[address].mnemonic] += times
    by_step = Counter[int]()
    for (step, _), times in steps.items():
        by_step[step] += times
    row.instructions = by_step.total()
    row.functions, row.mnemonics = dict(by_function.most_common()), dict(by_mnemonic.most_common())
    short = short_names([layer["name"] for layer in meta["layers"]])
    row.layers = [
        Layer(short[layer["name"]], layer["kernel"], layer["macs"], by_step[index])
        for index, layer in enumerate(meta["layers"])
    ]


def build_counted(folder: Path, target: Target, meta: Mapping[str, Any]) -> Path:
    """The library with a mark behind each step, in a program that runs its test vectors."""
    build_folder = folder / "build" / "counted"
    build_folder.mkdir(parents=True, exist_ok=True)
    main_file = build_folder / "count_main.c"
    text = (HERE / "count_main.c.in").read_text(encoding="utf-8")
    text = text.replace("@name@", meta["name"]).replace("@NAME@", meta["name"].upper())
    main_file.write_text(text, encoding="utf-8")
    return build_main(folder, target, main_file, build_folder, ("-include", str(HERE / "count_marks.h")))


def run_counted(program: Path, target: Target, plugin: Path) -> Counter[tuple[int, int]]:
    """Run under the emulator: how often (step, address) was executed. Raises TargetError when a vector gives other bytes."""
    counts = program.with_suffix(".txt").absolute()
    emulator, *arguments = target.runner
    counting = replace(target, runner=(emulator, "-plugin", f"{plugin},out={counts}", *arguments))
    run_program(program.absolute(), counting)
    steps = Counter[tuple[int, int]]()
    for line in counts.read_text(encoding="ascii").splitlines():
        step, address, times = line.split()
        steps[int(step), int(address, 16)] += int(times)
    return steps


# ---------------------------------------------------------------- results
def report(rows: Sequence[Row], layers: bool, top: int) -> None:
    """The table, means for each target, then what was asked for."""
    console = Console(width=140)
    table = Table(title="one inference, million instructions; bytes")
    table.add_column("target", no_wrap=True)
    table.add_column("model", no_wrap=True)
    headings = (
        "instructions",
        "published",
        "ratio",
        "MACs each",
        "code",
        "constants",
        "arena",
        "data+bss",
        "stack",
    )
    for heading in headings:
        table.add_column(heading, justify="right")
    ratios: dict[str, list[float]] = {}
    groups = {
        target: [row for row in rows if row.target == target]
        for target in dict.fromkeys(r.target for r in rows)
    }
    for target, group in groups.items():
        for row in group:
            cells = [target if row is group[0] else "", row.model]
            last = row is group[-1]
            if row.footprint is None:
                table.add_row(*cells, "[red]fails", end_section=last)
                continue
            f, ratio = row.footprint, row.instructions / row.published
            if not math.isnan(ratio):
                ratios.setdefault(target, []).append(ratio)
            cells += [million(row.instructions), million(row.published)]
            cells += ["" if math.isnan(ratio) else f"[{'green' if ratio < 1 else 'red'}]{ratio:.2f}"]
            cells += [f"{row.macs / row.instructions:.2f}", f"{f.code:,}", f"{f.constants:,}", f"{f.arena:,}"]
            table.add_row(*cells, f"{f.data + f.bss:,}", stack_text(f), end_section=last)
    console.print(table)
    for row in rows:
        if row.error:
            console.print(f"[red]{row.model}, {row.target}: {row.error}", highlight=False)
    for target, found in ratios.items():
        mean = math.exp(sum(map(math.log, found)) / len(found))
        engine = PUBLISHED[target][0]
        console.print(f"{target}: {mean:.3f} of published {engine}, geometric mean of {len(found)} models")
    for row in rows:
        if layers and row.layers:
            console.print(layer_table(row))
        if top and row.functions:
            console.print(hot_table(row, top))


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


def write_json(path: Path, rows: Sequence[Row]) -> None:
    """All figures of the run, in instructions and bytes."""
    known = [
        asdict(row) | {"published": None if math.isnan(row.published) else row.published} for row in rows
    ]
    path.write_text(json.dumps({"rows": known}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
