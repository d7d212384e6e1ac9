"""PyTorch's observers on the values of a model."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch.ao.quantization import get_default_qconfig

from engines.base import Array, Job

Scale = tuple[float, int]
LEAST_CODE = 64  # half of the codes of a quint8 with reduce_range: theirs start at 0, ours at -64


def write(job: Job) -> None:
    """``job.prepared`` (.npz) from ``job.model``; see write_scales."""
    write_scales(job, histogram_observer)


def write_scales(job: Job, scale_of: Callable[[Iterator[torch.Tensor]], Scale]) -> None:
    """One scale for each value in ``job.model`` (.npz), whose arrays NAME/NUMBER are batches."""
    batches = np.load(job.model)
    names = sorted({key.rpartition("/")[0] for key in batches.files})
    found = [scale_of(in_order(batches, name)) for name in names]
    np.savez(job.prepared, names=names, scales=[s for s, _ in found], zero_points=[z for _, z in found])


def in_order(batches: dict[str, Array], name: str) -> Iterator[torch.Tensor]:
    """The batches of one value."""
    number = 0
    while f"{name}/{number}" in batches:
        yield torch.from_numpy(batches[f"{name}/{number}"])
        number += 1


def histogram_observer(batches: Iterator[torch.Tensor]) -> Scale:
    """Of activations, as get_default_qconfig("x86") says."""
    observer = get_default_qconfig("x86").activation()
    for batch in batches:
        observer(batch)
    scale, zero_point = observer.calculate_qparams()
    return float(scale), int(zero_point) - LEAST_CODE
