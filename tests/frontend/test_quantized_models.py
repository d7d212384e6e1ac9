"""Models that are quantized already keep their scales: against onnxruntime running the same model."""

from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

import qcc
from qcc import driver
from qcc.calibration_data import load_calibration
from qcc.ir import fixedpoint, interpreter
from qcc.ir.errors import ImportModelError
from qcc.ir.graph import Graph
from qcc.ir.printer import print_graph
from qcc.onnx_importer import import_model
from qcc.options import CompileOptions
from qcc.passes.meaning import sqnr

SAMPLES = 50


def compiled(model: Any, calibration: Any = None) -> tuple[Graph, list[str]]:
    """The planned graph, and the warnings on the way."""
    warnings: list[str] = []
    made = driver.compile_graph(model, calibration, CompileOptions(), warn=warnings.append)
    assert made.planned is not None
    return made.planned, warnings


def real_output(graph: Graph, x: Any) -> Any:
    """The integer program on reals (or on codes), its first output as reals."""
    value = graph.inputs[0]
    q = x if x.dtype == np.int8 else fixedpoint.quantize(x, value.type.qparams)
    y = interpreter.run(graph, {value.name: q})[graph.output_names[0]]
    return fixedpoint.dequantize(y, graph.outputs[0].type.qparams)


def onnxruntime_output(model: Any, x: Any) -> Any:
    content = model if isinstance(model, str) else model.SerializeToString()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(content, options)
    return session.run(None, {session.get_inputs()[0].name: x})[0]


# ---------------------------------------------------------------------- the zoo
@pytest.mark.parametrize(("name", "least_db"), [("kws_qdq", 40.0), ("kws_tfl_qdq", 60.0)])
def test_scales_are_kept_and_nothing_is_calibrated(zoo: ModuleType, name: str, least_db: float) -> None:
    subject = zoo.load(name)
    graph, warnings = compiled(str(subject.model))
    assert warnings == []
    x = np.asarray(subject.x[:SAMPLES])
    expected = onnxruntime_output(str(subject.model), x)
    if expected.dtype == np.int8:
        expected = fixedpoint.dequantize(expected, graph.outputs[0].type.qparams)
    assert sqnr(expected, real_output(graph, x)) > least_db
    stored = {t.name: numpy_helper.to_array(t) for t in onnx.load(str(subject.model)).graph.initializer}
    pairs = [n for n in onnx.load(str(subject.model)).graph.node if n.op_type == "QuantizeLinear"]
    scales = {(float(stored[n.input[1]]), int(stored[n.input[2]])) for n in pairs}
    computed = [v for v in graph.values() if v.data is None and v.type.dtype.value == "s8"]
    found = {(v.type.qparams.scale[0], v.type.qparams.zero_point) for v in computed if v.type.qparams}
    assert scales <= found
    weights = sorted(
        a.tobytes() for a in map(_channels_last, stored.values()) if a.dtype == np.int8 and a.ndim > 1
    )
    ours = [n.input(1).data for n in graph.nodes if n.op.quant_rule().weight == 1]
    assert sorted(a.tobytes() for a in ours if a is not None) == weights


def _channels_last(array: Any) -> Any:
    if array.ndim == 4:
        return np.ascontiguousarray(np.moveaxis(array, 1, -1))
    return np.ascontiguousarray(array.T) if array.ndim == 2 else array


@pytest.mark.compiler
def test_quantized_model_in_c(zoo: ModuleType, tmp_path: Path) -> None:
    subject = zoo.load("kws_tfl_qdq")
    made = qcc.compile(str(subject.model))
    x = {made.graph.inputs[0].name: np.asarray(subject.x[:8])}
    library = made.build()
    for output, array in made.run_integer(x).items():
        np.testing.assert_array_equal(library.run_int8(x)[output], array)


