"""Every kernel against the interpreter: floats within a tolerance, integers exactly."""

import re
import subprocess
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from kernel_cases import odd_cases, registry_cases
from kernel_harness import (
    KERNEL_FILES,
    SCALAR,
    Compiler,
    Library,
    case_inputs,
    float_graph,
    integer_graph,
    wide_softmax,
)
from numpy.typing import NDArray

from qcc.backends.program import Program, build_program
from qcc.backends.scalar import KERNELS
from qcc.ir.builder import Builder
from qcc.ir.graph import Graph, Value
from qcc.ir.interpreter import run
from qcc.ir.op import OPS, Case, Op
from qcc.ir.ops.quant import Requantize
from qcc.ir.ops.rearrange import Concat
from qcc.ir.ops.softmax import Softmax
from qcc.ir.ops.stored import FORMATS
from qcc.ir.types import DType, TensorType, f32
from qcc.passes.base import PassContext
from qcc.passes.manager import run_pipeline

pytestmark = pytest.mark.compiler

Array = NDArray[Any]
TOLERANCE = 1e-5  # of the largest magnitude of the result; float sums are in another order than numpy's

# Ops whose cases keep a float node in the integer graph, and why.
FLOAT_ONLY = {
    "batch_norm": "the float passes fold it into its neighbours",
    "div": "only a division by a constant is a table",
    "min": "two activations; with a constant it is a table",
    "max": "two activations; with a constant it is a table",
    "pow": "only a constant exponent is a table",
    "log_softmax": "no integer form",
    "instance_norm": "no integer form",
    "layer_norm": "no integer form",
    "lrn": "no integer form",
    "less": "truth values exist in float programs only",
    "less_or_equal": "truth values exist in float programs only",
    "equal": "truth values exist in float programs only",
    "keep": "chooses by a truth value",
    "arg_max": "indices exist in float programs only",
    "reduce_prod": "scales would multiply",
}


@pytest.fixture(scope="module", params=["registry", "odd shapes 1", "odd shapes 2"])
def cases(request: pytest.FixtureRequest) -> list[tuple[str, Case]]:
    if request.param == "registry":
        return list(registry_cases())
    return odd_cases(int(request.param.split()[-1]))


def samples_of(program: Program, real: dict[str, Array], code: int | None = None) -> dict[str, Array]:
    """Random codes (or ``code`` everywhere) for integer inputs, ``real`` for float ones."""
    rng = np.random.default_rng(7)
    inputs = {}
    for port in program.inputs:
        type_ = port.value.type
        if not type_.dtype.is_integer:
            inputs[port.name] = real[port.name]
        elif code is None:
            codes = rng.integers(type_.dtype.min, type_.dtype.max + 1, size=(1, *type_.shape))
            inputs[port.name] = codes.astype(type_.dtype.numpy)
        else:
            inputs[port.name] = np.full((1, *type_.shape), code, type_.dtype.numpy)
    return inputs


def assert_exact(library: Library, inputs: dict[str, Array]) -> None:
    """Equal where only integers are computed; within one code, or 64 of 2^16, where floats may differ in their last digits."""
    expected = run(library.program.graph, inputs)
    got = library.run(inputs)
    for port in library.program.outputs:
        a, b = (r[port.name].reshape(-1).astype(np.int64) for r in (got, expected))
        allowed = is_float_computed(port.value) * (64 if port.value.type.dtype is DType.S16 else 1)
        np.testing.assert_allclose(a, b, rtol=0, atol=allowed, err_msg=port.name)


def is_float_computed(value: Value) -> bool:
    node = value.producer
    if node is None:
        return False
    floats = any(v is not None and not v.type.dtype.is_integer for v in node.inputs)
    return (floats and node.op.name != "quantize") or any(
        is_float_computed(v) for v in node.inputs if v is not None
    )


def assert_close(name: str, got: Array, expected: Array) -> None:
    scale = max(float(np.abs(expected).max()), 1e-30)
    error = np.abs(got.reshape(-1).astype(np.float64) - expected.reshape(-1)).max()
    assert error <= TOLERANCE * scale, f"{name}: off by {error / scale:.2e} of the largest element"


def test_float_kernels_are_close_to_the_interpreter(
    compiler: Compiler, cases: list[tuple[str, Case]]
) -> None:
    graph, inputs = float_graph(cases), case_inputs(cases)
    expected = run(graph, inputs)
    for name, got in compiler.library(graph).run(inputs).items():
        assert_close(name, got, expected[name])


