"""The engines that benchmarks/x86.py compares with: each quantizes the float model itself, and runs on one thread.

A peer that is not installed is left out; `pip install -e '.[bench]'` gets OpenVINO and LiteRT. LiteRT needs .tflite files,
which are made elsewhere.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from accuracy import quantize_with_onnxruntime
from numpy.typing import NDArray

Array = NDArray[Any]
Call = Callable[[], object]  # one inference on an input that is already in place


@dataclass(frozen=True)
class Job:
    """What a peer gets: the ONNX file, float calibration samples [N, ...], one sample [1, ...], a folder to write to."""

    name: str
    model: Path
    calibration: Array
    sample: Array
    folder: Path


def onnxruntime_float(job: Job) -> Call:
    """The model as it is."""
    return _onnxruntime(job.model, job.sample)


def onnxruntime_int8(job: Job) -> Call:
    """Static QDQ: per-channel s8 weights, u8 activations, MinMax ranges."""
    return _onnxruntime(quantize_with_onnxruntime(job.model, job.calibration, job.folder), job.sample)


def _onnxruntime(model: Path, sample: Array) -> Call:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    given = onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(sample))
    binding.bind_ortvalue_input(session.get_inputs()[0].name, given)
    for name, y in zip(
        (o.name for o in session.get_outputs()),
        session.run(None, {session.get_inputs()[0].name: sample}),
        strict=True,
    ):
        binding.bind_ortvalue_output(name, onnxruntime.OrtValue.ortvalue_from_numpy(y))
    return lambda: session.run_with_iobinding(binding)


def openvino_int8(job: Job) -> Call:
    """Quantized by NNCF with its defaults; latency hint."""
    openvino, nncf = (importlib.import_module(name) for name in ("openvino", "nncf"))
    core = openvino.Core()
    model = core.read_model(str(job.model))
    model.reshape(list(job.sample.shape))
    samples = [x[None] for x in job.calibration]
    quantized = nncf.quantize(model, nncf.Dataset(samples), subset_size=len(samples))
    config = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": 1}
    request = core.compile_model(quantized, "CPU", config).create_infer_request()
    request.infer([job.sample])
    return lambda: request.infer()


def litert_int8(job: Job, folder: Path) -> Call:
    """A .tflite file of the model, int8, made elsewhere; XNNPACK."""
    litert = importlib.import_module("ai_edge_litert.interpreter")
    interpreter = litert.Interpreter(model_path=str(folder / f"{job.name}.tflite"), num_threads=1)
    interpreter.allocate_tensors()
    given = interpreter.get_input_details()[0]
    interpreter.set_tensor(given["index"], np.zeros(given["shape"], given["dtype"]))
    return lambda: interpreter.invoke()


def peers_of(job: Job, tflite: Path | None) -> dict[str, Callable[[], Call]]:
    """By name, what makes each peer that can run here; a .tflite file is looked for in ``tflite``."""
    found: dict[str, Callable[[], Call]] = {
        "onnxruntime f32": lambda: onnxruntime_float(job),
        "onnxruntime u8s8": lambda: onnxruntime_int8(job),
    }
    if _installed("openvino") and _installed("nncf"):
        found["openvino int8"] = lambda: openvino_int8(job)
    if tflite is not None and _installed("ai_edge_litert") and (tflite / f"{job.name}.tflite").is_file():
        found["litert int8"] = lambda: litert_int8(job, tflite)
    return found


def _installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None
