"""Every example runs, and says what it promises."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import qcc

CHECKOUT = Path(__file__).resolve().parent.parent.parent
EXAMPLES = CHECKOUT / "examples"
DATA = ("digits.onnx", "digits_calib.npz", "digits_test.npz")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The examples in a folder of their own: they write into build/ beside theirs."""
    folder = tmp_path_factory.mktemp("checkout")
    shutil.copytree(EXAMPLES, folder / "examples")
    return folder


def run(checkout: Path, name: str) -> str:
    command = [sys.executable, str(checkout / "examples" / name)]
    return subprocess.run(
        command, cwd=checkout, capture_output=True, text=True, check=True, timeout=300
    ).stdout


def test_numbered_examples_are_short() -> None:
    lengths = {p.name: len(p.read_text(encoding="utf-8").splitlines()) for p in EXAMPLES.glob("0*.py")}
    assert sorted(lengths) == ["01_digits.py", "03_custom_pass.py", "04_inspect.py"]
    assert max(lengths.values()) <= 60


def test_01_digits(checkout: Path) -> None:
    text = run(checkout, "01_digits.py")
    assert "library = interpreter   450 of 450 test images, byte for byte" in text
    accuracy = re.search(r"accuracy +int8 ([\d.]+)%, float ([\d.]+)%; SQNR ([\d.]+) dB", text)
    assert accuracy is not None
    integer, real, sqnr_db = map(float, accuracy.groups())
    assert min(integer, real) >= 98.0
    assert abs(integer - real) <= 0.5  # two images of 450
    assert sqnr_db >= 40.0
    assert re.search(r"time per image +[\d.]+ us", text)
    assert f"library and report      {checkout}/build/digits, " in text
    assert (checkout / "build" / "digits" / "report.html").is_file()


@pytest.mark.parametrize("target", ["c", "host"])
def test_02_digits_firmware(tmp_path: Path, target: str) -> None:
    for tool in ("make", "cc"):
        if shutil.which(tool) is None:
            pytest.skip(f"no C compiler that make finds: {tool} is missing")
    model = qcc.compile(EXAMPLES / DATA[0], target=target, calibration=EXAMPLES / DATA[1])
    library = model.save(tmp_path / "library")
    variables = [f"LIBRARY={library}", f"BUILD={tmp_path}", "CFLAGS=-O1 -Wconversion -Wpedantic -Werror"]
    command = ["make", "-s", "-C", str(EXAMPLES / "02_digits_firmware"), "run", *variables]
    # without the flags of a make that runs the tests
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert "image of 7: 7" in done.stdout
    assert done.stdout.endswith("10 of 10 right\n")


def test_03_custom_pass(checkout: Path) -> None:
    rows = re.findall(
        r"^(\S+) +float,prune-weights\{share=(\S+)\} +int8 ([\d.]+)%, float ([\d.]+)%, ([\d.]+) dB$",
        run(checkout, "03_custom_pass.py"),
        re.MULTILINE,
    )
    assert [(name, float(share)) for name, share, *_ in rows] == [
        ("min-max", 0.0),
        ("least-squares", 0.0),
        ("least-squares", 0.3),
    ]
    for *_, integer, real, sqnr_db in rows:
        assert abs(float(integer) - float(real)) <= 1.0
        assert float(sqnr_db) >= 35.0


def test_04_inspect(checkout: Path) -> None:
    text = run(checkout, "04_inspect.py")
    assert re.findall(r"stage\((\w+)\)", text) == ["float", "annotated", "planned"]
    assert "nn.conv2d" in text
    assert "q.requantize" in text
    assert max(map(len, text.splitlines())) <= 118
