"""Graphs that are refused: structure, unsupported and malformed nodes, absurd sizes; with the exact text."""

import contextlib
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from qcc.ir.errors import ImportModelError
from qcc.ir.op import ONNX_IMPORTERS
from qcc.onnx_importer import import_model

AGAIN = "\nhint: export the model again"
REPLACE = "\nhint: replace them before the export, or add an op: @register_op and @onnx_importer in a plugin"


def error_of(model: onnx.ModelProto) -> str:
    with pytest.raises(ImportModelError) as caught:
        import_model(model)
    return str(caught.value)


# ---------------------------------------------------------------- structure
def test_cycle_names_its_nodes(small: SimpleNamespace) -> None:
    model = small.build(
        [
            small.node("Add", "x c", "a", name="first"),
            small.node("Relu", "a", "b", name="second"),
            small.node("Neg", "b", "c", name="third"),
            small.node("Relu", "c", "y", name="after"),
        ]
    )
    assert error_of(model) == "small: the nodes form a cycle: first -> second -> third -> first" + AGAIN


def test_tensor_that_nothing_defines(small: SimpleNamespace) -> None:
    model = small.build([small.node("Add", "x ghost", name="add")])
    assert error_of(model) == (
        "small, node add: input 'ghost' is not defined by any node, input or initializer" + AGAIN
    )
    model = small.build([small.node("Relu", "x")], outputs=["y", "z"])
    assert (
        error_of(model) == "small: graph output 'z' is not defined by any node, input or initializer" + AGAIN
    )


def test_names_used_twice(small: SimpleNamespace) -> None:
    x = small.tensor_input("x", [1])
    relu = small.node("Relu", "x")
    assert error_of(small.build([relu, relu], [x])) == "small: tensor 'y' is defined twice" + AGAIN
    assert error_of(small.build([relu], [x, x])) == "small: graph input 'x' is declared twice" + AGAIN
    assert (
        error_of(small.build([relu], outputs=["y", "y"]))
        == "small: graph output 'y' is declared twice" + AGAIN
    )
    model = small.build([relu], k=np.ones(1))
    model.graph.initializer.append(model.graph.initializer[0])
    assert error_of(model) == "small: initializer 'k' is declared twice" + AGAIN
    model = small.build([small.node("Relu", "x", "x")], outputs=["x"])
    assert error_of(model) == "small: tensor 'x' is defined twice" + AGAIN


# ---------------------------------------------------------------- nodes
def test_all_unsupported_nodes_are_listed_once(small: SimpleNamespace) -> None:
    custom = helper.make_node("Magic", ["r"], ["m"], name="magic", domain="com.example")
    model = small.build(
        [
            small.node("Relu", "x", "r", name="fine"),
            custom,
            small.node("Neg", "m", "m2", name="behind"),
            small.node("TopK", "x k", "top where", name="top"),
            small.node("Shape", "top", "shape", name="shape_of_failed"),
            small.node("Reshape", "x shape", "t2", name="reshape"),
            small.node("Det", "m2", "h", name="determinant"),
            small.node("Sum", "h t2 r", name="sum"),
        ],
        k=np.array([2]),
    )
    assert error_of(model) == (
        "small: 3 nodes are not supported:\n"
        "  magic (com.example.Magic): it is a custom operator; only operators of the ONNX standard are supported\n"
        "  top (TopK): the operator is not supported\n"
        "  determinant (Det): the operator is not supported" + REPLACE
    )


def reason_of(model: onnx.ModelProto) -> str:
    head, line, hint = error_of(model).split("\n")
    assert head == "small: 1 node is not supported:"
    assert "\n" + hint == REPLACE
    return line.split("): ", 1)[1]


def test_function_of_the_model(small: SimpleNamespace) -> None:
    model = small.build([helper.make_node("F", ["x"], ["y"], domain="local")])
    model.functions.append(
        helper.make_function(
            "local", "F", ["a"], ["b"], [small.node("Relu", "a", "b")], [helper.make_opsetid("", 17)]
        )
    )
    assert reason_of(model) == (
        "it is a function of the model; only operators of the ONNX standard are supported"
    )


