"""Instructions of one inference on Arm, counted under QEMU: whole models and their layers, with flash, RAM and stack.

    python benchmarks/arm.py --peers build/peers
    python benchmarks/arm.py --targets cortex-m4 --models kws,vww --layers --top 8 --json arm.json

Each library is compiled for the target, linked with a program that runs it on its test vectors (exit status 1 where a byte
differs), and executed by the target's emulator with a plugin that counts every instruction between two marks. Counts are
exact; they are not cycles: caches, wait states and instructions issued together are not seen. Flash, RAM and stack are those of
the library linked alone. Engines that install_peers.py --arm installed are counted in the same run (see arm_peers.py);
"published" are figures of other engines for the same models from elsewhere, which the ratio uses where none was counted.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # of one process among others; before numpy is imported

import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import seeded_models
from arm_mca import estimate, find_mca, version_of
from arm_peers import ArmPeers
from arm_report import Layer, Row, report, write_json
from contest import Case
from models import CACHE, find_zoo, load_entry
from peers import PeerError
from qemu import HERE, build_plugin, read_counts
from rich.console import Console

import qcc
from qcc.backends.c.build import run_program
from qcc.backends.c.image import disassemble, measure
from qcc.backends.c.names import short_names
from qcc.backends.c.run import build_main, read_metadata
from qcc.backends.stream import STREAMING, Streaming
from qcc.backends.target import TARGETS, Target
from qcc.backends.targets import availability, find_target
from qcc.ir.errors import QccError

MODELS = ("kws", "ic", "vww", "ad", "mobilenetv2")
SYSTEM = ("qemu-aarch64", "qemu-arm", "qemu-system-arm")  # emulators that take the plugin


@click.command()
@click.option("--models", default=",".join(MODELS), show_default=True, metavar="A,B,...")
@click.option("--targets", metavar="A,B,...", help="Default: those of Arm that can be built and run here.")
@click.option(
    "--peers",
    "peers_folder",
    envvar="QCC_PEERS",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="FOLDER",
    help="Made by install_peers.py, with and without --arm: count its engines too (default: $QCC_PEERS).",
)
@click.option(
    "--stream", type=click.Choice(STREAMING), default="auto", show_default=True, help="See qcc compile."
)
@click.option("--layers", is_flag=True, help="Print every layer.")
@click.option("--top", default=0, metavar="N", help="Print the N hottest functions and mnemonics.")
@click.option("--mca", is_flag=True, help="Estimate the cycles of hot loops with llvm-mca, a static model.")
@click.option("--folder", type=click.Path(path_type=Path), metavar="PATH", help="Keeps the libraries.")
@click.option(
    "--json", "json_file", type=click.Path(path_type=Path), metavar="PATH", help="Write all figures."
)
def main(
    models: str, targets: str | None, peers_folder: Path | None, stream: Streaming, layers: bool, top: int, mca: bool,
    folder: Path | None, json_file: Path | None,
) -> None:  # fmt: skip
    """Compile each model for each target and count."""
    folder, zoo = folder or CACHE, find_zoo()
    chosen = [find_target(name) for name in targets.split(",")] if targets else arm_targets()
    tool = find_mca() if mca else None
    if mca and tool is None:
        raise click.UsageError("--mca needs llvm-mca: install llvm (Debian and Ubuntu: apt-get install llvm)")
    plugin = build_plugin(folder / "arm")
    peers = find_peers(peers_folder, plugin, folder / "arm") if peers_folder is not None else None
    rows: list[Row] = []
    with Console(stderr=True).status("") as status:
        for name in models.split(","):
            entry = load_entry(name, zoo, folder)
            for target in chosen:
                status.update(f"{name} for {target.name}")
                kept = folder / "arm" / target.name / name
                row = count(name, entry, target, plugin, kept, tool, stream)
                if peers is not None and target.runner[0] == "qemu-aarch64":
                    status.update(f"{name} for {target.name}: other engines")
                    row.peers = peers.count(Case.make(name, entry, folder), target, kept / "build")
                rows.append(row)
                if json_file is not None:  # each time: a run may be interrupted
                    write_json(json_file, rows)
    report(rows, layers, top, version_of(tool) if tool else "")
    sys.exit(1 if any(row.error for row in rows) else 0)


def find_peers(folder: Path, plugin: Path, build: Path) -> ArmPeers:
    """The engines to count. Raises UsageError where there are none."""
    try:
        return ArmPeers.find(folder, plugin, find_target("arm-neon"), build)
    except PeerError as error:
        raise click.UsageError(str(error)) from None


# ---------------------------------------------------------------- counting
def arm_targets() -> list[Target]:
    """Those whose programs run here under an emulator that takes the plugin."""
    return [t for t in TARGETS.values() if t.runner and t.runner[0] in SYSTEM and availability(t).runs]


def count(
    name: str,
    entry: seeded_models.Entry,
    target: Target,
    plugin: Path,
    folder: Path,
    mca: str | None = None,
    stream: Streaming = "auto",
) -> Row:
    """Compile, run and look at one library, which ``folder`` keeps; ``mca``: the program, for targets with A64 vectors."""
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
    enter_counts(row, steps, program, target, meta, mca)
    return row


def enter_counts(
    row: Row,
    steps: Counter[tuple[int, int]],
    program: Path,
    target: Target,
    meta: Mapping[str, Any],
    mca: str | None = None,
) -> None:
    """Sum how often (step, address) was executed by what it belongs to."""
    row.macs = meta["macs"]
    code = disassemble(program, target)
    where = {i.address: i for i in code}
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
    if mca is not None and target.runner[0] == "qemu-aarch64":
        times = Counter[int]()
        for (_, address), executed in steps.items():
            times[address] += executed
        row.loops = estimate(mca, code, times, program.parent)


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
    return read_counts(counts)


if __name__ == "__main__":
    main()
