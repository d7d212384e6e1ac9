"""Steps compiled by TVM: the bytes of the interpreter for any shape, on this machine and under QEMU."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from compiled import Emitted, check, generated
from float_layers import Net as FloatNet
from float_layers import depthwise_layers
from planned_steps import Layer, Net, every_count, random_layers

from qcc.backends.c.build import build_program, find_compiler, find_runner, run_program
from qcc.backends.c.run import load
from qcc.backends.program import Program
from qcc.backends.target import Target, find_target
from qcc.ir import interpreter
from qcc.ir.ops.quant import Requantize

pytestmark = pytest.mark.compiler


def without_certificates(net: Net) -> Net:
    """The same net, whose requantizations have to be computed in integers."""
    for node in net.graph.nodes:
        if isinstance(node.op, Requantize):
            node.op = replace(node.op, certified=())
    return net


@pytest.mark.parametrize("certified", [True, False])
def test_every_number_of_channels(certified: bool, vnni: Target, emitted: Emitted) -> None:
    layers = every_count(Layer)
    net = Net(layers, 1)
    program = check(net if certified else without_certificates(net), vnni, emitted, net.samples(4))
    assert len(generated(program)) == len(layers)


@pytest.mark.parametrize("seed", [11, 12])
def test_random_layers(seed: int, vnni: Target, emitted: Emitted) -> None:
    """Strides, dilations, borders, filters of 1 to 5 taps, residual operands, dense layers of several rows."""
    layers = random_layers(Layer, np.random.default_rng(seed), 20)
    net = Net(layers, seed)
    program = check(net if seed == 11 else without_certificates(net), vnni, emitted, net.samples(4))
    assert len(generated(program)) == len(layers)


def test_depthwise_layers(vnni: Target, emitted: Emitted) -> None:
    net = FloatNet(3)
    depthwise_layers(net, 24)
    program = check(net, vnni, emitted, net.plan())
    assert {"tvm_depthwise_conv2d", "tvm_dilated_depthwise_conv2d"} <= set(generated(program))


def test_max_pools(vnni: Target, emitted: Emitted) -> None:
    net = FloatNet(4)
    for channels, pads, strides in (
        (3, (0, 1, 0, 1), (1, 2)),
        (64, (1, 1, 1, 1), (2, 2)),
        (70, (0,) * 4, (1, 1)),
    ):
        x = net.input(1, 7, 6, channels)
        net.emit("max_pool2d", x, output=f"{channels}", kernel=(3, 2), pads=pads, strides=strides)
    assert generated(check(net, vnni, emitted, net.plan())).count("tvm_max_pool2d") == 3


def test_calls_do_not_grow_memory(vnni: Target, emitted: Emitted) -> None:
    """Layers of each kind, with tiles of every size on the stack."""
    layers = [
        Layer(8, 70, (3, 3), size=(4, 4), pads=(1, 1, 1, 1), residual="add"),
        Layer(32, 32, (3, 3), size=(5, 8), pads=(1, 1, 1, 1), groups=32),
        Layer(64, 10, size=None),
    ]
    net = Net(layers, 5)
    call_often(net, vnni, emitted, net.samples(3))


def test_calls_of_formulas_do_not_grow_memory(vnni: Target, emitted: Emitted) -> None:
    """Pools, a sum, a table, a mean and softmax, whose sums lie on the stack."""
    net = FloatNet(6)
    x = net.input(1, 6, 7, 24)
    window = {"kernel": (3, 3), "pads": (1, 1, 1, 1)}
    both = net.emit(
        "add", net.emit("avg_pool2d", x, **window), net.emit("max_pool2d", x, **window), output="sum"
    )
    mean = net.emit("reduce_mean", net.emit("sigmoid", both, output="table"), axes=(1, 2), output="mean")
    net.emit("softmax", mean, axis=3, output="softmax")
    program = call_often(net, vnni, emitted, net.plan())
    assert {"tvm_avg_pool2d", "tvm_max_pool2d", "tvm_reference"} == set(generated(program))
    assert len(generated(program)) == len(program.operations)


def call_often(net: Any, target: Target, emitted: Emitted, samples: Any) -> Program:
    """Ten thousand calls that leave the memory as it was, and results right."""
    folder, program = emitted(net, target)
    library = load(folder, target)
    expected = interpreter.run(program.graph, samples)
    many = {name: np.repeat(x, 50, axis=0) for name, x in samples.items()}
    library.run(many)
    before = resident_bytes()
    for _ in range(10_000 // len(next(iter(many.values()))) + 1):
        got = library.run(many)
    assert resident_bytes() - before < 2**20
    for name, y in expected.items():
        np.testing.assert_array_equal(got[name], np.repeat(y, 50, axis=0))
    return program


def resident_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * 4096


@pytest.mark.qemu
@pytest.mark.parametrize("name", ["tvm:arm-neon-dotprod", "tvm:arm-neon-i8mm"])
def test_aarch64_equals_the_interpreter(name: str, emitted: Emitted) -> None:
    target = find_target(name)
    if find_compiler(target) is None:
        pytest.skip(f"no compiler for {target.name} is installed")
    if find_runner(target) is None:
        pytest.skip(f"{target.runner[0]} is not installed")
    layers = [
        *random_layers(Layer, np.random.default_rng(21), 12),
        Layer(24, 24, (3, 3), size=(6, 6), groups=24),
    ]
    net = Net(layers, 21)
    folder, program = emitted(net, target, net.samples(3))
    assert len(generated(program)) == len(layers)
    text = run_program(build_program(folder, target, [folder / "test_main.c"]), target)
    assert text == "layers: 3 of 3 test vectors passed\n"
