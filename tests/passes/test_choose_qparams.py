"""choose-qparams: scales and zero points of activations, and groups that share them."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
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
    random_net,
    reals,
    run_pass,
    steps_apart,
    value_of,
)

from qcc.checker import check_plan
from qcc.ir import fixedpoint
from qcc.ir.compare import first_difference
from qcc.ir.errors import PassError
from qcc.ir.graph import Value
from qcc.ir.ops.activation import Sigmoid
from qcc.ir.ops.dense import Dense
from qcc.ir.ops.elementwise import Add, Mul
from qcc.ir.ops.norm import LayerNorm
from qcc.ir.ops.pool import AvgPool2d, MaxPool2d
from qcc.ir.ops.quant import softmax_qparams
from qcc.ir.ops.rearrange import Concat, Slice
from qcc.ir.ops.shape import Pad, Reshape, Transpose
from qcc.ir.ops.softmax import Softmax
from qcc.passes.choose_qparams import activation_qparams
from qcc.passes.weight_scales import SMALLEST_SCALE

LARGEST = float(np.finfo(np.float32).max)


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
