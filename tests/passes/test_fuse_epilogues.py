"""fuse-epilogues: what is fused, what is not and why, and that marks change no float result."""

import numpy as np
import pytest
from quantized_nets import Net, node_of, ops, quantize, random_net, run_pass, steps_apart

from qcc.ir import interpreter
from qcc.ir.graph import Graph, Value
from qcc.ir.ops.activation import Clamp, LeakyRelu, Sigmoid, Tanh
from qcc.ir.ops.dense import Dense, MatMul
from qcc.ir.ops.elementwise import Add, Div, Mul, Sub
from qcc.ir.ops.pool import MaxPool2d
from qcc.ir.ops.reduce import ReduceMean
from qcc.passes.base import Note


def fuse(graph: Graph) -> tuple[list[str], dict[str, list[tuple[str, str]]]]:
    """Names of fused values, and what was declined, by rule. A second run changes nothing."""
    _, result = run_pass(graph, "fuse-epilogues")
    fused = [v.name for v in graph.values() if v.fused]
    assert result.changed == bool(fused)
    _, again = run_pass(graph, "fuse-epilogues")
    assert not again.changed
    assert again.notes == result.notes
    assert {n.node for n in result.notes if n.applied and n.rule != "fuse-residual"} <= set(fused)
    declined: dict[str, list[tuple[str, str]]] = {}
    for note in result.notes:
        if not note.applied:
            declined.setdefault(note.rule, []).append((note.node, note.reason))
    return fused, declined


# ---------------------------------------------------------------------- activations
@pytest.mark.parametrize("kind", ["conv", "dense", "mean", "matmul"])
def test_a_clamp_joins_the_accumulator_before_it(kind: str) -> None:
    net = Net(1, 4, 4, 3)
    acc = {
        "conv": lambda: net.conv(net.x, 5, name="acc"),
        "dense": lambda: net.dense(net.x, 5, name="acc"),
        "mean": lambda: net(ReduceMean((1, 2)), net.x, name="acc"),
        "matmul": lambda: net(MatMul(), net.x, net.input("other", 1, 4, 3, 2), name="acc"),
    }[kind]()
    assert fuse(net.finish(net.relu(acc))) == (["acc"], {})


def test_an_accumulator_with_two_users_stays() -> None:
    net = Net(1, 4, 4, 3)
    acc = net.conv(net.x, 3, name="acc")
    graph = net.finish(net.relu(acc), net(MaxPool2d(), acc))
    assert fuse(graph) == ([], {"fuse-activation": [("acc", "the value has 2 users")]})


def test_an_accumulator_that_is_an_output_stays() -> None:
    net = Net(1, 4, 4, 3)
    acc = net.conv(net.x, 3, name="acc")
    graph = net.finish(acc, net.relu(acc))
    assert fuse(graph) == ([], {"fuse-activation": [("acc", "the value is a graph output")]})


def test_a_clamp_after_a_table_joins_the_table() -> None:
    """x * c and x * sigmoid(x) are accumulating ops too, but the clamp belongs to their table."""
    net = Net(1, 4, 4, 3)
    scaled = net(Mul(), net.x, net.constant([1.0, 2.0, 3.0]), name="scaled")
    gate = net(Sigmoid(), net.x, name="gate")
    swish = net(Mul(), net.x, gate, name="swish")
    fused, declined = fuse(net.finish(net.relu(scaled), net.relu(swish)))
    reason = "the operand is itself a function of one value: a table computes both"
    assert fused == ["scaled", "gate", "swish"]
    assert declined == {"fuse-activation": [("scaled", reason), ("swish", reason)]}


def test_a_clamp_after_a_product_of_two_values_joins_the_accumulator() -> None:
    net = Net(1, 4, 4, 3)
    product = net(Mul(), net.x, net.input("z", 1, 4, 4, 3), name="product")
    assert fuse(net.finish(net.relu(product))) == (["product"], {})


# ---------------------------------------------------------------------- residual adds
def test_a_residual_add_and_its_clamp_stay_in_the_accumulator() -> None:
    net = Net(1, 4, 4, 3)
    total = net(Add(), net.x, net.conv(net.x, 3, name="acc"), name="total")
    assert fuse(net.finish(net.relu(total))) == (["acc", "total"], {})


