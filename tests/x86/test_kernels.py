"""The AVX512 kernels besides the dense convolution: the bytes of the interpreter for any shape, memory clean, portable C."""

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "kernels"))
from kernel_harness import integer_graph

from qcc.backends.c.build import build_program, library_sources, run_program
from qcc.backends.c.run import load
from qcc.backends.program import Program
from qcc.backends.program import build_program as make_program
from qcc.backends.target import Compiler, Target
from qcc.backends.x86 import depthwise, elementwise, pooling
from qcc.ir import interpreter
from qcc.ir.builder import Builder
from qcc.ir.graph import Graph, Value
from qcc.ir.op import OPS
from qcc.ir.ops.quant import Requantize
from qcc.ir.types import f32

pytestmark = pytest.mark.compiler

Array = np.ndarray[Any, Any]
Emitted = Callable[..., tuple[Path, Program]]
CHANNELS = (
    1,
    2,
    3,
    5,
    8,
    15,
    16,
    17,
    21,
    22,
    24,
    31,
    32,
    33,
    48,
    60,
    63,
    64,
    65,
    70,
    96,
    128,
    130,
    144,
    176,
    200,
)


@dataclass
class Net:
    """Independent branches of float ops, each an output; ``plan`` gives the graph its integer form."""

    seed: int
    graph: Graph = field(default_factory=lambda: Graph("layers"))
    names: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        self.builder = Builder(self.graph)

    def input(self, *shape: int) -> Value:
        return self.graph.add_input(f"x{len(self.graph.inputs)}", f32(*shape))

    def constant(self, *shape: int) -> Value:
        data = self.rng.normal(size=shape).astype(np.float32)
        return self.builder.constant(data, f"constant{len(self.names)}_{len(shape)}")

    def emit(self, op: str, *operands: Value | None, output: str = "", **attributes: Any) -> Value:
        node = OPS[op](**attributes)
        value = self.builder.emit(node, *operands, name=f"step{len(self.names)}_{op}")
        if output:
            self.names.append(output)
            self.graph.add_output(value, f"y{len(self.names) - 1}")
        return value

    def depthwise(
        self, size: tuple[int, int], channels: int, kernel: tuple[int, int], **attributes: Any
    ) -> None:
        """With a residual sum in every third layer."""
        x, title = self.input(1, *size, channels), f"{size} {channels} {kernel} {attributes}"
        w, bias = self.constant(channels, *kernel, 1), self.constant(channels)
        kind = ("", "", "add", "sub")[len(self.names) % 4]
        acc = self.emit("conv2d", x, w, bias, output="" if kind else title, groups=channels, **attributes)
        if kind:
            self.emit(kind, acc, self.input(*acc.type.shape), output=f"{title} {kind}")

    def plan(self) -> dict[str, Array]:
        """Make the graph integer. Returns samples for it: all -128, all 127, random bytes."""
        real = {
            v.name: self.rng.normal(size=(3, *v.type.shape[1:])).astype(np.float32) for v in self.graph.inputs
        }
        self.graph = integer_graph(self.graph, real)
        samples = {}
        for value in self.graph.inputs:
            x = self.rng.integers(-128, 128, (5, *value.type.shape[1:]))
            x[0], x[1] = -128, 127
            samples[value.name] = x.astype(np.int8)
        return samples


def depthwise_layers(net: Net, count: int) -> None:
    rng = net.rng
    for index in range(count):
        kernel = ((3, 3), (3, 3), (3, 3), (5, 5), (1, 4), (7, 1), (2, 3), (3, 3))[index % 8]
        dilations = (1, 1) if index % 8 < 3 else pair(rng, 1, 2)
        strides = ((1, 1), (2, 2), (1, 1))[index % 8] if index % 8 < 3 else pair(rng, 1, 3)
        reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
        pads = tuple(int(rng.integers(0, r)) for r in (*reach, *reach))
        least = [max(1, r - pads[i] - pads[i + 2]) for i, r in enumerate(reach)]
        height, width = (n + int(rng.integers(0, 12)) for n in least)
        channels = int(rng.choice(CHANNELS))
        net.depthwise((height, width), channels, kernel, strides=strides, pads=pads, dilations=dilations)


def pooling_layers(net: Net, count: int) -> None:
    rng = net.rng
    for index in range(count):
        kernel = pair(rng, 1, 4)
        pads = tuple(int(rng.integers(0, k)) for k in (*kernel, *kernel))
        height, width = (k + int(rng.integers(0, 7)) for k in kernel)
        x = net.input(1, height, width, int(rng.choice(CHANNELS)))
        window = {"kernel": kernel, "strides": pair(rng, 1, 3), "pads": pads}
        op = ("avg_pool2d", "max_pool2d")[index % 2]
        if op == "avg_pool2d":
            window["count_include_pad"] = bool(rng.integers(2))
        net.emit(op, x, output=f"{op} {x.type} {window}", **window)
        axes = ((1, 2), (1,), (2,), (3,), (1, 3))[index % 5]
        op = ("reduce_mean", "reduce_sum")[index % 2]
        net.emit(op, x, output=f"{op} {x.type} {axes}", axes=axes)
    for index, channels in enumerate((1, 17, 64, 70, 128, 192)):  # windows that share columns
        for stride in (1, 2):
            x = net.input(1, int(rng.integers(3, 9)), int(rng.integers(3, 9)), channels)
            pads = tuple(int(n) for n in rng.integers(0, 3, 4)) if index % 2 else (0,) * 4
            window = {"kernel": (3, 3), "strides": (1 + index % 3, stride), "pads": pads}
            net.emit("max_pool2d", x, output=f"max_pool2d {x.type} {window}", **window)


