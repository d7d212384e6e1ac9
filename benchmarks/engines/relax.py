"""TVM on the float model, without our schedules: its ONNX importer and its default pipeline, for this processor."""

from __future__ import annotations

import os

import numpy as np
import onnx
import tvm
from tvm import relax
from tvm.relax.frontend.onnx import from_onnx

from engines.base import Array, Engine, Job


class Relax(Engine):
    """A Relax program in TVM's virtual machine, its input in place."""

    def __init__(self, library: str, sample: Array) -> None:
        self._machine = relax.VirtualMachine(tvm.runtime.load_module(library), tvm.cpu())
        self.outputs(sample)

    def infer(self) -> object:
        """One call of the saved function."""
        return self._machine.invoke_stateful("main")

    def outputs(self, x: Array) -> list[Array]:
        """All outputs, in order."""
        self._machine.set_input("main", tvm.runtime.tensor(np.ascontiguousarray(x)))
        self._machine.invoke_stateful("main")
        found = self._machine.get_outputs("main")
        return [y.numpy() for y in ([found] if hasattr(found, "numpy") else found)]


def prepare(job: Job) -> None:
    """The pipelines "zero", which folds and fuses, and the default one of the processor."""
    module = relax.get_pipeline("zero")(from_onnx(onnx.load(job.folded)))
    target = tvm.target.Target({"kind": "llvm", "mcpu": tvm.target.codegen.llvm_get_system_cpu()})
    relax.build(module, target).export_library(job.prepared)


def load(job: Job) -> Engine:
    """What ``prepare`` wrote."""
    os.environ["TVM_NUM_THREADS"] = str(job.threads)  # read when the first parallel loop runs
    return Relax(job.prepared, job.sample())
