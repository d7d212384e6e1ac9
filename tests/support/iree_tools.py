"""IREE as an independent executor of TOSA text: its parser and verifier, its lowering, its runtime."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qcc.ir import interpreter
from qcc.ir.graph import Graph
from qcc.tosa.exporter import save_tosa

Array = np.ndarray[Any, Any]
TOOLS = ("iree-compile", "iree-run-module")


def require_iree() -> None:
    """Skip the test where IREE is not on the path."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"IREE is not installed: no {missing[0]} (iree-base-compiler, iree-base-runtime)")


class Compiled:
    """The TOSA text of an integer graph, compiled for this processor."""

    def __init__(self, graph: Graph, folder: Path) -> None:
        require_iree()
        self.graph, self.folder, self.module = graph, folder, folder / "module.vmfb"
        save_tosa(graph, folder / "module.mlir")
        target = ("--iree-hal-target-backends=llvm-cpu", "--iree-llvmcpu-target-cpu=generic")
        command = [TOOLS[0], *target, str(folder / "module.mlir"), "-o", str(self.module)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[:4000]

    def run(self, inputs: dict[str, Array]) -> dict[str, Array]:
        """Codes in, codes out, by name."""
        command = [TOOLS[1], f"--module={self.module}", "--device=local-sync", "--function=main"]
        for index, value in enumerate(self.graph.inputs):
            np.save(self.folder / f"in{index}.npy", inputs[value.name])
            command.append(f"--input=@{self.folder / f'in{index}.npy'}")
        files = {name: self.folder / f"out{i}.npy" for i, name in enumerate(self.graph.output_names)}
        done = subprocess.run(
            [*command, *(f"--output=@{f}" for f in files.values())], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr[:4000]
        return {name: np.load(file) for name, file in files.items()}


def assert_same_bytes(graph: Graph, folder: Path, samples: int = 3) -> None:
    """IREE equals the interpreter on codes over the whole range, and on some near the middle."""
    compiled, rng = Compiled(graph, folder), np.random.default_rng(0)
    for index in range(samples):
        width = (300, 60)[index % 2]
        inputs = {
            v.name: np.clip(rng.normal(0, width, v.type.shape), -128, 127).astype(np.int8)
            for v in graph.inputs
        }
        expected = interpreter.run(graph, {name: array[None] for name, array in inputs.items()})
        for name, got in compiled.run(inputs).items():
            np.testing.assert_array_equal(got, expected[name].reshape(got.shape), err_msg=name)
