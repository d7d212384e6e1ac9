"""Rows of sums, products and requantization of activations, for AVX512."""

from __future__ import annotations

from qcc.backends.kernel import Kernel
from qcc.backends.scalar.vectors import elementwise_rows
from qcc.backends.x86.lanes import certified, float_scale, source

KERNELS: tuple[Kernel, ...] = elementwise_rows(
    "avx512", source("qcc_s8_elementwise_avx512"), float_scale, certified, uses_float=True
)
