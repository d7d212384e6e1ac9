"""remove-dead-channels: the same bytes from fewer channels, all that can go, and why others stay."""

from collections.abc import Callable

import numpy as np
import pytest
from dead_channels import DEAD, biases, channels, macs, removed, shrunk
from quantized_nets import (
    Net,
    assert_same_bytes,
    node_of,
    quantize,
    random_net,
    run_pass,
    value_of,
)

from qcc.checker import check_plan
from qcc.ir.compare import first_difference
from qcc.ir.errors import ParseError
from qcc.ir.graph import Value
from qcc.ir.ops.activation import Clamp, Tanh
from qcc.ir.ops.conv_transpose import ConvTranspose2d
from qcc.ir.ops.elementwise import Add, Mul
from qcc.ir.ops.pool import AvgPool2d, MaxPool2d
from qcc.ir.ops.rearrange import Concat, Slice
from qcc.ir.ops.reduce import ReduceMean
from qcc.ir.ops.resize import ResizeNearest
from qcc.ir.ops.shape import Pad, Reshape, Transpose
from qcc.passes.manager import parse_pipeline


# ---------------------------------------------------------------------- what goes
def test_a_channel_that_a_relu_kills_goes() -> None:
    net = Net(1, 4, 4, 3)
    a = net.relu(net.conv(net.x, 8, bias=biases(8, 2, 5), name="acc"), name="a")
    stages = removed(net, net.conv(a, 4, name="y"))
    assert shrunk(stages) == {"acc.acc": "2 of 8 channels"}
    after = stages["remove-dead-channels"]
    assert channels(stages, "a") == channels(stages, "acc.acc") == 6
    assert node_of(after, "acc.acc").input(1).type.shape == (6, 1, 1, 3)
    assert node_of(after, "y.acc").input(1).type.shape == (4, 1, 1, 6)
    assert [v.type.shape for v in node_of(after, "a").inputs[1:] if v] == [(6,)] * 4
    kept = [c for c in range(8) if c not in (2, 5)]
    old = node_of(stages["plan-accumulators"], "acc.acc").input(1).data
    assert old is not None
    np.testing.assert_array_equal(node_of(after, "acc.acc").input(1).data, old[kept])
    assert macs(after) * 8 == macs(stages["plan-accumulators"]) * 6
    # relu's 0 is the zero_point -128: what the channels gave is now in the bias
    before = stages["plan-accumulators"]
    w, b, c = node_of(before, "y.acc").input(1).data, node_of(before, "y.acc").input(2).data, -128
    assert w is not None
    assert b is not None
    expected = b.astype(int) + c * w.reshape(4, 8).astype(int)[:, [2, 5]].sum(axis=1)
    np.testing.assert_array_equal(node_of(after, "y.acc").input(2).data, expected)


@pytest.mark.parametrize(
    ("granularity", "kept"), [(1, 5), (2, 6), (4, 8), (5, 5), (8, 8), (12, 12), (16, 12), (1000, 12)]
)
def test_granularity_keeps_a_multiple_of_it_or_all(granularity: int, kept: int) -> None:
    net = Net(1, 4, 4, 3)
    a = net.relu(net.conv(net.x, 12, bias=biases(12, 0, 2, 3, 5, 7, 8, 11), name="acc"), name="a")
    stages = quantize(net.finish(net.conv(a, 4, name="y")), net.samples(), "plan-accumulators")
    before = stages["plan-accumulators"]
    after, result = run_pass(before.clone(), f"remove-dead-channels{{granularity={granularity}}}")
    assert_same_bytes(before, after)
    check_plan(after)
    assert value_of(after, "a").type.shape[-1] == kept
    assert [n.reason for n in result.notes if n.applied] == (
        [f"{12 - kept} of 12 channels"] if kept < 12 else []
    )
    assert result.changed == (kept < 12)


def test_granularity_is_positive() -> None:
    with pytest.raises(ParseError, match="granularity must be 1 or more, got 0"):
        parse_pipeline("remove-dead-channels{granularity=0}")


@pytest.mark.parametrize("op", [Clamp(0.0, 6.0), Clamp(-1.0, 1.0), Clamp(0.25, 2.0)])
@pytest.mark.parametrize("value", [-DEAD, DEAD])
def test_a_channel_clamped_to_a_constant_goes(op: Clamp, value: float) -> None:
    net = Net(1, 4, 4, 3)
    a = net(op, net.conv(net.x, 8, bias=biases(8, 0, 7, value=value), name="acc"))
    stages = removed(net, net.conv(a, 4, 3))
    assert shrunk(stages) == {"acc.acc": "2 of 8 channels"}


