"""plan-accumulators: intervals against brute force, bounds of partial sums, certificates, refusals."""

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
from quantized_nets import (
    Array,
    Net,
    Samples,
    claims,
    extreme_inputs,
    node_of,
    planned,
    quantize,
    random_net,
    reals,
    sqnr_db,
    value_of,
)

from qcc.checker import check_plan
from qcc.ir import interpreter
from qcc.ir.compare import first_difference
from qcc.ir.graph import Graph, Node, Value
from qcc.ir.ops.activation import Clamp
from qcc.ir.ops.conv_transpose import ConvTranspose2d
from qcc.ir.ops.dense import MatMul
from qcc.ir.ops.elementwise import Add, Mul, Sub
from qcc.ir.ops.pool import AvgPool2d
from qcc.ir.ops.quant import Requantize
from qcc.ir.ops.rearrange import Concat
from qcc.ir.ops.reduce import ReduceMean, ReduceSum
from qcc.ir.ops.softmax import Softmax
from qcc.ir.types import DType
from qcc.passes.plan_accumulators import propagate


def reached(graph: Graph, inputs: Samples) -> dict[str, tuple[Array, Array]]:
    """By requantize: least and largest accumulator of each channel, less its zero_point."""
    found: dict[str, tuple[Array, Array]] = {}
    requantized = {n.input(0).name: n for n in graph.nodes if isinstance(n.op, Requantize)}

    def look(value: Value, array: Array) -> None:
        if value.name not in requantized:
            return
        assert value.type.qparams is not None
        rows = array.reshape(-1, array.shape[-1] if value.type.shape else 1).astype(np.int64)
        rows = rows - value.type.qparams.zero_point
        found[requantized[value.name].name] = (rows.min(axis=0), rows.max(axis=0))

    interpreter.run(graph, inputs, observe=look)
    return found


# ---------------------------------------------------------------------- against brute force
def every_input(*shape: int, values: tuple[int, ...] = (-128, -1, 0, 127)) -> Array:
    """All tensors of a few codes."""
    combinations = list(product(values, repeat=int(np.prod(shape))))
    return np.array(combinations, np.int8).reshape(-1, *shape)


SMALL: dict[str, tuple[tuple[int, ...], Callable[[Net], Value]]] = {
    "dense": ((1, 4), lambda net: net.dense(net.x, 3, name="y")),
    "dense after relu": ((1, 4), lambda net: net.dense(net.relu(net.x), 3, name="y")),
    "conv": ((1, 2, 2, 1), lambda net: net.conv(net.x, 3, 2, name="y")),
    "padded conv": ((1, 2, 2, 1), lambda net: net.conv(net.x, 2, 2, pads=(1, 0, 0, 1), name="y")),
    "grouped conv": ((1, 1, 1, 4), lambda net: net.conv(net.x, 4, groups=2, name="y")),
    "depthwise": ((1, 2, 2, 2), lambda net: net.depthwise(net.x, 2, pads=(0, 0, 0, 1), name="y")),
    "transposed": (
        (1, 2, 1, 2),
        lambda net: net(
            ConvTranspose2d((2, 1)), net.x, net.constant(net.rng.normal(size=(2, 3, 1, 2))), name="y"
        ),
    ),
    "average": ((1, 2, 2, 1), lambda net: net(AvgPool2d((2, 2), (1, 1), (1, 1, 0, 0)), net.x, name="y")),
    "mean": ((1, 2, 1, 2), lambda net: net(ReduceMean((1, 2)), net.x, name="y")),
    "mean of channels": ((1, 1, 4), lambda net: net(ReduceMean((2,)), net.x, name="y")),
    "sum": ((1, 4, 1), lambda net: net(ReduceSum((1,)), net.x, name="y")),
    "product with a constant": (
        (1, 2, 2),
        lambda net: net(Mul(), net.x, net.constant([[1.0, -2.0], [0.5, 3.0]]), name="y"),
    ),
    "sum with a constant": (
        (1, 2, 2),
        lambda net: net(Sub(), net.constant([[1.0, -2.0], [0.5, 3.0]]), net.x, name="y"),
    ),
    "matmul": (
        (1, 2, 2),
        lambda net: net(MatMul(), net.x, net.constant(net.rng.normal(size=(1, 2, 2))), name="y"),
    ),
}


@pytest.mark.parametrize("name", SMALL)
def test_intervals_are_exactly_what_brute_force_reaches(name: str) -> None:
    shape, build = SMALL[name]
    net = Net(*shape)
    graph = planned(net, build(net))
    # sums of products are extreme where each code is
    least, largest = reached(graph, {"x": every_input(*shape)})["y"]
    low, high, bits = claims(graph, "y")
    np.testing.assert_array_equal(least, low)
    np.testing.assert_array_equal(largest, high)
    assert max(-int(low.min()), int(high.max())) < 2 ** (bits - 1)


