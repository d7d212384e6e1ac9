"""x86 processors: kernels in intrinsics, selected before the portable ones."""

from __future__ import annotations

from pathlib import Path

from qcc.backends.kernel import Kernel
from qcc.backends.x86 import dense, depthwise, elementwise, lookup, movement, pooling, vnni

AVX512VNNI_KERNELS: tuple[Kernel, ...] = (
    *vnni.KERNELS,
    *dense.KERNELS,
    *depthwise.KERNELS,
    *pooling.KERNELS,
    *elementwise.KERNELS,
    *lookup.KERNELS,
    *movement.KERNELS,
)
AVX512VNNI_PEAK = Path(__file__).parent / "peak_avx512vnni.c"
