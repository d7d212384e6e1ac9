"""Post-training quantization for OpenVINO: NNCF with its defaults."""

from __future__ import annotations

import nncf
import openvino

from engines.base import Job


def prepare(job: Job) -> None:
    """Write the quantized model (.xml, and .bin beside it)."""
    samples = job.samples()
    model = openvino.Core().read_model(job.model)
    model.reshape(list(samples[0].shape))
    quantized = nncf.quantize(model, nncf.Dataset(samples), subset_size=len(samples))
    openvino.save_model(quantized, job.prepared)
