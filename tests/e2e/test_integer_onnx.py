"""Integer programs as QDQ models: onnxruntime has the codes of the interpreter, but for what lies between two of them."""

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from click.testing import CliRunner
from iree_tools import assert_same_bytes
from kernel_cases import registry_cases
from kernel_harness import case_inputs, float_graph, integer_graph
from onnx import numpy_helper

import qcc
from qcc.cli import main
from qcc.float_runtime import run_onnx
from qcc.ir import interpreter
from qcc.ir.builder import Builder
from qcc.ir.errors import QccError
from qcc.ir.graph import Graph
from qcc.ir.op import Case
from qcc.ir.ops.activation import Clamp
from qcc.ir.ops.conv import Conv2d
from qcc.ir.parser import load_graph
from qcc.ir.types import f32
from qcc.onnx_exporter import export_qdq
from qcc.verify import quantize_inputs

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
Arrays = dict[str, np.ndarray[Any, Any]]


def differences(graph: Graph, inputs: Arrays, **choices: bool) -> Arrays:
    """By output, in codes: onnxruntime on the reals behind ``inputs``, integers or reals, minus the interpreter."""
    reals, codes = {}, quantize_inputs(graph, inputs)
    for value in graph.inputs:
        given, qparams = codes[value.name], value.type.qparams
        reals[value.name] = given.astype(np.float32)
        if qparams is not None:
            reals[value.name] = np.float32(qparams.scale[0]) * (given.astype(np.float32) - qparams.zero_point)
    expected = interpreter.run(graph, codes)
    got = run_each(export_qdq(graph, batch=1, **choices), graph, reals)
    found = {}
    for value, name in zip(graph.outputs, graph.output_names, strict=True):
        qparams = value.type.qparams
        theirs = got[name].reshape(expected[name].shape)
        if qparams is not None:
            theirs = np.rint(theirs.astype(np.float64) / np.float32(qparams.scale[0])) + qparams.zero_point
        found[name] = theirs - expected[name]
    return found


def run_each(model: onnx.ModelProto, graph: Graph, reals: Arrays) -> Arrays:
    """onnxruntime on one sample after the other: not every op of the registry can have more at once.

    As the model is written: the quantized pools that onnxruntime puts in its place know neither dilations nor ceil_mode.
    """
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    count = min(len(a) for a in reals.values())
    parts = [
        session.run(None, {v.name: reals[v.name][i].reshape(v.type.shape) for v in graph.inputs})
        for i in range(count)
    ]
    return {
        name: np.stack(arrays)
        for name, arrays in zip(graph.output_names, zip(*parts, strict=True), strict=True)
    }


def is_exported(case: tuple[str, Case]) -> bool:
    if case[1].op.name == "lrn":
        return False  # onnxruntime wants an odd size
    try:
        export_qdq(integer_graph(float_graph([case]), case_inputs([case])))
    except QccError:
        return False
    return True


@pytest.mark.parametrize("unsigned", [False, True])
def test_every_op_is_within_a_step(unsigned: bool) -> None:
    """Two for resizing with weights of 8 bits, and where a sum of 16 bits is rounded twice."""
    cases = [c for c in registry_cases() if is_exported(c)]
    assert len(cases) > 0.9 * len(list(registry_cases()))
    graph = integer_graph(float_graph(cases), case_inputs(cases))
    found = differences(graph, case_inputs(cases), unsigned=unsigned)
    codes = np.concatenate([d.ravel() for d in found.values()])
    worst = {name: float(np.abs(d).max()) for name, d in found.items() if np.abs(d).max() > 1}
    assert worst == {}
    assert (codes == 0).mean() > 0.99


def planned(model: Path, calibration: object, **choices: Any) -> Graph:
    made = qcc.compile(model, calibration=calibration, warn=lambda text: None, **choices).compilation.planned
    assert made is not None
    return made


def test_digits_has_the_codes_of_the_program() -> None:
    graph = planned(EXAMPLES / "digits.onnx", EXAMPLES / "digits_calib.npz")
    images = np.load(EXAMPLES / "digits_test.npz")["image"]
    (difference,) = differences(graph, {"image": images}).values()
    assert np.abs(difference).max() <= 1
    assert (difference == 0).mean() > 0.999
    stored = {t.name: numpy_helper.to_array(t) for t in export_qdq(graph).graph.initializer}
    for node in graph.nodes:
        if node.op.name == "conv2d":
            weight, bias = node.input(1), node.operand("bias")
            assert weight.data is not None
            assert bias is not None
            assert bias.data is not None
            codes = stored[f"{weight.name}_quantized"]
            np.testing.assert_array_equal(codes, weight.data.transpose(0, 3, 1, 2))
            sums = weight.data.astype(np.int64).sum(axis=(1, 2, 3))
            assert stored[f"{bias.name}_quantized"].dtype == np.int32
            zero_point = node.input(0).type.qparams.zero_point  # type: ignore[union-attr]
            np.testing.assert_array_equal(stored[f"{bias.name}_quantized"], bias.data + zero_point * sums)
            np.testing.assert_array_equal(
                stored[f"{weight.name}_scale"],
                np.float32(weight.type.qparams.scale),  # type: ignore[union-attr]
            )


