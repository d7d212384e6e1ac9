"""Accuracy of the 8-bit programs: float32, qcc, onnxruntime's static quantization, and OpenVINO with NNCF.

    python benchmarks/accuracy.py --peers build/peers
    python benchmarks/accuracy.py --models kws,ic --observer "observer=min-max" --observer "observer=percentile p=99.99"

Every contender calibrates on the same samples and runs on the same test samples, with its own defaults: onnxruntime quantizes
with per-channel QInt8 weights, QUInt8 activations and QDQ nodes, by MinMax and by Percentile, after its own pre-processing.
What peers answer is kept in ``--cache``, by model, data and versions. The marks of qcc: an output SQNR 3 dB above the best
peer's, more samples with float32's class than with any peer (or all), and at most 0.3 points of label accuracy lost to
float32. Exit status 1 when one is missed. Peers that are not installed are left out (install_peers.py makes the folder).
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # of one process among others; before numpy is imported

import hashlib
import json
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import numpy as np
from engines.base import Job
from models import CACHE, CALIBRATION_SAMPLES, models_option, zoo_option
from numpy.typing import NDArray
from peers import PREPARE_SECONDS, Installed, Peer, PeerError, find_installed, last_line
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

import qcc
from qcc.options import CompileOptions

ALLOWED_LOSS = 0.003  # of label accuracy, as a share of the samples
AHEAD_DB = 3.0  # of the best peer
AGREEMENTS = ("agree", "f1")  # with float32: of classes, of detections
BATCH = 50
OUTPUTS = Path(__file__).with_name("engines") / "outputs.py"
Array = NDArray[Any]
_ORT = (("onnxruntime",), ("onnxruntime", "onnx"), ".onnx")
PEERS = tuple(
    Peer(name, load, needs, prepare, prepare_needs, suffix)
    for name, load, prepare, (needs, prepare_needs, suffix) in (
        ("onnxruntime MinMax", "engines.ort:load_int8", "engines.qdq:prepare", _ORT),
        ("onnxruntime Percentile", "engines.ort:load_int8", "engines.qdq:prepare_percentile", _ORT),
        (
            "OpenVINO NNCF",
            "engines.openvino_int8:load",
            "engines.nncf_int8:prepare",
            (("openvino",), ("openvino", "nncf"), ".xml"),
        ),
    )
)


@dataclass
class Row:
    """One contender on one model. ``metric``: what the zoo measures; ``marks``: by name, whether it was reached."""

    model: str
    contender: str
    metric: dict[str, Any]
    marks: dict[str, bool] = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """A model with the samples to calibrate on and those to measure with; ``reference``: what float32 gives for these."""

    name: str
    model: str
    calibration: Array
    x: Array
    reference: list[Array]
    measure: Any

    @staticmethod
    def of(zoo: ModuleType, name: str, samples: int | None = None) -> Case:
        """The model ``name`` of the zoo, and at most so many of its test samples."""
        entry = zoo.load(name)
        x, y = entry.x[:samples], None if entry.y is None else entry.y[:samples]
        reference = zoo.run(entry.model, x)

        def measure(outputs: list[Array]) -> dict[str, Any]:
            found: dict[str, Any] = entry.metric(outputs, y=y, ref=reference, x=x)
            return found

        return Case(name, entry.model, entry.calib[:CALIBRATION_SAMPLES], x, reference, measure)

    def metric(self, outputs: list[Array]) -> dict[str, Any]:
        """What the zoo measures: SQNR, agreement with float32, label accuracy."""
        found: dict[str, Any] = self.measure(outputs)
        return found


@click.command()
@models_option()
@zoo_option
@click.option(
    "--peers",
    envvar="QCC_PEERS",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder of virtual environments (default: $QCC_PEERS; this environment is searched too).",
)
@click.option(
    "--observer", "observers", multiple=True, default=[CompileOptions().observer], show_default=True
)
@click.option("--corrections/--no-corrections", default=True, show_default=True, help="Of qcc.")
@click.option("--samples", type=click.IntRange(min=1), help="No more test samples than these.")
@click.option(
    "--cache", type=click.Path(path_type=Path), default=CACHE, help="Where the answers of peers are kept."
)
@click.option("--json", "result", type=click.Path(path_type=Path), help="Write all figures there.")
def main(
    models: list[str],
    zoo: ModuleType,
    peers: Path | None,
    observers: tuple[str, ...],
    corrections: bool,
    samples: int | None,
    cache: Path,
    result: Path | None,
) -> None:
    """Compare float32, qcc and its peers on the test samples of each model."""
    rows, installed = list[Row](), find_installed(peers, PEERS)
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=len(models) * (1 + len(installed) + len(observers)))

        def step(what: str) -> None:
            progress.update(task, description=what, advance=1, refresh=True)

        for model in models:
            case = Case.of(zoo, model, samples)
            step(f"{model}: float32")
            rows.append(Row(model, "float32", case.metric(case.reference)))
            best: list[dict[str, Any]] = []
            for peer in installed:
                step(f"{model}: {peer.peer.name}")
                try:
                    best.append(case.metric(answers(peer, case, cache)))
                except PeerError as error:
                    Console(stderr=True).print(f"{model}: {peer.peer.name}: {error}")
                    continue
                rows.append(Row(model, peer.peer.name, best[-1]))
            for observer in observers:
                step(f"{model}: qcc {observer}")
                compiled = qcc.compile(
                    case.model, calibration=case.calibration, observer=observer, corrections=corrections
                )
                metric = case.metric(run_integers(compiled, case.x))
                name = (
                    "qcc"
                    if observers == (CompileOptions().observer,)
                    else f"qcc {observer.removeprefix('observer=')}"
                )
                rows.append(Row(model, name, metric, marks(metric, case.metric(case.reference), best)))
    Console(width=130).print(table(rows))
    if result is not None:
        result.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8")
    sys.exit(0 if all(all(row.marks.values()) for row in rows) else 1)


def answers(peer: Installed, case: Case, cache: Path) -> list[Array]:
    """The outputs of a peer, in the model's order, from ``cache`` where they are there. Raises PeerError."""
    digest = hashlib.sha256(Path(case.model).read_bytes())
    digest.update(case.calibration.tobytes())
    folder = cache / f"accuracy-{case.name}-{digest.hexdigest()[:12]}"
    tested = hashlib.sha256(case.x.tobytes()).hexdigest()[:12]
    slug = "-".join((*peer.peer.name.split(), *(v.replace(" ", "-") for v in peer.versions)))
    kept = folder / f"{slug}-{tested}.npz"
    if not kept.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        calibration, samples = folder / "calibration.npy", folder / f"samples-{tested}.npy"
        np.save(calibration, case.calibration)
        np.save(samples, case.x)
        job = peer.prepare(Job(case.model, case.model, str(calibration), ""), folder)
        file, part = folder / f"{slug}.json", kept.with_suffix(".part.npz")
        file.write_text(json.dumps(asdict(job)), encoding="utf-8")
        command = [str(peer.python), str(OUTPUTS), peer.peer.load, str(file), str(samples), str(part)]
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", check=False, timeout=PREPARE_SECONDS
        )
        if done.returncode != 0:
            raise PeerError(f"not run: {last_line(done.stderr)}")
        part.rename(kept)
    with np.load(kept) as archive:
        found = [archive[name] for name in archive.files]
    return in_order(found, case.reference)


