"""Softmax over accumulators: exact in C, close to the real softmax, and planned as such."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_harness import Compiler, wide_softmax

from qcc.checker import check_plan
from qcc.ir import interpreter
from qcc.ir.builder import Builder
from qcc.ir.errors import VerifyError
from qcc.ir.fixedpoint import quantize_multiplier
from qcc.ir.graph import Graph
from qcc.ir.ops.softmax import WideSoftmax, power_table
from qcc.ir.qparams import QParams
from qcc.ir.types import DType, TensorType, f32


def alone(scale: np.ndarray, channels: int) -> Graph:
    """A graph of one wide softmax over s32[1, channels]; ``scale``: float64[1] or [channels]."""
    graph = Graph("alone", "planned")
    qparams = QParams(tuple(scale.tolist()), 0, 1 if scale.size > 1 else None, "s32")
    x = graph.add_input("x", TensorType(DType.S32, (1, channels), qparams))
    builder = Builder(graph)
    pairs = np.array([quantize_multiplier(s * np.log2(np.e) * 2**16) for s in scale], np.int32)
    constants = [builder.constant(a.copy(), n) for a, n in zip((*pairs.T, power_table()), "msp", strict=True)]
    graph.add_output(builder.emit(WideSoftmax(), x, *constants, name="y"), "y")
    return graph


def test_accumulators_reach_the_softmax_without_8_bits() -> None:
    graph = wide_softmax()
    assert [n.op.name for n in graph.nodes] == [
        "dense",
        "wide_softmax",
        "reduce_mean",
        "wide_softmax",
        "reduce_sum",
        "wide_softmax",
    ]
    assert check_plan(graph).requantizes == 0


@pytest.mark.compiler
@pytest.mark.parametrize("code", [None, -128, 0, 127])
def test_compiled_equals_the_interpreter(compiler: Compiler, code: int | None) -> None:
    graph = wide_softmax()
    rng = np.random.default_rng(3)
    inputs = {
        v.name: rng.integers(-128, 128, (50, *v.type.shape[1:])).astype(np.int8)
        if code is None
        else np.full((1, *v.type.shape[1:]), code, np.int8)
        for v in graph.inputs
    }
    library = compiler.library(graph)
    for sample in range(len(inputs["x"])):
        one = {name: array[sample : sample + 1] for name, array in inputs.items()}
        got = library.run(one)
        for name, array in interpreter.run(graph, one).items():
            np.testing.assert_array_equal(got[name].reshape(array.shape), array)


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 700), st.floats(-20, 3), st.booleans(), st.integers(0, 2**32 - 1))
def test_it_is_within_the_stated_error(n: int, exponent: float, per_channel: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    scale = 2.0**exponent * (rng.uniform(0.2, 1.0, n) if per_channel else np.ones(1))
    reach = min(2.0**31 - 1, 40 / scale.max())  # logits up to 40 apart, and saturation of none
    x = rng.integers(-int(reach), int(reach) + 1, (4, n)).astype(np.int32)
    y = interpreter.run(alone(scale, n), {"x": x})["y"]
    logits = x * scale
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    real = np.minimum(256 * e / e.sum(axis=1, keepdims=True), 255.0)
    assert np.abs(y + 128.0 - real).max() <= 1 / 2 + 1 / 16 + n / 2**14, f"seed {seed}"


def test_extreme_accumulators_neither_overflow_nor_saturate() -> None:
    x = np.array([[2**31 - 1, -(2**31), 0], [-(2**31), -(2**31), -(2**31)], [5, 5, 4]], np.int32)
    y = interpreter.run(alone(np.array([2.0**12]), 3), {"x": x})["y"]
    np.testing.assert_array_equal(y.astype(int) + 128, [[255, 0, 0], [85, 85, 85], [128, 128, 0]])


def test_the_checker_recomputes_multipliers_and_table() -> None:
    for index, message in (
        (1, "channel 0: multiplier"),
        (2, "channel 0: multiplier"),
        (3, "do not fit 32 bits"),
    ):
        graph = wide_softmax()
        node = graph.nodes[1]
        data = node.input(index).data
        assert data is not None
        planted = data.copy()
        planted[0] += 2**17
        graph.set_input(node, index, graph.constant(planted, "planted", node.input(index).type))
        if index == 2:
            message = "out of range"
        with pytest.raises(VerifyError, match=message):
            check_plan(graph)


def test_shapes_and_types_are_checked() -> None:
    s32 = TensorType(DType.S32, (1, 4))
    one, table = TensorType(DType.S32, (1,)), TensorType(DType.S32, (512,))
    for operands, message in (
        ((f32(1, 4), one, one, table), "needs integers"),
        ((s32, f32(1), one, table), "three s32 operands"),
        ((s32, one, one, one), "table must have shape"),
        ((s32, TensorType(DType.S32, (3,)), one, table), "one element, or one per channel"),
    ):
        with pytest.raises(VerifyError, match=message):
            WideSoftmax().infer(*operands)