def classifier_heads(net: Net) -> None:
    """A mean whose accumulators the softmax reads."""
    for size, channels in (((3, 5), 7), ((7, 7), 70), ((2, 1), 64)):
        mean = net.emit("reduce_mean", net.input(1, *size, channels), axes=(1, 2))
        net.emit("softmax", mean, output=f"reduce_mean softmax {size} {channels}", axis=3)


def elementwise_layers(net: Net) -> None:
    shapes: Iterator[tuple[tuple[int, ...], tuple[int, ...]]] = iter(
        (
            ((1, 4, 3, 5), (1, 4, 3, 5)),
            ((1, 5, 3, 70), (1, 5, 3, 70)),
            ((1, 4, 3, 17), (17,)),
            ((1, 4, 1, 33), (1, 1, 3, 1)),
            ((1, 2, 3, 4, 5), (1, 2, 1, 4, 1)),
            ((1, 1), (1, 7)),
        )
    )
    for a_shape, b_shape in shapes:
        a, b = net.input(*a_shape), net.input(*((1,) * (len(a_shape) - len(b_shape)) + b_shape))
        for op in ("add", "sub", "mul"):
            net.emit(op, a, b, output=f"{op} {a_shape} {b_shape}")
            net.emit(op, a, net.constant(*b_shape), output=f"{op} {a_shape} constant {b_shape}")
        net.emit("add", net.constant(*b_shape), a, output=f"add constant {b_shape} {a_shape}")
    for channels, size in ((2, (9, 15)), (3, (8, 17)), (4, (13, 10)), (3, (3, 5)), (5, (8, 9))):
        x = net.input(1, channels, *size)
        net.emit("transpose", x, output=f"transpose {x.type}", perm=(0, 2, 3, 1))
    x, y = net.input(1, 6, 21), net.emit("softmax", net.input(1, 6, 21), axis=2)
    net.emit("concat", x, y, output="concat of two scales", axis=1)


def pair(rng: np.random.Generator, low: int, high: int) -> tuple[int, int]:
    return int(rng.integers(low, high + 1)), int(rng.integers(low, high + 1))


def every_layer(seed: int, count: int) -> Net:
    net = Net(seed)
    depthwise_layers(net, count)
    pooling_layers(net, count // 2)
    classifier_heads(net)
    elementwise_layers(net)
    return net


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
    flags = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    kept = tuple(flag for flag in vnni.flags if flag != "-O3")
    target = replace(vnni, compilers=(Compiler(("gcc",), "install gcc"),), flags=(*kept, *flags))
    net = every_layer(4, 32)
    samples = net.plan()
    folder, _ = emitted(net, target, samples)
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
    target = strict(replace(vnni, compilers=(Compiler(argv, ""),)))
    check(every_layer(6, 24), target, emitted)


def test_library_compiles_as_cpp(vnni: Target, emitted: Emitted, strict: Callable[..., Target]) -> None:
    net = every_layer(7, 24)
    net.plan()
    folder, _ = emitted(net, vnni)
    command = ["g++", "-xc++", "-std=c++17", *strict(vnni).flags, "-O1", "-fsyntax-only"]
    subprocess.run([*command, *map(str, library_sources(folder))], check=True, timeout=300)


GUARD = """
#define _DEFAULT_SOURCE
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include "{name}.h"

/* `bytes` bytes at the end, or at the beginning, of readable memory. */
static int8_t *guarded(size_t bytes, int at_end) {{
  const size_t page = 4096, room = (bytes + page - 1) / page * page;
  int8_t *start = mmap(NULL, room + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (start == MAP_FAILED || mprotect(start + page, room, PROT_READ | PROT_WRITE) != 0) {{
    exit(2);
  }}
  return start + page + (at_end ? room - bytes : 0);
}}

int check_{name}(void);
int check_{name}(void) {{
  static int8_t arena[{arena}] __attribute__((aligned(64)));
  for (int at_end = 0; at_end < 2; ++at_end) {{
    {name}_run(arena, guarded({inputs}, at_end), guarded({outputs}, at_end));
  }}
  return 0;
}}
"""


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
    everything = tmp_path / "everything"
    everything.mkdir()
    for index, net in enumerate(nets):
        net.plan()
        net.graph.name = f"net{index}"
        folder, program = emitted(net, target)
        assert ["avx512" in o.kernel.symbol for o in program.operations] == [True], net.names
        shutil.copytree(folder, everything, dirs_exist_ok=True)
        sizes = {"inputs": program.input_bytes, "outputs": program.output_bytes}
        text = GUARD.format(name=program.name, arena=program.plan.arena_bytes // 64 * 64 + 64, **sizes)
        (everything / f"{program.name}_guard.c").write_text(text)
    calls = "".join(f"  check_net{index}();\n" for index in range(len(nets)))
    declarations = "".join(f"int check_net{index}(void);\n" for index in range(len(nets)))
    main = everything / "test_main.c"
    main.write_text(f'#include <stdio.h>\n{declarations}int main(void) {{\n{calls}  puts("done");\n}}\n')
    assert run_program(build_program(everything, target, [main]), target) == "done\n"
