"""Real models as C: the bytes of the interpreter, in an arena no larger than the largest live activations."""

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from qcc.backends.c.emit import emit
from qcc.backends.c.run import load
from qcc.backends.program import build_program
from qcc.backends.target import find_target
from qcc.driver import compile_graph
from qcc.ir import interpreter
from qcc.ir.fixedpoint import quantize


@pytest.mark.compiler
@pytest.mark.parametrize(
    ("name", "arena_bytes"),
    # ic holds three activations of 16,384 bytes at its residual; the sum is written over the skip
    [("kws", 16_000), ("ic", 32_768), ("vww", 55_296), ("ad", 768)],
)
def test_zoo_library_equals_the_interpreter(
    name: str, arena_bytes: int, zoo: ModuleType, tmp_path: Path
) -> None:
    entry = zoo.load(name)
    graph = compile_graph(entry.model, calibration=entry.calib[:16]).graph
    program = build_program(graph, find_target("c"), name)
    assert program.plan.arena_bytes == program.plan.lower_bound_bytes == arena_bytes
    (x,) = program.graph.inputs
    assert x.type.qparams is not None
    samples = quantize(entry.x[:20], x.type.qparams)
    (expected,) = interpreter.run(program.graph, {x.name: samples}).values()
    got = load(emit(program, tmp_path / name), find_target("c")).run_int8(samples)
    np.testing.assert_array_equal(got, expected)
