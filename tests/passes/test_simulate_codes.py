"""simulate-codes: what it rounds, against direct computations; what it leaves alone; who refuses its result."""

import numpy as np
import pytest
from quantized_nets import Array, Net, node_of, run_pass, sqnr_db, value_of

from qcc.ir import codebook, interpreter
from qcc.ir.errors import ParseError, PassError, QccError
from qcc.ir.graph import Graph
from qcc.ir.ops.reduce import ReduceMean
from qcc.ir.parser import parse_graph
from qcc.ir.printer import print_graph
from qcc.ir.qspec import QSpec
from qcc.onnx_exporter import export_qdq
from qcc.passes.manager import parse_pipeline
from qcc.passes.output_error import round_weight

PREPARE = "fuse-epilogues,calibrate"


def prepared(pipeline: str = PREPARE) -> tuple[Graph, dict[str, Array]]:
    net = Net(1, 6, 6, 3)
    hidden = net.relu(net.conv(net.x, 8, 3, name="first"), name="middle")
    graph, samples = net.finish(net.conv(hidden, 4, name="last")), net.samples(4)
    for text in pipeline.split(","):
        graph, _ = run_pass(graph, text, calibration=[samples])
    return graph, samples


def outputs(graph: Graph, samples: dict[str, Array]) -> Array:
    return interpreter.run(graph, samples, fake_quant=True)["y0"]


@pytest.mark.parametrize("bits", [4, 8])
def test_linear_nearest_weights_are_those_of_choose_qparams(bits: int) -> None:
    graph, samples = prepared()
    weights = {n: node_of(graph, n).input(1) for n in ("first", "last")}
    graph, result = run_pass(graph, f"simulate-codes{{bits={bits}}}")
    assert result.changed
    seen: dict[str, Array] = {}
    interpreter.run(graph, samples, observe=lambda v, a: seen.update({v.name: a}))
    for name, weight in weights.items():
        got = seen[node_of(graph, name).input(1).name]
        np.testing.assert_allclose(got, round_weight(weight, 0, 1.0, QSpec(w_bits=bits)), atol=1e-6)
        (note,) = (n for n in result.notes if n.node == name)
        assert f"weight SQNR {sqnr_db(weight.data, got):.2f} dB" in note.reason
        assert note.reason.startswith("simulated linear")


def test_weights_by_pattern_keep_the_qparams_of_the_others() -> None:
    graph, _ = prepared(f"{PREPARE},choose-qparams")
    graph, result = run_pass(graph, "simulate-codes{code=log2 values=last}")
    assert [n.node for n in result.notes] == ["last"]
    assert node_of(graph, "first").input(1).type.qparams is not None
    assert node_of(graph, "last").input(1).producer.op.code == "log2"
    assert node_of(graph, "last").input(1).type.qparams is None
    assert value_of(graph, "middle").type.qparams is not None
    _, result = run_pass(graph, "simulate-codes{code=log2 values=last}")
    assert not result.changed
    assert "computed" in result.notes[0].reason


def test_activations_have_the_codes_of_their_range() -> None:
    graph, samples = prepared(f"{PREPARE},choose-qparams")
    graph, result = run_pass(graph, "simulate-codes{of=activations code=sqrt}")
    seen: dict[str, Array] = {}
    interpreter.run(graph, samples, fake_quant=True, observe=lambda v, a: seen.update({v.name: a}))
    for name, signed in (("x", True), ("middle", False), ("last", True)):
        value = value_of(graph, name)
        (reader,) = value.users
        largest = max(abs(end) for end in value.range)
        levels = codebook.levels_of("sqrt", 4, signed) * largest
        expected = levels[np.abs(seen[name][..., None] - levels).argmin(axis=-1)]
        np.testing.assert_allclose(seen[reader.name], expected, atol=1e-5)
        assert value.type.qparams is None
    assert [n.node for n in result.notes if not n.applied] == ["first"]  # fused with its clamp
    assert graph.outputs[0].producer.op.name == "simulated_quant"
    assert graph.output_names == ["y0"]
    _, result = run_pass(graph, "simulate-codes{of=activations code=sqrt}")
    assert not result.changed


