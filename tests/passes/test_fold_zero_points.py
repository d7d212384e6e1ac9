"""fold-zero-points: the same bits, the exact new bias, and its refusal."""

import numpy as np
import pytest
from quantized_nets import Net, assert_same_bytes, node_of, ops, quantize, random_net, run_pass

from qcc.ir.compare import first_difference
from qcc.ir.errors import PassError
from qcc.ir.graph import Graph
from qcc.ir.location import Location
from qcc.ir.ops.conv_transpose import ConvTranspose2d
from qcc.ir.ops.dense import Dense
from qcc.ir.ops.quant import Requantize
from qcc.ir.qparams import QParams
from qcc.ir.types import DType, TensorType


def integer(net: Net, *outputs: object) -> Graph:
    return quantize(net.finish(*outputs), net.samples(), "quantize-ops")["quantize-ops"]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"pads": (1, 2, 0, 1)},
        {"pads": (2, 2, 2, 2), "strides": (2, 3), "dilations": (2, 1)},
        {"pads": (1, 1, 1, 1), "groups": 2},
        {"pads": (1, 0, 1, 0), "groups": 4},
    ],
)
def test_convolutions_keep_their_bits_with_padding(attributes: dict[str, object]) -> None:
    net = Net(1, 6, 5, 4)
    graph = integer(net, net.conv(net.relu(net.x), 4, 3, name="y", **attributes))
    conv = node_of(graph, "y.acc")
    zero_point = conv.op.attributes()["x_zero_point"]
    w, bias = conv.input(1).data, conv.input(2).data
    assert zero_point == -128
    assert w is not None
    assert bias is not None
    folded, result = run_pass(graph.clone(), "fold-zero-points")
    assert [(n.node, n.rule, n.applied) for n in result.notes] == [("y.acc", "fold-zero-point", True)]
    assert_same_bytes(graph, folded)
    conv = node_of(folded, "y.acc")
    assert conv.op.attributes()["x_zero_point"] == 0
    assert conv.op.attributes()["pad_value"] == zero_point  # padding still stands for real 0
    expected = [int(b) - zero_point * sum(map(int, row.ravel())) for b, row in zip(bias, w, strict=True)]
    assert conv.input(2).data.tolist() == expected  # type: ignore[union-attr]
    assert conv.input(2).type == node_of(graph, "y.acc").input(2).type


@pytest.mark.parametrize("shape", [(1, 7), (1, 3, 7)])
def test_dense_keeps_its_bits(shape: tuple[int, ...]) -> None:
    net = Net(*shape)
    graph = integer(net, net.dense(net.x, 5, name="y"))
    folded, _ = run_pass(graph.clone(), "fold-zero-points")
    assert node_of(folded, "y.acc").op.attributes()["x_zero_point"] == 0
    assert_same_bytes(graph, folded)


def test_a_weight_without_bias_gets_one() -> None:
    net = Net(1, 7)
    y = net(Dense(), net.relu(net.x), net.constant(net.rng.normal(size=(3, 7))), name="y")
    graph = integer(net, y)
    folded, _ = run_pass(graph.clone(), "fold-zero-points")
    assert_same_bytes(graph, folded)


def test_a_transposed_convolution_keeps_its_zero_point() -> None:
    """An element of its result receives only some taps."""
    net = Net(1, 4, 4, 3)
    w = net.constant(net.rng.normal(size=(2, 3, 3, 3)))
    graph = integer(net, net(ConvTranspose2d((2, 2)), net.relu(net.x), w, name="y"))
    _, result = run_pass(graph, "fold-zero-points")
    assert not result.changed
    assert not result.notes
    assert node_of(graph, "y.acc").op.attributes()["x_zero_point"] == -128


def test_a_second_run_changes_nothing() -> None:
    for seed in range(6):
        graph, samples = random_net(seed)
        once = quantize(graph, samples, "fold-zero-points")["fold-zero-points"]
        before = once.clone()
        _, again = run_pass(once, "fold-zero-points")
        assert not again.changed
        assert not again.notes
        assert first_difference(before, once) is None


@pytest.mark.parametrize("seed", range(10))
def test_random_nets_keep_their_bits(seed: int) -> None:
    graph, samples = random_net(seed, dead=bool(seed % 2))
    stages = quantize(graph, samples, "fold-zero-points")
    assert ops(stages["quantize-ops"]) == ops(stages["fold-zero-points"])
    assert_same_bytes(stages["quantize-ops"], stages["fold-zero-points"])


@pytest.mark.parametrize("sign", [1, -1])
def test_a_bias_that_leaves_32_bits_is_an_error(sign: int) -> None:
    graph = Graph("huge", "integer")
    x = graph.add_input("x", TensorType(DType.S8, (1, 4), QParams.per_tensor(0.1, -128)))
    w = graph.constant(
        np.full((1, 4), 127 * sign, np.int8),
        "w",
        TensorType(DType.S8, (1, 4), QParams.per_channel(np.ones(1), 0)),
    )
    limit = 2**31 - 1 if sign > 0 else -(2**31)
    wide = QParams.per_channel(np.full(1, 0.1), 0, "s32")
    bias = graph.constant(
        np.array([limit - sign * 128 * 4 * 127], np.int32), "b", TensorType(DType.S32, (1,), wide)
    )
    acc_type = TensorType(DType.S32, (1, 1), QParams.per_channel(np.full(1, 0.1), 1, "s32"))
    place = Location("model.onnx", node="gemm")
    acc = graph.add_node(Dense(-128), [x, w, bias], acc_type, "acc", location=place)
    result = TensorType(DType.S8, (1, 1), QParams.per_tensor(1e6))
    graph.add_output(graph.add_node(Requantize(), [acc.output], result, "y").output)
    run_pass(graph.clone(), "fold-zero-points")  # the largest bias that fits
    graph.set_input(acc, 2, graph.constant(bias.data + np.int32(sign), "b", bias.type))  # type: ignore[operator]
    with pytest.raises(PassError) as caught:
        run_pass(graph, "fold-zero-points")
    assert caught.value.message == "%acc: the folded bias leaves 32 bits"
    assert caught.value.location == place
