"""Graph to MLIR: an integer program as text in the TOSA dialect, which computes the same bytes."""

from __future__ import annotations

import json
from pathlib import Path

from qcc.ir.errors import QccError
from qcc.ir.graph import Graph, Node, Value
from qcc.ir.types import DType
from qcc.tosa.rules import EXPORTERS
from qcc.tosa.writer import ELEMENTS, Writer

_HINT = "the C backend takes this program: qcc compile"


def export_tosa(graph: Graph) -> str:
    """A module with one function ``main``; head comments give names and qparams of its inputs and outputs.

    Operations are those of TOSA 1.0, in MLIR's generic form. Raises QccError for a node that TOSA cannot compute
    with the same bytes.
    """
    writer = Writer()
    arguments = [writer.argument(v) for v in graph.inputs]
    for node in graph.nodes:
        _check(node)
        writer.define(node.output, EXPORTERS[node.op.name](writer, node))
    results = [writer.tensor(v) for v in graph.outputs]
    named = [*((f"input {v.name}", v) for v in graph.inputs)]
    named += [(f"output {n}", v) for n, v in zip(graph.output_names, graph.outputs, strict=True)]
    types = ", ".join(t.type for t in results)
    return "\n".join(
        [
            *(f"// {_described(name, value)}" for name, value in named),
            "module {",
            f"  func.func @main({', '.join(f'%{a.name}: {a.type}' for a in arguments)}) -> ({types}) {{",
            *(f"    {line}" for line in writer.lines),
            f"    return {', '.join(f'%{t.name}' for t in results)} : {types}",
            "  }",
            "}",
            "",
        ]
    )


def save_tosa(graph: Graph, path: Path) -> None:
    """Write ``export_tosa(graph)`` to ``path``. Raises QccError where the file cannot be written."""
    text = export_tosa(graph)
    try:
        path.write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise QccError(f"cannot write {path}: {error.strerror}") from error


def _check(node: Node) -> None:
    """Refuse what has no TOSA form, and types that the integer profile lacks."""
    if node.op.name not in EXPORTERS:
        raise QccError(f"{node.op.name} ({node.name}) has no TOSA form", node.location, _HINT)
    for value in (*node.inputs, node.output):
        if value is not None and not value.is_constant and value.type.dtype not in (DType.S8, DType.S32):
            found = ELEMENTS.get(value.type.dtype, value.type.dtype.value)
            raise QccError(
                f"{node.op.name} ({node.name}) works on {found}: the TOSA export has i8 and i32 only",
                node.location,
                'quantize first: --pipeline "float,quantize"' if found == "f32" else _HINT,
            )


def _described(name: str, value: Value) -> str:
    quoted = json.dumps(name.split(" ", 1)[1])
    return f"{name.split(' ', 1)[0]} {quoted}: {value.type}"
