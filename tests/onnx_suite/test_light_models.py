"""Full-size classifiers of opset 9 that come with onnx, their constant weights replaced by random ones."""

import unittest
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, numpy_helper
from onnx.backend.test import BackendTest

import qcc
from qcc import driver, onnx_backend
from qcc.ir import interpreter
from qcc.ir.graph import Graph
from qcc.onnx_importer import import_model

TOLERANCE = 1e-4  # of the largest output: sums of thousands of products, in another order
INT64 = TensorProto.INT64
FOLDER = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"

NAMES = (
    "bvlc_alexnet",
    "densenet121",
    "inception_v1",
    "inception_v2",
    "resnet50",
    "shufflenet",
    "squeezenet",
    "vgg19",
    "zfnet512",
)


def light_model(name: str) -> ModelProto:
    """The model with random weights that keep the magnitude of activations: as they come, all weights are equal."""
    path = FOLDER / f"light_{name}.onnx"
    if not path.is_file():
        pytest.skip("this onnx package holds no light models")
    model = onnx.load(path)
    model.ir_version = 8  # initializers need not be inputs
    graph = model.graph
    shapes = {
        t.name: tuple(map(int, numpy_helper.to_array(t))) for t in graph.initializer if t.data_type == INT64
    }
    rng = np.random.default_rng(3)
    made = {
        node.output[0]: random_weight(shapes[node.input[0]], rng)
        for node in graph.node
        if node.op_type == "ConstantOfShape"
    }
    nodes = [node for node in graph.node if node.op_type != "ConstantOfShape"]
    read = {name for node in nodes for name in node.input}
    weights = [t for t in graph.initializer if t.name in read]
    weights += [numpy_helper.from_array(data, name) for name, data in made.items()]
    known = {t.name for t in weights}
    inputs = [v for v in graph.input if v.name in read - known]
    for field, kept in ((graph.node, nodes), (graph.initializer, weights), (graph.input, inputs)):
        del field[:]
        field.extend(kept)
    return model


def random_weight(shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.float32]:
    if len(shape) == 1:  # scale, bias, mean or variance: positive, for the variances
        return rng.uniform(0.5, 1.5, size=shape).astype(np.float32)
    return rng.standard_normal(shape, np.float32) * np.float32(np.sqrt(2 / np.prod(shape[1:])))


def by_onnxruntime(model: ModelProto, x: NDArray[np.float32]) -> NDArray[np.float32]:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (result,) = session.run(None, {model.graph.input[0].name: x})
    return np.asarray(result)


def logits(graph: Graph, x: NDArray[np.float32]) -> NDArray[np.float32]:
    (result,) = interpreter.run(graph, {graph.inputs[0].name: x}).values()
    return result


@pytest.mark.slow
@pytest.mark.compiler
@pytest.mark.parametrize("name", NAMES)
def test_light_model_equals_onnxruntime(name: str) -> None:
    """As it was imported, behind the float passes, and as a C library in float32."""
    model = light_model(name)
    if model.graph.node[-1].op_type == "Softmax":  # it would hide differences
        model.graph.output[0].name = model.graph.node[-1].input[0]
    graph = import_model(model)
    x = np.random.default_rng(4).normal(size=graph.inputs[0].type.shape).astype(np.float32)
    expected = by_onnxruntime(model, x)
    assert expected.std() > 1e-3 * np.abs(expected).max()  # the weights do matter
    bound = TOLERANCE * np.abs(expected).max()
    np.testing.assert_allclose(logits(graph, x), expected, rtol=0, atol=bound)
    del graph
    compiled = qcc.compile(model, precision="float32")
    del model
    np.testing.assert_allclose(logits(compiled.graph, x), expected, rtol=0, atol=bound)
    np.testing.assert_allclose(compiled.build().run(x), expected, rtol=0, atol=bound)


@pytest.mark.slow
@pytest.mark.compiler
@pytest.mark.parametrize("name", NAMES)
def test_light_model_as_it_comes(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """onnx's runner on the file itself: all weights equal, the stored outputs are expected."""
    monkeypatch.setenv("ONNX_MODELS", str(tmp_path))  # where the runner writes the inputs it makes
    runner = BackendTest(onnx_backend, __name__).include(f"test_{name}_cpu")
    result = unittest.TestResult()
    runner.test_suite.run(result)
    assert result.testsRun - len(result.skipped) == 1
    assert result.wasSuccessful(), result.failures + result.errors


def test_large_float_program_is_compared_on_fewer_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    model = light_model("shufflenet")
    kept = []
    for macs in (2**36, 2**29, 1):
        monkeypatch.setattr(driver, "FLOAT_MACS", macs)
        compilation = qcc.compile(model, precision="float32").compilation
        kept += [len(a) for a in compilation.samples.values()]
    assert kept == [16, 2**29 // sum(n.op.macs(n.signature) for n in compilation.graph.nodes), 1]
