"""onnxruntime, on the float model and on the one that qdq.py made."""

from __future__ import annotations

import numpy as np
import onnxruntime

from engines.base import Array, Engine, Job


class OnnxRuntime(Engine):
    """A session with inputs and outputs bound to memory."""

    def __init__(self, model: str, sample: Array, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name
        self._binding = self._session.io_binding()
        given = onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(sample))
        self._binding.bind_ortvalue_input(self._input, given)
        for output, y in zip(self._session.get_outputs(), self.outputs(sample), strict=True):
            self._binding.bind_ortvalue_output(output.name, onnxruntime.OrtValue.ortvalue_from_numpy(y))

    def infer(self) -> object:
        """One run, with nothing to allocate."""
        return self._session.run_with_iobinding(self._binding)

    def outputs(self, x: Array) -> list[Array]:
        """All outputs, in order."""
        return list(self._session.run(None, {self._input: x}))


def load_float(job: Job) -> Engine:
    """The model as it is."""
    return OnnxRuntime(job.model, job.sample(), job.threads)


def load_int8(job: Job) -> Engine:
    """The quantized model."""
    return OnnxRuntime(job.prepared, job.sample(), job.threads)
