"""The targets there are, and what of them works on this machine."""

from __future__ import annotations

import platform
import sys
from dataclasses import dataclass

from qcc.backends.c.build import find_compiler, find_runner
from qcc.backends.scalar import KERNELS
from qcc.backends.target import TARGETS, Compiler, Target, find_target, register_target
from qcc.backends.x86 import AVX512VNNI_KERNELS, AVX512VNNI_PEAK
from qcc.backends.x86.features import AVX512VNNI, lacking_features, processor_features

__all__ = [
    "Availability",
    "availability",
    "describe",
    "find_target",
]  # importing this module fills the registry

_SYSTEM = tuple(Compiler((name,), "install gcc or clang") for name in ("cc", "gcc", "clang"))


def _zig(*options: str) -> Compiler:
    # zig turns its checks of undefined behaviour on by itself; they would call into a run-time library
    argv = (sys.executable, "-m", "ziglang", "cc", "-fno-sanitize=undefined", *options)
    return Compiler(argv, "pip install ziglang")


_X86 = (
    (*_SYSTEM, _zig())
    if platform.machine().lower() in ("x86_64", "amd64")
    else (
        Compiler(("x86_64-linux-gnu-gcc",), "install gcc-x86-64-linux-gnu"),
        _zig("-target", "x86_64-linux-musl"),
    )
)


def host_target(features: frozenset[str]) -> Target:
    """The best of this machine: the kernels of the widest vectors among ``features`` of its processor."""
    vnni = features.issuperset(AVX512VNNI)
    return Target(
        name="host",
        description=f"this machine: {'AVX512-VNNI' if vnni else 'portable'} kernels",
        compilers=(*_SYSTEM, _zig()),
        kernels=(*AVX512VNNI_KERNELS, *KERNELS) if vnni else KERNELS,
        flags=("-O3", "-march=native"),
        is_native=True,
        alignment=64,
        features=AVX512VNNI if vnni else (),
        peak=AVX512VNNI_PEAK if vnni else None,
        channel_granularity=4 if vnni else 1,
    )


register_target(
    Target(
        name="c",
        description="portable C99, any processor",
        compilers=(*_SYSTEM, _zig()),
        kernels=KERNELS,
        is_native=True,
    )
)
register_target(host_target(processor_features()))
register_target(
    Target(
        name="arm-neon",
        description="64-bit Arm, NEON",
        compilers=(
            Compiler(("aarch64-linux-gnu-gcc",), "install gcc-aarch64-linux-gnu"),
            _zig("-target", "aarch64-linux-musl"),
        ),
        kernels=KERNELS,
        link_flags=("-static",),
        runner=("qemu-aarch64",),
        runner_install="install qemu-user",
        features=("neon",),
    )
)
register_target(
    Target(
        name="cortex-m4",
        description="Arm Cortex-M4F, bare metal",
        compilers=(
            Compiler(
                ("arm-none-eabi-gcc", "-mcpu=cortex-m4", "-mthumb", "-mfpu=fpv4-sp-d16", "-mfloat-abi=hard"),
                "install gcc-arm-none-eabi",
            ),
            _zig("-target", "thumb-freestanding-eabihf", "-mcpu=cortex_m4"),
        ),
        kernels=KERNELS,
        flags=("-O2", "-ffreestanding", "-ffunction-sections", "-fdata-sections"),
        link_flags=("-nostdlib", "-Wl,--gc-sections"),
        runner=(
            "qemu-system-arm",
            *("-M", "mps2-an386", "-nodefaults", "-nographic", "-monitor", "none", "-serial", "none"),
            *("-semihosting-config", "enable=on,target=native", "-kernel"),
        ),
        runner_install="install qemu-system-arm",
        features=("dsp",),
        semihosting=True,
    )
)


register_target(
    Target(
        name="x86-avx512vnni",
        description="x86-64 with AVX512-VNNI",
        compilers=_X86,
        kernels=(*AVX512VNNI_KERNELS, *KERNELS),
        flags=("-O3", *(f"-m{feature}" for feature in AVX512VNNI)),
        is_native=True,
        alignment=64,
        features=AVX512VNNI,
        peak=AVX512VNNI_PEAK,
        channel_granularity=4,
    )
)


@dataclass(frozen=True)
class Availability:
    """What works here.

    ``compiler`` and ``runner`` are command lines, empty when missing; ``missing``: what to install; ``lacking``:
    features that a native target needs and this processor does not have.
    """

    target: Target
    compiler: str
    runner: str
    missing: tuple[str, ...]
    lacking: tuple[str, ...] = ()

    @property
    def builds(self) -> bool:
        """True when a compiler is installed."""
        return bool(self.compiler)

    @property
    def runs(self) -> bool:
        """True when programs can be built and run."""
        return self.builds and not self.lacking and (self.target.is_native or bool(self.runner))


def describe() -> list[Availability]:
    """Every target, in order of registration."""
    return [availability(target) for target in TARGETS.values()]


def availability(target: Target) -> Availability:
    """What of ``target`` works on this machine."""
    compiler, runner = find_compiler(target), find_runner(target)
    missing = []
    if compiler is None:
        missing.append(" or ".join(dict.fromkeys(c.install for c in target.compilers)))
    if target.runner and runner is None:
        missing.append(target.runner_install)
    lacking = lacking_features(target.features) if target.is_native else ()
    if lacking:
        missing.append(f"run it on a processor with {', '.join(lacking)}")
    return Availability(
        target,
        " ".join(compiler.argv) if compiler else "",
        " ".join(target.runner) if runner else "",
        tuple(missing),
        lacking,
    )
