"""OpenVINO on the model that nncf_int8.py made; latency hint."""

from __future__ import annotations

import numpy as np
import openvino

from engines.base import Array, Engine, Job


class OpenVino(Engine):
    """An inference request."""

    def __init__(self, model: str, sample: Array, threads: int) -> None:
        core = openvino.Core()
        config = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads}
        self._compiled = core.compile_model(core.read_model(model), "CPU", config)
        self._request = self._compiled.create_infer_request()
        self._request.infer([sample])

    def infer(self) -> object:
        """One inference on the tensors of the last one."""
        return self._request.infer()

    def outputs(self, x: Array) -> list[Array]:
        """All outputs, in order."""
        found = self._request.infer([x])
        return [np.array(found[output]) for output in self._compiled.outputs]


def load(job: Job) -> Engine:
    """The quantized model."""
    return OpenVino(job.prepared, job.sample(), job.threads)
