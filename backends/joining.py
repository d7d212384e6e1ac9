"""Concatenation in place: steps write their results where the concatenation would copy them to, and it is no step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

from qcc.backends.kernel import Call
from qcc.backends.select import Selection, is_alias
from qcc.backends.split import OUTPUT_STEP
from qcc.ir.graph import Graph, Value
from qcc.ir.ops.rearrange import Concat


@dataclass(frozen=True)
class Joined:
    """Where a value lies in the memory of ``whole``: from byte ``offset`` on, its pixels ``step`` elements apart.

    A pixel is what lies side by side along the last axis; ``step`` 0: one behind the other.
    """

    whole: Value
    offset: int
    step: int = 0

    def span(self, value: Value) -> int:
        """Bytes from the first to the last of ``value``."""
        channels, size = value.type.shape[-1], value.type.dtype.bytes
        pixels = value.type.elements // channels
        return ((pixels - 1) * self.step + channels) * size if self.step else value.type.bytes


def join_concats(
    graph: Graph, selections: Sequence[Selection], calls: Sequence[Call]
) -> tuple[list[Selection], list[Call], dict[int, Joined]]:
    """Drop the concatenations whose operands can all be written in place.

    An operand can when nothing else reads it, and either it is one run of the result, or the kernel that computes it can
    leave room between pixels (``_can_step``). Returns the selections and calls that remain, and by ``id`` of each value
    that lies in another's memory: where.
    """
    owners = {id(v): v for v in graph.values()}
    for node in graph.nodes:
        if is_alias(node):
            owners[id(node.output)] = owners[id(node.input(0))]
    readers = (v for n in graph.nodes if not is_alias(n) for v in n.inputs if v is not None)
    uses = Counter(id(owners[id(v)]) for v in (*readers, *graph.outputs))
    made: dict[int, int] = {}  # by id of a value, the index of its step
    kept: dict[int, Call] = {}  # by index of a step
    joined: dict[int, Joined] = {}
    for index, (selection, call) in enumerate(zip(selections, calls, strict=True)):
        made[id(selection.step.output)], kept[index] = index, call
        node = selection.step.root
        if not isinstance(node.op, Concat):
            continue
        operands = [owners[id(v)] for v in node.inputs if v is not None]
        if any(id(v) not in made or uses[id(v)] > 1 for v in operands):
            continue
        blocks = prod(node.output.type.shape[: node.op.axis])
        runs = [v.type.elements // blocks for v in operands]
        makers = [made[id(v)] for v in operands]
        step = sum(runs) if blocks > 1 else 0
        if step and not all(
            _can_step(selections[maker], kept, maker, run) for maker, run in zip(makers, runs, strict=True)
        ):
            continue
        del kept[index]
        for position, (value, maker) in enumerate(zip(operands, makers, strict=True)):
            offset = sum(runs[:position]) * value.type.dtype.bytes
            joined[id(value)] = Joined(node.output, offset, step)
            if step:
                kept[maker] = replace(kept[maker], params={**kept[maker].params, OUTPUT_STEP: step})
    return [selections[index] for index in kept], list(kept.values()), joined


def _can_step(selection: Selection, kept: Mapping[int, Call], index: int, run: int) -> bool:
    """Whether the kernel can leave room between runs of ``run`` elements.

    It has ``output_step`` among its params, and does not count several pixels as one; a residual operand, which is read
    with the same step, it must not have.
    """
    if index not in kept:
        return False
    step, call = selection.step, kept[index]
    passed = step.inputs if call.inputs is None else call.inputs
    pixel = step.output.type.shape[-1]
    return call.params.get(OUTPUT_STEP) == pixel == run and sum(v is not None for v in passed) == 1
