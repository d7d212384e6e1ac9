"""x86 processors: kernels in intrinsics, selected before the portable ones."""

from __future__ import annotations

from pathlib import Path

from qcc.backends.kernel import Kernel
from qcc.backends.x86 import (
    avx2,
    avx2_elementwise,
    avx2_wide,
    dense,
    depthwise,
    elementwise,
    few_channels,
    lookup,
    movement,
    pooling,
    stem,
    vnni,
    wide,
    wide_elementwise,
)

AVX512VNNI_KERNELS: tuple[Kernel, ...] = (
    *vnni.KERNELS,
    *few_channels.KERNELS,
    *stem.KERNELS,
    *dense.KERNELS,
    *depthwise.KERNELS,
    *pooling.KERNELS,
    *elementwise.KERNELS,
    *lookup.KERNELS,
    *movement.KERNELS,
    *wide.KERNELS,
    *wide_elementwise.KERNELS,
    *avx2_wide.SHARED,
)
AVXVNNI_KERNELS: tuple[Kernel, ...] = (*avx2.AVXVNNI_ROWS, *avx2_elementwise.ROWS, *avx2_wide.AVXVNNI_ROWS)
AVX2_KERNELS: tuple[Kernel, ...] = (*avx2.AVX2_ROWS, *avx2_elementwise.ROWS, *avx2_wide.AVX2_ROWS)
AVX512VNNI_PEAK = Path(__file__).parent / "peak_avx512vnni.c"
