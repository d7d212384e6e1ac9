"""What the tests of the command line share: the digits model, a way to call qcc, and one compiled library."""

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from qcc.cli import main

EXAMPLES = Path(__file__).resolve().parent.parent.parent / "examples"
Qcc = Callable[..., Result]


@pytest.fixture(scope="session")
def qcc() -> Qcc:
    """`qcc("compile", path, "-o", out)`: the result of a command, exceptions other than exits passed on."""

    def call(*arguments: object) -> Result:
        return CliRunner().invoke(main, [str(a) for a in arguments], prog_name="qcc", catch_exceptions=False)

    return call


@pytest.fixture(scope="session")
def model() -> Path:
    return EXAMPLES / "digits.onnx"


@pytest.fixture(scope="session")
def calib() -> Path:
    return EXAMPLES / "digits_calib.npz"


@pytest.fixture(scope="session")
def test_data() -> Path:
    return EXAMPLES / "digits_test.npz"


@pytest.fixture(scope="session")
def compiled(
    qcc: Qcc, model: Path, calib: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Result]:
    """The folder of a library compiled for target c, and what the command printed. Read only."""
    out = tmp_path_factory.mktemp("cli") / "digits"
    return out, qcc("compile", model, "--calib", calib, "-o", out)
