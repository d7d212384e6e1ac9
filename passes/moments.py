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
    rows = sampled_rows(node, x)
    if rows is None:
        return None
    n, positions, groups, k = rows.shape
    centred = rows - rows.mean(axis=(0, 1), dtype=np.float64).astype(np.float32)
    centred = np.ascontiguousarray(centred.transpose(2, 0, 1, 3))  # [G, N, P, K]
    peak = max(float(np.abs(centred).max(initial=0.0)), float(np.finfo(np.float32).tiny))
    centred /= np.float32(peak)  # squares stay within float32

    found = np.empty((groups, k, k))
    for g, x in enumerate(centred.reshape(groups, -1, k)):
        found[g] = (x.T @ x) / np.float32(n * positions)
    diagonal = np.einsum("gkk->gk", found).copy()
    found *= 1 - _shrinkage(found, diagonal, centred)[:, None, None]
    ridge = _RIDGE * diagonal.mean(axis=1, keepdims=True) + 1e-30
    np.einsum("gkk->gk", found)[:] = diagonal + ridge
    return np.asarray(found * peak**2)


def sampled_rows(node: Node, x: NDArray[np.float32]) -> NDArray[np.float32] | None:
    """float32[N, P, G, K]: as many of those rows as moments need; None where the op does not know them."""
    rule = node.op.quant_rule()
    assert rule.weight is not None
    weight = node.input(rule.weight).type
    k = weight.elements // weight.shape[rule.weight_axis]
    return node.op.weight_rows(x, weight, max(FEWEST_POSITIONS, -(-ROWS * k // len(x))))


def _shrinkage(mean: Reals, diagonal: Reals, centred: NDArray[np.float32]) -> Reals:
    """[G] in [0, 1]: sum of variances of the off-diagonal means over the sum of their squares.

    ``centred``: [G, N, P, K]. The squares of a sample's moments X^T X / P are those of X X^T / P, if that is smaller.
    """
    groups, n, positions, k = centred.shape
    if n < 2:
        return np.ones(groups)
    squares = np.zeros(groups)
    for i in range(n):
        x = centred[:, i]
        gram = (x @ x.swapaxes(1, 2) if positions < k else x.swapaxes(1, 2) @ x) / np.float32(positions)
        own = np.einsum("gpk,gpk->gk", x, x) / np.float32(positions)
        squares += _power(gram) - _power(own)
    signal = _power(mean) - _power(diagonal)
    noise = (squares / n - signal) / (n - 1)
    return np.asarray(np.clip(noise / np.maximum(signal, 1e-300), 0.0, 1.0))


def _power(x: NDArray[np.floating]) -> Reals:
    """[G]: the sum of the squares of [G, ...]."""
    flat = x.reshape(len(x), 1, -1)
    return np.asarray((flat @ flat.swapaxes(1, 2)).reshape(-1), np.float64)