def test_of_two_convolutions_the_later_one_is_fused() -> None:
    for order in (1, -1):
        net = Net(1, 4, 4, 3)
        pair = [net.conv(net.x, 3, name="first"), net.conv(net.x, 3, name="second")]
        fused, declined = fuse(net.finish(net(Add(), *pair[::order])))
        assert (fused, declined) == (["second"], {})


def test_the_earlier_one_is_fused_where_the_later_cannot_be() -> None:
    net = Net(1, 4, 4, 3)
    first, second = net.conv(net.x, 3, name="first"), net.conv(net.x, 3, name="second")
    fused, declined = fuse(net.finish(net(Add(), first, second, name="total"), second))
    assert fused == ["first"]
    assert declined == {"fuse-residual": [("total", "the value is a graph output")]}


def declined_residuals(net: Net, *outputs: Value) -> list[str]:
    fused, declined = fuse(net.finish(*outputs))
    assert "acc" not in fused
    assert set(declined) == {"fuse-residual"}
    return [reason for _, reason in declined["fuse-residual"]]


def test_residual_declines_without_weights() -> None:
    net = Net(1, 4, 4, 3)
    pooled = net(MaxPool2d((1, 1)), net.x, name="acc")
    reason = "max_pool2d has no weights whose scale could be matched to the other operand"
    assert declined_residuals(net, net(Add(), net.x, pooled)) == [reason]


def test_residual_declines_computed_weights() -> None:
    net = Net(1, 4, 4, 3)
    acc = net(Dense(), net.x, net.input("w", 3, 3), name="acc")
    reason = "dense has no weights whose scale could be matched to the other operand"
    assert declined_residuals(net, net(Add(), net.x, acc)) == [reason]


def test_residual_declines_a_value_added_to_itself() -> None:
    net = Net(1, 4, 4, 3)
    acc = net.conv(net.x, 3, name="acc")
    assert declined_residuals(net, net(Add(), acc, acc)) == ["both operands are the same value"] * 2


def test_residual_declines_shapes_that_broadcast() -> None:
    net = Net(1, 4, 4, 3)
    acc = net.conv(net.x, 3, name="acc")
    mean = net(ReduceMean((1, 2)), net.x)
    reasons = declined_residuals(net, net(Add(), acc, mean))
    assert "shapes (1, 4, 4, 3) and (1, 1, 1, 3) broadcast" in reasons


def test_residual_declines_a_subtracted_accumulator_and_takes_the_other() -> None:
    net = Net(1, 4, 4, 3)
    acc = net.conv(net.x, 3, name="acc")
    assert declined_residuals(net, net(Sub(), net.x, acc)) == ["the accumulator would be subtracted"]
    net = Net(1, 4, 4, 3)
    assert fuse(net.finish(net(Sub(), net.conv(net.x, 3, name="acc"), net.x))) == (["acc"], {})


def test_residual_declines_a_value_with_two_users() -> None:
    net = Net(1, 4, 4, 3)
    acc = net.conv(net.x, 3, name="acc")
    reasons = declined_residuals(net, net(Add(), net.x, acc), net(MaxPool2d(), acc))
    assert reasons == ["the value has 2 users"]


# ---------------------------------------------------------------------- tables
def test_a_chain_is_one_table() -> None:
    net = Net(1, 4, 4, 3)
    y = net.x
    for number in range(40):
        y = net(Tanh() if number % 2 else LeakyRelu(0.5), y, name=f"y{number}")
    assert fuse(net.finish(y)) == ([f"y{n}" for n in range(39)], {})


def test_hard_swish_in_four_nodes_is_one_table() -> None:
    net = Net(1, 4, 4, 3)
    acc = net.conv(net.x, 3, name="acc")
    shifted = net(Add(), acc, net.constant(3.0), name="shifted")
    clipped = net(Clamp(0.0, 6.0), shifted, name="clipped")
    product = net(Mul(), acc, clipped, name="product")
    graph = net.finish(net(Div(), product, net.constant(6.0), name="y"))
    fused, declined = fuse(graph)
    assert fused == ["shifted", "clipped", "product"]
    # two users: the sum and the product
    assert list(declined) == ["fuse-residual", "fuse-activation"]