# ---------------------------------------------------------------------- flavours
def _net(
    small: SimpleNamespace, between: list[Any], dtype: Any, weights: Any, **more: Any
) -> onnx.ModelProto:
    """x -> pair -> Conv -> Relu -> Q, ``between``, DQ -> y; codes of ``dtype``."""
    zero = 128 if dtype == np.uint8 else 0
    node = small.node
    constants: dict[str, Any] = {
        "s": np.float32(0.05), "z": dtype(zero + 3), "t": np.float32(0.1), "u": dtype(zero), "w": weights,
        "v": np.full(weights.shape[0], 0.02, np.float32), "m": np.zeros(weights.shape[0], weights.dtype),
        "b": np.arange(weights.shape[0], dtype=np.int32) * 40, "c": np.full(weights.shape[0], 0.001, np.float32),
    }  # fmt: skip
    return small.build(
        [
            node("QuantizeLinear", "x s z", "xq"),
            node("DequantizeLinear", "xq s z", "xd"),
            node("DequantizeLinear", "w v m", "wd", axis=0),
            node("DequantizeLinear", "b c", "bd", axis=0),
            node("Conv", "xd wd bd", "conv", pads=[1, 1, 1, 1]),
            node("Relu", "conv", "relu"),
            node("QuantizeLinear", "relu t u", "yq"),
            *between,
            node("DequantizeLinear", "yc t u" if between else "yq t u", "y"),
        ],
        **(constants | more),
    )


def _weights(low: int = -127, high: int = 128) -> Any:
    return np.random.default_rng(3).integers(low, high, size=(4, 3, 3, 3)).astype(np.int8)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
def test_codes_of_both_types(small: SimpleNamespace, dtype: Any) -> None:
    """The same up to ties between codes, where runtimes round apart."""
    model = _net(small, [], dtype, _weights())
    graph, warnings = compiled(model)
    assert warnings == []
    x = np.random.default_rng(0).normal(size=(6, 3, 8, 8)).astype(np.float32)
    got = np.concatenate([onnxruntime_output(model, a[None]) for a in x])
    assert np.abs(real_output(graph, x) - got).max() < 0.11
    assert (np.abs(real_output(graph, x) - got) < 1e-6).mean() > 0.99
    assert graph.inputs[0].type.qparams.zero_point == 3


def test_clip_of_codes_as_brevitas_writes_it(small: SimpleNamespace) -> None:
    clip = small.node("Clip", "yq low high", "yc")
    model = _net(small, [clip], np.int8, _weights(), low=np.int8(-7), high=np.int8(7))
    graph, _ = compiled(model)
    assert graph.outputs[0].type.qparams.codes == (-7, 7)
    x = np.random.default_rng(0).normal(size=(1, 3, 8, 8)).astype(np.float32)
    assert np.abs(real_output(graph, x) - onnxruntime_output(model, x)).max() < 0.11


def test_float_weights_behind_a_pair_as_pytorch_writes_them(small: SimpleNamespace) -> None:
    q = _weights()
    model = _net(small, [], np.int8, q)
    pair = small.node("QuantizeLinear", "wf v m", "w", axis=0)
    model.graph.node.insert(0, pair)
    for stored in [t for t in model.graph.initializer if t.name == "w"]:
        model.graph.initializer.remove(stored)
    model.graph.initializer.append(
        numpy_helper.from_array(q.astype(np.float32) * np.float32(0.02) + 1e-3, "wf")
    )
    graph, warnings = compiled(model)
    assert warnings == []
    (conv,) = [n for n in graph.nodes if n.op.name == "conv2d"]
    np.testing.assert_array_equal(conv.input(1).data, np.moveaxis(q, 1, -1))


def test_unsigned_weights_around_128_and_integer_inputs(small: SimpleNamespace) -> None:
    q = _weights()
    model = _net(
        small, [], np.uint8, (q.astype(np.int16) + 128).astype(np.uint8), m=np.full(4, 128, np.uint8)
    )
    del model.graph.node[0]
    model.graph.node[0].input[0] = "x"
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    graph, warnings = compiled(model)
    assert warnings == []
    x = np.random.default_rng(0).integers(0, 256, size=(1, 3, 8, 8)).astype(np.uint8)
    ours = real_output(graph, (x.astype(np.int16) - 128).astype(np.int8))
    assert np.abs(ours - onnxruntime_output(model, x)).max() < 0.11
    (conv,) = [n for n in graph.nodes if n.op.name == "conv2d"]
    np.testing.assert_array_equal(conv.input(1).data, np.moveaxis(q, 1, -1))


