"""The digit classifier of the examples: exact gradients, and files that say what the script says."""

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import onnxruntime
import pytest

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("train_digits", EXAMPLES / "train_digits.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_backward_equals_finite_differences(script: ModuleType) -> None:
    """In float64, where a central difference is good to about nine digits."""
    rng = np.random.default_rng(1)
    network = script.Network(rng)
    for parameter in network.parameters():
        parameter.value = parameter.value + rng.normal(0, 0.1, parameter.value.shape)
    images, labels = rng.random((4, 1, 8, 8)), rng.integers(0, 10, 4)

    def loss() -> float:
        value, _ = script.cross_entropy(network.forward(images, training=True), labels)
        return float(value)

    network.backward(script.cross_entropy(network.forward(images, training=True), labels)[1])
    for number, parameter in enumerate(network.parameters()):
        for _ in range(4):
            index = tuple(rng.integers(0, size) for size in parameter.value.shape)
            middle, step = parameter.value[index], 1e-6
            parameter.value[index] = middle + step
            above = loss()
            parameter.value[index] = middle - step
            below = loss()
            parameter.value[index] = middle
            slope = (above - below) / (2 * step)
            np.testing.assert_allclose(
                parameter.gradient[index], slope, rtol=1e-4, atol=1e-7, err_msg=f"{number}"
            )


def test_model_and_data_agree_with_their_description(script: ModuleType) -> None:
    model = onnx.load(EXAMPLES / "digits.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert model.opset_import[0].version == 17
    assert [node.op_type for node in model.graph.node].count("BatchNormalization") == 3
    assert (EXAMPLES / "digits.onnx").stat().st_size < 300_000

    calibration, test = (np.load(EXAMPLES / f"digits_{name}.npz") for name in ("calib", "test"))
    assert calibration["image"].shape == (script.CALIBRATION_IMAGES, 1, 8, 8)
    assert test["image"].shape == (450, 1, 8, 8)
    assert test["image"].dtype == np.float32
    seen = {image.tobytes() for image in calibration["image"]}
    assert not any(image.tobytes() in seen for image in test["image"])

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        EXAMPLES / "digits.onnx", options, providers=["CPUExecutionProvider"]
    )
    (probabilities,) = session.run(["probabilities"], {"image": test["image"]})
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    assert (probabilities.argmax(axis=1) == test["label"]).mean() >= 0.97


def test_export_means_the_same_as_the_network(script: ModuleType) -> None:
    """Trained or not: random parameters and running averages, numpy against onnxruntime."""
    rng = np.random.default_rng(2)
    network = script.Network(rng)
    for norm in network.norms:
        norm.running_mean += rng.normal(0, 0.1, norm.running_mean.shape).astype(np.float32)
        norm.running_variance *= rng.uniform(0.5, 2, norm.running_variance.shape).astype(np.float32)
    images = rng.random((5, 1, 8, 8)).astype(np.float32)
    logits = network.forward(images)
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    session = onnxruntime.InferenceSession(
        script.export(network).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    np.testing.assert_allclose(session.run(None, {"image": images})[0], expected, rtol=1e-4, atol=1e-6)