def test_a_channel_without_weights_goes() -> None:
    net = Net(1, 4, 4, 3)
    weights = net.rng.normal(size=(8, 1, 1, 3))
    weights[[1, 6]] = 0.0
    stages = removed(net, net.conv(net.conv(net.x, 8, weights=weights, name="acc"), 4))
    assert shrunk(stages) == {"acc.acc": "2 of 8 channels"}


@pytest.mark.parametrize("pads", [(0, 0, 0, 0), (1, 1, 1, 1)])
def test_a_channel_that_nobody_reads_goes(pads: tuple[int, ...]) -> None:
    """Zero weights in the reader: the channel need not be constant, and padding does not matter."""
    net = Net(1, 4, 4, 3)
    weights = net.rng.normal(size=(4, 3, 3, 8))
    weights[..., [0, 3]] = 0.0
    a = net.conv(net.x, 8, name="acc")
    stages = removed(net, net.conv(a, 4, 3, weights=weights, pads=pads))
    assert shrunk(stages) == {"acc.acc": "2 of 8 channels"}


def test_of_two_readers_each_must_do_without() -> None:
    net = Net(1, 4, 4, 3)
    first, second = net.rng.normal(size=(2, 4, 1, 1, 8))
    first[..., [0, 3]] = 0.0
    second[..., [3, 4]] = 0.0
    a = net.conv(net.x, 8, bias=biases(8, 6), name="acc")
    a = net.relu(a, name="a")
    stages = removed(net, net.conv(a, 4, weights=first), net.conv(a, 4, weights=second))
    assert shrunk(stages) == {"acc.acc": "2 of 8 channels"}  # 3, which nobody reads, and 6, which is constant


def test_relu_zero_may_be_padded() -> None:
    net = Net(1, 4, 4, 3)
    a = net.relu(net.conv(net.x, 8, bias=biases(8, 2), name="acc"))
    stages = removed(net, net.conv(a, 4, 3, pads=(1, 1, 1, 1)))
    assert shrunk(stages) == {"acc.acc": "1 of 8 channels"}


def test_a_constant_that_is_not_the_padding_stays() -> None:
    """At the border its share of the sum is another one."""
    net = Net(1, 4, 4, 3)
    a = net.relu(net.conv(net.x, 8, bias=biases(8, 2, value=-DEAD), name="acc"), 6.0, name="a")
    stages = removed(net, net.conv(a, 4, 3, pads=(1, 1, 1, 1)))
    assert not shrunk(stages)
    net = Net(1, 4, 4, 3)
    a = net.relu(net.conv(net.x, 8, bias=biases(8, 2, value=-DEAD), name="acc"), 6.0)
    assert shrunk(removed(net, net.conv(a, 4, 3))) == {"acc.acc": "1 of 8 channels"}


MOVES: dict[str, Callable[[Net, Value], Value]] = {
    "max pool": lambda net, x: net(MaxPool2d((2, 2), (2, 2)), x),
    "average pool": lambda net, x: net(AvgPool2d((2, 2), (2, 2)), x),
    "mean": lambda net, x: net(ReduceMean((1, 2)), x),
    "resize": lambda net, x: net(ResizeNearest((8, 8)), x),
    "transpose of space": lambda net, x: net(Transpose((0, 2, 1, 3)), x),
    "reshape of space": lambda net, x: net(Reshape((1, 1, 16, 8)), x),
    "slice of space": lambda net, x: net(Slice((1, 2), (1, 0), (4, 3), (1, 2)), x),
    "padding with zeros": lambda net, x: net(Pad((0, 1, 1, 0), (0, 0, 1, 0)), x),
    "concat along space": lambda net, x: net(Concat(1), x, x),
    "concat with a constant": lambda net, x: net(Concat(2), x, net.constant(np.zeros((1, 4, 1, 8)))),
    "table": lambda net, x: net(Tanh(), x),
    "table per channel": lambda net, x: net(Mul(), x, net.constant(np.linspace(0.5, 2, 8))),
    "depthwise": lambda net, x: net.depthwise(x, 3, bias=np.full(8, 0.1)),
    "padded depthwise": lambda net, x: net.depthwise(x, 3, pads=(1, 1, 1, 1)),
    "depthwise transposed": lambda net, x: net(
        ConvTranspose2d((2, 2), groups=8), x, net.constant(net.rng.normal(size=(8, 2, 2, 1)))
    ),
    "product with a map": lambda net, x: net(Mul(), x, net.constant(net.rng.normal(size=(4, 4, 1)))),
    "product with all": lambda net, x: net(Mul(), x, net.constant(net.rng.normal(size=(4, 4, 8)))),
    "sum with itself after a pool": lambda net, x: net(Add(), x, net(MaxPool2d((1, 1)), x)),
}


