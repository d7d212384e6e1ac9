"""One-node ONNX models, computed by onnxruntime and by the imported graph."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from qcc.ir.graph import Graph
from qcc.ir.interpreter import run
from qcc.onnx_importer import import_model

Array = NDArray[Any]


class OneNode:
    """A model of one node. ``operands``: float32 arrays are run-time inputs, ``constants`` by index are not."""

    def __init__(
        self,
        op_type: str,
        operands: list[Array | None],
        opset: int,
        constants: tuple[int, ...] = (),
        outputs: int = 1,
        **attrs: Any,
    ) -> None:
        names = ["" if a is None else f"x{i}" for i, a in enumerate(operands)]
        given = [(f"x{i}", a, i in constants) for i, a in enumerate(operands) if a is not None]
        self.feeds = {n: a for n, a, constant in given if not constant}
        results = [f"y{i}" for i in range(outputs)]
        graph = helper.make_graph(
            [helper.make_node(op_type, names, results, **attrs)],
            "one",
            [helper.make_tensor_value_info(n, TensorProto.FLOAT, a.shape) for n, a in self.feeds.items()],
            [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in results],
            [numpy_helper.from_array(a, n) for n, a, constant in given if constant],
        )
        opsets = [helper.make_opsetid("", opset)]
        self.proto: onnx.ModelProto = helper.make_model(graph, opset_imports=opsets, ir_version=8)

    def imported(self) -> Graph:
        """The graph that the importer makes of it."""
        return import_model(self.proto)

    def onnxruntime(self) -> list[Array]:
        """The results of onnxruntime, graph optimizations off."""
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = 1
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = ort.InferenceSession(
            self.proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        return [np.asarray(r) for r in session.run(None, self.feeds)]

    def check(self, tolerance: float = 0.0) -> Graph:
        """Shapes and elements of both must agree; returns the imported graph."""
        graph = self.imported()
        results = run(graph, {k: v[None] for k, v in self.feeds.items()})
        for expected, value, got in zip(self.onnxruntime(), graph.outputs, results.values(), strict=True):
            assert value.type.shape == expected.shape
            np.testing.assert_allclose(got.reshape(expected.shape), expected, rtol=tolerance, atol=tolerance)
        return graph


@pytest.fixture
def one_node() -> Callable[..., OneNode]:
    """`one_node("Slice", [x, ...], opset=13, constants=(1, 2), axis=1).check()`."""
    return OneNode
