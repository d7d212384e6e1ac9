"""Where values live: groups that share memory, their lives, and places in the arena and in the caller's blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from qcc.backends.bands import rowwise
from qcc.backends.joining import Joined
from qcc.backends.kernel import Call
from qcc.backends.memory_plan import Buffer, MemoryPlan, alive_bytes, plan_memory
from qcc.backends.select import Selection, is_alias
from qcc.backends.stream import Stream, Streams, step_instructions
from qcc.ir.graph import Graph, Value


@dataclass(frozen=True)
class Place:
    """Where a tensor lives: ``region`` is ``arena``, ``input``, ``output`` (block of ports) or ``constant``."""

    region: str
    offset: int


@dataclass(frozen=True)
class Port:
    """One input or output: the model's name, and the offset in the block of all inputs or all outputs."""

    name: str
    value: Value
    offset: int


Planned = tuple[dict[int, Place], MemoryPlan, list[int | None]]
"""Places by id of value, the plan (buffers 0 and 1: blocks of inputs, outputs), the offset of each step's workspace."""


class Storage:
    """Values grouped by the memory they share (aliases, in-place results), with the life of each group."""

    def __init__(
        self,
        graph: Graph,
        selections: Sequence[Selection],
        calls: Sequence[Call],
        joined: Mapping[int, Joined],
        workspace_bytes: Sequence[int],
        input_bytes: int,
        output_bytes: int,
    ) -> None:
        self.graph, self.selections, self.calls, self.joined = graph, selections, calls, joined
        self.workspace_bytes = workspace_bytes  # of all parts of each call
        self.end = len(selections)  # a step after the last one: outputs are alive there
        self.block_bytes = {"input": input_bytes, "output": output_bytes}
        self.root = {id(v): v for v in graph.values()}  # the value that owns the memory
        for node in graph.nodes:
            if is_alias(node):
                self.root[id(node.output)] = self.root[id(node.input(0))]
        self.shift: dict[int, int] = {}  # bytes, by id: where in the memory of its owner a value begins
        for key, value in self.root.items():
            self.root[key], self.shift[key] = self._whole(value)
        self.fixed: dict[int, Place] = {
            id(v): Place("constant", 0) for v in graph.constants()
        }  # by id of root
        self.copies: list[Port] = []
        self.streams: Sequence[Stream] = ()

    def _whole(self, value: Value) -> tuple[Value, int]:
        """What a value is joined to, and where in it the value begins."""
        shift = 0
        while id(value) in self.joined:
            place = self.joined[id(value)]
            value, shift = place.whole, shift + place.offset
        return value, shift

    def place_ports(self, inputs: Sequence[Port], outputs: Sequence[Port]) -> None:
        """Inputs are read where the caller has them; outputs are written where the caller wants them, or copied."""
        for port in inputs:
            self.fixed[id(port.value)] = Place("input", port.offset)
        for port in outputs:
            owner = self.root[id(port.value)]
            if id(owner) in self.fixed:
                self.copies.append(port)
            else:
                self.fixed[id(owner)] = Place("output", port.offset)

    def plan(self, alignment: int, is_draft: bool = False) -> Planned:
        """Places by id of value, the plan (buffers 0 and 1: blocks of inputs, outputs), workspace offsets."""
        best: tuple[MemoryPlan, dict[int, int], list[int | None]] | None = None
        for exact in (
            True,
            False,
        ):  # a smaller result in a larger buffer saves one, but keeps the larger alive
            owner = self._in_place(exact)
            buffers, index = self._buffers(owner)
            spaces = self._add_workspaces(buffers)
            plan = plan_memory(buffers, alignment, self._leads(owner, index), is_draft)
            if best is None or plan.arena_bytes < best[0].arena_bytes:
                offsets = {key: plan.offsets[index[id(value)]] for key, value in owner.items()}
                best = plan, offsets, [None if i is None else plan.offsets[i] for i in spaces]
        assert best is not None
        plan, offsets, workspaces = best
        places: dict[int, Place] = {}
        for key, value in self.root.items():  # what is fused into a step lives nowhere
            shift = self.shift[key]
            if id(value) in self.fixed:
                fixed = self.fixed[id(value)]
                places[key] = Place(fixed.region, fixed.offset + shift)
            elif id(value) in offsets:
                places[key] = Place("arena", offsets[id(value)] + shift)
        return places, plan, workspaces

    def candidates(self, alignment: int) -> Streams:
        """What could be streamed."""

        def measure(streams: Sequence[Stream]) -> list[int]:
            self.streams = streams
            owner = self._in_place(exact=True)
            buffers, index = self._buffers(owner)
            self._add_workspaces(buffers)
            sizes = [-(-b.bytes // alignment) * alignment for b in buffers]
            alive, found = alive_bytes(buffers, sizes, self._leads(owner, index)), [0] * (self.end + 1)
            for step in range(self.end + 1):
                found[step] = alive.get(step, found[step - 1])
            return found[: self.end]

        steps = [  # a result among those of a concatenation is no buffer of its own, that could roll
            None if id(s.step.output) in self.joined else rowwise(s.kernel, s.step, c)
            for s, c in zip(self.selections, self.calls, strict=True)
        ]
        reads = [
            [*s.step.inputs, *(v for v in c.inputs or () if v is not None)]
            for s, c in zip(self.selections, self.calls, strict=True)
        ]
        work = [
            step_instructions(
                sum(n.op.macs(n.signature) for n in s.step.nodes),
                s.step.output.type.elements,
            )
            for s in self.selections
        ]
        return Streams(steps, work, reads, self.graph.outputs, self.root, measure)

    def _add_workspaces(self, buffers: list[Buffer]) -> list[int | None]:
        """Append them; the index of that of each step."""
        spaces: list[int | None] = []
        for step, size in enumerate(self.workspace_bytes):
            spaces.append(len(buffers) if size else None)
            if size:
                buffers.append(Buffer("workspace", size, step, step))
        return spaces

    def _leads(self, buffer: Mapping[int, Value], index: Mapping[int, int]) -> dict[tuple[int, int], int]:
        """By index of buffers: where the result of a stream may overwrite what the stream alone still reads."""
        lives, found = self._lives(), {}

        def buffer_of(value: Value) -> int | None:
            owner = self.root[id(value)]
            place = self.fixed.get(id(owner))
            if place is None:
                return index[id(buffer[id(owner)])]
            blocks = ("input", "output")
            if place.region in blocks and self.block_bytes[place.region] == value.type.bytes:
                return blocks.index(place.region)
            return None

        for stream in self.streams:
            over = buffer_of(stream.output)
            for value in {id(v): v for step in stream.steps for v in step.values if v is not None}.values():
                under = None if id(value) in stream.bytes else buffer_of(value)
                owner = self.root[id(value)]
                aliases = [v for step in stream.steps for v in step.step.inputs if self.root[id(v)] is owner]
                if (
                    over is not None
                    and under is not None
                    and lives[id(owner)][1] == stream.last
                    and all(v is value for v in aliases)
                ):
                    found[over, under] = stream.lead(value)
        return found

    def _lives(self) -> dict[int, tuple[int, int]]:
        """First and last step of every owner, by id. An input lives from before the first step."""
        lives: dict[int, tuple[int, int]] = {}

        def extend(value: Value, step: int) -> None:
            key = id(self.root[id(value)])
            first, last = lives.get(key, (step, step))
            lives[key] = (min(first, step), max(last, step))

        spans = self._spans()
        for value in self.graph.inputs:
            extend(value, 0)
        for step, (selection, call) in enumerate(zip(self.selections, self.calls, strict=True)):
            passed = call.inputs or ()
            begin, end = spans.get(step, (step, step))
            for value in (
                *selection.step.inputs,
                *(v for v in passed if v is not None),
                selection.step.output,
            ):
                extend(value, begin)
                extend(value, end)
        for value in self.graph.outputs:
            extend(value, self.end)
        return lives

    def _spans(self) -> dict[int, tuple[int, int]]:
        """Of each step of a stream, the first and the last step of that."""
        return {i: (s.first, s.last) for s in self.streams for i in range(s.first, s.last + 1)}

    def _in_place(self, exact: bool) -> dict[int, Value]:
        """By id of each owner in the arena: the owner whose buffer it takes, where its kernel may overwrite it."""
        lives, spans = self._lives(), self._spans()
        buffer = {key: self.root[key] for key in lives if key not in self.fixed}
        for step, (selection, call) in enumerate(zip(self.selections, self.calls, strict=True)):
            if (
                id(selection.step.output) in self.joined or step in spans
            ):  # what one band overwrites the next may read
                continue
            output = self.root[id(selection.step.output)]
            passed = selection.step.inputs if call.inputs is None else call.inputs
            owners = [None if v is None else self.root[id(v)] for v in passed]
            for index in selection.kernel.overwritable:
                source = owners[index] if index < len(owners) else None
                if source is None or id(output) not in buffer or id(source) not in buffer:
                    continue
                sizes = output.type.bytes, source.type.bytes
                fits = sizes[0] == sizes[1] if exact else sizes[0] <= sizes[1]
                if fits and lives[id(source)][1] == step and sum(o is source for o in owners) == 1:
                    buffer[id(output)] = buffer[id(source)]
                    break
        return buffer

    def _buffers(self, buffer: dict[int, Value]) -> tuple[list[Buffer], dict[int, int]]:
        lives = self._lives()
        held = {key: size for stream in self.streams for key, size in stream.bytes.items()}
        blocks: dict[str, tuple[int, int]] = {"input": (0, 0), "output": (self.end, self.end)}
        shared: dict[int, tuple[Value, int, int]] = {}
        for key, (first, last) in lives.items():
            place = self.fixed.get(key)
            if place is not None and place.region in blocks:
                begin, end = blocks[place.region]
                blocks[place.region] = (min(begin, first), max(end, last))
            elif place is None:
                owner = buffer[key]
                _, begin, end = shared.get(id(owner), (owner, first, last))
                shared[id(owner)] = (owner, min(begin, first), max(end, last))
        buffers = [Buffer(name, self.block_bytes[name], *blocks[name]) for name in ("input", "output")]
        index: dict[int, int] = {}
        for key, (owner, first, last) in shared.items():
            index[key] = len(buffers)
            buffers.append(Buffer(owner.name, held.get(key, owner.type.bytes), first, last))
        return buffers, index
