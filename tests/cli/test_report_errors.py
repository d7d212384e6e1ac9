"""Errors of tensors in the report: against closed forms, and against numpy on a model small enough to write out."""

import json
from dataclasses import dataclass, replace
from math import inf, log10
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import qcc
from qcc import onnx_importer, report_errors, verify
from qcc.driver import Compilation
from qcc.ir import interpreter
from qcc.ir.graph import Value
from qcc.ir.qparams import QParams
from qcc.ir.types import DType, TensorType
from qcc.options import CompileOptions
from qcc.passes.base import Note, PassContext
from qcc.passes.manager import run_pipeline
from qcc.report import render_html
from qcc.report_errors import Noise, TensorErrors, split_quantization_error
from qcc.report_graph import BOX, COLUMNS, draw
from qcc.report_tensors import corrections, tensors_of, worst
from qcc.report_what_if import what_if

Array = np.ndarray[Any, Any]


def errors_of(qparams: QParams, x: Array) -> TensorErrors:
    errors = TensorErrors(Value("x", TensorType(DType.F32, x.shape, qparams)))
    split_quantization_error(errors, x.astype(np.float32))
    return errors


def test_rounding_of_uniform_data_is_a_twelfth_of_the_squared_scale() -> None:
    scale = 0.037
    qparams = QParams.per_tensor(scale, zero_point=-13)
    low, high = qparams.range
    errors = errors_of(qparams, np.random.default_rng(1).uniform(low, high, 200_000))
    assert errors.rounding / errors.elements == pytest.approx(scale**2 / 12, rel=0.01)
    assert errors.clipping == 0
    assert errors.clipped == 0


def test_clipping_is_the_distance_to_the_last_code() -> None:
    qparams = QParams.per_tensor(0.5, zero_point=0)  # holds -64 to 63.5
    errors = errors_of(qparams, np.array([70.0, -65.0, 63.5, 0.25, 63.7, 10.0]))
    assert errors.clipped == 2
    assert errors.clipping == pytest.approx(6.5**2 + 1.0**2)
    assert errors.rounding == pytest.approx(0.25**2 + 0.2**2, rel=1e-5)  # 63.7 is rounded to the last code
    assert errors.local.noise == pytest.approx(errors.rounding + errors.clipping)
    assert errors.signal == pytest.approx(70**2 + 65**2 + 63.5**2 + 0.25**2 + 63.7**2 + 10**2, rel=1e-6)


def test_noise_is_none_in_decibels_without_noise() -> None:
    noise = Noise()
    noise.add(np.ones(4), np.ones(4))
    assert noise.sqnr_db is None
    noise.add(np.ones(4), np.full(4, 1.1))
    assert noise.sqnr_db == pytest.approx(10 * log10(8 / 0.04), abs=1e-4)


