"""Exact integer matrix products at BLAS speed: float arithmetic is exact while every partial sum stays small."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Carrier = type[np.float32] | type[np.float64] | type[np.int64]


def carrier(bound: int, w: NDArray[Any]) -> Carrier:
    """The type to compute x @ w in, exactly, for integers |x| <= ``bound`` and w [..., K, N].

    A float sum of integer products is exact, in any order, while sum |x||w| < 2^24 (float32) or 2^53 (float64).
    """
    columns = np.abs(w.astype(np.float64)).sum(axis=-2)
    limit = int(bound * (columns.max() if columns.size else 0.0)) + 1
    if limit < 2**24:
        return np.float32
    return np.float64 if limit < 2**53 else np.int64


def largest(x: NDArray[Any]) -> int:
    """The largest |x|, 0 for an empty array."""
    return max(abs(int(x.min())), abs(int(x.max()))) if x.size else 0


def matmul(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.int64]:
    """a @ b for integer arrays, exactly. Shapes as numpy.matmul; any integer dtypes; int64 result."""
    dtype = carrier(largest(a), b)
    return np.asarray(product(a.astype(dtype), b.astype(dtype)), np.int64)


def product(a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
    """numpy.matmul; for one matrix ``b`` it is one large product, where numpy makes one for each row of images."""
    if b.ndim != 2 or a.ndim < 3:
        return np.asarray(np.matmul(a, b))
    return np.asarray(np.matmul(a.reshape(-1, a.shape[-1]), b)).reshape(*a.shape[:-1], b.shape[1])


def plus(sums: NDArray[Any], offset: NDArray[np.int64]) -> NDArray[Any]:
    """``sums`` [..., N], of integers in a carrier, + ``offset`` [N]: int32 where nothing can leave it, else int64."""
    small = sums.dtype == np.float32 and largest(offset) < 2**31 - 2**24
    dtype = np.int32 if small else np.int64
    result: NDArray[Any] = sums.astype(dtype)
    np.add(result, offset.astype(dtype), out=result)
    return result
