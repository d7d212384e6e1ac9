"""The fixtures and the final account of conftest.py, tried on small test files in a folder of their own."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).resolve().parent / "conftest.py"


def run_pytest(folder: Path, body: str, *options: str, **environment: str) -> tuple[int, str]:
    """Run `body` as folder/tests/test_it.py beside a copy of our conftest.py; exit code and output."""
    tests = folder / "tests"
    tests.mkdir(exist_ok=True)
    shutil.copy(CONFTEST, tests)
    (tests / "test_it.py").write_text(f"import pytest\n\n{body}\n")
    (folder / "pytest.ini").write_text("[pytest]\nmarkers = zoo: zoo\n")
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "QCC_ZOO"))}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--import-mode=importlib", "-p", "no:cacheprovider", *options],
        cwd=folder,
        env=inherited | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("processes", ["0", "2"])
def test_summary_with_skips_counts_them_by_what_was_missing(tmp_path: Path, processes: str) -> None:
    reasons = ["no C compiler found", "qemu-aarch64 is not installed", "no clang", "needs a full moon"]
    reasons += ["this processor lacks avx512vnni", "the package tool pio is not installed"]
    reasons += ["no browser: chromium is not installed", "IREE is not installed: no iree-compile"]
    body = f"@pytest.mark.parametrize('reason', {reasons!r})\ndef test_skip(reason): pytest.skip(reason)\n"
    body += "def test_zoo(zoo): zoo.load('kws')\n"
    code, output = run_pytest(tmp_path, body, "-n", processes)
    assert code == 0, output
    assert (
        "tests not run for lack of: model zoo 1, package tool 1, TVM 0, QEMU 1, browser 1, IREE 1, processor 1, compiler 2, "
        "other reasons 1" in output
    )


def test_summary_without_skips_says_zero(tmp_path: Path) -> None:
    code, output = run_pytest(tmp_path, "def test_nothing(): pass")
    assert code == 0, output
    assert (
        "tests not run for lack of: model zoo 0, package tool 0, TVM 0, QEMU 0, browser 0, IREE 0, processor 0, compiler 0\n"
        in output
    )


def test_golden_compares_and_updates(tmp_path: Path) -> None:
    body = "def test_text(golden): golden('folder/text.txt', 'one\\ntwo\\n')"
    stored = tmp_path / "tests" / "golden" / "folder" / "text.txt"

    code, output = run_pytest(tmp_path, body)
    assert code == 1
    assert "tests/golden/folder/text.txt does not exist" in output

    assert run_pytest(tmp_path, body, "--update-golden")[0] == 0
    assert stored.read_bytes() == b"one\ntwo\n"
    assert run_pytest(tmp_path, body)[0] == 0

    stored.write_bytes(b"one\r\ntwo\r\n")  # another line ending is another text
    assert run_pytest(tmp_path, body)[0] == 1
    stored.write_bytes(b"one\n2\n")
    code, output = run_pytest(tmp_path, body)
    assert code == 1
    assert "-2\n" in output
    assert "+two\n" in output


def test_zoo_comes_from_the_environment_and_a_wrong_folder_fails(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    body = "def test_zoo(zoo): assert zoo.NAME == 'mine'"
    code, output = run_pytest(tmp_path, body, QCC_ZOO=str(elsewhere))
    assert code == 1
    assert "QCC_ZOO names a folder without load.py" in output
    (elsewhere / "load.py").write_text("NAME = 'mine'\n")
    assert run_pytest(tmp_path, body, QCC_ZOO=str(elsewhere))[0] == 0
    assert not (elsewhere / "__pycache__").exists()
    code, output = run_pytest(tmp_path, body, "-m", "not zoo")
    assert "1 deselected" in output
