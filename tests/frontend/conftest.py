"""Small ONNX models for the tests of the front end, as the fixture `small`."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

Dim = int | str | None


def tensor_input(
    name: str, shape: Sequence[Dim] | None, elem: int = TensorProto.FLOAT
) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, elem, shape)


def build(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto] = (),
    outputs: Sequence[str] = ("y",),
    opset: int = 17,
    **initializers: Any,
) -> onnx.ModelProto:
    """A model without value_info, so that nothing but the importer knows a shape."""
    graph = helper.make_graph(
        nodes,
        "small",
        inputs or [tensor_input("x", [1, 3, 8, 8])],
        [onnx.ValueInfoProto(name=n) for n in outputs],
        [numpy_helper.from_array(np.asarray(a), n) for n, a in initializers.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def node(op_type: str, inputs: str, outputs: str = "y", **attributes: Any) -> onnx.NodeProto:
    """Names separated by spaces; ``-`` is an absent operand."""
    name = attributes.pop("name", None)
    ins = ["" if i == "-" else i for i in inputs.split()]
    return helper.make_node(op_type, ins, outputs.split(), name=name, **attributes)


def classifier(batch: Dim = "N") -> onnx.ModelProto:
    """Convolution, Relu, shape arithmetic around a reshape, dense: [N, 3, 8, 8] to [N, 5]."""
    rng = np.random.default_rng(7)
    return build(
        [
            node("Conv", "x w b", "c", pads=[1, 1, 1, 1], strides=[2, 2], name="conv"),
            node("Relu", "c", "r", name="relu"),
            node("Shape", "r", "s", name="shape"),
            node("Gather", "s zero", "n", name="gather"),
            node("Unsqueeze", "n zero_1d", "n1", name="unsqueeze"),
            node("Concat", "n1 minus", "target", axis=0, name="concat"),
            node("Reshape", "r target", "f", name="reshape"),
            node("Gemm", "f d e", "y", transB=1, name="gemm"),
        ],
        [tensor_input("x", [batch, 3, 8, 8])],
        w=rng.normal(size=(4, 3, 3, 3)).astype(np.float32),
        b=rng.normal(size=4).astype(np.float32),
        zero=np.int64(0),
        zero_1d=np.zeros(1, np.int64),
        minus=np.array([-1]),
        d=rng.normal(size=(5, 64)).astype(np.float32),
        e=rng.normal(size=5).astype(np.float32),
    )


@pytest.fixture(scope="session")
def small() -> SimpleNamespace:
    """`small.build`, `small.node`, `small.tensor_input`, `small.classifier`."""
    return SimpleNamespace(build=build, node=node, tensor_input=tensor_input, classifier=classifier)