def test_control_flow(small: SimpleNamespace) -> None:
    branch = helper.make_graph([small.node("Relu", "x", "b")], "branch", [], [onnx.ValueInfoProto(name="b")])
    model = small.build([small.node("If", "c", then_branch=branch, else_branch=branch)], c=np.array(True))
    assert reason_of(model) == "control flow with subgraphs is not supported"


@pytest.mark.parametrize(
    ("op_type", "operands", "attributes", "reason"),
    [
        ("Relu", "x x", {}, "it has 2 inputs, expected 1 to 1"),
        ("Relu", "", {}, "it has 0 inputs, expected 1 to 1"),
        ("Conv", "x -", {}, "input 1 is missing"),
        ("NoSuchOp", "x", {}, "there is no such operator in opset 17"),
        ("Upsample", "x s", {}, "the operator is deprecated in opset 17"),
        ("Relu", "x", {"alpha": 1.0}, "unknown attribute alpha"),
        ("LeakyRelu", "x", {"alpha": 1}, "attribute alpha has the wrong type"),
        ("Concat", "x x", {}, "attribute axis is missing"),
        ("Cast", "i", {"to": 1}, None),
        ("Constant", "", {}, "it has 0 values, expected one"),
        ("Constant", "", {"value_string": "a"}, "strings are not supported"),
        ("Conv", "x s", {}, "only 1-D and 2-D convolutions are supported"),
        ("RandomNormalLike", "s", {}, "the operator is not supported"),
        ("Expand", "s huge", {}, "its result of shape (1099511627776, 4) is larger than 268435456 elements"),
        (
            "ConstantOfShape",
            "huge",
            {},
            "its result of shape (1099511627776, 1) is larger than 268435456 elements",
        ),
        ("Expand", "x i", {}, None),
    ],
)
def test_node_that_is_refused(
    small: SimpleNamespace, op_type: str, operands: str, attributes: dict[str, object], reason: str | None
) -> None:
    model = small.build(
        [small.node(op_type, operands, **attributes)],
        s=np.ones(4, np.float32),
        i=np.ones(4, np.int64),
        huge=np.array([2**40, 1]),
    )
    if reason is None:
        import_model(model)
    else:
        assert reason_of(model) == reason


@pytest.mark.parametrize(
    ("op_type", "operands", "attributes"),
    [
        ("Tile", "s many", {}),
        ("Range", "zero far one", {}),
        ("Pad", "s pads", {}),
        ("Resize", "image - scales", {}),
        ("OneHot", "i depth values", {}),
        ("Concat", "s s", {"axis": 7}),
        ("Reshape", "s i", {}),
        ("Gather", "s far", {}),
        ("MatMul", "s i", {}),
        ("Slice", "s i i", {"axes": [0]}),
    ],
)
def test_known_node_that_cannot_be_evaluated(
    small: SimpleNamespace, op_type: str, operands: str, attributes: dict[str, object]
) -> None:
    model = small.build(
        [small.node(op_type, operands, **attributes)],
        s=np.ones(4, np.float32),
        i=np.full(4, 5),
        many=np.array([2**33]),
        zero=np.int64(0),
        one=np.int64(1),
        far=np.int64(2**45),
        pads=np.array([2**40, 0]),
        image=np.ones((1, 1, 2, 2), np.float32),
        scales=np.array([1, 1, 1e6, 1e6], np.float32),
        depth=np.int64(2**40),
        values=np.array([0, 1], np.float32),
    )
    reason_of(model)


