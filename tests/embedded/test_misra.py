"""docs/misra.md lists every rule that cppcheck's misra addon reports on an emitted library."""

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

import qcc

CHECKOUT = Path(__file__).resolve().parents[2]
EXAMPLES = CHECKOUT / "examples"


DSP = ("-D__arm__", "-D__ARM_FEATURE_DSP=1")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "defined"),
    [("c", ()), ("cortex-m0", ()), ("cortex-m4", DSP), ("cortex-m55", (*DSP, "-D__ARM_FEATURE_MVE=1"))],
)
def test_every_reported_rule_is_listed(target: str, defined: tuple[str, ...], tmp_path: Path) -> None:
    if shutil.which("cppcheck") is None:
        pytest.skip("cppcheck is not installed")
    calibration = np.load(EXAMPLES / "digits_calib.npz")["image"]
    folder = qcc.compile(EXAMPLES / "digits.onnx", target, calibration).save(tmp_path / "digits")
    (folder / "test_main.c").unlink()
    options = (
        "--addon=misra",
        "--std=c99",
        "-D__GNUC__=12",
        *defined,
        "--max-configs=1",
        "-q",
        f"-I{folder}",
    )
    done = subprocess.run(
        ["cppcheck", *options, *map(str, sorted(folder.glob("*.c")))],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    reported = set(re.findall(r"\[misra-c2012-(\d+\.\d+)\]", done.stderr))
    text = (CHECKOUT / "docs" / "misra.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ((?:\d+\.\d+(?:, )?)+) \|", text, re.MULTILINE)
    listed = {rule for row in rows for rule in row.split(", ")}
    assert {"12.1", "18.4"} <= reported  # the addon has run
    assert reported <= listed
