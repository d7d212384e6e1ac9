"""Rewrite the annotated graph in integers: every op writes its own integer form."""

from __future__ import annotations

from qcc.ir.errors import PassError
from qcc.ir.graph import Graph, Value
from qcc.ir.lowering import Lowering
from qcc.ir.types import DType, TensorType
from qcc.passes.base import Note, Pass, PassContext, PassResult, register_pass


@register_pass
class QuantizeOps(Pass):
    """Build the integer graph: constants quantized, accumulators in s32, explicit requantize.

    A node is lowered to a table where it is an elementwise function of one value, else by its op; a node
    without integer form runs in float between dequantize and quantize, and is listed in the notes
    (rule ``placement``). ``strict``: such a node is an error that lists them all.
    """

    name = "quantize-ops"
    stage = "annotated"
    result_stage = "integer"
    requires = ("has_qparams",)
    exactness = "approximate"
    strict: bool = False

    def run(self, graph: Graph, ctx: PassContext) -> PassResult:
        """Returns a new graph."""
        _refuse_simulated(graph)
        ctx.resources["annotated_graph"] = graph
        q = Lowering(graph)
        for value in graph.inputs:
            lowered = q.graph.add_input(value.name, _input_type(value))
            q.define(value, lowered)
        notes = []
        for node in graph.nodes:
            if node.output.fused:
                continue
            q.builder.location = node.location
            lowered_node = None
            if node.output.type.qparams is not None:
                lowered_node = q.table(node) if node.op.elementwise else None
                lowered_node = lowered_node or node.op.quantize(q, node)
            placement = Note(node.name, "placement", lowered_node is not None)
            if lowered_node is None:
                lowered_node = q.float_node(node)
                placement = Note(node.name, "placement", False, f"{node.op.name} has no integer form here")
            q.define(node.output, lowered_node)
            notes.append(placement)
        declined = [n for n in notes if not n.applied]
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


def _refuse_simulated(graph: Graph) -> None:
    """Raise PassError where a node has no meaning but that of the interpreter."""
    found = next((n for n in graph.nodes if n.op.simulated), None)
    if found is not None:
        raise PassError(
            f"%{found.name}: {found.op.name} is simulated only: it has no integer form",
            found.location,
            "leave out the pass that simulates, or stop before quantize-ops",
        )


def _input_type(value: Value) -> TensorType:
    """s8 with the chosen qparams; float where only float nodes read the input."""
    qparams = value.type.qparams
    return value.type if qparams is None else TensorType(DType(qparams.dtype), value.type.shape, qparams)
