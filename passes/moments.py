"""Second moments of what a layer's weights are multiplied with, estimated from few samples."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qcc.ir.graph import Node

Reals = NDArray[np.float64]

ROWS = 8  # for each weight of a filter, over all samples
FEWEST_POSITIONS = 32  # of an image, where it has as many
_RIDGE = 1e-4  # of the mean variance


def covariance(node: Node, x: NDArray[np.float32]) -> Reals | None:
    """float64[G, K, K], positive definite: of the rows that the weights of ``node`` meet in its operand ``x`` [N, ...].

    G groups, K weights for each output of a group. None where the op does not know its rows.

    With few samples the off-diagonal moments are mostly noise. They shrink by the factor that minimizes the
    expected squared error (Schaefer and Strimmer 2005, table 1, target D), the samples being what is independent:
    the positions of one image are not.
    """
    rule = node.op.quant_rule()
    assert rule.weight is not None
    weight = node.input(rule.weight).type
    k = weight.elements // weight.shape[rule.weight_axis]
    rows = node.op.weight_rows(x, weight, max(FEWEST_POSITIONS, -(-ROWS * k // len(x))))
    if rows is None:
        return None
    n, positions, groups, k = rows.shape
    mean = rows.mean(axis=(0, 1), dtype=np.float64).astype(np.float32)
    total, squares = np.zeros((groups, k, k)), np.zeros((groups, k, k))
    for sample in rows:
        centred = np.moveaxis(sample - mean, 1, 0)  # [G, P, K]
        gram = (centred.transpose(0, 2, 1) @ centred).astype(np.float64) / positions
        total += gram
        squares += gram * gram
    found: Reals = total / n
    diagonal = np.einsum("gkk->gk", found).copy()
    found *= 1 - _shrinkage(found, squares, n)[:, None, None]
    ridge = _RIDGE * diagonal.mean(axis=1, keepdims=True) + 1e-30
    np.einsum("gkk->gk", found)[:] = diagonal + ridge
    return found


def _shrinkage(mean: Reals, squares: Reals, n: int) -> Reals:
    """[G] in [0, 1]: sum of variances of the off-diagonal means over the sum of their squares."""
    if n < 2:
        return np.ones(len(mean))
    variance = (squares / n - mean * mean) / (n - 1)
    off = ~np.eye(mean.shape[1], dtype=np.bool_)
    noise, signal = variance[:, off].sum(axis=1), (mean * mean)[:, off].sum(axis=1)
    return np.asarray(np.clip(noise / np.maximum(signal, 1e-300), 0.0, 1.0))
