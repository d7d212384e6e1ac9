"""The checker accepts what the planner plans and rejects every planted fault by its name."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from checked_nets import (
    ACC_MAX,
    ACC_MIN,
    FOLDED,
    MULTIPLIER,
    SHIFT,
    build,
    bump,
    edit,
    network,
    node_of,
    plan,
    put,
    samples,
    uncertify,
)

from qcc.checker import PlanReport, check_plan
from qcc.ir.builder import Builder
from qcc.ir.errors import VerifyError
from qcc.ir.graph import Graph
from qcc.ir.ops.activation import Clamp, Tanh
from qcc.ir.ops.conv import Conv2d
from qcc.ir.ops.dense import Dense
from qcc.ir.ops.elementwise import Add
from qcc.ir.ops.pool import AvgPool2d
from qcc.ir.ops.quant import Dequantize
from qcc.ir.ops.shape import Reshape
from qcc.ir.types import DType, TensorType, f32


@pytest.fixture
def planned() -> Graph:
    return network()


# ---------------------------------------------------------------------- accepted
def test_a_planned_network_is_proved(planned: Graph) -> None:
    names = [n.op.name for n in planned.nodes]
    assert names.count("add") == 1  # the residual: one accumulator for both
    report = check_plan(planned)
    assert report == PlanReport(
        requantizes=names.count("requantize"),
        channels=sum(n.output.type.shape[-1] for n in planned.nodes if n.op.name == "requantize"),
        certified=report.channels,
        exhaustive=report.exhaustive,
        accumulators=6,
        accumulator_bits=report.accumulator_bits,
    )
    assert 0 < report.exhaustive <= report.certified
    assert 14 <= report.accumulator_bits <= 20


def test_wider_claims_are_fine(planned: Graph) -> None:
    uncertify(planned)
    edit(planned, "relu6", ACC_MIN, bump(0, -1000))
    edit(planned, "relu6", ACC_MAX, bump(1, 1000))
    op = node_of(planned, "relu6").op
    node_of(planned, "relu6").op = replace(op, accumulator_bits=32)
    assert check_plan(planned).certified == 0


def test_dead_channels_removed_or_not() -> None:
    graph, b, c = build(1, 4, 4, 2)
    bias = b.constant(np.array([0.0, -500.0, 1.0, -500.0], np.float32), "bias")
    y = b.emit(Clamp(0.0), b.emit(Conv2d(), graph.inputs[0], c(4, 1, 1, 2), bias), name="relu")
    graph.add_output(b.emit(Conv2d(), y, c(3, 1, 1, 4), c(3)))
    full = plan(graph, samples(1, 4, 4, 2), FOLDED + "plan-accumulators")
    before = check_plan(full)
    full = plan(full, {}, "remove-dead-channels")
    assert check_plan(full).channels == before.channels - 2


@pytest.mark.parametrize("smallest", [1.0, 1e-3, 1e-6, 0.0])
def test_a_residual_with_a_channel_of_tiny_weights(smallest: float) -> None:
    """Its accumulator would have so fine a scale that the skip's term passed 32 bits."""
    graph, b, _ = build(1, 4, 4, 3)
    w = np.random.default_rng(0).normal(size=(3, 1, 1, 3)).astype(np.float32)
    w[1] *= smallest
    y = b.emit(Conv2d(), graph.inputs[0], b.constant(w, "w"), name="conv")
    graph.add_output(b.emit(Add(), y, graph.inputs[0], name="sum"))
    planned = plan(graph, samples(1, 4, 4, 3))
    assert [n.op.name for n in planned.nodes] == ["conv2d", "add", "requantize"]
    assert check_plan(planned).accumulator_bits <= 26


@pytest.mark.parametrize("size", [1.0, 1e6])
def test_a_constant_of_the_full_shape_joins_the_accumulator(size: float) -> None:
    graph, b, c = build(1, 3, 4)
    rows = np.random.default_rng(0).normal(size=(1, 3, 4)).astype(np.float32)
    y = b.emit(Dense(), graph.inputs[0], c(4, 4), name="dense")
    graph.add_output(b.emit(Add(), y, b.constant(rows * np.float32(size), "rows"), name="sum"))
    planned = plan(graph, samples(1, 3, 4))
    assert [n.op.name for n in planned.nodes] == ["dense", "add", "requantize"]
    check_plan(planned)


