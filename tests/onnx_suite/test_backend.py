"""The official node tests through qcc.onnx_backend: right or refused with a reason, in the interpreter and in C."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
from official import Interpreted, Skipping, run, runner
from onnx import TensorProto, helper
from onnx.backend.test.loader import load_model_tests
from onnx.backend.test.runner import BackendIsNotSupposedToImplementIt
from onnx_tests import SuiteTest, node_tests
from operator_table import OPERATORS, outcomes, table
from test_c_suite import LIBRARY_TESTS, programs, wrong_results

from qcc.ir.errors import ImportModelError
from qcc.onnx_backend import QccBackend, specialize

COUNTED_VERSION, PASSED, PASSED_IN_C = "1.23.2", 985, 960  # newer versions may pass more, never fewer


@cache
def specialized() -> tuple[SuiteTest, ...]:
    """The tests that can be compiled, their inputs and outputs as float32."""
    tests = []
    for test in node_tests():
        try:
            special = specialize(test.model, test.inputs)
        except ImportModelError:
            continue
        inputs = {n: a[0] for n, a in special.samples().items()}
        outputs = tuple(a.astype(np.float32) if a.dtype.kind in "biu" else a for a in test.outputs)
        tests.append(replace(test, model=special.model, inputs=inputs, outputs=outputs))
    return tuple(tests)


def test_every_node_test_is_right_or_refused_with_a_reason() -> None:
    found = outcomes()
    assert {n: o for n, o in found.items() if o.startswith("wrong")} == {}
    assert all(found.values())
    if onnx.__version__ == COUNTED_VERSION:
        assert sum(o == "passed" for o in found.values()) >= PASSED


@pytest.mark.slow
def test_operator_table_is_current() -> None:
    if onnx.__version__ != COUNTED_VERSION:
        pytest.skip(f"the table is of onnx {COUNTED_VERSION}")
    assert OPERATORS.read_text() == table(), "write it anew: python tests/onnx_suite/operator_table.py"


@pytest.mark.slow
@pytest.mark.compiler
def test_all_node_tests_in_c(tmp_path: Path) -> None:
    tests, passed = specialized(), 0
    for start in range(0, len(tests), LIBRARY_TESTS):
        for index, (program, part) in enumerate(programs(tests[start : start + LIBRARY_TESTS])):
            assert wrong_results(program, part, tmp_path / f"{start}_{index}") == {}
            passed += len(part)
    if onnx.__version__ == COUNTED_VERSION:
        assert passed >= PASSED_IN_C


def official(name: str) -> tuple[onnx.ModelProto, Sequence[object], Sequence[np.ndarray]]:
    (case,) = (c for c in load_model_tests(kind="node") if c.name == name)
    ((inputs, outputs),) = case.data_sets
    return case.model, inputs, outputs


@pytest.mark.compiler
@pytest.mark.parametrize(
    "name",
    [
        "test_conv_with_strides_padding",
        "test_where_example",
        "test_argmax_keepdims_example",
        "test_scatternd",
    ],
)
def test_backend_runs_official_tests(name: str) -> None:
    """One more time with the same library, as onnx's runner compares: types, shapes and values."""
    model, inputs, outputs = official(name)
    prepared = QccBackend.prepare(model)
    try:
        both = prepared.run(inputs), prepared.run(inputs)
    except BackendIsNotSupposedToImplementIt as refusal:  # which pytest takes for a skipped test
        pytest.fail(str(refusal))
    for results in both:
        for got, expected in zip(results, outputs, strict=True):
            assert got.dtype == expected.dtype
            np.testing.assert_allclose(got, expected, 1e-3, 1e-7)
    assert len(prepared.libraries) == 1


# onnx's runner makes the inputs of these, and they take longer
LIGHT = "alexnet|densenet|inception|resnet|shufflenet|squeezenet|vgg|zfnet"
RUNNER_PASSED = 999  # with the interpreter, the stored layers included


@pytest.mark.filterwarnings("ignore")  # some tests overflow on purpose
def test_official_runner_with_the_interpreter() -> None:
    result = run(runner(Interpreted, f"^(?!.*({LIGHT})).*_cpu$"))
    assert (result.failures, result.errors) == ([], [])
    reasons = [reason for _, reason in result.skipped]
    assert all(reasons)
    if onnx.__version__ == COUNTED_VERSION:
        assert result.testsRun - len(reasons) >= RUNNER_PASSED


@pytest.mark.slow
@pytest.mark.compiler
@pytest.mark.filterwarnings("ignore")
def test_official_runner_in_c() -> None:
    """A part: what official.py runs in full."""
    result = run(runner(Skipping, "^test_(conv|gemm|where|resize_up|unique).*_cpu$"))
    assert (result.failures, result.errors) == ([], [])
    assert result.testsRun - len(result.skipped) >= 30


@pytest.mark.compiler
def test_run_node() -> None:
    a, b = np.float32([1, 2, 3]), np.float32([3, 2, 1])
    info = [(np.dtype(bool), (3,))]
    (less,) = QccBackend.run_node(helper.make_node("Less", ["a", "b"], ["y"]), [a, b], outputs_info=info)
    assert less.tolist() == [True, False, False]


def test_backend_refuses_with_the_reason() -> None:
    model, inputs, _ = official("test_gridsample")
    with pytest.raises(BackendIsNotSupposedToImplementIt, match="the operator is not supported"):
        QccBackend.prepare(model).run(inputs)
    with pytest.raises(BackendIsNotSupposedToImplementIt, match="CUDA"):
        QccBackend.prepare(model, "CUDA")
    assert QccBackend.supports_device("CPU")
    assert not QccBackend.supports_device("CUDA")


def one_node(op_type: str, *kinds: int, out: int, **attributes: int) -> onnx.ModelProto:
    names = [f"x{i}" for i in range(len(kinds))]
    inputs = [helper.make_tensor_value_info(n, k, [3]) for n, k in zip(names, kinds, strict=True)]
    nodes = [helper.make_node(op_type, names, ["m"], **attributes), helper.make_node("Neg", ["m"], ["y"])]
    graph = helper.make_graph(nodes, "g", inputs, [helper.make_tensor_value_info("y", out, None)])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=8)


def test_arithmetic_on_indices_is_refused() -> None:
    model = one_node("ArgMax", TensorProto.FLOAT, out=TensorProto.INT64)
    with pytest.raises(ImportModelError, match="it computes with integers"):
        specialize(model, {"x0": np.zeros(3, np.float32)})
