"""choose-qparams: scales of weights, residual adds that match the skip, sums brought into 32 bits."""

import numpy as np
import pytest
from quantized_nets import (
    Net,
    Stages,
    annotated,
    assert_same_bytes,
    is_float32,
    node_of,
    ops,
    qparams,
    quantize,
    reals,
    run_pass,
    sqnr_db,
    steps_apart,
    value_of,
)

from qcc.checker import check_plan
from qcc.ir import interpreter
from qcc.ir.graph import Value
from qcc.ir.ops.conv import Conv2d
from qcc.ir.ops.dense import Dense
from qcc.ir.ops.elementwise import Add, Mul, Sub
from qcc.ir.ops.rearrange import Concat
from qcc.passes.choose_qparams import SMALLEST_SKIP_MULTIPLIER, activation_qparams
from qcc.passes.weight_scales import LARGEST_SKIP_MULTIPLIER


# ---------------------------------------------------------------------- weights
def test_weights_are_symmetric_per_output_channel_at_float32_scales() -> None:
    net = Net(1, 4, 4, 3)
    weights = net.rng.normal(size=(5, 3, 3, 3)) * np.array([1, 1e-3, 10, 1, 1]).reshape(5, 1, 1, 1)
    stages = quantize(net.finish(net.conv(net.x, 5, 3, weights=weights)), net.samples(), "quantize-ops")
    found = qparams(stages["choose-qparams"], "w")
    largest = np.abs(weights.astype(np.float32).astype(np.float64)).max(axis=(1, 2, 3))
    assert (found.axis, found.zero_point) == (0, 0)
    assert is_float32(found.scale)
    np.testing.assert_allclose(found.scale, largest / 127, rtol=1e-7)
    q = node_of(stages["quantize-ops"], f"{net.graph.outputs[0].name}.acc").input(1).data
    assert q is not None
    assert (np.abs(q.astype(int)).max(axis=(1, 2, 3)) == 127).all()


def planned(net: Net, y: Value) -> Stages:
    stages = quantize(net.finish(y), net.samples(), "plan-accumulators")
    check_plan(stages["plan-accumulators"])
    assert max(steps_apart(stages["choose-qparams"], stages["quantize-ops"], net.samples()).values()) <= 1
    return stages


@pytest.mark.parametrize("rows", [[1], [0, 1, 2]])
def test_channels_of_zeros(rows: list[int]) -> None:
    net = Net(1, 4, 4, 3)
    weights = net.rng.normal(size=(3, 1, 1, 3))
    weights[rows] = 0.0
    stages = planned(net, net.conv(net.x, 3, weights=weights))
    scale = np.asarray(qparams(stages["choose-qparams"], "w").scale)
    assert (scale > 0).all()
    if len(rows) == 1:
        assert scale[1] == scale.max()
    db = sqnr_db(
        interpreter.run(net.graph, net.samples())["y0"], reals(stages["quantize-ops"], net.samples())["y0"]
    )
    assert db > 30


@pytest.mark.parametrize("size", [1e-45, 1e-40, 1e-30, 1e-10, 1e10, 1e30])
def test_weights_of_every_size(size: float) -> None:
    net = Net(1, 4, 4, 3)
    weights = net.rng.normal(size=(3, 1, 1, 3)) * size
    stages = planned(net, net.conv(net.x, 3, weights=weights, bias=np.zeros(3)))
    assert is_float32(qparams(stages["choose-qparams"], "w").scale)
    if size >= 1e-30:
        floats = interpreter.run(net.graph, net.samples())["y0"] / size
        assert sqnr_db(floats, reals(stages["quantize-ops"], net.samples())["y0"] / size) > 30


def test_a_tiny_channel_beside_a_large_one() -> None:
    net = Net(1, 4, 4, 3)
    weights = net.rng.normal(size=(2, 1, 1, 3))
    weights[0] *= 1e-20
    stages = planned(net, net.conv(net.x, 2, weights=weights, bias=np.zeros(2)))
    scale = qparams(stages["choose-qparams"], "w").scale
    assert scale[0] == pytest.approx(scale[1] * 2.0**-24)


@pytest.mark.parametrize("size", [1e3, 1e9, 1e20])
def test_a_huge_bias_fits_32_bits(size: float) -> None:
    net = Net(1, 4, 4, 3)
    bias = np.array([size, -size, 0.1])
    stages = planned(net, net.conv(net.x, 3, bias=bias))
    acc = node_of(stages["quantize-ops"], f"{net.graph.outputs[0].name}.acc")
    data = acc.input(2).data
    assert data is not None
    assert acc.input(2).type.qparams is not None
    kept = data * np.asarray(acc.input(2).type.qparams.scale)
    np.testing.assert_allclose(kept[:2], bias[:2], rtol=1e-6)


