"""Export: every float op against its float meaning in onnxruntime, quantized models, batches, names."""

from types import SimpleNamespace

import numpy as np
import onnx
import pytest

from qcc.float_runtime import FloatRuntime, run_onnx
from qcc.ir import interpreter
from qcc.ir.builder import Builder
from qcc.ir.errors import QccError
from qcc.ir.graph import Graph
from qcc.ir.op import OPS, Array, Case, Op
from qcc.ir.ops.conv import Conv2d
from qcc.ir.ops.dense import Dense
from qcc.ir.ops.elementwise import Add
from qcc.ir.ops.quant import Quantize
from qcc.ir.ops.shape import Reshape
from qcc.ir.qparams import QParams
from qcc.ir.types import f32
from qcc.onnx_export_ops import EXPORTERS
from qcc.onnx_exporter import export_float, export_qdq
from qcc.onnx_importer import import_model

FLOAT_OPS = [name for name, op in OPS.items() if op.float_ref is not Op.float_ref and not op.simulated]


def graph_of(case: Case) -> tuple[Graph, dict[str, Array]]:
    """A graph of one op, and three samples."""
    graph = Graph("case")
    builder, operands, feed = Builder(graph), [], {}
    constant = case.constant or (False,) * len(case.inputs)
    for index, (array, is_constant) in enumerate(zip(case.inputs, constant, strict=True)):
        if array is None:
            operands.append(None)
        elif is_constant:
            operands.append(builder.constant(array, f"k{index}"))
        else:
            operands.append(graph.add_input(f"x{index}", f32(*array.shape)))
            feed[f"x{index}"] = np.stack([array, array[::-1], array * np.float32(0.5)])
    graph.add_output(builder.emit(case.op, *operands), "y")
    return graph, feed


def test_every_float_op_has_an_exporter() -> None:
    with_codes = [name for name, op in OPS.items() if op.reads_codes]
    assert sorted(EXPORTERS) == sorted(FLOAT_OPS + with_codes)


@pytest.mark.parametrize("name", FLOAT_OPS)
def test_op_in_onnxruntime_equals_its_meaning(name: str) -> None:
    for case in OPS[name].cases(np.random.default_rng(1)):
        if name == "lrn" and case.op.attributes()["size"] % 2 == 0:
            continue  # onnxruntime has odd sizes only
        graph, feed = graph_of(case)
        onnx.checker.check_model(export_float(graph), full_check=True)
        got, want = FloatRuntime(graph).run(feed)["y"], interpreter.run(graph, feed)["y"]
        assert got.shape == want.shape, case.op
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5, err_msg=str(case.op))


def test_exported_model_is_imported_again(small: SimpleNamespace) -> None:
    model = small.classifier()
    exported = export_float(import_model(model))
    x = np.random.default_rng(0).normal(size=(4, 3, 8, 8)).astype(np.float32)
    want = run_onnx(model, {"x": x})["y"]
    np.testing.assert_allclose(run_onnx(exported, {"x": x})["y"], want, rtol=1e-5, atol=1e-5)
    again = import_model(exported)
    np.testing.assert_allclose(interpreter.run(again, {"x": x})["y"], want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("batch", "declared"), [("N", "N"), ("batch", "batch"), (4, 4), (1, 1)])
def test_batch_of_inputs_and_outputs(small: SimpleNamespace, batch: str | int, declared: str | int) -> None:
    model = export_float(import_model(small.classifier()), batch)
    for value in (model.graph.input[0], model.graph.output[0]):
        dim = value.type.tensor_type.shape.dim[0]
        assert (dim.dim_param or dim.dim_value) == declared


def test_batch_stays_one_where_samples_would_mix() -> None:
    graph = Graph("mix")
    x = graph.add_input("x", f32(1, 4))
    graph.add_output(Builder(graph).emit(Reshape((4, 1)), x), "y")
    assert export_float(graph).graph.input[0].type.tensor_type.shape.dim[0].dim_value == 1
    feed = {"x": np.arange(12, dtype=np.float32).reshape(3, 4)}
    np.testing.assert_array_equal(FloatRuntime(graph).run(feed)["y"], interpreter.run(graph, feed)["y"])


def test_outputs_that_are_inputs_or_constants(small: SimpleNamespace) -> None:
    graph = Graph("plain")
    x = graph.add_input("x", f32(1, 2))
    builder = Builder(graph)
    k = builder.constant(np.array([[3, 4]], np.float32), "k")
    s = builder.emit(Add(), x, k)
    for value, name in ((x, "x"), (k, "k_out"), (s, "k"), (s, "twice")):
        graph.add_output(value, name)
    feed = {"x": np.array([[1, 2], [5, 6]], np.float32)}
    got, want = FloatRuntime(graph).run(feed), interpreter.run(graph, feed)
    assert list(got) == ["x", "k_out", "k", "twice"]
    for name, array in want.items():
        np.testing.assert_array_equal(got[name], array)


