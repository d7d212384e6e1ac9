"""16-bit activations: sums beyond 32 bits against Python's integers, softmax to 15 bits, the checker, and the compiler."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_harness import Compiler, integer_graph, wide_softmax

from qcc.checker import check_plan
from qcc.ir import interpreter
from qcc.ir.builder import Builder
from qcc.ir.errors import VerifyError
from qcc.ir.fixedpoint import multiplier_bits, quantize_multiplier, requantize
from qcc.ir.graph import Graph
from qcc.ir.ops.dense import Dense
from qcc.ir.ops.softmax import WideSoftmax, power_table
from qcc.ir.qparams import QParams
from qcc.ir.types import DType, TensorType, f32

DEPTH = 3000


def long_dense(sign: float = 1.0) -> Graph:
    """A dense layer whose sums pass 32 bits: 3000 products of up to 2^15 * 127."""
    graph = Graph("long")
    x = graph.add_input("x", f32(1, DEPTH))
    builder = Builder(graph)
    rng = np.random.default_rng(1)
    rows = [np.full(DEPTH, sign), rng.normal(size=DEPTH), np.where(rng.random(DEPTH) < 0.5, -1.0, 1.0)]
    w = builder.constant(np.stack(rows).astype(np.float32), "w")
    bias = builder.constant(np.array([1e4, -3.0, 0.0], np.float32), "b")
    graph.add_output(builder.emit(Dense(), x, w, bias, name="y"), "y")
    samples = np.stack([np.ones((1, DEPTH)), -np.ones((1, DEPTH)), rng.uniform(-1, 1, (1, DEPTH))])
    return integer_graph(graph, {"x": samples.astype(np.float32)[:, 0]}, ["*"])


def by_hand(graph: Graph, x: np.ndarray) -> list[int]:
    """The layer in Python's integers, which have no size."""
    requantize_node = graph.nodes[-1]
    dense = graph.nodes[-2]
    weights, bias = dense.input(1).data, dense.input(2).data
    multiplier, shift = requantize_node.input(1).data, requantize_node.input(2).data
    assert weights is not None
    assert bias is not None
    assert multiplier is not None
    assert shift is not None
    results = []
    for o, row in enumerate(weights.tolist()):
        acc = int(bias[o]) + sum(a * b for a, b in zip(row, x.reshape(-1).tolist(), strict=True))
        rounded = (acc * int(multiplier[o]) + (1 << (int(shift[o]) - 1))) >> int(shift[o])
        results.append(max(-(2**15), min(2**15 - 1, rounded)))
    return results


def codes(kind: str) -> np.ndarray:
    rng = np.random.default_rng(5)
    made = {
        "lowest": np.full((1, DEPTH), -(2**15)),
        "highest": np.full((1, DEPTH), 2**15 - 1),
        "random": rng.integers(-(2**15), 2**15, (1, DEPTH)),
    }[kind]
    return made.astype(np.int16)


@pytest.mark.compiler
@pytest.mark.parametrize("kind", ["lowest", "highest", "random"])
def test_sums_beyond_32_bits_are_exact(compiler: Compiler, kind: str) -> None:
    graph, x = long_dense(), codes(kind)
    assert check_plan(graph).accumulator_bits > 33
    expected = by_hand(graph, x)
    assert interpreter.run(graph, {"x": x[None]})["y"].reshape(-1).tolist() == expected
    assert compiler.library(graph).run({"x": x[None]})["y"].reshape(-1).tolist() == expected


def test_the_planned_scale_is_that_of_the_tensors() -> None:
    graph = long_dense()
    node = graph.nodes[-1]
    assert graph.outputs[0].type.dtype is DType.S16
    x, y = node.input(0).type.qparams, node.output.type.qparams
    assert x is not None
    assert y is not None
    for scale, m, s in zip(x.scale, node.input(1).data, node.input(2).data, strict=True):  # type: ignore[arg-type]
        planned, real = Fraction(int(m), 2 ** int(s)), Fraction(scale) / Fraction(y.scale[0])
        assert abs(planned / real - 1) < Fraction(1, 2**20)