def test_a_weight_of_two_convolutions_gets_scales_for_each() -> None:
    net = Net(1, 4, 4, 3)
    w = net.constant(net.rng.normal(size=(3, 1, 1, 3)), "w")
    first = net(Conv2d(), net.x, w, name="first")
    y = net(Add(), net.x, net(Conv2d(), net.relu(first), w, name="second"))
    stages = planned(net, y)
    graph = stages["choose-qparams"]
    a, b = node_of(graph, "first").input(1), node_of(graph, "second").input(1)
    assert a is not b
    np.testing.assert_array_equal(a.data, b.data)
    assert a.type.qparams != b.type.qparams  # the second one matches the skip
    _, again = run_pass(graph.clone(), "choose-qparams")
    assert not again.changed


def test_a_weight_that_is_also_an_operand_or_an_output_keeps_its_floats() -> None:
    net = Net(1, 4, 3)
    w = net.constant(net.rng.normal(size=(4, 3)), "w")
    y = net(Dense(), net(Mul(), net.x, w), w)
    graph = annotated(net.finish(y, w), net.samples())
    assert graph.outputs[1].type.qparams is None
    assert node_of(graph, y.name).input(1) is not graph.outputs[1]
    lone = Net(1, 4, 3)
    w = lone.constant(lone.rng.normal(size=(4, 3)), "w")
    graph = annotated(lone.finish(lone(Dense(), lone.x, w), w), lone.samples())
    assert graph.outputs[1].type.qparams is None


# ---------------------------------------------------------------------- residual adds
def residual(
    factor: float = 1.0, op: type[Add] | type[Sub] = Add, **weights: np.ndarray
) -> tuple[Net, Value]:
    """relu(acc + factor * x)."""
    net = Net(1, 4, 4, 6)
    skip = net(Mul(), net.x, net.constant(factor), name="skip")
    acc = net.conv(net.x, 6, name="acc", **weights)
    return net, net.relu(net(op(), acc, skip, name="total"), name="y")


def multipliers(stages: Stages) -> tuple[np.ndarray, np.ndarray]:
    """The skip's integer multipliers, and the exact ratio of the scales."""
    node = node_of(stages["quantize-ops"], "total.acc")
    index = 1 if node.input(1).name == "skip" else 0
    data = node.input(2 + index).data
    assert data is not None
    skip, acc = node.input(index).type.qparams, node.output.type.qparams
    assert skip is not None
    assert acc is not None
    return data, skip.scale[0] / np.asarray(acc.scale)


@pytest.mark.parametrize("op", [Add, Sub])
def test_the_skip_enters_by_exact_integers_and_no_weight_is_clipped(op: type[Add] | type[Sub]) -> None:
    net, y = residual(3.0, op)
    stages = planned(net, y)
    data, ratio = multipliers(stages)
    sign = 1 if op is Add else -1
    np.testing.assert_allclose(sign * data, ratio, rtol=1e-14)
    assert (np.abs(data) >= SMALLEST_SKIP_MULTIPLIER).all()
    w = node_of(stages["choose-qparams"], "acc").input(1)
    assert w.data is not None
    assert w.type.qparams is not None
    exact = w.data.astype(np.float64) / w.type.qparams.scale_array(4)
    assert np.abs(exact).max() <= 127.0000001
    largest = np.abs(exact).max(axis=(1, 2, 3))
    # scales grow by less than one part in the multiplier
    assert (largest >= 127 * data * sign / (data * sign + 1) - 1e-6).all()
    db = sqnr_db(
        interpreter.run(net.graph, net.samples())["y0"], reals(stages["quantize-ops"], net.samples())["y0"]
    )
    assert db > 30


def test_a_fusion_whose_skip_is_too_fine_is_undone() -> None:
    net, y = residual(0.01)
    stages = planned(net, y)
    ((node, reason),) = stages.declined("choose-qparams")
    assert node == "total"
    assert reason.startswith("the skip's scale is only ")
    assert float(reason.split()[5]) < SMALLEST_SKIP_MULTIPLIER
    graph = stages["choose-qparams"]
    assert not value_of(graph, "acc").fused
    assert value_of(graph, "total").fused  # the clamp still joins the sum
    assert qparams(graph, "acc") == activation_qparams(*(value_of(graph, "acc").range or (0, 0)))
    assert is_float32(qparams(graph, "w").scale)
    assert ops(stages["quantize-ops"]).count("requantize") == 2
    _, again = run_pass(graph.clone(), "choose-qparams")
    assert not again.changed
    assert not again.notes


