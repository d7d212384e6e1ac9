"""FloatRuntime: samples in and out, observed values, errors of onnxruntime; the zoo against the original files."""

from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from qcc.float_runtime import FloatRuntime, observer, run_onnx
from qcc.ir import interpreter
from qcc.ir.errors import QccError
from qcc.ir.graph import Graph, Value
from qcc.ir.op import Array
from qcc.onnx_exporter import export_qdq
from qcc.onnx_importer import import_model

ZOO = ["kws", "ic", "resnet20", "squeezenet", "vww", "ad", "ultraface_rfb320", "mobilenetv2"]


@pytest.fixture
def graph(small: SimpleNamespace) -> Graph:
    return import_model(small.classifier())


def samples(count: int) -> dict[str, Array]:
    return {"x": np.random.default_rng(5).normal(size=(count, 3, 8, 8)).astype(np.float32)}


def by_interpreter(graph: Graph, feed: dict[str, Array]) -> dict[str, Array]:
    seen: dict[str, Array] = {}
    interpreter.run(graph, feed, observe=lambda v, a: seen.__setitem__(v.name, a))
    return seen


def test_observed_values_equal_the_interpreter(graph: Graph) -> None:
    values = [*graph.inputs, *(n.output for n in graph.nodes)]
    feed = samples(3)
    (got,) = FloatRuntime(graph, values).observed(feed)
    want = by_interpreter(graph, feed)
    assert list(got) == [v.name for v in values]
    for name, array in got.items():
        np.testing.assert_allclose(array, want[name], rtol=1e-5, atol=1e-5)


def test_layout_free_values_hold_the_same_elements(graph: Graph) -> None:
    (conv,) = (n.output for n in graph.nodes if n.op.name == "conv2d")
    feed = samples(2)
    (got,) = FloatRuntime(graph, [conv], layout_free=True).observed(feed)
    assert got["c"].shape == (2, 4, 4, 4)
    want = by_interpreter(graph, feed)["c"].transpose(0, 3, 1, 2)
    np.testing.assert_allclose(got["c"], want, rtol=1e-5, atol=1e-5)


def test_of_peaks_only_the_largest_element_of_each_channel_comes(graph: Graph) -> None:
    """Of an image behind a Transpose, of one as its op computed it, and not of what has no channels."""
    values, feed = [n.output for n in graph.nodes], samples(3)
    (got,) = FloatRuntime(graph, values, layout_free=True, peaks=values).observed(feed)
    want = by_interpreter(graph, feed)
    for value in values:
        image = value.type.rank == 4
        expected = want[value.name].max(axis=(1, 2)) if image else want[value.name]
        array = got[value.name].squeeze((2, 3)) if image else got[value.name]
        np.testing.assert_allclose(array, expected, rtol=1e-5, atol=1e-5)


def test_observed_values_come_in_small_pieces(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    values = [n.output for n in graph.nodes]
    monkeypatch.setattr("qcc.float_runtime._OBSERVED_BYTES", 2 * sum(v.type.bytes for v in values))
    assert [len(p["y"]) for p in FloatRuntime(graph, values).observed(samples(5))] == [2, 2, 1]


def test_large_outputs_come_in_pieces_that_are_joined(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, feed = FloatRuntime(graph).run(samples(5)), samples(5)
    monkeypatch.setattr("qcc.float_runtime._OUTPUT_BYTES", 2 * sum(v.type.bytes for v in graph.outputs))
    for name, array in FloatRuntime(graph).run(feed).items():
        np.testing.assert_allclose(array, whole[name], rtol=1e-5, atol=1e-5)


def test_observer_records_every_value(graph: Graph) -> None:
    low: dict[str, float] = {}

    def record(value: Value, array: Array) -> None:
        low[value.name] = float(array.min())

    feed = samples(2)
    values = [n.output for n in graph.nodes]
    observer(graph, values)(feed, record)
    want = by_interpreter(graph, feed)
    assert low == pytest.approx({v.name: float(want[v.name].min()) for v in values}, rel=1e-4, abs=1e-4)


def test_many_samples_and_both_shapes_of_a_batch(graph: Graph) -> None:
    runtime, feed = FloatRuntime(graph, threads=1), samples(70)
    y = runtime.run(feed)["y"]
    np.testing.assert_allclose(y, interpreter.run(graph, feed)["y"], rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(runtime.run({"x": feed["x"][:, None]})["y"], y)


def test_model_with_a_fixed_batch(small: SimpleNamespace) -> None:
    model = small.build([small.node("Softmax", "x", axis=0)], [small.tensor_input("x", [2, 3])])
    graph = import_model(model)
    feed = {"x": np.random.default_rng(6).normal(size=(4, 2, 3)).astype(np.float32)}
    want = run_onnx(model, {"x": feed["x"].reshape(8, 3)})["y"].reshape(4, 2, 3)
    np.testing.assert_allclose(FloatRuntime(graph).run(feed)["y"], want, rtol=1e-6)


@pytest.mark.parametrize(
    ("feed", "message"),
    [
        ({"z": np.zeros((1, 3, 8, 8))}, "inputs must be ['x'], got ['z']"),
        ({"x": np.zeros((1, 8, 8, 3))}, "input x must have shape (N, 1, 3, 8, 8), got (1, 8, 8, 3)"),
        ({"x": np.zeros((0, 3, 8, 8))}, "inputs must have one common number of samples above 0, got [0]"),
    ],
)
def test_feed_that_does_not_fit(graph: Graph, feed: dict[str, Array], message: str) -> None:
    with pytest.raises(QccError) as caught:
        FloatRuntime(graph).run(feed)
    assert str(caught.value) == message


def test_errors_of_onnxruntime(small: SimpleNamespace, tmp_path: Path) -> None:
    with pytest.raises(QccError, match=r"^onnxruntime does not load the model: "):
        run_onnx(tmp_path / "no.onnx", {})
    with pytest.raises(QccError, match=r"^onnxruntime does not run the model: "):
        run_onnx(small.classifier(), {"x": np.zeros((1, 3, 9, 9), np.float32)})
    with pytest.raises(QccError) as caught:
        run_onnx(small.classifier(), {})
    assert str(caught.value) == "inputs must be ['x'], got []"


# ---------------------------------------------------------------- the zoo
@pytest.mark.parametrize("name", ZOO)
def test_zoo_model_equals_the_original(zoo: ModuleType, name: str) -> None:
    entry = zoo.load(name)
    graph = import_model(entry.model)
    feed = {graph.inputs[0].name: entry.x[:2]}
    want = run_onnx(entry.model, feed)
    interpreted, exported = interpreter.run(graph, feed), FloatRuntime(graph).run(feed)
    assert list(interpreted) == list(exported) == list(want)
    for output, array in want.items():
        tolerance = 1e-5 * max(1.0, float(np.abs(array).max()))
        np.testing.assert_allclose(interpreted[output], array, rtol=1e-4, atol=tolerance)
        np.testing.assert_allclose(exported[output], array, rtol=1e-4, atol=tolerance)


def test_zoo_resnet20_shortcuts_are_plain_movement(zoo: ModuleType) -> None:
    graph = import_model(zoo.load("resnet20").model)
    names = {n.op.name for n in graph.nodes}
    assert names <= {"conv2d", "clamp", "add", "transpose", "pad", "slice", "reduce_mean", "reshape", "dense"}


def test_qdq_export_of_an_unannotated_graph_is_the_float_export(graph: Graph) -> None:
    feed = samples(2)
    np.testing.assert_array_equal(run_onnx(export_qdq(graph), feed)["y"], FloatRuntime(graph).run(feed)["y"])