def test_a_seed_decides_and_error_feedback_keeps_sums() -> None:
    def result(options: str) -> Array:
        graph, samples = prepared()
        return outputs(run_pass(graph, f"simulate-codes{{{options}}}")[0], samples)

    first = result("rounding=stochastic seed=1")
    np.testing.assert_array_equal(first, result("rounding=stochastic seed=1"))
    assert not np.array_equal(first, result("rounding=stochastic seed=2"))
    graph, _ = prepared()
    graph, _ = run_pass(graph, "simulate-codes{rounding=error-feedback}")
    for name in ("first", "last"):
        node = node_of(graph, name).input(1).producer
        w, scale = node.input(0).data, node.input(1).data
        rounded = node.op.float_ref(w, scale)
        axes = (1, 2, 3)
        assert (np.abs((w - rounded).sum(axis=axes)) <= scale.ravel() / 7 / 2 * (1 + 1e-4)).all()


@pytest.mark.parametrize("code", ["linear", "sqrt", "log2"])
def test_clip_mse_never_has_more_error(code: str) -> None:
    def weight_errors(clip: str) -> Array:
        graph, _ = prepared()
        graph, _ = run_pass(graph, f"simulate-codes{{code={code} bits=3 clip={clip}}}")
        node = node_of(graph, "first").input(1).producer
        rounded = node.op.float_ref(node.input(0).data, node.input(1).data)
        return ((node.input(0).data - rounded) ** 2).sum(axis=(1, 2, 3))

    largest, best = weight_errors("max"), weight_errors("mse")
    assert (best <= largest * (1 + 1e-5)).all()
    assert best.sum() < largest.sum()


def test_a_zero_channel_stays_zero() -> None:
    net = Net(1, 4, 4, 2)
    graph = net.finish(net.conv(net.x, 3, name="first"))
    weight = node_of(graph, "first").input(1)
    weight.data[1] = 0
    graph, _ = run_pass(graph, PREPARE.split(",")[1], calibration=[net.samples(2)])
    graph, _ = run_pass(graph, "simulate-codes{code=log2 clip=mse}")
    node = node_of(graph, "first").input(1).producer
    rounded = node.op.float_ref(node.input(0).data, node.input(1).data)
    assert np.isfinite(rounded).all()
    assert (rounded[1] == 0).all()


def test_the_result_is_text_that_means_the_same() -> None:
    graph, samples = prepared(f"{PREPARE},choose-qparams")
    for options in ("code=log2", "of=activations rounding=error-feedback values=middle"):
        graph, _ = run_pass(graph, f"simulate-codes{{{options}}}")
    again = parse_graph(*print_graph(graph))
    np.testing.assert_array_equal(outputs(again, samples), outputs(graph, samples))


def test_what_only_the_interpreter_knows_is_refused_elsewhere() -> None:
    graph, samples = prepared(f"{PREPARE},choose-qparams")
    graph, _ = run_pass(graph, "simulate-codes{values=first}")
    with pytest.raises(PassError, match="simulated_quant is simulated only: it has no integer form"):
        run_pass(graph, "quantize-ops", calibration=[samples])
    with pytest.raises(QccError, match="simulated_quant cannot be written to ONNX: it is simulated only"):
        export_qdq(graph)


def test_refusals() -> None:
    graph, _ = prepared()
    with pytest.raises(PassError, match="no weights match 'nothing'"):
        run_pass(graph, "simulate-codes{values=nothing}")
    with pytest.raises(ParseError, match="bits = 9: 2 to 8 are possible"):
        parse_pipeline("simulate-codes{bits=9}")
    net = Net(4)
    graph = net.finish(net(ReduceMean((0,)), net.x, name="m"))
    graph, _ = run_pass(graph, "calibrate", calibration=[net.samples(2)])
    graph, result = run_pass(graph, "simulate-codes{of=activations rounding=error-feedback}")
    assert all(n.applied for n in result.notes)
