"""Every example runs, and says what it promises."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
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
    first = ["01_digits.py", "03_custom_pass.py", "04_inspect.py"]
    research = ["05_custom_calibrator.py", "06_custom_rounding.py", "07_split_outliers.py"]
    assert sorted(lengths) == first + research
    assert max(lengths[name] for name in first) <= 60
    assert max(lengths[name] for name in research) < 80


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


def research(text: str) -> dict[tuple[str, str], tuple[float, float]]:
    """(accuracy in percent, SQNR in dB) by (bits, what was tried)."""
    rows = re.findall(r"^(\d) bits (\S+) +int ([\d.]+)%,(?: float [\d.]+%,)? ([\d.]+) dB", text, re.MULTILINE)
    return {(bits, tried): (float(accuracy), float(sqnr_db)) for bits, tried, accuracy, sqnr_db in rows}


def test_05_clipping_in_closed_form_gains_at_4_bits(checkout: Path) -> None:
    found = research(run(checkout, "05_custom_calibrator.py"))
    assert len(found) == 6
    assert found["4", "aciq"][1] > found["4", "min-max"][1] + 1
    assert abs(found["8", "aciq"][0] - found["8", "min-max"][0]) <= 0.5


def test_06_errors_that_cancel_gain_without_data(checkout: Path) -> None:
    found = research(run(checkout, "06_custom_rounding.py"))
    assert len(found) == 9
    for bits in "843":
        assert found[bits, "squant"][1] > found[bits, "nearest"][1] + 1
    assert found["3", "squant"][0] > found["3", "nearest"][0] + 4


def test_07_outliers_are_split(checkout: Path) -> None:
    text = run(checkout, "07_split_outliers.py")
    found = research(text)
    assert found["5", "above=1.1"][1] > found["5", "above=99"][1] + 0.5
    assert found["5", "above=1.5"] == found["5", "above=99"]  # this model has no such outliers
    assert "230720 MACs" in text
    assert "241088 MACs" in text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "better", "worse"),
    [
        ("05_custom_calibrator.py", ("4", "aciq"), ("4", "min-max")),
        ("06_custom_rounding.py", ("4", "squant"), ("4", "nearest")),
        ("07_split_outliers.py", ("5", "above=1.5"), ("5", "above=99")),
    ],
)
def test_research_on_a_model_of_the_zoo(zoo, tmp_path: Path, name: str, better, worse) -> None:
    model = zoo.load("resnet20")
    np.savez(tmp_path / "calib.npz", input=model.calib[:100])
    np.savez(tmp_path / "test.npz", input=model.x[:100], label=model.y[:100])
    command = [sys.executable, EXAMPLES / name, model.model, tmp_path / "calib.npz", tmp_path / "test.npz"]
    found = research(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert found[better][1] > found[worse][1]
