"""Models that are odd but legal: they compile without a warning, their C is exact, and the result is close to float."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from robust_build import IMAGE, Arrays, Builder, model, node, samples, weights

import qcc
from qcc import metrics
from qcc.float_runtime import run_onnx
from qcc.ir import interpreter

pytestmark = [
    pytest.mark.filterwarnings("error"),
    pytest.mark.compiler,
]

W = weights(4, 3, 3, 3)
PAIR = {"x": (1, 3, 6, 6), "z": (1, 3, 6, 6)}
SQUARE = weights(3, 3, 3, 3, scale=0.2)


def conv(inputs: str = "x w", output: str = "y") -> onnx.NodeProto:
    return node("Conv", inputs, output, name=f"conv_{output}")


def relative_error(reference: Arrays, result: Arrays) -> float:
    """Largest error of any output, as a share of the largest magnitude of that output."""
    worst = 0.0
    for name, array in reference.items():
        largest = float(np.abs(array.astype(np.float64)).max())
        error = float(np.abs(array.astype(np.float64) - result[name].reshape(array.shape)).max())
        worst = max(worst, error / largest if largest else error)
    return worst


def compile_and_check(builder: Builder, proto: onnx.ModelProto, given: Arrays, folder: Path) -> float:
    """Report, C and exactness; the relative error against the float graph, which equals onnxruntime."""
    compiled = qcc.compile(proto, calibration=given)
    compiled.save(folder / "out")
    result = builder.check(compiled, given)
    reference = interpreter.run(compiled.compilation.float_graph, given)
    first = {v.name: given[v.name][:1] for v in proto.graph.input}
    if all(
        v.type.tensor_type.shape.dim and v.type.tensor_type.shape.dim[0].dim_value == 1
        for v in proto.graph.input
    ):
        for name, array in run_onnx(proto, first).items():
            np.testing.assert_allclose(
                np.ravel(reference[name][0]), np.ravel(array), rtol=1e-4, atol=1e-5 * np.abs(array).max()
            )
    return relative_error(reference, result)


# ---------------------------------------------------------------- structure
@pytest.mark.parametrize(
    "proto",
    [
        pytest.param(model([], outputs=("x",)), id="output is the input"),
        pytest.param(model([node("Identity", "x")]), id="identity"),
        pytest.param(model([node("Relu", "x")], outputs=("x", "y")), id="input and result"),
        pytest.param(model([node("Relu", "x")], outputs=("y", "c"), c=np.arange(5.0)), id="a constant output"),
        pytest.param(model([node("Relu", "x")], outputs=("c",), c=np.arange(5.0)), id="only a constant output"),
        pytest.param(
            model([node("Relu", "x", "a"), node("Identity", "a"), node("Identity", "a", "z")], outputs=("y", "z", "a")),
            id="one value, three outputs",
        ),
        pytest.param(
            model(
                [conv("x w", "c"), conv("z w", "d"), node("Add", "c d")], PAIR, ("y", "d"), w=W
            ),
            id="two inputs, two outputs",
        ),
        pytest.param(model([conv()], {**IMAGE, "unused": (1, 5)}, w=W), id="an input that nothing reads"),
        pytest.param(model([node("ReduceMean", "x", keepdims=0)]), id="scalar output"),
        pytest.param(model([node("Mul", "x c")], {"x": ()}, c=np.array([0.5, -1, 2])), id="scalar input"),
        pytest.param(model([conv()], {"x": (4, 3, 6, 6)}, w=W), id="batch of 4"),
        pytest.param(model([node("MatMul", "x w")], {"x": (7,)}, w=weights(7, 3)), id="rank 1"),
        pytest.param(model([node("Softmax", "x", axis=0)], {"x": (7,)}), id="rank 1 softmax"),
        pytest.param(model([node("Transpose", "x", perm=[0, 6, 5, 4, 3, 2, 1])], {"x": (1, 2, 2, 2, 2, 2, 3)}), id="rank 7"),
        pytest.param(model([node("Clip", "x lo hi")], lo=np.float32(1), hi=np.float32(-1)), id="empty clamp"),
        pytest.param(model([node("Clip", "x lo hi")], lo=np.float32(-np.inf), hi=np.float32(np.inf)), id="open clamp"),
        pytest.param(model([node("Max", "x c")], c=np.array([0, -np.inf, 0, 0, 0, 0])), id="mask"),
        pytest.param(model([conv()], w=np.zeros((4, 3, 3, 3))), id="weights of zero"),
        pytest.param(model([conv("x w b")], w=0 * W, b=np.arange(4.0)), id="weights of zero and a bias"),
        pytest.param(model([node("Mul", "x c")], c=np.zeros(6)), id="times zero"),
    ],
)  # fmt: skip
def test_structure(builder: Builder, proto: onnx.ModelProto, tmp_path: Path) -> None:
    assert compile_and_check(builder, proto, samples(proto), tmp_path) < 0.05


@pytest.mark.parametrize("kernel", [(2, 1), (1, 3), (2, 2), (3, 3)])
@pytest.mark.parametrize("op_type", ["MaxPool", "GlobalMaxPool"])
def test_a_single_window_is_pooled_not_copied(
    builder: Builder, kernel: tuple[int, int], op_type: str, tmp_path: Path
) -> None:
    attributes = {"kernel_shape": kernel} if op_type == "MaxPool" else {}
    for shape in ((1, 1, *kernel), (1, 2, *kernel)):
        proto = model([node(op_type, "x", **attributes)], {"x": shape})
        assert compile_and_check(builder, proto, samples(proto, 16), tmp_path) < 0.01


def test_padding_in_front_of_a_max_pool_wins_over_negative_numbers(builder: Builder, tmp_path: Path) -> None:
    proto = model([node("Pad", "x p", "a"), node("MaxPool", "a", kernel_shape=[1, 2])], {"x": (1, 1, 1, 2)},
        p=np.array([0, 0, 0, 0, 0, 0, 0, 1]))  # fmt: skip
    given = {"x": np.array([[[[-3, -2]]], [[[-1, -5]]]], np.float32)}
    np.testing.assert_array_equal(run_onnx(proto, {"x": given["x"][:1]})["y"].ravel(), [-2, 0])
    assert compile_and_check(builder, proto, given, tmp_path) < 0.05


# ---------------------------------------------------------------- numbers
@pytest.mark.parametrize("value", [0.0, 5.0, -5.0, 1e-20])
def test_constant_samples(builder: Builder, value: float, tmp_path: Path) -> None:
    """Ranges of one point, or none: zero stays exact."""
    proto = model([conv("x w", "c"), node("Relu", "c")], w=W)
    given = {"x": np.full((3, 3, 6, 6), value, np.float32)}
    assert compile_and_check(builder, proto, given, tmp_path) < 0.05


def every_operator() -> onnx.ModelProto:
    """One model with a result of each operator."""
    nodes = [
        conv("x w", "conv"),
        node("Relu", "x", "relu"),
        node("Add", "x z", "add"),
        node("GlobalAveragePool", "x", "mean"),
        node("MaxPool", "x", "max", kernel_shape=[2, 2]),
        node("Conv", "x s", "same", pads=[1] * 4),
        node("Add", "same x", "residual"),
        node("Concat", "x z", "both", axis=1),
    ]
    outputs = ("conv", "relu", "add", "mean", "max", "residual", "both")
    return model(nodes, PAIR, outputs, w=W, s=SQUARE)


@pytest.mark.parametrize("scale", [1e30, 1e-30, 1e-35])
def test_activations_of_extreme_size(builder: Builder, scale: float, tmp_path: Path) -> None:
    proto = every_operator()
    assert compile_and_check(builder, proto, samples(proto, 8, scale), tmp_path) < 0.05


@pytest.mark.parametrize("scale", [1e-38, 1e-44])
def test_activations_without_normal_numbers(builder: Builder, scale: float, tmp_path: Path) -> None:
    """Below the normal float32 numbers the error is a few steps of the smallest scale."""
    proto = every_operator()
    given = samples(proto, 8, scale)
    compiled = qcc.compile(proto, calibration=given)
    compiled.save(tmp_path / "out")
    result = builder.check(compiled, given)
    reference = interpreter.run(compiled.compilation.float_graph, given)
    for name, array in reference.items():
        assert np.abs(array.astype(np.float64) - result[name]).max() < 2e-37


@pytest.mark.parametrize("scale", [1e30, 1e-30, 1e-44])
def test_constants_of_extreme_size(builder: Builder, scale: float, tmp_path: Path) -> None:
    nodes = [
        conv("x weights", "conv"),
        conv("x w bias", "biased"),
        node("Mul", "x factor", "product"),
        node("Conv", "x square", "same", pads=[1] * 4),
        node("Add", "same x", "residual"),
        conv("x w", "plain"),
        node("BatchNormalization", "plain one one one variance", "normal"),
        node("Pad", "x pads value", "padded"),
    ]
    constants = {
        "w": W,
        "weights": W * scale,
        "bias": np.array([scale, 0, 0, -scale]),
        "factor": np.array([scale]),
        "square": SQUARE * min(scale, 1e25),
        "one": np.ones(4),
        "variance": np.array([1, 1, 1, scale]),
        "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
        "value": np.float32(scale),
    }
    for outputs in (("biased", "residual", "normal"), ("conv", "product"), ("padded",)):
        proto = model(nodes, IMAGE, outputs, **constants)
        if scale == 1e-44 and "conv" in outputs:
            result = builder.check(qcc.compile(proto, calibration=samples(proto)), samples(proto))
            assert all(np.abs(a.astype(np.float64)).max() < 4e-38 for a in result.values())
        else:
            assert compile_and_check(builder, proto, samples(proto), tmp_path) < 0.05


def test_saturating_functions_far_outside(builder: Builder, tmp_path: Path) -> None:
    for op_type in ("Sigmoid", "Tanh", "HardSigmoid"):
        proto = model([node(op_type, "x")])
        given = samples(proto, 8, 1e30)
        compiled = qcc.compile(proto, calibration=given)
        compiled.save(tmp_path / op_type)
        result = builder.check(compiled, given)
        reference = interpreter.run(compiled.compilation.float_graph, given)
        assert metrics.sqnr_db(reference["y"], result["y"]) > 15


@pytest.mark.parametrize("place", [0, 17, -1])
@pytest.mark.parametrize("op_type", ["GlobalMaxPool", "ReduceMax", "ReduceMin", "MaxPool"])
def test_nan_wins_wherever_it_stands(builder: Builder, op_type: str, place: int) -> None:
    """As in numpy and in ONNX's reference; onnxruntime drops it at some places and keeps it at others."""
    attributes = {"MaxPool": {"kernel_shape": [6, 6]}, "GlobalMaxPool": {}}.get(op_type, {"axes": [2, 3]})
    proto = model([node(op_type, "x", **attributes)])
    given = samples(proto, 2)
    given["x"].reshape(2, 3, 36)[1, 2, place] = np.nan
    result = builder.check(qcc.compile(proto, precision="float32"), given)
    extreme = np.min if op_type == "ReduceMin" else np.max
    np.testing.assert_array_equal(result["y"].reshape(2, 3), extreme(given["x"], axis=(2, 3)))
    assert np.isnan(result["y"]).sum() == 1
