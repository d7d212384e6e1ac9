"""The AVX2 and AVX-VNNI kernels of tensors with 16 bits: the bytes of the interpreter for any shape and mixture, memory clean."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from float_layers import run_guarded
from hypothesis import assume, given
from hypothesis import strategies as st
from kernel_harness import integer_graph
from wide_checks import Emitted, Planned, sanitized
from wide_layers import WideNet, every_layer, sums

from qcc.backends import parallel
from qcc.backends.c.build import build_program, library_sources, run_program
from qcc.backends.c.run import load
from qcc.backends.program import Program
from qcc.backends.target import Compiler, Target, find_target
from qcc.backends.x86 import avx2_wide
from qcc.backends.x86.features import lacking_features
from qcc.ir import fixedpoint, interpreter

pytestmark = pytest.mark.compiler

Array = np.ndarray[Any, Any]
ROWS = {"x86-avx2": avx2_wide.AVX2_ROWS, "x86-avxvnni": avx2_wide.AVXVNNI_ROWS}
SHARED = {k.symbol for k in avx2_wide.SHARED}


def runnable(name: str) -> Target:
    """The target; skips where its code cannot run."""
    found = find_target(name)
    lacking = lacking_features(found.features)
    if lacking:
        pytest.skip(f"this processor lacks {', '.join(lacking)}")
    return found


@pytest.fixture(params=ROWS)
def target(request: pytest.FixtureRequest) -> Target:
    return runnable(request.param)


def means(net: WideNet) -> None:
    """Over pixels, rows, columns and channels."""
    for index, channels in enumerate((1, 7, 16, 33, 64, 70)):
        x = net.input(1, 3 + index, 5, channels)
        axes = ((1, 2), (1,), (2,), (1, 2), (3,), (1, 2))[index]
        op = ("reduce_mean", "reduce_sum")[index % 2]
        net.emit(op, x, output=f"{op} {x.type} {axes}", axes=axes)


def interleaved(net: WideNet) -> None:
    """Images whose channels lie apart."""
    for channels, pixels in ((2, (3, 5)), (3, (5, 13)), (4, (4, 8)), (3, (1, 1))):
        x = net.input(1, channels, *pixels)
        net.emit("transpose", x, output=f"transpose {x.type}", perm=(0, 2, 3, 1))


def layers(seed: int, count: int) -> WideNet:
    net = every_layer(seed, count)
    means(net)
    interleaved(net)
    return net


def check(net: WideNet, target: Target, emitted: Emitted, threads: int = 1) -> Program:
    """All outputs equal the interpreter's."""
    samples = net.plan()
    folder, program = emitted(net, target, None, threads)
    expected, got = interpreter.run(program.graph, samples), load(folder, target).run(samples)
    wrong = [net.names[int(k[1:])] for k, y in expected.items() if not np.array_equal(got[k], y)]
    assert wrong == []
    spread = np.concatenate([y.reshape(-1) for y in expected.values() if y.dtype == np.int16])
    assert np.unique(spread).size > 1000, "the test data must not saturate"
    return program


def symbols(program: Program) -> set[str]:
    return {op.kernel.symbol for op in program.operations}


@pytest.mark.parametrize("seed", [1, 2, pytest.param(3, marks=pytest.mark.slow)])
def test_layers_of_every_kind(seed: int, target: Target, emitted: Emitted) -> None:
    program = check(layers(seed, 30), target, emitted)
    assert {k.symbol for k in ROWS[target.name]} <= symbols(program)
    slow = [op for op in program.operations if op.step.wide and op.kernel.symbol.endswith("scalar")]
    root_op = [op.step.root.op for op in slow]
    assert all(getattr(op, "groups", 2) > 1 for op in root_op if op.name in ("conv2d", "dense"))


def test_wider_vectors_have_means_and_images_too(emitted: Emitted) -> None:
    net = WideNet(5)
    means(net)
    interleaved(net)
    sums(net)
    assert symbols(check(net, runnable("x86-avx512vnni"), emitted)) >= SHARED


def test_every_number_of_pixels_and_channels(target: Target, emitted: Emitted) -> None:
    """Up to two tiles of pixels, and every way to divide channels into blocks of vectors."""
    net = WideNet(8)
    for n in range(1, 26):
        net.conv((1, n), (9 + n % 3 * 8, 1, 1, 1 + n % 9), "add" if n % 3 == 0 else "")
        net.dense(1, 3 + n, 1 + 8 * n, "sub" if n % 4 == 0 else "")
    program = check(net, target, emitted)
    tried = [op.kernel in ROWS[target.name] for op in program.operations if op.step.wide]
    assert all(tried)
    assert len(tried) > 25


