"""Arm processors: kernels in intrinsics, selected before the portable ones."""

from __future__ import annotations

from dataclasses import dataclass

from qcc.backends.arm import (
    depthwise,
    elementwise,
    i8mm,
    movement,
    neon,
    neon_wide,
    neon_wide_sums,
    pooling,
)
from qcc.backends.kernel import Kernel


@dataclass(frozen=True)
class Level:
    """An instruction set.

    ``target``: name of its target; ``architecture``: options of gcc and clang; ``zig``: for -mcpu of zig; ``cpu``: of QEMU;
    ``bits``: of an address.
    """

    target: str
    title: str
    architecture: tuple[str, ...]
    zig: str
    cpu: str
    features: tuple[str, ...]
    kernels: tuple[Kernel, ...]
    bits: int = 64


_OTHERS = (*pooling.ROWS, *elementwise.ROWS, *movement.ROWS, *neon_wide_sums.ROWS)
_NEON = (*neon.NEON_ROWS, *neon_wide.NEON_ROWS, *depthwise.NEON_ROWS, *_OTHERS)
_NEON64 = (*elementwise.TABLE_ROWS, *_NEON)
_DOTPROD = (
    *neon.DOTPROD_ROWS,
    *neon_wide.DOTPROD_ROWS,
    *depthwise.DOTPROD_ROWS,
    *elementwise.TABLE_ROWS,
    *_OTHERS,
)

ARM_LEVELS = (
    Level("arm-neon", "NEON", ("-march=armv8-a",), "generic", "cortex-a53", ("neon",), _NEON64),
    Level(
        "arm-neon-dotprod",
        "NEON with dot products",
        ("-march=armv8.2-a+dotprod",),
        "generic+v8_2a+dotprod",
        "cortex-a76",
        ("neon", "dotprod"),
        _DOTPROD,
    ),
    Level(
        "arm-neon-i8mm",
        "NEON with dot products and int8 matrix products",
        ("-march=armv8.2-a+dotprod+i8mm",),
        "generic+v8_2a+dotprod+i8mm",
        "max,sme=off",
        ("neon", "dotprod", "i8mm"),
        (*i8mm.ROWS, *_DOTPROD),
    ),
    Level(
        "armv7-neon",
        "NEON",
        ("-march=armv7-a", "-mfpu=neon", "-mfloat-abi=hard"),
        "generic+v7a+neon",
        "cortex-a9",  # without division and fused multiply-add, which later ones have
        ("neon",),
        _NEON,
        bits=32,
    ),
)
