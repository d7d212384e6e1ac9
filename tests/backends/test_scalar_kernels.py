"""Convolution, dense and elementwise kernels equal the interpreter bit for bit, under several compilers."""

import shutil
import subprocess
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from qcc.backends.c.build import build_program, library_sources, run_program
from qcc.backends.c.run import load
from qcc.ir import interpreter

pytestmark = pytest.mark.compiler
STRICT = ("-Wconversion", "-pedantic", "-Werror")


def random_layers(net: Any, count: int = 14) -> None:
    """Branches from inputs of their own, each an output whose name tells the configuration."""
    rng = net.rng
    for index in range(count):
        depthwise = bool(rng.integers(2))
        groups = int(rng.choice([1, 1, 2, 3]))
        channels = int(rng.choice([1, 3, 4, 5, 17, 70])) * groups
        kernel = (int(rng.integers(1, 4)), int(rng.integers(1, 5)))
        attributes: dict[str, Any] = {
            "strides": (int(rng.integers(1, 4)), int(rng.integers(1, 4))),
            "pads": tuple(int(p) for p in rng.integers(0, 4, 4)),
            "dilations": (int(rng.integers(1, 3)), int(rng.integers(1, 3))),
            "groups": channels if depthwise else groups,
        }
        outputs = channels if depthwise else groups * int(rng.choice([1, 2, 4, 7]))
        height, width = (int(s) for s in rng.integers(7, 10, 2))
        name = f"conv{index}_{channels}_{outputs}_{kernel}_{attributes}"
        x = net.input(f"x{index}", 1, height, width, channels)
        acc = net.conv2d(x, outputs, kernel, name, **attributes)
        kind = index % 4
        if kind in (1, 2):
            skip = net.input(f"skip{index}", *acc.type.shape)
            acc = net.residual(acc, skip, name, minus=kind == 2, swap=kind == 1 and bool(rng.integers(2)))
        elif kind == 3:
            acc = net.add_constant_to(acc, name)
        low = int(rng.integers(-128, 0))
        net.output(net.requantize(acc, 3e4 * np.sqrt(kernel[0] * kernel[1]), name, low, low + 120))


def dense_layers(net: Any) -> None:
    for inputs, outputs in ((1, 1), (15, 3), (16, 4), (17, 5), (130, 9)):
        x = net.input(f"dense{inputs}", 1, 3, inputs)
        net.output(net.requantize(net.dense(x, outputs, f"dense{inputs}"), 3e4, f"dense{inputs}_y"))
    x, skip = net.input("dense_x", 1, 20), net.input("dense_skip", 1, 6)
    net.output(net.requantize(net.residual(net.dense(x, 6, "dr"), skip, "dr"), 3e5, "dense_residual"))


def elementwise_layers(net: Any) -> None:
    shapes = (
        ((1, 4, 3, 5), (1, 4, 3, 5)),
        ((1, 4, 3, 5), (1, 1, 1, 5)),
        ((1, 4, 1, 5), (1, 1, 3, 1)),
        ((1, 2, 3, 4, 5), (1, 2, 1, 4, 1)),
        ((1, 1), (1, 7)),
    )
    for index, (a_shape, b_shape) in enumerate(shapes):
        a, b = net.input(f"a{index}", *a_shape), net.input(f"b{index}", *b_shape)
        net.output(net.requantize(net.add(a, b, f"add{index}"), 2e6, f"add{index}_y"))
        net.output(net.requantize(net.add(a, b, f"adc{index}", per_channel=True), 2e6, f"adc{index}_y"))
        net.output(net.requantize(net.mul(a, b, f"mul{index}"), 2e4, f"mul{index}_y"))
        net.output(net.requantize(net.mul(a, b_shape, f"mulc{index}"), 4e6, f"mulc{index}_y"))
        added = net.add_constant(a, b_shape, f"addc{index}", swap=bool(index % 2))
        net.output(net.requantize(added, 2e6, f"addc{index}_y"))
        net.output(net.requantize(a, 90, f"requantize{index}", low=-90))


@pytest.fixture
def all_layers(integer_graph: Callable[..., Any]) -> Callable[[int], Any]:
    def make(seed: int) -> Any:
        net = integer_graph(seed, "layers")
        random_layers(net)
        dense_layers(net)
        elementwise_layers(net)
        return net

    return make


