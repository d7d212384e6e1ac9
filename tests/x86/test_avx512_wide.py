"""The AVX512-VNNI kernels of tensors with 16 bits: the bytes of the interpreter for any shape and mixture, memory clean."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from math import floor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from float_layers import run_guarded
from hypothesis import assume, given
from hypothesis import strategies as st
from kernel_harness import integer_graph
from wide_checks import Emitted, Planned, check, sanitized
from wide_layers import WideNet, every_layer

from qcc.backends import parallel
from qcc.backends.c.build import build_program, library_sources, run_program
from qcc.backends.program import Program
from qcc.backends.program import build_program as make_program
from qcc.backends.target import Compiler, Target
from qcc.backends.x86 import wide, wide_elementwise
from qcc.ir import fixedpoint
from qcc.ir.ops.quant import Requantize

pytestmark = pytest.mark.compiler

Array = np.ndarray[Any, Any]
ROWS = (*wide.KERNELS, *wide_elementwise.KERNELS)
TILES = {k.variant: k for k in wide.KERNELS if k.pattern == "conv2d+requantize" and k.variant}


def on_rows(program: Program) -> float:
    """Share of the steps with 16 bits that run on the kernels under test."""
    symbols = {k.symbol for k in ROWS}
    return float(np.mean([op.kernel.symbol in symbols for op in program.operations if op.step.wide]))


@pytest.mark.parametrize("seed", [1, 2, pytest.param(3, marks=pytest.mark.slow)])
def test_layers_of_every_kind(seed: int, vnni: Target, emitted: Emitted) -> None:
    program = check(every_layer(seed, 30), vnni, emitted)
    assert on_rows(program) > 0.9
    assert {k.symbol for k in ROWS} <= {op.kernel.symbol for op in program.operations}


@pytest.mark.parametrize("variant", TILES)
def test_every_tile(variant: str, vnni: Target, emitted: Emitted) -> None:
    """Every number of pixels up to two tiles, of a block and a part of one."""
    outputs = int(variant.split("x")[1]) + 5
    kernels = [replace(k, priority=100) if k.variant == variant and k in ROWS else k for k in vnni.kernels]
    net = WideNet(len(variant))
    for n in range(1, 34):
        net.conv((1, n), (outputs, 1, 1, 1 + n % 9), "add" if n % 3 == 0 else "")
    program = check(net, replace(vnni, kernels=tuple(kernels)), emitted)
    assert sum(op.kernel.variant == variant for op in program.operations if op.step.wide) > 15


def test_threads(vnni: Target, emitted: Emitted, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BARRIER_CYCLES", "RUN_CYCLES", "RUN_SHARE"):
        monkeypatch.setattr(parallel, name, -1e12)
    program = check(every_layer(7, 16), vnni, emitted, 3)
    split = {op.kernel.symbol for op in program.operations if op.parts}
    assert {k.symbol for k in ROWS} <= split


def test_rows_refuse_what_is_not_proved(vnni: Target) -> None:
    net = WideNet(1)
    net.share = 1.0
    net.conv((2, 2), (4, 1, 1, 8))
    net.conv((2, 2), (4, 5, 5, 1000), pads=(2, 2, 2, 2))
    net.plan()

    def reasons() -> list[set[str]]:
        program = make_program(net.graph, vnni, "layers")
        return [{r.reason.partition(" between ")[0] for r in op.refused} for op in program.operations]

    assert not any("32 bits" in r or "accumulators" in r for r in reasons()[0])
    assert "accumulators" in reasons()[1]
    for node in net.graph.nodes:
        if isinstance(node.op, Requantize):
            net.graph.set_inputs(node, [node.input(0), *node.inputs[1:3], None, None])
    assert "the accumulators have no proven interval" in reasons()[0]


def test_library_runs_clean_under_sanitizers(vnni: Target, emitted: Emitted) -> None:
    target, net = sanitized(vnni), every_layer(4, 10)
    folder, _ = emitted(net, target, net.plan())
    executable = build_program(folder, target, [folder / "test_main.c"])
    assert run_program(executable, target) == "layers: 5 of 5 test vectors passed\n"


@pytest.mark.parametrize("compiler", ["gcc", "zig"])
def test_library_compiles_without_a_warning(
    compiler: str, vnni: Target, emitted: Emitted, strict: Callable[..., Target]
) -> None:
    """zig is clang."""
    argv: tuple[str, ...] = ("gcc",)
    if compiler == "zig":
        pytest.importorskip("ziglang", reason="the zig compiler is not installed")
        argv = (sys.executable, "-m", "ziglang", "cc", "-fno-sanitize=undefined")
    check(every_layer(6, 8), strict(replace(vnni, compilers=(Compiler(argv, ""),))), emitted)


def test_library_compiles_as_cpp(vnni: Target, emitted: Emitted, strict: Callable[..., Target]) -> None:
    net = every_layer(6, 8)
    net.plan()
    folder, _ = emitted(net, vnni)
    command = ["g++", "-xc++", "-std=c++17", *strict(vnni).flags, "-O1", "-fsyntax-only"]
    subprocess.run(
        [*command, *(str(f) for f in library_sources(folder) if f.suffix == ".c")], check=True, timeout=300
    )


def test_nothing_beyond_the_tensors_is_touched(vnni: Target, emitted: Emitted, tmp_path: Path) -> None:
    """Masked accesses, which sanitizers do not see: the pages around the input and the output fault."""
    nets = []

    def add(net: WideNet, chosen: str) -> None:
        real = {
            v.name: net.rng.normal(size=(3, *v.type.shape[1:])).astype(np.float32) for v in net.graph.inputs
        }
        nets.append(Planned(integer_graph(net.graph, real, [chosen])))

    for index, (outputs, kernel, channels, groups, pad) in enumerate(
        (
            (17, 1, 6, 1, 0),
            (70, 1, 7, 1, 0),
            (33, 3, 5, 1, 1),
            (40, 3, 8, 1, 0),
            (21, 3, 1, 21, 1),
            (70, 3, 1, 70, 0),
        )
    ):
        for output in (False, True):
            net = WideNet(index)
            net.conv((4, 5), (outputs, kernel, kernel, channels), pads=(pad,) * 4, groups=groups)
            add(net, (net.graph.outputs if output else net.graph.inputs)[0].name)
    net = WideNet(9)
    net.emit("add", net.input(1, 5, 21), net.input(1, 5, 21), output="add")
    add(net, net.graph.inputs[0].name)
    run_guarded(nets, vnni, emitted, tmp_path, ("s16",))


@given(
    st.integers(-(2**31), 2**31 - 1),
    st.integers(2**20, 2**31 - 1),
    st.integers(1, 62),
    st.integers(-128, 127),
)
def test_requantization_by_a_rounded_product(acc: int, multiplier: int, shift: int, zero_point: int) -> None:
    """What the kernels compute, in exact fractions: the largest integer below twice the sum and one, halved."""
    assume(abs(acc) * multiplier >> shift < 2**29)
    doubled = Fraction(2 * acc * multiplier, 2**shift) + 2 * zero_point + 1
    assert abs(doubled) < 2**31  # the low bits of a float64 hold it
    expected = fixedpoint.requantize(np.array([acc]), multiplier, shift, zero_point, -(2**30), 2**30)
    assert floor(doubled) >> 1 == expected[0]
