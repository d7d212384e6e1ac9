"""Steps compiled from the reference's own formulas: the bytes of the interpreter for any shape."""

from collections.abc import Callable

import pytest
from compiled import Emitted, check
from float_layers import (
    Net,
    elementwise_layers,
    pooling_layers,
    softmax_layers,
    table_layers,
)
from wide_layers import WideNet, sums

from qcc.backends.target import Target

pytestmark = pytest.mark.compiler
MOVEMENT = {"concat", "transpose"}  # bytes, not arithmetic


def resize_layers(net: Net) -> None:
    for channels in (1, 5, 64, 70):
        x = net.input(1, 4, 5, channels)
        for out, scales in (((8, 10), (2.0, 2.0)), ((7, 9), (1.75, 1.8)), ((2, 3), (0.5, 0.6))):
            net.emit("resize_linear", x, output=f"resize {x.type} {out}", out_size=out, scales=scales)


def extreme_layers(net: Net) -> None:
    for axes in ((1, 2), (3,), (2,), (1, 2, 3)):
        for op in ("reduce_max", "reduce_min"):
            net.emit(op, net.input(1, 4, 5, 70), output=f"{op} {axes}", axes=axes)


@pytest.mark.parametrize(
    "layers",
    [
        elementwise_layers,
        lambda net: pooling_layers(net, 20),
        softmax_layers,
        table_layers,
        resize_layers,
        extreme_layers,
    ],
    ids=["elementwise", "pooling", "softmax", "table", "resize", "extreme"],
)
def test_layers(layers: Callable[[Net], None], vnni: Target, emitted: Emitted) -> None:
    net = Net(5)
    layers(net)
    program = check(net, vnni, emitted, net.plan())
    left = {op.step.pattern for op in program.operations if not op.kernel.is_generated}
    assert left <= MOVEMENT


@pytest.mark.parametrize("seed", [1, 2])
def test_layers_of_16_bits(seed: int, vnni: Target, emitted: Emitted) -> None:
    net = WideNet(seed)
    for layers in (sums, elementwise_layers, softmax_layers, table_layers, resize_layers, extreme_layers):
        layers(net)
    program = check(net, vnni, emitted, net.plan())
    wide = [op.kernel.is_generated for op in program.operations if op.step.wide]
    assert sum(wide) > 0.8 * len(wide)
