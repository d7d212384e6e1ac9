"""Targets: the registry, what is missing here, failing compilers, and cross targets under their emulators."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qcc.backends.c.build import build_archive, build_program, build_shared, run_program
from qcc.backends.c.run import load
from qcc.backends.target import Compiler, find_target, register_target
from qcc.backends.targets import describe
from qcc.ir import interpreter
from qcc.ir.errors import TargetError


def test_describe_covers_every_target() -> None:
    found = {a.target.name: a for a in describe()}
    assert {"c", "host", "arm-neon", "cortex-m4", "x86-avx512vnni", "x86-avxvnni", "x86-avx2"} <= set(found)
    for availability in found.values():
        assert availability.builds or availability.missing
        assert availability.runs or availability.missing


def test_unknown_target_lists_the_known_ones() -> None:
    with pytest.raises(TargetError, match="unknown target 'z80'\nhint: known targets: c, host"):
        find_target("z80")


def test_target_name_is_taken_once() -> None:
    with pytest.raises(ValueError, match="registered twice"):
        register_target(find_target("c"))


def test_missing_compiler_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "a.c").write_text("int a;\n")
    target = replace(find_target("c"), compilers=(Compiler(("no-such-cc",), "install no-such-cc"),))
    with pytest.raises(
        TargetError, match="no C compiler for target c is installed\nhint: install no-such-cc"
    ):
        build_shared(tmp_path, target)


def test_missing_runner_says_what_to_install(tmp_path: Path) -> None:
    target = replace(find_target("arm-neon"), runner=("no-such-emulator",), runner_install="install it")
    with pytest.raises(TargetError, match="need no-such-emulator, which is not installed\nhint: install it"):
        run_program(tmp_path / "a", target)


def test_cross_target_makes_no_shared_library(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="not native"):
        build_shared(tmp_path, find_target("cortex-m4"))


def test_endless_program_is_stopped() -> None:
    target = replace(find_target("c"), runner=(sys.executable, "-c"), runner_install="")
    with pytest.raises(TargetError, match="did not finish within"):
        run_program(Path("while True: pass"), target, seconds=0.5)


@pytest.mark.compiler
def test_compiler_error_is_shown(tmp_path: Path, target: Callable[[str], Any]) -> None:
    (tmp_path / "a.c").write_text("int a = nothing;\n")
    with pytest.raises(TargetError, match=r"failed with status 1(.|\n)*nothing"):
        build_shared(tmp_path, target("c"))


@pytest.mark.compiler
def test_failing_program_is_reported(tmp_path: Path, target: Callable[[str], Any]) -> None:
    (tmp_path / "main.c").write_text("int main(void) { return 3; }\n")
    program = build_program(tmp_path, target("c"), [])
    with pytest.raises(TargetError, match="failed with status 3"):
        run_program(program, target("c"))


@pytest.mark.compiler
@pytest.mark.parametrize("name", ["host", "arm-neon", "cortex-m4"])
def test_target_equals_the_interpreter(
    name: str, target: Callable[[str], Any], residual_net: Callable[[], Any], emitted: Callable[..., Any]
) -> None:
    net = residual_net()
    samples = net.samples(6)
    folder, program = emitted(net, samples)
    got = load(folder, target(name)).run(samples["image"])
    np.testing.assert_array_equal(got, interpreter.run(program.graph, samples)["scores"])


@pytest.mark.compiler
@pytest.mark.slow
@pytest.mark.parametrize("name", ["arm-neon", "cortex-m4"])
def test_zig_builds_cross_targets(
    name: str, target: Callable[[str], Any], residual_net: Callable[[], Any], emitted: Callable[..., Any]
) -> None:
    pytest.importorskip("ziglang", reason="the zig compiler is not installed")
    zig = replace(target(name), compilers=target(name).compilers[1:])
    net = residual_net()
    samples = net.samples(3)
    folder, program = emitted(net, samples)
    assert build_archive(folder, zig)
    got = load(folder, zig).run(samples["image"])
    np.testing.assert_array_equal(got, interpreter.run(program.graph, samples)["scores"])