@pytest.mark.parametrize(
    ("name", "equal", "steps"),
    [  # measured: 1.0, 0; 0.986, 7 (of a softmax); 0.9985, 1; 0.94, 1; 0.81, 1
        ("kws", 0.99, 1),
        ("ic", 0.97, 10),
        ("ad", 0.995, 1),
        pytest.param("vww", 0.8, 2, marks=pytest.mark.slow),
        pytest.param("resnet20", 0.75, 2, marks=pytest.mark.slow),
    ],
)
def test_zoo(name: str, equal: float, steps: int, zoo: ModuleType) -> None:
    """A difference in one layer moves what the next ones see: a few codes more in deep models."""
    entry = zoo.load(name)
    graph = planned(entry.model, entry.calib[:32], corrections=False, observer="observer=min-max")
    (found,) = differences(graph, {graph.inputs[0].name: np.asarray(entry.x[:64])}).values()
    assert np.abs(found).max() <= steps
    assert (found == 0).mean() > equal


def test_sixteen_bits_and_two_roundings() -> None:
    graph = planned(EXAMPLES / "digits.onnx", EXAMPLES / "digits_calib.npz", int16=("*",))
    images = np.load(EXAMPLES / "digits_test.npz")["image"][:50]
    (difference,) = differences(graph, {"image": images}).values()
    assert np.abs(difference).max() <= 40  # of 2^15
    assert {o.version for o in export_qdq(graph).opset_import} == {21}
    twice = planned(EXAMPLES / "digits.onnx", EXAMPLES / "digits_calib.npz", rounding="tflite")
    (difference,) = differences(twice, {"image": images}).values()
    assert np.abs(difference).max() <= 2


def test_activation_that_ends_within_the_codes_is_clipped() -> None:
    graph = Graph("net")
    b = Builder(graph)
    x = graph.add_input("x", f32(1, 4, 4, 2))
    w = b.constant(np.linspace(-1, 1, 36, dtype=np.float32).reshape(2, 3, 3, 2), "w")
    y = b.emit(Clamp(-0.5, 0.5), b.emit(Conv2d(pads=(1, 1, 1, 1)), x, w, name="conv"), name="clamp")
    graph.add_output(b.emit(Clamp(-2.0, 2.0), y, name="again"), "y")
    samples = {"x": np.random.default_rng(0).normal(size=(8, 4, 4, 2)).astype(np.float32)}
    (difference,) = differences(integer_graph(graph, samples), samples).values()
    assert np.abs(difference).max() <= 1


def test_compile_emits_both_beside_the_library(tmp_path: Path) -> None:
    calib = EXAMPLES / "digits_calib.npz"
    command = [
        "compile",
        str(EXAMPLES / "digits.onnx"),
        "--calib",
        str(calib),
        "-o",
        str(tmp_path / "out"),
        "--no-build",
    ]
    done = CliRunner().invoke(main, [*command, "--emit", "tosa,onnx"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    graph = load_graph(tmp_path / "out" / "graphs" / "planned.qir")
    images = np.load(EXAMPLES / "digits_test.npz")["image"]
    (theirs,) = run_onnx(tmp_path / "out" / "digits.onnx", {"image": images}).values()
    ours = interpreter.run(graph, quantize_inputs(graph, {"image": images}))["probabilities"]
    assert np.abs(np.rint(theirs * 256) - 128 - ours).max() <= 1
    assert (tmp_path / "out" / "digits.mlir").read_text().startswith('// input "image"')
    assert "QuantizeLinear" in {n.op_type for n in onnx.load(tmp_path / "out" / "digits.onnx").graph.node}

    wrong = CliRunner().invoke(main, [*command, "--emit", "tosa,coreml"])
    assert (wrong.exit_code, "unknown emit 'coreml'" in wrong.output) == (1, True)
    floats = CliRunner().invoke(main, [*command, "--float32", "--emit", "onnx"], catch_exceptions=False)
    assert floats.exit_code == 0, floats.output
    assert "QuantizeLinear" not in {n.op_type for n in onnx.load(tmp_path / "out" / "digits.onnx").graph.node}
    refused = CliRunner().invoke(main, [*command, "--float32", "--emit", "tosa"])
    assert (refused.exit_code, "works on f32" in refused.output) == (1, True)
    assert (tmp_path / "out" / "digits.onnx").is_file()  # what was there is kept


def test_emitted_tosa_has_the_bytes_of_the_interpreter(tmp_path: Path) -> None:
    graph = planned(EXAMPLES / "digits.onnx", EXAMPLES / "digits_calib.npz")
    assert_same_bytes(graph, tmp_path, samples=2)
