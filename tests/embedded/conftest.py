"""Libraries for embedded targets, of the digits model, which needs no zoo."""

import importlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import qcc

sys.path.insert(0, str(Path(__file__).parent))

from embedded_tools import CHECKOUT, EXAMPLES


@dataclass(frozen=True)
class Saved:
    """A compiled model and the folder of its library."""

    compiled: qcc.CompiledModel
    folder: Path


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Saved]:
    """`digits(target, **options)`: the digits model, saved; each once in a process."""
    calibration = np.load(EXAMPLES / "digits_calib.npz")["image"]

    @cache
    def make(target: str, **options: Any) -> Saved:
        compiled = qcc.compile(EXAMPLES / "digits.onnx", target, calibration, **options)
        return Saved(compiled, compiled.save(tmp_path_factory.mktemp("digits") / "digits"))

    return make


@pytest.fixture
def arm(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The module benchmarks/arm.py; it and the modules beside it are forgotten afterwards."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(CHECKOUT / "benchmarks"))
    yield importlib.import_module("arm")
    folder = str(CHECKOUT / "benchmarks")
    for name in sys.modules.keys() - before:
        if (getattr(sys.modules[name], "__file__", None) or "").startswith(folder):
            del sys.modules[name]
