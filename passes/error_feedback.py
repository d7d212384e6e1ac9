"""Rounding of weights with error feedback: what rounding one weight adds to the output, the next ones take back."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Reals = NDArray[np.float64]
Singles = NDArray[np.float32]

_BLOCK = 64  # weights of a filter whose effect on the others is applied together, as a matrix product


def round_with_feedback(
    w: Reals, hessian: Reals, scale: Reals, limit: int = 127, sweeps: int = 0
) -> NDArray[np.float64]:
    """Integer codes q [G, O, K] that make (w - s q) H (w - s q)^T small, row by row.

    ``w``: float64[G, O, K]; ``hessian``: positive definite [G, K, K], the second moments of the inputs; ``scale``:
    [G, O], or of each weight [G, O, K]; codes lie in [-limit, limit]. Weights are rounded in descending order of H's
    diagonal; the error of each is made up for by the optimal change of those not yet rounded (Frantar et al. 2022, GPTQ,
    section 3; equal to OBQ of the same authors with that order). With H = L L^T the error is |(w - s q) L|^2, and its
    terms, from the last to the first, each depend on one weight more: that is the same rounding without the inverse of H
    (Babai's nearest plane).
    ``sweeps``: rounds of coordinate descent behind it, each code moving to the best integer while the others stay.
    """
    order = np.argsort(-np.diagonal(hessian, axis1=1, axis2=2), axis=1, kind="stable")[:, ::-1]
    h = np.stack([one[np.ix_(o, o)] for one, o in zip(hessian, order, strict=True)])
    sorted_w = np.take_along_axis(w.swapaxes(1, 2), order[..., None], axis=1)  # [G, K, O]
    steps = np.broadcast_to(of_weights(scale), w.shape).swapaxes(1, 2)
    steps = np.take_along_axis(steps, order[..., None], axis=1) if scale.ndim > 2 else steps
    q: NDArray[Any] = _feedback(sorted_w, np.linalg.cholesky(h), steps, limit)
    if sweeps:
        unit, largest = np.abs(h).max(axis=(1, 2), keepdims=True), steps.max(axis=1, keepdims=True)
        h, shares = (h / unit).astype(np.float32), (steps / largest).astype(np.float32)
        q = _descend(sorted_w / largest, shares, h, limit, q, sweeps)
    codes = np.empty_like(sorted_w)
    np.put_along_axis(codes, order[..., None], q, axis=1)
    return np.ascontiguousarray(codes.swapaxes(1, 2))


def of_weights(scale: Reals) -> Reals:
    """[G, O, 1] or [G, O, K] of a scale [G, O] or [G, O, K]."""
    return scale if scale.ndim > 2 else scale[..., None]


def output_error(w: Reals, codes: Reals, hessian: Reals, scale: Reals) -> Reals:
    """float64[G, O]: (w - s q) H (w - s q)^T, the mean squared error of each output over the inputs behind H.

    In float32, scaled so that squares stay within it.
    """
    error, unit, peak = w - codes * of_weights(scale), float(scale.max()), float(np.abs(hessian).max())
    scaled = (error / unit).astype(np.float32)
    found = ((scaled @ (hessian / peak).astype(np.float32)) * scaled).sum(axis=-1, dtype=np.float64)
    return np.asarray(found * unit**2 * peak)


def _feedback(w: Reals, lower: Reals, scale: Reals, limit: int) -> Reals:
    """``w`` [G, K, O], rounded from the last weight to the first; ``scale`` as ``w``; ``lower`` [G, K, K]."""
    q, carried = np.empty_like(w), np.zeros_like(w)  # carried[k] = sum of error[i] lower[i, k] over i > k
    for end in range(w.shape[1], 0, -_BLOCK):
        start = max(0, end - _BLOCK)
        errors = np.empty_like(w[:, start:end])
        for k in range(end - 1, start - 1, -1):
            wanted = w[:, k] + carried[:, k] / lower[:, k, k, None]
            q[:, k] = np.clip(np.rint(wanted / scale[:, k]), -limit, limit)
            error = w[:, k] - q[:, k] * scale[:, k]
            carried[:, start:k] += lower[:, k, start:k, None] * error[:, None]
            errors[:, k - start] = error
        carried[:, :start] += lower[:, start:end, :start].swapaxes(1, 2) @ errors
    return q


def _descend(w: Reals, scale: Singles, h: Singles, limit: int, q: Reals, sweeps: int) -> Singles:
    """Coordinate descent in the same order; the error of no row grows. ``w``, ``scale``: in the largest scale of each row."""
    codes = q.astype(np.float32)
    gradient = h @ (w - q * scale).astype(np.float32)
    for _ in range(sweeps):
        moved = False
        for end in range(w.shape[1], 0, -_BLOCK):
            start = max(0, end - _BLOCK)
            inner, own = h[:, start:end, start:end], gradient[:, start:end].copy()
            steps = np.zeros_like(own)
            for k in reversed(range(end - start)):
                code, unit = codes[:, start + k], scale[:, start + k]
                best = np.rint(code + own[:, k] / (inner[:, k, k, None] * unit))
                step = np.clip(best, -limit, limit) - code
                if step.any():
                    code += step
                    steps[:, k] = step * unit
                    own -= inner[:, :, k, None] * steps[:, None, k]
            if steps.any():
                gradient -= h[:, :, start:end] @ steps
                moved = True
        if not moved:
            break
    return codes
