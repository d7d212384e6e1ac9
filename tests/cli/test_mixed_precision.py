"""`--int16` and `--float` on the digits model."""

from pathlib import Path

import numpy as np
import pytest

import qcc as library
from qcc.options import CompileOptions

pytestmark = pytest.mark.compiler


def test_int16_reaches_the_library_and_its_boundary(qcc, model: Path, calib: Path, tmp_path: Path) -> None:
    result = qcc("compile", model, "--calib", calib, "-o", tmp_path / "wide", "--int16", "*")
    assert result.exit_code == 0, result.stderr
    assert "library    16 of 16 samples equal to the interpreter" in result.stdout
    assert "const int16_t *in" in (tmp_path / "wide" / "digits.h").read_text()


def test_float_leaves_a_node_in_float(qcc, model: Path, calib: Path, tmp_path: Path) -> None:
    chosen = library.compile(model, calibration=calib).compilation.float_graph.nodes[-1].name
    result = qcc("compile", model, "--calib", calib, "-o", tmp_path / "float", "--float", chosen)
    assert result.exit_code == 0, result.stderr
    assert "chosen to stay in float" in result.stdout or ", 0 in float" not in result.stdout


@pytest.mark.parametrize(("option", "what"), [("--int16", "value"), ("--float", "node")])
def test_a_name_of_nothing_is_an_error(
    qcc, model: Path, calib: Path, tmp_path: Path, option: str, what: str
) -> None:
    result = qcc("compile", model, "--calib", calib, "-o", tmp_path / "none", option, "nowhere*")
    assert result.exit_code == 1
    assert f"no {what} has a name like nowhere*" in result.stderr


def test_accuracy_rises_with_16_bits(model: Path, calib: Path) -> None:
    data = np.load(calib)
    x = next(iter(data.values()))[:64]
    errors = []
    for int16 in ((), ("*",)):
        compiled = library.compile(model, calibration=calib, options=CompileOptions(int16=int16))
        q = compiled.quantize_input(x)
        assert q.dtype == (np.int16 if int16 else np.int8)
        real = compiled.dequantize_output(compiled.run_integer(q))
        errors.append(float(np.abs(real - compiled.run_float(x)).mean()))
    assert errors[1] < errors[0] / 2
