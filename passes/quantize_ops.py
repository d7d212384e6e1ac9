"""Rewrite the annotated graph in integers: every op writes its own integer form."""

from __future__ import annotations

from fnmatch import fnmatchcase

from qcc.ir.errors import PassError
from qcc.ir.graph import Graph, Node, Value
from qcc.ir.lowering import Lowering
from qcc.ir.types import DType, TensorType
from qcc.passes.base import Note, Pass, PassContext, PassResult, register_pass


@register_pass
class QuantizeOps(Pass):
    """Build the integer graph: constants quantized, accumulators in s32, explicit requantize.

    A node is lowered to a table where it is an elementwise function of one value, else by its op; a node
    without integer form runs in float between dequantize and quantize, and is listed in the notes
    (rule ``placement``). ``strict``: such a node is an error that lists them all. Operands of 16 bits that an op has no
    form for are requantized to 8 for it (rule ``narrow``). ``floats``: names of nodes (globs) that are left in float.
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
        q = Lowering(graph)
        for value in graph.inputs:
            lowered = q.graph.add_input(value.name, _input_type(value))
            q.define(value, lowered)
        notes = []
        for node in graph.nodes:
            if node.output.fused:
                continue
            q.builder.location = node.location
            lowered_node, reason = None, f"{node.op.name} has no integer form here"
            if any(fnmatchcase(node.name, pattern) for pattern in self.floats):
                reason = "chosen to stay in float"
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
        declined = [n for n in notes if n.rule == "placement" and not n.applied]
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


def _reads_narrowed(node: Node) -> bool:
    """Whether ``node``, with what is fused behind it, reads 16 bits that one of these ops has no form for."""
    pending, seen, wide, narrow = [node], {id(node)}, False, False
    while pending:
        current = pending.pop()
        narrow |= not current.op.wide_operands
        for value in current.inputs:
            if value is not None and value.fused and value.producer is not None:
                if id(value.producer) not in seen:  # a fused value may be read more than once
                    seen.add(id(value.producer))
                    pending.append(value.producer)
            elif value is not None and value.type.qparams is not None:
                wide |= value.type.qparams.dtype == "s16"
    return wide and narrow


def _input_type(value: Value) -> TensorType:
    """s8 with the chosen qparams; float where only float nodes read the input."""
    qparams = value.type.qparams
    return value.type if qparams is None else TensorType(DType(qparams.dtype), value.type.shape, qparams)
