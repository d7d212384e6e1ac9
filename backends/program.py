"""Program: all that emission needs, as data: calls in order, where every tensor lives, packed constants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from qcc.backends.boundary import with_boundary
from qcc.backends.c.names import library_name
from qcc.backends.integers import integer_rows, require_integers
from qcc.backends.joining import Joined, join_concats
from qcc.backends.kernel import Call, Kernel, Part, Step
from qcc.backends.memory_plan import MemoryPlan
from qcc.backends.parallel import Sharing, share_work
from qcc.backends.select import Candidate, Order, Refusal, as_ranked, select
from qcc.backends.storage import Place, Planned, Port, Storage
from qcc.backends.stream import (
    Banded,
    Stream,
    Streaming,
    choose_streams,
)
from qcc.backends.target import Target
from qcc.ir.errors import TargetError
from qcc.ir.graph import Graph, Value

PORT_ALIGNMENT = 16  # of each input and output in its block


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
    if threads > 1 and target.generate is not None:
        raise TargetError(
            f"kernels of target {target.name} are compiled for one thread",
            hint="compile with one thread, the default, or for the same processor with kernels in C",
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
    storage = Storage(graph, selections, calls, joined, spaces, input_bytes, output_bytes)
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
