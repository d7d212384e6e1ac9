"""The AVX512 kernels besides the dense convolution: the bytes of the interpreter for any shape, memory clean, portable C."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import cycle
from pathlib import Path

import numpy as np
import pytest
from float_layers import CHANNELS, Net, every_layer, run_guarded
from one_kernel import run_sanitized

from qcc.backends.c.build import library_sources
from qcc.backends.c.run import load
from qcc.backends.program import Program
from qcc.backends.program import build_program as make_program
from qcc.backends.target import Compiler, Target
from qcc.backends.x86 import depthwise, elementwise, pooling
from qcc.ir import interpreter
from qcc.ir.ops.quant import Requantize

pytestmark = pytest.mark.compiler

Emitted = Callable[..., tuple[Path, Program]]


def check(net: Net, target: Target, emitted: Emitted) -> Program:
    """All outputs equal the interpreter's."""
    samples = net.plan()
    folder, program = emitted(net, target)
    expected, got = interpreter.run(program.graph, samples), load(folder, target).run(samples)
    wrong = [net.names[int(k[1:])] for k, y in expected.items() if not np.array_equal(got[k], y)]
    assert wrong == []
    spread = np.concatenate([y.reshape(-1) for y in expected.values()])
    assert np.unique(spread).size > 200, "the test data must not saturate"
    return program


def going(vnni: Target, variant: str) -> Target:
    """The target whose depthwise convolutions go along one axis only."""
    return replace(vnni, kernels=tuple(k for k in vnni.kernels if k.variant in ("", variant)))


def check_depthwise(net: Net, target: Target, emitted: Emitted) -> None:
    program = check(net, target, emitted)
    used = ["depthwise_conv2d_avx512vnni" in operation.kernel.symbol for operation in program.operations]
    assert np.mean(used) > 0.75, "the rest has no certificate, or one channel only"


@pytest.mark.parametrize("variant", ["along rows", "along columns"])
@pytest.mark.parametrize("strides", [(1, 1), (2, 2), (1, 2)])
def test_depthwise_of_every_number_of_channels(
    strides: tuple[int, int], variant: str, vnni: Target, emitted: Emitted
) -> None:
    net = Net(1)
    for index, count in enumerate(CHANNELS):
        size = (4 + index % 3, 2 + index % 8)
        net.depthwise(size, count, (3, 3), strides=strides, pads=(1, index % 2, 1, 1))
    check_depthwise(net, going(vnni, variant), emitted)