def dense_model(weight: Array, bias: Array, second: Array | None = None) -> onnx.ModelProto:
    """y = x weight + bias, and with ``second`` relu(y) second."""
    constants = [numpy_helper.from_array(a.astype(np.float32), n) for a, n in ((weight, "w"), (bias, "b"))]
    nodes = [helper.make_node("Gemm", ["x", "w", "b"], ["y"])]
    if second is not None:
        constants.append(numpy_helper.from_array(second.astype(np.float32), "w2"))
        nodes += [helper.make_node("Relu", ["y"], ["r"]), helper.make_node("MatMul", ["r", "w2"], ["z"])]
    out, width = ("y", weight.shape[1]) if second is None else ("z", second.shape[1])
    ports = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, s])
        for n, s in (("x", len(weight)), (out, width))
    ]
    graph = helper.make_graph(nodes, "dense", ports[:1], ports[1:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def by_name(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {t["tensor"]: t for t in report["tensors"]}


def compilation(model: onnx.ModelProto, x: Array) -> Compilation:
    """The model with the extremes as ranges and the nearest codes as weights, whatever compile does by default."""
    options = CompileOptions(analyze=30.0)
    imported = onnx_importer.import_model(model)
    graph = run_pipeline(imported, "float")
    samples = {"x": x.astype(np.float32)}
    ctx = PassContext(resources={"calibration": [samples]})
    text = "fuse-epilogues,calibrate,choose-qparams,quantize-ops,fold-zero-points,plan-accumulators"
    made = Compilation(options, "dense", "", imported, graph)
    made.planned = run_pipeline(graph.clone(), f"{text},remove-dead-channels", ctx)
    made.calibrated, made.annotated = ctx.resources["calibrated_graph"], ctx.resources["annotated_graph"]
    made.statistics = ctx.resources["collected_statistics"]
    made.kept_channels = ctx.resources["kept_channels"]
    made.samples = samples
    return made


@dataclass
class Dense:
    """A dense layer, its data and what the report says of it."""

    made: Compilation
    report: dict[str, Any]
    x: Array
    weight: Array
    bias: Array

    @property
    def tensors(self) -> dict[str, dict[str, Any]]:
        return by_name(self.report)

    @property
    def weight_error(self) -> Array:
        scale = np.abs(self.weight).max(axis=0) / 127
        return np.rint(self.weight / scale) * scale - self.weight


@pytest.fixture(scope="module")
def dense() -> Dense:
    """One whose input needs no rounding: x in multiples of 1/128, the range is exactly that of 8 bits."""
    rng = np.random.default_rng(3)
    weight, bias = rng.normal(size=(12, 5)), rng.normal(size=5)
    x = rng.integers(-128, 128, (16, 12)) / 128
    x[0, :2] = -1.0, 127 / 128
    made = compilation(dense_model(weight, bias), x)
    return Dense(made, tensors_of(made, lambda what, done, total: None), x, weight, bias)


def test_error_of_weights_equals_numpy(dense: Dense) -> None:
    x, y = dense.tensors["x"], dense.tensors["y"]
    assert report_errors.samples_measured(dense.made) == 16
    assert x["error"]["rounding"] == pytest.approx(0, abs=1e-12)
    assert x["error"]["weights"] is None
    assert y["error"]["weights"] == pytest.approx(np.mean((dense.x @ dense.weight_error) ** 2), rel=1e-2)
    exact = dense.x @ dense.weight + dense.bias
    assert y["error"]["signal"] == pytest.approx(np.mean(exact**2), rel=1e-5)
    s, zero = y["scale"], y["zero_point"]
    own = (np.clip(np.rint(exact / s) + zero, -128, 127) - zero) * s - exact
    assert y["error"]["rounding"] + y["error"]["clipping"] == pytest.approx(np.mean(own**2), rel=1e-2)


def test_requantization_is_what_integers_differ_from_their_simulation(dense: Dense) -> None:
    """One layer on an exact input: round(x Wq + bq) in floats against the integers of the interpreter."""
    y = dense.tensors["y"]
    planned = dense.made.planned
    assert planned is not None
    codes = interpreter.run(planned, verify.quantize_inputs(planned, {"x": dense.x}))["y"]
    scale = np.abs(dense.weight).max(axis=0) / 127
    step = scale * dense.tensors["x"]["scale"]
    exact = dense.x @ (dense.weight + dense.weight_error) + np.rint(dense.bias / step) * step
    simulated = np.clip(np.rint(exact / y["scale"]) + y["zero_point"], -128, 127)
    expected = np.mean(((codes - simulated) * y["scale"]) ** 2)
    assert y["error"]["requantization"] == pytest.approx(expected, abs=2 * y["scale"] ** 2 / codes.size)
    assert y["error"]["requantization"] < y["scale"] ** 2 / 12  # multipliers are exact to about 2^-30


def test_requantization_is_measured_layer_by_layer(compiled) -> None:
    report = json.loads((compiled[0] / "report.json").read_text())
    for tensor in report["tensors"][1:]:
        assert tensor["error"]["requantization"] is not None
        if tensor["tensor"] != "probabilities":
            assert tensor["error"]["requantization"] < tensor["scale"] ** 2 / 12


def test_cumulative_error_of_the_output_is_the_accuracy(compiled) -> None:
    report = json.loads((compiled[0] / "report.json").read_text())
    assert report["measured_samples"] == report["accuracy"]["samples"]
    assert report["tensors"][-1]["sqnr_db"]["cumulative"] == pytest.approx(
        report["accuracy"]["outputs"]["probabilities"]["sqnr_db"], abs=1e-2
    )


def test_restoring_gives_what_numpy_says(dense: Dense) -> None:
    found = {(e["tensor"], e["what"]): e for e in dense.report["what_if"]["evaluated"]}
    exact = dense.x @ dense.weight + dense.bias  # with the result in float only the weights are left
    expected = 10 * log10(np.sum(exact**2) / np.sum((dense.x @ dense.weight_error) ** 2))
    assert found["y", "tensor"]["sqnr_db"] == pytest.approx(expected, abs=0.1)
    assert dense.report["what_if"]["not_evaluated"] == []
    base = dense.report["what_if"]["sqnr_db"]
    gains = [e["gain_db"] for e in found.values()]
    assert gains == sorted(gains, reverse=True)
    assert gains == pytest.approx([e["sqnr_db"] - base for e in found.values()])


def test_what_no_time_is_left_for_is_listed(dense: Dense) -> None:
    found = what_if(dense.made, report_errors.measure(dense.made), seconds=-1.0)
    assert found["evaluated"] == []
    assert found["not_evaluated"]


def test_values_that_lost_channels_are_measured_on_the_others() -> None:
    rng = np.random.default_rng(5)
    bias = np.array([0.0, -1000.0, 0.1, 0.2])  # the second is 0 behind the relu, for every input
    model = dense_model(rng.normal(size=(6, 4)), bias, rng.normal(size=(4, 3)))
    made = compilation(model, rng.normal(size=(16, 6)))
    assert set(map(tuple, made.kept_channels.values())) == {(0, 2, 3)}
    hidden = {e.value.name: e for e in report_errors.measure(made)}["r"]
    assert hidden.cumulative is not None
    assert hidden.cumulative.elements == 16 * 3
    assert hidden.cumulative.sqnr_db is not None
    assert 25 < hidden.cumulative.sqnr_db < 70


def test_worst_tensors_are_those_of_the_least_sqnr_of_their_own(compiled) -> None:
    report = json.loads((compiled[0] / "report.json").read_text())
    own = {t["tensor"]: t["sqnr_db"]["local"] or inf for t in report["tensors"]}  # None: exact
    assert len(report["worst"]) == 5
    assert min(own, key=lambda n: own[n]) in report["worst"]
    assert [t["tensor"] for t in worst(report["tensors"], 2)] == report["worst"][:2]
    assert "most error arises at" in compiled[1].stdout


def test_every_tensor_has_a_histogram_of_all_it_was(compiled) -> None:
    report = json.loads((compiled[0] / "report.json").read_text())
    for tensor in report["tensors"]:
        histogram = tensor["histogram"]
        assert sum(histogram["counts"]) > 0
        margin = 1e-5 * max(map(abs, tensor["seen"]))  # two runs of onnxruntime, in batches of other sizes
        assert tensor["seen"][0] - margin <= histogram["low"] <= histogram["high"]
        assert histogram["high"] <= tensor["seen"][1] + margin
        assert tensor["codes_range"][0] <= 0 <= tensor["codes_range"][1]


def test_what_is_clipped_is_counted_and_drawn(model: Path, calib: Path) -> None:
    report = qcc.compile(model, calibration=calib, observer="observer=percentile p=95").report
    clipped = [t for t in report["tensors"] if t["clipped"]]
    assert clipped
    assert all(t["histogram"]["of"] == "calibration" for t in report["tensors"])
    assert all(t["error"]["clipping"] > 0 for t in clipped)
    for name in ("relu1", "relu2", "relu3"):  # half of 5 % at the upper end; nothing lies below 0
        assert by_name(report)[name]["clipped"] == pytest.approx(0.025, abs=0.004)
    assert render_html(report).count('class="cut"') >= len(clipped)


def test_corrections_are_read_from_the_notes_of_passes(dense: Dense) -> None:
    made = replace(dense.made, notes=[
        ("fix", Note("y", "fix", True, "SQNR 20.50 dB becomes 23.00 dB on 4 samples it did not see")),
        ("try", Note("y", "try", False, "SQNR 23.00 dB would become -1.00 dB on 4 samples")),
        ("other", Note("y", "other", True, "3 of 4 channels")),
        ("equalize", Note("y", "equalize", False, "no channels to scale")),
    ])  # fmt: skip
    none = {"before_db": None, "after_db": None}
    assert corrections(made) == [
        {"pass": "fix", "applied": True, "before_db": 20.5, "after_db": 23.0, "reason": None},
        {"pass": "try", "applied": False, "before_db": 23.0, "after_db": -1.0, "reason": None},
        {"pass": "equalize", "applied": False, "reason": "no channels to scale"} | none,
    ]


def test_float32_has_no_tensors(model: Path) -> None:
    report = qcc.compile(model, precision="float32").report
    assert report["tensors"] == []
    assert report["what_if"] is None


# ---------------------------------------------------------------------- picture
def boxes_of(edges: dict[str, list[str]]) -> dict[str, Any]:
    graph = [{"tensor": n, "label": n, "ops": ["op"], "inputs": i} for n, i in edges.items()]
    picture = draw(graph)
    for i, a in enumerate(picture["boxes"]):
        assert 0 <= a["x"] <= picture["width"] - BOX[0]
        assert 0 <= a["y"] <= picture["height"] - BOX[1]
        for b in picture["boxes"][i + 1 :]:
            assert abs(a["x"] - b["x"]) >= BOX[0] or abs(a["y"] - b["y"]) >= BOX[1]
    assert len(picture["edges"]) == sum(map(len, edges.values()))
    return picture


def test_a_long_chain_goes_on_in_the_next_row() -> None:
    names = [f"v{i}" for i in range(2 * COLUMNS + 1)]
    picture = boxes_of({n: names[i - 1 : i] if i else [] for i, n in enumerate(names)})
    ys = [b["y"] for b in picture["boxes"]]
    assert len(set(ys)) == 3
    assert picture["boxes"][COLUMNS]["x"] == picture["boxes"][0]["x"]


def test_branches_stand_one_above_the_other() -> None:
    picture = boxes_of({"x": [], "a": ["x"], "b": ["x"], "c": ["x"], "d": ["a", "b", "c"], "e": ["d", "x"]})
    place = {b["tensor"]: (b["x"], b["y"]) for b in picture["boxes"]}
    assert place["a"][0] == place["b"][0] == place["c"][0]
    assert [e["skip"] for e in picture["edges"]].count(True) == 1


def test_an_empty_graph_has_an_empty_picture() -> None:
    assert draw([])["boxes"] == []


@pytest.mark.parametrize("size", [1e-30, 1.0, 1e30, 1e38])
def test_sums_of_squares_neither_overflow_nor_vanish(size: float) -> None:
    noise = Noise()
    noise.add(np.full(8, size, np.float32), np.full(8, 1.5 * size, np.float32))
    assert noise.signal == pytest.approx(8 * size**2, rel=1e-5)
    assert noise.sqnr_db == pytest.approx(20 * log10(2), abs=1e-3)
    assert errors_of(QParams.per_tensor(size), np.full(4, 1.25 * size)).rounding == pytest.approx(
        4 * (size / 4) ** 2, rel=1e-4
    )
