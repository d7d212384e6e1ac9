"""choose-qparams: scales and zero points, groups that share them, weights, residual adds, 32-bit sums."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from quantized_nets import (
    Net,
    Samples,
    Stages,
    assert_same_bytes,
    node_of,
    ops,
    quantize,
    random_net,
    reals,
    run_pass,
    sqnr_db,
    steps_apart,
    value_of,
)

from qcc.checker import check_plan
from qcc.ir import fixedpoint, interpreter
from qcc.ir.compare import first_difference
from qcc.ir.errors import PassError
from qcc.ir.graph import Graph, Value
from qcc.ir.ops.activation import Sigmoid
from qcc.ir.ops.conv import Conv2d
from qcc.ir.ops.dense import Dense
from qcc.ir.ops.elementwise import Add, Mul, Sub
from qcc.ir.ops.norm import LayerNorm
from qcc.ir.ops.pool import AvgPool2d, MaxPool2d
from qcc.ir.ops.quant import softmax_qparams
from qcc.ir.ops.rearrange import Concat, Slice
from qcc.ir.ops.shape import Pad, Reshape, Transpose
from qcc.ir.ops.softmax import Softmax
from qcc.ir.qparams import QParams
from qcc.passes.choose_qparams import SMALLEST_SKIP_MULTIPLIER, activation_qparams
from qcc.passes.weight_scales import LARGEST_SKIP_MULTIPLIER, SMALLEST_SCALE

LARGEST = float(np.finfo(np.float32).max)


def annotated(graph: Graph, samples: Samples) -> Graph:
    return quantize(graph, samples, "choose-qparams")["choose-qparams"]


def qparams(graph: Graph, value: Value | str) -> QParams:
    found = value_of(graph, value if isinstance(value, str) else value.name).type.qparams
    assert found is not None
    return found


def is_float32(numbers: tuple[float, ...]) -> bool:
    return all(float(np.float32(n)) == n for n in numbers)


# ---------------------------------------------------------------------- one activation
@settings(deadline=None, max_examples=300)
@given(
    st.floats(-LARGEST, LARGEST, width=32) | st.floats(-10, 10, width=32),
    st.floats(-LARGEST, LARGEST, width=32) | st.floats(-10, 10, width=32),
)
@example(0.0, 0.0)
@example(-3.0, -2.0)
@example(1e-45, 2e-45)
@example(-1e-38, 0.0)
@example(-LARGEST, LARGEST)
@example(-1e30, 1e-30)
def test_zero_is_exact_and_the_range_covered_to_half_a_step(a: float, b: float) -> None:
    low, high = min(a, b), max(a, b)
    chosen = activation_qparams(low, high)
    scale = chosen.scale[0]
    assert is_float32(chosen.scale)
    assert scale >= SMALLEST_SCALE
    assert -128 <= chosen.zero_point <= 127
    assert fixedpoint.quantize(np.zeros(1, np.float32), chosen)[0] == chosen.zero_point
    assert fixedpoint.fake_quantize(np.zeros(1, np.float32), chosen)[0] == 0.0
    covered_low, covered_high = chosen.range
    slack = scale * (0.5 + 1e-4)  # the scale itself is rounded to float32
    assert covered_low - slack <= min(low, 0.0)
    assert max(high, 0.0) <= covered_high + slack


def test_no_bit_is_wasted() -> None:
    for low, high in ((-1.0, 1.0), (0.0, 6.0), (-7.0, 0.0), (-0.3, 2.4)):
        assert activation_qparams(low, high).scale[0] == pytest.approx((high - low) / 255)


def test_a_tensor_of_zeros_gets_the_scale_of_a_tensor_in_0_1() -> None:
    assert activation_qparams(0.0, 0.0) == activation_qparams(0.0, 1.0)


@pytest.mark.parametrize("low", [-np.inf, np.nan])
def test_a_range_that_is_not_finite_is_an_error(low: float) -> None:
    with pytest.raises(PassError) as caught:
        activation_qparams(low, 1.0)
    assert caught.value.message == f"range [{low}, 1.0] is not finite"


# ---------------------------------------------------------------------- groups
def test_ops_that_move_elements_share_one_range() -> None:
    net = Net(1, 4, 4, 6)
    a, b, c = (net(Mul(), net.conv(net.x, 6), net.constant(s)) for s in (1.0, 10.0, 0.1))
    inner = net(Concat(3), a, b)
    pooled = net(MaxPool2d((2, 2), (2, 2)), net(Concat(3), inner, c))
    sliced = net(Slice((3,), (2,), (9,), (1,)), pooled)
    flat = net(Reshape((1, 28)), net(Transpose((0, 2, 1, 3)), sliced))
    graph = annotated(net.finish(flat), net.samples())
    group = [a, b, c, inner, pooled, sliced, flat]
    assert len({qparams(graph, v) for v in group}) == 1
    members = [value_of(graph, v.name).range for v in group]
    low, high = min(r[0] for r in members if r), max(r[1] for r in members if r)
    assert qparams(graph, flat) == activation_qparams(low, high)
    integer = quantize(net.graph, net.samples(), "quantize-ops")["quantize-ops"]
    assert not [n for n in integer.nodes if n.name.endswith("_as")]  # no requantize in between


def test_a_graph_input_joins_a_group_and_all_its_readers_see_it() -> None:
    net = Net(1, 4, 4, 3)
    big = net(Mul(), net.conv(net.x, 3), net.constant(20.0))
    joined = net(Concat(3), net.x, big)
    y = net.conv(net.x, 4)
    stages = quantize(net.finish(joined, y), net.samples(), "quantize-ops")
    graph = stages["choose-qparams"]
    assert qparams(graph, "x") == qparams(graph, joined)
    assert max(steps_apart(graph, stages["quantize-ops"], net.samples()).values()) <= 1


def test_the_same_operand_twice_is_no_problem() -> None:
    net = Net(1, 4, 4, 3)
    stages = quantize(net.finish(net(Concat(3), net.x, net.x)), net.samples())
    assert ops(stages["remove-dead-channels"]) == ["concat"]


def test_a_long_tower_of_concats_takes_linear_time() -> None:
    net = Net(1, 2, 2, 1)
    y = net(Softmax(3), net.conv(net.x, 2))
    for _ in range(60):  # each level reads the one below twice
        y = net(Slice((3,), (1,), (3,), (1,)), net(Concat(3), y, y))
    graph = annotated(net.finish(y), net.samples())
    assert qparams(graph, y) == softmax_qparams()


# ---------------------------------------------------------------------- dictated qparams
def test_softmax_dictates_and_what_moves_its_result_follows() -> None:
    net = Net(1, 4, 4, 3)
    soft = [net(Softmax(3), net.conv(net.x, 3)) for _ in range(2)]
    y = net(Reshape((1, 96)), net(Concat(3), *soft))
    stages = quantize(net.finish(y), net.samples(), "quantize-ops")
    graph = stages["choose-qparams"]
    assert {qparams(graph, v) for v in (*soft, y)} == {softmax_qparams()}
    assert ops(stages["quantize-ops"])[-3:] == ["softmax", "concat", "reshape"]


def stages_of(net: Net, y: Value) -> Stages:
    stages = quantize(net.finish(y), net.samples(), "quantize-ops")
    assert max(steps_apart(stages["choose-qparams"], stages["quantize-ops"], net.samples()).values()) <= 1
    return stages


def test_softmax_beside_another_value_is_requantized_where_they_meet() -> None:
    net = Net(1, 4, 4, 3)
    soft = net(Softmax(3), net.conv(net.x, 3), name="soft")
    other = net(Mul(), net.conv(net.x, 3), net.constant(9.0), name="other")
    stages = stages_of(net, net(Concat(3), other, soft, name="y"))
    graph = stages["choose-qparams"]
    assert qparams(graph, "soft") == softmax_qparams()
    assert qparams(graph, "other") == qparams(graph, "y") != softmax_qparams()
    operands = [v.name for v in node_of(stages["quantize-ops"], "y").inputs if v]
    assert operands == ["other", "soft_as"]


@pytest.mark.parametrize("how", ["concat", "pad"])
def test_a_constant_beyond_the_dictated_range_is_not_clipped(how: str) -> None:
    net = Net(1, 4, 4, 3)
    soft = net(Softmax(3), net.conv(net.x, 3), name="soft")
    if how == "concat":
        y = net(Concat(3), soft, net.constant(np.full((1, 4, 4, 2), 5.0)), name="y")
    else:
        y = net(Pad((0, 1, 0, 0), (0, 0, 0, 0), 5.0), soft, name="y")
    stages = stages_of(net, y)
    assert qparams(stages["choose-qparams"], "y").range[1] == pytest.approx(5.0)
    assert reals(stages["quantize-ops"], net.samples())["y0"].max() == pytest.approx(5.0)


def test_a_constant_inside_the_dictated_range_changes_nothing() -> None:
    net = Net(1, 4, 4, 3)
    soft = net(Softmax(3), net.conv(net.x, 3), name="soft")
    stages = stages_of(net, net(Concat(3), soft, net.constant(np.full((1, 4, 4, 2), 0.25)), name="y"))
    assert qparams(stages["choose-qparams"], "y") == softmax_qparams()


# ---------------------------------------------------------------------- who gets qparams
def test_what_runs_in_float_between_float_ops_has_no_qparams() -> None:
    net = Net(1, 4, 4, 3)
    scale, conv = net.constant(np.ones(3)), net.conv(net.x, 3)
    first = net(LayerNorm(3), conv, scale)
    second = net(LayerNorm(3), first, scale)
    graph = annotated(net.finish(net.conv(second, 2)), net.samples())
    assert value_of(graph, first.name).type.qparams is None
    assert qparams(graph, second).dtype == qparams(graph, conv).dtype == "s8"


def test_outputs_have_qparams_even_where_they_are_computed_in_float() -> None:
    net = Net(1, 4, 4, 3)
    graph = annotated(net.finish(net(LayerNorm(3), net.x, net.constant(np.ones(3)), name="y")), net.samples())
    assert qparams(graph, "y").dtype == "s8"


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
    assert data.max() == LARGEST_SKIP_MULTIPLIER
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


# ---------------------------------------------------------------------- the whole pass
def test_a_second_run_changes_nothing() -> None:
    for seed in range(8):
        graph = annotated(*random_net(seed))
        before = graph.clone()
        _, again = run_pass(graph, "choose-qparams")
        assert not again.changed
        assert first_difference(before, graph) is None


def test_two_runs_are_equal() -> None:
    for seed in range(4):
        a, b = annotated(*random_net(seed)), annotated(*random_net(seed))
        assert first_difference(a, b) is None


def test_scales_of_activations_are_float32_numbers() -> None:
    for seed in range(8):
        graph = annotated(*random_net(seed))
        for value in graph.values():
            if value.type.qparams is not None and not value.is_constant:
                assert is_float32(value.type.qparams.scale)


def test_avg_pool_and_quotients_in_a_group_of_very_different_ranges() -> None:
    """Multipliers beyond what 32 bits and a shift hold: everything rounds to zero, or saturates, exactly."""
    net = Net(1, 4, 4, 3)
    tiny = net(Mul(), net.x, net.constant(np.full((4, 1), 1e-18)), name="tiny")
    pooled = net(AvgPool2d((2, 2), (1, 1)), tiny, name="pooled")
    huge = net(Mul(), net.conv(net.x, 3), net.constant(1e12))
    huge = net(AvgPool2d((2, 2), (1, 1)), huge)
    stages = quantize(net.finish(net(Concat(3), pooled, huge)), net.samples())
    check_plan(stages["plan-accumulators"])
    assert_same_bytes(stages["quantize-ops"], stages["plan-accumulators"])


def test_an_output_far_below_the_steps_of_its_accumulator() -> None:
    net = Net(1, 1, 1, 2)
    weights = np.array([1e9, -1e9]).reshape(1, 1, 1, 2)
    y = net.conv(net.x, 1, weights=weights, bias=np.array([1e-6]))
    samples = {"x": np.repeat(net.rng.normal(size=(6, 1, 1, 1, 1)), 2, axis=4).astype(np.float32)}
    stages = quantize(net.finish(y), samples, "plan-accumulators")
    check_plan(stages["plan-accumulators"])
    assert_same_bytes(stages["quantize-ops"], stages["plan-accumulators"])


# ---------------------------------------------------------------------- refusals
def test_a_value_without_range_is_an_error() -> None:
    net = Net(1, 3)
    graph = net.finish(net(Sigmoid(), net.x))
    graph.stage = "annotated"
    with pytest.raises(PassError) as caught:
        run_pass(graph, "choose-qparams")
    assert caught.value.message == "%x has no range"
    assert caught.value.hint == "run calibrate before choose-qparams"


def refused(net: Net, y: Value) -> PassError:
    with pytest.raises(PassError) as caught:
        quantize(net.finish(y), net.samples(), "choose-qparams")
    return caught.value


def test_computed_weights_are_refused() -> None:
    net = Net(1, 4, 3)
    y = net(Dense(), net.x, net(Sigmoid(), net.input("w", 5, 3), name="gate"), name="y")
    assert refused(net, y).message == "%y: weight %gate is computed, dense needs a constant"


def test_a_computed_bias_is_refused() -> None:
    net = Net(1, 4, 3)
    y = net(Dense(), net.x, net.constant(np.ones((5, 3))), net.input("b", 5), name="y")
    assert refused(net, y).message == "%y: bias %b is computed, dense needs a constant"


def test_a_constant_operand_is_refused() -> None:
    net = Net(1, 4, 3)
    y = net.dense(net.constant(np.ones((1, 4, 3)), "c"), 2, name="y")
    error = refused(net, net(Add(), net.input("z", 1, 4, 2), y))
    assert error.message == "%y: operand %c is constant"
    assert error.hint == "run fold-constants first"