def test_a_tower_of_swishes_is_one_table_in_linear_time() -> None:
    """Each level reads the one below twice: naively there are 2^60 paths."""
    net = Net(1, 2)
    y = net.x
    for _ in range(60):
        y = net(Mul(), y, net(Sigmoid(), y))
    graph = net.finish(y)
    fused, _ = fuse(graph)
    assert len(fused) == 119
    stages = quantize(net.graph, net.samples(), "quantize-ops")
    assert ops(stages["quantize-ops"]) == ["table"]


def test_a_very_long_chain_needs_no_deep_recursion() -> None:
    net = Net(1, 2)
    y = net.x
    for _ in range(1100):
        y = net(LeakyRelu(1.0), y)
    assert ops(quantize(net.finish(y), net.samples(), "quantize-ops")["quantize-ops"]) == ["table"]


def test_a_table_stops_where_a_second_value_joins() -> None:
    net = Net(1, 4, 4, 3)
    z = net.input("z", 1, 4, 4, 3)
    product = net(Mul(), net(Sigmoid(), net.x, name="gate"), z, name="product")
    fused, _ = fuse(net.finish(net(Tanh(), net(LeakyRelu(0.1), product, name="leaky"), name="y")))
    assert fused == ["leaky"]


@pytest.mark.parametrize("reader", ["output", "pool"])
def test_a_table_stops_where_the_value_is_needed_elsewhere(reader: str) -> None:
    net = Net(1, 4, 4, 3)
    a = net(Tanh(), net.x, name="a")
    b = net(Sigmoid(), a, name="b")
    c = net(Tanh(), b, name="c")
    fused, _ = fuse(net.finish(net(Sigmoid(), c, name="d"), b if reader == "output" else net(MaxPool2d(), b)))
    assert fused == ["a", "c"]


def test_a_constant_over_space_keeps_two_tables_apart() -> None:
    net = Net(1, 4, 4, 3)
    gate = net(Sigmoid(), net.x, name="gate")
    moved = net(Mul(), gate, net.constant(np.ones((4, 1))), name="moved")
    fused, _ = fuse(net.finish(net(Tanh(), moved, name="y")))
    assert fused == []


def test_a_table_never_reads_an_accumulator() -> None:
    """sigmoid(conv + x): the sum is requantized once, then the table reads 8 bits."""
    net = Net(1, 4, 4, 3)
    total = net(Add(), net.conv(net.x, 3, name="acc"), net.x, name="total")
    assert fuse(net.finish(net(Sigmoid(), total))) == (["acc"], {})


def test_marks_of_an_older_run_are_forgotten() -> None:
    net = Net(1, 4, 4, 3)
    acc = net.conv(net.x, 3, name="acc")
    graph = net.finish(net.relu(acc))
    fuse(graph)
    graph.add_output(acc, "z")
    acc.fused = False
    _, result = run_pass(graph, "fuse-epilogues")
    assert not result.changed
    assert result.notes == (Note("acc", "fuse-activation", False, "the value is a graph output"),)


@pytest.mark.parametrize("seed", range(12))
def test_random_nets_compute_the_same_floats(seed: int) -> None:
    graph, samples = random_net(seed)
    before = interpreter.run(graph, samples)
    fuse(graph)
    after = interpreter.run(graph, samples)
    for name in before:
        np.testing.assert_array_equal(before[name], after[name])


def test_fused_chains_mean_what_their_nodes_mean() -> None:
    net = Net(1, 4, 4, 3)
    swish = net(Mul(), net.x, net(Sigmoid(), net.x))
    hard = net(Mul(), net.x, net(Clamp(0.0, 6.0), net(Add(), net.x, net.constant(3.0))))
    hard = net(Div(), hard, net.constant(6.0), name="hard")
    chain = net(Tanh(), net(LeakyRelu(0.1), net.x))
    channels = net(Add(), net(Mul(), net.x, net.constant([1.0, -2.0, 0.5])), net.constant([0.1, 0.2, 0.3]))
    graph = net.finish(swish, hard, chain, channels)
    stages = quantize(graph, net.samples(), "quantize-ops")
    integer = stages["quantize-ops"]
    assert ops(integer) == ["table"] * 4
    assert node_of(integer, "hard").input(1).type.shape == (256,)
    assert node_of(integer, channels.name).input(1).type.shape == (3, 256)
    # the table rounds once from float64; fake-quant computes in float32
    assert max(steps_apart(stages["choose-qparams"], integer, net.samples()).values()) <= 1
