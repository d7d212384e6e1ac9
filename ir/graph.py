"""The dataflow graph: values in single-assignment form, nodes in topological order, few mutations."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcc.ir.location import Location
from qcc.ir.op import Op, Signature
from qcc.ir.types import TensorType

STAGES = ("float", "annotated", "integer", "planned")


@dataclass(eq=False)
class Value:
    """One tensor: a graph input, a constant (``data`` is set) or the result of ``producer``.

    ``range`` is the real interval seen in calibration. ``fused`` says that the value is never materialized:
    it stays inside the accumulator (or the table) of its only consumer, so it gets no qparams.
    """

    name: str
    type: TensorType
    producer: Node | None = None
    data: NDArray[Any] | None = None
    range: tuple[float, float] | None = None
    fused: bool = False
    users: list[Node] = field(default_factory=list)  # one entry for each use, in order of creation

    @property
    def is_constant(self) -> bool:
        """True for a value whose bytes are known at compile time."""
        return self.data is not None

    def __repr__(self) -> str:
        return f"%{self.name}: {self.type}"


@dataclass(eq=False)
class Node:
    """One application of an op: ``output = op(inputs)``. An absent optional operand is None."""

    op: Op
    inputs: list[Value | None]
    output: Value
    location: Location | None = None

    @property
    def name(self) -> str:
        """The node is known by the name of the value it defines."""
        return self.output.name

    @property
    def signature(self) -> Signature:
        """Types of operands and result, as the op's methods want them."""
        return Signature(tuple(v.type if v else None for v in self.inputs), self.output.type)

    def input(self, index: int) -> Value:
        """The operand at ``index``, which must be present."""
        value = self.inputs[index]
        assert value is not None, f"operand {index} of {self.name} is absent"
        return value

    def operand(self, name: str) -> Value | None:
        """The operand declared as ``name`` (without its ``?``), or None when absent."""
        names = [n.rstrip("?*") for n in self.op.operands]
        index = names.index(name)
        return self.inputs[index] if index < len(self.inputs) else None

    def __repr__(self) -> str:
        return f"%{self.name} = {self.op.name}"