@pytest.mark.parametrize(
    ("compiler", "flags", "seed"),
    [
        ("cc", ("-O3",), 1),
        pytest.param("cc", ("-O3",), 2, marks=pytest.mark.slow),
        pytest.param("clang", ("-O3",), 1, marks=pytest.mark.slow),
        pytest.param("zig", ("-O0",), 1, marks=pytest.mark.slow),
        pytest.param("zig", ("-O3",), 2, marks=pytest.mark.slow),
    ],
)
def test_kernels_equal_the_interpreter(
    compiler: str,
    flags: tuple[str, ...],
    seed: int,
    all_layers: Callable[[int], Any],
    emitted: Callable[..., Any],
    compiler_target: Callable[..., Any],
) -> None:
    target = compiler_target(compiler, *flags, *STRICT)
    net = all_layers(seed)
    samples = net.samples(4)
    folder, program = emitted(net, samples)
    expected = interpreter.run(program.graph, samples)
    got = load(folder, target).run(samples)
    wrong = [name for name, y in expected.items() if not np.array_equal(got[name], y)]
    assert wrong == [], f"seed {seed}"
    spread = np.concatenate([y.reshape(-1) for y in expected.values()])
    assert np.unique(spread).size > 200, "the test data must not saturate"


@pytest.mark.parametrize("compiler", ["gcc", pytest.param("clang", marks=pytest.mark.slow)])
def test_kernels_run_clean_under_sanitizers(
    compiler: str,
    all_layers: Callable[[int], Any],
    emitted: Callable[..., Any],
    compiler_target: Callable[..., Any],
) -> None:
    flags = ("-O1", "-fsanitize=undefined,address", "-fno-sanitize-recover=all")
    target = compiler_target(compiler, *flags, *STRICT)
    net = all_layers(3)
    folder, _ = emitted(net, net.samples(3))
    program = build_program(folder, target, [folder / "test_main.c"])
    assert run_program(program, target) == "layers: 3 of 3 test vectors passed\n"


@pytest.mark.parametrize("compiler", ["g++", pytest.param("clang++", marks=pytest.mark.slow)])
def test_library_compiles_as_cpp(
    compiler: str, all_layers: Callable[[int], Any], emitted: Callable[..., Any]
) -> None:
    if shutil.which(compiler) is None:
        pytest.skip(f"compiler {compiler} is not installed")
    net = all_layers(4)
    folder, _ = emitted(net, net.samples(2))
    sources = [*library_sources(folder), folder / "test_main.c"]
    command = [compiler, "-x", "c++", "-std=c++17", "-O1", "-Wall", "-Wextra", *STRICT]
    subprocess.run([*command, *map(str, sources), "-o", str(folder / "test")], check=True, timeout=300)
    assert subprocess.run([str(folder / "test")], check=False, timeout=60).returncode == 0


def test_objects_need_no_library(
    all_layers: Callable[[int], Any], emitted: Callable[..., Any], compiler_target: Callable[..., Any]
) -> None:
    if shutil.which("nm") is None:
        pytest.skip("nm, which comes with a compiler, is not installed")
    net = all_layers(5)
    folder, _ = emitted(net, net.samples(2))
    load(folder, compiler_target("cc", "-O3", "-ffreestanding"))
    objects = sorted((folder / "build").glob("*.o"))

    def symbols(option: str) -> set[str]:
        command = ["nm", option, *map(str, objects)]
        text = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
        return {line.split()[-1] for line in text.splitlines() if line and not line.endswith(":")}

    undefined = symbols("--undefined-only") - symbols("--defined-only")
    assert undefined <= {"memcpy", "memset", "_GLOBAL_OFFSET_TABLE_"}


def test_data_sections_are_read_only(
    all_layers: Callable[[int], Any], emitted: Callable[..., Any], compiler_target: Callable[..., Any]
) -> None:
    if shutil.which("nm") is None:
        pytest.skip("nm, which comes with a compiler, is not installed")
    net = all_layers(6)
    folder, _ = emitted(net, net.samples(2))
    load(folder, compiler_target("cc", "-O1"))
    objects = sorted((folder / "build").glob("*.o"))
    text = subprocess.run(
        ["nm", *map(str, objects)], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    written = [line for line in text.splitlines() if len(line.split()) == 3 and line.split()[1] in "bBdDC"]
    # relocated read-only data of position-independent code is in .data.rel.ro, which nm marks as d
    assert [line for line in written if not line.split()[2].startswith(("params", "inputs"))] == []
