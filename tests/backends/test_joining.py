"""Concatenations that are no step: what their operands' steps write lies where it belongs, for any reader."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "kernels"))
from kernel_harness import integer_graph

from qcc.backends.c.emit import emit
from qcc.backends.c.run import load, load_traced
from qcc.backends.program import Program
from qcc.backends.program import build_program as make_program
from qcc.backends.target import Target, find_target
from qcc.backends.x86.features import lacking_features
from qcc.ir import interpreter
from qcc.ir.builder import Builder
from qcc.ir.graph import Graph, Value
from qcc.ir.op import OPS
from qcc.ir.types import f32
from qcc.report import _memory

Array = np.ndarray[Any, Any]


class Net:
    """A float graph of one input, made integer by ``plan``."""

    def __init__(self) -> None:
        self.graph, self.rng = Graph("net"), np.random.default_rng(5)
        self.builder = Builder(self.graph)
        self.x = self.graph.add_input("x", f32(1, 6, 7, 12))

    def emit(self, op: str, *operands: Value | None, name: str, **attributes: Any) -> Value:
        return self.builder.emit(OPS[op](**attributes), *operands, name=name)

    def conv(self, x: Value, outputs: int, name: str, taps: int = 1) -> Value:
        shape = (outputs, taps, taps, x.type.shape[-1])
        w = self.builder.constant(self.rng.normal(size=shape).astype(np.float32), f"{name}_w")
        return self.emit("conv2d", x, w, None, name=name, pads=(taps // 2,) * 4)

    def plan(self, *outputs: Value) -> dict[str, Array]:
        for value in outputs:
            self.graph.add_output(value, value.name)
        shape = (3, *self.x.type.shape[1:])
        self.graph = integer_graph(self.graph, {"x": self.rng.normal(size=shape).astype(np.float32)})
        return {"x": self.rng.integers(-128, 128, shape).astype(np.int8)}


@pytest.fixture
def vnni() -> Target:
    target = find_target("x86-avx512vnni")
    if lacking_features(target.features):
        pytest.skip("this machine has no AVX512-VNNI")
    return target


@pytest.fixture
def checked(tmp_path: Path) -> Callable[..., Program]:
    """`checked(net, samples, target, **options)`: the program, whose library gives the interpreter's bytes."""

    def run(net: Net, samples: dict[str, Array], target: Target, **options: Any) -> Program:
        program = make_program(net.graph, target, "net", **options)
        folder = emit(program, tmp_path / f"net{len(list(tmp_path.iterdir()))}")
        expected = interpreter.run(net.graph, samples)
        got = load(folder, target).run(samples)
        got = got if isinstance(got, dict) else dict.fromkeys(expected, got)
        for name, array in expected.items():
            np.testing.assert_array_equal(got[name], array)
        values: dict[str, Array] = {}
        interpreter.run(net.graph, samples, observe=lambda v, array: values.update({v.name: array}))
        for name, array in load_traced(folder, target).run(samples).items():
            np.testing.assert_array_equal(array, values[name], name)
        return program

    return run


def patterns(program: Program) -> list[str]:
    return [operation.step.root.op.name for operation in program.operations]


