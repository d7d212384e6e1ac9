"""Import: meaning, names, folding, outputs, and the shapes of inputs with every error they can give."""

from collections.abc import Mapping
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from qcc.float_runtime import run_onnx
from qcc.ir import interpreter
from qcc.ir.errors import ImportModelError
from qcc.ir.graph import Graph
from qcc.onnx_importer import import_model


def error_of(model: onnx.ModelProto, shapes: Mapping[str, int | tuple[int, ...]] | None = None) -> str:
    with pytest.raises(ImportModelError) as caught:
        import_model(model, shapes)
    return str(caught.value)


def ops(graph: Graph) -> list[str]:
    return [n.op.name for n in graph.nodes]


# ---------------------------------------------------------------- meaning
def test_classifier_equals_onnxruntime(small: SimpleNamespace) -> None:
    model = small.classifier()
    graph = import_model(model)
    x = np.random.default_rng(0).normal(size=(3, 3, 8, 8)).astype(np.float32)
    want = run_onnx(model, {"x": x})["y"]
    np.testing.assert_allclose(interpreter.run(graph, {"x": x})["y"], want, rtol=1e-5, atol=1e-5)
    assert graph.stage == "float"
    assert "reshape" in ops(graph)
    assert not {"take", "concat", "slice"} & set(ops(graph))  # shape arithmetic is folded


def test_values_keep_the_names_of_the_model(small: SimpleNamespace) -> None:
    graph = import_model(small.classifier(), name="net")
    assert graph.name == "net"
    by_op = {n.op.name: n for n in graph.nodes}
    assert (by_op["conv2d"].name, by_op["clamp"].name, by_op["dense"].name) == ("c", "r", "y")
    assert {"b", "c_weight"} <= {v.name for v in graph.constants()}
    assert str(by_op["conv2d"].location) == "small, node conv"
    assert graph.output_names == ["y"]


def test_unnamed_nodes_and_strange_names(small: SimpleNamespace) -> None:
    model = small.build(
        [helper.make_node("Relu", ["x"], ["a\n\x01"]), helper.make_node("Neg", ["a\n\x01"], ["y"])]
    )
    graph = import_model(model)
    assert [(n.name, n.location.node if n.location else "") for n in graph.nodes] == [
        ("a\n\x01", "Relu#0"),
        ("y", "Neg#1"),
    ]


def test_nodes_in_any_order(small: SimpleNamespace) -> None:
    model = small.classifier()
    nodes = list(model.graph.node)[::-1]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    assert ops(import_model(model)) == ops(import_model(small.classifier()))


def test_outputs_that_are_inputs_or_constants(small: SimpleNamespace) -> None:
    model = small.build(
        [small.node("Relu", "x", "r"), small.node("Add", "k k", "k2")],
        outputs=["x", "k", "k2", "r"],
        k=np.arange(3, dtype=np.float16),
    )
    graph = import_model(model)
    assert graph.output_names == ["x", "k", "k2", "r"]
    assert graph.outputs[0] is graph.inputs[0]
    assert graph.outputs[1].data is not None
    assert graph.outputs[1].data.dtype == np.float32
    x = np.zeros((2, 3, 8, 8), np.float32)
    np.testing.assert_array_equal(interpreter.run(graph, {"x": x})["k2"], [[0, 2, 4]] * 2)


def test_unused_inputs_stay_and_dead_nodes_go(small: SimpleNamespace) -> None:
    model = small.build(
        [small.node("Relu", "x"), small.node("NoSuchOp", "x", "dead"), small.node("Neg", "nothing", "dead2")],
        [small.tensor_input("x", [1, 4]), small.tensor_input("unused", ["N", 7])],
    )
    graph = import_model(model)
    assert [str(v.type) for v in graph.inputs] == ["f32<1x4>", "f32<1x7>"]
    assert ops(graph) == ["clamp"]


def test_inputs_that_are_initializers_are_constants(small: SimpleNamespace) -> None:
    model = small.build(
        [small.node("Add", "x k")],
        [small.tensor_input("x", [1, 3]), small.tensor_input("k", [3])],
        k=np.ones(3, np.float32),
    )
    graph = import_model(model)
    assert [v.name for v in graph.inputs] == ["x"]
    assert [v.name for v in graph.constants()] == ["k"]


def test_absent_optional_operands_and_unused_mask(small: SimpleNamespace) -> None:
    model = small.build(
        [small.node("Clip", "x - six", "c"), small.node("Dropout", "c", "y mask")], six=np.float32(6)
    )
    (clamp,) = import_model(model).nodes
    assert clamp.op.attributes() == {"low": float("-inf"), "high": 6.0}


def test_constant_nodes_of_every_kind(small: SimpleNamespace) -> None:
    model = small.build(
        [
            small.node("Constant", "", "a", value=helper.make_tensor("t", 1, [3], [1, 2, 3])),
            small.node("Constant", "", "b", value_float=0.5),
            small.node("Constant", "", "c", value_floats=[4.0, 5.0, 6.0]),
            small.node("Constant", "", "i", value_ints=[0]),
            small.node("Constant", "", "j", value_int=3),
            small.node("Range", "zero j one", "r"),
            small.node("Cast", "r", "rf", to=1),
            small.node("Unsqueeze", "rf i", "ru"),
            small.node("Sum", "a b c rf", "s"),
            small.node("Add", "s ru", "t"),
            small.node("Add", "x t"),
        ],
        [small.tensor_input("x", [1, 3])],
        zero=np.int64(0),
        one=np.int64(1),
    )
    (add,) = import_model(model).nodes
    np.testing.assert_array_equal(add.input(1).data, [[5.5, 9.5, 13.5]])