@pytest.mark.parametrize("name", MOVES)
def test_ops_that_keep_channels_apart_shrink_with_the_group(name: str) -> None:
    net = Net(1, 4, 4, 3)
    a = net.relu(net.conv(net.x, 8, bias=biases(8, 2, 5), name="acc"))
    b = MOVES[name](net, a)
    weights = net.rng.normal(size=(4, 1, 1, 8))
    weights[..., 2] = 0.0  # goes whatever happened to the constant; 5 goes where it still is one
    stages = removed(net, net.conv(b, 4, weights=weights))
    assert shrunk(stages) == {"acc.acc": "2 of 8 channels"}


def test_flat_channels_into_dense() -> None:
    net = Net(1, 4, 4, 3)
    a = net.relu(net.conv(net.x, 8, bias=biases(8, 2, 5), name="acc"))
    flat = net(Reshape((1, 8)), net(ReduceMean((1, 2)), a))
    stages = removed(net, net.dense(flat, 5, name="y"))
    assert shrunk(stages) == {"acc.acc": "2 of 8 channels"}
    assert node_of(stages["remove-dead-channels"], "y.acc").input(1).type.shape == (5, 6)


def test_residual_ties_go_where_every_term_is_constant() -> None:
    """relu(conv + relu(conv)) with a bias so low in channels 2 and 5 that the sum is 0 too."""
    net = Net(1, 4, 4, 3)
    stem = net.relu(net.conv(net.x, 8, bias=biases(8, 2, 5), name="stem"), name="skip")
    inner = net.relu(net.conv(stem, 6, bias=biases(6, 0), name="inner"))
    total = net(Add(), stem, net.conv(inner, 8, bias=biases(8, 2, 3), name="acc"), name="total")
    a = net.relu(total, name="a")
    stages = removed(net, net.conv(a, 4, name="y"))
    # one group: 3 is alive in the stem, 5 in the sum
    assert shrunk(stages) == {"stem.acc": "1 of 8 channels", "inner.acc": "1 of 6 channels"}
    assert channels(stages, "skip") == channels(stages, "a") == channels(stages, "total.acc") == 7


def test_the_residual_multipliers_shrink_too() -> None:
    net = Net(1, 4, 4, 8)
    stem = net.relu(net.conv(net.x, 8, bias=biases(8, 2), name="stem"))
    a = net.relu(net(Add(), net.conv(stem, 8, bias=biases(8, 2)), stem, name="total"))
    stages = removed(net, net.conv(a, 4))
    node = node_of(stages["remove-dead-channels"], "total.acc")
    assert [v.type.shape for v in node.inputs[2:] if v is not None] == [(7,)]


def test_a_group_that_dies_as_a_whole_keeps_one_channel() -> None:
    net = Net(1, 4, 4, 3)
    a = net.relu(net.conv(net.x, 8, bias=np.full(8, DEAD), name="acc"), name="a")
    stages = removed(net, net.conv(net.depthwise(a, 3, bias=np.full(8, 0.5)), 4))
    assert shrunk(stages) == {"acc.acc": "7 of 8 channels"}
    assert channels(stages, "a") == 1


# ---------------------------------------------------------------------- all that can go
def test_what_only_dead_channels_read_goes_too() -> None:
    """Half of three is unread; then what only that half reads in two; then what only those read in one."""
    net = Net(1, 4, 4, 3)
    second, third, last = net.rng.normal(size=(3, 8, 1, 1, 8))
    for weights in (second, third):
        weights[4:, ..., :4] = 0.0
        weights[:4, ..., 4:] = 0.0
    last[..., 4:] = 0.0
    one = net.conv(net.x, 8, name="one")
    two = net.conv(one, 8, weights=second, name="two")
    three = net.conv(two, 8, weights=third, name="three")
    stages = removed(net, net.conv(three, 8, weights=last))
    assert shrunk(stages) == dict.fromkeys(("one.acc", "two.acc", "three.acc"), "4 of 8 channels")


