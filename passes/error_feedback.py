"""Rounding of weights with error feedback: what rounding one weight adds to the output, the next ones take back."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Reals = NDArray[np.float64]

_BLOCK = 64  # columns whose updates of the later ones are applied together


def round_with_feedback(
    w: Reals, hessian: Reals, scale: Reals, limit: int = 127, sweeps: int = 0
) -> NDArray[np.float64]:
    """Integer codes q [G, O, K] that make (w - s q) H (w - s q)^T small, row by row.

    ``w``: float64[G, O, K]; ``hessian``: positive definite [G, K, K], the second moments of the inputs; ``scale``:
    [G, O]; codes lie in [-limit, limit]. Columns are rounded in descending order of H's diagonal; the error of each is
    made up for by the optimal change of those not yet rounded, which the Cholesky factor of H^-1 gives (Frantar et
    al. 2022, GPTQ, section 3; equal to OBQ of the same authors with that order). ``sweeps``: rounds of coordinate
    descent behind it, each code moving to the best integer while the others stay.
    """
    codes = np.empty_like(w)
    for g in range(len(w)):
        order = np.argsort(-np.diagonal(hessian[g]), kind="stable")
        h = hessian[g][np.ix_(order, order)]
        s = scale[g][:, None]
        q = _feedback(w[g][:, order], h, s, limit)
        q = _descend(w[g][:, order], h, s, limit, q, sweeps)
        codes[g][:, order] = q
    return codes


def output_error(w: Reals, codes: Reals, hessian: Reals, scale: Reals) -> Reals:
    """float64[G, O]: (w - s q) H (w - s q)^T, the mean squared error of each output over the inputs behind H."""
    error = w - codes * scale[..., None]
    return np.asarray(((error @ hessian) * error).sum(axis=-1))


def _nearest(w: Reals, scale: Reals, limit: int) -> Reals:
    return np.asarray(np.clip(np.rint(w / scale), -limit, limit))


def _feedback(w: Reals, h: Reals, scale: Reals, limit: int) -> Reals:
    """``w`` [O, K], columns in the order they are rounded; ``scale`` [O, 1]."""
    upper = np.linalg.cholesky(np.linalg.inv(h)).T
    left, q = w.copy(), np.empty_like(w)
    for start in range(0, w.shape[1], _BLOCK):
        end = min(start + _BLOCK, w.shape[1])
        errors = np.empty((len(w), end - start))
        for j in range(start, end):
            q[:, j] = _nearest(left[:, j], scale[:, 0], limit)
            error = (left[:, j] - q[:, j] * scale[:, 0]) / upper[j, j]
            left[:, j + 1 : end] -= error[:, None] * upper[j, j + 1 : end]
            errors[:, j - start] = error
        left[:, end:] -= errors @ upper[start:end, end:]
    return q


def _descend(w: Reals, h: Reals, scale: Reals, limit: int, q: Reals, sweeps: int) -> Reals:
    """Coordinate descent; the error of no row grows."""
    diagonal = np.diagonal(h)
    gradient = (w - q * scale) @ h
    for _ in range(sweeps):
        moved = False
        for j in range(w.shape[1]):
            best = np.clip(np.rint(q[:, j] + gradient[:, j] / (diagonal[j] * scale[:, 0])), -limit, limit)
            step = best - q[:, j]
            rows = np.flatnonzero(step)
            if rows.size:
                q[rows, j] = best[rows]
                gradient[rows] -= (step[rows] * scale[rows, 0])[:, None] * h[j]
                moved = True
        if not moved:
            break
    return q