@pytest.mark.parametrize(
    ("index", "change", "message"),
    [
        (MULTIPLIER, lambda d: d + d // 1000, r"multiplier \* 2\^-shift: claimed \d.*, recomputed \d"),
        (SHIFT, lambda d: d + 1, r"multiplier \* 2\^-shift: claimed \d.*, recomputed \d"),
        (MULTIPLIER, put(1, 2**23 - 1), r"multiplier out of range: claimed 8388607, recomputed \[8388608, "),
        (MULTIPLIER, put(1, -5), r"channel 1: multiplier out of range: claimed -5"),
        (SHIFT, put(1, 0), r"channel 1: shift out of range: claimed 0, recomputed \[1, 62\]"),
        (SHIFT, put(1, 63), r"channel 1: shift out of range: claimed 63"),
        (ACC_MIN, bump(1, 1), r"%relu6, channel 1: accumulator interval: claimed \[-?\d+, \d+\], recomputed"),
        (ACC_MAX, bump(2, -1), r"%relu6, channel 2: accumulator interval: claimed"),
        (ACC_MAX, lambda d: d[:2], r"type of acc_max: claimed s32\[4\], recomputed int32\[2\]"),
        (ACC_MAX, lambda d: d.astype(np.int8), r"type of acc_max: claimed s32\[4\], recomputed int8\[4\]"),
    ],
)
def test_faults_in_the_claims_of_a_requantize(
    planned: Graph, index: int, change: Callable[[np.ndarray], Any], message: str
) -> None:
    edit(planned, "relu6", index, change)
    with pytest.raises(VerifyError, match=message):
        check_plan(planned)


def test_a_scale_within_the_planned_neighbours_passes(planned: Graph) -> None:
    uncertify(planned)
    edit(planned, "relu6", MULTIPLIER, lambda d: d + (d >> 15))
    check_plan(planned)
    edit(planned, "relu6", MULTIPLIER, lambda d: d + (d >> 14))
    with pytest.raises(VerifyError, match="multiplier"):
        check_plan(planned)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"certified": ("f16",)}, r"%relu6: unknown fast path: claimed 'f16', recomputed known: f32"),
        ({"certified": ("f32", "sqrdmulh")}, r"unknown fast path: claimed 'sqrdmulh'"),
        ({"low": -129}, r"rounding and saturation: claimed ties_up, \[-129, "),
        ({"low": 5, "high": 4}, r"rounding and saturation"),
        ({"rounding": "half_even"}, r"rounding and saturation: claimed half_even"),
        ({"accumulator_bits": 0}, r"accumulator_bits: claimed 0, recomputed 1\d "),
        ({"accumulator_bits": 33}, r"accumulator_bits: claimed 33"),
    ],
)
def test_faults_in_the_attributes_of_a_requantize(
    planned: Graph, options: dict[str, Any], message: str
) -> None:
    node = node_of(planned, "relu6")
    node.op = replace(node.op, **options)
    with pytest.raises(VerifyError, match=message):
        check_plan(planned)


# ---------------------------------------------------------------------- what the bounds rest on
def test_a_changed_weight(planned: Graph) -> None:
    uncertify(planned)
    edit(planned, "conv2.acc", 1, put(3, 127))
    with pytest.raises(VerifyError, match=r"%relu, channel 3: accumulator interval"):
        check_plan(planned)


def test_a_bias_that_lets_sums_pass_32_bits(planned: Graph) -> None:
    edit(planned, "depthwise.acc", 2, put(2, 2**31 - 1))
    message = (
        r"%depthwise.acc, channel 2: a partial sum overflows: claimed every partial sum in 32 bits, recomp"
    )
    with pytest.raises(VerifyError, match=message):
        check_plan(planned)


def test_a_removed_clamp(planned: Graph) -> None:
    uncertify(planned)
    node = node_of(planned, "relu6")
    node.op = replace(node.op, low=-128)
    node.output.type = node.output.type.with_qparams(
        replace(node.output.type.qparams, zero_point=0)  # type: ignore[type-var]
    )
    with pytest.raises(VerifyError, match=r"%relu, channel \d: accumulator interval"):
        check_plan(planned)


