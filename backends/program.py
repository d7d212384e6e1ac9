"""Program: all that emission needs, as data: calls in order, where every tensor lives, packed constants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from qcc.backends.bands import rowwise
from qcc.backends.boundary import with_boundary
from qcc.backends.c.names import library_name
from qcc.backends.integers import integer_rows, require_integers
from qcc.backends.joining import Joined, join_concats
from qcc.backends.kernel import Call, Kernel, Part, Step
from qcc.backends.memory_plan import Buffer, MemoryPlan, alive_bytes, plan_memory
from qcc.backends.parallel import Sharing, share_work
from qcc.backends.select import Candidate, Order, Refusal, Selection, as_ranked, is_alias, select
from qcc.backends.stream import (
    Banded,
    Stream,
    Streaming,
    Streams,
    choose_streams,
    step_instructions,
)
from qcc.backends.target import Target
from qcc.ir.errors import TargetError
from qcc.ir.graph import Graph, Value

PORT_ALIGNMENT = 16  # of each input and output in its block
Planned = tuple[dict[int, "Place"], MemoryPlan, list[int | None]]  # see _Storage.plan


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


@dataclass(frozen=True)
class Operation:
    """One kernel call. ``workspace``: offset in the arena, None when the call needs none.

    ``refused``, ``candidates``: see ``Selection``; ``sharing``: how threads share the step; ``part_workspace_bytes``:
    from the workspace of one part to that of the next; ``banded``: how it is computed where it belongs to a stream.
    """

    step: Step
    kernel: Kernel
    call: Call
    refused: tuple[Refusal, ...]
    candidates: tuple[Candidate, ...]
    workspace: int | None
    sharing: Sharing
    part_workspace_bytes: int
    banded: Banded | None = None

    @property
    def inputs(self) -> tuple[Value | None, ...]:
        """The pointers the kernel gets, None for NULL."""
        return self.step.inputs if self.call.inputs is None else self.call.inputs

    @property
    def parts(self) -> tuple[Part, ...]:
        """What threads compute at the same time; none where one thread computes the step."""
        return self.sharing.parts

    @property
    def workspace_bytes(self) -> int:
        """Scratch memory of all parts."""
        return self.part_workspace_bytes * max(1, len(self.parts))

    @property
    def output_bytes(self) -> int:
        """Of the buffer of the result: fewer than the result has where it is never whole."""
        return self.step.output.type.bytes if self.banded is None else self.banded.bytes

    @property
    def is_whole(self) -> bool:
        """The result is somewhere, at some time."""
        return self.banded is None or self.banded.is_whole

    @property
    def beaten(self) -> tuple[Candidate, ...]:
        """Candidates that competed with the kernel: of its priority, or measured."""
        return tuple(
            c
            for c in self.candidates[1:]
            if c.microseconds is not None or c.kernel.priority == self.kernel.priority
        )

    @property
    def macs(self) -> int:
        """Multiply-accumulates of all its nodes."""
        return sum(node.op.macs(node.signature) for node in self.step.nodes)


@dataclass(frozen=True)
class Program:
    """A graph made ready for a target.

    ``places``: by ``id`` of the value, through ``place``; ``copies``: outputs whose bytes are computed elsewhere
    (an output that is also an input, a constant, or another output); ``threads``: how many the program is made for;
    ``owners``: by ``id`` of a value the one whose memory holds it, through ``owner``; ``joined``: by ``id`` of a step's
    result where it lies in that of a concatenation, which then is no operation;
    ``streams``: steps that are computed in bands of rows, in order; ``unstreamed_bytes``: the arena without them.
    """

    name: str
    graph: Graph
    target: Target
    operations: tuple[Operation, ...]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    input_bytes: int
    output_bytes: int
    input_arena_offset: int
    output_arena_offset: int
    copies: tuple[Port, ...]
    places: dict[int, Place]
    plan: MemoryPlan
    owners: dict[int, Value]
    joined: dict[int, Joined]
    threads: int = 1
    streams: tuple[Stream, ...] = ()
    unstreamed_bytes: int = 0

    @property
    def parts(self) -> int:
        """Parts of the step that has most of them: as many threads are of use. 1: nothing is shared."""
        return max((len(op.parts) for op in self.operations), default=1) or 1

    def place(self, value: Value) -> Place:
        """Where ``value`` lives."""
        return self.places[id(value)]

    def owner(self, value: Value) -> Value:
        """The value whose memory holds ``value``: itself for most."""
        return self.owners[id(value)]


def build_program(
    graph: Graph,
    target: Target,
    name: str,
    io: str = "int8",
    order: Order = as_ranked,
    threads: int = 1,
    no_float: bool = False,
    join: bool = True,
    stream: Streaming = "off",
    ram: int | None = None,
) -> Program:
    """Select kernels, pack constants, share the work of steps between ``threads``, plan memory.

    ``io``: see ``with_boundary``; ``order``: see ``select``; ``no_float``: only kernels that compute with integers;
    ``join``: drop concatenations whose operands can be written in place, see ``join_concats``.
    ``stream``, ``ram``: see ``choose_streams``; steps that threads share are not streamed.
    Raises TargetError when a step has no kernel, or the target no threads, or with ``no_float`` a value is in float, or
    the arena does not fit into ``ram`` bytes.
    """
    if threads > 1 and target.semihosting:
        raise TargetError(
            f"target {target.name} has no threads: its programs run without an operating system",
            hint="compile with one thread, the default",
        )
    graph = with_boundary(graph, io)
    if no_float:
        require_integers(graph)
    selections = select(graph, integer_rows(target.kernels) if no_float else target.kernels, order)
    calls = [s.kernel.lower(s.step) for s in selections]
    joined: dict[int, Joined] = {}
    if join:
        selections, calls, joined = join_concats(graph, selections, calls)
    inputs, input_bytes = _ports(graph.inputs, [v.name for v in graph.inputs])
    outputs, output_bytes = _ports(graph.outputs, graph.output_names)
    sharings = share_work([(s.kernel, s.step, c) for s, c in zip(selections, calls, strict=True)], threads)
    apart = [
        _aligned(call.workspace_bytes, sharing, target) for call, sharing in zip(calls, sharings, strict=True)
    ]
    spaces = [bytes_ * max(1, len(sharing.parts)) for bytes_, sharing in zip(apart, sharings, strict=True)]
    storage = _Storage(graph, selections, calls, joined, spaces, input_bytes, output_bytes)
    storage.place_ports(inputs, outputs)

    @cache
    def planned(streams: tuple[Stream, ...], is_draft: bool) -> Planned:
        storage.streams = streams
        return storage.plan(target.alignment, is_draft)

    plain = planned((), False)[1].arena_bytes
    is_wanted = stream != "auto" or target.semihosting or ram is not None
    chosen = choose_streams(
        lambda: storage.candidates(target.alignment),
        lambda streams, is_draft: planned(streams, is_draft)[1].arena_bytes,
        plain,
        stream if threads == 1 and is_wanted else "off",
        ram,
    )
    places, plan, workspaces = planned(chosen, False)
    banded = {s.first + i: b for s in chosen for i, b in enumerate(s.banded)}
    operations = tuple(
        Operation(s.step, s.kernel, call, s.refused, s.candidates, workspace, sharing, bytes_, banded.get(i))
        for i, (s, call, workspace, sharing, bytes_) in enumerate(
            zip(selections, calls, workspaces, sharings, apart, strict=True)
        )
    )
    return Program(
        library_name(name, {k.source.stem for k in target.kernels}),
        graph,
        target,
        operations,
        inputs,
        outputs,
        input_bytes,
        output_bytes,
        plan.offsets[0],
        plan.offsets[1],
        tuple(storage.copies),
        places,
        plan,
        storage.root,
        joined,
        threads,
        chosen,
        plain,
    )


def _aligned(workspace_bytes: int, sharing: Sharing, target: Target) -> int:
    """The workspace of a part, up to where that of the next one begins."""
    alignment = target.alignment if sharing.parts else 1
    return -(-workspace_bytes // alignment) * alignment


def _ports(values: Sequence[Value], names: Sequence[str]) -> tuple[tuple[Port, ...], int]:
    """Concatenated in order, each aligned; the bytes of all."""
    ports, end = [], 0
    for value, name in zip(values, names, strict=True):
        offset = -(-end // PORT_ALIGNMENT) * PORT_ALIGNMENT
        ports.append(Port(name, value, offset))
        end = offset + value.type.bytes
    return tuple(ports), end


class _Storage:
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