STREAM_AND_INNER = dict.fromkeys(("stream.acc", "inner.acc"), "1 of 8 channels")


@pytest.mark.parametrize(
    ("stream_reads_inner", "inner_reads_stream", "gone"),
    [(False, True, STREAM_AND_INNER), (True, False, STREAM_AND_INNER), (True, True, {})],
)
def test_groups_that_read_each_other_shrink_until_nothing_is_left_to_do(
    stream_reads_inner: bool, inner_reads_stream: bool, gone: dict[str, str]
) -> None:
    """Channel 0 of the stream and channel 3 of inner serve nobody but, maybe, each other.

    In no order of the groups is one round enough for both. Where each reads the other, neither is proved unread.
    """
    net = Net(1, 4, 4, 3)
    w_in, w_out, w_last = net.rng.normal(size=(3, 8, 1, 1, 8))
    w_last[..., 0] = w_in[..., 0] = w_out[..., 3] = 0.0
    w_in[3, ..., 0] = float(inner_reads_stream)
    w_out[0, ..., 3] = float(stream_reads_inner)
    stream = net.conv(net.x, 8, name="stream")
    inner = net.relu(net.conv(stream, 8, weights=w_in, name="inner"))
    total = net(Add(), stream, net.conv(inner, 8, weights=w_out))
    stages = removed(net, net.conv(total, 8, weights=w_last))
    assert shrunk(stages) == gone


@pytest.mark.parametrize("seed", range(10))
def test_a_chain_loses_exactly_its_constant_channels(seed: int) -> None:
    """Which ones are constant, from the planned accumulators by hand."""
    net = Net(1, 4, 4, 3, seed=seed)
    x, counts = net.x, []
    for _ in range(4):
        count = int(net.rng.integers(3, 9))
        bias = net.rng.normal(size=count) * net.rng.choice([0.3, 60.0], size=count)
        x = net.relu(net.conv(x, count, bias=bias), 6.0)
        counts.append((x.name, count))
    stages = removed(net, net.conv(x, 4))
    expected = 0
    for name, count in counts:
        node = node_of(stages["plan-accumulators"], name)
        multiplier, shift, low, high = (
            v.data.astype(object) for v in node.inputs[1:] if v and v.data is not None
        )
        assert node.output.type.qparams is not None
        attributes, zero_point = node.op.attributes(), node.output.type.qparams.zero_point

        def code(acc: int, m: int, s: int, at: dict[str, int] = attributes, zero: int = zero_point) -> int:
            return min(max(((acc * m + (1 << (s - 1))) >> s) + zero, at["low"]), at["high"])

        constant = [
            code(a, m, s) == code(b, m, s) for a, b, m, s in zip(low, high, multiplier, shift, strict=True)
        ]
        dead = min(sum(constant), count - 1)
        expected += dead
        assert channels(stages, name) == count - dead
    assert expected > 0 or seed != 0


@pytest.mark.parametrize("seed", range(40))
def test_random_nets_with_planted_dead_channels_keep_their_bytes(seed: int) -> None:
    graph, samples = random_net(seed, dead=True)
    stages = quantize(graph, samples)
    before, after = stages["plan-accumulators"], stages["remove-dead-channels"]
    assert_same_bytes(before, after, seed)
    check_plan(after)
    again = after.clone()
    _, result = run_pass(again, "remove-dead-channels")
    assert not result.changed
    assert first_difference(after, again) is None
    if stages.applied("remove-dead-channels", "remove-dead-channels"):
        assert macs(after) < macs(before)


def test_the_random_nets_do_lose_channels() -> None:
    lost = 0
    for seed in range(40):
        graph, samples = random_net(seed, dead=True)
        lost += bool(quantize(graph, samples).applied("remove-dead-channels", "remove-dead-channels"))
    assert lost >= 20


def test_two_runs_are_equal() -> None:
    for seed in range(4):
        graph, samples = random_net(seed, dead=True)
        a, b = (quantize(graph, samples)["remove-dead-channels"] for _ in range(2))
        assert first_difference(a, b) is None