def test_dequantized_weights_of_old_opsets_are_folded(small: SimpleNamespace) -> None:
    model = small.build(
        [small.node("DequantizeLinear", "q s", "w"), small.node("Add", "x w")],
        [small.tensor_input("x", [1, 2])],
        opset=13,
        q=np.array([-4, 6], np.int8),
        s=np.float32(0.5),
    )
    (add,) = import_model(model).nodes
    np.testing.assert_array_equal(add.input(1).data, [-2, 3])


# ---------------------------------------------------------------- shapes of inputs
@pytest.mark.parametrize(
    ("dims", "shapes", "shape"),
    [
        (["N", 3, 8, 8], {}, (1, 3, 8, 8)),
        ([None, 3, 8, 8], {}, (1, 3, 8, 8)),
        ([-1, 3, 8, 8], {}, (1, 3, 8, 8)),
        ([4, 3, 8, 8], {}, (4, 3, 8, 8)),
        (["N", 3, 8, 8], {"N": 2}, (2, 3, 8, 8)),
        (["N", 3, "h", "w"], {"h": 6, "w": 5}, (1, 3, 6, 5)),
        (["N", 3, "h", "h"], {"h": 6}, (1, 3, 6, 6)),
        (["N", 3, "h", None], {"x": (2, 3, 4, 5)}, (2, 3, 4, 5)),
        (None, {"x": (2, 3)}, (2, 3)),
        (["n"], {"x": 5}, (5,)),
    ],
)
def test_bound_dimensions(
    small: SimpleNamespace,
    dims: list[int | str | None] | None,
    shapes: dict[str, int | tuple[int, ...]],
    shape: tuple[int, ...],
) -> None:
    model = small.build([small.node("Relu", "x")], [small.tensor_input("x", dims)])
    graph = import_model(model, shapes)
    assert graph.inputs[0].type.shape == shape
    assert graph.outputs[0].type.shape == shape


@pytest.mark.parametrize(
    ("dims", "shapes", "message"),
    [
        (
            ["N", 3, "height", 8],
            {},
            "input x has a dynamic dimension 'height' (axis 2)\nhint: pass --shape height=...",
        ),
        (
            ["N", 3, "h", "w"],
            {},
            "input x has dynamic dimensions 'h' (axis 2), 'w' (axis 3)\nhint: pass --shape h=... --shape w=...",
        ),
        (
            ["N", 3, None, 8],
            {},
            "input x has a dynamic dimension (axis 2)\nhint: pass --shape x=1x3x...x8",
        ),
        (None, {}, "input x has no shape\nhint: pass --shape x=1x3x224x224"),
        (
            [1, 3],
            {"y": 1},
            "--shape y: the model has no input or dimension of that name\n"
            "hint: inputs and symbolic dimensions: x",
        ),
        (
            ["N", 3],
            {"x": (1, 4)},
            "--shape x=1x4 does not fit the declared shape Nx3\nhint: only symbolic dimensions can be chosen",
        ),
        (
            ["N", "k"],
            {"x": (1, 4, 4)},
            "--shape x=1x4x4 does not fit the declared shape Nxk\nhint: only symbolic dimensions can be chosen",
        ),
        (
            [1, 0],
            {},
            "input x has shape 1x0, which no tensor can have\nhint: every dimension must be at least 1",
        ),
        (
            [2**20, 2**20],
            {},
            "input x has shape 1048576x1048576, which no tensor can have\nhint: every dimension must be at least 1",
        ),
    ],
)
def test_dimensions_that_stay_open_or_do_not_fit(
    small: SimpleNamespace,
    dims: list[int | str | None] | None,
    shapes: dict[str, int | tuple[int, ...]],
    message: str,
) -> None:
    model = small.build([small.node("Relu", "x")], [small.tensor_input("x", dims)])
    assert error_of(model, shapes) == f"small: {message}"


@pytest.mark.parametrize("elem", ["FLOAT16", "DOUBLE", "INT64"])
def test_inputs_of_other_types(small: SimpleNamespace, elem: str) -> None:
    model = small.build(
        [small.node("Cast", "x", to=1)], [small.tensor_input("x", [1, 3], TensorProto.DataType.Value(elem))]
    )
    assert error_of(model) == (
        f"small: input x is {elem.lower()}, expected float32\n"
        "hint: export the model with float32 inputs (preprocessing of integers belongs before the model)"
    )


def test_input_that_is_no_tensor(small: SimpleNamespace) -> None:
    sequence = helper.make_tensor_sequence_value_info("x", TensorProto.FLOAT, [1])
    model = small.build([small.node("SequenceLength", "x")], [sequence])
    assert error_of(model) == "small: input x is sequence, expected a float32 tensor"
