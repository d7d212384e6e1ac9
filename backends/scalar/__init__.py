"""Portable C99 kernels: the table that every other target falls back to. A family of kernels is one module."""

from __future__ import annotations

from qcc.backends.kernel import Kernel
from qcc.backends.scalar import (
    accumulators,
    conversion,
    convolution,
    elementwise,
    float_elementwise,
    movement,
    products,
    reduction,
    stored,
    wide,
    wide_convolution,
    window,
)

KERNELS: tuple[Kernel, ...] = (
    *convolution.KERNELS,
    *elementwise.KERNELS,
    *products.KERNELS,
    *window.KERNELS,
    *reduction.KERNELS,
    *accumulators.KERNELS,
    *conversion.KERNELS,
    *movement.KERNELS,
    *float_elementwise.KERNELS,
    *stored.KERNELS,
    *wide.KERNELS,
    *wide_convolution.KERNELS,
)
