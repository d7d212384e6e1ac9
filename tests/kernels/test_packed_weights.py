"""Weights of 4 bits, two in a byte: the codes, the kernel against the interpreter, and what it saves."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_cases import odd_cases, registry_cases
from kernel_harness import Compiler, case_inputs, float_graph

from qcc.backends.program import Program
from qcc.backends.scalar.wide_convolution import pack_halves
from qcc.ir import interpreter
from qcc.ir.errors import QccError
from qcc.ir.graph import Graph
from qcc.ir.op import Case
from qcc.ir.qspec import QSpec
from qcc.passes.base import PassContext
from qcc.passes.manager import run_pipeline
from qcc.passes.pipelines import PIPELINES

PACKED = "qcc_s4_conv2d_scalar"


def quantized(cases: list[tuple[str, Case]], qspec: str, int16: str = "") -> Graph:
    options = f'choose-qparams{{qspec="{qspec}" int16=[{int16}]}}'
    pipeline = PIPELINES["quantize"].replace("choose-qparams", options)
    return run_pipeline(float_graph(cases), pipeline, PassContext({"calibration": [case_inputs(cases)]}))


@given(st.lists(st.lists(st.integers(-8, 7), min_size=1, max_size=9), min_size=1, max_size=3))
def test_packed_codes_are_read_back(rows: list[list[int]]) -> None:
    width = min(map(len, rows))
    codes = np.array([row[:width] for row in rows], np.int8)
    packed = pack_halves(codes)
    assert packed.shape == (len(rows), (width + 1) // 2)
    for row, line in zip(codes.tolist(), packed.tolist(), strict=True):
        halves = [half - 16 if half > 7 else half for byte in line for half in (byte % 16, byte // 16)]
        assert halves[:width] == row


def cases_with_weights() -> list[tuple[str, Case]]:
    cases = [*registry_cases(), *odd_cases(1, each=8), *odd_cases(2, each=8)]
    return [(f"{i}_{n}", c) for i, (n, c) in enumerate(cases) if c.op.name in ("conv2d", "dense")]


def uses(program: Program) -> list[str]:
    return [operation.kernel.symbol for operation in program.operations]


@pytest.mark.compiler
@pytest.mark.parametrize("int16", ["", '"*"'])
def test_packed_weights_equal_the_interpreter(compiler: Compiler, int16: str) -> None:
    graph = quantized(cases_with_weights(), "w_bits=4 pack=true", int16)
    library = compiler.library(graph)
    assert uses(library.program).count(PACKED) > 20
    rng = np.random.default_rng(9)
    for _ in range(3):
        inputs = {
            v.name: rng.integers(v.type.dtype.min, v.type.dtype.max + 1, (1, *v.type.shape)).astype(
                v.type.dtype.numpy
            )
            for v in graph.inputs
        }
        got = library.run(inputs)
        for name, array in interpreter.run(graph, inputs).items():
            np.testing.assert_array_equal(got[name].reshape(-1), array.reshape(-1), name)


@pytest.mark.compiler
def test_packed_weights_are_clean_under_sanitizers(compiler: Compiler) -> None:
    cases = cases_with_weights()[:20]
    graph = quantized(cases, "w_bits=3 pack=true")
    rng = np.random.default_rng(9)
    inputs = {v.name: rng.integers(-128, 128, (1, *v.type.shape)).astype(np.int8) for v in graph.inputs}
    result = compiler.sanitized(graph, inputs)
    assert "test vectors passed" in result.stdout, result.stderr


def test_packing_halves_the_bytes_and_changes_no_result(compiler: Compiler) -> None:
    cases = cases_with_weights()
    packed, plain = quantized(cases, "w_bits=4 pack=true"), quantized(cases, "w_bits=4")
    sizes = []
    for graph in (packed, plain):
        program, _ = compiler.emitted(graph)
        dense = [o for o in program.operations if o.step.root.op.name == "dense"]
        arrays = [o.call.constants["weights"] for o in dense]
        sizes.append(sum(a.nbytes for a in arrays if a is not None))
    assert sizes[0] < 0.55 * sizes[1]
    rng = np.random.default_rng(9)
    inputs = {v.name: rng.integers(-128, 128, (1, *v.type.shape)).astype(np.int8) for v in plain.inputs}
    a, b = (interpreter.run(g, inputs) for g in (packed, plain))
    assert all(np.array_equal(a[name], b[name]) for name in a)


def test_only_few_bits_can_be_packed() -> None:
    with pytest.raises(QccError, match="weights of 8 bits cannot be packed"):
        QSpec(pack=True)
