"""Programs without floating-point numbers: what they must not hold, and the kernels they may use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from qcc.backends.kernel import Kernel, Step
from qcc.ir.errors import TargetError
from qcc.ir.graph import Graph, Value
from qcc.ir.types import DType

MAX_LINES = 10


def require_integers(graph: Graph) -> None:
    """Raise TargetError where a value of ``graph`` is in float, with the nodes that read or write it."""
    found = [n for n in graph.nodes if any(map(_is_float, (*n.inputs, n.output)))]
    ports = [v.name for v in (*graph.inputs, *graph.outputs) if _is_float(v)]
    if not found and not ports:
        return
    lines = [f"  %{n.output.name} = {n.op.name}" for n in found[:MAX_LINES]]
    if len(found) > MAX_LINES:
        lines.append(f"  and {len(found) - MAX_LINES} more")
    crossing = f"; in float cross the boundary: {', '.join(ports)}" if ports else ""
    raise TargetError(
        "a program without floats is not possible, {} in float{}{}".format(
            "1 node computes" if len(found) == 1 else f"{len(found)} nodes compute",
            crossing,
            "".join(f"\n{line}" for line in lines),
        ),
        found[0].location if found else None,
        "`qcc explain MODEL NODE` says why a node has no integer form",
    )


def integer_rows(kernels: Sequence[Kernel]) -> tuple[Kernel, ...]:
    """The rows, those whose kernels use floats refusing every step."""
    return tuple(replace(k, accepts=_refuse) if k.uses_float else k for k in kernels)


def _refuse(step: Step) -> str:
    return "it computes with floats, which are ruled out"


def _is_float(value: Value | None) -> bool:
    return value is not None and value.type.dtype is DType.F32
