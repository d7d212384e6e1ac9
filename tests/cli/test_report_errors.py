"""Errors of tensors in the report: against closed forms, and against numpy on a model small enough to write out."""

import json
from math import log10
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import qcc
from qcc import report_errors
from qcc.ir.graph import Value
from qcc.ir.qparams import QParams
from qcc.ir.types import DType, TensorType
from qcc.report_errors import Noise, TensorErrors, split_quantization_error
from qcc.report_graph import BOX, COLUMNS, draw
from qcc.report_tensors import worst

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


@pytest.fixture(scope="module")
def dense() -> tuple[qcc.api.CompiledModel, Array, Array, Array]:
    """A dense layer whose input needs no rounding: x in multiples of 1/128, the range is exactly that of 8 bits."""
    rng = np.random.default_rng(3)
    weight, bias = rng.normal(size=(12, 5)), rng.normal(size=5)
    x = rng.integers(-128, 128, (16, 12)) / 128
    x[0, :2] = -1.0, 127 / 128
    made = qcc.compile(dense_model(weight, bias), calibration=x.astype(np.float32), analyze=30.0)
    return made, x, weight, bias


def by_name(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {t["tensor"]: t for t in report["tensors"]}


def test_error_of_weights_equals_numpy(dense: tuple[qcc.api.CompiledModel, Array, Array, Array]) -> None:
    made, x, weight, bias = dense
    tensors = by_name(made.report)
    assert made.report["measured_samples"] == 16
    assert tensors["x"]["error"]["rounding"] == pytest.approx(0, abs=1e-12)
    assert tensors["x"]["error"]["weights"] is None
    scale = np.abs(weight).max(axis=0) / 127
    rounded = np.rint(weight / scale) * scale
    expected = np.mean((x @ (rounded - weight)) ** 2)
    assert tensors["y"]["error"]["weights"] == pytest.approx(expected, rel=1e-2)
    y = x @ weight + bias
    assert tensors["y"]["error"]["signal"] == pytest.approx(np.mean(y**2), rel=1e-5)
    s, zero = tensors["y"]["scale"], tensors["y"]["zero_point"]
    own = (np.clip(np.rint(y / s) + zero, -128, 127) - zero) * s - y
    assert tensors["y"]["error"]["rounding"] + tensors["y"]["error"]["clipping"] == pytest.approx(
        np.mean(own**2), rel=1e-2
    )


def test_cumulative_error_of_the_output_is_the_accuracy(
    dense: tuple[qcc.api.CompiledModel, Array, Array, Array],
) -> None:
    report = dense[0].report
    assert by_name(report)["y"]["sqnr_db"]["cumulative"] == pytest.approx(
        report["accuracy"]["outputs"]["y"]["sqnr_db"], abs=1e-3
    )
    assert report["worst"] == ["y", "x"] or report["worst"] == ["y"]


def test_restoring_gives_what_numpy_says(dense: tuple[qcc.api.CompiledModel, Array, Array, Array]) -> None:
    made, x, weight, bias = dense
    found = {(e["tensor"], e["what"]): e for e in made.report["what_if"]["evaluated"]}
    y = x @ weight + bias
    scale = np.abs(weight).max(axis=0) / 127
    only_weights = x @ (np.rint(weight / scale) * scale - weight)  # the result stays in float
    expected = 10 * log10(np.sum(y**2) / np.sum(only_weights**2))
    assert found["y", "tensor"]["sqnr_db"] == pytest.approx(expected, abs=0.1)
    assert made.report["what_if"]["not_evaluated"] == []
    gains = [e["gain_db"] for e in made.report["what_if"]["evaluated"] if e["gain_db"] is not None]
    assert gains == sorted(gains, reverse=True)
    assert all(
        e["gain_db"] == pytest.approx(e["sqnr_db"] - made.report["what_if"]["sqnr_db"])
        for e in made.report["what_if"]["evaluated"]
        if e["gain_db"] is not None
    )


def test_what_no_time_is_left_for_is_listed(dense: tuple[qcc.api.CompiledModel, Array, Array, Array]) -> None:
    made = dense[0].compilation
    found = report_errors.what_if(made, report_errors.measure(made), seconds=-1.0)
    assert found["evaluated"] == []
    assert found["not_evaluated"]


def test_values_that_lost_channels_are_measured_on_the_others(model: Path) -> None:
    rng = np.random.default_rng(5)
    bias = np.array([0.0, -1000.0, 0.1, 0.2])  # the second is 0 behind the relu, for every input
    made = qcc.compile(
        dense_model(rng.normal(size=(6, 4)), bias, rng.normal(size=(4, 3))),
        calibration=rng.normal(size=(16, 6)).astype(np.float32),
    )
    report = made.report
    assert set(map(tuple, report["dead_channels"]["kept_channels"].values())) == {(0, 2, 3)}
    hidden = by_name(report)["r"]
    assert 25 < hidden["sqnr_db"]["cumulative"] < 70
    assert hidden["histogram"]["counts"]


def test_an_equalized_channel_is_told_by_its_factor(
    dense: tuple[qcc.api.CompiledModel, Array, Array, Array],
) -> None:
    rng = np.random.default_rng(6)
    first, second, bias = rng.normal(size=(6, 4)), rng.normal(size=(4, 3)), rng.normal(size=4)
    factors = np.array([1.0, 2.0, 0.25, 1.0])
    x = rng.normal(size=(8, 6)).astype(np.float32)
    made, scaled = (
        qcc.compile(m, calibration=x).compilation
        for m in (
            dense_model(first, bias, second),
            dense_model(first * factors, bias * factors, second / factors[:, None]),
        )
    )
    assert report_errors.channel_factors(made) == {}
    made.calibrated = scaled.calibrated
    found = report_errors.channel_factors(made)
    assert found["r"] == pytest.approx(factors, rel=1e-4)
    assert "z" not in found


def test_worst_tensors_are_those_of_the_least_sqnr_of_their_own(compiled) -> None:
    report = json.loads((compiled[0] / "report.json").read_text())
    own = {t["tensor"]: t["sqnr_db"]["local"] for t in report["tensors"]}
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
