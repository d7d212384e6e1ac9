"""What the importers of composed operators refuse."""

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.defs import onnx_opset_version

from qcc.ir.errors import ImportModelError
from qcc.onnx_importer import import_model


def refusal(op_type: str, constants: dict[str, Any], opset: int = 21, **attributes: Any) -> str:
    node = helper.make_node(op_type, ["x", *constants], ["y"], **attributes)
    graph = helper.make_graph(
        [node],
        "refused",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 6, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(a), n) for n, a in constants.items()],
    )
    with pytest.raises(ImportModelError) as caught:
        import_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8))
    return str(caught.value)


def test_groups_that_do_not_divide_the_channels() -> None:
    parameters = {"s": np.ones(6, np.float32), "b": np.zeros(6, np.float32)}
    assert "6 channels cannot be split into 4 groups" in refusal(
        "GroupNormalization", parameters, num_groups=4
    )
    assert "into 0 groups" in refusal("GroupNormalization", parameters, num_groups=0)


def test_cast_like_an_integer() -> None:
    assert "only casts" in refusal("CastLike", {"like": np.int64(1)})


def test_lp_normalization_of_another_norm() -> None:
    assert "p = 3" in refusal("LpNormalization", {}, p=3)


def test_axes_out_of_range() -> None:
    assert "axis 4 is out of range" in refusal("LpNormalization", {}, axis=4)
    assert "axis -5 is out of range" in refusal("MeanVarianceNormalization", {}, axes=[-5])


@pytest.mark.skipif(onnx_opset_version() < 28, reason="this onnx package has no mode of SpaceToDepth")
def test_unknown_mode_of_space_to_depth() -> None:
    assert "mode ABC is not supported" in refusal("SpaceToDepth", {}, opset=28, blocksize=2, mode="ABC")


def test_constant_without_elements() -> None:
    assert "input 1 has shape (0,): it holds no elements" in refusal(
        "Add", {"empty": np.zeros(0, np.float32)}
    )


def test_output_without_elements() -> None:
    graph = helper.make_graph(
        [],
        "empty",
        [],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [0, 3])],
        [numpy_helper.from_array(np.zeros((0, 3), np.float32), "y")],
    )
    with pytest.raises(ImportModelError, match="output 'y' is constant and holds no elements"):
        import_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))


def test_a_constant_without_elements_adds_nothing_to_a_concatenation() -> None:
    node = helper.make_node("Concat", ["e", "x"], ["y"], axis=0)
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    empty = numpy_helper.from_array(np.zeros((0, 3), np.float32), "e")
    graph = helper.make_graph([node], "joined", inputs, outputs, [empty])
    imported = import_model(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    )
    assert imported.outputs == imported.inputs
