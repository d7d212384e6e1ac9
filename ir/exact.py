"""Exact integer matrix products at BLAS speed: float arithmetic is exact while every partial sum stays small."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def matmul(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.int64]:
    """a @ b for integer arrays, exactly. Shapes as numpy.matmul; any integer dtypes; int64 result.

    A float sum of integer products is exact, in any order, while sum |a||b| < 2^24 (float32) or 2^53 (float64).
    """
    bound = _bound(a, b)
    if bound < 2**24:
        return np.asarray(np.matmul(a.astype(np.float32), b.astype(np.float32)), np.int64)
    if bound < 2**53:
        return np.asarray(np.matmul(a.astype(np.float64), b.astype(np.float64)), np.int64)
    return np.asarray(np.matmul(a.astype(np.int64), b.astype(np.int64)))


def _bound(a: NDArray[Any], b: NDArray[Any]) -> int:
    largest = _largest(a)
    columns = np.abs(b.astype(np.float64)).sum(axis=-2)
    return int(largest * (columns.max() if columns.size else 0.0)) + 1


def _largest(a: NDArray[Any]) -> int:
    if a.size == 0:
        return 0
    return max(abs(int(a.min())), abs(int(a.max())))