@pytest.mark.parametrize("rounding", ["ties_up", "onnx"])
def test_weights_of_minus_128_stay(small: SimpleNamespace, rounding: Any) -> None:
    """All of one channel, under inputs at both ends of the codes: against onnxruntime, and the C library."""
    q = _weights(-128, -100)
    q[0], q[1] = -128, 127
    model = _net(small, [], np.int8, q, t=np.float32(0.7))
    warnings: list[str] = []
    made = qcc.compile(model, rounding=rounding, warn=warnings.append)
    assert warnings == []
    (conv,) = [n for n in made.graph.nodes if n.op.name == "conv2d"]
    np.testing.assert_array_equal(conv.input(1).data, np.moveaxis(q, 1, -1))
    x = np.random.default_rng(0).normal(scale=3, size=(6, 3, 8, 8)).astype(np.float32)
    x[0], x[1] = -100, 100
    expected = np.concatenate([onnxruntime_output(model, a[None]) for a in x])
    assert len(np.unique(expected)) > 50
    assert np.abs(real_output(made.graph, x) - expected).max() < 0.71
    assert (np.abs(real_output(made.graph, x) - expected) < 1e-5).mean() > 0.99


def test_what_carries_no_scale_is_calibrated(small: SimpleNamespace) -> None:
    """Two convolutions and a pair in front of the first only: the rest needs data."""
    model = _net(small, [], np.int8, _weights())
    model.graph.node[-1].output[0] = "inner"
    model.graph.node.append(small.node("Conv", "inner wf", "y"))
    model.graph.initializer.append(numpy_helper.from_array(np.ones((2, 4, 1, 1), np.float32), "wf"))
    graph, warnings = compiled(model)
    assert len(warnings) == 1
    assert "no calibration data" in warnings[0]
    assert {0.05, 0.1} <= {round(v.type.qparams.scale[0], 6) for v in graph.values() if v.type.qparams}


def test_two_scales_on_one_value_requantize(small: SimpleNamespace) -> None:
    model = small.build(
        [
            small.node("QuantizeLinear", "x s z", "a"),
            small.node("DequantizeLinear", "a s z", "b"),
            small.node("QuantizeLinear", "b t z", "c"),
            small.node("DequantizeLinear", "c t z", "y"),
        ],
        s=np.float32(0.1), t=np.float32(0.03), z=np.int8(4),
    )  # fmt: skip
    x = np.random.default_rng(0).uniform(-9, 9, size=(1, 3, 8, 8)).astype(np.float32)
    once = np.clip(np.rint(x / np.float32(0.1)) + 4, -128, 127) - 4
    twice = np.clip(np.rint(once * np.float32(0.1) / np.float32(0.03)) + 4, -128, 127) - 4
    np.testing.assert_allclose(real_output(compiled(model)[0], x), twice * np.float32(0.03), atol=1e-6)
    assert "nn.fake_quant" in print_graph(import_model(model))[0]


# ---------------------------------------------------------------------- QOperator
class Reader(CalibrationDataReader):  # type: ignore[misc]
    """A few samples of normal noise."""

    def __init__(self) -> None:
        rng = np.random.default_rng(1)
        self.samples = iter([{"x": rng.normal(size=(1, 3, 8, 8)).astype(np.float32)} for _ in range(4)])

    def get_next(self) -> dict[str, Any] | None:
        return next(self.samples, None)


