"""Structure of an ONNX graph: unique definitions, live nodes in topological order, nodes that follow their schema."""

from __future__ import annotations

import heapq
from collections import Counter
from dataclasses import dataclass

import onnx
from onnx import GraphProto, NodeProto

from qcc.ir.errors import ImportModelError
from qcc.ir.location import Location


@dataclass(frozen=True)
class Step:
    """A node with the name that messages and locations show."""

    proto: NodeProto
    label: str

    @property
    def reads(self) -> list[str]:
        """Names of the present operands."""
        return [n for n in self.proto.input if n]


def ordered_steps(graph: GraphProto, location: Location) -> list[Step]:
    """The nodes that some output depends on, each after its operands; file order where there is a choice.

    Raises ImportModelError for a tensor defined twice or never, and for a cycle.
    """
    steps = [Step(n, n.name or f"{n.op_type}#{i}") for i, n in enumerate(graph.node)]
    _check_unique(graph, location)
    producer = {name: i for i, s in enumerate(steps) for name in s.proto.output if name}
    given = {v.name for v in graph.input} | {t.name for t in graph.initializer}
    given |= {t.values.name for t in graph.sparse_initializer}

    operands: dict[int, list[int]] = {}  # live node -> the nodes it reads
    pending: list[tuple[str, Step | None]] = [(v.name, None) for v in graph.output]
    while pending:
        name, reader = pending.pop()
        if name in given:
            continue
        if name not in producer:
            raise _undefined(name, reader, location)
        index = producer[name]
        if index in operands:
            continue
        reads = steps[index].reads
        operands[index] = [producer[n] for n in reads if n in producer and n not in given]
        pending += [(n, steps[index]) for n in reads]
    return [steps[i] for i in _sorted(operands, steps, location)]


def _check_unique(graph: GraphProto, location: Location) -> None:
    for names, what in (
        ([v.name for v in graph.input], "graph input"),
        ([v.name for v in graph.output], "graph output"),
        ([t.name for t in graph.initializer], "initializer"),
    ):
        twice = [n for n, count in Counter(names).items() if count > 1]
        if twice:
            raise ImportModelError(
                f"{what} {twice[0]!r} is declared twice", location, "export the model again"
            )
    given = {v.name for v in graph.input} | {t.name for t in graph.initializer}
    results = Counter(name for node in graph.node for name in node.output if name)
    twice = [n for n, count in results.items() if count > 1 or n in given]
    if twice:
        raise ImportModelError(f"tensor {twice[0]!r} is defined twice", location, "export the model again")


def _undefined(name: str, reader: Step | None, location: Location) -> ImportModelError:
    place = location if reader is None else Location(location.file, node=reader.label)
    what = f"graph output {name!r} is not defined" if reader is None else f"input {name!r} is not defined"
    return ImportModelError(f"{what} by any node, input or initializer", place, "export the model again")


def _sorted(operands: dict[int, list[int]], steps: list[Step], location: Location) -> list[int]:
    waiting = {index: len(set(reads)) for index, reads in operands.items()}
    readers: dict[int, list[int]] = {index: [] for index in operands}
    for index, reads in operands.items():
        for read in dict.fromkeys(reads):
            readers[read].append(index)
    ready = [index for index, count in waiting.items() if count == 0]
    heapq.heapify(ready)
    order = []
    while ready:
        index = heapq.heappop(ready)
        order.append(index)
        for reader in readers[index]:
            waiting[reader] -= 1
            if waiting[reader] == 0:
                heapq.heappush(ready, reader)
    if len(order) < len(operands):
        blocked = {i for i, count in waiting.items() if count}
        cycle = _cycle(operands, blocked)
        names = " -> ".join(steps[i].label for i in [*cycle, cycle[0]])
        raise ImportModelError(f"the nodes form a cycle: {names}", location, "export the model again")
    return order


def _cycle(operands: dict[int, list[int]], blocked: set[int]) -> list[int]:
    """One cycle in the direction of the data: every blocked node reads another blocked node."""
    path: list[int] = []
    index = min(blocked)
    while index not in path:
        path.append(index)
        index = min(i for i in operands[index] if i in blocked)
    cycle = path[path.index(index) :][::-1]
    first = cycle.index(min(cycle))
    return cycle[first:] + cycle[:first]


def check_schema(node: NodeProto, opset: int) -> None:
    """Raise ImportModelError (without location) unless operands and attributes follow the operator's schema."""
    try:
        schema = onnx.defs.get_schema(node.op_type, max_inclusive_version=opset, domain="")
    except onnx.defs.SchemaError:
        raise ImportModelError(f"there is no such operator in opset {opset}") from None
    if schema.deprecated:
        raise ImportModelError(f"the operator is deprecated in opset {opset}")
    for count, low, high, what in (
        (len(node.input), schema.min_input, schema.max_input, "inputs"),
        (len(node.output), schema.min_output, schema.max_output, "outputs"),
    ):
        if not low <= count <= high:
            raise ImportModelError(f"it has {count} {what}, expected {low} to {high}")
    missing = [i for i in range(schema.min_input) if not node.input[i]]
    if missing:
        raise ImportModelError(f"input {missing[0]} is missing")
    given = [a.name for a in node.attribute]
    for attribute in node.attribute:
        declared = schema.attributes.get(attribute.name)
        if declared is None:
            raise ImportModelError(f"unknown attribute {attribute.name}")
        if given.count(attribute.name) > 1:
            raise ImportModelError(f"attribute {attribute.name} is given twice")
        if declared.type.value != attribute.type:  # type: ignore[attr-defined]
            raise ImportModelError(f"attribute {attribute.name} has the wrong type")
    for name, declared in schema.attributes.items():
        if declared.required and name not in given:
            raise ImportModelError(f"attribute {name} is missing")
