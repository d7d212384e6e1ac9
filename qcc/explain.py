"""Why a node became what it is: every rule that looked at it, the kernel it got and the kernels that refused it."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from qcc.backends.program import Operation, Program
from qcc.driver import Compilation
from qcc.ir.errors import QccError
from qcc.ir.graph import Graph, Node
from qcc.passes.base import Note

ACCUMULATOR = ".acc"  # quantize-ops names an accumulator NODE.acc


@dataclass(frozen=True)
class Explanation:
    """``names``: the node and those it was folded into, in order; ``operation``: its kernel call, if it has one."""

    names: tuple[str, ...]
    notes: tuple[tuple[str, Note], ...]
    operation: Operation | None
    absence: str  # why there is no operation


def explain(made: Compilation, program: Program, wanted: str) -> Explanation:
    """All that was decided on the node called ``wanted``: a node or value of the model, or a value of any stage.

    A node that was folded is followed through its first user. Raises QccError with near names.
    """
    imported = {n.name: n for n in made.imported.nodes}
    steps = {_base(n.name): op for op in program.operations for n in op.step.nodes}
    final = {_base(n.name) for n in program.graph.nodes}
    start = _find(made, imported, [*final, *(n.node for _, n in made.notes)], wanted)
    names = [start]
    while names[-1] not in final and names[-1] in imported and imported[names[-1]].output.users:
        names.append(imported[names[-1]].output.users[0].name)
    operation = steps.get(names[-1])
    if operation is not None:
        names += [_base(n.name) for n in operation.step.nodes]
    names = list(dict.fromkeys(names))
    notes = tuple((p, n) for p, n in made.notes if _is_about(n.node, names, imported))
    shown = [n for n in names if n == start or n not in imported or imported[n].op.name != "transpose"]
    joined = {_base(place.whole.name) for place in program.joined.values()}
    absence = "it was removed"
    if names[-1] in final:
        absence = "the bytes are " + ("written in place" if names[-1] in joined else "only renamed")
    return Explanation(tuple(shown), notes, operation, absence)


def _base(name: str) -> str:
    return name.removesuffix(ACCUMULATOR)


def _find(made: Compilation, imported: dict[str, Node], others: list[str], wanted: str) -> str:
    known = [*imported, *(v.name for v in made.imported.inputs), *others]
    if wanted in known or _base(wanted) in known:
        return wanted if wanted in known else _base(wanted)
    by_origin = _origins(made.imported)
    if wanted in by_origin:
        return by_origin[wanted]
    near = difflib.get_close_matches(wanted, list(dict.fromkeys([*known, *by_origin])), n=3)
    listed = ", ".join(list(imported)[:8]) + (", ..." if len(imported) > 8 else "")
    hint = f"did you mean {' or '.join(near)}?" if near else f"nodes of the model: {listed}"
    raise QccError(f"the model has no node {wanted!r}", hint=hint)


def _origins(graph: Graph) -> dict[str, str]:
    """Names of ONNX nodes to the value each defines; importing adds transposes around some, which do not count."""
    found: dict[str, str] = {}
    for node in graph.nodes:
        if node.location is not None and (node.op.name != "transpose" or node.location.node not in found):
            found[node.location.node] = node.name
    return found


def _is_about(node: str, names: list[str], imported: dict[str, Node]) -> bool:
    """True for a note on one of ``names``, or on what a pass made of it: NAME_scaled, NAME.acc, NAME_2."""
    if _base(node) in names:
        return True
    return node not in imported and any(node.startswith((f"{n}_", f"{n}.")) for n in names)
