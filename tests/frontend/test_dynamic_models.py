"""Run-time quantization against onnxruntime: its operators bit for bit, models of quantize_dynamic, and the way back."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

import qcc
from qcc import metrics
from qcc.ir.errors import ImportModelError, QccError
from qcc.ir.interpreter import run
from qcc.ir.ops.stored import dynamic_quantize
from qcc.onnx_importer import import_model
from qcc.options import CompileOptions
from qcc.passes.base import PassContext
from qcc.passes.store_weights import DynamicWeights
from qcc.verify import tolerance_of

Array = np.ndarray[Any, Any]


def model(rng: np.random.Generator, depth: int = 40, hidden: int = 33, outputs: int = 7) -> onnx.ModelProto:
    """Two layers, a Relu between them, and a bias behind the first."""
    arrays = {
        "w1": rng.normal(size=(depth, hidden)),
        "b1": rng.normal(size=hidden),
        "w2": rng.normal(size=(hidden, outputs)),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["m1"], name="first"),
        helper.make_node("Add", ["m1", "b1"], ["a1"], name="bias"),
        helper.make_node("Relu", ["a1"], ["r1"], name="relu"),
        helper.make_node("MatMul", ["r1", "w2"], ["y"], name="second"),
    ]
    graph = helper.make_graph(
        nodes,
        "two_layers",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, depth])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, outputs])],
        [numpy_helper.from_array(a.astype(np.float32), n) for n, a in arrays.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def dynamic(tmp_path: Path, per_channel: bool, weight_type: QuantType = QuantType.QInt8) -> Path:
    onnx.save(model(np.random.default_rng(0)), tmp_path / "float.onnx")
    out = tmp_path / "dynamic.onnx"
    quantize_dynamic(tmp_path / "float.onnx", out, per_channel=per_channel, weight_type=weight_type)
    return out


def onnxruntime_run(source: Any, x: Array) -> Array:
    data = str(source) if isinstance(source, Path) else source.SerializeToString()
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    (name,) = (i.name for i in session.get_inputs())
    return np.concatenate([session.run(None, {name: row[None]})[0] for row in x])


@pytest.fixture(scope="module")
def quantizer() -> onnxruntime.InferenceSession:
    node = helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"])
    infos = [
        helper.make_tensor_value_info(n, t, s)
        for n, t, s in (
            ("q", TensorProto.UINT8, ["n"]),
            ("s", TensorProto.FLOAT, []),
            ("z", TensorProto.UINT8, []),
        )
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])
    made = helper.make_model(
        helper.make_graph([node], "quantizer", [x], infos),
        opset_imports=[helper.make_opsetid("", 13)],
        ir_version=8,
    )
    return onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])


@settings(deadline=None, max_examples=300)
@given(st.lists(st.floats(-(2.0**100), 2.0**100, width=32, allow_subnormal=False), min_size=1, max_size=40))
def test_codes_equal_those_of_dynamic_quantize_linear(
    quantizer: onnxruntime.InferenceSession, values: list[float]
) -> None:
    x = np.array(values, np.float32)
    if 0 < np.ptp([*x, 0]) < 1e-35:
        return  # the scale would be subnormal
    q, s, z = quantizer.run(None, {"x": x})
    codes, scale, zero_point = dynamic_quantize(x)
    assert (scale, zero_point) == (s, z)
    np.testing.assert_array_equal(codes, q)


@pytest.mark.compiler
@pytest.mark.parametrize("per_channel", [False, True])
def test_models_of_quantize_dynamic_yield_the_bytes_of_onnxruntime(tmp_path: Path, per_channel: bool) -> None:
    source = dynamic(tmp_path, per_channel)
    x = np.random.default_rng(1).normal(size=(20, 40)).astype(np.float32)
    expected = onnxruntime_run(source, x)
    compiled = qcc.compile(source, precision="float32")
    assert [n.op.name for n in compiled.graph.nodes] == ["dynamic_dense", "clamp", "dynamic_dense"]
    np.testing.assert_array_equal(run(compiled.graph, {"x": x})["y"], expected)
    np.testing.assert_array_equal(compiled.build().run(x), expected)
    np.testing.assert_array_equal(compiled.run_float(x), expected)  # written to ONNX again


def test_other_models_of_integer_products_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ImportModelError, match="its weights are asymmetric"):
        import_model(dynamic(tmp_path, False, QuantType.QUInt8))
    broken = onnx.load(dynamic(tmp_path, False))
    next(n for n in broken.graph.node if n.op_type == "Cast").attribute[0].i = TensorProto.DOUBLE
    with pytest.raises(ImportModelError, match="MatMulInteger"):
        import_model(broken)


@pytest.mark.compiler
def test_integer_program_keeps_dynamic_products_in_float(tmp_path: Path) -> None:
    x = np.random.default_rng(1).normal(size=(40, 40)).astype(np.float32)
    compiled = qcc.compile(dynamic(tmp_path, True), calibration=x)
    assert [n["node"] for n in compiled.report["placement"]["float"]] == ["a1", "y"]
    assert compiled.verify(compiled.build()).exact


@pytest.mark.compiler
@pytest.mark.parametrize(
    ("choices", "least_db"),
    [
        ({"precision": "dynamic"}, 35.0),
        ({"precision": "float32", "weights_only": "int8"}, 38.0),
        ({"precision": "float32", "weights_only": "int4", "weight_group": 8}, 16.0),
        ({"precision": "float32", "weights_only": "fp16"}, 60.0),
        ({"precision": "dynamic", "weights_only": "fp16"}, 35.0),
    ],
)
def test_float_programs_with_small_weights(choices: dict[str, Any], least_db: float, tmp_path: Path) -> None:
    proto = model(np.random.default_rng(0), outputs=40)
    x = np.random.default_rng(1).normal(size=(20, 40)).astype(np.float32)
    compiled = qcc.compile(proto, calibration=x, **choices)
    compiled.save(tmp_path / "out")
    verification = compiled.verify(compiled.build(), x)
    assert verification.exact, verification.first_difference
    expected = onnxruntime_run(proto, x)
    assert metrics.sqnr_db(expected, run(compiled.graph, {"x": x})["y"]) > least_db
    stored = compiled.report["stored_weights"]
    assert [n["stored"] for n in stored["nodes"]] == [True, True]
    assert compiled.report["constant_bytes"] < 0.6 * stored["float_bytes"]
    assert "Stored weights" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"weights_only": "int8"}, "where activations are in float"),
        ({"precision": "float32", "weights_only": "int3"}, "unknown weights_only 'int3'"),
        ({"precision": "float32", "weights_only": "fp16", "weight_group": 8}, "weights in groups of 8"),
        ({"precision": "float32", "weight_group": 8}, "weights in groups of 8"),
        ({"precision": "dynamic", "no_float": True}, "cannot have dynamic"),
    ],
)
def test_choices_that_do_not_go_together(choices: dict[str, Any], message: str) -> None:
    with pytest.raises(QccError, match=message):
        CompileOptions(**choices)


def test_tolerance_follows_from_what_is_quantized_behind_float_sums(tmp_path: Path) -> None:
    graph = import_model(dynamic(tmp_path, False))
    assert tolerance_of(graph) == 0.0
    assert tolerance_of(import_model(model(np.random.default_rng(0)))) == 1e-4
    mixed = import_model(model(np.random.default_rng(0)))
    DynamicWeights(min_bytes=4 * 33 * 7 + 1).run(mixed, PassContext())  # the first layer alone
    assert tolerance_of(mixed) == 1e-4
    mixed = import_model(model(np.random.default_rng(0), hidden=7, outputs=70))
    DynamicWeights(min_bytes=4 * 40 * 7 + 1).run(mixed, PassContext())  # the second alone
    assert tolerance_of(mixed) == 1e-2
