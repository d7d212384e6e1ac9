"""Remove what no output depends on."""

from __future__ import annotations

from qcc.ir.graph import Graph
from qcc.passes.base import Note, Pass, PassContext, PassResult, register_pass


@register_pass
class EliminateDead(Pass):
    """Remove every node that no output depends on. Graph inputs stay: they belong to the caller."""

    name = "eliminate-dead"
    exactness = "exact"

    def run(self, graph: Graph, ctx: PassContext) -> PassResult:
        """Backward over the nodes."""
        removed = graph.remove_dead_nodes()
        return PassResult(bool(removed), tuple(Note(n.name, "eliminate-dead", True) for n in removed))
