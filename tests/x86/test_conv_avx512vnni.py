"""The AVX512-VNNI convolution: the bytes of the interpreter for any shape, memory clean, portable C."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from planned_steps import every_count, random_layers

from qcc.backends.c.build import build_program, library_sources, run_program
from qcc.backends.c.emit import emit
from qcc.backends.c.run import load
from qcc.backends.kernel import Kernel
from qcc.backends.program import build_program as make_program
from qcc.backends.target import Compiler, Target, find_target
from qcc.driver import compile_graph
from qcc.ir import interpreter
from qcc.ir.fixedpoint import quantize

pytestmark = pytest.mark.compiler

SANITIZE = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


def command(compiler: str) -> tuple[str, ...]:
    """``gcc`` or ``zig``; skips where it is missing."""
    if compiler == "zig":
        pytest.importorskip("ziglang", reason="the zig compiler is not installed")
        return (sys.executable, "-m", "ziglang", "cc", "-fno-sanitize=undefined")
    if shutil.which(compiler) is None:
        pytest.skip(f"compiler {compiler} is not installed")
    return (compiler,)


def sanitized(target: Target) -> Target:
    """gcc with sanitizers, which end the program at the first error."""
    flags = tuple(flag for flag in target.flags if flag != "-O3")
    return replace(target, compilers=(Compiler(command("gcc"), ""),), flags=(*flags, *SANITIZE))


def check(folder: Any, program: Any, samples: Any, target: Target, layers: list[Any]) -> None:
    """All outputs equal, and all steps ran on the kernel under test unless the plan has no certificate."""
    expected = interpreter.run(program.graph, samples)
    got = load(folder, target).run(samples)
    wrong = [layers[int(name[1:])] for name, y in expected.items() if not np.array_equal(got[name], y)]
    assert wrong == []
    spread = np.concatenate([y.reshape(-1) for y in expected.values()])
    assert np.unique(spread).size > 200, "the test data must not saturate"
    assert all("avx512vnni" in operation.kernel.symbol for operation in program.operations)


@pytest.mark.parametrize("compiler", ["gcc", "zig"])
def test_every_number_of_channels(
    compiler: str,
    net: Any,
    layer: Any,
    emitted: Callable[..., Any],
    vnni: Target,
    strict: Callable[..., Target],
) -> None:
    layers = every_count(layer)
    graph = net(layers, 1)
    folder, program = emitted(graph, vnni)
    target = strict(replace(vnni, compilers=(Compiler(command(compiler), ""),)))
    check(folder, program, graph.samples(5), target, layers)


def variants(symbol: str = "qcc_s8_conv2d_avx512vnni") -> list[Kernel]:
    """One row of each register tile, for a plain convolution."""
    rows = find_target("x86-avx512vnni").kernels
    return [k for k in rows if k.pattern == "conv2d+requantize" and k.symbol == symbol]


def only(target: Target, row: Kernel) -> Target:
    """The target with this tile before all others, whatever it costs."""
    kernels = [
        replace(k, priority=100) if k.symbol == row.symbol and k.variant == row.variant else k
        for k in target.kernels
    ]
    return replace(target, kernels=tuple(kernels))


@pytest.mark.parametrize("row", variants(), ids=lambda row: row.label)
def test_every_tile(row: Kernel, net: Any, layer: Any, emitted: Callable[..., Any], vnni: Target) -> None:
    """Each tile with every number of pixels up to three tiles, and random layers."""
    outputs = 11 if row.variant.count("x") == 2 else int(row.variant.split("x")[1]) + 5
    layers = [layer(8, outputs, size=(1, n), residual="add" if n % 3 else "") for n in range(1, 37)]
    layers += [layer(3, outputs, (3, 3), size=(5, 6), pads=(1, 1, 1, 1)), layer(4, 64, size=(9, 9))]
    layers += random_layers(layer, np.random.default_rng(len(row.label)), 16)
    graph = net(layers, 3)
    target = only(vnni, row)
    folder, program = emitted(graph, target)
    assert sum(op.kernel.label == row.label for op in program.operations) > 12
    check(folder, program, graph.samples(5), target, layers)


@pytest.mark.parametrize("row", variants(), ids=lambda row: row.label)
def test_padding(row: Kernel, net: Any, layer: Any, emitted: Callable[..., Any], vnni: Target) -> None:
    """Where the padding is zero as uint8, its products are left out: at the edges, the pixels have tiles of their own."""
    outputs = 11 if row.variant.count("x") == 2 else int(row.variant.split("x")[1]) + 5
    layers = [
        layer(channels, outputs, (2 * pad + 1,) * 2, size, (stride, stride), (pad,) * 4, residual=residual)
        for pad, stride, size in (
            (1, 1, (7, 8)),
            (1, 1, (14, 14)),
            (2, 1, (9, 8)),
            (1, 2, (13, 12)),
            (2, 1, (2, 2)),
        )
        for channels, residual in ((4, ""), (16, "add"), (18, ""), (32, ""), (64, "sub"))
    ]
    graph = net(layers, 4)
    target = only(vnni, row)
    folder, program = emitted(graph, target)
    padding = [op.step.root.op.pad_value for op in program.operations if op.kernel.label == row.label]
    assert padding.count(-128) > 3
    check(folder, program, graph.samples(5), target, layers)


@pytest.mark.parametrize("exact", [False, True])
def test_groups(exact: bool, net: Any, layer: Any, emitted: Callable[..., Any], vnni: Target) -> None:
    layers = [
        layer(4 * groups * c, groups * outputs, (3, 3), pads=pads, groups=groups, residual=residual)
        for groups, c, outputs in ((2, 1, 1), (3, 2, 17), (2, 4, 70))
        for pads, residual in (((1, 1, 1, 1), ""), ((0, 0, 0, 0), "add"))
    ]
    graph = net(layers, 8)
    row = variants(f"qcc_s8_conv2d_{'exact_' if exact else ''}avx512vnni")[0]
    target = only(vnni, row)
    folder, program = emitted(graph, target)
    check(folder, program, graph.samples(20), target, layers)


def test_accumulators_that_are_no_float32_numbers(
    net: Any, layer: Any, emitted: Callable[..., Any], vnni: Target
) -> None:
    """Beyond 2^24, where every product saturates, one rounding is as good as another."""
    layers = [
        layer(600, 70, (3, 3), size=(3, 4), pads=(1, 1, 1, 1)),
        layer(2500, 20, size=(2, 3), residual="add"),
    ]
    graph = net(layers, 6)
    folder, program = emitted(graph, vnni)
    for operation in program.operations:
        bound = operation.step.nodes[-1].operand("acc_max")
        assert bound is not None
        assert bound.data is not None
        assert bound.data.max() > 2**24
        assert operation.kernel.symbol == "qcc_s8_conv2d_avx512vnni"
    check(folder, program, graph.samples(40), vnni, layers)


def test_few_channels_of_a_group_stay_portable(net: Any, layer: Any, vnni: Target) -> None:
    program = make_program(net([layer(6, 4, (3, 3), groups=2)], 1).graph, vnni, "layers")
    assert "scalar" in program.operations[0].kernel.symbol
    reasons = {refusal.reason for refusal in program.operations[0].refused}
    assert "more than one group, of channels that are no multiple of 4" in reasons


@pytest.mark.parametrize("seed", [11, 12, pytest.param(13, marks=pytest.mark.slow)])
def test_random_layers(seed: int, net: Any, layer: Any, emitted: Callable[..., Any], vnni: Target) -> None:
    layers = random_layers(layer, np.random.default_rng(seed), 60)
    graph = net(layers, seed)
    folder, program = emitted(graph, vnni)
    check(folder, program, graph.samples(5), vnni, layers)


def test_host_equals_the_interpreter(net: Any, layer: Any, emitted: Callable[..., Any]) -> None:
    """Whatever kernels this machine gets."""
    layers = random_layers(layer, np.random.default_rng(5), 12)
    graph = net(layers, 5)
    samples = graph.samples(4)
    folder, program = emitted(graph, find_target("host"))
    got = load(folder, find_target("host")).run(samples)
    for name, y in interpreter.run(program.graph, samples).items():
        np.testing.assert_array_equal(got[name], y, err_msg=str(layers[int(name[1:])]))


# ---------------------------------------------------------------- memory, languages
def test_library_runs_clean_under_sanitizers(
    net: Any, layer: Any, emitted: Callable[..., Any], vnni: Target
) -> None:
    target = sanitized(vnni)
    graph = net(random_layers(layer, np.random.default_rng(21), 40), 21)
    folder, _ = emitted(graph, target, graph.samples(3))
    program = build_program(folder, target, [folder / "test_main.c"])
    assert run_program(program, target) == "layers: 3 of 3 test vectors passed\n"


def test_reads_and_writes_end_with_the_tensors(
    net: Any, layer: Any, emitted: Callable[..., Any], vnni: Target, tmp_path: Path
) -> None:
    """One layer in each library, so that nothing but red zones lies behind its input and its output."""
    target = sanitized(vnni)
    kinds = [
        layer(channels, outputs, kernel, pads=pads, size=size, strides=strides, residual=residual)
        for channels, outputs in ((1, 1), (3, 17), (5, 66), (16, 33))
        for kernel, pads, size, strides, residual in (
            ((1, 1), (0, 0, 0, 0), (3, 5), (1, 1), "add"),
            ((3, 3), (1, 1, 1, 1), (3, 4), (2, 2), ""),
            ((1, 1), (0, 0, 0, 0), None, (1, 1), ""),
        )
    ]
    everything = tmp_path / "everything"
    everything.mkdir()
    names = [f"net{index}" for index in range(len(kinds))]
    for index, (name, kind) in enumerate(zip(names, kinds, strict=True)):
        graph = net([kind], index, name)
        folder, program = emitted(graph, target, graph.samples(3))
        assert "avx512vnni" in program.operations[0].kernel.symbol
        main = (
            (folder / "test_main.c")
            .read_text()
            .replace("int main(", f"int check_{name}(void);\nint check_{name}(")
        )
        (folder / "test_main.c").rename(folder / f"{name}_main.c").write_text(main)
        shutil.copytree(folder, everything, dirs_exist_ok=True)
    declarations = "".join(f"int check_{name}(void);\n" for name in names)
    calls = " + ".join(f"check_{name}()" for name in names)
    main_file = everything / "test_main.c"
    main_file.write_text(f"{declarations}int main(void) {{ return {calls}; }}\n")
    text = run_program(build_program(everything, target, [main_file]), target)
    assert text == "".join(f"{name}: 3 of 3 test vectors passed\n" for name in names)


@pytest.mark.parametrize("compiler", ["gcc", "zig"])
def test_library_compiles_as_cpp(
    compiler: str,
    net: Any,
    layer: Any,
    emitted: Callable[..., Any],
    vnni: Target,
    strict: Callable[..., Target],
) -> None:
    """C++ objects that need no C++ library, so the C compiler links them."""
    graph = net(random_layers(layer, np.random.default_rng(31), 12), 31)
    folder, _ = emitted(graph, vnni, graph.samples(3))
    sources = [*library_sources(folder), folder / "test_main.c"]
    flags = ("-xc++", "-std=c++17", *strict(vnni).flags, "-O1", "-c")
    compile_all = [*command(compiler), *flags, *map(str, sources)]
    done = subprocess.run(compile_all, cwd=folder, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    objects = sorted(folder.glob("*.o"))
    program = folder / "test"
    subprocess.run([*command(compiler), *map(str, objects), "-o", str(program)], check=True, timeout=300)
    text = subprocess.run([str(program)], capture_output=True, text=True, check=True, timeout=60).stdout
    assert text == "layers: 3 of 3 test vectors passed\n"


# ---------------------------------------------------------------- models
@pytest.mark.parametrize(
    "name",
    [
        *("kws", "ic", "vww", "ad"),
        *(
            pytest.param(n, marks=pytest.mark.slow)
            for n in ("resnet20", "squeezenet", "mobilenetv2", "ultraface_rfb320")
        ),
    ],
)
def test_zoo_model_equals_the_interpreter(name: str, zoo: ModuleType, vnni: Target, tmp_path: Path) -> None:
    entry = zoo.load(name)
    graph = compile_graph(entry.model, calibration=entry.calib[:8]).graph
    program = make_program(graph, vnni, name)
    (x,) = program.graph.inputs
    assert x.type.qparams is not None
    samples = quantize(entry.x[:4], x.type.qparams)
    expected = interpreter.run(program.graph, {x.name: samples})
    got = load(emit(program, tmp_path / name), vnni).run({x.name: samples})
    assert any("avx512vnni" in op.kernel.symbol for op in program.operations)
    for output, y in expected.items():
        np.testing.assert_array_equal(got[output], y)
