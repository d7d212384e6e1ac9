"""The record of a compiled model: what a program that loads or reports on it needs to know."""

from __future__ import annotations

from math import isfinite
from typing import Any

from qcc.backends.program import Operation, Program
from qcc.backends.select import Candidate
from qcc.backends.storage import Port
from qcc.ir.graph import Value
from qcc.ir.types import TensorType


def metadata_of(program: Program, constant_bytes: int) -> dict[str, Any]:
    """Sizes, ports with their qparams, and one entry for each layer. All values are plain JSON.

    Of a program for more than one thread, also ``threads`` (those of use), and for each layer its ``parts`` (what, from,
    to) or why it has none (``one_thread``). The ``output`` of a layer that lies in the result of a concatenation (``joined``)
    spans ``span_bytes``, its pixels ``step`` elements apart. Of one with streams, the arena without them, ``streams`` (first
    and last layer, bands), and for each of their layers ``held_bytes`` and whether the result is ever ``whole``.
    """
    streams: dict[str, Any] = {}
    if program.streams:
        found = [{"first": s.first, "last": s.last, "bands": s.schedule.bands} for s in program.streams]
        streams = {"arena_unstreamed_bytes": program.unstreamed_bytes, "streams": found}
    threads = {"threads": program.parts} if program.threads > 1 else {}
    return {
        "name": program.name,
        "target": program.target.name,
        **threads,
        "arena_bytes": program.plan.arena_bytes,
        "arena_lower_bound_bytes": program.plan.lower_bound_bytes,
        **streams,
        "arena_align": program.target.alignment,
        "constant_bytes": constant_bytes,
        "macs": sum(op.macs for op in program.operations),
        "input_bytes": program.input_bytes,
        "output_bytes": program.output_bytes,
        "input_arena_offset": program.input_arena_offset,
        "output_arena_offset": program.output_arena_offset,
        "inputs": [_port(p) for p in program.inputs],
        "outputs": [_port(p) for p in program.outputs],
        "layers": [_layer(op, program) for op in program.operations],
    }


def _port(port: Port) -> dict[str, Any]:
    return {"name": port.name, "offset": port.offset, **_tensor(port.value.type)}


def _tensor(type_: TensorType) -> dict[str, Any]:
    found: dict[str, Any] = {"dtype": type_.dtype.value, "shape": list(type_.shape), "bytes": type_.bytes}
    if type_.dtype.is_integer and type_.qparams is not None and type_.qparams.axis is None:
        found |= {"scale": type_.qparams.scale[0], "zero_point": type_.qparams.zero_point}
    return found


def _layer(operation: Operation, program: Program) -> dict[str, Any]:
    step, call, sharing = operation.step, operation.call, operation.sharing
    parts = {"parts": [list(p.extent) for p in sharing.parts], "one_thread": sharing.reason}
    return {
        "name": step.output.name,
        "pattern": step.pattern,
        **_candidate(operation.candidates[0]),
        "beaten": [_candidate(c) for c in operation.beaten],
        "refused": [{"kernel": r.kernel.label, "reason": r.reason} for r in operation.refused],
        "inputs": [v.name for v in step.inputs],
        "output": _tensor(step.output.type) | _joined(program, step.output),
        "macs": operation.macs,
        "constant_bytes": sum(a.nbytes for a in call.constants.values() if a is not None),
        "workspace_bytes": operation.workspace_bytes,
        **(parts if program.threads > 1 else {}),
        **({"held_bytes": operation.output_bytes, "whole": operation.is_whole} if operation.banded else {}),
    }


def _joined(program: Program, value: Value) -> dict[str, Any]:
    place = program.joined.get(id(value))
    if place is None:
        return {}
    return {
        "joined": place.whole.name,
        "step": place.step or value.type.shape[-1],
        "span_bytes": place.span(value),
    }


def _candidate(candidate: Candidate) -> dict[str, Any]:
    """The kernel's label, and what is known of its speed on one core."""
    found: dict[str, Any] = {"kernel": candidate.kernel.label}
    if isfinite(candidate.cycles):
        found["cycles"] = round(candidate.cycles)
    if candidate.microseconds is not None:
        found["microseconds"] = candidate.microseconds
    return found
