"""The checker accepts what the planner plans and rejects every planted fault by its name."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from qcc.checker import PlanReport, check_plan
from qcc.ir.builder import Builder
from qcc.ir.errors import VerifyError
from qcc.ir.graph import Graph, Node, Value
from qcc.ir.ops.activation import Clamp, Tanh
from qcc.ir.ops.conv import Conv2d
from qcc.ir.ops.dense import Dense
from qcc.ir.ops.elementwise import Add
from qcc.ir.ops.pool import AvgPool2d
from qcc.ir.ops.quant import Dequantize
from qcc.ir.ops.rearrange import Concat
from qcc.ir.ops.shape import Reshape
from qcc.ir.types import DType, TensorType, f32
from qcc.passes.base import PassContext
from qcc.passes.manager import parse_pipeline

FOLDED = "fuse-epilogues,calibrate,choose-qparams,quantize-ops,fold-zero-points,"
PLANNED = FOLDED + "plan-accumulators,remove-dead-channels"
MULTIPLIER, SHIFT, ACC_MIN, ACC_MAX = 1, 2, 3, 4


def plan(graph: Graph, batch: dict[str, np.ndarray], pipeline: str = PLANNED) -> Graph:
    ctx = PassContext(resources={"calibration": [batch]})
    for step in parse_pipeline(pipeline):
        graph = step.run(graph, ctx).graph or graph
    return graph


def build(*shape: int) -> tuple[Graph, Builder, Callable[..., Value]]:
    """A graph with input x, its builder, and constants from a seeded normal distribution."""
    rng = np.random.default_rng(11)
    graph = Graph("test")
    graph.add_input("x", f32(*shape))
    b = Builder(graph)
    return graph, b, lambda *s: b.constant(rng.normal(size=s).astype(np.float32), "c")


def samples(*shape: int) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(5).normal(size=(8, *shape[1:])).astype(np.float32)}


def network() -> Graph:
    """conv + relu6, conv + residual add + relu, depthwise, average pool, tanh, dense."""
    graph, b, c = build(1, 6, 6, 3)
    y = b.emit(Conv2d(pads=(1, 1, 1, 1)), graph.inputs[0], c(4, 3, 3, 3), c(4), name="conv")
    y = b.emit(Clamp(0.0, 6.0), y, name="relu6")
    z = b.emit(Conv2d(), y, c(4, 1, 1, 4), c(4), name="conv2")
    y = b.emit(Add(), z, y, name="residual")
    y = b.emit(Clamp(0.0), y, name="relu")
    y = b.emit(Conv2d((2, 2), (1, 1, 1, 1), groups=4), y, c(4, 3, 3, 1), c(4), name="depthwise")
    y = b.emit(AvgPool2d((2, 2), (1, 1)), y, name="pool")
    y = b.emit(Tanh(), y, name="tanh")
    y = b.emit(Reshape((1, 16)), y, name="flat")
    graph.add_output(b.emit(Dense(), y, c(5, 16), c(5), name="dense"))
    return plan(graph, samples(1, 6, 6, 3))


@pytest.fixture
def planned() -> Graph:
    graph = network()
    check_plan(graph)
    return graph


def node_of(graph: Graph, name: str) -> Node:
    return next(n for n in graph.nodes if n.name == name)


def edit(graph: Graph, node: str, index: int, change: Callable[[np.ndarray], Any]) -> None:
    """Replace a constant operand by ``change`` of a copy of it (or by what ``change`` made of it in place)."""
    found = node_of(graph, node)
    old = found.input(index)
    assert old.data is not None
    data = old.data.copy()
    made = change(data)
    made = data if made is None else made
    type_ = TensorType(DType.of(made.dtype), made.shape, old.type.qparams)
    graph.set_input(found, index, graph.constant(made, old.name, type_))


def put(channel: int, value: int) -> Callable[[np.ndarray], None]:
    def change(data: np.ndarray) -> None:
        data.reshape(len(data), -1)[channel] = value

    return change


def bump(channel: int, by: int) -> Callable[[np.ndarray], None]:
    def change(data: np.ndarray) -> None:
        data[channel] += by

    return change


def uncertify(graph: Graph) -> None:
    for node in graph.nodes:
        if node.op.name == "requantize":
            node.op = replace(node.op, certified=())


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


# ---------------------------------------------------------------------- scales and types
def rescale(value: Value, factor: float) -> None:
    qparams = value.type.qparams
    assert qparams is not None
    scaled = replace(qparams, scale=tuple(s * factor for s in qparams.scale))
    value.type = value.type.with_qparams(scaled)


@pytest.mark.parametrize(
    ("node", "index", "message"),
    [
        ("conv.acc", 2, r"%conv.acc, channel 0: scale of the bias: claimed \S+, recomputed"),
        ("conv.acc", 1, r"%conv.acc, channel 0: scale of the result"),
        ("conv2.acc", None, r"%conv2.acc, channel 0: scale of the result"),
        ("residual.acc", None, r"%residual.acc, channel 0: multiplier of operand 0: claimed 1, recomputed"),
        ("pool.acc", None, r"%pool.acc, channel 0: scale of the result"),
        ("flat", None, r"%flat: %tanh is moved: claimed q\("),
        ("relu", None, r"%relu, channel 0: multiplier"),
    ],
)
def test_scales_that_do_not_fit(planned: Graph, node: str, index: int | None, message: str) -> None:
    found = node_of(planned, node)
    rescale(found.output if index is None else found.input(index), 1.001)
    with pytest.raises(VerifyError, match=message):
        check_plan(planned)


def test_a_wrong_multiplier_of_a_residual(planned: Graph) -> None:
    edit(planned, "residual.acc", 3, bump(1, 1))
    with pytest.raises(
        VerifyError, match=r"%residual.acc, channel 1: multiplier of operand 1: claimed \d+, reco"
    ):
        check_plan(planned)


def test_a_wrong_multiplier_of_a_plain_sum() -> None:
    graph, b, c = build(1, 4)
    y = b.emit(Dense(), graph.inputs[0], c(4, 4), name="dense")
    graph.add_output(b.emit(Add(), b.emit(Tanh(), y), graph.inputs[0], name="sum"))
    planned = plan(graph, samples(1, 4))
    check_plan(planned)
    edit(planned, "sum.acc", 2, bump(0, 1))
    with pytest.raises(VerifyError, match=r"%sum.acc, channel 0: multiplier of operand 0"):
        check_plan(planned)


def test_moved_values_must_share_qparams() -> None:
    graph, b, _ = build(1, 4)
    x = graph.inputs[0]
    graph.add_output(b.emit(Concat(1), x, b.emit(Tanh(), x, name="tanh"), name="concat"))
    planned = plan(graph, samples(1, 4))
    check_plan(planned)
    rescale(planned.inputs[0], 1.5)
    with pytest.raises(VerifyError, match=r"%concat: %x is moved"):
        check_plan(planned)


def test_a_value_without_scale(planned: Graph) -> None:
    value = node_of(planned, "conv.acc").input(0)
    value.type = value.type.with_qparams(None)
    with pytest.raises(VerifyError, match="%x has no qparams"):
        check_plan(planned)


def test_a_bias_of_another_type(planned: Graph) -> None:
    edit(planned, "conv.acc", 2, lambda d: np.minimum(d, 100).astype(np.int16))
    with pytest.raises(VerifyError, match=r"type of the bias: claimed s32, recomputed s16"):
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
