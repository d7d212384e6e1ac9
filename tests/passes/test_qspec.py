"""The options of a QSpec through the whole pipeline: codes of the integer program, and the built library."""

import numpy as np
import pytest
from quantized_nets import Net, run_pass

from qcc.checker import check_plan
from qcc.ir import interpreter
from qcc.ir.fixedpoint import quantize
from qcc.ir.graph import Graph
from qcc.ir.ops.activation import HardSwish
from qcc.ir.ops.elementwise import Add, Mul
from qcc.ir.ops.norm import LayerNorm
from qcc.ir.ops.pool import AvgPool2d, MaxPool2d
from qcc.ir.ops.rearrange import Concat
from qcc.ir.ops.reduce import ReduceMean
from qcc.ir.parser import parse_graph
from qcc.ir.printer import print_graph
from qcc.ir.qspec import QSpec

REST = ("quantize-ops", "fold-zero-points", "plan-accumulators", "remove-dead-channels")


def net() -> tuple[Net, Graph]:
    """Every kind of producer: sums with and without a fused skip, tables, pools, products, a join, a norm."""
    made = Net(1, 6, 6, 4)
    a = made.relu(made.conv(made.x, 8, 3, pads=(1, 1, 1, 1)), name="a")
    b = made(Add(), made.conv(a, 8, name="b_conv"), a, name="b")
    c = made(HardSwish(), b, name="c")
    d = made(Mul(), c, a, name="d")
    e = made(Concat(3), made(MaxPool2d((2, 2), (2, 2)), d), made(AvgPool2d((2, 2), (2, 2)), c), name="e")
    scale, shift = made.constant(np.ones(16)), made.constant(np.zeros(16))
    f = made(LayerNorm(), e, scale, shift, name="f")
    g = made(ReduceMean((1, 2)), f, name="g")
    graph = made.finish(made.dense(g, 5, name="y"), f)
    run_pass(graph, "fuse-epilogues")
    return made, graph


@pytest.mark.parametrize(
    "text",
    [
        "",
        "activations=symmetric",
        "weights=per-tensor",
        "a_bits=6 narrow=true",
        "a_bits=4 w_bits=4",
        "activations=symmetric weights=per-tensor a_bits=3 w_bits=2 narrow=true",
    ],
)
def test_an_integer_program_keeps_to_its_codes(text: str) -> None:
    made, graph = net()
    spec, option = QSpec.parse(text), f'qspec="{text}"'
    run_pass(graph, f"calibrate{{observer=mse {option}}}", calibration=[made.samples()])
    run_pass(graph, f"choose-qparams{{{option}}}")
    printed, arrays = print_graph(graph)
    assert print_graph(parse_graph(printed, arrays=arrays))[0] == printed
    weights = [n.input(n.op.quant_rule().weight or 0) for n in graph.nodes if n.op.quant_rule().weight]
    for weight in weights:
        assert weight.type.qparams is not None
        if spec.weights == "per-tensor":
            assert len(set(weight.type.qparams.scale)) == 1
    planned = graph
    for step in REST:
        planned, _ = run_pass(planned, step)
    check_plan(planned)
    rng = np.random.default_rng(0)
    x = (3 * rng.normal(size=(4, *made.x.type.shape))).astype(np.float32)  # beyond what was calibrated
    qparams = planned.inputs[0].type.qparams
    assert qparams is not None
    seen = {}
    interpreter.run(planned, {"x": quantize(x, qparams)}, observe=lambda v, q: seen.update({v.name: (v, q)}))
    restricted = 0
    for value, q in seen.values():
        found = value.type.qparams
        if value.type.dtype.value != "s8" or found is None or value.producer is None:
            continue
        low, high = found.code_range
        assert low <= q.min(), value
        assert q.max() <= high, value
        assert spec.activations == "asymmetric" or found.zero_point == 0, value
        restricted += found.code_range == spec.codes
    assert restricted >= 5
    for node in planned.nodes:
        index = node.op.quant_rule().weight
        if index is not None:
            data = node.input(index).data
            assert data is not None
            assert np.abs(data.astype(int)).max() <= spec.weight_max


def test_fewer_bits_cost_what_they_cost() -> None:
    """6 dB for each bit of the activations, on a network whose weights keep theirs."""
    noise = {}
    for bits in (4, 5, 6):
        made = Net(1, 8, 8, 4)
        graph = made.finish(made.conv(made.conv(made.x, 16, 3, name="one"), 8, 3, name="two"))
        run_pass(graph, "fuse-epilogues")
        samples = made.samples(20)
        exact = interpreter.run(graph, samples)["y0"]
        run_pass(graph, "calibrate", calibration=[samples])
        run_pass(graph, f'choose-qparams{{qspec="a_bits={bits}"}}')
        rounded = interpreter.run(graph, samples, fake_quant=True)["y0"]
        noise[bits] = float(np.mean((exact - rounded) ** 2))
    for bits in (4, 5):
        assert 10 * np.log10(noise[bits] / noise[bits + 1]) == pytest.approx(6.02, abs=1.0)
