"""Fixtures that compile C. The modules beside this file are importable here: pytest adds no folder by itself."""

import ctypes
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from kernel_harness import RUNTIME, WARNINGS, Compiler


@pytest.fixture(scope="session")
def compiler(tmp_path_factory: pytest.TempPathFactory) -> Compiler:
    """gcc with the kernels compiled."""
    if shutil.which("gcc") is None:
        pytest.skip("no C compiler: gcc is not installed")
    made = Compiler(tmp_path_factory.mktemp("kernels"))
    made.compile_kernels()
    return made


@pytest.fixture(scope="session")
def functions(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], ctypes.CDLL]:
    """`functions(source)`: a shared library of a piece of C that may include the runtime headers."""
    if shutil.which("gcc") is None:
        pytest.skip("no C compiler: gcc is not installed")
    folder = tmp_path_factory.mktemp("functions")

    def build(source: str) -> ctypes.CDLL:
        path = folder / f"f{len(list(folder.iterdir()))}.c"
        path.write_text(source)
        library = path.with_suffix(".so")
        command = ["gcc", "-std=c99", "-O2", *WARNINGS, "-fPIC", "-shared", f"-I{RUNTIME}"]
        subprocess.run([*command, str(path), "-o", str(library)], check=True)
        return ctypes.CDLL(str(library))

    return build
