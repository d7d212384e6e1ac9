"""plan-accumulators: the bound of 32 bits, the last sum that fits, refusals and what avoids them."""

import numpy as np
import pytest
from quantized_nets import (
    Net,
    claims,
    node_of,
    planned,
    quantize,
    run_pass,
)

from qcc.checker import check_plan
from qcc.ir.errors import PassError, VerifyError
from qcc.ir.graph import Graph, Value
from qcc.ir.ops.conv import Conv2d
from qcc.ir.ops.dense import Dense, MatMul
from qcc.ir.ops.quant import Requantize
from qcc.ir.ops.reduce import ReduceSum
from qcc.ir.qparams import QParams
from qcc.ir.types import DType, TensorType

# ---------------------------------------------------------------------- refusals
HINT = "use a coarser weight scale or split the reduction"


def wide(k: int, weight: int, zero_point: int, bias: int = 0) -> Graph:
    """A dense of ``k`` equal weights, as an integer graph."""
    graph = Graph("wide", "integer")
    x = graph.add_input("x", TensorType(DType.S8, (1, k), QParams.per_tensor(0.1, zero_point)))
    w = graph.constant(
        np.full((1, k), weight, np.int8),
        "w",
        TensorType(DType.S8, (1, k), QParams.per_channel(np.ones(1), 0)),
    )
    bias_type = TensorType(DType.S32, (1,), QParams.per_channel(np.full(1, 0.1), 0, "s32"))
    b = graph.constant(np.full(1, bias, np.int32), "b", bias_type)
    acc_type = TensorType(DType.S32, (1, 1), QParams.per_channel(np.full(1, 0.1), 1, "s32"))
    acc = graph.add_node(Dense(zero_point), [x, w, b], acc_type, "acc").output
    y = graph.add_node(Requantize(), [acc], TensorType(DType.S8, (1, 1), QParams.per_tensor(1e6)), "y")
    graph.add_output(y.output)
    return graph


@pytest.mark.parametrize("weight", [127, -127, -128])
def test_a_sum_beyond_32_bits_is_refused(weight: int) -> None:
    graph = wide(70_000, weight, -128)
    with pytest.raises(PassError) as caught:
        run_pass(graph, "plan-accumulators")
    bound = 70_000 * abs(weight) * 255
    assert caught.value.message == f"%acc: a partial sum may reach {bound}, which does not fit 32 bits"
    assert caught.value.hint == HINT


def test_weights_of_minus_128_count_as_such() -> None:
    """The checker refuses a plan made for -127."""
    graph, _ = run_pass(wide(1000, -128, 0), "plan-accumulators")
    low, high, bits = claims(graph, "y")
    assert (low[0], high[0], bits) == (-1000 * 128 * 127, 1000 * 128 * 128, 25)
    check_plan(graph)
    graph, _ = run_pass(wide(1000, -127, 0), "plan-accumulators")
    weights = node_of(graph, "acc").input(1).data
    assert weights is not None
    weights[0, 0] = -128
    with pytest.raises(VerifyError, match="accumulator interval"):
        check_plan(graph)


@pytest.mark.parametrize("sign", [1, -1])
def test_the_last_sum_that_fits_32_bits(sign: int) -> None:
    rest = 2**31 - 1 - 66_000 * 127 * 255
    graph, _ = run_pass(wide(66_000, 127, -128, sign * rest), "plan-accumulators")
    assert claims(graph, "y")[2] == 32
    with pytest.raises(PassError, match=f"may reach {2**31},"):
        run_pass(wide(66_000, 127, -128, sign * (rest + 1)), "plan-accumulators")


def test_a_sum_whose_total_fits_but_not_in_every_order_is_refused() -> None:
    """Half the weights cancel the others in the interval's centre; a partial sum may still leave 32 bits."""
    graph = wide(140_000, 127, 0)
    w = node_of(graph, "acc").input(1)
    assert w.data is not None
    signs = np.where(np.arange(140_000) % 2, 1, -1).astype(np.int8)
    graph.set_input(node_of(graph, "acc"), 1, graph.constant(w.data * signs, "w", w.type))
    with pytest.raises(PassError, match=f"a partial sum may reach {140_000 * 127 * 128}"):
        run_pass(graph, "plan-accumulators")


def refused(net: Net, y: Value) -> str:
    with pytest.raises(PassError) as caught:
        quantize(net.finish(y), net.samples(1), "plan-accumulators")
    assert caught.value.hint == HINT
    return caught.value.message


def test_what_no_weight_scale_can_help_is_refused() -> None:
    net = Net(1, 8_500_000, 1)
    message = refused(net, net(ReduceSum((1,)), net.relu(net.x), name="y"))
    assert message.startswith("%y.acc: a partial sum may reach ")
    net = Net(1, 1, 34_000)
    pair = net.relu(net.x), net.relu(net.input("z", 1, 34_000, 1))
    message = refused(net, net(MatMul(), *pair, name="y"))
    assert message.startswith("%y.acc: a partial sum may reach 22")  # about 34000 * 255 * 255


def test_choose_qparams_makes_the_refused_dense_fit() -> None:
    """The float model behind the refused one compiles: its weights get a coarser scale."""
    k = 70_000
    net = Net(1, k)
    y = net.dense(net.relu(net.x), 1, weights=np.full((1, k), 0.01), bias=np.zeros(1), name="y")
    graph = planned(net, y, samples=net.samples(2))
    assert claims(graph, "y")[2] == 32
    w = node_of(graph, "y.acc").input(1).data
    assert w is not None
    assert set(w.ravel().tolist()) == {119}


def test_conv_weights_are_rescaled_too() -> None:
    net = Net(1, 9, 9, 900)
    weights = np.full((1, 9, 9, 900), 0.01)
    y = net(Conv2d(), net.relu(net.x), net.constant(weights), name="y")
    graph = planned(net, y, samples=net.samples(1))
    assert claims(graph, "y")[2] == 32
