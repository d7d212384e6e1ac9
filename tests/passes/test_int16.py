"""16-bit activations from choose-qparams to integers: against onnxruntime's int16 QDQ, and what is chosen and told."""

from collections.abc import Iterable

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from qcc import onnx_exporter
from qcc.checker import check_plan
from qcc.ir import interpreter
from qcc.ir.builder import Builder
from qcc.ir.errors import PassError
from qcc.ir.fixedpoint import dequantize, quantize
from qcc.ir.graph import Graph, Value
from qcc.ir.ops.activation import Clamp, Sigmoid
from qcc.ir.ops.conv import Conv2d
from qcc.ir.ops.dense import Dense
from qcc.ir.ops.elementwise import Add
from qcc.ir.ops.pool import AvgPool2d, MaxPool2d
from qcc.ir.ops.reduce import ReduceMean
from qcc.ir.types import f32
from qcc.passes.base import Note, PassContext
from qcc.passes.choose_qparams import wide_values
from qcc.passes.layerwise import weight_of
from qcc.passes.manager import PassManager, parse_pipeline

Array = NDArray[np.float32]


def residual_net() -> Graph:
    """conv, relu, depthwise, residual add, relu, both pools, mean, dense."""
    rng = np.random.default_rng(2)
    graph = Graph("net")
    builder = Builder(graph)

    def constant(*shape: int, name: str) -> Value:
        return builder.constant(
            (rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]) or 1)).astype(np.float32), name
        )

    x = graph.add_input("x", f32(1, 8, 8, 3))
    same = {"pads": (1, 1, 1, 1)}
    a = builder.emit(Conv2d(**same), x, constant(6, 3, 3, 3, name="w1"), constant(6, name="b1"), name="conv")
    a = builder.emit(Clamp(0.0), a, name="relu")
    b = builder.emit(Conv2d(groups=6, **same), a, constant(6, 3, 3, 1, name="w2"), name="depthwise")
    a = builder.emit(Add(), a, b, name="sum")
    a = builder.emit(Clamp(0.0, 6.0), a, name="relu6")
    a = builder.emit(MaxPool2d((2, 2), (2, 2)), a, name="largest")
    a = builder.emit(AvgPool2d((3, 3), (1, 1), (1, 1, 1, 1)), a, name="average")
    a = builder.emit(ReduceMean((1, 2)), a, name="mean")
    graph.add_output(
        builder.emit(Dense(), a, constant(5, 6, name="w3"), constant(5, name="b3"), name="y"), "y"
    )
    return graph


def samples(count: int = 40) -> Array:
    return np.random.default_rng(7).normal(size=(count, 1, 8, 8, 3)).astype(np.float32)


def stages(graph: Graph, int16: Iterable[str], floats: Iterable[str] = ()) -> tuple[Graph, Graph, list[Note]]:
    """The annotated graph, the planned one, and the notes of all passes."""
    ctx = PassContext({"calibration": [{"x": samples()[:, 0]}]})
    choose = f"choose-qparams{{int16=[{','.join(int16)}]}}"
    lower = (
        f"quantize-ops{{floats=[{','.join(floats)}]}},fold-zero-points,plan-accumulators,remove-dead-channels"
    )
    notes: list[Note] = []
    made = []
    for text in (f"fuse-epilogues,calibrate,{choose}", lower):
        manager = PassManager(parse_pipeline(text), ctx)
        graph = manager.run(graph)
        notes += [note for _, note in manager.notes()]
        made.append(graph.clone())
    return made[0], made[1], notes


def integers(planned: Graph, x: Array) -> NDArray[np.float64]:
    given, result = planned.inputs[0], planned.outputs[0]
    assert given.type.qparams is not None
    assert result.type.qparams is not None
    q = interpreter.run(planned, {"x": quantize(x, given.type.qparams)})["y"]
    return dequantize(q, result.type.qparams).astype(np.float64)


def test_integers_equal_onnxruntime_with_int16_activations() -> None:
    """The export is QuantizeLinear and DequantizeLinear of opset 21; onnxruntime computes in float between them."""
    annotated, planned, _ = stages(residual_net(), ["*"])
    assert check_plan(planned).accumulator_bits <= 32
    model = onnx_exporter.export_qdq(annotated)
    types = {i.data_type for i in model.graph.initializer}
    assert 5 in types, "TensorProto.INT16"
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    x = samples()
    (expected,) = session.run(None, {"x": x[:, 0]})
    got = integers(planned, x).reshape(expected.shape)
    step = planned.outputs[0].type.qparams
    assert step is not None
    assert np.abs(got - expected).max() <= 3 * step.scale[0]  # each stage may round one code apart


def test_16_bits_leave_the_error_of_the_weights_alone() -> None:
    x, net = samples(), residual_net()
    reference = interpreter.run(net, {"x": x})["y"]

    def error(int16: list[str]) -> float:
        return float(np.sqrt(np.mean((integers(stages(net.clone(), int16)[1], x) - reference) ** 2)))

    assert error(["*"]) < error(["relu6", "mean"]) < error([])


def test_a_fused_name_stands_for_what_is_materialized() -> None:
    annotated, _, _ = stages(residual_net(), ["conv", "depthwise"])
    wide = {
        n.output.name
        for n in annotated.nodes
        if n.output.type.qparams and n.output.type.qparams.dtype == "s16"
    }
    # the depthwise ends in relu6, which the maximum shares its qparams with
    assert wide == {"relu", "relu6", "largest"}
    assert wide_values(annotated, ["conv"]) == {"relu"}