def test_integer_kernels_equal_the_interpreter(compiler: Compiler, cases: list[tuple[str, Case]]) -> None:
    real = case_inputs(cases)
    library = compiler.library(integer_graph(float_graph(cases), real))
    for code in (None, -128, 127, 0):
        assert_exact(library, samples_of(library.program, real, code))


def test_requantization_per_channel_equals_the_interpreter(
    compiler: Compiler, cases: list[tuple[str, Case]]
) -> None:
    real = case_inputs(cases)
    graph = integer_graph(float_graph(cases), real)
    rng = np.random.default_rng(5)
    for node in [n for n in graph.nodes if isinstance(n.op, Requantize) and n.output.type.rank > 0]:
        channels = node.output.type.shape[-1]
        planned = node.op.multipliers(node.signature, *(None if v is None else v.data for v in node.inputs))
        shift = np.broadcast_to(planned[1], channels) + rng.integers(0, 2, size=channels)
        arrays = (rng.integers(2**30, 2**31, size=channels), shift)
        operands = [constant(graph, a.astype(np.int32), node.name) for a in arrays]
        graph.set_inputs(node, [node.input(0), *operands, *node.inputs[3:]])
    library = compiler.library(graph)
    assert_exact(library, samples_of(library.program, real))


def registry_graph() -> Graph:
    cases = list(registry_cases())
    return integer_graph(float_graph(cases), case_inputs(cases))


def round_twice(graph: Graph) -> None:
    """What is requantized behind a convolution alone rounds as gemmlowp."""
    for node in graph.nodes:
        producer = node.input(0).producer
        if isinstance(node.op, Requantize) and producer is not None and producer.op.name == "conv2d":
            node.op = replace(node.op, rounding="twice", certified=())


def test_two_roundings_equal_the_interpreter(compiler: Compiler) -> None:
    graph = registry_graph()
    round_twice(graph)
    library = compiler.library(graph)
    used = {operation.kernel.symbol for operation in library.program.operations}
    assert {"qcc_s8_conv2d_twice_scalar", "qcc_s8_depthwise_conv2d_twice_scalar"} <= used
    assert_exact(library, samples_of(library.program, case_inputs(list(registry_cases()))))


def wide_graph(cases: list[tuple[str, Case]], which: str) -> Graph:
    """The integer form of the cases with 16 bits for all inputs and results, for one kind, or for half of them."""
    graph = float_graph(cases)
    inputs, outputs = ([v.name for v in values] for values in (graph.inputs, graph.outputs))
    rng = np.random.default_rng(3)
    half = [name for name in inputs + outputs if rng.random() < 0.5]
    chosen = {"all": inputs + outputs, "inputs": inputs, "outputs": outputs, "half": half}[which]
    return integer_graph(graph, case_inputs(cases), chosen)


@pytest.mark.parametrize("which", ["all", "inputs", "outputs", "half"])
def test_kernels_of_16_bits_equal_the_interpreter(
    compiler: Compiler, cases: list[tuple[str, Case]], which: str
) -> None:
    real = case_inputs(cases)
    library = compiler.library(wide_graph(cases, which))
    for code in (None, -128, 127, 0):
        assert_exact(library, samples_of(library.program, real, code))
    wide = samples_of(library.program, real)
    for extreme in (-(2**15), 2**15 - 1):
        full = {k: np.full_like(v, extreme) if v.dtype == np.int16 else v for k, v in wide.items()}
        assert_exact(library, full)


def constant(graph: Graph, data: Array, name: str) -> Value:
    return graph.constant(data, name, TensorType(DType.S32, data.shape))


def rescaled_softmax() -> Graph:
    """A concatenation whose first operand has a scale of its own."""
    graph = Graph("rescaled")
    x, y = graph.add_input("x", f32(1, 6)), graph.add_input("y", f32(1, 4))
    builder = Builder(graph)
    graph.add_output(builder.emit(Concat(1), builder.emit(Softmax(1), x), y), "z")
    rng = np.random.default_rng(0)
    return integer_graph(
        graph, {n: rng.normal(size=(9, k)).astype(np.float32) for n, k in (("x", 6), ("y", 4))}
    )


def test_operand_of_another_scale_is_requantized(compiler: Compiler) -> None:
    library = compiler.library(rescaled_softmax())
    assert "requantize" in [operation.step.pattern for operation in library.program.operations]
    assert_exact(library, samples_of(library.program, {}))


