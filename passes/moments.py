"""Second moments of what a layer's weights are multiplied with, estimated from few samples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qcc.ir.graph import Node

Reals = NDArray[np.float64]

ROWS = 8  # for each weight of a filter, over all samples
FEWEST_POSITIONS = 32  # of an image, where it has as many
_RIDGE = 1e-4  # of the mean variance


@dataclass(frozen=True)
class Moments:
    """Of quantized inputs x' and float ones x of one layer, with groups G and K weights for each output of a group.

    ``covariance``: [G, K, K], positive definite, of x'; ``drift``: [G, K, K], E[(x - x') x'^T], both centred.
    """

    covariance: Reals
    drift: Reals


def measure(node: Node, x: NDArray[np.float32], quantized: NDArray[np.float32]) -> Moments | None:
    """Moments of operand 0 of ``node`` over samples [N, ...]; None where the op does not know its rows.

    With few samples the off-diagonal moments are mostly noise. They shrink by the factor that minimizes the
    expected squared error (Schaefer and Strimmer 2005, table 1, target D), the samples being what is independent:
    the positions of one image are not.
    """
    rule = node.op.quant_rule()
    assert rule.weight is not None
    weight = node.input(rule.weight).type
    k = weight.elements // weight.shape[rule.weight_axis]
    positions = max(FEWEST_POSITIONS, -(-ROWS * k // len(x)))
    rows, other = (node.op.weight_rows(a, weight, positions) for a in (quantized, x))
    if rows is None or other is None:
        return None
    n, p, groups, k = rows.shape
    mean = rows.mean(axis=(0, 1), dtype=np.float64).astype(np.float32)
    offset = (other - rows).mean(axis=(0, 1), dtype=np.float64).astype(np.float32)
    total, squares = np.zeros((groups, k, k)), np.zeros((groups, k, k))
    drift = np.zeros((groups, k, k))
    for a, b in zip(rows, other, strict=True):
        q = np.moveaxis(a - mean, 1, 0)  # [G, P, K]
        d = np.moveaxis(b - a - offset, 1, 0)
        gram = (q.transpose(0, 2, 1) @ q).astype(np.float64) / p
        total += gram
        squares += gram * gram
        drift += d.transpose(0, 2, 1) @ q / p
    covariance = total / n
    shrinkage = _shrinkage(covariance, squares, n)[:, None, None]
    diagonal = np.einsum("gkk->gk", covariance).copy()
    covariance *= 1 - shrinkage
    ridge = _RIDGE * diagonal.mean(axis=1, keepdims=True) + 1e-30
    np.einsum("gkk->gk", covariance)[:] = diagonal + ridge
    drift = drift / n
    d_diag = np.einsum("gkk->gk", drift).copy()
    drift *= 1 - shrinkage
    np.einsum("gkk->gk", drift)[:] = d_diag
    return Moments(covariance, drift)


def _shrinkage(mean: Reals, squares: Reals, n: int) -> Reals:
    """[G] in [0, 1]: sum of variances of the off-diagonal means over the sum of their squares."""
    if n < 2:
        return np.ones(len(mean))
    variance = (squares / n - mean * mean) / (n - 1)
    off = ~np.eye(mean.shape[1], dtype=np.bool_)
    noise, signal = variance[:, off].sum(axis=1), (mean * mean)[:, off].sum(axis=1)
    return np.clip(noise / np.maximum(signal, 1e-300), 0.0, 1.0)
