"""What TensorFlow's converter makes of a model: the scales of its activations, and the outputs of the result."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tensorflow as tf

from engines.base import Job
from engines.tflite import TO_LAST, convert


def write(job: Job) -> None:
    """``job.prepared`` (.npz) from ``job.folded``; test.npy, beside the calibration samples, is what it is run on.

    Tensors have no names of the model: ``elements`` says how large they are, in the order of the operators.
    """
    content = convert(Path(job.folded), job.samples())
    resolver = tf.lite.experimental.OpResolverType.BUILTIN_REF
    interpreter = tf.lite.Interpreter(model_content=content, experimental_op_resolver_type=resolver)
    interpreter.allocate_tensors()
    details = {d["index"]: d for d in interpreter.get_tensor_details()}
    (given,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()
    order = [given["index"], *(i for op in interpreter._get_ops_details() for i in op["outputs"])]
    kept = [details[i] for i in dict.fromkeys(order) if details[i]["dtype"] == np.int8]
    outputs = []
    for x in np.load(Path(job.calibration).with_name("test.npy")):
        sample = x[None] if x[None].shape == tuple(given["shape"]) else x[None].transpose(TO_LAST)
        scale, zero_point = given["quantization"]
        codes = np.clip(np.rint(sample / np.float32(scale)) + zero_point, -128, 127).astype(np.int8)
        interpreter.set_tensor(given["index"], np.ascontiguousarray(codes))
        interpreter.invoke()
        scale, zero_point = result["quantization"]
        integers = interpreter.get_tensor(result["index"]).astype(np.float32)
        outputs.append((integers - zero_point) * np.float32(scale))
    np.savez(
        job.prepared,
        elements=[int(np.prod(d["shape"])) for d in kept],
        scales=[d["quantization"][0] for d in kept],
        zero_points=[d["quantization"][1] for d in kept],
        outputs=np.concatenate(outputs),
    )
