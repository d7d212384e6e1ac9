"""Graph to ONNX: a float or annotated graph as a model that any ONNX runtime executes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from onnx import ModelProto, TensorProto, ValueInfoProto, helper

from qcc.ir.errors import QccError, VerifyError
from qcc.ir.graph import Graph, Node, Value
from qcc.ir.types import DType, TensorType
from qcc.onnx_export_ops import EXPORTERS
from qcc.onnx_integers import IntegerWriter, find_exporter
from qcc.onnx_writer import Writer

OPSET = 20
OPSET_16_BITS = 21  # the first whose QuantizeLinear knows 16-bit integers
INTEGER_STAGES = ("integer", "planned")
_IR_VERSION = 10


def export_float(graph: Graph, batch: str | int = "N") -> ModelProto:
    """The float meaning of ``graph``; qparams are left out.

    ``batch``: size or symbol of the leading dimension of inputs and outputs, used where every node works on
    any number of samples; otherwise that dimension is 1. Raises QccError for a graph with integer values.
    """
    return export(graph, batch=batch).model


def export_qdq(
    graph: Graph, batch: str | int = "N", *, unsigned: bool = False, float_bias: bool = False
) -> ModelProto:
    """The fake-quant meaning: every value with qparams passes QuantizeLinear and DequantizeLinear.

    Weights are integer initializers with DequantizeLinear per channel, biases s32 at scale s_x * s_w. Of an integer graph they
    are its own codes, as are scales and zero points (see onnx_integers).
    ``unsigned`` writes activations as u8; ``float_bias`` leaves biases in float.
    """
    return export(graph, qdq=True, batch=batch, unsigned=unsigned, float_bias=float_bias).model


def save_qdq(graph: Graph, path: Path, **choices: bool) -> tuple[int, int]:
    """Write ``export_qdq(graph, **choices)`` to ``path``; the number of its nodes, and of its QuantizeLinear nodes.

    Raises QccError where the file cannot be written.
    """
    model = export_qdq(graph, **choices)
    try:
        path.write_bytes(model.SerializeToString())
    except OSError as error:
        raise QccError(f"cannot write {path}: {error.strerror}") from error
    return len(model.graph.node), sum(n.op_type == "QuantizeLinear" for n in model.graph.node)


def has_onnx_form(graph: Graph) -> bool:
    """False where an op has no exporter, as those of plugins without one."""
    return all(n.op.name in EXPORTERS or n.op.simulated for n in graph.nodes)


@dataclass(frozen=True)
class Export:
    """A model, its batch dimension (1 where samples must stay apart) and the tensors of observed values."""

    model: ModelProto
    batch: str | int
    observed: dict[str, str]


def export(
    graph: Graph,
    *,
    qdq: bool = False,
    batch: str | int = "N",
    observe: Sequence[Value] = (),
    layout_free: bool = False,
    peaks: Sequence[Value] = (),
    unsigned: bool = False,
    float_bias: bool = False,
) -> Export:
    """``graph`` with the values of ``observe`` as additional outputs.

    ``layout_free`` exposes an observed value as it is computed, channels-first: no Transpose is kept for it. Of the
    images among ``peaks`` only the largest element of each channel is exposed, [N, C, 1, 1].
    """
    carried = carried_values(graph)
    if carried is None:
        carried, batch = set(), 1
    input_names = [v.name for v in graph.inputs]
    is_integer = qdq and graph.stage in INTEGER_STAGES
    writer = (IntegerWriter if is_integer else Writer)(
        [*input_names, *graph.output_names],
        qdq=qdq,
        carried=carried,
        unsigned=unsigned,
        float_bias=float_bias,
    )
    for value in graph.inputs:
        writer.define(value, value.name)
    for node in graph.nodes:
        tensor = _write_node(writer, node)
        if tensor is not None:
            writer.define(node.output, tensor)
    outputs = []
    for value, name in zip(graph.outputs, graph.output_names, strict=True):
        if name not in input_names:
            writer.nodes.append(
                helper.make_node("Identity", [writer.tensor(value)], [name], name=f"{name}_output")
            )
        outputs.append(_value_info(value, name, batch, carried))
    observed = {}
    for value in observe:
        tensor = writer.tensor(value)
        if layout_free:
            tensor = writer.channels_first.get(id(value), tensor)
        if value in peaks and value.type.rank == 4:
            image = writer.channels_first.get(id(value)) or writer.to_channels_first(writer.tensor(value), 4)
            tensor = writer.node("GlobalMaxPool", [image], f"{value.name}_peaks")
        observed[value.name] = tensor
    listed = {o.name for o in outputs}
    extra = [ValueInfoProto(name=t) for t in dict.fromkeys(observed.values()) if t not in listed]
    proto = helper.make_graph(
        writer.nodes,
        graph.name,
        [_value_info(v, v.name, batch, carried) for v in graph.inputs],
        [*outputs, *extra],
    )
    wide = qdq and any(v.type.qparams is not None and v.type.qparams.dtype == "s16" for v in graph.values())
    model = helper.make_model(
        proto,
        opset_imports=[helper.make_opsetid("", OPSET_16_BITS if wide else OPSET)],
        producer_name="qcc",
        ir_version=_IR_VERSION,
    )
    model.graph.initializer.extend(writer.initializers)  # last: each step before it would copy them
    return Export(model, batch, observed)


def _write_node(writer: Writer, node: Node) -> str | None:
    """The tensor of the result; None where the exporter has defined it."""
    if node.op.simulated:
        raise QccError(
            f"{node.op.name} cannot be written to ONNX: it is simulated only",
            node.location,
            "run the graph in the interpreter, as qcc opt --eval does",
        )
    if isinstance(writer, IntegerWriter):
        integer_exporter = find_exporter(node)
        if integer_exporter is None:
            raise QccError(f"{node.op.name} ({node.name}) has no ONNX form", node.location)
        return integer_exporter(writer, node)
    exporter = EXPORTERS.get(node.op.name)
    operands = [v for v in (*node.inputs, node.output) if v is not None]
    is_float = node.op.reads_codes or all(v.type.dtype is DType.F32 for v in operands)
    if exporter is None or not is_float:
        raise QccError(
            f"{node.op.name} cannot be written to ONNX: only float and annotated graphs can",
            node.location,
            "export the graph before quantize-ops",
        )
    return exporter(writer, node)


def _value_info(value: Value, name: str, batch: str | int, carried: set[int]) -> ValueInfoProto:
    shape: list[str | int] = list(value.type.shape)
    if id(value) in carried:
        shape[0] = batch
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def carried_values(graph: Graph) -> set[int] | None:
    """Ids of the values that hold one sample per index of axis 0, when the graph runs on any number of samples.

    None when some node does not: shape inference with a leading 2 says so.
    """
    if any(v.type.shape[:1] != (1,) for v in graph.inputs):
        return None
    carried = {id(v) for v in graph.inputs}
    for node in graph.nodes:
        if not any(id(v) in carried for v in node.inputs):
            continue
        types: list[TensorType | None] = []
        for value in node.inputs:
            type_ = value.type if value is not None else None
            if type_ is not None and id(value) in carried:
                type_ = type_.with_shape((2, *type_.shape[1:]))
            types.append(type_)
        result = node.output.type.shape
        try:
            stacked = node.op.infer(*types).shape
        except VerifyError:
            return None
        if result[:1] != (1,) or stacked != (2, *result[1:]) or not node.op.batches(node.signature):
            return None
        carried.add(id(node.output))
    return carried