def test_float_boundary_equals_the_interpreter(compiler: Compiler) -> None:
    cases = [c for c in registry_cases() if c[0].startswith(("conv2d", "concat", "softmax"))]
    real = case_inputs(cases)
    graph = integer_graph(float_graph(cases), real)
    library = compiler.library(graph, io="float")
    got, expected = library.run(real), run(library.program.graph, real)
    assert all(a.dtype == np.float32 for a in got.values())
    for name in got:
        np.testing.assert_array_equal(got[name].reshape(-1), expected[name].reshape(-1))


# ---------------------------------------------------------------------- what there is no kernel for
def programs(cases: list[tuple[str, Case]]) -> tuple[Program, Program]:
    graph = float_graph(cases)
    integer = integer_graph(float_graph(cases), case_inputs(cases))
    return build_program(graph, SCALAR, "floats"), build_program(integer, SCALAR, "integers")


def float_nodes(graph: Graph) -> set[str]:
    conversions = ("quantize", "dequantize")
    return {
        n.op.name
        for n in graph.nodes
        if n.op.name not in conversions
        and any(v is not None and not v.type.dtype.is_integer for v in n.inputs)
    }


def test_every_op_has_a_float_and_an_integer_kernel_or_a_reason() -> None:
    floats, integers = programs(list(registry_cases()))
    computed = {node.op.name for operation in floats.operations for node in operation.step.nodes}
    meant_for_floats = {n for n, op in OPS.items() if op.float_ref is not Op.float_ref and not op.simulated}
    assert meant_for_floats - computed == {"reshape"}, "a reshape only renames bytes"
    assert float_nodes(integers.graph) == set(FLOAT_ONLY)


def test_every_kernel_file_is_run_by_these_tests() -> None:
    found = [p for cases in (list(registry_cases()), odd_cases(1), odd_cases(2)) for p in programs(cases)]
    twice = registry_graph()
    round_twice(twice)
    found += [build_program(g, SCALAR, g.name) for g in (rescaled_softmax(), wide_softmax(), twice)]
    cases = list(registry_cases())
    found += [
        build_program(wide_graph(cases, which), SCALAR, which) for which in ("all", "inputs", "outputs")
    ]
    packed = integer_graph(float_graph(cases), case_inputs(cases), qspec="w_bits=4 pack=true")
    found.append(build_program(packed, SCALAR, "packed"))
    found.append(build_program(wide_softmax("xyz"), SCALAR, "softmax_of_16_bits"))
    for made in (
        "dynamic-weights{min_bytes=0}",
        *(f"weight-only{{format={f} min_bytes=0}}" for f in FORMATS),
    ):
        codes = run_pipeline(float_graph(cases), made, PassContext())
        found.append(build_program(codes, SCALAR, "codes"))
    used = {operation.kernel.source for program in found for operation in program.operations}
    assert sorted(set(KERNEL_FILES) - used) == []


def test_every_kernel_row_names_a_function_of_its_file() -> None:
    for kernel in KERNELS:
        assert re.search(rf"\b{kernel.symbol}\b", kernel.source.read_text())
        assert kernel.source.stem == kernel.symbol.removeprefix("qcc_")


# ---------------------------------------------------------------------- undefined behaviour
def test_integer_kernels_are_clean_under_sanitizers(compiler: Compiler) -> None:
    cases = odd_cases(3, each=3)
    real = case_inputs(cases)
    graph = integer_graph(float_graph(cases), real)
    program = build_program(graph, SCALAR, "probe")
    # results of float islands may differ in the last place, and with them nothing but their own outputs
    result = compiler.sanitized(graph, samples_of(program, real))
    assert_clean(result)


def test_kernels_of_16_bits_are_clean_under_sanitizers(compiler: Compiler) -> None:
    cases = odd_cases(3, each=3)
    real = case_inputs(cases)
    for which in ("all", "half"):
        graph = wide_graph(cases, which)
        assert_clean(compiler.sanitized(graph, samples_of(build_program(graph, SCALAR, "probe"), real)))


def test_float_kernels_are_clean_under_sanitizers(compiler: Compiler) -> None:
    cases = [*odd_cases(4, each=2), *(c for c in registry_cases() if c[0].endswith("_case0"))]
    assert_clean(compiler.sanitized(float_graph(cases), case_inputs(cases)))


def assert_clean(result: "subprocess.CompletedProcess[str]") -> None:
    assert "runtime error" not in result.stderr
    assert "Sanitizer" not in result.stderr
    assert "test vectors passed" in result.stdout
