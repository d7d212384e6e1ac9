"""Layers of every kind and odd shape from float graphs, and libraries between pages that fault, for every instruction set."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from kernel_harness import integer_graph

from qcc.backends.c.build import build_program, run_program
from qcc.backends.target import Target
from qcc.ir.builder import Builder
from qcc.ir.graph import Graph, Value
from qcc.ir.op import OPS
from qcc.ir.types import f32

Array = np.ndarray[Any, Any]
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


RUNS = (1, 2, 3, 4, 7, 8, 9, 16, 17, 31, 32, 33, 63, 64, 65, 100, 127, 128, 129, 200)


def moving_layers(net: Net) -> None:
    """Runs of every length: joined, cut, padded on both sides, repeated."""
    for index, run in enumerate(RUNS):
        x, other = net.input(1, 3, 5, run), net.input(1, 3, 5, RUNS[-1 - index])
        net.emit("concat", x, other, output=f"concat {run}", axis=3)
        net.emit("concat", x, net.constant(1, 2, 5, run), x, output=f"concat constant {run}", axis=1)
        before, after = index % 3, index % 5
        net.emit(
            "pad", x, output=f"pad {run}", begins=(0, 1, 0, before), ends=(0, 0, 2, after), value=index % 2
        )
        net.emit("resize_nearest", x, output=f"resize {run}", out_size=(7, 9), scales=(7 / 3, 9 / 5))
        if run > 2:
            net.emit("slice", x, output=f"cut {run}", axes=(3,), starts=(1,), ends=(run - 1,), steps=(1,))
            net.emit("slice", x, output=f"skip {run}", axes=(1, 2), starts=(0, 4), ends=(3, 0), steps=(2, -2))
            net.emit(
                "slice", x, output=f"reverse {run}", axes=(3,), starts=(run - 1,), ends=(0,), steps=(-1,)
            )
    net.emit("pad", net.input(1, 40), output="pad a row", begins=(0, 3), ends=(0, 70))
    net.emit("pad", net.input(1, 4, 4, 6), output="edge", begins=(0, 1, 2, 0), ends=(0, 2, 1, 0), mode="edge")
    net.emit("transpose", net.input(1, 5, 6, 24), output="transpose", perm=(0, 2, 1, 3))
    for channels, size in ((2, (9, 15)), (3, (8, 17)), (4, (13, 10)), (3, (3, 5)), (5, (8, 9))):
        x = net.input(1, channels, *size)
        net.emit("transpose", x, output=f"transpose {x.type}", perm=(0, 2, 3, 1))


def softmax_layers(net: Net) -> None:
    """Pairs, short and long rows of int8, and rows of accumulators."""
    for rows in (1, 15, 31, 32, 33, 100):
        net.emit("softmax", net.input(1, rows, 2), output=f"softmax {rows} 2", axis=2)
    for count in (1, 3, 8, 9, 15, 16, 17, 33, 100, 1000):
        net.emit("softmax", net.input(1, 3, count), output=f"softmax 3 {count}", axis=2)
        mean = net.emit("reduce_mean", net.input(1, 3, 2, count), axes=(1, 2))
        net.emit("softmax", mean, output=f"softmax of a mean {count}", axis=3)
    for count in (2, 12, 40):
        acc = net.emit("dense", net.input(1, 20), net.constant(count, 20), net.constant(count))
        net.emit("softmax", acc, output=f"softmax of a dense layer {count}", axis=1)


def table_layers(net: Net) -> None:
    for count in (1, 63, 64, 65, 200):
        net.emit("sigmoid", net.input(1, count), output=f"sigmoid {count}")


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


def run_guarded(
    nets: Sequence[Any], target: Target, emitted: Callable[..., Any], tmp_path: Path, names: tuple[str, ...]
) -> None:
    """Run each net of one step, on a kernel with one of ``names`` in its own, between pages that fault."""
    everything = tmp_path / "everything"
    everything.mkdir()
    for index, net in enumerate(nets):
        if isinstance(net, Net):
            net.plan()
        net.graph.name = f"net{index}"
        folder, program = emitted(net, target)
        assert [any(n in o.kernel.symbol for n in names) for o in program.operations] == [True], index
        shutil.copytree(folder, everything, dirs_exist_ok=True)
        sizes = {"inputs": program.input_bytes, "outputs": program.output_bytes}
        text = GUARD.format(name=program.name, arena=program.plan.arena_bytes // 64 * 64 + 64, **sizes)
        (everything / f"{program.name}_guard.c").write_text(text)
    calls = "".join(f"  check_net{index}();\n" for index in range(len(nets)))
    declarations = "".join(f"int check_net{index}(void);\n" for index in range(len(nets)))
    main = everything / "test_main.c"
    main.write_text(f'#include <stdio.h>\n{declarations}int main(void) {{\n{calls}  puts("done");\n}}\n')
    assert run_program(build_program(everything, target, [main]), target) == "done\n"