@pytest.mark.parametrize("variant", ["along rows", "along columns"])
def test_depthwise_of_every_filter(variant: str, vnni: Target, emitted: Emitted) -> None:
    """Lines longer than the scratch array, lines and columns that end in the middle of a quad, 1-D filters, dilations."""
    net = Net(2)
    sizes: Iterator[tuple[int, int]] = cycle(((5, 70), (7, 7), (131, 3), (14, 13), (9, 33), (1, 130)))
    counts = cycle((16, 40, 65, 200, 7, 30, 130, 112))
    for kernel in ((3, 3), (5, 5), (4, 4), (7, 7), (1, 5), (9, 1), (2, 3), (11, 3)):
        for strides, dilations in (((1, 1), (1, 1)), ((2, 2), (1, 1)), ((3, 1), (1, 2)), ((1, 2), (3, 1))):
            reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
            height, width = next(sizes)
            pads = [max(r // 2, r - n) for r, n in zip(reach, (height, width), strict=True)]
            shape = {"strides": strides, "dilations": dilations, "pads": (*pads, pads[0], pads[1])}
            net.depthwise((height, width), next(counts), kernel, **shape)
    check_depthwise(net, going(vnni, variant), emitted)


@pytest.mark.parametrize("seed", [1, 2, pytest.param(3, marks=pytest.mark.slow)])
def test_random_layers(seed: int, vnni: Target, emitted: Emitted) -> None:
    program = check(every_layer(seed, 48), vnni, emitted)
    used = {operation.kernel.symbol for operation in program.operations}
    assert {k.symbol for module in (depthwise, elementwise, pooling) for k in module.KERNELS} <= used


def test_rows_refuse_what_is_not_certified(vnni: Target) -> None:
    net = Net(5)
    net.depthwise((5, 5), 20, (3, 3))
    net.depthwise((5, 5), 20, (17, 16), pads=(8, 8, 8, 8))
    net.plan()
    program = make_program(net.graph, vnni, "layers")
    assert [o.kernel.symbol for o in program.operations] == [
        "qcc_s8_depthwise_conv2d_avx512vnni",
        "qcc_s8_depthwise_conv2d_scalar",
    ]
    assert {
        "one output reads 80 columns, the kernel has 64",
        "one output reads 68 columns, the kernel has 64",
        "more than one group, of channels that are no multiple of 4",
    } <= {r.reason for r in program.operations[1].refused}
    for node in net.graph.nodes:
        if isinstance(node.op, Requantize):
            node.op = replace(node.op, certified=())
    program = make_program(net.graph, vnni, "layers")
    assert "scalar" in program.operations[0].kernel.symbol
    reasons = [r.reason for r in program.operations[0].refused]
    assert "the requantize is not certified for float32" in reasons


def test_library_runs_clean_under_sanitizers(vnni: Target, emitted: Emitted) -> None:
    net = every_layer(4, 32)
    run_sanitized(net, vnni, emitted, net.plan())


@pytest.mark.parametrize("compiler", ["gcc", "zig"])
def test_library_compiles_without_a_warning(
    compiler: str, vnni: Target, emitted: Emitted, strict: Callable[..., Target]
) -> None:
    """zig is clang."""
    argv: tuple[str, ...] = ("gcc",)
    if compiler == "zig":
        pytest.importorskip("ziglang", reason="the zig compiler is not installed")
        argv = (sys.executable, "-m", "ziglang", "cc", "-fno-sanitize=undefined")
    target = strict(replace(vnni, compilers=(Compiler(argv, ""),)))
    check(every_layer(6, 24), target, emitted)


def test_library_compiles_as_cpp(vnni: Target, emitted: Emitted, strict: Callable[..., Target]) -> None:
    net = every_layer(7, 24)
    net.plan()
    folder, _ = emitted(net, vnni)
    command = ["g++", "-xc++", "-std=c++17", *strict(vnni).flags, "-O1", "-fsyntax-only"]
    subprocess.run([*command, *map(str, library_sources(folder))], check=True, timeout=300)


def test_nothing_beyond_the_tensors_is_touched(vnni: Target, emitted: Emitted, tmp_path: Path) -> None:
    """Masked accesses, which sanitizers do not see: the pages around the input and the output fault."""
    nets = []
    for channels, size, kernel, stride, pad in (
        (17, (5, 6), (3, 3), 1, 1),
        (64, (4, 5), (3, 3), 1, 0),
        (17, (4, 6), (3, 3), 1, 0),
        (70, (5, 5), (3, 3), 2, 0),
        (66, (4, 6), (2, 3), 1, 0),
        (70, (5, 5), (3, 3), 2, 1),
        (21, (6, 7), (2, 4), 1, 2),
        (65, (7, 5), (5, 5), 2, 2),
    ):
        nets.append(Net(channels))
        nets[-1].depthwise(size, channels, kernel, strides=(stride, stride), pads=(pad,) * 4)
    for index, channels in enumerate((3, 64, 70)):
        for op in ("avg_pool2d", "max_pool2d"):
            nets.append(Net(index))
            nets[-1].emit(op, nets[-1].input(1, 5, 5, channels), output=op, kernel=(3, 3), pads=(1, 1, 0, 1))
        nets.append(Net(index))
        nets[-1].emit("transpose", nets[-1].input(1, 3, 5, 7 + 8 * index), output="t", perm=(0, 2, 3, 1))
        nets.append(Net(index))
        a, b = nets[-1].input(1, 5, channels), nets[-1].input(1, 5, channels)
        nets[-1].emit("add", a, b, output="add")
    check_guarded(nets, vnni, emitted, tmp_path)


def check_guarded(nets: list[Net], target: Target, emitted: Emitted, tmp_path: Path) -> None:
    """Run each net, all of them on AVX512 kernels, between pages that fault."""
    run_guarded(nets, target, emitted, tmp_path, ("avx512",))