@pytest.mark.parametrize("format_", [QuantFormat.QDQ, QuantFormat.QOperator])
@pytest.mark.parametrize("codes", [QuantType.QInt8, QuantType.QUInt8])
def test_what_onnxruntime_quantizes(small: SimpleNamespace, tmp_path: Path, format_: Any, codes: Any) -> None:
    rng = np.random.default_rng(2)
    node = small.node
    model = small.build(
        [
            node("Conv", "x w b", "c", pads=[1, 1, 1, 1]),
            node("Relu", "c", "r"),
            node("Conv", "r v", "d"),
            node("Add", "d r", "e"),
            node("GlobalAveragePool", "e", "g"),
            node("Flatten", "g", "f"),
            node("Gemm", "f k a", "h"),
            node("Sigmoid", "h", "y"),
        ],
        w=rng.normal(size=(4, 3, 3, 3)).astype(np.float32), b=rng.normal(size=4).astype(np.float32),
        v=rng.normal(size=(4, 4, 1, 1)).astype(np.float32), k=rng.normal(size=(4, 5)).astype(np.float32),
        a=rng.normal(size=5).astype(np.float32),
    )  # fmt: skip
    model.graph.output[0].CopyFrom(onnx.helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 5]))
    onnx.save(model, tmp_path / "float.onnx")
    path = str(tmp_path / "quantized.onnx")
    quantize_static(
        str(tmp_path / "float.onnx"), path, Reader(), quant_format=format_, activation_type=codes, per_channel=True,
        weight_type=QuantType.QInt8,
    )  # fmt: skip
    graph, warnings = compiled(path)
    assert warnings == []
    x = rng.normal(size=(8, 3, 8, 8)).astype(np.float32)
    expected = np.concatenate([onnxruntime_output(path, a[None]) for a in x])
    step = graph.outputs[0].type.qparams.scale[0]
    difference = np.abs(real_output(graph, x) - expected) / step
    assert difference.max() < 2.1
    assert (difference < 0.1).mean() > 0.8


# ---------------------------------------------------------------------- refusals
def _error(model: Any) -> str:
    with pytest.raises(ImportModelError) as caught:
        import_model(model)
    return str(caught.value)


def test_asymmetric_weights(small: SimpleNamespace) -> None:
    weights = np.random.default_rng(0).integers(0, 256, size=(4, 3, 3, 3)).astype(np.uint8)
    weights[0, 0, 0, 0] = 255
    assert "its weights are asymmetric: minus the zero point 20" in _error(
        _net(small, [], np.uint8, weights, m=np.full(4, 20, np.uint8))
    )


def test_activations_per_channel(small: SimpleNamespace) -> None:
    model = _net(small, [], np.int8, _weights(), s=np.full(3, 0.1, np.float32), z=np.zeros(3, np.int8))
    assert "QuantizeLinear#0 (QuantizeLinear): it has 3 scales" in _error(model)


def test_zero_point_that_is_computed(small: SimpleNamespace) -> None:
    model = _net(small, [], np.int8, _weights())
    model.graph.input.append(small.tensor_input("late", [], TensorProto.INT8))
    model.graph.node[0].input[2] = "late"
    assert "its zero point must be a constant" in _error(model)


@pytest.mark.parametrize("kind", [TensorProto.FLOAT8E4M3FN, TensorProto.INT4, TensorProto.INT16])
def test_other_codes(small: SimpleNamespace, kind: int) -> None:
    model = _net(small, [], np.int8, _weights())
    model.opset_import[0].version = 21
    (zero,) = [t for t in model.graph.initializer if t.name == "z"]
    zero.CopyFrom(onnx.helper.make_tensor("z", kind, [], [0]))
    message = _error(model)
    assert message.count("\n") == 2
    assert "quantizes to" in message or "which is not supported" in message


def test_another_scale_behind_the_codes(small: SimpleNamespace) -> None:
    model = _net(small, [], np.int8, _weights())
    model.graph.node[1].input[1] = "t"
    assert "it dequantizes with another scale" in _error(model)


def test_arithmetic_on_codes(small: SimpleNamespace) -> None:
    node = small.node("Add", "yq yq", "yc")
    assert "it computes with integers" in _error(_net(small, [node], np.int8, _weights()))


# ---------------------------------------------------------------------- data
def test_integers_for_integer_inputs_are_codes(small: SimpleNamespace) -> None:
    model = _net(
        small, [], np.uint8, (_weights().astype(np.int16) + 128).astype(np.uint8), m=np.full(4, 128, np.uint8)
    )
    del model.graph.node[0]
    model.graph.node[0].input[0] = "x"
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    graph = import_model(model)
    x = np.random.default_rng(0).integers(0, 256, size=(2, 3, 8, 8)).astype(np.uint8)
    (batch,) = load_calibration(x, graph.inputs)
    np.testing.assert_array_equal(batch["x"], (x.astype(np.float32) - 131) * np.float32(0.05))
    (reals,) = load_calibration(x.astype(np.float32), graph.inputs)
    np.testing.assert_array_equal(reals["x"], x)
