"""Counting under QEMU: exact on loops of known length, and whole on a library; other engines; the static model's loops."""

import importlib
import math
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from embedded_tools import CHECKOUT, EXAMPLES, require_build, require_run

from qcc.backends.c.image import Instruction, disassemble
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


def test_hottest_loop_is_an_innermost_one(arm: ModuleType) -> None:
    """0: outer { 4: first { 8, c }, 10: second { 14, 18 }, 1c } and a branch out of the function."""
    mca = importlib.import_module("arm_mca")
    branches = {0xC: "4 <f+0x4>", 0x18: "10 <f+0x10>", 0x1C: "0 <f>", 0x20: "0 <g>"}
    code = [
        Instruction(a, "f", "b.ne" if a in branches else "add", branches.get(a, "x0, x0, x1"))
        for a in range(0, 0x24, 4)
    ]
    times = (
        {i.address: 10 for i in code}
        | dict.fromkeys(range(4, 0x10, 4), 50)
        | dict.fromkeys(range(0x10, 0x1C, 4), 80)
    )
    assert [i.address for i in mca.hottest_loop(code, times)] == [0x10, 0x14, 0x18]
    assert mca.hottest_loop(code[:3], times) == []
    assert [mca.assembly(i) for i in code[2:4]] == ["add x0, x0, x1", "b.ne loop"]


VECTORS = """
int main(void) {
  COUNT_BEGIN();
  __asm__ volatile("mov x9, #1000\\n 1: add v0.4s, v0.4s, v1.4s\\n add v0.4s, v0.4s, v1.4s\\n subs x9, x9, #1\\n bne 1b"
                   ::: "x9", "v0", "cc");
  COUNT_END();
  return 0;
}
"""


@pytest.mark.compiler
@pytest.mark.qemu
def test_loops_are_estimated_by_llvm_mca(arm: ModuleType, tmp_path: Path) -> None:
    """Two additions that wait for each other: at least two cycles, though the units could do both in one."""
    require_build("c")
    target = require_run("arm-neon")
    mca = importlib.import_module("arm_mca")
    tool = mca.find_mca()
    if tool is None:
        pytest.skip("llvm-mca is not installed")
    (tmp_path / "loop.c").write_text(VECTORS, encoding="utf-8")
    (tmp_path / "library").mkdir()
    flags = ("-include", str(CHECKOUT / "benchmarks" / "count_marks.h"))
    program = build_main(tmp_path / "library", target, tmp_path / "loop.c", tmp_path / "build", flags)
    times = Counter[int]()
    for (_, address), executed in arm.run_counted(program, target, arm.build_plugin(tmp_path)).items():
        times[address] += executed
    (loop,) = mca.estimate(tool, disassemble(program, target), times, tmp_path)
    assert (loop.function, loop.instructions, loop.rounds, loop.executed) == ("main", 4, 1000, 4000)
    assert loop.shown == {"add": 2, "subs": 1, "b.ne": 1}
    assert 0 < loop.bound <= 2 < loop.cycles


def test_instructions_of_peers_are_told_apart_by_file(arm: ModuleType) -> None:
    peers = importlib.import_module("arm_peers")
    maps = [(0x1000, 0x2000, "engine.so"), (0x2000, 0x3000, "python3.11")]
    steps = Counter({(0, 0x1000): 5, (0, 0x1FFC): 7, (0, 0x2000): 100, (0, 0x4000): 1})
    assert peers.by_file(steps, maps) == {"python3.11": 100, "engine.so": 12, "": 1}


def test_peers_that_are_not_installed_say_what_to_do(arm: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r"install_peers\.py .* --arm"):
        arm.find_peers(tmp_path, tmp_path / "plugin.so", tmp_path)


def test_ratio_is_to_the_best_engine_counted_or_else_to_the_published_one(arm: ModuleType) -> None:
    results = importlib.import_module("arm_report")
    row = results.Row("kws", "arm-neon", instructions=1_000_000)
    assert row.rival == ("published", 1.335e6)
    row.peers = [
        results.PeerRow("A", "1", "kws", "arm-neon", instructions=2_000_000),
        results.PeerRow("B", "1", "kws", "arm-neon", instructions=1_500_000),
        results.PeerRow("C", "1", "kws", "arm-neon", instructions=1, error="fails"),
    ]
    assert row.rival == ("B", 1_500_000)
    assert [line.split(" of ")[0] for line in results.means([row])] == [
        f"arm-neon: {mean:.3f}" for mean in (0.5, 2 / 3, 1 / 1.335)
    ]
    assert math.isnan(results.Row("other", "cortex-m0").rival[1])


@pytest.mark.slow
@pytest.mark.compiler
@pytest.mark.qemu
def test_an_engine_is_counted_in_an_emulated_python(arm: ModuleType, tmp_path: Path) -> None:
    """onnxruntime, whose output must be that of the float model but for quantization; the same count twice."""
    folder = Path(os.environ.get("QCC_PEERS", "."))
    if not (folder / "aarch64").is_dir():
        pytest.skip("no engines for Arm: QCC_PEERS names no folder of install_peers.py --arm")
    target, plugin = require_run("arm-neon"), arm.build_plugin(tmp_path)
    contest, seeded_models = importlib.import_module("contest"), importlib.import_module("seeded_models")
    calibration = np.load(EXAMPLES / "digits_calib.npz")["image"]
    entry = seeded_models.Entry(EXAMPLES / "digits.onnx", calibration, calibration[:4])
    case, peers = contest.Case.make("digits", entry, tmp_path), arm.find_peers(folder, plugin, tmp_path)
    runs = [{r.engine: r for r in peers.count(case, target, tmp_path / "runs")} for _ in range(2)]
    first, second = (rows["onnxruntime"] for rows in runs)
    assert first.error == second.error == ""
    assert first.sqnr_db > 20
    assert first.instructions > 230_720 / 8  # multiply-accumulates, of which an instruction does eight
    assert abs(first.instructions - second.instructions) < 0.02 * first.instructions  # hash tables differ
