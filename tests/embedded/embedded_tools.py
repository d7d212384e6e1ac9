"""What the tests of embedded libraries ask of this machine."""

import shutil
from pathlib import Path

import pytest

from qcc.backends.target import Target
from qcc.backends.targets import availability, find_target

CHECKOUT = Path(__file__).resolve().parents[2]
EXAMPLES = CHECKOUT / "examples"


def require_build(name: str) -> Target:
    """The target; skips where its compiler is missing."""
    target = find_target(name)
    if not availability(target).builds:
        pytest.skip(f"no compiler for {name}")
    return target


def require_run(name: str) -> Target:
    """The target; skips where its programs do not run."""
    target = require_build(name)
    if not availability(target).runs:
        pytest.skip(f"no emulator for {name}")
    return target


def require_tool(name: str) -> None:
    """Skips where a program is missing."""
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed")


def package_tool(name: str) -> Path:
    """A tool of a build system, on the path or where .ci/install_tools puts them; skips where it is missing."""
    found = shutil.which(name) or shutil.which(name, path=CHECKOUT / "build" / "package-tools" / "bin")
    if found is None:
        pytest.skip(f"the package tool {name} is not installed")
    return Path(found)
