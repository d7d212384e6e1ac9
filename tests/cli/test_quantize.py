"""qcc quantize: what it writes runs in onnxruntime, follows each runtime's rules, and comes back with the same codes."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from click.testing import Result
from onnx import numpy_helper

import qcc as compiler
from qcc.passes.meaning import sqnr

Qcc = Callable[..., Result]


def run_onnx(path: Path, x: Any, optimized: bool = True) -> Any:
    options = onnxruntime.SessionOptions()
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options)
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def zero_points(model: onnx.ModelProto) -> dict[str, Any]:
    """By QuantizeLinear node: its zero point."""
    stored = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    return {n.name: stored[n.input[2]] for n in model.graph.node if n.op_type == "QuantizeLinear"}


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino", "tensorrt"])
def test_onnxruntime_runs_what_is_written(
    qcc: Qcc, model: Path, calib: Path, test_data: Path, tmp_path: Path, runtime: str
) -> None:
    out = tmp_path / "quantized.onnx"
    result = qcc("quantize", model, "-o", out, "--calib", calib, "--runtime", runtime)
    assert result.exit_code == 0, result.output
    assert f"for {runtime}" in result.output
    written = onnx.load(out)
    onnx.checker.check_model(written, full_check=True)
    x = np.load(test_data)
    x = x[x.files[0]][:64].astype(np.float32)
    reference = run_onnx(model, x)
    assert sqnr(reference, run_onnx(out, x)) > 20
    codes = zero_points(written).values()
    assert {c.dtype.name for c in codes} == {"uint8" if runtime == "openvino" else "int8"}
    biases = {
        t.data_type
        for t in written.graph.initializer
        if "bias" in t.name and t.data_type == onnx.TensorProto.INT32
    }
    if runtime == "tensorrt":
        assert all(c == 0 for c in codes)
        assert biases == set()
    else:
        assert biases == {onnx.TensorProto.INT32}


def test_it_comes_back_as_the_same_integers(qcc: Qcc, zoo: ModuleType, tmp_path: Path) -> None:
    """Compiling what was written needs no data, and agrees with onnxruntime running it."""
    subject = zoo.load("kws")
    calib, out = tmp_path / "calib.npy", tmp_path / "kws.qdq.onnx"
    np.save(calib, np.asarray(subject.calib[:50], np.float32))
    assert qcc("quantize", subject.model, "-o", out, "--calib", calib).exit_code == 0
    warnings: list[str] = []
    made = compiler.compile(out, warn=warnings.append)
    assert warnings == []
    x = np.asarray(subject.x[:100], np.float32)
    ours = made.dequantize_output(made.run_integer(made.quantize_input(x))).reshape(len(x), -1)
    theirs = run_onnx(out, x).reshape(len(x), -1)
    assert sqnr(theirs, ours) > 40
    assert (theirs.argmax(1) == ours.argmax(1)).mean() >= 0.99


@pytest.mark.parametrize("name", ["kws", "resnet20"])
def test_corrections_bring_the_model_that_runs_nearer_to_float(
    qcc: Qcc, zoo: ModuleType, tmp_path: Path, name: str
) -> None:
    subject = zoo.load(name)
    np.save(tmp_path / "calib.npy", np.asarray(subject.calib[:50], np.float32))
    x = np.asarray(subject.x[:100], np.float32)
    reference, found = run_onnx(Path(subject.model), x), []
    for option in ("--no-corrections", "--corrections"):
        out = tmp_path / f"{option}.onnx"
        result = qcc("quantize", subject.model, "-o", out, "--calib", tmp_path / "calib.npy", option)
        assert result.exit_code == 0, result.output
        found.append(sqnr(reference, run_onnx(out, x)))
    assert found[1] > found[0] + 0.3


def test_a_recipe_is_its_options(qcc: Qcc, model: Path, calib: Path, tmp_path: Path) -> None:
    asked = {
        "tensorrt": ["--runtime", "tensorrt", "--recipe", "tensorrt"],
        "openvino": ["--runtime", "openvino", "--recipe", "openvino"],
        "tflite": ["--recipe", "tflite"],
        "min-max": ["--no-corrections"],
    }
    for name, options in asked.items():
        result = qcc("quantize", model, "-o", tmp_path / name, "--calib", calib, *options)
        assert result.exit_code == 0, result.output
    assert (tmp_path / "tflite").read_bytes() == (tmp_path / "min-max").read_bytes()
    codes = zero_points(onnx.load(tmp_path / "openvino"))  # by-sign: 0 of s8 is 128 of u8, or its lowest code
    assert {int(c) for c in codes.values()} == {0, 128}
    assert not any(zero_points(onnx.load(tmp_path / "tensorrt")).values())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--recipe", "tflite", "--observer", "mse"], "recipe tflite has observer"),
        (["--recipe", "tflite", "--corrections"], "recipe tflite has corrections off, not on"),
        (
            ["--recipe", "tflite", "--runtime", "tensorrt"],
            "tensorrt asks for activations=symmetric, which recipe tflite does not have",
        ),
    ],
)
def test_a_recipe_that_is_changed_is_refused(
    qcc: Qcc, model: Path, calib: Path, tmp_path: Path, options: list[str], message: str
) -> None:
    result = qcc("quantize", model, "-o", tmp_path / "q.onnx", "--calib", calib, *options)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: {message}")
    assert not any(tmp_path.iterdir())


def test_no_data_warns_and_a_bad_place_is_an_error(qcc: Qcc, model: Path, tmp_path: Path) -> None:
    result = qcc("quantize", model, "-o", tmp_path / "missing" / "q.onnx")
    assert result.exit_code == 1
    assert "no calibration data" in result.output
    assert "cannot write" in result.output
