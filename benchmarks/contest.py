"""One model, all engines: files for each, processes, rounds in turns. Used by x86.py and large.py."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
import onnxruntime
from engines.base import Job
from peers import Installed, PeerError, Worker
from seeded_models import Entry

import qcc
from qcc.backends.c.build import link_shared
from qcc.backends.targets import availability, find_target

CHECKED_SAMPLES = 2
OURS, OURS_IN_C, PEAK = "qcc", "qcc, C loop", "peak"
HERE = Path(__file__).resolve().parent
Status = Callable[[str], None]


@dataclass
class Row:
    """One engine on one model: medians and minima of the rounds, in microseconds. ``error``: why there are none.

    ``resident_bytes``: memory of the process after loading and one inference, less that before it loaded the engine.
    """

    model: str
    engine: str
    threads: int
    macs: int
    medians: list[float] = field(default_factory=list)
    minima: list[float] = field(default_factory=list)
    resident_bytes: float = 0
    load_seconds: float = 0
    sqnr_db: float | None = None
    error: str = ""

    @property
    def median_us(self) -> float:
        """Median of the rounds' medians."""
        return statistics.median(self.medians)

    @property
    def min_us(self) -> float:
        """The fastest block of all rounds."""
        return min(self.minima)

    @property
    def gmacs(self) -> float:
        """Multiply-accumulates of the model per nanosecond."""
        return self.macs / self.min_us / 1e3


@dataclass(frozen=True)
class Case:
    """A model with what the engines need. ``folder`` is kept between runs; its name has a digest of the model."""

    name: str
    entry: Entry
    folder: Path

    @classmethod
    def make(cls, name: str, entry: Entry, folder: Path) -> Case:
        """Write the files that are missing."""
        digest = hashlib.sha256(Path(entry.model).read_bytes()).hexdigest()[:12]
        case = cls(name, entry, folder / f"{name}-{digest}")
        case.folder.mkdir(parents=True, exist_ok=True)
        np.save(case.folder / "calibration.npy", entry.calib)
        np.save(case.folder / "samples.npy", entry.x[:CHECKED_SAMPLES])
        case._fold()
        return case

    @property
    def job(self) -> Job:
        """Of all engines, before they prepare."""
        return Job(
            str(Path(self.entry.model).absolute()),
            str(self.folder.absolute() / "folded.onnx"),
            str(self.folder.absolute() / "calibration.npy"),
            "",
        )

    def _fold(self) -> None:
        """folded.onnx, by onnxruntime, and reference.npz, its outputs."""
        model = onnx.load(self.entry.model)
        dimensions = model.graph.input[0].type.tensor_type.shape.dim
        for dimension, size in zip(dimensions, (1, *self.entry.x.shape[1:]), strict=True):
            dimension.dim_value = size
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(self.folder / "folded.onnx")
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        samples = self.entry.x[:CHECKED_SAMPLES]
        runs = [session.run(None, {model.graph.input[0].name: x[None]}) for x in samples]
        names = [o.name for o in session.get_outputs()]
        outputs: dict[str, Any] = {
            f"output{i}": np.stack([run[i] for run in runs]) for i in range(len(names))
        }
        np.savez(self.folder / "reference.npz", **outputs)


@dataclass(frozen=True)
class Ours:
    """Our library for a case. ``seconds``: of each stage; ``passes``: of each pass; ``macs``: of the model as it was."""

    job: Job
    library: Path
    macs: int
    exact: bool
    passes: list[tuple[str, float]]
    seconds: dict[str, float]


def compile_ours(case: Case, target: str, threads: int = 1, **choices: Any) -> Ours:
    """Compile, build, and compare with the interpreter. ``choices``: more fields of CompileOptions."""
    folder = case.folder / f"qcc-{target}-{threads}"
    choices |= {"threads": threads} if threads > 1 else {}
    clock = [time.perf_counter()]
    compiled = qcc.compile(
        case.entry.model, target=target, calibration=case.entry.calib, name=c_name(case.name), **choices
    )
    clock.append(time.perf_counter())
    compiled.save(folder)
    clock.append(time.perf_counter())
    library = compiled.build(folder)
    clock.append(time.perf_counter())
    verified = compiled.verify(library, case.entry.x[:CHECKED_SAMPLES])
    loop = link_shared([HERE / "engines" / "call_loop.c"], find_target(target), case.folder / "call_loop.so")
    paths = {"library": library.path, "record": folder / f"{c_name(case.name)}.json", "loop": loop}
    prepared = folder.with_suffix(".json")
    prepared.write_text(json.dumps({k: str(p.absolute()) for k, p in paths.items()}), encoding="utf-8")
    return Ours(
        replace(case.job, prepared=str(prepared.absolute()), threads=threads),
        library.path,
        compiled.report["dead_channels"]["macs_before"],
        verified.exact,
        list(compiled.compilation.seconds),
        dict(zip(("compile", "write", "build and load"), np.diff(clock).tolist(), strict=True)),
    )


