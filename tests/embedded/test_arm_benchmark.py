"""Counting under QEMU: exact on loops of known length, and whole on a library."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from embedded_tools import CHECKOUT, require_build, require_run

from qcc.backends.c.run import build_main, read_metadata

LOOP = """
int main(void) {
  COUNT_BEGIN();
  __asm__ volatile(".rept 10\\n nop\\n .endr");
  COUNT_STEP();
  __asm__ volatile("%s\\n 1: subs %s, %s, #1\\n bne 1b" ::: "%s", "cc");
  COUNT_END();
  return 0;
}
"""
REGISTER = {
    "arm-neon": ("mov w9, #1000", "w9", "w9", "x9"),
    "armv7-neon": ("movw r3, #1000", "r3", "r3", "r3"),
    "cortex-m4": ("movw r3, #1000", "r3", "r3", "r3"),
}


@pytest.mark.compiler
@pytest.mark.qemu
@pytest.mark.parametrize("name", list(REGISTER))
def test_loops_are_counted_exactly(name: str, arm: ModuleType, tmp_path: Path) -> None:
    require_build("c")
    target = require_run(name)
    plugin = arm.build_plugin(tmp_path)
    (tmp_path / "loop.c").write_text(LOOP % REGISTER[name], encoding="utf-8")
    (tmp_path / "library").mkdir()
    flags = ("-include", str(CHECKOUT / "benchmarks" / "count_marks.h"))
    program = build_main(tmp_path / "library", target, tmp_path / "loop.c", tmp_path / "build", flags)
    steps = Counter[int]()
    for (step, _), times in arm.run_counted(program, target, plugin).items():
        steps[step] += times
    assert steps == {0: 10, 1: 2001}


@pytest.mark.compiler
@pytest.mark.qemu
@pytest.mark.parametrize("name", list(REGISTER))
def test_steps_of_a_library_are_counted(
    name: str, arm: ModuleType, digits: Callable[..., Any], tmp_path: Path
) -> None:
    require_build("c")
    target, folder = require_run(name), digits(name).folder
    meta = read_metadata(folder)
    program = arm.build_counted(folder, target, meta)
    row = arm.Row("digits", name)
    arm.enter_counts(row, arm.run_counted(program, target, arm.build_plugin(tmp_path)), program, target, meta)
    assert len(row.layers) == len(meta["layers"])
    assert all(layer.instructions > 0 for layer in row.layers)
    assert row.instructions == sum(row.functions.values()) == sum(row.mnemonics.values())
    tail = row.instructions - sum(layer.instructions for layer in row.layers)
    assert 0 <= tail < 100  # what NAME_run does behind its last step
    assert "digits_run" in row.functions