@pytest.mark.parametrize("int16", [["x"], ["relu"], ["relu6"], ["y"], ["average", "x"], ["mean", "y"]])
def test_mixtures_are_requantized_between_types_and_proved(int16: list[str]) -> None:
    _, planned, _ = stages(residual_net(), int16)
    check_plan(planned)
    reference = interpreter.run(residual_net(), {"x": samples()})["y"]
    got = integers(planned, samples())
    assert 10 * np.log10((reference**2).sum() / ((got - reference) ** 2).sum()) > 25


def test_scales_are_symmetric_and_of_32_bits() -> None:
    annotated, _, _ = stages(residual_net(), ["relu6"])
    (value,) = [n.output for n in annotated.nodes if n.name == "relu6"]
    assert value.type.qparams is not None
    assert value.range is not None
    assert value.type.qparams.zero_point == 0
    assert value.type.qparams.scale[0] == np.float32(value.range[1] / 32767)


def test_an_unknown_name_is_an_error_with_suggestions() -> None:
    with pytest.raises(PassError, match="no value has a name like relu7") as caught:
        stages(residual_net(), ["relu7"])
    assert "relu6" in str(caught.value)


def function_net() -> Graph:
    graph = Graph("function")
    builder = Builder(graph)
    x = graph.add_input("x", f32(1, 8, 8, 3))
    pooled = builder.emit(MaxPool2d((2, 2)), x, name="largest")
    graph.add_output(builder.emit(Sigmoid(), pooled, name="y"), "y")
    return graph


def test_a_function_reads_16_bits_as_8_and_says_so() -> None:
    _, planned, notes = stages(function_net(), ["x", "y"])
    assert [n.op.name for n in planned.nodes] == ["max_pool2d", "requantize", "table"]
    assert planned.outputs[0].type.dtype.value == "s16", "its table may hold 16 bits"
    (note,) = [n for n in notes if n.rule == "narrow"]
    assert note.node == "y"
    assert "requantized" in note.reason


def test_chosen_nodes_stay_in_float() -> None:
    _, planned, notes = stages(residual_net(), [], ["average", "me*"])
    floats = {
        n.name.removesuffix(".acc")
        for n in planned.nodes
        if n.output.type.dtype.value == "f32" and n.op.name != "dequantize"
    }
    assert floats == {"average", "mean"}
    assert {n.node: n.reason for n in notes if n.rule == "placement" and not n.applied} == dict.fromkeys(
        ("average", "mean"), "chosen to stay in float"
    )


def test_a_fused_node_in_float_takes_its_chain_along() -> None:
    _, planned, notes = stages(residual_net(), [], ["depthwise"])
    assert [n.node for n in notes if n.rule == "placement" and not n.applied] == ["relu6"]
    assert "quantize" in [n.op.name for n in planned.nodes]
    with pytest.raises(PassError, match="no node has a name like depth"):
        stages(residual_net(), [], ["depth"])


def corrected(
    int16: str, floats: str, rounding: str = "ties_up"
) -> tuple[Graph, Graph, list[Note], list[str]]:
    """Annotated and planned graph, notes and warnings of a pipeline with corrections."""
    warnings: list[str] = []
    ctx = PassContext(
        {"calibration": [{"x": samples()[:, 0]}], "correction_samples": {"x": samples()[:, 0]}},
        warn=warnings.append,
    )
    choices = f"int16=[{int16}] floats=[{floats}]"
    manager = PassManager(
        parse_pipeline(
            f"fuse-epilogues,equalize{{{choices}}},calibrate,choose-qparams{{{choices}}},correct-bias,round-weights,"
            f"quantize-ops{{floats=[{floats}]}},fold-zero-points,plan-accumulators{{rounding={rounding}}}"
        ),
        ctx,
    )
    planned = manager.run(residual_net())
    check_plan(planned)
    return ctx.resources["annotated_graph"], planned, [note for _, note in manager.notes()], warnings


def test_corrections_measure_with_16_bits() -> None:
    annotated, _, notes, _ = corrected("*", "")
    assert all(v.type.qparams is None or v.type.qparams.dtype == "s16" for v in annotated.inputs)
    measured = {
        n.rule: float(n.reason.split()[1]) for n in notes if n.rule in ("correct-bias", "round-weights")
    }
    assert set(measured) == {"correct-bias", "round-weights"}
    _, _, narrow, _ = corrected("", "")
    assert all(measured[n.rule] > float(n.reason.split()[1]) for n in narrow if n.rule in measured)


def test_corrections_leave_weights_of_nodes_in_float() -> None:
    annotated, _, _, _ = corrected("", "y")
    assert annotated.nodes[-1].input(1).type.qparams is None
    weighted = [n.name for n in annotated.nodes if weight_of(n)]
    assert weighted == ["conv", "depthwise"], "these alone are corrected"


def test_16_bits_round_once_and_are_not_said_to_equal_another_runtime() -> None:
    _, planned, _, warnings = corrected("*", "", "tflite")
    assert {n.op.attributes()["rounding"] for n in planned.nodes if n.op.name == "requantize"} == {"ties_up"}
    assert "not proved to equal that runtime" in warnings[0]
