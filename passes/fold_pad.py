"""Explicit padding into the pads of the op behind it."""

from __future__ import annotations

from qcc.ir.builder import Builder
from qcc.ir.graph import Graph, Node, Value
from qcc.ir.ops.shape import Pad
from qcc.passes.base import Pass, PassContext, PassResult, register_pass
from qcc.passes.rewrite import Match, Rule, apply_rules


class FoldPadInto(Rule):
    """op(pad(x), ...) as op'(x, ...), where the op can pad by itself (``Op.with_padding``)."""

    name = "fold-pad"

    def match(self, node: Node, graph: Graph) -> Match | None:
        """A channels-last window op whose first operand is a pad."""
        first = node.inputs[0] if node.inputs else None
        if first is None or first.producer is None or not isinstance(first.producer.op, Pad):
            return None
        return Match(node, graph, (first.producer,)) if "pads" in node.op.attributes() else None

    def check(self, match: Match) -> str | None:
        """Spatial axes only, growing only, and only the value that the op itself pads with."""
        pad: Pad = match.found[0].op
        if pad.mode != "constant":
            return f"the pad repeats the image ({pad.mode})"
        if len(pad.begins) != 4:
            return f"the pad is of rank {len(pad.begins)}"
        outside = (*pad.begins[::3], *pad.ends[::3])
        if any(outside):
            return "the pad acts on the batch or channel axis"
        if min(*pad.begins, *pad.ends) < 0:
            return "the pad crops"
        if match.node.op.with_padding(_pads(pad), pad.value) is None:
            return f"{match.node.op.name} cannot pad with {pad.value:g} by itself"
        return None

    def rewrite(self, match: Match, builder: Builder) -> Value:
        """The op that pads by itself."""
        pad: Node = match.found[0]
        assert isinstance(pad.op, Pad)
        op = match.node.op.with_padding(_pads(pad.op), pad.op.value)
        assert op is not None
        return builder.emit(op, pad.input(0), *match.node.inputs[1:], name=match.node.name)


def _pads(pad: Pad) -> tuple[int, int, int, int]:
    """Top, left, bottom, right."""
    return pad.begins[1], pad.begins[2], pad.ends[1], pad.ends[2]


@register_pass
class FoldPad(Pass):
    """Fold a zero pad of height and width into the convolution or pooling behind it."""

    name = "fold-pad"
    stage = "float"
    exactness = "float-exact"

    def run(self, graph: Graph, ctx: PassContext) -> PassResult:
        """To a fixed point."""
        return apply_rules(graph, (FoldPadInto(),))
