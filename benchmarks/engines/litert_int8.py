"""LiteRT with XNNPACK, its default, on the model that tflite.py made."""

from __future__ import annotations

from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from engines.base import Array, Engine, Job


class LiteRt(Engine):
    """An interpreter of an int8 model with int8 input and outputs."""

    def __init__(self, model: str, sample: Array, threads: int) -> None:
        self._interpreter = Interpreter(model_path=model, num_threads=threads)
        self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]
        self.outputs(sample)

    def infer(self) -> object:
        """One inference on the input of the last one."""
        return self._interpreter.invoke()

    def outputs(self, x: Array) -> list[Array]:
        """All outputs, as float32."""
        shape = tuple(self._input["shape"])
        if x.shape != shape:  # the converted model has its channels last
            x = x.transpose(0, 2, 3, 1)
        scale, zero_point = self._input["quantization"]
        integers = np.clip(np.rint(x / scale) + zero_point, -128, 127).astype(np.int8)
        self._interpreter.set_tensor(self._input["index"], np.ascontiguousarray(integers))
        self._interpreter.invoke()
        return [self._dequantized(detail) for detail in self._interpreter.get_output_details()]

    def _dequantized(self, detail: dict[str, Any]) -> Array:
        scale, zero_point = detail["quantization"]
        integers: Array = self._interpreter.get_tensor(detail["index"])
        return (integers.astype(np.float32) - zero_point) * scale


def load(job: Job) -> Engine:
    """The converted model."""
    return LiteRt(job.prepared, job.sample(), job.threads)
