"""Tuning: the kernels that could do a step, timed on this machine in their places in the model, and remembered.

A library is built for the first candidates of all steps, one for the second ones, and so on; each reports the time of
every step. Candidates compute the same bytes, so that no measurement, and no file of measurements, can do any harm.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from math import inf, isfinite
from pathlib import Path
from typing import Any

import numpy as np

from qcc.backends.c.build import find_compiler, run_tool
from qcc.backends.c.emit import RUNTIME, emit
from qcc.backends.c.run import Bytes, StepTimer, require_instructions, whole_pages
from qcc.backends.kernel import Step
from qcc.backends.program import Program, build_program
from qcc.backends.select import Candidate, Order
from qcc.backends.target import Target
from qcc.ir.errors import TargetError
from qcc.ir.graph import Graph, Value
from qcc.ir.npz import write_aside

Times = dict[str, dict[str, float]]  # microseconds by label of a kernel, by key of a step
Progress = Callable[[str, int, int], None]
Measure = Callable[[Sequence[Program], Progress], list[list[float]]]

FORMAT = "qcc tuning 1"
PORTABLE = 1  # rows of this priority, and below, are for any processor
MARGIN = 0.02  # the first by estimate stays unless another is faster by more than this share,
TICKS = 0.02  # and by more than these microseconds: clocks may tick in steps of 10 ns
SECONDS = 0.5  # of measuring each library
BLOCK_SECONDS = 0.01
MIN_BLOCKS = 3
SEED = 0


# ---------------------------------------------------------------- choosing
def tune(
    graph: Graph,
    target: Target,
    io: str,
    file: Path,
    progress: Progress = lambda what, done, total: None,
    measure: Measure | None = None,
) -> Order:
    """The order of candidates by their times: what ``file`` knows, and what is measured now and added to it.

    ``measure``: microseconds of each operation of each program; by default by building and running them. Nothing is
    built when the file knows all. Raises TargetError as ``require_tunable``, or where building fails.
    """
    require_tunable(target, file)
    times, machine = read_times(file), machine_name(target)
    found = [
        (_key(op.step, contenders(op.candidates), target, machine), contenders(op.candidates))
        for op in build_program(graph, target, graph.name, io, join=False).operations
    ]
    count = max(
        (len(c) for key, c in found if len(c) > 1 and not _labels(c) <= times.get(key, {}).keys()), default=0
    )
    if count:
        _write_times(file, {})  # what cannot be kept is not measured
        programs = [
            build_program(graph, target, graph.name, io, order=_choose(i), join=False) for i in range(count)
        ]
        measured = _mean_times(found, programs, (measure or measure_steps)(programs, progress))
        for key, labels in measured.items():
            times.setdefault(key, {}).update(labels)
        _write_times(file, times)
    return _by_time(times, target, machine)


def require_tunable(target: Target, file: Path) -> None:
    """Raise TargetError where programs of ``target`` do not run in this process, or ``file`` holds something else."""
    require_native(target, "leave tuning out: kernels are then chosen by estimated cycles")
    read_times(file)


def require_native(target: Target, hint: str) -> None:
    """Raise TargetError, with this hint, where programs of ``target`` do not run in this process."""
    if not target.is_native:
        raise TargetError(
            f"target {target.name} cannot be tuned here: the time of an emulator says nothing", hint=hint
        )
    require_instructions(target)


def contenders(candidates: tuple[Candidate, ...]) -> tuple[Candidate, ...]:
    """Candidates worth a measurement: portable rows only where there are no others."""
    made_for_it = tuple(c for c in candidates if c.kernel.priority > PORTABLE)
    return made_for_it or candidates


def _choose(index: int) -> Order:
    """The order in which contender ``index`` of each step, counted around, is first."""

    def order(step: Step, candidates: tuple[Candidate, ...]) -> tuple[Candidate, ...]:
        able = contenders(candidates)
        return (able[index % len(able)],)

    return order


def _by_time(times: Times, target: Target, machine: str) -> Order:
    def order(step: Step, candidates: tuple[Candidate, ...]) -> tuple[Candidate, ...]:
        known = times.get(_key(step, contenders(candidates), target, machine), {})
        timed = [replace(c, microseconds=known.get(c.kernel.label)) for c in candidates]
        if len(contenders(candidates)) == 1 or timed[0].microseconds is None:
            return candidates
        limit = timed[0].microseconds * (1 - MARGIN) - TICKS
        fastest = min(timed, key=lambda c: inf if c.microseconds is None else c.microseconds)
        first = fastest if (fastest.microseconds or inf) < limit else timed[0]
        rest = (c for c in timed if c is not first)
        return (first, *sorted(rest, key=lambda c: inf if c.microseconds is None else c.microseconds))

    return order


def _labels(candidates: Sequence[Candidate]) -> set[str]:
    return {c.kernel.label for c in candidates}


def _mean_times(
    found: Sequence[tuple[str, tuple[Candidate, ...]]],
    programs: Sequence[Program],
    measured: Sequence[Sequence[float]],
) -> Times:
    """Of every step that has a choice: the least time of each kernel at each place, then the mean over its places."""
    places: dict[str, dict[str, list[float]]] = {}
    for index, (key, able) in enumerate(found):
        if len(able) > 1:
            least: dict[str, float] = {}
            for program, microseconds in zip(programs, measured, strict=True):
                label = program.operations[index].kernel.label
                least[label] = min(microseconds[index], least.get(label, inf))
            for label, value in least.items():
                places.setdefault(key, {}).setdefault(label, []).append(value)
    return {
        key: {label: round(sum(values) / len(values), 3) for label, values in labels.items()}
        for key, labels in places.items()
    }


# ---------------------------------------------------------------- what a time belongs to
def signature(step: Step) -> str:
    """What the time of ``step`` depends on: its ops, the attributes of the first, all shapes; not the numbers."""
    attributes = " ".join(f"{name}={value}" for name, value in sorted(step.root.op.attributes().items()))
    nodes = (f"{n.op.name}({', '.join(_type(v) for v in n.inputs)})" for n in step.nodes)
    return f"{' + '.join(nodes)} -> {_type(step.output)} {attributes}".rstrip()


def _type(value: Value | None) -> str:
    return "-" if value is None else f"{value.type.dtype.value}{list(value.type.shape)}"


def machine_name(target: Target) -> str:
    """Processor, compiler and flags: what times are compared within."""
    compiler = find_compiler(target)
    version = run_tool([*compiler.argv, "--version"]).partition("\n")[0] if compiler else "no compiler"
    return "; ".join((processor_name(), version, " ".join(target.flags)))


@cache
def processor_name() -> str:
    """Model name of this machine's processor, as the system has it."""
    cpuinfo = Path("/proc/cpuinfo")
    if sys.platform == "linux" and cpuinfo.is_file():
        lines = (line.partition(":") for line in cpuinfo.read_text("utf-8", "replace").splitlines())
        wanted = ("model name", "CPU implementer", "CPU part", "Hardware")
        names = dict.fromkeys(value.strip() for key, _, value in lines if key.strip() in wanted)
        return " ".join(names) or platform.machine()
    return platform.processor() or platform.machine()


