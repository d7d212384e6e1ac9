"""What NNCF with its defaults makes of a model: the scales of its activations, and the outputs of the result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nncf
import numpy as np
import openvino

from engines.base import Job


def write(job: Job) -> None:
    """``job.prepared`` (.npz) from ``job.model``; test.npy, beside the calibration samples, is what it is run on."""
    samples = job.samples()
    model = openvino.Core().read_model(job.model)
    model.reshape(list(samples[0].shape))
    quantized = nncf.quantize(model, nncf.Dataset(samples), subset_size=len(samples))
    names, scales, zero_points = [], [], []
    for node in quantized.get_ordered_ops():
        source = node.input_value(0) if node.get_type_name() == "FakeQuantize" else None
        if source is None or source.get_node().get_type_name() in ("Constant", "Convert"):
            continue
        low, high = (constant(node, index) for index in (1, 2))
        if low.size != 1:
            continue  # of weights
        scale = float(high.item() - low.item()) / (node.get_attributes()["levels"] - 1)
        names.append("\n".join(sorted(source.get_names())))
        scales.append(scale)
        zero_points.append(round(-128 - low.item() / scale))
    compiled = openvino.Core().compile_model(quantized, "CPU")
    test = np.load(Path(job.calibration).with_name("test.npy"))
    outputs = [next(iter(compiled(x[None]).values())) for x in test]
    np.savez(
        job.prepared, names=names, scales=scales, zero_points=zero_points, outputs=np.concatenate(outputs)
    )


def constant(node: Any, index: int) -> Any:
    """An operand of ``node`` that is a constant."""
    return node.input_value(index).get_node().get_data()
