"""Arm processors: kernels in intrinsics, selected before the portable ones."""

from __future__ import annotations

from dataclasses import dataclass

from qcc.backends.arm import depthwise, i8mm, neon, pooling
from qcc.backends.kernel import Kernel


@dataclass(frozen=True)
class Level:
    """A 64-bit instruction set.

    ``target``: name of its target; ``architecture``: for -march of gcc and clang; ``zig``: for -mcpu of zig; ``cpu``: of QEMU.
    """

    target: str
    title: str
    architecture: str
    zig: str
    cpu: str
    features: tuple[str, ...]
    kernels: tuple[Kernel, ...]


_DOTPROD = (*neon.DOTPROD_ROWS, *depthwise.DOTPROD_ROWS, *pooling.ROWS)
_NEON = (*neon.NEON_ROWS, *depthwise.NEON_ROWS, *pooling.ROWS)

ARM_LEVELS = (
    Level("arm-neon", "NEON", "armv8-a", "generic", "cortex-a53", ("neon",), _NEON),
    Level(
        "arm-neon-dotprod",
        "NEON with dot products",
        "armv8.2-a+dotprod",
        "generic+v8_2a+dotprod",
        "cortex-a76",
        ("neon", "dotprod"),
        _DOTPROD,
    ),
    Level(
        "arm-neon-i8mm",
        "NEON with dot products and int8 matrix products",
        "armv8.2-a+dotprod+i8mm",
        "generic+v8_2a+dotprod+i8mm",
        "max,sme=off",
        ("neon", "dotprod", "i8mm"),
        (*i8mm.ROWS, *_DOTPROD),
    ),
)
