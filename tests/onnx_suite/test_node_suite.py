"""The operator tests of onnx: every one gives the expected result or is refused with a reason, never anything else."""

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx_tests import DIFFERENT, SuiteTest, layer_tests, node_tests

from qcc.ir import interpreter
from qcc.ir.errors import ImportModelError
from qcc.onnx_importer import import_model

# Tests that pass with the package of this version: newer importers may pass more, never fewer.
COUNTED_VERSION, NODE_TESTS, LAYER_TESTS = "1.23.2", 880, 101


def run(test: SuiteTest) -> str | None:
    """What is wrong with the interpreter's results: their values, or two samples at once against one by one."""
    graph = import_model(test.model)
    samples = {
        v.name: np.stack([a, a.ravel()[::-1].reshape(a.shape)]).astype(np.float32)
        for v in graph.inputs
        for a in [test.inputs[v.name]]
    }
    both = interpreter.run(graph, samples)
    each = [interpreter.run(graph, {n: a[i : i + 1] for n, a in samples.items()}) for i in range(2)]
    outputs = [
        each[0][n].reshape(v.type.shape) for n, v in zip(graph.output_names, graph.outputs, strict=True)
    ]
    for name, result in both.items():
        alone = np.concatenate([e[name] for e in each])
        if not np.allclose(result, alone, 1e-5, 1e-6, equal_nan=True):
            return f"output {name}: two samples together differ from each alone"
    return test.difference(outputs)


def reason_of(error: ImportModelError) -> str:
    """The class of a refusal."""
    text = str(error)
    if "the operator is not supported" in text:
        return "operator"
    if "expected float32" in text or "only float32 is supported" in text or "expected a float tensor" in text:
        return "type"
    return "form"


def outcomes(tests: Sequence[SuiteTest]) -> tuple[dict[str, str], dict[str, str]]:
    """By name: "passed", "different" or why a test is refused; and what is wrong, which should be nothing.

    A test passes when one of its forms does and the importer refuses the others.
    """
    results, wrong = {}, {}
    for test in tests:
        results[test.name] = "nothing to run"
        for form in test.forms():
            try:
                difference = run(form)
            except ImportModelError as error:
                if results[test.name] != "passed":
                    results[test.name] = reason_of(error)
            else:
                results[test.name] = "passed"
                if difference is not None:
                    wrong[test.name] = difference
    results.update(dict.fromkeys(wrong, "different"))
    return results, wrong


def table(tests: Sequence[SuiteTest], results: dict[str, str]) -> str:
    """Tests by operator: how many passed, and how many were refused for each class of reason."""
    columns = sorted(set(results.values()), key=lambda r: (r != "passed", r))
    counts: dict[str, Counter[str]] = {}
    for test in tests:
        counts.setdefault(test.op_type, Counter())[results[test.name]] += 1
    counts["all"] = Counter(results.values())
    rows = [["operator", *columns]]
    rows += [[op, *(str(counts[op][c] or "-") for c in columns)] for op in sorted(counts, key=str.lower)]
    return "\n".join(f"{row[0]:28}" + "".join(f"{cell:>16}" for cell in row[1:]) for row in rows)


@pytest.mark.parametrize(
    ("load", "at_least"), [(node_tests, NODE_TESTS), (layer_tests, LAYER_TESTS)], ids=["nodes", "layers"]
)
def test_every_test_is_right_or_refused(load: Callable[[], Sequence[SuiteTest]], at_least: int) -> None:
    tests = load()
    results, wrong = outcomes(tests)
    print(f"\n{table(tests, results)}")
    assert {n: w for n, w in wrong.items() if n not in DIFFERENT} == {}
    passed = Counter(results.values())["passed"]
    if onnx.__version__ == COUNTED_VERSION:
        assert passed >= at_least, f"only {passed} tests pass"


@pytest.mark.parametrize("name", DIFFERENT)
def test_where_the_suite_is_not_followed_onnxruntime_is(name: str) -> None:
    (test,) = (t for t in node_tests() if t.name == name)
    *_, constant = test.forms()
    graph = import_model(constant.model)
    (result,) = interpreter.run(graph, {n: a[None] for n, a in constant.inputs.items()}).values()
    session = ort.InferenceSession(constant.model.SerializeToString(), providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, dict(constant.inputs))
    np.testing.assert_allclose(result.reshape(expected.shape), expected, 1e-6)
