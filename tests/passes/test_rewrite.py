"""The driver of local rewrites."""

from qcc.ir.ops.activation import Clamp
from qcc.ir.ops.elementwise import Add
from qcc.ir.ops.shape import Reshape
from qcc.passes.base import Note
from qcc.passes.rewrite import Match, Rule, apply_rules


class Halve(Rule):
    """Upper bounds above 1 are halved, but never of a node called keep."""

    name = "halve"

    def match(self, node, graph):
        return Match(node, graph) if isinstance(node.op, Clamp) and node.op.high > 1 else None

    def check(self, match):
        return "it is to be kept" if match.node.name == "keep" else None

    def rewrite(self, match, builder):
        op = Clamp(match.node.op.low, match.node.op.high / 2)
        return builder.emit(op, match.node.input(0), name=match.node.name)


def test_apply_rules_reaches_a_fixed_point_and_keeps_names(make):
    g = make(1, 4)
    y = g(Clamp(0.0, 8.0), g.x, name="bound")
    result = apply_rules(g.finish(y), [Halve()])
    (node,) = g.graph.nodes
    assert (node.name, node.op) == ("bound", Clamp(0.0, 1.0))
    assert result.notes == (Note("bound", "halve", True),) * 3
    assert not apply_rules(g.graph, [Halve()]).changed


def test_declined_match_is_noted_once_however_many_sweeps(make):
    g = make(1, 4)
    y = g(Clamp(0.0, 8.0), g(Clamp(0.0, 8.0), g.x, name="keep"), name="other")
    result = apply_rules(g.finish(y), [Halve()])
    assert [n for n in result.notes if not n.applied] == [Note("keep", "halve", False, "it is to be kept")]


def test_replaced_node_takes_its_dead_operands_with_it(make):
    class Bypass(Rule):
        """A node called top reads the graph input directly."""

        name = "bypass"

        def match(self, node, graph):
            above = isinstance(node.op, Add) and node.input(0) is not graph.inputs[0]
            return Match(node, graph) if above else None

        def rewrite(self, match, builder):
            return builder.emit(
                match.node.op, match.graph.inputs[0], match.node.input(1), name=match.node.name
            )

    g = make(1, 4)
    middle = g(Clamp(1.0, 2.0), g(Clamp(0.0, 1.0), g.x))
    apply_rules(g.finish(g(Add(), middle, g.constant(4), name="top")), [Bypass()])
    assert [n.name for n in g.graph.nodes] == ["top"]


def test_graph_output_never_becomes_a_graph_input(make, apply):
    g = make(1, 4)
    outcome = apply("canonicalize", g.finish(g(Reshape((1, 4)), g.x)))
    assert outcome.ops == ["reshape"]
    assert outcome.declined == [("remove-identity", "a graph output needs a value of its own")]


def test_two_graph_outputs_stay_two_values(make, apply):
    g = make(1, 4)
    relu = g(Clamp(0.0), g.x)
    outcome = apply("canonicalize", g.finish(relu, g(Reshape((1, 4)), relu)))
    assert outcome.ops == ["clamp", "reshape"]