@pytest.mark.parametrize("op", [Add(), Sub(), Mul()])
def test_sums_and_products_of_two_values_over_all_pairs_of_codes(op: Add) -> None:
    net = Net(1, 1)
    y = net(op, net.x, net.input("z", 1, 1), name="y")
    samples = {"x": np.array([[[-1.0]], [[3.0]]], np.float32), "z": np.array([[[0.0]], [[0.7]]], np.float32)}
    graph = planned(net, y, samples=samples)
    a, b = (v.ravel().astype(np.int8) for v in np.meshgrid(np.arange(-128, 128), np.arange(-128, 128)))
    least, largest = reached(graph, {"x": a.reshape(-1, 1, 1), "z": b.reshape(-1, 1, 1)})["y"]
    low, high, _ = claims(graph, "y")
    assert (least[0], largest[0]) == (low[0], high[0])


def test_an_adversarial_input_reaches_the_bound_of_each_channel() -> None:
    """x = 127 where w > 0 and -128 where w < 0, at 3 x 3 x 5 inputs, beside a residual input."""
    net = Net(1, 3, 3, 5)
    acc = net.conv(net.x, 4, 3, name="conv")
    graph = planned(net, net.relu(net(Add(), acc, net.input("z", 1, 1, 1, 4), name="sum"), name="y"))
    weights = node_of(graph, "conv.acc").input(1).data
    assert weights is not None
    low, high, bits = claims(graph, "y")
    for channel in range(4):
        top = np.where(weights[channel] > 0, 127, -128).astype(np.int8)[None, None]
        bottom = np.where(weights[channel] > 0, -128, 127).astype(np.int8)[None, None]
        for x, z, claim in ((top, 127, high), (bottom, -128, low)):
            inputs = {"x": x, "z": np.full((1, 1, 1, 1, 4), z, np.int8)}
            least, _ = reached(graph, inputs)["y"]
            assert least[channel] == claim[channel]
    assert max(-int(low.min()), int(high.max())) < 2 ** (bits - 1)


@pytest.mark.parametrize("seed", range(16))
def test_no_input_of_a_random_net_leaves_an_interval(seed: int) -> None:
    graph, samples = random_net(seed, dead=bool(seed % 2))
    plan = quantize(graph, samples, "plan-accumulators")["plan-accumulators"]
    for name, (least, largest) in reached(plan, extreme_inputs(plan, seed, 8)).items():
        if node_of(plan, name).input(0).type.dtype is DType.S32:
            low, high, _ = claims(plan, name)
            assert (low <= least).all(), name
            assert (largest <= high).all(), name


@pytest.mark.parametrize("seed", range(6))
def test_no_value_of_a_random_net_leaves_its_propagated_interval(seed: int) -> None:
    graph, samples = random_net(seed, dead=bool(seed % 2))
    plan = quantize(graph, samples, "plan-accumulators")["plan-accumulators"]
    intervals = {v.name: propagated for v in plan.values() if (propagated := propagate(plan).get(id(v)))}

    def look(value: Value, array: Array) -> None:
        if not value.type.dtype.is_integer:
            return
        rows = array.reshape(-1, intervals[value.name].channels)
        assert (rows >= intervals[value.name].low).all(), value.name
        assert (rows <= intervals[value.name].high).all(), value.name

    interpreter.run(plan, extreme_inputs(plan, seed), observe=look)


# ---------------------------------------------------------------------- partial sums
def worst_partial_sum(node: Node) -> int:
    """|bias| + sum |w| * 128 of the worst channel, in exact integers."""
    w, bias = node.input(1).data, node.input(2).data
    assert w is not None
    assert bias is not None
    rows = w.reshape(len(w), -1)
    # -128 is the larger magnitude, except where the product is positive anyway
    return max(abs(int(b)) + 128 * sum(abs(int(v)) for v in row) for row, b in zip(rows, bias, strict=True))


def test_bits_hold_every_partial_sum_and_no_more() -> None:
    net = Net(1, 4, 4, 6)
    graph = planned(net, net.conv(net.x, 5, 3, name="y"))
    _, _, bits = claims(graph, "y")
    worst = worst_partial_sum(node_of(graph, "y.acc"))
    assert 2 ** (bits - 2) <= worst < 2 ** (bits - 1)


def test_a_residual_sum_also_holds_what_the_convolution_passed_through() -> None:
    """Small codes far from 0: their sums cancel the folded bias, but before that they are large."""
    net = Net(1, 4, 4, 64)
    small = net(Clamp(0.0, 0.1), net.x)
    wide_range = net(Concat(3), small, net.relu(net.conv(net.x, 6)))  # shares its qparams
    total = net(Add(), net.input("z", 1, 4, 4, 6), net.conv(small, 6, name="conv"), name="total")
    graph = planned(net, total, wide_range)
    low, high, bits = claims(graph, "total")
    worst = worst_partial_sum(node_of(graph, "conv.acc"))
    assert max(-int(low.min()), int(high.max())) < worst // 2
    assert worst < 2 ** (bits - 1)


