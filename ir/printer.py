"""Graph to text: the only printer. See ``qir.lark`` for the grammar; ``qcc.ir.parser`` reads it back."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcc.ir.attributes import attribute_fields, attribute_types, format_attribute, is_required, quoted
from qcc.ir.graph import Graph, Node, Value
from qcc.ir.location import Location
from qcc.ir.npz import pack_arrays, write_aside
from qcc.ir.op import Op
from qcc.ir.qparams import QParams
from qcc.ir.types import DType, TensorType

INLINE_ELEMENTS = 16  # constants and scales with more elements live in the .npz

_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]")  # in the name of a member: it may become the name of a file
# A name may hold ':' inside ("Identity:0") but not at its end, so that "%x: f32<1>" can be read.
_PLAIN = re.compile(r"[A-Za-z_](?:[A-Za-z0-9_./:-]*[A-Za-z0-9_./-])?")


def print_graph(graph: Graph, *, locations: bool = False) -> tuple[str, dict[str, NDArray[Any]]]:
    """The canonical text of ``graph`` and the arrays it refers to, by name.

    ``locations`` adds to each node where it comes from.
    """
    printer = _Printer(locations)
    lines = [f"graph @{spelled(graph.name)} stage({graph.stage}) {{"]
    lines += [f"  input %{spelled(v.name)} : {printer.annotated_type(v)}" for v in graph.inputs]
    lines += [f"  {printer.constant(v)}" for v in graph.constants()]
    lines += [f"  {printer.node(n)}" for n in graph.nodes]
    lines += [
        f"  output %{spelled(v.name)} as {quoted(name)}"
        for v, name in zip(graph.outputs, graph.output_names, strict=True)
    ]
    return "\n".join([*lines, "}", ""]), printer.arrays


def print_node(node: Node) -> str:
    """The line of one node, for messages."""
    return _Printer(locations=False).node(node)


def save_graph(graph: Graph, path: Path, *, locations: bool = False) -> None:
    """Write ``path`` and, where the text refers to arrays, the ``.npz`` of the same name beside it."""
    text, arrays = print_graph(graph, locations=locations)
    if arrays:
        write_aside(path.with_suffix(".npz"), pack_arrays(arrays))
    write_aside(path, text.encode("utf-8"))


def spelled(name: str) -> str:
    """A name as it stands behind % or @: plain, or quoted where it has other characters."""
    return name if _PLAIN.fullmatch(name) else quoted(name)


def op_prefix(operands: Sequence[TensorType | None], result: TensorType) -> str:
    """ "q" where an operand or the result is an integer tensor, "nn" where all are float."""
    return "q" if any(t is not None and t.dtype.is_integer for t in (*operands, result)) else "nn"


def shape_text(type_: TensorType) -> str:
    """dtype and shape: ``s8<1x4x4x3>``, ``f32<scalar>``."""
    return f"{type_.dtype.value}<{'x'.join(map(str, type_.shape)) or 'scalar'}>"


class _Printer:
    """Spells values and nodes, and collects the arrays that are too long for the text."""

    def __init__(self, locations: bool) -> None:
        self.locations = locations
        self.arrays: dict[str, NDArray[Any]] = {}

    def constant(self, value: Value) -> str:
        assert value.data is not None
        if value.data.size > INLINE_ELEMENTS:
            data = self.refer(value.name, value.data)
        else:
            data = f"[{', '.join(map(_element, value.data.ravel()))}]"
        return f"const %{spelled(value.name)} : {self.annotated_type(value)} = {data}"

    def node(self, node: Node) -> str:
        operands = ", ".join("_" if v is None else f"%{spelled(v.name)}" for v in node.inputs)
        op = f"{op_prefix(node.signature.operands, node.output.type)}.{node.op.name}"
        result = self.annotated_type(node.output)
        line = f"%{spelled(node.name)} = {op}({operands}){_attributes(node.op)} : {result}"
        return f"{line} loc({_location(node.location)})" if self.locations else line

    def annotated_type(self, value: Value) -> str:
        parts = [shape_text(value.type)]
        if value.range is not None:
            parts.append(f"range({float(value.range[0])!r}, {float(value.range[1])!r})")
        if value.type.qparams is not None:
            parts.append(self.qparams(value.type.qparams, value.type.dtype, value.name))
        if value.fused:
            parts.append("fused")
        return " ".join(parts)

    def qparams(self, qparams: QParams, dtype: DType, name: str) -> str:
        if qparams.axis is None:
            scale = repr(float(qparams.scale[0]))
        elif len(qparams.scale) > INLINE_ELEMENTS:
            scale = self.refer(f"{name}.scale", np.asarray(qparams.scale, np.float64))
        else:
            scale = f"[{', '.join(repr(float(s)) for s in qparams.scale)}]"
        parts = [scale, str(qparams.zero_point)]
        if qparams.axis is not None:
            parts.append(f"axis={qparams.axis}")
        if qparams.dtype != dtype.value:
            parts.append(qparams.dtype)
        if qparams.codes is not None:
            parts.append(f"codes=[{qparams.codes[0]}, {qparams.codes[1]}]")
        return f"q({', '.join(parts)})"

    def refer(self, name: str, array: NDArray[Any]) -> str:
        """Put ``array`` aside under a name that is safe as a member of an archive."""
        safe = unique = _UNSAFE.sub("_", name)
        count = 1
        while unique in self.arrays:
            count += 1
            unique = f"{safe}_{count}"
        self.arrays[unique] = array
        return f"@{spelled(unique)}"


def _element(x: np.generic) -> str:
    if not isinstance(x, np.float32):
        return str(x)
    # the shortest text of a float32 is read back through float64: twice rounded, so not always the same number
    short = str(x)
    return short if np.isnan(x) or np.float32(float(short)) == x else repr(float(x))


def _attributes(op: Op) -> str:
    """The attributes that differ from their defaults, as text: -0.0 is not 0.0, nan is nan."""
    types, shown = attribute_types(type(op)), []
    for field in attribute_fields(type(op)):
        hint = types[field.name]
        text = format_attribute(getattr(op, field.name), hint)
        if is_required(field) or text != format_attribute(field.default, hint):
            shown.append(f"{field.name}={text}")
    return f" {{{', '.join(shown)}}}" if shown else ""


def _location(location: Location | None) -> str:
    if location is None:
        return "unknown"
    position = f":{location.line}:{location.column}" if location.line else ""
    parts = [f"{quoted(location.file)}{position}"] if location.file or not location.node else []
    parts += [f"node {quoted(location.node)}"] if location.node else []
    return ", ".join(parts)
