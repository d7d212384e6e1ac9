"""ONNX importers of dense, unary, binary, softmax, normalization and reduction ops against onnxruntime."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from qcc.ir.errors import ImportModelError
from qcc.ir.graph import Graph
from qcc.ir.interpreter import run
from qcc.onnx_importer import import_model

Array = NDArray[Any]
OPSETS = (7, 11, 13, 17, 24)
F32 = np.float32


@dataclass(frozen=True)
class Model:
    """One node: ``inputs`` are run-time tensors or, where listed in ``constant``, initializers."""

    op_type: str
    inputs: tuple[Array | None, ...]
    constant: tuple[int, ...] = ()
    attrs: dict[str, Any] = field(default_factory=dict)
    since: int = 7
    until: int = 999

    def proto(self, opset: int) -> onnx.ModelProto:
        names = ["" if a is None else f"x{i}" for i, a in enumerate(self.inputs)]
        node = helper.make_node(self.op_type, names, ["y"], **self.attrs)
        given = [(f"x{i}", a, i in self.constant) for i, a in enumerate(self.inputs) if a is not None]
        graph = helper.make_graph(
            [node],
            "one",
            [helper.make_tensor_value_info(n, TensorProto.FLOAT, a.shape) for n, a, c in given if not c],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
            [numpy_helper.from_array(a, n) for n, a, c in given if c],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)

    def feeds(self) -> dict[str, Array]:
        return {f"x{i}": a for i, a in enumerate(self.inputs) if a is not None and i not in self.constant}


def interpret(graph: Graph, feeds: dict[str, Array]) -> Array:
    """One sample, in the shape that the graph states."""
    (result,) = run(graph, {k: v[None] for k, v in feeds.items()}).values()
    return result.reshape(graph.outputs[0].type.shape)


def check(model: Model, opset: int) -> Graph:
    proto = model.proto(opset)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, model.feeds())
    graph = import_model(proto)
    actual = interpret(graph, model.feeds())
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5 * max(1e-3, np.abs(expected).max()))
    return graph


def rand(*shape: int, low: float = -3, high: float = 3) -> Array:
    seed = sum((i + 1) * n for i, n in enumerate(shape))
    return np.asarray(np.random.default_rng(seed).uniform(low, high, size=shape), F32)


def ints(*values: int) -> Array:
    return np.array(values, np.int64)


X = rand(1, 3, 4, 5)
POSITIVE = rand(1, 3, 4, 5, low=0.1)

UNARY = [
    *(
        Model(n, (X,))
        for n in ("Sigmoid", "Tanh", "Softplus", "Softsign", "Relu", "Selu", "Elu", "LeakyRelu")
    ),
    *(
        Model(n, (X,))
        for n in ("HardSigmoid", "Exp", "Neg", "Abs", "Floor", "Ceil", "Sin", "Cos", "Identity")
    ),
    *(Model(n, (POSITIVE,)) for n in ("Log", "Sqrt", "Reciprocal")),
    *(Model(n, (rand(1, 3, 4, 5, low=-0.99, high=0.99),)) for n in ("Acos", "Asin")),
    Model("Atan", (X,)),
    Model("Asinh", (X,), since=9),
    Model("Atanh", (rand(1, 3, 4, 5, low=-0.99, high=0.99),), since=9),
    Model("Shrink", (X,), attrs={"lambd": 1.5, "bias": 0.25}, since=9),
    Model("CumSum", (X, np.array(2)), (1,), since=11),
    Model("CumSum", (X, np.array([-3])), (1,), {"exclusive": 1, "reverse": 1}, since=11),
    Model("LeakyRelu", (X,), attrs={"alpha": 0.3}),
    Model("Elu", (X,), attrs={"alpha": 0.7}),
    Model("Selu", (X,), attrs={"alpha": 1.5, "gamma": 1.1}),
    Model("Celu", (X,), attrs={"alpha": 0.6}, since=12),
    Model("ThresholdedRelu", (X,), attrs={"alpha": 0.5}, since=10),
    Model("HardSigmoid", (X,), attrs={"alpha": 0.25, "beta": 0.4}),
    Model("HardSwish", (X,), since=14),
    Model("Mish", (X,), since=18),
    Model("Gelu", (X,), since=20),
    Model("Gelu", (X,), attrs={"approximate": "tanh"}, since=20),
    Model("Erf", (X,), since=9),
    Model("Sign", (np.array([[-2.5, 0, 1.5, -0.0]], F32),), since=9),
    Model("Round", (np.array([[-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 0.49]], F32),), since=11),
    Model("Swish", (X,), attrs={"alpha": 1.25}, since=24),
    Model("Dropout", (X,)),
    Model("Dropout", (X, np.array(0.5, F32), np.array(False)), (1, 2), since=12),
    Model("Cast", (X,), attrs={"to": TensorProto.FLOAT}, since=9),
    Model("Clip", (X,), attrs={"min": -1.0, "max": 2.0}, until=10),
    Model("Clip", (X, np.array(-1, F32), np.array(2, F32)), (1, 2), since=11),
    Model("Clip", (X, None, np.array(2, F32)), (2,), since=11),
]
BINARY = [
    *(Model(n, (POSITIVE, rand(5, low=0.5))) for n in ("Add", "Sub", "Mul", "Div", "Pow")),
    *(Model(n, (X, rand(1, 5, low=0.5)), (1,)) for n in ("Add", "Sub", "Mul", "Div")),
    Model("Mul", (rand(1), X), (0,)),
    Model("Sub", (rand(3, 1, 1), X), (0,)),
    Model("Pow", (X, np.array([2.0], F32)), (1,)),
    Model("Pow", (X, ints(2)), (1,), since=12),
    *(Model("PRelu", (X, rand(*s, low=0)), (1,)) for s in ((3, 1, 1), (1,), (5,))),
    Model("PRelu", (X, rand(1, 1, 1, 5))),
    *(Model(n, (X,)) for n in ("Sum", "Mean")),
    *(Model(n, (X, POSITIVE, X)) for n in ("Sum", "Mean", "Min", "Max")),
    *(Model(n, (X, rand(4, 5), rand(1, 3, 1, 1)), since=8) for n in ("Sum", "Mean", "Min", "Max")),
    Model("Max", (X, np.array([0.5], F32)), (1,), since=8),
]
DENSE = [
    Model("MatMul", (rand(1, 6), rand(6, 4)), (1,)),
    Model("MatMul", (rand(1, 3, 6), rand(6, 4)), (1,)),
    Model("MatMul", (rand(6), rand(6, 4)), (1,)),
    Model("MatMul", (rand(2, 6), rand(6)), (1,)),
    Model("MatMul", (rand(6), rand(6))),
    Model("MatMul", (rand(6), rand(2, 6, 3))),
    Model("MatMul", (rand(1, 2, 3, 6), rand(6))),
    Model("MatMul", (rand(1, 2, 3, 6), rand(1, 2, 6, 5))),
    Model("MatMul", (rand(1, 3, 6), rand(1, 2, 6, 5))),
    Model("MatMul", (rand(4, 6), rand(1, 6, 3)), (0,)),
    Model("MatMul", (rand(1, 2, 3, 6), rand(2, 6, 5)), (1,)),
    Model("Gemm", (rand(1, 6), rand(6, 4), rand(4)), (1, 2)),
    Model("Gemm", (rand(1, 6), rand(6, 4)), (1,), since=11),
    Model("Gemm", (rand(1, 6), rand(4, 6), rand(1, 4)), (1, 2), {"transB": 1, "alpha": 0.5, "beta": 2.0}),
    Model("Gemm", (rand(6, 2), rand(6, 4), rand(1)), (1, 2), {"transA": 1, "beta": 0.25}),
    Model("Gemm", (rand(2, 6), rand(6, 4), rand(2, 1)), (1, 2), {"beta": 0.25}),
    Model("Gemm", (rand(2, 6), rand(6, 4), rand(2, 4)), (1,), {"beta": 0.25}),
    Model("Gemm", (rand(2, 6), rand(6, 4), rand(4)), (), {"alpha": 3.0}),
    Model("Gemm", (rand(6, 2), rand(4, 6), rand(4)), (2,), {"transA": 1, "transB": 1, "beta": 0.5}),
]
SOFTMAX = [
    *(Model(n, (rand(1, 7),)) for n in ("Softmax", "LogSoftmax")),
    *(Model(n, (X,)) for n in ("Softmax", "LogSoftmax")),
    *(Model(n, (X,), attrs={"axis": a}) for n in ("Softmax", "LogSoftmax") for a in (0, 1, 2, 3)),
    Model("Softmax", (rand(1, 5, 1, 1),), attrs={"axis": 1}),
    Model("Softmax", (X,), attrs={"axis": -2}, since=11),
]
SCALES = (rand(3), rand(3, low=-1), rand(3, low=-2), rand(3, low=0.1))
NORM = [
    Model("BatchNormalization", (X, *SCALES), (1, 2, 3, 4), {"epsilon": 1e-3}),
    Model("BatchNormalization", (rand(1, 3), *SCALES), (1, 2, 3, 4)),
    Model("BatchNormalization", (rand(1, 3, 6), *SCALES), (1, 2, 3, 4)),
    Model("InstanceNormalization", (X, *SCALES[:2]), (1, 2), {"epsilon": 1e-3}),
    Model("LRN", (rand(1, 7, 2, 3),), attrs={"size": 5, "alpha": 0.1}),
    Model("LayerNormalization", (X, rand(5), rand(5, low=0)), (1, 2), since=17),
    Model("LayerNormalization", (X, rand(4, 5)), (1,), {"axis": -2, "epsilon": 1e-3}, since=17),
]
REDUCED = (
    "ReduceProd",
    "ReduceLogSumExp",
    "ReduceMean",
    "ReduceMax",
    "ReduceMin",
    "ReduceL1",
    "ReduceL2",
    "ReduceSumSquare",
    "ReduceLogSum",
)
REDUCE = [
    *(Model(n, (POSITIVE,), attrs={"axes": [2, 3]}, until=17) for n in REDUCED),
    *(Model(n, (POSITIVE,), attrs={"axes": [1], "keepdims": 0}, until=17) for n in REDUCED),
    *(Model(n, (POSITIVE, ints(-1, 2)), (1,), since=18) for n in REDUCED),
    *(Model(n, (POSITIVE,), since=18, attrs={"noop_with_empty_axes": 1}) for n in REDUCED[:3]),
    Model("ReduceSum", (X,), attrs={"axes": [1, 3]}, until=12),
    Model("ReduceSum", (X, ints(0, -1)), (1,), {"keepdims": 0}, since=13),
    Model("ReduceMean", (X,)),
    Model("ReduceMean", (X,), attrs={"keepdims": 0}),
    Model("GlobalAveragePool", (X,)),
    Model("GlobalAveragePool", (rand(1, 3, 6),)),
    Model("GlobalMaxPool", (X,)),
]
FAMILIES = {
    "unary": UNARY,
    "binary": BINARY,
    "dense": DENSE,
    "softmax": SOFTMAX,
    "norm": NORM,
    "reduce": REDUCE,
}


def test_lrn_with_an_even_window_follows_the_onnx_formula() -> None:
    """onnxruntime knows odd windows only: channels c - floor(3/2) to c + ceil(3/2) written out."""
    x = rand(1, 7, 2, 3)
    model = Model("LRN", (x,), attrs={"size": 4, "alpha": 0.2, "beta": 0.5, "bias": 2.0})
    sums = np.stack([np.square(x[:, max(0, c - 1) : c + 3]).sum(axis=1) for c in range(7)], axis=1)
    actual = interpret(import_model(model.proto(13)), model.feeds())
    np.testing.assert_allclose(actual, x / np.sqrt(2 + 0.05 * sums), rtol=1e-5)


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("family", FAMILIES)
def test_import_equals_onnxruntime(family: str, opset: int) -> None:
    for model in FAMILIES[family]:
        if model.since <= opset <= model.until:
            check(model, opset)


def op_names(model: Model, opset: int) -> list[str]:
    return [n.op.name for n in import_model(model.proto(opset)).nodes]


def test_constant_operands_fold_into_one_dense() -> None:
    model = Model(
        "Gemm", (rand(1, 6), rand(4, 6), rand(1, 4)), (1, 2), {"transB": 1, "alpha": 0.5, "beta": 2.0}
    )
    assert op_names(model, 13) == ["dense"]
    assert op_names(Model("MatMul", (rand(1, 3, 6), rand(6, 4)), (1,)), 13) == ["dense"]


def test_softmax_of_old_opsets_is_plain_where_it_can_be() -> None:
    assert op_names(Model("Softmax", (rand(1, 5, 1, 1),), attrs={"axis": 1}), 11) == ["softmax"]
    assert op_names(Model("Softmax", (X,), attrs={"axis": 2}), 11) == ["reshape", "softmax", "reshape"]


@pytest.mark.parametrize(
    ("model", "opset", "reason"),
    [
        (Model("Cast", (X,), attrs={"to": TensorProto.INT32}), 13, "casts"),
        (Model("Dropout", (X, np.array(0.5, F32), np.array(True)), (1, 2)), 13, "training mode"),
        (Model("BatchNormalization", (X, *SCALES), (1, 2, 3, 4), {"spatial": 0}), 7, "spatial"),
        (Model("BatchNormalization", (X, *SCALES), (1, 2, 3, 4), {"training_mode": 1}), 17, "training mode"),
        (Model("GlobalMaxPool", (rand(1, 3),)), 13, "spatial axes"),
        (Model("Softmax", (X,), attrs={"axis": 4}), 13, "axis 4"),
        (Model("ReduceMean", (X,), attrs={"axes": [7]}), 13, "axis 7"),
    ],
)
def test_import_refuses_and_says_why(model: Model, opset: int, reason: str) -> None:
    with pytest.raises(ImportModelError, match=reason):
        import_model(model.proto(opset))


def test_layer_normalization_with_statistics() -> None:
    proto = Model("LayerNormalization", (X, rand(5)), (1,)).proto(17)
    for name in ("mean", "deviation"):
        proto.graph.node[0].output.append(name)
        proto.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    graph = import_model(proto)
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    expected = session.run(None, {graph.inputs[0].name: X})
    results = run(graph, {graph.inputs[0].name: X}).values()
    for got, wanted in zip(results, expected, strict=True):
        np.testing.assert_allclose(got.reshape(wanted.shape), wanted, 1e-4, 1e-5)
