"""Measures of how far one result is from another."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcc.ir.errors import QccError

Outputs = Mapping[str, NDArray[Any]]
Metric = Callable[[Outputs, Outputs, NDArray[Any] | None], float]

METRICS: dict[str, Metric] = {}


def register_metric(name: str) -> Callable[[Metric], Metric]:
    """Decorator of a function of (outputs, those of the float model, labels or None): a quality, larger for better.

    Outputs are float32[N, ...] by name; the float model is judged by the same function, with itself as reference.
    """

    def register(metric: Metric) -> Metric:
        if name in METRICS:
            raise ValueError(f"metric {name} is declared twice")
        METRICS[name] = metric
        return metric

    return register


def find_metric(name: str) -> Metric:
    """A registered metric. Raises QccError for an unknown one."""
    if name not in METRICS:
        raise QccError(
            f"unknown metric {name!r}", hint=f"known: {', '.join(METRICS)}; --plugin FILE.py adds others"
        )
    return METRICS[name]


@register_metric("top1")
def _top1_share(outputs: Outputs, reference: Outputs, labels: NDArray[Any] | None) -> float:
    """Share of samples whose largest element of the first output is the label's, or without labels that of float."""
    name = next(iter(reference))
    classes = reference[name][0].size
    if classes < 2:
        raise QccError(f"top1: output {name} has no classes, it has one element", hint="use --metric sqnr")
    return float(
        (
            top1(outputs[name])
            == (top1(reference[name]) if labels is None else _classes(labels, outputs[name]))
        ).mean()
    )


@register_metric("sqnr")
def _signal_explained(outputs: Outputs, reference: Outputs, labels: NDArray[Any] | None) -> float:
    """1 - noise / signal of the worst output: 0.99 is an SQNR of 20 dB, 0.999 one of 30."""
    return min(1 - 10 ** (-sqnr_db(r, outputs[name]) / 10) for name, r in reference.items())


def _classes(labels: NDArray[Any], output: NDArray[Any]) -> NDArray[np.intp]:
    """Labels as one class for each sample. Raises QccError where they are something else."""
    samples, classes = len(output), output[0].size
    if labels.dtype.kind not in "iufb" or labels.size != samples or len(labels) != samples:
        raise QccError(
            f"the labels are {labels.dtype} of shape {labels.shape}: expected one class for each of {samples} samples",
            hint="store class numbers, not one-hot vectors: labels.argmax(axis=1)",
        )
    flat = labels.ravel()
    if (
        not np.isfinite(flat).all()
        or (flat != np.rint(flat)).any()
        or flat.min() < 0
        or flat.max() >= classes
    ):
        raise QccError(
            f"the labels go from {flat.min()} to {flat.max()}: expected class numbers from 0 to {classes - 1}",
            hint="number them as the outputs of the model are",
        )
    return flat.astype(np.intp)


def sqnr_db(reference: NDArray[Any], result: NDArray[Any]) -> float:
    """Signal to quantization noise, 10 log10(sum r^2 / sum (r - x)^2), in dB; inf where they are equal."""
    r, x = np.asarray(reference, np.float64).ravel(), np.asarray(result, np.float64).ravel()
    noise = float(((r - x) ** 2).sum())
    if noise == 0.0:
        return float("inf")
    return float(10 * np.log10(max(float((r**2).sum()), 1e-300) / noise))


def cosine(reference: NDArray[Any], result: NDArray[Any]) -> float:
    """Cosine of the angle between both, over all samples; 1 where both are zero."""
    r, x = np.asarray(reference, np.float64).ravel(), np.asarray(result, np.float64).ravel()
    norms = float(np.linalg.norm(r) * np.linalg.norm(x))
    return 1.0 if norms == 0.0 else float(r @ x) / norms


def top1(output: NDArray[Any]) -> NDArray[np.intp]:
    """Index of the largest element of each sample, over all axes but the first."""
    return np.asarray(np.asarray(output).reshape(len(output), -1).argmax(axis=1))
