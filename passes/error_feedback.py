"""Rounding of weights with error feedback: what rounding one weight adds to the output, the next ones take back."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Reals = NDArray[np.float64]

_BLOCK = 64  # weights of a filter whose effect on the others is applied together, as a matrix product


def round_with_feedback(
    w: Reals, hessian: Reals, scale: Reals, limit: int = 127, sweeps: int = 0
) -> NDArray[np.float64]:
    """Integer codes q [G, O, K] that make (w - s q) H (w - s q)^T small, row by row.

    ``w``: float64[G, O, K]; ``hessian``: positive definite [G, K, K], the second moments of the inputs; ``scale``:
    [G, O]; codes lie in [-limit, limit]. Weights are rounded in descending order of H's diagonal; the error of each is
    made up for by the optimal change of those not yet rounded (Frantar et al. 2022, GPTQ, section 3; equal to OBQ of the
    same authors with that order). With H = L L^T the error is |(w - s q) L|^2, and its terms, from the last to the first,
    each depend on one weight more: that is the same rounding without the inverse of H (Babai's nearest plane).
    ``sweeps``: rounds of coordinate descent behind it, each code moving to the best integer while the others stay.
    """
    order = np.argsort(-np.diagonal(hessian, axis1=1, axis2=2), axis=1, kind="stable")[:, ::-1]
    h = np.stack([one[np.ix_(o, o)] for one, o in zip(hessian, order, strict=True)])
    sorted_w = np.take_along_axis(w.swapaxes(1, 2), order[..., None], axis=1)  # [G, K, O]
    q = _feedback(sorted_w, np.linalg.cholesky(h), scale, limit)
    q = _descend(sorted_w, h, scale, limit, q, sweeps)
    codes = np.empty_like(sorted_w)
    np.put_along_axis(codes, order[..., None], q, axis=1)
    return np.ascontiguousarray(codes.swapaxes(1, 2))


def output_error(w: Reals, codes: Reals, hessian: Reals, scale: Reals) -> Reals:
    """float64[G, O]: (w - s q) H (w - s q)^T, the mean squared error of each output over the inputs behind H."""
    error = w - codes * scale[..., None]
    return np.asarray(((error @ hessian) * error).sum(axis=-1))


def _feedback(w: Reals, lower: Reals, scale: Reals, limit: int) -> Reals:
    """``w`` [G, K, O], rounded from the last weight to the first; ``scale`` [G, O]; ``lower`` [G, K, K]."""
    q, carried = np.empty_like(w), np.zeros_like(w)  # carried[k] = sum of error[i] lower[i, k] over i > k
    for end in range(w.shape[1], 0, -_BLOCK):
        start = max(0, end - _BLOCK)
        errors = np.empty_like(w[:, start:end])
        for k in range(end - 1, start - 1, -1):
            wanted = w[:, k] + carried[:, k] / lower[:, k, k, None]
            q[:, k] = np.clip(np.rint(wanted / scale), -limit, limit)
            error = w[:, k] - q[:, k] * scale
            carried[:, start:k] += lower[:, k, start:k, None] * error[:, None]
            errors[:, k - start] = error
        carried[:, :start] += lower[:, start:end, :start].swapaxes(1, 2) @ errors
    return q


def _descend(w: Reals, h: Reals, scale: Reals, limit: int, q: Reals, sweeps: int) -> Reals:
    """Coordinate descent in the same order; the error of no row grows."""
    gradient = h @ (w - q * scale[:, None]) if sweeps else w
    for _ in range(sweeps):
        moved = False
        for end in range(w.shape[1], 0, -_BLOCK):
            start = max(0, end - _BLOCK)
            block = slice(start, end)
            own, steps = gradient[:, block], np.zeros_like(w[:, block])
            inner = h[:, block, block]
            for k in reversed(range(end - start)):
                code = q[:, start + k]
                best = np.rint(code + own[:, k] / (inner[:, k, k, None] * scale))
                step = np.clip(best, -limit, limit) - code
                if step.any():
                    q[:, start + k] += step
                    steps[:, k] = step * scale
                    own = own - inner[:, :, k, None] * steps[:, k, None]
            if steps.any():
                gradient -= h[:, :, block] @ steps
                moved = True
        if not moved:
            break
    return q
