"""What every test shares: golden files, the model zoo, and an account of the tests that could not run.

A test that misses a tool skips inside a test or a fixture, not at module level: with several test processes
pytest does not report a module that skips itself, so the account at the end would miss it.
"""

import difflib
import importlib.util
import os
import re
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

# Before anything imports numpy: where several test processes share the cores, BLAS threads mostly wait for each other.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

TESTS = Path(__file__).resolve().parent
CHECKOUT = TESTS.parent
NO_ZOO = "the model zoo is not beside this checkout"

# What a skipped test lacked, told from its reason; the first row that matches counts.
MISSING = (
    ("model zoo", re.compile(r"\bzoo\b", re.IGNORECASE)),
    ("package tool", re.compile(r"package tool|arduino")),
    ("TVM", re.compile(r"\bTVM\b")),
    ("QEMU", re.compile(r"qemu|emulator", re.IGNORECASE)),
    ("browser", re.compile(r"browser")),
    ("IREE", re.compile(r"IREE")),
    ("processor", re.compile(r"processor lacks")),
    ("compiler", re.compile(r"compiler|\bgcc\b|\bclang\b|\bg\+\+|\bzig\b", re.IGNORECASE)),
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden", action="store_true", help="rewrite tests/golden from what the tests produce now"
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whoever asks for the zoo is marked `zoo`, so that `-m 'not zoo'` cannot miss a test."""
    for item in items:
        if "zoo" in getattr(item, "fixturenames", ()):
            item.add_marker("zoo")


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """`golden(name, text)` compares text with tests/golden/NAME, or writes it under --update-golden."""
    update: bool = request.config.getoption("--update-golden")

    def compare(name: str, text: str) -> None:
        path = TESTS / "golden" / name
        if update:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8", newline="\n")
            return
        if not path.is_file():
            pytest.fail(f"tests/golden/{name} does not exist; write it with: pytest --update-golden")
        with path.open(encoding="utf-8", newline="") as stored:
            expected = stored.read()
        if text != expected:
            lines = (expected.splitlines(keepends=True), text.splitlines(keepends=True))
            diff = "".join(
                line if line.endswith("\n") else f"{line}\n\\ no newline at the end\n"
                for line in difflib.unified_diff(*lines, f"tests/golden/{name}", "this run")
            )
            pytest.fail(f"{diff}\nif the new text is right: pytest --update-golden", pytrace=False)

    return compare


@pytest.fixture(scope="session")
def zoo() -> ModuleType:
    """The loader of the model zoo: `zoo.load("kws")` has .model, .calib, .x, .y and .metric()."""
    named = os.environ.get("QCC_ZOO")
    folder = Path(named) if named else CHECKOUT.parent / "shared" / "zoo"
    if not (folder / "load.py").is_file():
        if named:  # a mistyped folder must not silently turn tests off
            pytest.fail(f"QCC_ZOO names a folder without load.py: {folder}")
        pytest.skip(NO_ZOO)
    spec = importlib.util.spec_from_file_location("qcc_zoo_load", folder / "load.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    write_bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # the zoo is not ours to write to
    try:
        spec.loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = write_bytecode
    return module


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line that says how many tests lacked something, so that a short run never looks like a full one."""
    reasons = Counter(skip_reason(report) for report in terminalreporter.stats.get("skipped", []))
    lacking = Counter[str]()
    for reason, count in reasons.items():
        kind = next((kind for kind, pattern in MISSING if pattern.search(reason)), "other reasons")
        lacking[kind] += count
    kinds = [kind for kind, _ in MISSING] + (["other reasons"] if lacking["other reasons"] else [])
    parts = ", ".join(f"{kind} {lacking[kind]}" for kind in kinds)
    loud = {"yellow": True, "bold": True} if lacking else {}
    terminalreporter.write_line(f"tests not run for lack of: {parts}", **loud)


def skip_reason(report: pytest.TestReport) -> str:
    """The reason without the place: a skip carries (path, line, 'Skipped: reason')."""
    if isinstance(report.longrepr, tuple):
        return str(report.longrepr[2]).removeprefix("Skipped: ")
    return str(report.longrepr)
