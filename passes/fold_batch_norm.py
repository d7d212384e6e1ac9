"""Batch normalization as a product and a sum, which fold into their neighbours."""

from __future__ import annotations

import numpy as np

from qcc.ir.builder import Builder
from qcc.ir.graph import Graph, Node, Value
from qcc.ir.ops.elementwise import Add, Mul
from qcc.ir.ops.norm import BatchNorm
from qcc.passes.base import Pass, PassContext, PassResult, register_pass
from qcc.passes.rewrite import Match, Rule, apply_rules


class BatchNormAsAffine(Rule):
    """batch_norm(x) as x * multiplier + offset, per channel of the last axis."""

    name = "batch-norm-as-affine"

    def match(self, node: Node, graph: Graph) -> Match | None:
        """Any batch normalization."""
        return Match(node, graph, (node.op,)) if isinstance(node.op, BatchNorm) else None

    def check(self, match: Match) -> str | None:
        """The parameters must be constant."""
        computed = [v.name for v in match.node.inputs[1:] if v is not None and v.data is None]
        return f"%{computed[0]} is computed at run time" if computed else None

    def rewrite(self, match: Match, builder: Builder) -> Value:
        """Parameters in float64, rounded once."""
        node = match.node
        parameters = [np.asarray(v.data) for v in node.inputs[1:] if v is not None]
        multiplier, offset = match.found[0].as_affine(*parameters)
        factor = builder.constant(multiplier.astype(np.float32), f"{node.name}_factor")
        term = builder.constant(offset.astype(np.float32), f"{node.name}_term")
        scaled = builder.emit(Mul(), node.input(0), factor, name=f"{node.name}_scaled")
        return builder.emit(Add(), scaled, term, name=node.name)


@register_pass
class FoldBatchNorm(Pass):
    """Write every batch normalization as mul and add; fold-affine takes them into weights and biases.

    One that has no convolution beside it is cheaper as mul and add as well.
    """

    name = "fold-batch-norm"
    stage = "float"
    exactness = "float-exact"

    def run(self, graph: Graph, ctx: PassContext) -> PassResult:
        """To a fixed point."""
        return apply_rules(graph, (BatchNormAsAffine(),))
