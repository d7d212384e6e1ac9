"""The example model from ONNX to running code: on every target, with every boundary, in both precisions."""

import filecmp
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qcc import float_runtime, verify
from qcc.backends.target import TARGETS
from qcc.ir.fixedpoint import dequantize, quantize

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
EMULATED_SAMPLES = 20


@pytest.mark.compiler
@pytest.mark.parametrize("name", list(TARGETS))
def test_library_on_each_target_equals_the_interpreter(
    name: str, digits: Callable[..., Any], runnable: Callable[[str], Any]
) -> None:
    target = runnable(name)
    subject = digits(target=name)
    samples = subject.quantized(len(subject.x) if target.is_native else EMULATED_SAMPLES)
    expected = subject.compiled.run_integer(samples)
    got = subject.compiled.build().run_int8(samples)
    for output, array in expected.items():
        np.testing.assert_array_equal(got[output], array)


@pytest.mark.compiler
@pytest.mark.parametrize("name", ["c", "arm-neon", "cortex-m4"])
def test_float_boundary_gives_the_same_integers(
    name: str, digits: Callable[..., Any], runnable: Callable[[str], Any]
) -> None:
    runnable(name)
    subject = digits(target=name, io="float")
    graph = subject.compiled.graph
    (x,), (y,) = graph.inputs, graph.outputs
    samples = subject.x[:EMULATED_SAMPLES]
    integers = subject.compiled.run_integer(quantize(samples, x.type.qparams))
    got = subject.compiled.build().run(samples)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, dequantize(integers, y.type.qparams))


@pytest.mark.compiler
def test_float32_library_equals_onnxruntime(digits: Callable[..., Any]) -> None:
    subject = digits(precision="float32")
    inputs = subject.inputs(100)
    expected = float_runtime.run_onnx(EXAMPLES / "digits.onnx", inputs)
    got = subject.compiled.build().run(inputs)
    for output, array in expected.items():
        scale = float(np.abs(array).max())
        np.testing.assert_allclose(got[output], array, rtol=0, atol=1e-5 * scale)


def test_integers_follow_float(digits: Callable[..., Any]) -> None:
    """Measured on the 450 test images: 99.56 % of the labels in float and in integers, every decision equal."""
    subject = digits()
    integers = subject.compiled.run_integer(subject.quantized(len(subject.x)))
    (found,) = (a.argmax(axis=-1) for a in integers.values())
    wanted = subject.compiled.run_float(subject.x).argmax(axis=-1)
    assert (found == wanted).mean() >= 0.99
    assert (found == subject.entry).mean() >= (wanted == subject.entry).mean() - 0.005


SCRIPT = """
import sys
import qcc
qcc.compile(sys.argv[1], calibration=sys.argv[2]).save(sys.argv[3])
"""


def test_compilation_is_deterministic(tmp_path: Path) -> None:
    """Two processes with different hash seeds write the same bytes, but for the times in the report."""
    folders = []
    for seed in ("1", "2"):
        folder = tmp_path / seed / "digits"
        arguments = (EXAMPLES / "digits.onnx", EXAMPLES / "digits_calib.npz", folder)
        command = [sys.executable, "-c", SCRIPT, *map(str, arguments)]
        subprocess.run(command, check=True, timeout=120, env=os.environ | {"PYTHONHASHSEED": seed})
        folders.append(folder)
    names = [sorted(str(p.relative_to(f)) for p in f.rglob("*") if p.is_file()) for f in folders]
    assert names[0] == names[1]
    files = [name for name in names[0] if not name.startswith("report.")]
    same, different, failed = filecmp.cmpfiles(*folders, files, shallow=False)
    assert (different, failed) == ([], [])
    assert len(same) > 10
    reports = [json.loads((f / "report.json").read_text(encoding="utf-8")) for f in folders]
    assert without_times(reports[0]) == without_times(reports[1])


def without_times(report: Any) -> Any:
    if isinstance(report, dict):
        return {key: without_times(value) for key, value in report.items() if key != "seconds"}
    return [without_times(item) for item in report] if isinstance(report, list) else report


# ---------------------------------------------------------------------- first diverging step
def test_no_step_diverges_in_a_right_library(
    digits: Callable[..., Any], runnable: Callable[[str], Any]
) -> None:
    runnable("c")
    subject = digits()
    assert verify.first_diverging_step(subject.folder, subject.compiled.graph, subject.inputs(2)) == ""


@pytest.mark.compiler
@pytest.mark.parametrize(
    ("target", "io"), [("c", "int8"), ("c", "float"), ("arm-neon", "int8"), ("cortex-m4", "int8")]
)
def test_first_diverging_step_is_named(
    target: str, io: str, digits: Callable[..., Any], runnable: Callable[[str], Any], tmp_path: Path
) -> None:
    """A wrong zero_point in the second convolution: steps before are right, steps behind are not to blame."""
    runnable(target)
    compiled = digits(target=target, io=io).compiled
    folder = compiled.save(tmp_path / "digits")
    source = folder / "digits.c"
    text = source.read_text(encoding="utf-8")
    planted = list(re.finditer(r"(-?\d+)(, +/\* output_zero_point \*/)", text))[1]
    wrong = f"{int(planted[1]) + 1}{planted[2]}"
    source.write_text(text[: planted.start()] + wrong + text[planted.end() :], encoding="utf-8")
    guilty = [op for op in compiled.program.operations if "output_zero_point" in op.call.params][1]
    name = guilty.step.output.name

    found = verify.first_diverging_step(folder, compiled.graph, digits().inputs(2))

    assert found.startswith("sample 0, step "), found
    assert f"%{name} = {guilty.step.pattern} by {guilty.kernel.symbol}: element " in found
    assert re.search(r"expected -?\d+, got -?\d+ \(\d+ of \d+ elements differ\)", found)
