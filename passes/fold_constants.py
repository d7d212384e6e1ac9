"""Compute at compile time what depends on constants alone."""

from __future__ import annotations

from qcc.ir import interpreter
from qcc.ir.builder import Builder
from qcc.ir.graph import Graph, Node, Value
from qcc.passes.base import Pass, PassContext, PassResult, register_pass
from qcc.passes.rewrite import Match, Rule, apply_rules


class FoldConstant(Rule):
    """A node whose operands are all constant becomes its value."""

    name = "fold-constant"

    def match(self, node: Node, graph: Graph) -> Match | None:
        """A node with operands, all of them constant."""
        present = [v for v in node.inputs if v is not None]
        return Match(node, graph) if present and all(v.is_constant for v in present) else None

    def rewrite(self, match: Match, builder: Builder) -> Value:
        """What the interpreter computes."""
        node = match.node
        arrays = [None if v is None else v.data for v in node.inputs]
        return builder.constant(interpreter.evaluate(node, arrays), node.name)


@register_pass
class FoldConstants(Pass):
    """Replace nodes that depend on constants alone by their value, as the interpreter computes it."""

    name = "fold-constants"
    stage = "float"
    exactness = "exact"

    def run(self, graph: Graph, ctx: PassContext) -> PassResult:
        """To a fixed point."""
        return apply_rules(graph, (FoldConstant(),))
