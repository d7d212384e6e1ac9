"""Instructions of other engines on 64-bit Arm: their aarch64 wheels, counted in the same way as our libraries.

An engine runs in the Python of emulated.py, on one thread. Of the instructions between the marks, those of the Python
interpreter and of ctypes, which calls the marks, are left out: what is counted is the engine with the libraries of the
system that it calls. The model's file is the one that benchmarks/x86.py times, made on this machine.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from contest import Case
from emulated import Emulated
from peers import Installed, PeerError, find_installed, last_line
from qemu import HERE, read_counts

from qcc.backends.c.build import run_tool
from qcc.backends.target import Target
from qcc.ir.errors import QccError

LITERT, ONNXRUNTIME = "LiteRT", "onnxruntime"
_PEERS = {"litert int8": (LITERT, "ai_edge_litert"), "onnxruntime u8s8": (ONNXRUNTIME, "onnxruntime")}
_NOT_COUNTED = re.compile(r"python3\.\d+$|_ctypes|libffi|arm_marks\.so")
_LEAST_DB = 3.0  # a wrong kernel gives noise: about 0 dB, or less


@dataclass
class PeerRow:
    """One engine with one model: instructions of an inference, in total and by the files that hold them."""

    engine: str
    version: str
    model: str
    target: str
    instructions: int = 0
    files: dict[str, int] = field(default_factory=dict)
    sqnr_db: float | None = None
    error: str = ""


@dataclass(frozen=True)
class ArmPeers:
    """The engines that can be counted here. ``marks``: arm_marks.c, compiled for them."""

    emulated: Emulated
    installed: tuple[Installed, ...]
    plugin: Path
    marks: Path

    @classmethod
    def find(cls, folder: Path, plugin: Path, target: Target, build: Path) -> ArmPeers:
        """Those of a folder that install_peers.py made. Raises PeerError, which says what to do, where there are none."""
        emulated = Emulated(folder / "aarch64")
        if emulated.python is None:
            raise PeerError(
                f"no engines for Arm in {folder}: python benchmarks/install_peers.py {folder} --arm"
            )
        versions = emulated.versions()
        installed = tuple(
            i for i in find_installed(folder) if i.peer.name in _PEERS and _PEERS[i.peer.name][1] in versions
        )
        if not installed:
            raise PeerError(
                f"nothing in {folder} converts models: python benchmarks/install_peers.py {folder}"
            )
        return cls(emulated, installed, plugin, build_marks(target, build))

    def count(self, case: Case, target: Target, folder: Path) -> list[PeerRow]:
        """Every engine with one model, on the processor of ``target``."""
        folder.mkdir(parents=True, exist_ok=True)
        rows = []
        for installed in self.installed:
            engine, distribution = _PEERS[installed.peer.name]
            row = PeerRow(engine, self.emulated.versions()[distribution], case.name, target.name)
            try:
                self._count(row, installed, case, target.runner[target.runner.index("-cpu") + 1], folder)
            except PeerError as error:
                row.error = str(error)
            rows.append(row)
        return rows

    def _count(self, row: PeerRow, installed: Installed, case: Case, cpu: str, folder: Path) -> None:
        job, counts = folder / f"{row.engine}.json", folder / f"{row.engine}.txt"
        job.write_text(json.dumps(asdict(installed.prepare(case.job, case.folder))), encoding="utf-8")
        files = (job, case.folder / "samples.npy", case.folder / "reference.npz", self.marks)
        arguments = [str(HERE / "arm_worker.py"), installed.peer.load, *(str(f.absolute()) for f in files)]
        done = self.emulated.run(
            cpu, arguments, ("-plugin", f"{self.plugin},out={counts.absolute()}"), (HERE,)
        )
        if done.returncode != 0:
            raise PeerError(f"ended with status {done.returncode}: {last_line(done.stderr)}")
        reply = json.loads(done.stdout.splitlines()[-1])
        row.sqnr_db = reply["sqnr_db"]
        if reply["sqnr_db"] < _LEAST_DB:
            raise PeerError(f"computes something else under QEMU: {row.sqnr_db:.1f} dB")
        row.files = by_file(read_counts(counts), reply["maps"])
        row.instructions = sum(n for name, n in row.files.items() if not _NOT_COUNTED.search(name))


def build_marks(target: Target, folder: Path) -> Path:
    """arm_marks.c as a shared library. Raises PeerError where no compiler for ``target`` makes one."""
    result = folder / "arm_marks.so"
    for compiler in target.compilers:
        command = [*compiler.argv, "-O2", "-shared", "-fPIC", "-nostdlib", str(HERE / "arm_marks.c")]
        try:
            run_tool([*command, "-o", str(result)], 60)
        except QccError:
            continue
        return result.absolute()
    raise PeerError(f"no compiler for {target.name} makes a shared library")


def by_file(steps: Counter[tuple[int, int]], maps: Sequence[tuple[int, int, str]]) -> dict[str, int]:
    """Instructions by the loaded file that their addresses are in, the most first; "" for those in none."""
    found = Counter[str]()
    for (_, address), times in steps.items():
        found[next((name for begin, end, name in maps if begin <= address < end), "")] += times
    return dict(found.most_common())
