"""NVIDIA's entropy calibrator, which prepares models for TensorRT, on the values of a model."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from modelopt.torch.quantization.calib import HistogramCalibrator

from engines.base import Job
from engines.scales_torch import Scale, write_scales


def write(job: Job) -> None:
    """``job.prepared`` (.npz) from ``job.model``; see write_scales."""
    write_scales(job, entropy)


def entropy(batches: Iterator[torch.Tensor]) -> Scale:
    """Of symmetric activations of 8 bits, with 2048 bins."""
    calibrator = HistogramCalibrator(num_bits=8, unsigned=False)
    for batch in batches:
        calibrator.collect(batch)
    return float(calibrator.compute_amax("entropy")) / 127, 0
