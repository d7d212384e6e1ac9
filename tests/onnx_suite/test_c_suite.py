"""The operator tests of onnx through emitted C in float32. Many tests make one library, so the compiler runs once."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx_tests import DIFFERENT, SuiteTest, layer_tests, node_tests

from qcc.backends.c.emit import emit
from qcc.backends.c.run import load
from qcc.backends.program import Program, build_program
from qcc.backends.targets import find_target
from qcc.ir.errors import ImportModelError, TargetError
from qcc.ir.graph import Graph
from qcc.onnx_importer import import_model
from qcc.passes.base import PassContext
from qcc.passes.manager import PassManager, parse_pipeline

pytestmark = pytest.mark.compiler

QUICK_PER_OP = 2
LIBRARY_TESTS = 150
TARGET = replace(find_target("c"), flags=("-O1",))  # a library is run once: compiling it is what takes time


def is_imported(test: SuiteTest) -> bool:
    try:
        import_model(test.model)
    except ImportModelError:
        return False
    return True


def merged(tests: Sequence[SuiteTest]) -> Graph:
    """One graph that computes all tests side by side; names begin with the number of the test."""
    result = Graph("suite")
    for number, test in enumerate(tests):
        graph = import_model(test.model)
        for value in graph.values():
            value.name = result.fresh_name(f"t{number}_{value.name}")
        result.inputs += graph.inputs
        result.nodes += graph.nodes
        for index, value in enumerate(graph.outputs):
            result.add_output(value, f"t{number}_{index}")
    return result


def programs(tests: Sequence[SuiteTest]) -> list[tuple[Program, Sequence[SuiteTest]]]:
    """Programs that cover all tests but those for which there is no kernel (parameters computed at run time)."""
    graph = PassManager(parse_pipeline("float"), PassContext()).run(merged(tests))
    try:
        return [(build_program(graph, TARGET, "suite", "float"), tests)]
    except TargetError:
        half = len(tests) // 2
        return [*programs(tests[:half]), *programs(tests[half:])] if half else []


def wrong_results(program: Program, tests: Sequence[SuiteTest], folder: Path) -> dict[str, str]:
    """What is wrong by name of the test; nothing, if all is well."""
    graph = program.graph
    inputs = {}
    for value in graph.inputs:
        number, _, name = value.name.removeprefix("t").partition("_")
        inputs[value.name] = tests[int(number)].inputs[name][None].astype(np.float32)
    outputs = load(emit(program, folder / "suite"), TARGET).run(inputs)
    results = {
        name: np.asarray(outputs[name]).reshape(value.type.shape)
        for name, value in zip(graph.output_names, graph.outputs, strict=True)
    }
    wrong = {}
    for number, test in enumerate(tests):
        difference = test.difference([results[f"t{number}_{i}"] for i in range(len(test.outputs))])
        if difference is not None:
            wrong[test.name] = difference
    return wrong


def check(tests: Sequence[SuiteTest], folder: Path) -> int:
    """Compile and run ``tests``; returns how many there is C for."""
    covered = 0
    for start in range(0, len(tests), LIBRARY_TESTS):
        for index, (program, part) in enumerate(programs(tests[start : start + LIBRARY_TESTS])):
            assert wrong_results(program, part, folder / f"{start}_{index}") == {}
            covered += len(part)
    return covered


def test_some_tests_of_every_operator_in_c(tmp_path: Path) -> None:
    counts: Counter[str] = Counter()
    quick = []
    for test in (t for t in node_tests() if t.name not in DIFFERENT and t.op_type != "(several)"):
        last = list(test.forms())[-1:]  # the one with the most constants
        if counts[test.op_type] < QUICK_PER_OP and all(is_imported(form) for form in last):
            counts[test.op_type] += len(last)
            quick += last
    assert check(quick, tmp_path) == len(quick)


@pytest.mark.slow
def test_all_tests_in_c(tmp_path: Path) -> None:
    tests = [t for t in (*node_tests(), *layer_tests()) if t.name not in DIFFERENT]
    everything = [form for test in tests for form in test.forms() if is_imported(form)]
    # there are no kernels for normalizations whose scale and bias are computed at run time
    assert check(everything, tmp_path) >= 0.98 * len(everything)
