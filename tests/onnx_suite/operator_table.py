"""The operator table of the documentation, from a run of the official node tests: ``python operator_table.py`` writes it."""

from __future__ import annotations

import re
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx.backend.test.loader import load_model_tests
from onnx_tests import Array, SuiteTest, node_tests

import qcc
from qcc.ir import interpreter
from qcc.ir.errors import ImportModelError, QccError
from qcc.ir.op import Op
from qcc.ir.ops.shape import Movement
from qcc.ir.types import DType
from qcc.onnx_backend import specialize

OPERATORS = Path(__file__).parents[2] / "docs" / "operators.md"
REASON_LENGTH = 110
NO_ARRAYS = "its data are no arrays (sequences, optionals, strings, tensors of small types)"
TOLERANCE = 0.02  # of int8 results


@cache
def outcomes() -> dict[str, str]:
    """By name of the test: "passed", "wrong: ..." or why it is refused."""
    found = {case.name: NO_ARRAYS for case in load_model_tests(kind="node")}
    for test in node_tests():
        try:
            special = specialize(test.model, test.inputs)
        except ImportModelError as error:
            found[test.name] = _reason(error)
            continue
        results = special.results(interpreter.run(special.graph, special.samples()))
        difference = test.difference(results)
        types = [(a.dtype, b.dtype) for a, b in zip(results, test.outputs, strict=True) if a.dtype != b.dtype]
        found[test.name] = f"wrong: {difference or types}" if difference or types else "passed"
    return found


def _reason(error: ImportModelError) -> str:
    """The first reason, without the names of the model's nodes and tensors and without sizes."""
    lines = [line for line in str(error).splitlines() if not line.startswith("hint:")]
    text = lines[1].split("): ", 1)[-1] if len(lines) > 1 else re.sub(r"^test_\w+: ", "", lines[0])
    text = re.sub(r"^(input|output|tensor) '?[\w.]+'?(?= (is|has|holds) )", r"\1", text)
    text = re.sub(r"float(16|32|64)|int(8|16|32|64)", lambda m: m[0].translate(_KEPT), text)
    text = re.sub(r"\d+", "N", text).translate(_RESTORED)
    return text if len(text) <= REASON_LENGTH else f"{text[:REASON_LENGTH]}..."


_KEPT = str.maketrans(
    "0123456789", "".join(chr(0xE000 + i) for i in range(10))
)  # private characters stand for digits
_RESTORED = {v: k for k, v in _KEPT.items()}


@cache
def integer_outcomes() -> dict[str, Counter[str]]:
    """By operator of the passing tests with one node: what becomes of them in int8, calibrated on the test's own inputs."""
    found: dict[str, Counter[str]] = {}
    for test in node_tests():
        if test.op_type != "(several)" and outcomes()[test.name] == "passed":
            found.setdefault(test.op_type, Counter())[_in_integers(test)] += 1
    return found


def _in_integers(test: SuiteTest) -> str:
    special = specialize(test.model, test.inputs)
    try:
        compiled = qcc.compile(special.model, calibration=special.samples(), warn=lambda message: None)
    except QccError:
        return "refused"
    if any(n.output.type.dtype is DType.F32 and not _moves(n.op) for n in compiled.graph.nodes):
        return "with float steps"
    codes = compiled.quantize_input(_bare(special.samples()))
    outputs = compiled.dequantize_output(compiled.run_integer(codes))
    named = outputs if isinstance(outputs, dict) else {special.graph.output_names[0]: outputs}
    expected = [np.asarray(a, np.float64) for a in test.outputs]
    for got, wanted in zip(special.results(named), expected, strict=True):
        largest = max(float(np.abs(wanted).max()), float(np.ptp(wanted)))
        if not np.allclose(got, wanted, 0, TOLERANCE * largest):
            return "beyond"
    return "int8"


def _moves(op: Op) -> bool:
    return isinstance(op, Movement) or op.name == "dequantize"


def _bare(samples: dict[str, Array]) -> Any:
    return samples if len(samples) > 1 else next(iter(samples.values()))


def _int8(op_type: str) -> str:
    counts = integer_outcomes().get(op_type, Counter())
    kinds = ("int8", "with float steps", "beyond", "refused")
    return ", ".join(f"{counts[k]} {k}" for k in kinds if counts[k]) or "-"


def table() -> str:
    """The document."""
    results = outcomes()
    by_op: dict[str, Counter[str]] = {}
    for case in load_model_tests(kind="node"):
        nodes = case.model.graph.node
        name = nodes[0].op_type if len(nodes) == 1 else "(several)"
        by_op.setdefault(name, Counter())[results[case.name]] += 1
    total = Counter(results.values())
    rows = []
    for op in sorted(by_op, key=str.lower):
        counts = by_op[op]
        refused = "; ".join(f"{n} x {r}" for r, n in counts.most_common() if r != "passed")
        rows.append(f"| {op} | {counts['passed'] or '-'} of {counts.total()} | {_int8(op)} | {refused} |")
    reasons = [
        f"| {n} | {r} |" for r, n in sorted(total.items(), key=lambda i: (-i[1], i[0])) if r != "passed"
    ]
    return "\n".join(
        [
            _HEAD.format(onnx.__version__, total["passed"], total.total(), TOLERANCE),
            *rows,
            _REASONS,
            *reasons,
            "",
        ]
    )


_HEAD = """# ONNX operators

Written by `python tests/onnx_suite/operator_table.py` from a run of the node tests of onnx {0} on the Backend of
`qcc.onnx_backend`, in float32: {1} of {2} tests pass, the others are refused with the reason given, none is wrong.
The run is that of the interpreter; a slow test runs the same models in C, and `pytest -rs tests/onnx_suite/official.py` is onnx's
own runner, with everything compiled to C, the nine light classifiers included. Integers, and where necessary all
inputs but the first float32 one, are constants of the compiled model; N stands for any number.

int8: what becomes of the passing tests of one node when they are quantized, calibrated on their own inputs. *int8*: they run
on integers alone, and every result is within {3:.0%} of the largest magnitude or of the range of the expected ones. *with float
steps*: an op has no integer form for these operands. *beyond*: functions with jumps or poles, where a step of the input is more
than the tolerance. *refused*: infinite inputs, or parameters computed at run time.

| operator | float32 | int8 | refused |
|---|---|---|---|"""
_REASONS = """
## Reasons

| tests | reason |
|---:|---|"""


if __name__ == "__main__":
    OPERATORS.write_text(table())
