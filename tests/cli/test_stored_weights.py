"""`--weights-only` and `--dynamic` on the digits model."""

from pathlib import Path

import pytest

pytestmark = pytest.mark.compiler


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--float32", "--weights-only", "int4", "--weight-group", "16"], "weights    int4 in "),
        (["--dynamic"], "weights    int8 with activations quantized at run time in "),
    ],
)
def test_small_weights_reach_the_library(
    qcc, model: Path, calib: Path, tmp_path: Path, options: list[str], said: str
) -> None:
    out = tmp_path / "out"
    result = qcc("compile", model, "--calib", calib, "-o", out, *options)
    assert result.exit_code == 0, result.stderr
    assert said in result.stdout
    assert " saved of " in result.stdout
    assert "16 of 16 samples within float tolerance of the interpreter" in result.stdout
    checked = qcc("verify", out, "--data", calib)
    assert checked.exit_code == 0, checked.stderr


def test_weights_alone_need_a_float_program(qcc, model: Path, tmp_path: Path) -> None:
    result = qcc("compile", model, "-o", tmp_path / "out", "--weights-only", "int8")
    assert result.exit_code == 1
    assert "add --float32 or --dynamic" in result.stderr