def test_tiny_weights_do_not_blow_up_the_multiplier() -> None:
    weights = np.random.default_rng(4).normal(size=(6, 1, 1, 6))
    weights[2] *= 1e-9
    weights[3] = 0.0
    net, y = residual(weights=weights)
    stages = planned(net, y)
    data, ratio = multipliers(stages)
    assert data.max() == LARGEST_SKIP_MULTIPLIER == np.iinfo(np.int16).max
    np.testing.assert_allclose(data, ratio, rtol=1e-14)


def test_a_skip_that_is_shared_with_a_concat() -> None:
    net, y = residual()
    big = net(Mul(), net.conv(net.x, 2), net.constant(7.0))
    joined = net(Concat(3), value_of_net(net, "skip"), big)
    stages = quantize(net.finish(y, joined), net.samples())
    assert qparams(stages["choose-qparams"], "skip") == qparams(stages["choose-qparams"], joined)
    data, ratio = multipliers(stages)
    np.testing.assert_allclose(data, ratio, rtol=1e-14)
    check_plan(stages["plan-accumulators"])
    assert_same_bytes(stages["plan-accumulators"], stages["remove-dead-channels"])


def value_of_net(net: Net, name: str) -> Value:
    return next(n.output for n in net.graph.nodes if n.name == name)


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6, 1e12])
def test_a_constant_skip_joins_in_32_bits(size: float) -> None:
    net = Net(1, 4, 4, 3)
    constant = net.constant(net.rng.normal(size=(1, 4, 4, 3)) * size)
    y = net(Add(), net.conv(net.x, 3, name="acc"), constant, name="y")
    stages = planned(net, y)
    assert value_of(stages["choose-qparams"], "acc").fused
    db = sqnr_db(
        interpreter.run(net.graph, net.samples())["y0"], reals(stages["quantize-ops"], net.samples())["y0"]
    )
    assert db > 30


# ---------------------------------------------------------------------- sums beyond 32 bits
def test_a_bias_that_outweighs_its_sums_leaves_float32_exact() -> None:
    net = Net(1, 9)
    weights = np.stack([np.full(9, 0.1), np.full(9, 1e-7)])
    stages = planned(net, net.dense(net.x, 2, weights=weights, bias=np.array([5.0, 5.0])))
    x, w = (qparams(stages["choose-qparams"], name).scale for name in ("x", "w"))
    assert w[0] == pytest.approx(0.1 / 127, rel=1e-7)
    assert 5.0 / (x[0] * w[1]) == pytest.approx(2.0**23, rel=1e-6)


@pytest.mark.parametrize("kind", ["ones", "signs", "zero_point in the middle", "biased", "residual"])
def test_a_sum_of_70000_products_is_rescaled_into_32_bits(kind: str) -> None:
    """256 * 127 * 70000 is 6 % beyond 2^31: the weights lose 6 % of their resolution, not the model."""
    k = 70_000
    net = Net(1, k)
    weights = np.full((2, k), 0.01)
    if kind == "signs":
        weights *= net.rng.choice([-1, 1], size=(2, k))
    weights[1] *= net.rng.uniform(-1, 1, size=k)  # a usual channel keeps the finest scale
    bias = np.array([30.0, -30.0]) if kind == "biased" else np.zeros(2)
    y = net.dense(net.x, 2, weights=weights, bias=bias)
    if kind == "residual":
        y = net(Add(), y, net.input("z", 1, 2))
    graph = net.finish(y)
    samples = net.samples(3)
    if kind != "zero_point in the middle":
        samples["x"] = np.abs(samples["x"])  # zero_point -128: the largest |x - zero_point|
    if kind == "residual":
        samples["z"] = samples["z"] * 500
    stages = quantize(graph, samples, "plan-accumulators")
    check_plan(stages["plan-accumulators"])
    scale = np.asarray(qparams(stages["choose-qparams"], "w").scale)
    if kind == "residual":  # its scales follow from the skip
        return
    growth = scale[0] * 127 / 0.01
    assert growth == pytest.approx(
        {"zero_point in the middle": 1.0, "biased": 1.07}.get(kind, 1.06), abs=0.012
    )
    assert scale[1] * 127 == pytest.approx(np.abs(weights[1]).max(), rel=1e-6)
    floats = interpreter.run(graph, samples)["y0"]
    assert sqnr_db(floats, reals(stages["quantize-ops"], samples)["y0"]) > 30
