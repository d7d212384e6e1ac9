"""Measures of how far one result is from another."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


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
