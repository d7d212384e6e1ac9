"""remove-dead-channels: what stays, and the reason it gives."""

from collections.abc import Callable

import numpy as np
import pytest
from dead_channels import biases, channels, reasons, removed, shrunk
from quantized_nets import (
    Net,
    ops,
    quantize,
    run_pass,
)

from qcc.ir.compare import first_difference
from qcc.ir.graph import Value
from qcc.ir.ops.activation import Sigmoid
from qcc.ir.ops.conv_transpose import ConvTranspose2d
from qcc.ir.ops.elementwise import Mul
from qcc.ir.ops.norm import LayerNorm
from qcc.ir.ops.pool import MaxPool2d
from qcc.ir.ops.rearrange import Concat
from qcc.ir.ops.reduce import ReduceMean
from qcc.ir.ops.shape import Pad, Reshape, Transpose
from qcc.ir.ops.softmax import Softmax

# ---------------------------------------------------------------------- what stays, and why
KEPT: dict[str, tuple[str, Callable[[Net, Value], Value]]] = {
    "output": ("a value is a graph output", lambda net, x: x),
    "concat": ("concat does not sum over channels", lambda net, x: net(Concat(3), x, x)),
    "flatten": ("reshape does not sum over channels", lambda net, x: net.dense(net(Reshape((1, 128)), x), 3)),
    "softmax": ("softmax does not sum over channels", lambda net, x: net(Softmax(3), x)),
    "groups": ("conv2d does not sum over channels", lambda net, x: net.conv(x, 8, groups=2)),
    "transposed": (
        "conv_transpose2d does not sum over channels",
        lambda net, x: net(ConvTranspose2d(), x, net.constant(net.rng.normal(size=(3, 2, 2, 8)))),
    ),
    "mean over channels": ("reduce_mean does not sum over channels", lambda net, x: net(ReduceMean((3,)), x)),
    "transpose": ("transpose does not sum over channels", lambda net, x: net(Transpose((0, 3, 1, 2)), x)),
    "pad of channels": (
        "pad does not sum over channels",
        lambda net, x: net(Pad((0, 0, 0, 1), (0, 0, 0, 0)), x),
    ),
    "float": (
        "dequantize does not sum over channels",
        lambda net, x: net(LayerNorm(3), x, net.constant(np.ones(8))),
    ),
    "another with one channel": (
        "mul also reads other channels",
        lambda net, x: net.conv(net(Mul(), x, net.conv(net.x, 1)), 3),
    ),
}


@pytest.mark.parametrize("name", KEPT)
def test_groups_that_cannot_shrink_say_why(name: str) -> None:
    reason, build = KEPT[name]
    net = Net(1, 4, 4, 3)
    a = net.relu(net.conv(net.x, 8, bias=biases(8, 2, 5), name="acc"), name="a")
    stages = removed(net, build(net, a))
    assert reasons(stages)["acc.acc"] == reason
    assert channels(stages, "a") == 8


def test_inputs_and_what_is_tied_to_them_stay() -> None:
    net = Net(1, 4, 4, 8)
    weights = net.rng.normal(size=(3, 1, 1, 8))
    weights[..., 2] = 0.0
    stages = removed(net, net.conv(net.relu(net(MaxPool2d(), net.x)), 3, weights=weights, name="y"))
    assert reasons(stages)["x"] == "a value is a graph input"
    assert channels(stages, "x") == 8


def test_channels_that_are_not_computed_one_by_one_stay() -> None:
    net = Net(1, 4, 4, 8)
    weights = net.rng.normal(size=(3, 1, 1, 16))
    weights[..., 2] = 0.0
    joined = net(Concat(3), net.x, net.x, name="joined")
    stages = removed(net, net.conv(joined, 3, weights=weights))
    assert reasons(stages)["joined"] == "concat does not compute its channels one by one"


def test_a_concat_of_a_dead_and_a_living_part() -> None:
    net = Net(1, 4, 4, 3)
    a = net.relu(net.conv(net.x, 8, bias=biases(8, 2), name="acc"))
    joined = net(Concat(3), a, net.conv(net.x, 2, name="other"))
    stages = removed(net, net.conv(joined, 3))
    assert reasons(stages)["acc.acc"] == reasons(stages)["other.acc"] == "concat does not sum over channels"


def test_a_value_in_float_ties_its_group() -> None:
    net = Net(1, 4, 4, 3)
    soft = net(LayerNorm(3), net.x, net.constant(np.ones(3)), name="norm")
    stages = removed(net, net.conv(net(Mul(), net(Sigmoid(), soft), soft), 3))
    assert reasons(stages)["norm"] == "a value is not an integer tensor"


def test_folded_zero_points_are_needed() -> None:
    """Without fold-zero-points the constants of a reader are not plain products."""
    net = Net(1, 4, 4, 3)
    a = net.relu(net.conv(net.x, 8, bias=biases(8, 2), name="acc"))
    graph = quantize(net.finish(net.conv(a, 4)), net.samples(), "quantize-ops")["quantize-ops"]
    graph, _ = run_pass(graph, "plan-accumulators")
    _, result = run_pass(graph, "remove-dead-channels")
    assert not result.changed
    assert {n.reason for n in result.notes if n.node == "acc.acc"} == {"conv2d does not sum over channels"}


def test_nothing_dead_changes_nothing() -> None:
    net = Net(1, 4, 4, 3)
    stages = removed(net, net.conv(net.conv(net.x, 8), 4))
    assert not shrunk(stages)
    assert ops(stages["plan-accumulators"]) == ops(stages["remove-dead-channels"])
    assert first_difference(stages["plan-accumulators"], stages["remove-dead-channels"]) is None
