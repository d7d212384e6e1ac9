"""Whole compilations, each done once for all tests of a process."""

import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import qcc
from qcc.backends.target import Compiler, Target, find_target
from qcc.backends.targets import describe

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Subject:
    """A compiled model with its data. ``folder``: the saved library; ``x``: float test samples."""

    compiled: qcc.CompiledModel
    folder: Path
    x: Array
    entry: Any = None

    def quantized(self, count: int) -> dict[str, Array]:
        """The first test samples as the library takes them."""
        inputs: dict[str, Array] = self.compiled.quantize_input(self.inputs(count))
        return inputs

    def inputs(self, count: int) -> dict[str, Array]:
        """The first test samples as floats."""
        return {self.compiled.graph.inputs[0].name: self.x[:count]}


@pytest.fixture(scope="session")
def zoo_subject(zoo: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Subject]:
    """`zoo_subject("kws")`: the model with default options and at most 100 calibration samples."""

    @cache
    def make(name: str) -> Subject:
        entry = zoo.load(name)
        compiled = qcc.compile(entry.model, calibration=entry.calib[:100])
        folder = compiled.save(tmp_path_factory.mktemp(name) / name)
        return Subject(compiled, folder, entry.x, entry)

    return make


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Subject]:
    """`digits(target="host", io="float")`: the example model with these options."""

    @cache
    def make(**options: Any) -> Subject:
        compiled = qcc.compile(EXAMPLES / "digits.onnx", calibration=EXAMPLES / "digits_calib.npz", **options)
        folder = compiled.save(tmp_path_factory.mktemp("digits") / "digits")
        with np.load(EXAMPLES / "digits_test.npz") as data:
            return Subject(compiled, folder, data["image"], data["label"])

    return make


@pytest.fixture(scope="session")
def runnable() -> Callable[[str], Target]:
    """`runnable("arm-neon")`: the target; skips where its programs cannot be built and run."""

    def find(name: str) -> Target:
        found = next(a for a in describe() if a.target.name == name)
        if not found.runs:
            pytest.skip(f"no compiler or emulator for {name}: {'; '.join(found.missing)}")
        return found.target

    return find


@pytest.fixture(scope="session")
def compiler() -> Callable[..., Target]:
    """`compiler("gcc", "-O0")`: the portable target with one compiler and these flags; skips where it is missing."""

    def find(name: str, *flags: str) -> Target:
        if name == "zig":
            pytest.importorskip("ziglang", reason="the zig compiler is not installed")
            # zig checks for undefined behaviour by itself, with calls into a library
            argv: tuple[str, ...] = (sys.executable, "-m", "ziglang", "cc", "-fno-sanitize=undefined")
        else:
            if shutil.which(name) is None:
                pytest.skip(f"compiler {name} is not installed")
            argv = (name,)
        return replace(find_target("c"), compilers=(Compiler(argv, ""),), flags=flags)

    return find