def in_order(found: list[Array], wanted: list[Array]) -> list[Array]:
    """``found`` as ``wanted`` is, where sizes tell outputs apart, and in its shapes."""
    ordered = []
    for number, y in enumerate(wanted):
        same = [i for i, array in enumerate(found) if array.size == y.size]
        ordered.append(found[number if number in same else same[0]].reshape(y.shape))
    return ordered


def run_integers(compiled: qcc.CompiledModel, x: Array) -> list[Array]:
    """Outputs of the integer program as float32, in the model's order."""
    name = compiled.graph.inputs[0].name
    parts = []
    for start in range(0, len(x), BATCH):
        outputs = compiled.run_integer(compiled.quantize_input({name: x[start : start + BATCH]}))
        parts.append(compiled.dequantize_output(outputs))
    return [np.concatenate([p[n] for p in parts]) for n in compiled.graph.output_names]


def marks(metric: dict[str, Any], float32: dict[str, Any], peers: list[dict[str, Any]]) -> dict[str, bool]:
    """Which marks are reached, of those that the model and the peers that ran have figures for."""
    found = {}
    if peers:
        best = [max(p["sqnr_db"][n] for p in peers) for n in range(len(metric["sqnr_db"]))]
        found["dB"] = all(a >= b + AHEAD_DB for a, b in zip(metric["sqnr_db"], best, strict=True))
    for name in AGREEMENTS:
        if name in metric and peers:
            highest = max(p[name] for p in peers)
            found["agreement"] = metric[name] > highest or metric[name] == 1
    if "top1" in float32:
        found["labels"] = bool(float32["top1"] - metric["top1"] <= ALLOWED_LOSS + 1e-9)
    return found


def table(rows: list[Row]) -> Table:
    """One line for each contender."""
    result = Table(title="8-bit accuracy on the test samples")
    for heading in (
        "model",
        "contender",
        "top-1 %",
        "lost",
        "agree %",
        "SQNR dB",
        "F1 %",
        "score error %",
        "marks",
    ):
        result.add_column(heading, justify="left" if heading in ("model", "contender", "marks") else "right")
    base = {row.model: row.metric for row in rows if row.contender == "float32"}
    for number, row in enumerate(rows):
        metric, first = row.metric, row.contender == "float32"
        lost = 100 * (base[row.model]["top1"] - metric["top1"]) if "top1" in metric else None
        result.add_row(
            row.model if first else "",
            row.contender,
            percent(metric, "top1"),
            "" if lost is None or first else f"{lost:.2f}",
            "" if first else percent(metric, "agree"),
            "" if first else ", ".join(f"{v:.2f}" for v in metric["sqnr_db"]),
            "" if first else percent(metric, "f1"),
            "" if first else percent(metric, "score_rel_err"),
            " ".join(
                f"[{'green' if good else 'red'}]{name} {'pass' if good else 'fail'}[/]"
                for name, good in row.marks.items()
            ),
            end_section=number + 1 == len(rows) or rows[number + 1].contender == "float32",
        )
    return result


def percent(metric: dict[str, Any], name: str) -> str:
    """A share as a percentage, empty where the model has no such metric."""
    return f"{100 * metric[name]:.2f}" if name in metric else ""


if __name__ == "__main__":
    main()
