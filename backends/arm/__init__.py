"""Arm application processors: kernels in NEON intrinsics, selected before the portable ones."""

from __future__ import annotations

from dataclasses import dataclass

from qcc.backends.arm import depthwise, neon, pooling
from qcc.backends.kernel import Kernel


@dataclass(frozen=True)
class Level:
    """A 64-bit instruction set: ``target``: name of its target; ``architecture``: for -march; ``cpu``: of QEMU."""

    target: str
    title: str
    architecture: str
    cpu: str
    features: tuple[str, ...]
    kernels: tuple[Kernel, ...]


ARM_LEVELS = (
    Level("arm-neon", "NEON", "armv8-a", "cortex-a53", ("neon",), (*neon.NEON_ROWS, *depthwise.NEON_ROWS, *pooling.ROWS)),
    Level(
        "arm-neon-dotprod",
        "NEON with dot products",
        "armv8.2-a+dotprod",
        "cortex-a76",
        ("neon", "dotprod"),
        (*neon.DOTPROD_ROWS, *depthwise.DOTPROD_ROWS, *pooling.ROWS),
    ),
)
