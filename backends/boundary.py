"""What crosses the boundary of a compiled model: integers as they are, or float32 with the conversion inside."""

from __future__ import annotations

from qcc.ir.graph import Graph, Node, Value
from qcc.ir.ops.quant import Dequantize, Quantize
from qcc.ir.types import DType, TensorType

BOUNDARIES = ("int8", "float")


def with_boundary(graph: Graph, io: str) -> Graph:
    """A copy of ``graph`` whose inputs and outputs are integers (``int8``) or f32 (``float``).

    ``int8`` leaves an input or output in f32 where the model itself uses it in float. ValueError for another ``io``.
    """
    if io not in BOUNDARIES:
        raise ValueError(f"io must be one of {', '.join(BOUNDARIES)}, got {io!r}")
    copy = graph.clone()
    if io == "float":
        _float_inputs(copy)
        _float_outputs(copy)
    else:
        _integer_inputs(copy)
        _integer_outputs(copy)
    return copy


def _float_inputs(graph: Graph) -> None:
    first = graph.nodes[0] if graph.nodes else None
    for index, value in enumerate(graph.inputs):
        if value.type.dtype in (DType.S8, DType.S16) and value.type.qparams is not None:
            real = Value(value.name, TensorType(DType.F32, value.type.shape))
            node = graph.add_node(Quantize(), [real], value.type, f"{value.name}_q", before=first)
            graph.replace_uses(value, node.output, except_for=node)
            graph.inputs[index] = real


def _float_outputs(graph: Graph) -> None:
    for index, value in enumerate(graph.outputs):
        if value.type.dtype in (DType.S8, DType.S16) and value.type.qparams is not None:
            real = TensorType(DType.F32, value.type.shape)
            node = graph.add_node(Dequantize(), [value], real, f"{value.name}_f")
            graph.outputs[index] = node.output


def _integer_inputs(graph: Graph) -> None:
    for index, value in enumerate(graph.inputs):
        conversions = [u for u in value.users if isinstance(u.op, Quantize)]
        same = len({str(u.output.type) for u in conversions}) == 1
        if not same or len(conversions) != len(value.users) or graph.is_output(value):
            continue
        quantized = Value(value.name, conversions[0].output.type)
        for node in conversions:
            graph.replace_uses(node.output, quantized)
            graph.remove_node(node)
        graph.inputs[index] = quantized


def _integer_outputs(graph: Graph) -> None:
    for index, value in enumerate(graph.outputs):
        node: Node | None = value.producer
        if node is not None and isinstance(node.op, Dequantize):
            graph.outputs[index] = node.input(0)
    graph.remove_dead_nodes()
