"""What the processor of this machine can do, as far as the kernels ask: names such as ``avx512vnni``."""

from __future__ import annotations

import os
import sys
from functools import cache
from pathlib import Path

from qcc.backends.c.build import run_tool
from qcc.ir.errors import TargetError

AVX2 = ("avx2",)
AVXVNNI = ("avx2", "avxvnni")
AVX512VNNI = ("avx512f", "avx512bw", "avx512vl", "avx512vnni")
CPUINFO = Path("/proc/cpuinfo")
SYSCTL = ("sysctl", "-n", "machdep.cpu.features", "machdep.cpu.leaf7_features")
OVERRIDE = "QCC_CPU_FEATURES"  # a list of names: every other one counts as absent


def processor_features() -> frozenset[str]:
    """Features of this processor; empty where the system does not tell.

    The environment variable QCC_CPU_FEATURES (names separated by commas) can hide features, never add one.
    """
    found = _detected()
    named = os.environ.get(OVERRIDE)
    return found if named is None else found & parse_features(named)


def parse_features(text: str) -> frozenset[str]:
    """Names in one spelling: Linux has ``avx512_vnni`` and ``sse4_1``, macOS ``AVX512VNNI`` and ``SSE4.1``."""
    return frozenset(text.lower().replace("_", "").replace(".", "").replace(",", " ").split())


def read_cpuinfo(text: str) -> frozenset[str]:
    """Features that every processor of a /proc/cpuinfo has: a thread may move to any of them."""
    lines = (line.partition(":") for line in text.splitlines())
    sets = [parse_features(names) for key, _, names in lines if key.strip() in ("flags", "Features")]
    return frozenset.intersection(*sets) if sets else frozenset()


def lacking_features(needed: tuple[str, ...]) -> tuple[str, ...]:
    """Those of ``needed`` that this processor does not have."""
    features = processor_features()
    return tuple(feature for feature in needed if feature not in features)


def require_features(name: str, needed: tuple[str, ...]) -> None:
    """Raise TargetError when this processor lacks what target ``name`` needs: its code would end the process."""
    lacking = ", ".join(lacking_features(needed))
    if lacking:
        raise TargetError(
            f"target {name} needs {lacking}, which this processor does not have",
            hint="compile for target host, which uses what this processor has, or run it on one that does have it",
        )


@cache
def _detected() -> frozenset[str]:
    if sys.platform == "linux":
        return (
            read_cpuinfo(CPUINFO.read_text(encoding="utf-8", errors="replace"))
            if CPUINFO.is_file()
            else frozenset()
        )
    try:
        return parse_features(run_tool(SYSCTL))
    except TargetError:  # no such tool, or it does not know these names: another system, another processor
        return frozenset()
