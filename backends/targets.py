"""The targets there are, and what of them works on this machine."""

from __future__ import annotations

import platform
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from qcc.backends.arm import ARM_LEVELS
from qcc.backends.arm.cortex_m import DSP_KERNELS
from qcc.backends.arm.cortex_m_wide import WIDE_KERNELS
from qcc.backends.arm.mve import MVE_KERNELS
from qcc.backends.c.build import find_compiler, find_runner
from qcc.backends.kernel import Kernel
from qcc.backends.scalar import KERNELS
from qcc.backends.target import TARGETS, Compiler, Target, find_target, register_target
from qcc.backends.tvm import INSTALL_TVM, ISAS, generator, has_tvm, rows, tuner
from qcc.backends.x86 import AVX2_KERNELS, AVX512VNNI_KERNELS, AVX512VNNI_PEAK, AVXVNNI_KERNELS
from qcc.backends.x86.features import AVX2, AVX512VNNI, AVXVNNI, lacking_features, processor_features

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


@dataclass(frozen=True)
class _Level:
    """An instruction set of x86: ``suffix`` of its target, ``title``, what it adds to the portable; see Target."""

    suffix: str
    title: str
    features: tuple[str, ...]
    kernels: tuple[Kernel, ...]
    peak: Path | None = None
    granularity: int = 1


_LEVELS = (  # the best first
    _Level("avx512vnni", "AVX512-VNNI", AVX512VNNI, AVX512VNNI_KERNELS, AVX512VNNI_PEAK, 4),
    _Level("avxvnni", "AVX-VNNI", AVXVNNI, AVXVNNI_KERNELS),
    _Level("avx2", "AVX2", AVX2, AVX2_KERNELS),
)


def host_target(features: frozenset[str]) -> Target:
    """The best of this machine: the kernels of the best instruction set among ``features`` of its processor."""
    portable = _Level("", "portable", (), ())
    best = next((level for level in _LEVELS if features.issuperset(level.features)), portable)
    return Target(
        name="host",
        description=f"this machine: {best.title} kernels",
        compilers=(*_SYSTEM, _zig()),
        kernels=(*best.kernels, *KERNELS),
        flags=("-O3", "-march=native"),
        is_native=True,
        alignment=64,
        features=best.features,
        peak=best.peak,
        channel_granularity=best.granularity,
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
_ARM = {  # by the bits of an address: systems of gcc and zig, and QEMU's processor
    64: ("aarch64-linux-gnu", "aarch64-linux-musl", "qemu-aarch64"),
    32: ("arm-linux-gnueabihf", "arm-linux-musleabihf", "qemu-arm"),
}
for _arm in ARM_LEVELS:
    _gcc, _musl, _qemu = _ARM[_arm.bits]
    register_target(
        Target(
            name=_arm.target,
            description=f"{_arm.bits}-bit Arm, {_arm.title}",
            compilers=(
                Compiler((f"{_gcc}-gcc", *_arm.architecture), f"install gcc-{_gcc}"),
                _zig("-target", _musl, f"-mcpu={_arm.zig}"),
            ),
            kernels=(*_arm.kernels, *KERNELS),
            flags=("-O3",),
            link_flags=("-static",),
            runner=(_qemu, "-cpu", _arm.cpu),
            runner_install="install qemu-user",
            features=_arm.features,
        )
    )


@dataclass(frozen=True)
class _Core:
    """A Cortex-M processor: the end of its name, what it is, how gcc and zig are told, its board, its kernels; see Target."""

    suffix: str
    description: str
    flags: tuple[str, ...]
    zig: str
    board: str
    kernels: tuple[Kernel, ...] = ()
    features: tuple[str, ...] = ()
    granularity: int = 1
    linker_script: str = "cortex_m_mps2.ld"
    zig_features: str = ""


_CORES = (
    _Core(
        *("m4", "Cortex-M4F", ("-mfpu=fpv4-sp-d16", "-mfloat-abi=hard"), "thumb-freestanding-eabihf"),
        *("mps2-an386", (*DSP_KERNELS, *WIDE_KERNELS), ("dsp",), 4),
    ),
    _Core(
        *("m7", "Cortex-M7F", ("-mfpu=fpv5-sp-d16", "-mfloat-abi=hard"), "thumb-freestanding-eabihf"),
        *("mps2-an500", (*DSP_KERNELS, *WIDE_KERNELS), ("dsp",), 4),
    ),
    _Core(
        *("m55", "Cortex-M55", ("-mfloat-abi=hard",), "thumb-freestanding-eabihf", "mps3-an547"),
        *((*MVE_KERNELS, *DSP_KERNELS, *WIDE_KERNELS), ("mve",), 4, "cortex_m_mps3.ld", "+mve_fp"),
    ),
    # the board has an M4, which runs all code for an M0
    _Core("m0", "Cortex-M0, integers only", ("-mfloat-abi=soft",), "thumb-freestanding-eabi", "mps2-an386"),
)

for _core in _CORES:
    register_target(
        Target(
            name=f"cortex-{_core.suffix}",
            description=f"Arm {_core.description}, bare metal",
            compilers=(
                Compiler(
                    ("arm-none-eabi-gcc", f"-mcpu=cortex-{_core.suffix}", "-mthumb", *_core.flags),
                    "install gcc-arm-none-eabi",
                ),
                _zig("-target", _core.zig, f"-mcpu=cortex_{_core.suffix}{_core.zig_features}"),
            ),
            kernels=(*_core.kernels, *KERNELS),
            flags=("-O2", "-ffreestanding", "-ffunction-sections", "-fdata-sections"),
            link_flags=("-nostdlib", "-Wl,--gc-sections"),
            runner=(
                *("qemu-system-arm", "-M", _core.board),
                *("-nodefaults", "-nographic", "-monitor", "none", "-serial", "none"),
                *("-semihosting-config", "enable=on,target=native", "-kernel"),
            ),
            runner_install="install qemu-system-arm",
            features=_core.features,
            channel_granularity=_core.granularity,
            semihosting=True,
            linker_script=_core.linker_script,
        )
    )

for _level in _LEVELS:
    register_target(
        Target(
            name=f"x86-{_level.suffix}",
            description=f"x86-64 with {_level.title}",
            compilers=_X86,
            kernels=(*_level.kernels, *KERNELS),
            flags=("-O3", *(f"-m{feature}" for feature in _level.features)),
            is_native=True,
            alignment=64,
            features=_level.features,
            peak=_level.peak,
            channel_granularity=_level.granularity,
        )
    )

for _isa in ISAS:
    _base = TARGETS[_isa.base]
    register_target(
        replace(
            _base,
            name=f"tvm:{_isa.name}",
            description=f"{_base.description}, kernels compiled by TVM",
            kernels=(*rows(_isa), *_base.kernels),
            generate=generator(_isa),
            tune=tuner(_isa),
            channel_granularity=max(_base.channel_granularity, _isa.lanes),
        )
    )
# on a processor without its features it builds, and the message of every native target says what is lacking
register_target(
    replace(
        TARGETS["tvm:x86-avx512vnni"],
        name="tvm",
        description="This machine with AVX512-VNNI, kernels compiled by TVM",
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
    if target.generate is not None and not has_tvm():
        compiler = None
        missing.append(INSTALL_TVM)
    elif compiler is None:
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