def test_a_widened_table() -> None:
    graph, b, c = build(1, 4)
    y = b.emit(Tanh(), graph.inputs[0], name="tanh")
    graph.add_output(b.emit(Dense(), y, c(3, 4), c(3), name="dense"))
    graph = plan(graph, samples(1, 4), FOLDED.rstrip(","))
    edit(graph, "tanh", 1, lambda d: d // 2)
    planned = plan(graph, {}, "plan-accumulators")
    check_plan(planned)
    uncertify(planned)
    edit(planned, "tanh", 1, lambda d: d // 2)
    check_plan(planned)  # a narrower table leaves the claims true
    edit(planned, "tanh", 1, lambda d: np.arange(-128, 128).astype(np.int8))
    with pytest.raises(VerifyError, match=r"%dense, channel 0: accumulator interval"):
        check_plan(planned)


def test_an_input_of_another_type(planned: Graph) -> None:
    """The same graph read as unsigned bytes: the first convolution reaches further."""
    uncertify(planned)
    x = planned.inputs[0]
    assert x.type.qparams is not None
    x.type = TensorType(DType.U8, x.type.shape, replace(x.type.qparams, dtype="u8", zero_point=0))
    with pytest.raises(VerifyError, match=r"%relu6, channel \d: accumulator interval"):
        check_plan(planned)


def test_another_zero_point_of_the_input() -> None:
    graph, b, _ = build(1, 4, 4, 2)
    graph.add_output(b.emit(AvgPool2d((2, 2), (2, 2)), graph.inputs[0], name="pool"))
    planned = plan(graph, samples(1, 4, 4, 2))
    uncertify(planned)
    x = planned.inputs[0]
    assert x.type.qparams is not None
    x.type = x.type.with_qparams(replace(x.type.qparams, zero_point=x.type.qparams.zero_point + 7))
    with pytest.raises(VerifyError, match=r"%pool, channel 0: accumulator interval"):
        check_plan(planned)


# ---------------------------------------------------------------------- structure
def test_a_float_op_that_reads_an_accumulator(planned: Graph) -> None:
    b = Builder(planned)
    planned.add_output(b.emit(Dequantize(), node_of(planned, "dense.acc").output, name="float"), "float")
    with pytest.raises(VerifyError, match=r"%float: dequantize reads accumulator %dense.acc"):
        check_plan(planned)


def test_movement_of_an_accumulator_keeps_its_partial_sums(planned: Graph) -> None:
    node = node_of(planned, "dense")
    acc = node.input(0)
    moved = Builder(planned, before=node).emit(Reshape((1, 5)), acc, name="moved")
    planned.set_input(node, 0, moved)
    assert check_plan(planned).accumulators == 7
    node.op = replace(node.op, accumulator_bits=10)
    with pytest.raises(VerifyError, match="accumulator_bits"):
        check_plan(planned)


def test_an_unplanned_graph(planned: Graph) -> None:
    planned.stage = "integer"
    with pytest.raises(VerifyError, match="only a planned graph can be checked, test is integer"):
        check_plan(planned)


def test_an_unplanned_requantize(planned: Graph) -> None:
    node = node_of(planned, "relu6")
    planned.set_inputs(node, node.inputs[:3])
    with pytest.raises(
        VerifyError, match=r"%relu6: is not planned: claimed a constant acc_min, recomputed none"
    ):
        check_plan(planned)


def test_a_requantize_of_floats(planned: Graph) -> None:
    planned.inputs[0].type = f32(1, 6, 6, 3)
    with pytest.raises(VerifyError, match=r"%conv.acc: conv2d leaves an accumulator"):
        check_plan(planned)
    node = node_of(planned, "relu6")
    node.inputs[0] = planned.inputs[0]
    planned.nodes = [node]
    with pytest.raises(VerifyError, match=r"%relu6: requantize: claimed integers, recomputed floats"):
        check_plan(planned)


def test_weights_must_be_constant(planned: Graph) -> None:
    node = node_of(planned, "dense.acc")
    value = planned.add_input("w", node.input(1).type)
    planned.set_input(node, 1, value)
    with pytest.raises(VerifyError, match=r"%dense.acc: operand 1 of dense must be a constant"):
        check_plan(planned)


def test_a_value_used_before_it_is_defined(planned: Graph) -> None:
    planned.nodes.reverse()
    with pytest.raises(VerifyError, match=r"reads %dense.acc, which is not defined before it"):
        check_plan(planned)
