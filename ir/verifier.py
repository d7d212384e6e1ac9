"""The rules a graph must follow: structure, types, ops, and what each stage allows.

A rule is a function that returns a complaint, or None. ``verify`` runs the tables at the end of this file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from qcc.ir.attributes import attribute_types, conforms, describe_type
from qcc.ir.errors import VerifyError
from qcc.ir.fixedpoint import MULTIPLIER_MAX, SHIFT_MAX, SHIFT_MIN
from qcc.ir.graph import STAGES, Graph, Node, Value
from qcc.ir.location import Location
from qcc.ir.op import Op
from qcc.ir.ops.quant import Requantize
from qcc.ir.printer import print_node, spelled
from qcc.ir.qparams import QParams
from qcc.ir.types import DType, TensorType

MAX_RANK = 16
MAX_ELEMENTS = 2**31 - 1


def verify(graph: Graph) -> None:
    """Raise VerifyError, which names the value and shows the line of its node, at the first broken rule."""
    complaint = _structure(graph)
    if complaint:
        raise VerifyError(f"graph @{spelled(graph.name)}: {complaint}")
    stage = STAGE_RULES[graph.stage]
    for value in graph.values():
        for check_value in (*VALUE_RULES, *stage.values):
            complaint = check_value(graph, value)
            if complaint:
                raise _error(graph, value, complaint)
    for node in graph.nodes:
        for check_node in (*NODE_RULES, *stage.nodes):
            complaint = check_node(node)
            if complaint:
                raise _error(graph, node.output, complaint)


def _error(graph: Graph, value: Value, complaint: str) -> VerifyError:
    message = f"%{spelled(value.name)}: {complaint}"
    node = value.producer or next(iter(value.users), None)
    if node is None:
        return VerifyError(message)
    location = node.location or Location(f"@{spelled(graph.name)}")
    return VerifyError(message, replace(location, excerpt=f"  {print_node(node)}"))


# ---------------------------------------------------------------------- structure
def _structure(graph: Graph) -> str | None:
    if graph.stage not in STAGES:
        return f"unknown stage {graph.stage!r}, expected one of {', '.join(STAGES)}"
    return _definitions(graph) or _names(graph) or _outputs(graph) or _users(graph)


def _definitions(graph: Graph) -> str | None:
    """Every operand is an input, a constant, or the result of an earlier node."""
    defined = {id(v) for v in graph.inputs}
    for source in (*graph.inputs, *graph.constants()):
        if source.producer is not None:
            return f"%{source.name} is an input or a constant, but has a producer"
    for node in graph.nodes:
        for value in node.inputs:
            if value is not None and not value.is_constant and id(value) not in defined:
                return f"%{node.name} uses %{value.name}, which is not defined before it"
        if node.output.producer is not node or node.output.is_constant:
            return f"%{node.name} is not marked as the result of its node"
        if id(node.output) in defined:
            return f"%{node.name} is defined twice"
        defined.add(id(node.output))
    return None


def _names(graph: Graph) -> str | None:
    for name, count in Counter(v.name for v in graph.values()).items():
        if count > 1:
            return f"{count} values are named %{name}"
    return None


def _outputs(graph: Graph) -> str | None:
    defined = {id(v) for v in graph.values()}
    if not graph.outputs:
        return "there are no outputs"
    if len(graph.outputs) != len(graph.output_names):
        return f"{len(graph.outputs)} outputs have {len(graph.output_names)} names"
    for value in graph.outputs:
        if id(value) not in defined:
            return f"output %{value.name} is not defined"
    for name, count in Counter(graph.output_names).items():
        if count > 1:
            return f"{count} outputs are named {name!r}"
    return None


def _users(graph: Graph) -> str | None:
    uses: dict[int, list[int]] = {id(v): [] for v in graph.values()}
    for node in graph.nodes:
        for value in node.inputs:
            if value is not None:
                uses[id(value)].append(id(node))
    for value in graph.values():
        if sorted(uses[id(value)]) != sorted(map(id, value.users)):
            return f"the users recorded for %{value.name} are not the nodes that use it"
    return None


# ---------------------------------------------------------------------- values
def type_complaint(type_: TensorType) -> str | None:
    """What is wrong with a tensor type: its size, or qparams that do not fit it."""
    if type_.rank > MAX_RANK:
        return f"{type_.rank} dimensions are too many, at most {MAX_RANK}"
    if any(n < 1 for n in type_.shape):
        return f"every dimension must be at least 1, got {type_.shape}"
    if type_.elements > MAX_ELEMENTS:
        return f"{type_.elements} elements are too many, at most {MAX_ELEMENTS}"
    qparams = type_.qparams
    if qparams is None:
        return None
    if type_.dtype.is_integer and qparams.dtype != type_.dtype.value:
        return f"a tensor of {type_.dtype.value} has qparams of {qparams.dtype}"
    if qparams.axis is None:
        return None
    if not 0 <= qparams.axis < type_.rank:
        return f"axis {qparams.axis} of the qparams is not one of {type_.rank} dimensions"
    if len(qparams.scale) != type_.shape[qparams.axis]:
        return f"{len(qparams.scale)} scales for {type_.shape[qparams.axis]} channels of axis {qparams.axis}"
    return None


def _has_legal_type(graph: Graph, value: Value) -> str | None:
    return type_complaint(value.type)


def _constant_fits_its_type(graph: Graph, value: Value) -> str | None:
    if value.data is None:
        return None
    if value.data.dtype != value.type.dtype.numpy or value.data.shape != value.type.shape:
        return f"the constant holds {value.data.dtype}{value.data.shape}, its type is {value.type}"
    if value.data.dtype.kind == "f" and np.isnan(value.data).any():
        return "the constant holds a NaN"
    return None


def _range_is_ordered(graph: Graph, value: Value) -> str | None:
    if value.range is not None and not (np.isfinite(value.range).all() and value.range[0] <= value.range[1]):
        return f"the range must be finite, low before high, got {value.range}"
    return None


def _is_float(graph: Graph, value: Value) -> str | None:
    """Integers are the codes of weights only, that the nodes which read them decode."""
    is_codes = value.is_constant and not graph.is_output(value) and all(u.op.reads_codes for u in value.users)
    if value.type.dtype.is_integer and not is_codes:
        return f"the {graph.stage} stage has float tensors only, got {value.type}"
    return None


def _is_not_annotated(graph: Graph, value: Value) -> str | None:
    """Qparams may be there already: those of a model that was quantized before."""
    if value.range is not None:
        return "the float stage has no ranges"
    return None


def _is_materialized(graph: Graph, value: Value) -> str | None:
    return f"the {graph.stage} stage has no fused values" if value.fused else None


def _fused_is_internal(graph: Graph, value: Value) -> str | None:
    """A fused value exists only inside the nodes that use it."""
    if not value.fused:
        return None
    if value.type.qparams is not None:
        return "a fused value is never materialized, so it has no qparams"
    if value.producer is None or not value.users or graph.is_output(value):
        return "a fused value must be computed, used by a node, and not be an output of the graph"
    return None


def _s8_has_qparams(graph: Graph, value: Value) -> str | None:
    """Constants may be plain codes (a table); whoever reads them as numbers infers its type from qparams."""
    if value.type.dtype is DType.S8 and value.type.qparams is None and not value.is_constant:
        return "an s8 tensor needs qparams"
    return None


# ---------------------------------------------------------------------- nodes
def operand_complaint(op: type[Op], present: Sequence[bool]) -> str | None:
    """Too few or too many operands, or a required one that is absent."""
    names = op.operands
    if names[-1].endswith("*"):
        return None if present and all(present) else f"{op.name} takes one or more operands, none absent"
    required = sum(not name.endswith("?") for name in names)
    if not required <= len(present) <= len(names):
        count = f"{required}" if required == len(names) else f"{required} to {len(names)}"
        word = "operand" if len(names) == 1 else "operands"
        return f"{op.name} takes {count} {word} ({', '.join(names)}), got {len(present)}"
    for name, there in zip(names, present, strict=False):
        if not there and not name.endswith("?"):
            return f"operand {name} of {op.name} must be present"
    return None


def attribute_complaint(op: type[Op], name: str, value: object) -> str | None:
    """An attribute whose value has another type than declared."""
    hint = attribute_types(op)[name]
    if conforms(value, hint):
        return None
    got = list(value) if isinstance(value, tuple) else value
    return f"attribute {name} of {op.name} must be {describe_type(hint)}, got {got!r}"


def result_complaint(node: Node) -> str | None:
    """The recorded type of the result against the one the op infers from its operands."""
    operands = list(node.signature.operands)
    while operands and operands[-1] is None:
        operands.pop()
    try:
        inferred = node.op.infer(*operands)
    except VerifyError as error:
        return error.message
    except (ArithmeticError, LookupError, ValueError) as error:  # attributes in a text may hold any number
        return f"the attributes of {node.op.name} do not fit its operands: {error}"
    recorded, qparams = node.output.type, inferred.qparams
    dtype = inferred.dtype
    if node.op.chooses_qparams and dtype.is_integer and recorded.qparams is not None:
        dtype, qparams = DType(recorded.qparams.dtype), recorded.qparams
    if recorded.dtype is not dtype or recorded.shape != inferred.shape:
        expected = TensorType(dtype, inferred.shape)
        return f"{node.op.name} yields {expected}, the recorded type is {recorded.with_qparams(None)}"
    if recorded.dtype.is_integer and recorded.qparams != qparams:
        difference = _qparams_difference(qparams, recorded.qparams)
        return f"{node.op.name} yields other qparams than recorded: {difference}"
    return None


def _qparams_difference(expected: QParams | None, got: QParams | None) -> str:
    """Where two qparams differ; those of many channels look alike when printed."""
    if expected is None or got is None or len(expected.scale) == 1 or len(expected.scale) != len(got.scale):
        return f"expected {expected or 'none'}, got {got or 'none'}"
    for channel, (a, b) in enumerate(zip(expected.scale, got.scale, strict=True)):
        if a != b:
            return f"expected scale {a!r} for channel {channel}, got {b!r}"
    return f"expected {expected}, got {got}"


def _operands_are_present(node: Node) -> str | None:
    return operand_complaint(type(node.op), [v is not None for v in node.inputs])


def _attributes_have_their_types(node: Node) -> str | None:
    complaints = (attribute_complaint(type(node.op), k, v) for k, v in node.op.attributes().items())
    return next((c for c in complaints if c), None)


def _requantize_saturates_within_its_type(node: Node) -> str | None:
    if not isinstance(node.op, Requantize):
        return None
    low, high = node.output.type.dtype.min, node.output.type.dtype.max
    if not low <= node.op.low <= node.op.high <= high:
        return f"requantize saturates to [{node.op.low}, {node.op.high}], which is not within [{low}, {high}]"
    return None


def _requantize_is_planned(node: Node) -> str | None:
    """A requantize of an accumulator holds its multiplier, its shift and the proven interval."""
    if not isinstance(node.op, Requantize) or not node.input(0).type.dtype.is_accumulator:
        return None
    shape = node.input(0).type.shape
    channels = shape[-1] if shape else 1
    found = {}
    for name, sizes in (
        ("multiplier", (1, channels)),
        ("shift", (1, channels)),
        ("acc_min", (channels,)),
        ("acc_max", (channels,)),
    ):
        value = node.operand(name)
        if value is None or value.data is None:
            return f"the planned stage needs a constant {name}"
        dtype = node.input(0).type.dtype if name.startswith("acc") else DType.S32
        if value.type.dtype is not dtype or value.type.shape not in [(n,) for n in sizes]:
            wanted = " or ".join(f"{dtype.value}<{n}>" for n in dict.fromkeys(sizes))
            return f"{name} must be {wanted}, got {value.type}"
        found[name] = value.data
    if found["multiplier"].min() < 0:
        return f"multiplier must lie in 0..{MULTIPLIER_MAX}, got {found['multiplier'].min()}"
    if found["shift"].min() < SHIFT_MIN or found["shift"].max() > SHIFT_MAX:
        got = f"{found['shift'].min()}..{found['shift'].max()}"
        return f"shift must lie in {SHIFT_MIN}..{SHIFT_MAX}, got {got}"
    if (found["acc_min"] > found["acc_max"]).any():
        return f"acc_min is above acc_max in channel {np.argmax(found['acc_min'] > found['acc_max'])}"
    return None


# ---------------------------------------------------------------------- tables
ValueRule = Callable[[Graph, Value], str | None]
NodeRule = Callable[[Node], str | None]


@dataclass(frozen=True)
class StageRules:
    """What a stage demands of values and of nodes, beyond what holds in every stage."""

    values: tuple[ValueRule, ...]
    nodes: tuple[NodeRule, ...] = ()


VALUE_RULES: tuple[ValueRule, ...] = (_has_legal_type, _constant_fits_its_type, _range_is_ordered)
NODE_RULES: tuple[NodeRule, ...] = (_operands_are_present, _attributes_have_their_types, result_complaint)

_INTEGER = StageRules(
    values=(_is_materialized, _s8_has_qparams),
    nodes=(_requantize_saturates_within_its_type,),
)
STAGE_RULES: dict[str, StageRules] = {
    "float": StageRules(values=(_is_float, _is_not_annotated, _fused_is_internal)),
    "annotated": StageRules(values=(_is_float, _fused_is_internal)),
    "integer": _INTEGER,
    "planned": StageRules(_INTEGER.values, (*_INTEGER.nodes, _requantize_is_planned)),
}
