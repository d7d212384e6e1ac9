"""The engines that qcc is compared with: where they are installed, and one process for each of them and each model.

A peer quantizes the float model itself. Peers are looked for in the virtual environments of one folder, because their
versions clash (install_peers.py makes it), and in the environment that this runs in. One that is nowhere is left out.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import click
from engines.base import Job

WORKER = Path(__file__).with_name("worker.py")
PREPARE_SECONDS, LOAD_SECONDS, ANSWER_SECONDS = 900, 120, 60

# Which of the modules given as arguments can be imported, and the versions of their distributions.
_FIND = """
import importlib.metadata, importlib.util, json, sys
owners = importlib.metadata.packages_distributions()
names = [n for n in sys.argv[1:] if importlib.util.find_spec(n) is not None and n in owners]
print(json.dumps({n: importlib.metadata.version(owners[n][0]) for n in names}))
"""


class PeerError(Exception):
    """A peer that cannot be prepared, loaded or timed; the message is its last line."""


@dataclass(frozen=True)
class Peer:
    """An engine. ``load`` and ``prepare``: MODULE:FUNCTION of worker.py, and the modules they need; ``suffix``: of what
    ``prepare`` writes."""

    name: str
    load: str
    needs: tuple[str, ...]
    prepare: str = ""
    prepare_needs: tuple[str, ...] = ()
    suffix: str = ""


PEERS = (
    Peer("onnxruntime f32", "engines.ort:load_float", ("onnxruntime",)),
    Peer(
        "onnxruntime u8s8",
        "engines.ort:load_int8",
        ("onnxruntime",),
        "engines.qdq:prepare",
        ("onnxruntime", "onnx"),
        ".onnx",
    ),
    Peer(
        "openvino int8",
        "engines.openvino_int8:load",
        ("openvino",),
        "engines.nncf_int8:prepare",
        ("openvino", "nncf"),
        ".xml",
    ),
    Peer(
        "litert int8",
        "engines.litert_int8:load",
        ("ai_edge_litert",),
        "engines.tflite:prepare",
        ("tensorflow", "onnx"),
        ".tflite",
    ),
)
MODULES = sorted({module for peer in PEERS for module in (*peer.needs, *peer.prepare_needs)})


@dataclass(frozen=True)
class Installed:
    """A peer that is here: the interpreters to run it and to prepare its file, and the versions of what they use."""

    peer: Peer
    python: Path
    prepare_python: Path | None
    versions: tuple[str, ...]

    def prepare(self, job: Job, folder: Path) -> Job:
        """The job with the peer's own file, made where ``folder`` does not hold it yet. Raises PeerError."""
        if not self.peer.prepare:
            return job
        slug = "-".join((*self.peer.name.split(), *(v.replace(" ", "-") for v in self.versions)))
        made = replace(job, prepared=str(folder / f"{slug}{self.peer.suffix}"))
        if Path(made.prepared).is_file():
            return made
        if self.prepare_python is None:
            raise PeerError(f"not converted: {' and '.join(self.peer.prepare_needs)} not installed")
        part = replace(made, prepared=str(folder / f"part-{slug}{self.peer.suffix}"))
        command = [*worker_command(self.prepare_python, self.peer.prepare, part, folder)]
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", check=False, timeout=PREPARE_SECONDS
        )
        if done.returncode != 0:
            raise PeerError(f"not converted: {last_line(done.stderr)}")
        for path in sorted(folder.glob(f"part-{slug}.*"), reverse=True):  # .bin before .xml
            path.rename(path.with_name(path.name.removeprefix("part-")))
        return made


def peers_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--peers``, which arrives as a list of Installed."""
    return click.option(
        "--peers",
        envvar="QCC_PEERS",
        type=click.Path(path_type=Path, exists=True, file_okay=False),
        callback=lambda context, parameter, folder: find_installed(folder),
        metavar="FOLDER",
        help="Folder of virtual environments, made by install_peers.py (default: $QCC_PEERS; this environment is searched too).",
    )(command)


def find_installed(folder: Path | None, peers: Sequence[Peer] = PEERS) -> list[Installed]:
    """Those of ``peers`` that run in an environment of ``folder``, or in this one."""
    pythons = [*sorted(folder.absolute().glob("*/bin/python"))] if folder is not None else []
    environments = {python: modules_of(python) for python in [*pythons, Path(sys.executable)]}

    def place(needs: Iterable[str]) -> Path | None:
        return next((p for p, found in environments.items() if all(n in found for n in needs)), None)

    installed = []
    for peer in peers:
        python, prepare_python = place(peer.needs), place(peer.prepare_needs)
        if python is not None:
            versions = {n: environments[python][n] for n in peer.needs}
            if prepare_python is not None:
                versions |= {
                    n: environments[prepare_python][n] for n in peer.prepare_needs if n not in versions
                }
            used = tuple(f"{n} {v}" for n, v in versions.items() if n != "onnx")
            installed.append(Installed(peer, python, prepare_python, used))
    return installed


def modules_of(python: Path) -> dict[str, str]:
    """Versions of those of MODULES that this interpreter can import."""
    command = [str(python), "-c", _FIND, *MODULES]
    text = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    found: dict[str, str] = json.loads(text)
    return found


def worker_command(python: Path, entry: str, job: Job, folder: Path) -> list[str]:
    """How to start worker.py."""
    file = folder / f"{entry.replace(':', '.')}-{job.threads}.json"
    file.write_text(json.dumps(asdict(job)), encoding="utf-8")
    return [str(python), str(WORKER), entry, str(file)]


def last_line(text: str) -> str:
    """Of what a process printed."""
    lines = text.strip().splitlines()
    return lines[-1][:200] if lines else "no message"


class Worker:
    """A loaded engine in a process that stands still except while it is asked something."""

    def __init__(self, python: Path, entry: str, job: Job, folder: Path) -> None:
        """Raises PeerError where the engine does not load."""
        self._log = (folder / f"{entry.replace(':', '.')}-{job.threads}.log").open("w+", encoding="utf-8")
        single = {f"{name}_NUM_THREADS": "1" for name in ("OPENBLAS", "MKL")}  # numpy's, not the engine's
        self._process = subprocess.Popen(
            worker_command(python, entry, job, folder),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=os.environ | single,
        )
        self.facts = self._answer(LOAD_SECONDS)

    def time(self, seconds: float) -> dict[str, float]:
        """median_us and min_us of an inference."""
        return self._ask("time", seconds)

    def sqnr_db(self, samples: Path, reference: Path) -> float:
        """Of the outputs for ``samples`` against ``reference``."""
        return self._ask("check", samples, reference)["sqnr_db"]

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()
        self._log.close()

    def _ask(self, *words: object) -> dict[str, float]:
        self._process.send_signal(signal.SIGCONT)
        assert self._process.stdin is not None
        self._process.stdin.write("\t".join(map(str, words)) + "\n")
        self._process.stdin.flush()
        return self._answer(ANSWER_SECONDS)

    def _answer(self, seconds: float) -> dict[str, float]:
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], seconds)
        line = self._process.stdout.readline() if ready else ""
        if not line:
            self._process.kill()
            status = self._process.wait()
            self._log.seek(0)
            message = f"ended with status {status}: {last_line(self._log.read())}"
            self.close()
            raise PeerError(message)
        self._process.send_signal(signal.SIGSTOP)
        answer: dict[str, float] = json.loads(line)
        return answer
