"""Already quantized models: take fake_quant nodes away and fix their qparams on values."""

from __future__ import annotations

from dataclasses import replace

from qcc.ir.graph import Graph, Node, Value
from qcc.ir.ops.fake_quant import FakeQuant
from qcc.ir.qparams import QParams
from qcc.passes.base import Note, Pass, PassContext, PassResult, register_pass
from qcc.passes.rewrite import replace_value


@register_pass
class AdoptQParams(Pass):
    """Fix the qparams that the model brings, so that nothing has to be chosen for them.

    1. The operand of a fake_quant takes its qparams where nothing reads it unrounded; the node goes. Otherwise the
       node stays, with the qparams on its result: it becomes a requantization.
    2. Qparams spread through ops that share them (what moves elements): to the operands that nothing else reads, and to
       results whose operands agree.

    Sets ctx.resources["has_own_qparams"].
    """

    name = "adopt-qparams"
    stage = "float"
    exactness = "approximate"

    def run(self, graph: Graph, ctx: PassContext) -> PassResult:
        """Set qparams on types; the graph stays a float one."""
        notes: list[Note] = []
        for node in list(graph.nodes):
            if isinstance(node.op, FakeQuant):
                notes.append(_adopt(graph, node, node.op.qparams))
        for node in reversed(graph.nodes):
            _to_operands(graph, node)
        for node in graph.nodes:
            _to_result(node)
        ctx.resources["has_own_qparams"] = bool(notes)
        return PassResult(bool(notes), tuple(notes))


def undictated(values: list[Value]) -> list[Value]:
    """Those whose qparams the model does not bring."""
    return [v for v in values if v.type.qparams is None]


def _adopt(graph: Graph, node: Node, qparams: QParams) -> Note:
    """Rule 1 for one node, whose operand may already have the qparams of another one."""
    x, own = node.input(0), node.input(0).type.qparams
    fixed = qparams if own is None else _narrower(own, qparams)
    alike = all(isinstance(u.op, FakeQuant) and u.op.qparams == qparams for u in x.users)
    reason = ""
    if fixed is None:
        reason = "the operand has other qparams"
    elif own != fixed and (graph.is_output(x) or not alike):
        reason = "something reads the operand unrounded"
    elif x.is_constant:
        reason = "the operand is constant"
    elif graph.is_output(node.output) and (x.producer is None or graph.is_output(x)):
        reason = "a graph output needs a value of its own"
    if reason:
        node.output.type = node.output.type.with_qparams(qparams)
        return Note(node.name, "adopt-qparams", False, reason)
    x.type = x.type.with_qparams(fixed)
    replace_value(graph, node.output, x, rename=False)
    return Note(x.name, "adopt-qparams", True, str(fixed))


def _narrower(own: QParams, other: QParams) -> QParams | None:
    """The codes that both leave, where they are those of one scale."""
    if replace(own, codes=None) != replace(other, codes=None):
        return None
    low, high = max(own.code_range[0], other.code_range[0]), min(own.code_range[1], other.code_range[1])
    return replace(own, codes=None if (low, high) == (-128, 127) else (low, high)) if low < high else None


def _to_operands(graph: Graph, node: Node) -> None:
    qparams = node.output.type.qparams
    if qparams is None or not node.op.quant_rule().shares:
        return
    for x in node.inputs:
        only = x is not None and all(u is node for u in x.users) and not graph.is_output(x)
        if x is not None and only and not x.is_constant and x.type.qparams is None:
            x.type = x.type.with_qparams(qparams)


def _to_result(node: Node) -> None:
    found = {v.type.qparams for v in node.inputs if v is not None and not v.is_constant}
    constants = any(v is not None and v.is_constant for v in node.inputs)
    if node.op.quant_rule().shares and len(found) == 1 and not constants and node.output.type.qparams is None:
        node.output.type = node.output.type.with_qparams(found.pop())
