"""Rewrite the annotated graph in integers: every op writes its own integer form."""

from __future__ import annotations

from difflib import get_close_matches
from fnmatch import fnmatchcase

from qcc.ir.errors import PassError
from qcc.ir.graph import Graph, Node, Value
from qcc.ir.lowering import Lowering, with_fused
from qcc.ir.types import DType, TensorType
from qcc.passes.base import Note, Pass, PassContext, PassResult, register_pass

CHOSEN = "chosen to stay in float"


@register_pass
class QuantizeOps(Pass):
    """Build the integer graph: constants quantized, accumulators in s32, explicit requantize.

    A node is lowered to a table where it is an elementwise function of one value, else by its op; a node
    without integer form runs in float between dequantize and quantize, and is listed in the notes
    (rule ``placement``). ``strict``: such a node is an error that lists them all. Operands of 16 bits that an op has no
    form for are requantized to 8 for it (rule ``narrow``).
    ``floats``: names of nodes (globs) that are left in float, with what is fused to them; a name of no node is an error.
    """

    name = "quantize-ops"
    stage = "annotated"
    result_stage = "integer"
    requires = ("has_qparams",)
    exactness = "approximate"
    strict: bool = False
    floats: tuple[str, ...] = ()

    def run(self, graph: Graph, ctx: PassContext) -> PassResult:
        """Returns a new graph."""
        q, floats = Lowering(graph), _chosen(graph, self.floats)
        for value in graph.inputs:
            lowered = q.graph.add_input(value.name, _input_type(value))
            q.define(value, lowered)
        notes = []
        for node in graph.nodes:
            if node.output.fused:
                continue
            q.builder.location = node.location
            lowered_node, reason = None, f"{node.op.name} has no integer form here"
            if floats.intersection(n.name for n in with_fused(node)):
                reason = CHOSEN
            elif node.output.type.qparams is not None:
                q.narrows = _reads_narrowed(node)
                lowered_node = q.table(node) if node.op.elementwise else None
                lowered_node = lowered_node or node.op.quantize(q, node)
                if q.narrows:
                    what = f"{node.op.name} takes 8 bits: its operands of 16 are requantized"
                    notes.append(Note(node.name, "narrow", lowered_node is not None, what))
                q.narrows = False
            placement = Note(node.name, "placement", lowered_node is not None)
            if lowered_node is None:
                lowered_node = q.float_node(node)
                placement = Note(node.name, "placement", False, reason)
            q.define(node.output, lowered_node)
            notes.append(placement)
        declined = [n for n in notes if n.rule == "placement" and not n.applied and n.reason != CHOSEN]
        if declined and self.strict:
            listed = "\n".join(f"  %{n.node}: {n.reason}" for n in declined)
            raise PassError(
                f"{len(declined)} nodes have no integer form:\n{listed}",
                hint="drop --strict to run them in float",
            )
        for value, name in zip(graph.outputs, graph.output_names, strict=True):
            q.graph.add_output(q.integer(value) if value.type.qparams is not None else q.real(value), name)
        q.graph.remove_dead_nodes()
        return PassResult(True, tuple(notes), q.graph)


def _chosen(graph: Graph, patterns: tuple[str, ...]) -> frozenset[str]:
    """Names of the nodes that names or globs choose."""
    found: set[str] = set()
    for pattern in patterns:
        names = {n.name for n in graph.nodes if n.name == pattern or fnmatchcase(n.name, pattern)}
        if not names:
            near = get_close_matches(pattern, [n.name for n in graph.nodes], n=3)
            hint = f"did you mean {' or '.join(near)}?" if near else "qcc opt prints the names of all nodes"
            raise PassError(f"no node has a name like {pattern}", hint=hint)
        found |= names
    return frozenset(found)


def _reads_narrowed(node: Node) -> bool:
    """Whether ``node``, with what is fused behind it, reads 16 bits that one of these ops has no form for."""
    chain = with_fused(node)
    read = [v.type.qparams for n in chain for v in n.inputs if v is not None]
    return any(q is not None and q.dtype == "s16" for q in read) and not all(
        n.op.wide_operands for n in chain
    )


def _input_type(value: Value) -> TensorType:
    """s8 with the chosen qparams; float where only float nodes read the input."""
    qparams = value.type.qparams
    return value.type if qparams is None else TensorType(DType(qparams.dtype), value.type.shape, qparams)