def test_the_checker_refuses_a_multiplier_that_could_overflow() -> None:
    graph = long_dense()
    node = graph.nodes[-1]
    multiplier, shift = node.input(1), node.input(2)
    assert multiplier.data is not None
    assert shift.data is not None
    for value, data in (
        (multiplier, multiplier.data * 2**3),
        (shift, shift.data + 3),
    ):  # the same real number
        index = node.inputs.index(value)
        changed = graph.constant(data.astype(np.int32), value.name, TensorType(DType.S32, data.shape))
        graph.set_input(node, index, changed)
    with pytest.raises(VerifyError, match="multiplier out of range"):
        check_plan(graph)


def test_the_checker_refuses_too_few_accumulator_bits() -> None:
    graph = long_dense()
    node = graph.nodes[-1]
    node.op = replace(node.op, accumulator_bits=32)  # type: ignore[type-var]
    with pytest.raises(VerifyError, match="accumulator_bits"):
        check_plan(graph)


@settings(max_examples=300)
@given(st.integers(1, 2**43), st.floats(1e-9, 0.9), st.integers(-(2**43), 2**43))
def test_requantize_of_wide_sums_is_exact(bound: int, real: float, acc: int) -> None:
    acc = max(-bound, min(bound, acc))
    m, s = quantize_multiplier(real, multiplier_bits(bound))
    assert abs(acc * m) + 2 ** (s - 1) < 2**63
    exact = (acc * m + (1 << (s - 1))) >> s
    exact = max(-(2**15), min(2**15 - 1, exact))
    assert int(requantize(np.array([acc]), m, s, 0, -(2**15), 2**15 - 1)[0]) == exact


# ---------------------------------------------------------------------- softmax
@pytest.mark.compiler
@pytest.mark.parametrize("chosen", ["xyzpqr", "pqr", "xyz"])
def test_softmax_of_16_bits_equals_the_interpreter(compiler: Compiler, chosen: str) -> None:
    graph = wide_softmax(chosen)
    check_plan(graph)
    library = compiler.library(graph)
    rng = np.random.default_rng(3)
    for _ in range(20):
        inputs = {
            v.name: rng.integers(v.type.dtype.min, v.type.dtype.max + 1, v.type.shape).astype(
                v.type.dtype.numpy
            )
            for v in graph.inputs
        }
        batch = {name: array[None] for name, array in inputs.items()}
        got = library.run(batch)
        for name, array in interpreter.run(graph, batch).items():
            np.testing.assert_array_equal(got[name].reshape(-1), array.reshape(-1))


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 40), st.floats(-14, -6), st.integers(0, 2**32 - 1))
def test_softmax_of_16_bits_is_within_the_stated_error(n: int, exponent: float, seed: int) -> None:
    scale = 2.0**exponent
    graph = Graph("alone", "planned")
    x = graph.add_input("x", TensorType(DType.S16, (1, n), QParams.per_tensor(scale, 0, "s16")))
    builder = Builder(graph)
    multiplier, shift = quantize_multiplier(scale * np.log2(np.e) * 2**16)
    constants = (np.array([multiplier], np.int32), np.array([shift], np.int32), power_table())
    made = [builder.constant(a, name) for a, name in zip(constants, "msp", strict=True)]
    graph.add_output(builder.emit(WideSoftmax(15), x, *made, name="y"), "y")
    q = np.random.default_rng(seed).integers(-(2**15), 2**15, (1, 1, n)).astype(np.int16)
    e = np.exp(scale * (q.astype(np.float64) - q.max()))
    y = interpreter.run(graph, {"x": q})["y"]
    assert np.abs(y - 2**15 * e / e.sum()).max() <= 0.5 + 8 + n / 2**7