@pytest.mark.compiler
@pytest.mark.parametrize("threads", [1, 2])
def test_convolutions_leave_room_between_pixels(
    vnni: Target, checked: Callable[..., Program], threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qcc.backends.parallel.BARRIER_CYCLES", 0)
    monkeypatch.setattr("qcc.backends.parallel.RUN_CYCLES", 0)
    net = Net()
    squeezed = net.conv(net.x, 16, "squeeze")
    parts = [net.conv(squeezed, 64, "one"), net.conv(squeezed, 20, "three", taps=3)]
    whole = net.emit("concat", *parts, name="whole", axis=3)
    samples = net.plan(
        net.conv(whole, 24, "reader"), net.emit("max_pool2d", whole, name="pool", kernel=(2, 2))
    )
    program = checked(net, samples, vnni, threads=threads)
    assert "concat" not in patterns(program)
    places = {o.step.output.name: program.place(o.step.output).offset for o in program.operations}
    assert places["three"] - places["one"] == 64
    block = next(b for b in _memory(program) if b["name"] == "whole")
    assert (block["offset"], block["bytes"], block["first"]) == (places["one"], 6 * 7 * 84, 1)
    assert block["last"] == len(program.operations) - 1
    if threads > 1:
        assert any(o.parts and o.step.output.name in ("one", "three") for o in program.operations)


@pytest.mark.compiler
@pytest.mark.qemu
@pytest.mark.parametrize("name", ["arm-neon", "arm-neon-dotprod", "arm-neon-i8mm"])
def test_neighbours_on_arm(checked: Callable[..., Program], name: str) -> None:
    """No kernel writes beyond its own channels: those beside them may be there already."""
    net = Net()
    kinds = ((20, 3), (7, 1), (33, 1), (13, 3))
    parts = [net.conv(net.x, outputs, f"part{outputs}", taps) for outputs, taps in kinds]
    samples = net.plan(net.emit("concat", *parts, name="y", axis=3))
    program = checked(net, samples, find_target(name))
    assert patterns(program) == ["conv2d"] * 4


@pytest.mark.compiler
def test_runs_lie_one_behind_the_other(checked: Callable[..., Program]) -> None:
    """Any kernel writes them, through a reshape too, and a concatenation can be part of another."""
    net = Net()
    flat = [
        net.emit("reshape", net.conv(net.x, n, f"c{n}"), name=f"flat{n}", shape=(1, 42 * n // 4, 4))
        for n in (4, 8, 12)
    ]
    inner = net.emit("concat", *flat[:2], name="inner", axis=1)
    whole = net.emit("concat", inner, flat[2], name="whole", axis=1)
    samples = net.plan(net.emit("sigmoid", whole, name="y"))
    target = find_target("c")
    program = checked(net, samples, target)
    assert "concat" not in patterns(program)
    places = [program.place(o.step.output).offset for o in program.operations[:3]]
    assert [p - places[0] for p in places] == [0, 42 * 4, 42 * 12]
    apart = make_program(net.graph, target, "net", join=False)
    assert patterns(apart).count("concat") == 2
    assert program.plan.arena_bytes < apart.plan.arena_bytes


@pytest.mark.compiler
def test_output_is_written_in_place(checked: Callable[..., Program]) -> None:
    net = Net()
    parts = net.conv(net.x, 5, "a"), net.conv(net.x, 5, "b", taps=3)
    samples = net.plan(net.emit("concat", *parts, name="y", axis=1))
    program = checked(net, samples, find_target("c"))
    assert patterns(program) == ["conv2d", "conv2d"]
    assert [program.place(o.step.output).region for o in program.operations] == ["output"] * 2


@pytest.mark.parametrize("kind", ["input", "output", "twice", "read", "pool", "add", "no step"])
def test_what_cannot_be_written_in_place_is_copied(kind: str) -> None:
    net = Net()
    a, b = net.conv(net.x, 32, "a"), net.conv(net.x, 12, "b")
    outputs: list[Value] = []
    if kind == "input":
        b = net.x
    elif kind == "output":
        outputs.append(b)
    elif kind == "twice":
        b = a
    elif kind == "read":
        outputs.append(net.conv(b, 7, "other"))
    elif kind == "pool":
        b = net.emit("max_pool2d", b, name="pool", kernel=(1, 1))
    elif kind == "add":
        b = net.emit("add", b, net.x, name="sum")
    net.plan(net.conv(net.emit("concat", a, b, name="whole", axis=3), 9, "reader"), *outputs)
    target = find_target("c" if kind == "no step" else "x86-avx512vnni")
    program = make_program(net.graph, target, "net")
    assert patterns(program).count("concat") == 1
    assert not program.joined
