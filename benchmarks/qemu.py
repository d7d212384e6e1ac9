"""Exact counts of executed instructions: the plugin for QEMU, and what it writes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from qcc.backends.c.build import run_tool

HERE = Path(__file__).resolve().parent


def build_plugin(folder: Path) -> Path:
    """Compile qemu_count.c."""
    folder.mkdir(parents=True, exist_ok=True)
    result = folder / "qemu_count.so"
    run_tool(["cc", "-O2", "-shared", "-fPIC", str(HERE / "qemu_count.c"), "-o", str(result)], 60)
    return result.absolute()


def read_counts(path: Path) -> Counter[tuple[int, int]]:
    """How often (step, address) was executed."""
    steps = Counter[tuple[int, int]]()
    for line in path.read_text(encoding="ascii").splitlines():
        step, address, times = line.split()
        steps[int(step), int(address, 16)] += int(times)
    return steps
