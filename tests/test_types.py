"""mypy --strict over the whole package.

The sources of qcc.ir, qcc.passes and qcc.backends lie beside qcc/, where mypy does not look for them: run on
the checkout, it cannot follow the imports between them. So it runs on a mirror of links that has the shape of
the wheel, and a second test makes sure that errors in each of the folders are seen there.
"""

import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent
OUTSIDE = ("ir", "passes", "backends")


def build_mirror(checkout: Path, folder: Path) -> None:
    """folder/qcc/ with a link to each entry of checkout/qcc and to the three folders beside it."""
    package = folder / "qcc"
    package.mkdir(parents=True)
    entries = [entry for entry in (checkout / "qcc").iterdir() if entry.name != "__pycache__"]
    for entry in [*entries, *(checkout / name for name in OUTSIDE)]:
        (package / entry.name).symlink_to(entry, target_is_directory=entry.is_dir())


def run_mypy(mirror: Path, cache: Path) -> subprocess.CompletedProcess[str]:
    options = ["--strict", "--config-file", str(CHECKOUT / "pyproject.toml"), "--cache-dir", str(cache)]
    command = [sys.executable, "-m", "mypy", *options, "--no-color-output", "-p", "qcc"]
    return subprocess.run(command, cwd=mirror, capture_output=True, text=True, timeout=600)


@pytest.mark.slow
def test_types_of_the_package_are_sound(tmp_path: Path) -> None:
    build_mirror(CHECKOUT, tmp_path)
    # The cache outlives the mirror: mypy compares contents, and paths inside a mirror are always the same.
    done = run_mypy(tmp_path, CHECKOUT / "build" / "mypy_cache")
    assert done.returncode == 0, f"mypy --strict:\n{done.stdout}{done.stderr}"


def test_planted_type_error_is_found_in_every_folder(tmp_path: Path) -> None:
    """On a small checkout of the same shape: it takes seconds and shares no cache with the test above."""
    small = tmp_path / "checkout"
    packages = ("qcc", "ir", "ir/ops", "passes", "backends", "backends/c")
    for package in packages:
        (small / package).mkdir(parents=True)
        (small / package / "__init__.py").write_text('"""A package."""\n')
        (small / package / "planted.py").write_text("count: int = 'one'\n")
    build_mirror(small, tmp_path / "mirror")
    done = run_mypy(tmp_path / "mirror", tmp_path / "cache")
    assert done.returncode == 1, done.stdout + done.stderr
    for package in packages:
        inside = package if package == "qcc" else f"qcc/{package}"
        assert f"{inside}/planted.py:1: error: Incompatible types in assignment" in done.stdout
