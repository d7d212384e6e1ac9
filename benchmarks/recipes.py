"""Recipes beside the tools they follow: scales of activations, and what the 8-bit models keep of the float ones.

    python benchmarks/recipes.py --peers build/peers
    python benchmarks/recipes.py --peers build/peers --models kws --samples 100

Tools are looked for in the virtual environments of the folder of peers: openvino with nncf; tensorflow with onnx; torch
with nvidia-modelopt, whose entropy calibrator stands for that of TensorRT, which needs a GPU. What is missing is left out.
All calibrate on the same samples. NNCF and TensorFlow convert the model, which runs in OpenVINO and with TensorFlow Lite's
reference kernels; PyTorch's and NVIDIA's observers see the values of the graph that qcc quantizes, in batches of 32. A
difference is that of a scale, as a share of the tool's; close ones are under 0.1 %. Values are matched by their names, those
of TensorFlow Lite by what they hold for one sample.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # of one process among others; before numpy is imported

import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import numpy as np
import onnx
import onnxruntime
from accuracy import percent, run_integers
from engines.base import Job
from models import CALIBRATION_SAMPLES, models_option, zoo_option
from numpy.typing import NDArray
from peers import PREPARE_SECONDS, PeerError, last_line, worker_command
from rich.console import Console
from rich.table import Table

import qcc
from qcc import float_runtime
from qcc.ir.graph import Value
from qcc.onnx_exporter import export
from qcc.recipes import RECIPES

BATCH, CLOSE = 32, 1e-3
SAME = 0.3  # the largest relative error of a tensor that holds a value
# By recipe: the function of worker.py, the modules it needs, and what it is given.
TOOLS = {
    "tensorrt": ("engines.scales_modelopt:write", ("torch", "modelopt"), "values"),
    "tflite": ("engines.scales_tflite:write", ("tensorflow", "onnx"), "model"),
    "openvino": ("engines.scales_nncf:write", ("openvino", "nncf"), "model"),
    "pytorch": ("engines.scales_torch:write", ("torch",), "values"),
}
Array = NDArray[Any]


@dataclass(frozen=True)
class Scales:
    """Agreement of activations: how many were matched of how many, the differences of scales and of zero_points."""

    values: int
    differences: Array
    zero_points: Array


@click.command()
@models_option("kws,ic,resnet20")
@zoo_option
@click.option("--peers", envvar="QCC_PEERS", type=click.Path(path_type=Path, exists=True), metavar="FOLDER")
@click.option("--recipes", default=",".join(RECIPES), show_default=True, metavar="A,B,...")
@click.option("--samples", default=400, show_default=True, help="Test samples.")
@click.option("--each", is_flag=True, help="Print the scales of every value.")
def main(
    models: list[str], zoo: ModuleType, peers: Path | None, recipes: str, samples: int, each: bool
) -> None:
    """Compare recipes with the tools they follow."""
    table = Table(title="recipes beside their tools")
    for heading in (
        "model",
        "recipe",
        "values",
        "close",
        "largest diff.",
        "median",
        "zero_point",
        "SQNR dB",
        "tool's",
        "top-1 %",
        "tool's",
    ):
        table.add_column(heading, justify="left" if heading in ("model", "recipe") else "right")
    pythons = {recipe: find(peers, needs) for recipe, (_, needs, _) in TOOLS.items()} if peers else {}
    for model in models:
        entry = zoo.load(model)
        x, y = entry.x[:samples], None if entry.y is None else entry.y[:samples]
        reference = zoo.run(entry.model, x)
        table.add_row(
            model, "float32", *[""] * 7, percent(entry.metric(reference, y=y, ref=reference), "top1")
        )
        for recipe in recipes.split(","):
            compiled = qcc.compile(entry.model, calibration=entry.calib[:CALIBRATION_SAMPLES], recipe=recipe)
            ours = entry.metric(run_integers(compiled, x), y=y, ref=reference)
            agreement, theirs, note = None, None, "no tool"
            if pythons.get(recipe) is not None:
                try:
                    found = run_tool(recipe, pythons[recipe], compiled, entry, x)
                except PeerError as error:
                    note = str(error)
                else:
                    agreement = compare(compiled, found, x[:1], each)
                    if "outputs" in found:
                        outputs = found["outputs"].reshape(reference[0].shape)
                        theirs = entry.metric([outputs], y=y, ref=reference)
            table.add_row(
                "",
                recipe,
                *(agreed(agreement) if agreement else (note, "", "", "", "")),
                *beside(ours, theirs),
            )
        table.add_section()
    Console(width=130).print(table)


def agreed(scales: Scales) -> tuple[str, str, str, str, str]:
    """Cells of the table."""
    return (
        f"{len(scales.differences)} of {scales.values}",
        f"{(scales.differences < CLOSE).sum()}",
        f"{scales.differences.max():.2e}",
        f"{np.median(scales.differences):.1e}",
        f"{scales.zero_points.max()}",
    )


def beside(ours: dict[str, Any], theirs: dict[str, Any] | None) -> tuple[str, str, str, str]:
    """Cells of the table: SQNR and top-1 of qcc and of the tool."""
    return (
        f"{ours['sqnr_db'][0]:.1f}",
        f"{theirs['sqnr_db'][0]:.1f}" if theirs else "",
        percent(ours, "top1"),
        percent(theirs, "top1") if theirs else "",
    )


# ---------------------------------------------------------------------- the tool
def find(peers: Path, modules: tuple[str, ...]) -> Path | None:
    """The interpreter of an environment that has the modules."""
    code = (
        "import importlib.util, sys; sys.exit(any(importlib.util.find_spec(n) is None for n in sys.argv[1:]))"
    )
    for python in sorted(peers.absolute().glob("*/bin/python")):
        if subprocess.run([str(python), "-c", code, *modules], check=False).returncode == 0:
            return python
    return None


def run_tool(
    recipe: str, python: Path, compiled: qcc.CompiledModel, entry: Any, x: Array
) -> dict[str, Array]:
    """What the tool wrote. Raises PeerError."""
    function, _, given = TOOLS[recipe]
    calibration = entry.calib[:CALIBRATION_SAMPLES]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.save(folder / "calibration.npy", calibration)
        np.save(folder / "test.npy", x)
        model, folded = Path(entry.model).absolute(), folder / "folded.onnx"
        if given == "model":
            fold(model, x[:1].shape, folded)
        else:
            model = folder / "values.npz"
            write_values(compiled, calibration, model)
        job = Job(str(model), str(folded), str(folder / "calibration.npy"), str(folder / "found.npz"))
        command = worker_command(python, function, job, folder)
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", check=False, timeout=PREPARE_SECONDS
        )
        if done.returncode != 0:
            raise PeerError(last_line(done.stderr))
        return dict(np.load(job.prepared))


def fold(model: Path, shape: tuple[int, ...], folded: Path) -> None:
    """The model for an input of ``shape`` with its constants folded, by onnxruntime."""
    proto = onnx.load(model)
    for dimension, size in zip(proto.graph.input[0].type.tensor_type.shape.dim, shape, strict=True):
        dimension.dim_value = size
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(folded)
    onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])


def write_values(compiled: qcc.CompiledModel, calibration: Array, path: Path) -> None:
    """The quantized values of the float graph on the calibration samples, in batches."""
    graph = compiled.compilation.calibrated
    assert graph is not None
    names = {v.name for v in quantized(compiled)}
    values = [v for v in graph.values() if v.name in names]
    observe = float_runtime.observer(graph, values)
    arrays: dict[str, Array] = {}
    for number, start in enumerate(range(0, len(calibration), BATCH)):
        parts: dict[str, list[Array]] = {}
        batch = {graph.inputs[0].name: calibration[start : start + BATCH]}
        observe(
            batch, lambda value, array, parts=parts: parts.setdefault(value.name, []).append(array.copy())
        )
        arrays |= {f"{name}/{number}": np.concatenate(part) for name, part in parts.items()}
    np.savez(path, **arrays)


# ---------------------------------------------------------------------- agreement
def quantized(compiled: qcc.CompiledModel) -> list[Value]:
    """Activations with qparams of their own, in the order of the graph."""
    graph = compiled.compilation.annotated
    assert graph is not None
    values = (*graph.inputs, *(n.output for n in graph.nodes))
    return [v for v in values if v.type.qparams is not None and not v.fused]


def compare(compiled: qcc.CompiledModel, found: dict[str, Array], sample: Array, each: bool) -> Scales:
    """Scales of qcc and of a tool."""
    values = quantized(compiled)
    if "names" not in found:
        pairs = by_content(compiled, values, found, sample)
    else:
        graph = compiled.compilation.float_graph
        computed = [*graph.inputs, *(n.output for n in graph.nodes)]
        tensors = export(graph, batch=1, observe=computed, layout_free=True).observed
        index = {n: i for i, names in enumerate(found["names"].tolist()) for n in names.split("\n")}
        wanted = [(v, {v.name, tensors.get(v.name, v.name)}) for v in values]
        pairs = [(v, index[n]) for v, names in wanted for n in sorted(names) if n in index]
        pairs = list({id(v): (v, i) for v, i in pairs}.values())
    differences, zero_points = [], []
    for value, i in pairs:
        qparams, theirs = value.type.qparams, float(found["scales"][i])
        assert qparams is not None
        differences.append(abs(qparams.scale[0] / theirs - 1))
        zero_points.append(abs(qparams.zero_point - int(found["zero_points"][i])))
        if each:
            ours = f"{qparams.scale[0]:.6g}, {qparams.zero_point}"
            click.echo(f"{value.name}: {ours}; the tool's {theirs:.6g}, {found['zero_points'][i]}")
    return Scales(len(values), np.array(differences), np.array(zero_points))


def by_content(
    compiled: qcc.CompiledModel, values: list[Value], found: dict[str, Array], sample: Array
) -> list[tuple[Value, int]]:
    """Each value with the tensor that is nearest to it on ``sample``; without one where none is near."""
    graph = compiled.compilation.calibrated
    assert graph is not None
    names = {v.name: v for v in values}
    observe = float_runtime.observer(graph, [v for v in graph.values() if v.name in names], layout_free=False)
    real: dict[str, Array] = {}
    observe({graph.inputs[0].name: sample}, lambda value, array: real.update({value.name: array.ravel()}))
    tensors = [found[f"held/{i}"].ravel() for i in range(len(found["scales"]))]
    pairs = []
    for name, x in real.items():
        errors = {i: float(np.linalg.norm(t - x)) for i, t in enumerate(tensors) if t.size == x.size}
        nearest = min(errors, key=lambda i: errors[i], default=None)
        if nearest is not None and errors[nearest] < SAME * np.linalg.norm(x):
            pairs.append((names[name], nearest))
    return pairs


if __name__ == "__main__":
    sys.exit(main())