def test_folded_constants_have_a_common_limit(
    small: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each Concat doubles its operand: no single step is absurd, the sum is."""
    monkeypatch.setattr("qcc.onnx_importer.MAX_FOLDED_ELEMENTS", 2**10)
    doubling = [small.node("Concat", f"k{i} k{i}", f"k{i + 1}", axis=0) for i in range(20)]
    model = small.build([*doubling, small.node("Identity", "k20")], k0=np.ones(1, np.float32))
    assert reason_of(model) == "the constants of the model pass 1024 elements"


def test_results_too_large_for_any_memory(small: SimpleNamespace) -> None:
    model = small.build([small.node("Tile", "x many", name="tile")], many=np.array([1, 1, 2**20, 2**20]))
    assert reason_of(model) == "its result has shape (1, 3, 8388608, 8388608)"


def test_output_that_the_op_does_not_give(small: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ONNX_IMPORTERS, "TopK", lambda node: node.input(0))
    nodes = [small.node("TopK", "x k", "y where"), small.node("Cast", "where", "z", to=1)]
    assert [str(v) for v in import_model(small.build(nodes, k=np.array([2]))).outputs] == ["%x: f32<1x3x8x8>"]
    assert reason_of(small.build(nodes, outputs=["y", "z"], k=np.array([2]))) == (
        "its output 1 (where) is used, which is not supported"
    )


def test_integer_constant_as_output(small: SimpleNamespace) -> None:
    model = small.build([small.node("Shape", "x")])
    assert error_of(model) == "small: output 'y' is constant and int64: only float32 is supported"


# ---------------------------------------------------------------- hostile fields
EXTREMES = st.sampled_from([0, 1, -1, 2, -2, 3, 7, 100_000, 2**31, 2**40, 2**62, -(2**63), 2**63 - 1])


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_mutated_fields_import_or_raise_import_error(small: SimpleNamespace, data: st.DataObject) -> None:
    """The file stays readable: attributes, shapes and integer constants take extreme values."""
    model = small.build(
        [
            small.node("Pad", "x pads", "p"),
            small.node("Conv", "p w", "c", strides=[1, 1], pads=[1, 1, 1, 1], dilations=[1, 1], group=1),
            small.node("MaxPool", "c", "m", kernel_shape=[2, 2], strides=[2, 2], ceil_mode=0),
            small.node("Slice", "m starts ends axes", "s"),
            small.node("Transpose", "s", "t", perm=[0, 2, 3, 1]),
            small.node("Reshape", "t shape", "r"),
            small.node("Softmax", "r", axis=1),
        ],
        pads=np.array([0, 0, 1, 1, 0, 0, 1, 1]),
        w=np.ones((4, 3, 3, 3), np.float32),
        starts=np.array([1, 0]),
        ends=np.array([4, 4]),
        axes=np.array([1, 2]),
        shape=np.array([1, -1]),
    )
    import_model(model)
    lists = [a.ints for n in model.graph.node for a in n.attribute if a.ints]
    lists += [t.dims for t in model.graph.initializer]
    scalars = [a for n in model.graph.node for a in n.attribute if a.type == onnx.AttributeProto.INT]
    integers = [t for t in model.graph.initializer if t.data_type == TensorProto.INT64]
    for _ in range(data.draw(st.integers(1, 3))):
        kind = data.draw(st.sampled_from(["list", "shorten", "scalar", "constant", "input"]))
        if kind in ("list", "shorten"):
            chosen = data.draw(st.sampled_from(lists))
            if chosen and kind == "shorten":
                del chosen[-1]
            elif chosen:
                chosen[data.draw(st.integers(0, len(chosen) - 1))] = data.draw(EXTREMES)
        elif kind == "scalar":
            data.draw(st.sampled_from(scalars)).i = data.draw(EXTREMES)
        elif kind == "constant":
            tensor = data.draw(st.sampled_from(integers))
            values = np.frombuffer(tensor.raw_data, np.int64).copy()
            values[data.draw(st.integers(0, values.size - 1))] = data.draw(EXTREMES)
            tensor.raw_data = values.tobytes()
        else:
            dims = model.graph.input[0].type.tensor_type.shape.dim
            dims[data.draw(st.integers(0, 3))].dim_value = data.draw(EXTREMES)
    with contextlib.suppress(ImportModelError):
        import_model(model)