def test_bands_of_large_images(target: Target, emitted: Emitted) -> None:
    """More rows than one copy of the image holds."""
    net = WideNet(3)
    net.share = 1.0
    net.conv((41, 40), (20, 3, 3, 18), pads=(1, 1, 1, 1))
    net.conv((43, 50), (33, 3, 3, 9), "add", pads=(0, 1, 2, 1), strides=(2, 2))
    net.conv((37, 38), (9, 5, 2, 16), pads=(2, 0, 2, 1), dilations=(2, 1))
    net.dense(700, 64, 24)
    for operation in check(net, target, emitted).operations:
        height, band = (operation.call.params[name] for name in ("output_height", "band"))
        assert isinstance(height, int)
        assert isinstance(band, int)
        assert band < height


def test_threads(target: Target, emitted: Emitted, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BARRIER_CYCLES", "RUN_CYCLES", "RUN_SHARE"):
        monkeypatch.setattr(parallel, name, -1e12)
    program = check(layers(7, 16), target, emitted, 3)
    split = {op.kernel.symbol for op in program.operations if op.parts}
    assert {k.symbol for k in ROWS[target.name]} - SHARED <= split


def test_library_runs_clean_under_sanitizers(target: Target, emitted: Emitted) -> None:
    net, checked = layers(4, 10), sanitized(target)
    folder, _ = emitted(net, checked, net.plan())
    executable = build_program(folder, checked, [folder / "test_main.c"])
    assert run_program(executable, checked) == "layers: 5 of 5 test vectors passed\n"


@pytest.mark.parametrize("compiler", ["gcc", "zig"])
def test_library_compiles_without_a_warning(
    compiler: str, target: Target, emitted: Emitted, strict: Callable[..., Target]
) -> None:
    """zig is clang."""
    argv: tuple[str, ...] = ("gcc",)
    if compiler == "zig":
        pytest.importorskip("ziglang", reason="the zig compiler is not installed")
        argv = (sys.executable, "-m", "ziglang", "cc", "-fno-sanitize=undefined")
    check(layers(6, 8), strict(replace(target, compilers=(Compiler(argv, ""),))), emitted)


def test_library_compiles_as_cpp(target: Target, emitted: Emitted, strict: Callable[..., Target]) -> None:
    net = layers(6, 8)
    net.plan()
    folder, _ = emitted(net, target)
    command = ["g++", "-xc++", "-std=c++17", *strict(target).flags, "-O1", "-fsyntax-only"]
    files = (str(f) for f in library_sources(folder) if f.suffix == ".c")
    subprocess.run([*command, *files], check=True, timeout=300)


def test_nothing_beyond_the_tensors_is_touched(target: Target, emitted: Emitted, tmp_path: Path) -> None:
    """The pages around the input and the output fault."""
    nets = []
    for index, (outputs, kernel, channels, pad) in enumerate(
        ((17, 1, 6, 0), (70, 1, 7, 0), (33, 3, 5, 1), (8, 3, 8, 0))
    ):
        net = WideNet(index)
        net.conv((4, 5), (outputs, kernel, kernel, channels), pads=(pad,) * 4)
        nets.append(net)
    nets += [WideNet(seed) for seed in (4, 5, 6, 7)]
    nets[4].dense(1, 37, 60)
    nets[5].emit("add", nets[5].input(1, 5, 21), nets[5].input(1, 5, 21), output="add")
    nets[6].emit("reduce_mean", nets[6].input(1, 3, 3, 21), output="mean", axes=(1, 2))
    nets[7].emit("transpose", nets[7].input(1, 3, 5, 5), output="transpose", perm=(0, 2, 3, 1))
    guarded = []
    for net in nets:
        real = {
            v.name: net.rng.normal(size=(3, *v.type.shape[1:])).astype(np.float32) for v in net.graph.inputs
        }
        chosen = (net.graph.inputs[0].name, net.graph.outputs[0].name)
        kinds = (chosen[:1], chosen[1:]) if len(guarded) < 8 else (chosen,)
        guarded += [Planned(integer_graph(net.graph.clone(), real, names)) for names in kinds]
    run_guarded(guarded, target, emitted, tmp_path, ("s16",))


@given(
    st.integers(-(2**31), 2**31 - 1),
    st.integers(2**20, 2**31 - 1),
    st.integers(1, 62),
    st.integers(-128, 127),
)
def test_requantization_without_an_arithmetic_shift(
    acc: int, multiplier: int, shift: int, zero_point: int
) -> None:
    """What the kernels compute, in exact integers of 64 bits without sign, and 32 bits at the end."""
    assume(abs(acc) * multiplier >> shift < 2**29)
    moved = acc * multiplier + (2**63 + 2 ** (shift - 1))
    assert 0 <= moved < 2**64
    low = (moved >> shift) + zero_point - (2**63 >> shift) & 0xFFFFFFFF
    expected = fixedpoint.requantize(np.array([acc]), multiplier, shift, zero_point, -(2**30), 2**30)
    assert (low ^ 2**31) - 2**31 == expected[0]