# ---------------------------------------------------------------- QDQ
def annotated() -> Graph:
    """Convolution (per-channel weights, bias) and dense, every materialized value with qparams."""
    rng = np.random.default_rng(3)
    graph = Graph("annotated")
    builder = Builder(graph)
    x = graph.add_input("x", f32(1, 5, 6, 3).with_qparams(QParams.per_tensor(0.05, 3)))
    w = rng.normal(size=(4, 3, 3, 3)).astype(np.float32)
    weight = builder.constant(w, "w", QParams.per_channel(np.abs(w).max((1, 2, 3)) / 127, 0))
    bias = builder.constant(rng.normal(size=4).astype(np.float32), "b")
    c = builder.emit(Conv2d(pads=(1, 1, 1, 1)), x, weight, bias, name="c")
    c.type = c.type.with_qparams(QParams.per_tensor(0.2, -5))
    f = builder.emit(Reshape((1, 120)), c, name="f")
    f.type = f.type.with_qparams(c.type.qparams)
    d = rng.normal(size=(7, 120)).astype(np.float32)
    dense = builder.constant(d, "d", QParams.per_channel(np.abs(d).max(1) / 127, 0))
    y = builder.emit(Dense(), f, dense, name="y")
    y.type = y.type.with_qparams(QParams.per_tensor(1.0))
    graph.add_output(y, "y")
    graph.stage = "annotated"
    return graph


def test_qdq_export_has_integer_weights_and_bias() -> None:
    model = export_qdq(annotated())
    onnx.checker.check_model(model, full_check=True)
    stored = {t.name: t for t in model.graph.initializer}
    assert list(stored["w_quantized"].dims) == [4, 3, 3, 3]
    assert stored["w_quantized"].data_type == onnx.TensorProto.INT8
    assert stored["b_quantized"].data_type == onnx.TensorProto.INT32
    assert stored["c_zero_point"].data_type == onnx.TensorProto.INT8
    assert sum(n.op_type == "QuantizeLinear" for n in model.graph.node) == 4  # x, c, f, y


def test_qdq_export_equals_fake_quantization() -> None:
    graph = annotated()
    feed = {"x": np.random.default_rng(4).normal(size=(3, 5, 6, 3)).astype(np.float32)}
    want = interpreter.run(graph, feed, fake_quant=True)["y"]
    runtime = FloatRuntime(graph, fake_quant=True)
    # a step of y is 1.0; sums that end at the edge of a step may round to either side
    assert np.abs(runtime.run(feed)["y"] - want).max() <= 1.0
    assert np.mean(runtime.run(feed)["y"] == want) > 0.8
    plain = interpreter.run(graph, feed)["y"]
    np.testing.assert_allclose(FloatRuntime(graph).run(feed)["y"], plain, rtol=1e-4, atol=1e-4)


def test_qdq_export_of_sixteen_bits() -> None:
    graph = annotated()
    graph.inputs[0].type = graph.inputs[0].type.with_qparams(QParams.per_tensor(0.001, 3, "s16"))
    feed = {"x": np.random.default_rng(4).normal(size=(1, 5, 6, 3)).astype(np.float32)}
    want = interpreter.run(graph, feed, fake_quant=True)["y"]
    assert np.abs(FloatRuntime(graph, fake_quant=True).run(feed)["y"] - want).max() <= 1.0
    assert export_qdq(graph).opset_import[0].version == 21


def test_integer_graph_is_refused() -> None:
    graph = Graph("integer")
    q = Builder(graph).emit(Quantize(), graph.add_input("x", f32(1, 2)), qparams=QParams.per_tensor(0.1))
    graph.add_output(q, "y")
    with pytest.raises(QccError) as caught:
        export_float(graph)
    assert str(caught.value) == (
        "quantize cannot be written to ONNX: only float and annotated graphs can\n"
        "hint: export the graph before quantize-ops"
    )


def test_constants_above_two_gigabytes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qcc.onnx_writer._MAX_BYTES", 100)
    with pytest.raises(QccError) as caught:
        export_float(annotated())
    assert str(caught.value) == (
        "the constants of the model pass 2 GB, which an ONNX file cannot hold\n"
        "hint: split the model, or compile a smaller one"
    )
