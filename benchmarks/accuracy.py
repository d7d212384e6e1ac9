"""Accuracy of the 8-bit programs: float32, qcc with several observers, and onnxruntime's static quantization.

    python benchmarks/accuracy.py
    python benchmarks/accuracy.py --observer "observer=min-max" --observer "observer=percentile p=99.99"

Every contender calibrates on the same samples and runs on the same test samples. onnxruntime quantizes with
per-channel QInt8 weights, QUInt8 activations, MinMax ranges and QDQ nodes, after its own pre-processing. The
marks: top-1 at most 0.7 points under float32 where there are labels, else an output SQNR not below
onnxruntime's. Exit status 1 when qcc misses one.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # of one process among others; before numpy is imported

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import numpy as np
from engines import qdq
from models import CALIBRATION_SAMPLES, models_option, zoo_option
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

import qcc
from qcc.options import CompileOptions

ALLOWED_LOSS = 0.007  # of top-1, as a share of the samples
BATCH = 50
Array = NDArray[Any]


@dataclass
class Row:
    """One contender on one model. ``metric``: what the zoo measures; ``mark``: passed or not, None where none is set."""

    model: str
    contender: str
    metric: dict[str, Any]
    mark: bool | None = None


@click.command()
@models_option()
@zoo_option
@click.option(
    "--observer",
    "observers",
    multiple=True,
    default=[CompileOptions().observer],
    show_default=True,
    help="Options of the calibrate pass (repeatable).",
)
def main(models: list[str], zoo: ModuleType, observers: tuple[str, ...]) -> None:
    """Compare float32, qcc and onnxruntime's static quantization on the test samples of each model."""
    rows: list[Row] = []
    with Console(stderr=True).status("") as status:
        for model in models:
            rows += measure(zoo, model, observers, status)
    Console(width=130).print(table(rows))
    sys.exit(1 if any(row.mark is False for row in rows) else 0)


def measure(zoo: ModuleType, model: str, observers: tuple[str, ...], status: Any) -> list[Row]:
    """All contenders on one model; the marks follow from the first two, float32 and onnxruntime."""
    entry = zoo.load(model)
    calibration = entry.calib[:CALIBRATION_SAMPLES]

    def metric(outputs: list[Array]) -> dict[str, Any]:
        found: dict[str, Any] = entry.metric(outputs, y=entry.y, ref=reference, x=entry.x)
        return found

    status.update(f"{model}: float32")
    reference = zoo.run(entry.model, entry.x)
    rows = [Row(model, "float32", metric(reference))]
    status.update(f"{model}: onnxruntime")
    with tempfile.TemporaryDirectory() as folder:
        quantized = Path(folder) / "quantized.onnx"
        qdq.quantize(Path(entry.model), [x[None] for x in calibration], quantized)
        rows.append(Row(model, "onnxruntime", metric(zoo.run(str(quantized), entry.x))))
    for observer in observers:
        status.update(f"{model}: qcc {observer}")
        compiled = qcc.compile(entry.model, calibration=calibration, observer=observer)
        row = Row(model, observer.removeprefix("observer="), metric(run_integers(compiled, entry.x)))
        row.mark = passes(row.metric, *(r.metric for r in rows[:2]))
        rows.append(row)
    return rows


def run_integers(compiled: qcc.CompiledModel, x: Array) -> list[Array]:
    """Outputs of the integer program as float32, in the model's order."""
    name = compiled.graph.inputs[0].name
    parts = []
    for start in range(0, len(x), BATCH):
        outputs = compiled.run_integer(compiled.quantize_input({name: x[start : start + BATCH]}))
        parts.append(compiled.dequantize_output(outputs))
    return [np.concatenate([p[n] for p in parts]) for n in compiled.graph.output_names]


def passes(metric: dict[str, Any], float32: dict[str, Any], onnxruntime: dict[str, Any]) -> bool:
    """Whether the mark of the model is reached."""
    if "top1" in float32:
        return bool(float32["top1"] - metric["top1"] <= ALLOWED_LOSS + 1e-9)
    return all(a >= b for a, b in zip(metric["sqnr_db"], onnxruntime["sqnr_db"], strict=True))


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
        "mark",
    ):
        result.add_column(heading, justify="left" if heading in ("model", "contender") else "right")
    base = {row.model: row.metric for row in rows if row.contender == "float32"}
    for row in rows:
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
            {None: "", True: "[green]pass[/]", False: "[red]fail[/]"}[row.mark],
            end_section=row is rows[-1] or rows[rows.index(row) + 1].contender == "float32",
        )
    return result


def percent(metric: dict[str, Any], name: str) -> str:
    """A share as a percentage, empty where the model has no such metric."""
    return f"{100 * metric[name]:.2f}" if name in metric else ""


if __name__ == "__main__":
    main()
