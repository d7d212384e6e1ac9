"""What TensorFlow's converter makes of a model: the scales of its activations, and the outputs of the result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from engines.base import Array, Job
from engines.tflite import TO_LAST, convert


def write(job: Job) -> None:
    """``job.prepared`` (.npz) from ``job.folded``; test.npy, beside the calibration samples, is what it is run on.

    Tensors have not the names of the model: what they hold for the first test sample tells which they are.
    """
    content = convert(Path(job.folded), job.samples())
    resolver = tf.lite.experimental.OpResolverType.BUILTIN_REF
    interpreter = tf.lite.Interpreter(
        model_content=content, experimental_op_resolver_type=resolver, experimental_preserve_all_tensors=True
    )
    interpreter.allocate_tensors()
    details = {d["index"]: d for d in interpreter.get_tensor_details()}
    (given,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()
    order = [given["index"], *(i for op in interpreter._get_ops_details() for i in op["outputs"])]
    kept = [details[i] for i in dict.fromkeys(order) if details[i]["dtype"] == np.int8]
    outputs: list[Array] = []
    held: dict[str, Array] = {}
    for x in np.load(Path(job.calibration).with_name("test.npy")):
        sample = x[None] if x[None].shape == tuple(given["shape"]) else x[None].transpose(TO_LAST)
        scale, zero_point = given["quantization"]
        codes = np.clip(np.rint(sample / np.float32(scale)) + zero_point, -128, 127).astype(np.int8)
        interpreter.set_tensor(given["index"], np.ascontiguousarray(codes))
        interpreter.invoke()
        if not outputs:
            held = {f"held/{i}": dequantized(interpreter, d) for i, d in enumerate(kept)}
        outputs.append(dequantized(interpreter, result))
    np.savez(
        job.prepared,
        scales=[d["quantization"][0] for d in kept],
        zero_points=[d["quantization"][1] for d in kept],
        outputs=np.concatenate(outputs),
        **held,
    )


def dequantized(interpreter: tf.lite.Interpreter, detail: dict[str, Any]) -> Array:
    """The real numbers that a tensor holds."""
    scale, zero_point = detail["quantization"]
    integers = interpreter.get_tensor(detail["index"]).astype(np.float32)
    return np.asarray((integers - zero_point) * np.float32(scale))