def _key(step: Step, candidates: Sequence[Candidate], target: Target, machine: str) -> str:
    parts = [target.name, machine, signature(step)]
    parts += [f"{c.kernel.label} {_digest(c.kernel.source)}" for c in candidates]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


@cache
def _digest(source: Path) -> str:
    """Of a kernel and all headers it may include."""
    files = (source, *sorted(source.parent.glob("*.h")), *sorted(RUNTIME.glob("*.h")))
    return hashlib.sha256(b"\0".join(p.read_bytes() for p in files)).hexdigest()


# ---------------------------------------------------------------- the file
def default_file() -> Path:
    """``qcc/tuning.json`` where this system keeps what can be computed again."""
    home = Path.home()
    places = {
        "win32": ("LOCALAPPDATA", home / "AppData" / "Local"),
        "darwin": ("", home / "Library" / "Caches"),
    }
    variable, folder = places.get(sys.platform, ("XDG_CACHE_HOME", home / ".cache"))
    return Path(os.environ.get(variable) or folder) / "qcc" / "tuning.json"


def read_times(file: Path) -> Times:
    """The times in ``file``, none where it does not exist; entries that are no times are left out.

    Raises TargetError for a file that is something else: it would be overwritten.
    """
    try:
        content = json.loads(file.read_bytes()) if file.exists() else {"format": FORMAT}
    except (OSError, ValueError, RecursionError):
        content = None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise TargetError(
            f"{file} is no file of tuning results that this version can read",
            hint="remove it, or name another one with --tune-file",
        )
    entries = content.get("microseconds")
    listed = entries.items() if isinstance(entries, dict) else ()
    return {key: labels for key, labels in listed if _are_times(labels)}


