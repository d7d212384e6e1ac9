"""Weights in codes: each kernel against the interpreter, every binary16 number, and products that quantize at run time."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_cases import odd_cases, registry_cases
from kernel_harness import Compiler, float_graph
from numpy.typing import NDArray

from qcc.backends.scalar.stored import pack_row_pairs
from qcc.ir.builder import Builder
from qcc.ir.errors import TargetError
from qcc.ir.graph import Graph
from qcc.ir.interpreter import run
from qcc.ir.op import Case
from qcc.ir.ops.dense import Dense
from qcc.ir.ops.elementwise import Add
from qcc.ir.ops.stored import DynamicDense, StoredWeight
from qcc.ir.types import f32
from qcc.passes.base import PassContext
from qcc.passes.manager import run_pipeline

Array = NDArray[Any]
TOLERANCE = 1e-5  # of the largest magnitude of the result; float sums are in another order than numpy's
FORMATS = ("format=int8", "format=int8 group=5", "format=int4", "format=int4 group=16", "format=fp16")


def weighted_cases() -> list[tuple[str, Case]]:
    cases = [*registry_cases(), *odd_cases(1, each=8), *odd_cases(2, each=8)]
    return [(f"{i}_{n}", c) for i, (n, c) in enumerate(cases) if c.op.name in ("conv2d", "dense")]


def stored(cases: list[tuple[str, Case]], options: str) -> Graph:
    return run_pipeline(float_graph(cases), f"weight-only{{{options} min_bytes=0}}", PassContext())


def samples(graph: Graph, seed: int = 9) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    return {v.name: rng.normal(size=(1, *v.type.shape)).astype(np.float32) for v in graph.inputs}


# ---------------------------------------------------------------------- weights in codes
@pytest.mark.compiler
@pytest.mark.parametrize("options", FORMATS)
def test_kernels_are_close_to_the_interpreter(compiler: Compiler, options: str) -> None:
    graph = stored(weighted_cases(), options)
    inputs = samples(graph)
    library, expected = compiler.library(graph), run(graph, inputs)
    kernel = f"qcc_f32_{options[7:11]}_conv2d_scalar"
    assert [o.kernel.symbol for o in library.program.operations].count(kernel) > 20
    for name, got in library.run(inputs).items():
        error = np.abs(got.reshape(-1).astype(np.float64) - expected[name].reshape(-1)).max()
        assert error <= TOLERANCE * np.abs(expected[name]).max(), name


@pytest.mark.compiler
@pytest.mark.parametrize("options", FORMATS)
def test_kernels_are_clean_under_sanitizers(compiler: Compiler, options: str) -> None:
    graph = stored(weighted_cases()[::3], options)
    result = compiler.sanitized(graph, samples(graph))
    assert "runtime error" not in result.stderr
    assert "Sanitizer" not in result.stderr


@given(
    st.integers(1, 9).flatmap(
        lambda n: st.lists(st.lists(st.integers(-7, 7), min_size=n, max_size=n), min_size=1)
    )
)
def test_packed_rows_are_read_back(rows: list[list[int]]) -> None:
    packed = pack_row_pairs(np.array(rows, np.int8))
    assert packed.shape == ((len(rows) + 1) // 2, len(rows[0]))
    for k, row in enumerate(rows):
        halves = packed[k // 2].astype(int) >> (k % 2 * 4) & 15
        assert (halves - 16 * (halves > 7)).tolist() == row


@pytest.mark.compiler
def test_every_binary16_number_is_decoded_exactly(compiler: Compiler) -> None:
    bits = np.arange(2**16, dtype=np.uint32).astype(np.uint16)
    finite = bits[np.isfinite(bits.view(np.float16))]
    graph = Graph("halves")
    builder = Builder(graph)
    codes = builder.constant(finite.view(np.int16).reshape(-1, 1), "codes")
    w = builder.emit(StoredWeight("fp16"), codes, name="w")
    graph.add_output(builder.emit(Dense(), graph.add_input("x", f32(1, 1)), w, name="y"), "y")
    got = compiler.library(graph).run({"x": np.ones((1, 1, 1), np.float32)})["y"].reshape(-1)
    np.testing.assert_array_equal(got, finite.view(np.float16).astype(np.float32))


@pytest.mark.compiler
@pytest.mark.parametrize("format_", ["int8", "int4", "fp16"])
def test_bytes_of_constants(compiler: Compiler, format_: str) -> None:
    w = np.random.default_rng(0).normal(size=(48, 96)).astype(np.float32)
    case = Case(Dense(), (np.ones((1, 96), np.float32), w, np.zeros(48, np.float32)), (False, True, True))
    program, _ = compiler.emitted(stored([("y", case)], f"format={format_}"))
    (operation,) = program.operations
    sizes = {k: a.nbytes for k, a in operation.call.constants.items() if a is not None}
    scale = {} if format_ == "fp16" else {"scale": 4 * 48}
    assert (
        sizes
        == {"weights": 48 * 96 * {"int8": 2, "int4": 1, "fp16": 4}[format_] // 2, "bias": 4 * 48} | scale
    )


def test_weights_that_a_sum_reads_have_no_kernel(compiler: Compiler) -> None:
    graph = Graph("sum")
    builder = Builder(graph)
    w = builder.emit(StoredWeight("fp16"), builder.constant(np.zeros((2, 3), np.int16), "codes"), name="w")
    graph.add_output(builder.emit(Add(), graph.add_input("x", f32(2, 3)), w, name="y"), "y")
    with pytest.raises(TargetError, match="%w = stored_weight: no kernel has this pattern"):
        compiler.emitted(graph)


# ---------------------------------------------------------------------- quantized at run time
def dynamic(rows: tuple[int, ...], depth: int, outputs: int, has_bias: bool = True, seed: int = 0) -> Graph:
    rng = np.random.default_rng(seed)
    graph = Graph("dynamic")
    builder = Builder(graph)
    x = graph.add_input("x", f32(*rows, depth))
    w = builder.constant(rng.integers(-128, 128, (outputs, depth)).astype(np.int8), "w")
    scale = builder.constant(rng.uniform(1e-3, 1e-1, outputs).astype(np.float32), "scale")
    bias = builder.constant(rng.normal(size=outputs).astype(np.float32), "bias") if has_bias else None
    graph.add_output(builder.emit(DynamicDense(), x, w, scale, bias, name="y"), "y")
    return graph


INFINITE = np.float32(np.inf)
SPECIAL = (
    [0.0, 0.0, 0.0],
    [-0.0, 0.0, -1.0],
    [1e-44, 0.0, 0.0],
    [-1e-44, 1e-39, 0.0],
    [3e38, -3e38, 1.0],
    [INFINITE, 1.0, -2.0],
    [-INFINITE, INFINITE, 0.5],
    [np.nan, 1.0, -0.25],
    [np.nan, np.nan, np.nan],
    [0.5, 1.5, 127.5],
)


@pytest.fixture(scope="module")
def triple(compiler: Compiler) -> Any:
    return compiler.library(dynamic((1,), 3, 4))


@pytest.mark.compiler
@pytest.mark.parametrize("x", SPECIAL)
def test_special_numbers(triple: Any, x: list[float]) -> None:
    assert_same_bits(triple, np.array([[x]], np.float32))


@pytest.mark.compiler
@settings(deadline=None)
@given(x=st.lists(st.floats(width=32, allow_nan=True), min_size=3, max_size=3))
def test_any_three_numbers(triple: Any, x: list[float]) -> None:
    assert_same_bits(triple, np.array([[x]], np.float32))


@pytest.mark.compiler
@pytest.mark.parametrize(
    ("rows", "depth", "outputs", "has_bias"),
    [((1,), 1, 1, True), ((1, 3), 17, 5, False), ((1, 2, 3), 64, 33, True), ((1,), 65793, 2, True)],
)
def test_sums_of_any_depth(
    compiler: Compiler, rows: tuple[int, ...], depth: int, outputs: int, has_bias: bool
) -> None:
    graph = dynamic(rows, depth, outputs, has_bias)
    library = compiler.library(graph)
    rng = np.random.default_rng(1)
    for x in (
        rng.normal(size=(1, *rows, depth)),
        np.full((1, *rows, depth), 3.5),
        -rng.random((1, *rows, depth)),
    ):
        assert_same_bits(library, x.astype(np.float32))


@pytest.mark.compiler
def test_dynamic_kernel_is_clean_under_sanitizers(compiler: Compiler) -> None:
    graph = dynamic((1, 3), 17, 5)
    result = compiler.sanitized(graph, samples(graph))
    assert "test vectors passed" in result.stdout, result.stderr
    extreme = np.array([[[np.inf, -np.inf, np.nan]]], np.float32)
    result = compiler.sanitized(dynamic((1,), 3, 4), {"x": extreme})
    assert "test vectors passed" in result.stdout, result.stderr


def assert_same_bits(library: Any, x: Array) -> None:
    expected = run(library.program.graph, {"x": x})["y"]
    np.testing.assert_array_equal(library.run({"x": x})["y"].reshape(-1), expected.reshape(-1))