class Graph:
    """A program: inputs, outputs and nodes. Every mutation keeps ``users`` and the topological order right."""

    def __init__(self, name: str, stage: str = "float") -> None:
        self.name = name
        self.stage = stage
        self.inputs: list[Value] = []
        self.outputs: list[Value] = []
        self.output_names: list[str] = []  # the model's own names, kept when a pass replaces the value
        self.nodes: list[Node] = []
        self._names: dict[str, int] = {}

    # ------------------------------------------------------------------ creation
    def fresh_name(self, wanted: str) -> str:
        """``wanted``, or ``wanted_2``, ``wanted_3`` ... when it is taken. Deterministic."""
        count = self._names.get(wanted, 0)
        self._names[wanted] = count + 1
        return wanted if count == 0 else self.fresh_name(f"{wanted}_{count + 1}")

    def add_input(self, name: str, type_: TensorType) -> Value:
        """Append a graph input."""
        value = Value(self.fresh_name(name), type_)
        self.inputs.append(value)
        return value

    def add_output(self, value: Value, name: str | None = None) -> None:
        """Append a graph output under the model's own ``name``."""
        self.outputs.append(value)
        self.output_names.append(name or value.name)

    def constant(self, data: NDArray[Any], name: str, type_: TensorType) -> Value:
        """A constant of this graph; it exists as long as a node uses it."""
        if tuple(data.shape) != type_.shape or data.dtype != type_.dtype.numpy:
            raise ValueError(f"constant {name}: data {data.dtype}{data.shape} is not {type_}")
        return Value(self.fresh_name(name), type_, data=np.asarray(data, order="C"))

    def add_node(
        self,
        op: Op,
        inputs: Iterable[Value | None],
        type_: TensorType,
        name: str,
        before: Node | None = None,
        location: Location | None = None,
    ) -> Node:
        """Insert a node before ``before`` (default: at the end)."""
        output = Value(self.fresh_name(name), type_)
        node = Node(op, list(inputs), output, location)
        output.producer = node
        for value in node.inputs:
            if value is not None:
                value.users.append(node)
        if before is None:
            self.nodes.append(node)
        else:
            self.nodes.insert(self._index(before), node)
        return node

    # ------------------------------------------------------------------ mutation
    def replace_uses(self, old: Value, new: Value, *, except_for: Node | None = None) -> None:
        """Let every user of ``old`` (graph outputs included) read ``new``."""
        for user in list(dict.fromkeys(old.users)):
            if user is except_for:
                continue
            for index, value in enumerate(user.inputs):
                if value is old:
                    self.set_input(user, index, new)
        self.outputs = [new if v is old else v for v in self.outputs]

    def set_input(self, node: Node, index: int, value: Value | None) -> None:
        """Replace one operand of ``node``."""
        old = node.inputs[index]
        if old is not None:
            old.users.remove(node)
        node.inputs[index] = value
        if value is not None:
            value.users.append(node)

    def set_inputs(self, node: Node, values: Iterable[Value | None]) -> None:
        """Replace all operands of ``node``."""
        for index in range(len(node.inputs)):
            self.set_input(node, index, None)
        node.inputs = []
        for value in values:
            node.inputs.append(None)
            self.set_input(node, len(node.inputs) - 1, value)

    def remove_node(self, node: Node) -> None:
        """Remove a node whose result nobody uses."""
        if node.output.users or any(v is node.output for v in self.outputs):
            raise ValueError(f"{node} is still used")
        for index in range(len(node.inputs)):
            self.set_input(node, index, None)
        self.nodes.remove(node)

    def remove_dead_nodes(self) -> list[Node]:
        """Remove every node that no output depends on; returns what was removed, last first."""
        outputs = set(map(id, self.outputs))
        removed = []
        for node in reversed(list(self.nodes)):
            if not node.output.users and id(node.output) not in outputs:
                self.remove_node(node)
                removed.append(node)
        return removed

    # ------------------------------------------------------------------ reading
    def _index(self, node: Node) -> int:
        for index, other in enumerate(self.nodes):
            if other is node:
                return index
        raise ValueError(f"{node} is not in graph {self.name}")

    def constants(self) -> list[Value]:
        """Every constant in use, in order of first use."""
        found: dict[int, Value] = {}
        for value in self._operands():
            if value.is_constant:
                found.setdefault(id(value), value)
        for value in self.outputs:
            if value.is_constant:
                found.setdefault(id(value), value)
        return list(found.values())

    def _operands(self) -> Iterator[Value]:
        for node in self.nodes:
            yield from (v for v in node.inputs if v is not None)

    def values(self) -> list[Value]:
        """Inputs, then constants, then node results."""
        return [*self.inputs, *self.constants(), *(n.output for n in self.nodes)]

    def is_output(self, value: Value) -> bool:
        """True if ``value`` is one of the graph's results."""
        return any(v is value for v in self.outputs)

    def clone(self) -> Graph:
        """A deep copy that shares only the (immutable by convention) constant arrays."""
        copy = Graph(self.name, self.stage)
        copy._names = dict(self._names)
        mapped: dict[int, Value] = {}

        def value_of(v: Value) -> Value:
            if id(v) not in mapped:
                mapped[id(v)] = Value(v.name, v.type, None, v.data, v.range, v.fused)
            return mapped[id(v)]

        copy.inputs = [value_of(v) for v in self.inputs]
        for node in self.nodes:
            inputs = [value_of(v) if v is not None else None for v in node.inputs]
            twin = Node(node.op, inputs, value_of(node.output), node.location)
            twin.output.producer = twin
            for v in inputs:
                if v is not None:
                    v.users.append(twin)
            copy.nodes.append(twin)
        copy.outputs = [value_of(v) for v in self.outputs]
        copy.output_names = list(self.output_names)
        return copy