def _are_times(labels: Any) -> bool:
    return isinstance(labels, dict) and all(
        isinstance(t, int | float) and isfinite(t) and t > 0 for t in labels.values()
    )


def _write_times(file: Path, times: Times) -> None:
    """``times`` and what others have added to ``file`` since it was read."""
    everything = {"format": FORMAT, "microseconds": dict(sorted((read_times(file) | times).items()))}
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_aside(file, (json.dumps(everything, indent=1) + "\n").encode())
    except OSError as error:
        raise TargetError(
            f"cannot write {file}: {error.strerror}", hint="name another one with --tune-file"
        ) from error


# ---------------------------------------------------------------- measuring
def measure_steps(programs: Sequence[Program], progress: Progress) -> list[list[float]]:
    """Least microseconds of each operation of each program, all in turns. Raises TargetError where building fails.

    All use the same memory: with an arena of each one's own, times of equal kernels differ by several per cent.
    """
    arena = whole_pages(max(p.plan.arena_bytes for p in programs))
    memory = (arena, _noise(programs[0]), whole_pages(programs[0].output_bytes))
    with tempfile.TemporaryDirectory(prefix="qcc-tune-") as name:
        timers = []
        for index, program in enumerate(programs):
            progress("building candidates", index, len(programs))
            folder = emit(program, Path(name) / str(index))
            timers.append(StepTimer(folder, program.target, memory))
        for timer in timers:
            timer.run(1)  # warms it up
        calls = [max(1, int(BLOCK_SECONDS / _seconds_of(timer, 1))) for timer in timers]
        spent = [0.0] * len(timers)
        rounds = 0
        while rounds < MIN_BLOCKS or min(spent) < SECONDS:
            progress("timing candidates", int(100 * min(spent) / SECONDS), 100)
            for turn in range(len(timers)):
                index = (turn + rounds) % len(timers)
                if rounds < MIN_BLOCKS or spent[index] < SECONDS:
                    spent[index] += _seconds_of(timers[index], calls[index])
            rounds += 1
    return [[float(ns) / 1000 for ns in timer.nanoseconds] for timer in timers]


def _seconds_of(timer: StepTimer, calls: int) -> float:
    start = time.perf_counter()
    timer.run(calls)
    return time.perf_counter() - start


def _noise(program: Program) -> Bytes:
    """An input block of random numbers: any integers, or floats around 0."""
    rng = np.random.default_rng(SEED)
    block = whole_pages(program.input_bytes)
    block[:] = rng.integers(0, 256, program.input_bytes, np.uint8)
    for port in program.inputs:
        if not port.value.type.dtype.is_integer:
            data = rng.normal(size=port.value.type.elements).astype(port.value.type.dtype.numpy)
            block[port.offset : port.offset + data.nbytes] = data.view(np.uint8)
    return block