def c_name(name: str) -> str:
    """A C identifier."""
    return name.replace("-", "_")


def peak_job(target: str, folder: Path) -> Job | None:
    """The target's loop over registers; None where it has none, or this processor lacks the instructions."""
    found = availability(find_target(target))
    if found.target.peak is None or not found.runs:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    library = link_shared([found.target.peak], found.target, folder / f"peak-{target}.so")
    samples = folder / "none.npy"
    np.save(samples, np.zeros((1, 1), np.float32))
    return Job("", "", str(samples), str(library.absolute()))


@dataclass
class Entrant:
    """An engine in the contest."""

    row: Row
    python: Path
    load: str
    job: Job


def entrants(case: Case, ours: Ours, installed: Sequence[Installed], status: Status) -> list[Entrant]:
    """Ours, from Python and from C, and every peer, which makes its file now where it has none."""
    python, threads = Path(sys.executable), ours.job.threads

    def row(engine: str) -> Row:
        return Row(case.name, engine, threads, ours.macs)

    found = [
        Entrant(row(OURS), python, "engines.library:load", ours.job),
        Entrant(row(OURS_IN_C), python, "engines.library:load_loop", ours.job),
    ]
    for peer in installed:
        status(f"{case.name}: {peer.peer.name}")
        entrant = Entrant(row(peer.peer.name), peer.python, peer.peer.load, case.job)
        try:
            entrant.job = replace(peer.prepare(case.job, case.folder), threads=threads)
        except PeerError as error:
            entrant.row.error = str(error)
        found.append(entrant)
    return found


def contend(
    case: Case,
    found: Sequence[Entrant],
    peak: Entrant | None,
    cores: Sequence[int],
    rounds: int,
    seconds: float,
) -> list[Row]:
    """Load every engine, time each once in every round, in an order that turns; ``peak`` takes part, for a tenth of the time."""
    workers: list[tuple[Worker, Row, float]] = []
    try:
        for entrant in [*found, *([peak] if peak is not None else [])]:
            row, job = entrant.row, replace(entrant.job, cores=tuple(cores[: entrant.job.threads]))
            if row.error:
                continue
            try:
                worker = Worker(entrant.python, entrant.load, job, case.folder)
                row.resident_bytes = worker.facts["resident_bytes"]
                row.load_seconds = worker.facts["load_seconds"]
                workers.append((worker, row, seconds / 10 if entrant is peak else seconds))
                if entrant is peak:
                    row.macs = int(worker.facts["macs"])
                else:
                    row.sqnr_db = worker.sqnr_db(case.folder / "samples.npy", case.folder / "reference.npz")
            except PeerError as error:
                row.error = str(error)
        for number in range(rounds + 1):  # the first one warms up
            for index in range(len(workers)):
                worker, row, duration = workers[(index + number) % len(workers)]
                if row.error:
                    continue
                try:
                    times = worker.time(duration)
                except PeerError as error:
                    row.error = str(error)
                    continue
                if number > 0:
                    row.medians.append(times["median_us"])
                    row.minima.append(times["min_us"])
    finally:
        for worker, _, _ in workers:
            worker.close()
    return [entrant.row for entrant in found]


def cores_from(core: int) -> list[int]:
    """Processors in the order in which threads get them: ``core`` first (-1: the last one), then the others downwards.

    A ``core`` that this process is kept off is taken all the same, and with it all the others.
    """
    allowed = sorted(os.sched_getaffinity(0), reverse=True)
    if core >= (os.cpu_count() or 1):
        raise click.BadParameter(f"--core {core}: there are {os.cpu_count()} processors")
    if core >= 0 and core not in allowed:
        allowed = sorted(range(os.cpu_count() or 1), reverse=True)
    first = allowed[0] if core < 0 else core
    return [first, *(c for c in allowed if c != first)]


@contextmanager
def locked(path: Path | None) -> Iterator[None]:
    """Holds a lock on the file, where one is named: one timing at a time on a machine."""
    if path is None:
        yield
        return
    with path.open("a", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
