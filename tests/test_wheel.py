"""The wheel: complete, and usable from outside the checkout.

An editable install reads the checkout, so it cannot notice a package or a kernel that the wheel lacks.
"""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent
SOURCES = ("qcc", "ir", "passes", "backends")

USE_IT = """
import importlib.resources, importlib.util, pathlib, sys
import qcc, qcc.ir, qcc.passes, qcc.backends.scalar

installed = pathlib.Path(sys.argv[1])
for package in (qcc, qcc.ir, qcc.passes, qcc.backends.scalar):
    assert package.__file__, package  # None: a folder without __init__.py
    assert installed in pathlib.Path(package.__file__).parents, package.__file__
assert "start" in importlib.resources.files("qcc.ir").joinpath("qir.lark").read_text()
kernels = importlib.resources.files("qcc.backends.scalar").joinpath("kernels")
sources = [entry for entry in kernels.iterdir() if entry.name.endswith(".c")]
assert sources and all("qcc_" in source.read_text() for source in sources)
for name in ("ir", "passes", "backends"):
    assert importlib.util.find_spec(name) is None, name
"""


def run(command: list[str], cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    env = os.environ | environment
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=600)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy: setuptools writes build/ beside the sources and would reuse a stale one."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    ignored = shutil.ignore_patterns("__pycache__")
    for name in SOURCES:
        shutil.copytree(CHECKOUT / name, source / name, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        if (CHECKOUT / name).is_file():
            shutil.copy(CHECKOUT / name, source)
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-input", "--wheel-dir", str(folder)]
    done = run([*pip, str(source)], folder)
    output = done.stdout + done.stderr
    if done.returncode and "setuptools>=" in output and "No matching distribution" in output:
        pytest.skip("the build needs setuptools and no package index is reachable")
    assert done.returncode == 0, output
    (built,) = folder.glob("qcc-*.whl")
    return built


def packaged_files(source: Path) -> set[str]:
    """The names that the files of the four source folders have in a wheel."""
    found = set()
    for name in SOURCES:
        for path in (source / name).rglob("*"):
            if path.is_file():
                inside = path.relative_to(source).as_posix()
                found.add(inside if name == "qcc" else f"qcc/{inside}")
    return found


@pytest.mark.slow
def test_wheel_holds_exactly_the_sources(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        found = {name for name in archive.namelist() if ".dist-info/" not in name and not name.endswith("/")}
    assert sorted(found) == sorted(packaged_files(wheel.parent / "source"))


@pytest.mark.slow
def test_installed_wheel_works_outside_the_checkout(wheel: Path, tmp_path: Path) -> None:
    """--target plus PYTHONPATH comes before site-packages, so the editable qcc of this environment loses."""
    installed, elsewhere = tmp_path / "installed", tmp_path / "elsewhere"
    elsewhere.mkdir()
    pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--target", str(installed)]
    done = run([*pip, str(wheel)], tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr

    done = run([sys.executable, "-c", USE_IT, str(installed)], elsewhere, PYTHONPATH=str(installed))
    assert done.returncode == 0, done.stdout + done.stderr

    done = run([sys.executable, "-m", "qcc", "--help"], elsewhere, PYTHONPATH=str(installed))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "usage" in done.stdout.lower()
