"""Requantization as other runtimes round: TensorFlow Lite's reference kernels, onnxruntime's QLinear operators."""

from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

import qcc
from qcc import checker
from qcc.ir.errors import VerifyError
from qcc.ir.graph import Graph
from qcc.ir.ops.quant import Requantize
from qcc.passes.certify import certify

RECORDED = Path(__file__).parent / "kws_reference_int8.npz"


def compiled(model: Any, rounding: str, **options: Any) -> tuple[Any, list[str]]:
    warnings: list[str] = []
    return qcc.compile(model, rounding=rounding, warn=warnings.append, **options), warnings


def requantizes(graph: Graph) -> dict[str, Requantize]:
    return {
        n.input(0).producer.op.name: n.op
        for n in graph.nodes
        if isinstance(n.op, Requantize) and n.input(0).producer
    }


def test_every_byte_of_tensorflow_lite(zoo: ModuleType) -> None:
    """``tflite``: its reference kernels. ``ties_up``: its default ones, which multiply in float32."""
    subject, recorded = zoo.load("kws_tfl_qdq"), np.load(RECORDED)
    x = np.asarray(subject.x)
    for rounding, kernels in (("tflite", "reference"), ("ties_up", "default"), ("onnx", "default")):
        made, _ = compiled(str(subject.model), rounding)
        np.testing.assert_array_equal(made.run_integer(x).reshape(len(x), -1), recorded[kernels])
    assert (recorded["reference"] != recorded["default"]).any()


@pytest.mark.compiler
def test_two_roundings_in_c(zoo: ModuleType) -> None:
    subject = zoo.load("kws_tfl_qdq")
    x = np.asarray(subject.x[:16])
    for target in ("c", "x86-avx2"):
        made, warnings = compiled(str(subject.model), "tflite", target=target)
        np.testing.assert_array_equal(made.build().run_int8(x), made.run_integer(x))
        assert warnings == [
            "rounding tflite: not proved to equal that runtime for every input: %Identity_prequant"
        ]
        found = requantizes(made.graph)
        assert found["conv2d"].rounding == "twice"
        assert found["conv2d"].certified == ()
        assert found["dense"].rounding == found["avg_pool2d"].rounding == "ties_up"


def test_the_checker_knows_both_roundings(zoo: ModuleType) -> None:
    made, _ = compiled(str(zoo.load("kws_tfl_qdq").model), "tflite")
    assert made.compilation.proof == checker.check_plan(made.graph)
    node = next(n for n in made.graph.nodes if isinstance(n.op, Requantize) and n.op.rounding == "twice")
    node.op = type(node.op)(node.op.low, node.op.high, "twice", ("f32",), node.op.accumulator_bits)
    with pytest.raises(VerifyError, match="rounding and saturation"):
        checker.check_plan(made.graph)


# ---------------------------------------------------------------------- whose thresholds
@settings(deadline=None, max_examples=60)
@given(st.floats(2.0**-14, 2.0**-4), st.integers(-4000, 0), st.integers(0, 4000), st.integers(-128, 127))
def test_certified_multipliers_yield_the_integers_asked_for(
    real: float, low: int, high: int, zero_point: int
) -> None:
    acc = np.arange(low, high + 1)
    arguments = (np.array([real]), np.array([low]), np.array([high]), zero_point, -128, 127)
    nearest = certify(*arguments, "nearest")
    exact = round(Fraction(real) * 2**60)  # far more bits than any multiplier
    expected = np.array([(a * _nearest(real) + 2**59) >> 60 for a in acc.tolist()])
    assert exact > 0
    np.testing.assert_array_equal(
        _integers(acc, nearest, zero_point), np.clip(expected + zero_point, -128, 127)
    )
    follow = certify(*arguments, "float32")
    if follow.certified.all():
        product = np.rint(acc.astype(np.float32) * np.float32(real)).astype(np.int64)
        np.testing.assert_array_equal(
            _integers(acc, follow, zero_point), np.clip(product + zero_point, -128, 127)
        )


def _nearest(real: float) -> int:
    """The 31-bit multiplier nearest to ``real``, times 2^60 over its own power of two."""
    mantissa, exponent = np.frexp(real)
    return round(float(mantissa) * 2**31) << int(29 + exponent)


def _integers(acc: Any, chosen: Any, zero_point: int) -> Any:
    m, s = int(chosen.multiplier[0]), int(chosen.shift[0])
    return np.clip(np.array([(a * m + (1 << (s - 1))) >> s for a in acc.tolist()]) + zero_point, -128, 127)


# ---------------------------------------------------------------------- onnxruntime
def qlinear_convolution(rng: np.random.Generator) -> Any:
    """x u8 -> QLinearConv with per-channel weights -> y u8, as onnxruntime runs it on integers."""
    arrays = {
        "xs": np.float32(rng.uniform(0.01, 0.1)), "xz": np.uint8(rng.integers(0, 256)),
        "w": rng.integers(-127, 128, size=(16, 8, 3, 3)).astype(np.int8),
        "ws": rng.uniform(0.001, 0.01, size=16).astype(np.float32), "wz": np.zeros(16, np.int8),
        "ys": np.float32(rng.uniform(0.1, 0.5)), "yz": np.uint8(rng.integers(0, 256)),
        "b": rng.integers(-2000, 2000, size=16).astype(np.int32),
    }  # fmt: skip
    names = ["x", "xs", "xz", "w", "ws", "wz", "ys", "yz", "b"]
    graph = helper.make_graph(
        [helper.make_node("QLinearConv", names, ["y"], pads=[1, 1, 1, 1])],
        "qlinear",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, [1, 8, 9, 9])],
        [helper.make_tensor_value_info("y", TensorProto.UINT8, [1, 16, 9, 9])],
        [numpy_helper.from_array(np.asarray(a), n) for n, a in arrays.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("seed", range(4))
def test_qlinear_convolution_equals_onnxruntime(seed: int) -> None:
    rng = np.random.default_rng(seed)
    model = qlinear_convolution(rng)
    made, _ = compiled(model, "onnx")
    x = rng.integers(0, 256, size=(1, 8, 9, 9)).astype(np.uint8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    expected = session.run(None, {"x": x})[0].astype(np.int16) - 128
    # the boundary holds codes of u8 minus 128
    ours = made.run_integer((x.astype(np.int16) - 128).astype(np.int8))
    np.testing.assert_array_equal(ours.reshape(expected.shape), expected)


def test_what_is_not_proved_is_named(zoo: ModuleType) -> None:
    _, warnings = compiled(str(zoo.load("kws_tfl_qdq").model), "onnx")
    assert len(warnings) == 1
    assert "avg_pool" in warnings[0].lower() or "and" in warnings[0]