# ---------------------------------------------------------------------- multipliers
def test_one_multiplier_for_all_channels_of_a_mean_or_a_product() -> None:
    net = Net(1, 4, 4, 3)
    mean = net(ReduceMean((1, 2)), net.x, name="mean")
    scaled = net(Mul(), net.x, net.constant(net.rng.normal(size=(4, 4, 3))), name="scaled")
    graph = planned(net, mean, scaled)
    for name in ("mean", "scaled"):
        node = node_of(graph, name)
        assert node.input(1).type.shape == node.input(2).type.shape == (1,)
        assert node.input(3).type.shape == node.input(4).type.shape == (3,)


def test_products_with_a_16_bit_constant() -> None:
    net = Net(1, 2, 2)
    graph = planned(net, net(Mul(), net.x, net.constant([[1.0, 2.0], [0.5, 3.0]]), name="y"))
    constant = node_of(graph, "y.acc").input(1)
    assert constant.type.dtype is DType.S16
    assert constant.data is not None
    assert np.abs(constant.data).max() == 32767
    x = value_of(graph, "x").type.qparams
    assert x is not None
    _, high, _ = claims(graph, "y")
    assert high[1] == 32767 * (127 - x.zero_point)


@pytest.mark.parametrize("seed", range(8))
def test_multipliers_are_the_ratio_of_the_scales(seed: int) -> None:
    graph, samples = random_net(seed)
    stages = quantize(graph, samples, "plan-accumulators")
    plan = stages["plan-accumulators"]
    certified = {n.node for n in stages.notes["plan-accumulators"] if n.applied}
    for node in plan.nodes:
        if not isinstance(node.op, Requantize):
            continue
        multiplier, shift = node.input(1).data, node.input(2).data
        x, y = node.input(0).type.qparams, node.output.type.qparams
        assert multiplier is not None
        assert shift is not None
        assert x is not None
        assert y is not None
        assert (multiplier >= 2**30).all()
        real = np.asarray(x.scale) / y.scale[0]
        np.testing.assert_allclose(multiplier * 2.0 ** -shift.astype(float), real, rtol=1e-4)
        assert node.op.certified == (("f32",) if node.name in certified else ())


def test_planning_moves_outputs_by_a_step_at_most() -> None:
    for seed in range(8):
        graph, samples = random_net(seed)
        stages = quantize(graph, samples, "plan-accumulators")
        before, after = (
            reals(stages["fold-zero-points"], samples),
            reals(stages["plan-accumulators"], samples),
        )
        for name in before:
            assert sqnr_db(before[name], after[name]) > 40


def test_a_layer_without_certificate_says_how_many_channels_lack_one() -> None:
    """The output is so fine that the product leaves the int32 of the fast path."""
    net = Net(1, 1, 1, 2)
    weights = np.array([[1e9, -1e9], [1.0, 1.0]]).reshape(2, 1, 1, 2)
    y = net.conv(net.x, 2, weights=weights, bias=np.zeros(2), name="y")
    x = np.repeat(np.random.default_rng(0).normal(size=(6, 1, 1, 1, 1)), 2, axis=4).astype(np.float32)
    stages = quantize(net.finish(y), {"x": x}, "plan-accumulators")
    check_plan(stages["plan-accumulators"])
    assert stages.declined("plan-accumulators") == [("y", "1 of 2 channels have no certificate")]
    node = node_of(stages["plan-accumulators"], "y")
    assert isinstance(node.op, Requantize)
    assert node.op.certified == ()


def test_a_requantize_of_8_bits_is_planned_too() -> None:
    net = Net(1, 4, 4, 3)
    soft = net(Softmax(3), net.conv(net.x, 3), name="soft")
    graph = planned(net, net(Concat(3), net.conv(net.x, 3), soft))
    low, high, bits = claims(graph, "soft_as")
    assert (low.min(), high.max(), bits) == (0, 255, 9)


def test_a_constant_channel_has_an_interval_of_one_value() -> None:
    net = Net(1, 4, 4, 3)
    weights = net.rng.normal(size=(3, 1, 1, 3))
    weights[1] = 0.0
    graph = planned(net, net.conv(net.x, 3, weights=weights, name="y"))
    low, high, _ = claims(graph, "y")
    assert (low == high).tolist() == [False, True, False]


# ---------------------------------------------------------------------- the whole pass
def test_two_runs_are_equal() -> None:
    for seed in range(4):
        graph, samples = random_net(seed)
        a, b = (quantize(graph, samples, "plan-accumulators")["plan-accumulators"] for _ in range(2))
        assert first_difference(a, b) is None


def test_the_graph_is_planned_and_float_islands_stay() -> None:
    for seed in range(12):
        graph, samples = random_net(seed)
        stages = quantize(graph, samples, "plan-accumulators")
        assert stages["plan-accumulators"].stage == "planned"
        before = [n.op.name for n in stages["fold-zero-points"].nodes]
        assert before == [n.op.name for n in stages["plan-accumulators"].nodes]
        check_plan(stages["plan-accumulators"])
