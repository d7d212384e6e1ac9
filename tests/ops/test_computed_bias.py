"""A convolution whose bias is computed at run time: against onnxruntime, and down to integers."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from qcc.driver import compile_graph
from qcc.ir.interpreter import run
from qcc.onnx_importer import import_model


@pytest.mark.parametrize("op_type", ["Conv", "ConvTranspose"])
def test_a_computed_bias_is_added_afterwards(op_type: str) -> None:
    rng = np.random.default_rng(1)
    weights = numpy_helper.from_array(rng.normal(size=(3, 3, 2, 2)).astype(np.float32), "w")
    declared = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 5, 4]),
        helper.make_tensor_value_info("b", TensorProto.FLOAT, [3]),
    ]
    result = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", "c", "h", "w"])]
    graph = helper.make_graph(
        [helper.make_node(op_type, ["x", "w", "b"], ["y"])], "g", declared, result, [weights]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    samples = {
        "x": rng.normal(size=(4, 3, 5, 4)).astype(np.float32),
        "b": rng.normal(size=(4, 3)).astype(np.float32),
    }
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    expected = np.concatenate(
        [session.run(None, {"x": samples["x"][i : i + 1], "b": samples["b"][i]})[0] for i in range(4)]
    )
    found = run(import_model(model), samples)["y"]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    planned = compile_graph(model, samples).planned
    assert planned is not None
    assert all(node.output.type.dtype.is_integer for node in planned.nodes)
