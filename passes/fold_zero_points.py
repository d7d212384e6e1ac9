"""Fold the input's zero_point into the bias: b' = b - zp_x * sum(w)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from qcc.ir.errors import PassError
from qcc.ir.graph import Graph, Node
from qcc.passes.base import Note, Pass, PassContext, PassResult, register_pass


@register_pass
class FoldZeroPoints(Pass):
    """Every op that says ``folds_zero_point`` gets x_zero_point = 0 and a bias that pays for it.

    Padding keeps ``pad_value``, the zero_point, so each output position sees the same correction.
    Raises PassError when the new bias leaves s32.
    """

    name = "fold-zero-points"
    stage = "integer"
    exactness = "exact"

    def run(self, graph: Graph, ctx: PassContext) -> PassResult:
        """Replace biases."""
        notes = []
        for node in graph.nodes:
            if node.op.folds_zero_point and node.op.attributes()["x_zero_point"]:
                _fold(graph, node)
                notes.append(Note(node.name, "fold-zero-point", True))
        return PassResult(bool(notes), tuple(notes))


def _fold(graph: Graph, node: Node) -> None:
    rule = node.op.quant_rule()
    assert rule.weight is not None
    assert rule.bias is not None
    weight, bias = node.input(rule.weight), node.input(rule.bias)
    assert weight.data is not None
    assert bias.data is not None
    others = tuple(i for i in range(weight.data.ndim) if i != rule.weight_axis)
    zero_point = node.op.attributes()["x_zero_point"]
    folded = bias.data.astype(np.int64) - zero_point * weight.data.astype(np.int64).sum(axis=others)
    dtype = bias.type.dtype
    if folded.min() < dtype.min or folded.max() > dtype.max:
        raise PassError(f"%{node.name}: the folded bias leaves {8 * dtype.bytes} bits", node.location)
    graph.set_input(node, rule.bias, graph.constant(folded.astype(dtype.numpy), bias.name, bias.type))
    node.op = replace(node.op, x_zero_point=0)  # type: ignore[type-var]
