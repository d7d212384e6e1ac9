"""quantize-ops: where each node runs, what its integers mean against fake-quant, and every refusal."""

import numpy as np
import pytest
from quantized_nets import (
    Net,
    Samples,
    Stages,
    integers,
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

from qcc.ir import interpreter
from qcc.ir.compare import first_difference
from qcc.ir.errors import PassError
from qcc.ir.graph import Graph, Value
from qcc.ir.location import Location
from qcc.ir.ops.activation import Clamp, LeakyRelu, Sigmoid, Tanh
from qcc.ir.ops.dense import MatMul
from qcc.ir.ops.elementwise import Add, Div, Max, Min, Mul, PRelu, Sub
from qcc.ir.ops.functions import Abs, Log, Sqrt
from qcc.ir.ops.norm import LayerNorm
from qcc.ir.ops.pool import AvgPool2d
from qcc.ir.ops.rearrange import Concat, Slice
from qcc.ir.ops.reduce import ReduceMean
from qcc.ir.ops.shape import Reshape, Transpose
from qcc.ir.types import f32


def stages_of(net: Net, *outputs: Value, samples: Samples | None = None) -> Stages:
    """The stages up to here; each value is within a step of its fake-quant meaning, and 30 dB of the float one."""
    graph = net.finish(*outputs)
    samples = samples or net.samples()
    stages = quantize(graph, samples, "quantize-ops")
    apart = steps_apart(stages["choose-qparams"], stages["quantize-ops"], samples)
    assert max(apart.values(), default=0) <= 1
    floats, found = interpreter.run(graph, samples), reals(stages["quantize-ops"], samples)
    for name in floats:
        assert sqnr_db(floats[name], found[name]) > 30, name
    return stages


def integer(stages: Stages) -> Graph:
    return stages["quantize-ops"]


# ---------------------------------------------------------------------- placement
def test_a_node_without_integer_form_runs_between_dequantize_and_quantize() -> None:
    net = Net(1, 4, 4, 3)
    a = net.conv(net.x, 3, name="a")
    b = net(Sigmoid(), net.conv(net.x, 3), name="b")
    quotient = net(Div(), a, b, name="quotient")
    stages = stages_of(net, net.conv(quotient, 2, name="y"))
    graph = integer(stages)
    assert stages.declined("quantize-ops") == [("quotient", "div has no integer form here")]
    assert "y" in stages.applied("quantize-ops", "placement")
    assert [v.producer.op.name for v in node_of(graph, "quotient").inputs if v and v.producer] == [
        "dequantize",
        "dequantize",
    ]
    (reader,) = value_of(graph, "quotient").users
    assert (reader.op.name, reader.name) == ("quantize", "quotient_q")


def test_neighbours_in_float_share_one_island() -> None:
    net = Net(1, 4, 4, 3)
    scale = net.constant(np.ones(3))
    y = net(LayerNorm(3), net(LayerNorm(3), net(LayerNorm(3), net.x, scale), scale), scale)
    graph = integer(stages_of(net, y))
    assert ops(graph) == ["dequantize", "layer_norm", "layer_norm", "layer_norm", "quantize"]


def test_a_float_value_read_by_floats_and_integers_is_8_bits_to_both() -> None:
    """As it is under fake-quant, where a value with qparams is rounded for every reader."""
    net = Net(1, 4, 4, 3)
    first = net(LayerNorm(3), net.x, net.constant(np.ones(3)), name="first")
    second = net(Div(), first, net(Add(), net(Sigmoid(), net.x), net.constant(0.5)), name="second")
    graph = integer(stages_of(net, net(Reshape((1, 48)), first), second))
    (reader,) = value_of(graph, "first").users
    assert reader.op.name == "quantize"
    assert {u.op.name for u in reader.output.users} == {"reshape", "dequantize"}


def test_a_fused_value_whose_consumer_falls_back_to_float() -> None:
    """Windows of 1 to 11 by 1 to 13 elements have no small common divisor: pool and clamp both run in float."""
    net = Net(1, 11, 13, 2)
    pool = net(AvgPool2d((11, 13), (1, 1), (10, 12, 10, 12)), net.x, name="pool")
    graph = net.finish(net.relu(pool, name="y"))
    stages = quantize(graph, net.samples(), "quantize-ops")
    assert value_of(stages["choose-qparams"], "pool").fused
    assert stages.declined("quantize-ops") == [("y", "clamp has no integer form here")]
    assert ops(integer(stages)) == ["dequantize", "avg_pool2d", "clamp", "quantize"]
    floats = interpreter.run(graph, net.samples())["y0"]
    assert sqnr_db(floats, reals(integer(stages), net.samples())["y0"]) > 30


def test_strict_lists_every_node_without_integer_form() -> None:
    net = Net(1, 4, 4, 3)
    net.builder.location = Location("model.onnx", node="n")
    a = net(Div(), net.x, net.input("z", 1, 4, 4, 3), name="a")
    b = net(LayerNorm(3), a, net.constant(np.ones(3)), name="b")
    graph = quantize(net.finish(net.relu(b)), net.samples(), "choose-qparams")["choose-qparams"]
    with pytest.raises(PassError) as caught:
        run_pass(graph, "quantize-ops{strict=true}")
    assert caught.value.message == (
        "2 nodes have no integer form:\n  %a: div has no integer form here\n"
        "  %b: layer_norm has no integer form here"
    )
    assert caught.value.hint == "drop --strict to run them in float"


def test_strict_accepts_what_is_all_integers() -> None:
    net = Net(1, 4, 4, 3)
    graph = quantize(net.finish(net.conv(net.x, 3)), net.samples(), "choose-qparams")["choose-qparams"]
    graph, result = run_pass(graph, "quantize-ops{strict=true}")
    assert all(n.applied for n in result.notes)
    assert graph.stage == "integer"


def test_inputs_and_outputs_are_8_bits_even_beside_float_nodes() -> None:
    net = Net(1, 4, 4, 3)
    graph = integer(stages_of(net, net(LayerNorm(3), net.x, net.constant(np.ones(3)))))
    assert {v.type.dtype.value for v in (*graph.inputs, *graph.outputs)} == {"s8"}


# ---------------------------------------------------------------------- outputs
def test_an_input_that_is_an_output_and_an_output_given_twice() -> None:
    net = Net(1, 4, 4, 3)
    y = net.conv(net.x, 2)
    graph = integer(stages_of(net, net.x, y, y))
    assert graph.outputs[0] is graph.inputs[0]
    assert graph.outputs[1] is graph.outputs[2]
    assert graph.output_names == ["y0", "y1", "y2"]


def test_a_constant_output_keeps_its_floats() -> None:
    net = Net(1, 3)
    constant = net.constant(np.arange(3))
    graph = net.finish(net(Sigmoid(), net.x), constant)
    found = quantize(graph, net.samples(), "quantize-ops")["quantize-ops"]
    assert found.outputs[1].type == f32(3)
    np.testing.assert_array_equal(reals(found, net.samples())["y1"][0], np.arange(3))


def test_nodes_that_nothing_needs_are_not_built() -> None:
    net = Net(1, 4, 4, 3)
    net.relu(net.conv(net.x, 7))
    assert ops(integer(stages_of(net, net.conv(net.x, 2)))) == ["conv2d", "requantize"]


# ---------------------------------------------------------------------- what integers look like
def test_convolution_residual_and_clamp_are_one_accumulator() -> None:
    net = Net(1, 4, 4, 3)
    y = net.relu(net(Add(), net.conv(net.x, 3, name="conv"), net.x, name="sum"), 1.5, name="y")
    graph = integer(stages_of(net, y))
    assert ops(graph) == ["conv2d", "add", "requantize"]
    assert [n.name for n in graph.nodes] == ["conv.acc", "sum.acc", "y"]
    requantize = node_of(graph, "y").op.attributes()
    qparams = value_of(graph, "y").type.qparams
    assert qparams is not None
    assert requantize["low"] == qparams.zero_point
    assert requantize["high"] == qparams.zero_point + round(1.5 / qparams.scale[0])


def test_an_empty_clamp_keeps_its_upper_bound() -> None:
    """min(max(x, 2), -3) is -3 everywhere."""
    net = Net(1, 4, 4, 3)
    stages = stages_of(net, net(Clamp(2.0, -3.0), net.conv(net.x, 3)))
    np.testing.assert_allclose(reals(integer(stages), net.samples())["y0"], -3.0, rtol=1e-6)


@pytest.mark.parametrize("op", [Add(), Sub(), Mul()])
@pytest.mark.parametrize("shape", [(1, 4, 4, 3), (1, 1, 1, 3), (1, 4, 1, 1), (4, 3), (3,), (1,), (), (4, 1)])
@pytest.mark.parametrize("swap", [False, True])
def test_sums_and_products_of_two_values_broadcast(op: Add, shape: tuple[int, ...], swap: bool) -> None:
    net = Net(1, 4, 4, 3)
    z = net.input("z", *shape)
    pair = (z, net.x) if swap else (net.x, z)
    graph = integer(stages_of(net, net(op, *pair)))
    assert ops(graph) == [op.name, "requantize"]


@pytest.mark.parametrize("op", [Add(), Sub(), Mul()])
@pytest.mark.parametrize("shape", [(1, 4, 4, 3), (4, 1, 1), (4, 1), (1, 1, 1, 1), (3,), ()])
@pytest.mark.parametrize("swap", [False, True])
def test_constants_of_every_shape(op: Add, shape: tuple[int, ...], swap: bool) -> None:
    """A scalar, or a number per channel, makes a table; one that varies over space is a 32-bit sum or product."""
    net = Net(1, 4, 4, 3)
    constant = net.constant(net.rng.normal(size=shape) * 3)
    pair = (constant, net.x) if swap else (net.x, constant)
    graph = integer(stages_of(net, net(op, *pair)))
    table = constant.data is not None and constant.data.size in (1, constant.data.shape[-1] if shape else 1)
    assert ops(graph) == (["table"] if table else [op.name, "requantize"])
    if table:
        assert node_of(graph, graph.outputs[0].name).input(1).type.shape == (
            (3, 256) if shape == (3,) else (256,)
        )


def test_a_constant_that_widens_the_value_is_no_table() -> None:
    net = Net(1, 4, 4, 1)
    graph = integer(stages_of(net, net(Mul(), net.x, net.constant([1.0, -2.0, 0.5]))))
    assert ops(graph) == ["mul", "requantize"]
    assert graph.outputs[0].type.shape == (1, 4, 4, 3)


def test_a_value_used_twice_by_one_node() -> None:
    net = Net(1, 4, 4, 3)
    acc = net.conv(net.x, 3)
    outputs = [net(op, acc, acc) for op in (Add(), Mul(), Max())]
    square = net(MatMul(), net.x, net(Transpose((0, 1, 3, 2)), net.x))
    graph = integer(stages_of(net, *outputs, net(Concat(3), acc, acc), square))
    assert ops(graph).count("table") == 3


def test_sums_of_very_different_scales() -> None:
    net = Net(1, 4, 4, 3)
    z = net.input("z", 1, 4, 4, 3)
    samples = net.samples()
    samples["z"] = samples["z"] * np.float32(1e-4)
    stages_of(net, net(Add(), net.x, z), net(Sub(), z, net.x), samples=samples)


@pytest.mark.parametrize("size", [1e-30, 1e-6, 1e6, 1e30])
def test_constants_of_every_size(size: float) -> None:
    net = Net(1, 4, 4, 3)
    constant = net.constant(net.rng.normal(size=(4, 4, 3)) * size)
    graph = net.finish(net(Add(), net.x, constant), net(Mul(), net.x, constant))
    stages = quantize(graph, net.samples(), "quantize-ops")
    assert max(steps_apart(stages["choose-qparams"], integer(stages), net.samples()).values()) <= 1


def test_a_product_with_zeros() -> None:
    net = Net(1, 4, 4, 3)
    graph = net.finish(net(Mul(), net.x, net.constant(np.zeros((4, 4, 3)))))
    found = reals(quantize(graph, net.samples(), "quantize-ops")["quantize-ops"], net.samples())
    assert not found["y0"].any()


# ---------------------------------------------------------------------- tables
TABLES = {
    "swish": lambda net, x: net(Mul(), x, net(Sigmoid(), x)),
    "hard swish": lambda net, x: net(
        Div(), net(Mul(), x, net(Clamp(0.0, 6.0), net(Add(), x, net.constant(3.0)))), net.constant(6.0)
    ),
    "leaky relu, tanh": lambda net, x: net(Tanh(), net(LeakyRelu(0.1), x)),
    "1 - x": lambda net, x: net(Sub(), net.constant(1.0), x),
    "prelu": lambda net, x: net(PRelu(), x, net.constant([0.1, 0.5, -0.2])),
    "affine": lambda net, x: net(
        Add(), net(Mul(), x, net.constant([1.0, -2.0, 0.5])), net.constant(np.ones((1, 1, 1, 3)))
    ),
    "softsign": lambda net, x: net(Div(), x, net(Add(), net.constant(1.0), net(Abs(), x))),
    "min of two": lambda net, x: net(Min(), net(Sigmoid(), x), net(Tanh(), x)),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_function_of_one_value_is_one_table(name: str) -> None:
    net = Net(1, 4, 4, 3)
    y = TABLES[name](net, net.x)
    stages = stages_of(net, y)
    graph = integer(stages)
    assert ops(graph) == ["table"]
    # every code, against the function in float64
    (x,) = graph.inputs
    codes = np.resize(np.arange(-128, 128), (6, 1, 4, 4, 3)).astype(np.int8)
    assert x.type.qparams is not None
    real = ((codes.astype(np.float64) - x.type.qparams.zero_point) * x.type.qparams.scale[0]).astype(
        np.float32
    )
    expected = interpreter.run(net.graph, {"x": real})["y0"].astype(np.float64)
    qparams = graph.outputs[0].type.qparams
    assert qparams is not None
    exact = np.clip(expected / qparams.scale[0] + qparams.zero_point, -128, 127)
    assert np.abs(interpreter.run(graph, {"x": codes})["y0"] - exact).max() <= 0.501


def test_a_function_that_ends_beyond_the_calibrated_range() -> None:
    """Codes of a shared range that the logarithm never sees take its last value."""
    net = Net(1, 4, 4, 3)
    positive = net(Sigmoid(), net.conv(net.x, 3), name="positive")
    y = net(Log(), net(Add(), positive, net.constant(0.01)))
    other = net(Concat(3), positive, net.conv(net.x, 3))
    graph = net.finish(y, other)
    stages = quantize(graph, net.samples(), "quantize-ops")
    qparams = value_of(stages["choose-qparams"], "positive").type.qparams
    assert qparams is not None
    assert qparams.zero_point > -60
    table = value_of(integer(stages), f"{y.name}_table").data
    assert table is not None
    assert (np.diff(table.astype(int)) >= 0).all()
    assert (
        sqnr_db(interpreter.run(graph, net.samples())["y0"], reals(integer(stages), net.samples())["y0"]) > 20
    )


def test_a_function_that_is_not_a_number_inside_the_range_is_an_error() -> None:
    net = Net(1, 4)
    graph = net.finish(net(Sqrt(), net(Sub(), net(Abs(), net.x), net.constant(0.5)), name="y"))
    x = np.array([[[2.0, -1.0, 0.7, -0.6]]], np.float32)
    annotated = quantize(graph, {"x": x}, "choose-qparams")["choose-qparams"]
    with pytest.raises(PassError) as caught:
        run_pass(annotated, "quantize-ops")
    assert caught.value.message == "%y: sqrt is not a number for some input"


def test_a_constant_without_qparams_cannot_be_read_as_an_integer() -> None:
    net = Net(1, 4, 3)
    graph = net.finish(
        net(Slice((1,), (0,), (2,), (1,)), net.x),
        net(ReduceMean((1,)), net.constant(np.ones((1, 4, 3)), "c")),
    )
    annotated = quantize(graph, net.samples(), "choose-qparams")["choose-qparams"]
    with pytest.raises(PassError) as caught:
        run_pass(annotated, "quantize-ops")
    assert caught.value.message == "value %c has no qparams: it cannot be read as an integer"


# ---------------------------------------------------------------------- whole nets
@pytest.mark.parametrize("seed", range(24))
def test_every_integer_is_within_a_step_of_fake_quant(seed: int) -> None:
    graph, samples = random_net(seed, dead=seed % 3 == 2)
    samples = {k: v[:3] for k, v in samples.items()}
    stages = quantize(graph, samples, "plan-accumulators")
    for step in ("quantize-ops", "plan-accumulators"):
        apart = steps_apart(stages["choose-qparams"], stages[step], samples)
        assert max(apart.values()) <= 1, apart


@pytest.mark.parametrize("seed", range(100, 112))
def test_whole_nets_are_40_db_from_fake_quant(seed: int) -> None:
    graph, samples = random_net(seed)
    stages = quantize(graph, samples, "quantize-ops")
    fake, exact = reals(stages["choose-qparams"], samples), reals(integer(stages), samples)
    for name in fake:
        assert sqnr_db(fake[name], exact[name]) > 40


def test_two_runs_are_equal() -> None:
    for seed in range(6):
        graph, samples = random_net(seed)
        a, b = (quantize(graph, samples, "quantize-ops")["quantize-ops"] for _ in range(2))
        assert first_difference(a, b) is None


def test_the_annotated_graph_stays_as_it_is() -> None:
    graph, samples = random_net(1)
    annotated = quantize(graph, samples, "choose-qparams")["choose-qparams"]
    before = annotated.clone()
    run_pass(annotated, "quantize-ops")
    assert first_difference(before, annotated) is None


def test_integer_inputs_of_a_net_of_two_inputs() -> None:
    net = Net(1, 4, 4, 3)
    z = net.input("z", 1, 1, 1, 3)
    graph = integer(stages_of(net, net.relu(net(Mul(), net.conv(net.x, 3), net(Sigmoid(), z)))))
    assert {k: v.dtype for k, v in integers(graph, net.samples()).items()} == {"x": np.int8, "z": np.int8}
