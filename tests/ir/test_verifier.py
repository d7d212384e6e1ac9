"""The verifier on graphs that no text can describe; those a text can are in tests/errors."""

import inspect
import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from qcc.ir import verifier
from qcc.ir.builder import Builder
from qcc.ir.errors import VerifyError
from qcc.ir.graph import Graph, Node, Value
from qcc.ir.location import Location
from qcc.ir.ops.activation import Clamp
from qcc.ir.ops.elementwise import Add
from qcc.ir.ops.shape import Transpose
from qcc.ir.types import DType, TensorType, f32
from qcc.ir.verifier import NODE_RULES, STAGE_RULES, VALUE_RULES, verify


def chain() -> Graph:
    """%a = clamp(%x); %b = add(%a, %c); output %b."""
    graph = Graph("g")
    x = graph.add_input("x", f32(1, 3))
    c = Builder(graph).constant(np.ones(3, np.float32), "c")
    a = Builder(graph).emit(Clamp(0.0), x, name="a")
    b = Builder(graph, location=Location(node="Add_7")).emit(Add(), a, c, name="b")
    graph.add_output(b, "result")
    return graph


def spare(name: str, producer: Node | None = None) -> Value:
    return Value(name, f32(1, 3), producer)


def swap_nodes(g: Graph) -> None:
    g.nodes.reverse()


def use_a_stranger(g: Graph) -> None:
    g.set_input(g.nodes[0], 0, spare("stranger"))


def list_a_node_twice(g: Graph) -> None:
    g.nodes.append(g.nodes[1])


def lose_the_producer(g: Graph) -> None:
    g.nodes[0].output.producer = None


def give_an_input_a_producer(g: Graph) -> None:
    g.inputs[0].producer = g.nodes[0]


def give_a_result_data(g: Graph) -> None:
    g.nodes[1].output.data = np.zeros((1, 3), np.float32)


def output_an_input_twice_defined(g: Graph) -> None:
    g.inputs.append(g.nodes[0].output)


def rename_like_another(g: Graph) -> None:
    g.nodes[0].output.name = "c"


def forget_an_output_name(g: Graph) -> None:
    g.output_names.clear()


def output_a_stranger(g: Graph) -> None:
    g.outputs[0] = spare("stranger")


def forget_a_user(g: Graph) -> None:
    g.inputs[0].users.clear()


def record_a_user_too_many(g: Graph) -> None:
    g.nodes[1].output.users.append(g.nodes[0])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda g: setattr(g, "stage", "final"), "graph @g: unknown stage 'final', expected one of float,"),
        (swap_nodes, "%b uses %a, which is not defined before it"),
        (use_a_stranger, "%a uses %stranger, which is not defined before it"),
        (list_a_node_twice, "%b is defined twice"),
        (lose_the_producer, "%a is not marked as the result of its node"),
        (give_a_result_data, "%b is an input or a constant, but has a producer"),
        (give_an_input_a_producer, "%x is an input or a constant, but has a producer"),
        (output_an_input_twice_defined, "%a is an input or a constant, but has a producer"),
        (rename_like_another, "2 values are named %c"),
        (forget_an_output_name, "1 outputs have 0 names"),
        (output_a_stranger, "output %stranger is not defined"),
        (forget_a_user, "the users recorded for %x are not the nodes that use it"),
        (record_a_user_too_many, "the users recorded for %b are not the nodes that use it"),
    ],
)
def test_broken_structure_is_refused(damage: Callable[[Graph], None], message: str) -> None:
    graph = chain()
    verify(graph)
    damage(graph)
    with pytest.raises(VerifyError, match=re.escape(message)):
        verify(graph)


def test_constant_output_is_allowed() -> None:
    graph = chain()
    graph.add_output(graph.constants()[0], "constant")
    verify(graph)


@pytest.mark.parametrize(
    ("data", "got"), [(np.ones(4, np.float32), "float32(4,)"), (np.ones(3, np.int8), "int8(3,)")]
)
def test_constant_that_does_not_fit_its_type_is_refused(data: np.ndarray, got: str) -> None:
    graph = chain()
    graph.constants()[0].data = data
    with pytest.raises(VerifyError, match=re.escape(f"%c: the constant holds {got}, its type is f32<3>")):
        verify(graph)


def test_message_names_the_value_and_shows_its_node() -> None:
    graph = chain()
    graph.nodes[1].output.type = f32(3, 1)
    with pytest.raises(VerifyError) as caught:
        verify(graph)
    assert str(caught.value) == (
        "node Add_7: %b: add yields f32<1x3>, the recorded type is f32<3x1>\n  %b = nn.add(%a, %c) : f32<3x1>"
    )


def test_message_without_a_location_names_the_graph() -> None:
    graph = chain()
    data = np.array([1, np.nan, 2], np.float32)
    graph.constants()[0].data = data
    graph.nodes[1].location = None
    with pytest.raises(VerifyError) as caught:
        verify(graph)
    assert str(caught.value) == "@g: %c: the constant holds a NaN\n  %b = nn.add(%a, %c) : f32<1x3>"


def test_value_that_nobody_uses_is_named() -> None:
    graph = chain()
    graph.add_input("unused", TensorType(DType.S32, (2,)))
    with pytest.raises(VerifyError, match=r"^%unused: the float stage has float tensors only, got s32<2>$"):
        verify(graph)


@pytest.mark.parametrize("low", ["0", None, (0.0,), True])
def test_attribute_of_another_type_is_refused(low: object) -> None:
    graph = chain()
    graph.nodes[0].op = replace(Clamp(), low=low)
    with pytest.raises(VerifyError, match="%a: attribute low of clamp must be a number, got"):
        verify(graph)


def test_attribute_held_in_a_list_is_refused() -> None:
    graph = chain()
    graph.nodes[0].op = Transpose([0, 1])  # type: ignore[arg-type]
    with pytest.raises(VerifyError, match=r"%a: attribute perm of transpose must be a list of integers"):
        verify(graph)


def test_operands_are_counted() -> None:
    graph = chain()
    node = graph.nodes[1]
    graph.set_input(node, 1, None)
    with pytest.raises(VerifyError, match="%b: operand b of add must be present"):
        verify(graph)
    node.inputs.pop()
    with pytest.raises(VerifyError, match="%b: add takes 2 to 4 operands"):
        verify(graph)


class Careless(Clamp):
    """An op whose infer trusts its attributes."""

    def infer(self, *operands: TensorType | None) -> TensorType:
        return f32(1 // 0)


def test_infer_that_trips_over_attributes_is_a_complaint() -> None:
    graph = chain()
    graph.nodes[0].op = Careless()
    message = "%a: the attributes of clamp do not fit its operands: integer division or modulo by zero"
    with pytest.raises(VerifyError, match=message):
        verify(graph)


def test_every_rule_is_entered_in_a_table() -> None:
    entered = {*VALUE_RULES, *NODE_RULES}
    for stage in STAGE_RULES.values():
        entered |= {*stage.values, *stage.nodes}
    functions = [
        f for _, f in inspect.getmembers(verifier, inspect.isfunction) if f.__module__ == verifier.__name__
    ]
    rules = [f for f in functions if list(inspect.signature(f).parameters) in (["graph", "value"], ["node"])]
    assert len(rules) > 10
    assert set(rules) == entered
