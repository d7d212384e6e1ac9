"""Streaming: which chains of steps are computed in bands of rows, so that the arena gets smaller at little cost."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import inf
from typing import Literal

from qcc.backends.bands import Rowwise, Schedule, lead, row_bytes, schedule
from qcc.backends.kernel import Part
from qcc.ir.errors import TargetError
from qcc.ir.graph import Value

Streaming = Literal["auto", "on", "off"]
STREAMING: tuple[Streaming, ...] = ("auto", "on", "off")
ATTEMPTS = 6  # to make a plan fit whose largest step does
LONGEST = 20  # steps of a stream
HEIGHTS = (1, 2, 3, 4, 6, 8, 12, 16)  # rows of the last result in a band
FREE_SHARE = 0.05  # of a model's instructions, that smaller memory may cost where nobody asked for it
# Instructions, roughly, on a processor without vectors; on one with them, all are fewer.
_CALL = 150  # of a kernel, once more
_MOVED_BYTE = 1.0
_SEEN_AGAIN = 3.0  # an element of the rows that two bands of a depthwise convolution read
_MAC, _RESULT = 1.5, 8.0


@dataclass(frozen=True)
class Banded:
    """How one step of a stream is computed: ``parts``, by band, None where it has nothing to do.

    ``moves``: before each, (bytes dropped at the front of the buffer of its result, bytes behind them that are kept);
    ``bytes``: of that buffer; ``is_whole``: it holds the whole result.
    """

    parts: tuple[Part | None, ...]
    moves: tuple[tuple[int, int], ...]
    bytes: int
    is_whole: bool


@dataclass(frozen=True, eq=False)
class Stream:
    """Steps from ``first`` on, computed band after band; ``whole``: whose results steps elsewhere read."""

    first: int
    steps: tuple[Rowwise, ...]
    whole: tuple[bool, ...]
    height: int

    @property
    def last(self) -> int:
        """The step behind which results are whole."""
        return self.first + len(self.steps) - 1

    @cached_property
    def schedule(self) -> Schedule:
        """What is computed when."""
        return schedule(self.steps, self.whole, self.height)

    @cached_property
    def bytes(self) -> Mapping[int, int]:
        """Of the buffer of each result, by id of the value."""
        found = zip(self.steps, self.schedule.capacity, strict=True)
        return {id(s.step.output): rows * row_bytes(s.step.output) for s, rows in found}

    @property
    def output(self) -> Value:
        """The last result."""
        return self.steps[-1].step.output

    def lead(self, value: Value) -> int:
        """Bytes by which ``output`` must begin before ``value`` to overwrite only what was read of it."""
        return lead(self.steps, self.schedule, value)

    @cached_property
    def banded(self) -> tuple[Banded, ...]:
        """The calls of each step."""
        plan = self.schedule
        bases = {id(s.step.output): plan.bases[i] for i, s in enumerate(self.steps)}
        found = []
        for step, rows, base, capacity in zip(self.steps, plan.rows, plan.bases, plan.capacity, strict=True):
            parts: list[Part | None] = []
            moves = []
            row, before = row_bytes(step.step.output), 0
            for band, (start, end) in enumerate(rows):
                dropped = base[band] - before
                moves.append(
                    (dropped * row, (start - base[band]) * row) if dropped and end > start else (0, 0)
                )
                if end == start:
                    parts.append(None)
                    continue
                before = base[band]
                part = step.part(start, end)
                inputs = tuple(
                    offset - (bases[id(v)][band] * elements(v) if id(v) in bases and v is not None else 0)
                    for v, offset in zip(step.values, part.inputs, strict=True)
                )
                parts.append(
                    replace(part, inputs=inputs, output=part.output - base[band] * elements(step.step.output))
                )
            found.append(Banded(tuple(parts), tuple(moves), capacity * row, capacity == step.height))
        return tuple(found)

    @cached_property
    def instructions(self) -> float:
        """Estimate of what the bands cost more than whole steps."""
        plan, total = self.schedule, 0.0
        for i, step in enumerate(self.steps):
            busy = [(band, start) for band, (start, end) in enumerate(plan.rows[i]) if end > start]
            total += _CALL * (len(busy) - 1)
            for (band, start), (earlier, _) in zip(busy[1:], busy, strict=False):
                if plan.bases[i][band] > plan.bases[i][earlier]:
                    total += _MOVED_BYTE * (start - plan.bases[i][band]) * row_bytes(step.step.output)
            reach, groups = step.reaches[0], getattr(step.step.root.op, "groups", 1)
            if reach is not None and groups > 1:
                again = max(0, reach.extent - reach.stride) * (len(busy) - 1)
                total += _SEEN_AGAIN * again * elements(step.values[0])
        return total


def elements(value: Value | None) -> int:
    """Of a row."""
    assert value is not None
    return value.type.elements // value.type.shape[1]


def step_instructions(macs: int, results: int) -> float:
    """Estimate for a whole step of ``macs`` multiply-accumulates and as many ``results``."""
    return _MAC * macs + _RESULT * results


class Streams:
    """The streams a program could have, each looked at when it is needed.

    ``steps``: those that can be computed by rows, None for the others; ``work``: of each step, in instructions; ``reads``:
    what each reads; ``kept``: what lives on behind the last; ``root``: the value that owns the memory of a value,
    by id; ``measure``: bytes alive in each step with the given streams.
    """

    def __init__(
        self,
        steps: Sequence[Rowwise | None],
        work: Sequence[float],
        reads: Sequence[Sequence[Value]],
        kept: Sequence[Value],
        root: Mapping[int, Value],
        measure: Callable[[Sequence[Stream]], Sequence[int]],
    ) -> None:
        self.steps, self.work, self.root, self.measure = steps, work, root, measure
        self.readers: dict[int, list[int]] = {}
        for index, values in enumerate(reads):
            for value in values:
                self.readers.setdefault(id(root[id(value)]), []).append(index)
        for value in kept:
            self.readers.setdefault(id(root[id(value)]), []).append(len(steps))
        self.plain = tuple(measure(()))
        self._found: dict[tuple[int, int, int], tuple[Stream, int] | None] = {}

    def cheapest(self, limit: int) -> tuple[float, tuple[Stream, ...]] | None:
        """The streams that keep each step within ``limit`` bytes for the fewest instructions, if there are any."""
        count = len(self.steps)
        best: list[tuple[float, tuple[Stream, ...]] | None] = [(0.0, ()), *[None] * count]

        def offer(end: int, cost: float, streams: tuple[Stream, ...]) -> None:
            known = best[end]
            if known is None or cost < known[0]:
                best[end] = cost, streams

        for i in range(count):
            here = best[i]
            if here is None:
                continue
            if self.plain[i] <= limit:
                offer(i + 1, *here)
            for stream in self._from(i, limit):
                offer(stream.last + 1, here[0] + stream.instructions, (*here[1], stream))
        return best[count]

    def ever_smaller(self, most_instructions: float) -> Iterator[tuple[Stream, ...]]:
        """Those that make the largest step ever smaller, for at most so many more instructions; the last ones, smallest."""
        high, low = max(self.plain, default=0), 0
        while high - low > max(64, high // 200):
            middle = (low + high) // 2
            found = self.cheapest(middle)
            if found is None or found[0] > most_instructions:
                low = middle
            else:
                high = middle
                yield found[1]

    def _from(self, first: int, limit: int) -> Iterator[Stream]:
        """Those within ``limit`` that begin with step ``first`` and hold a step that is beyond."""
        needed = False
        for last in range(first, min(len(self.steps), first + LONGEST)):
            if self.steps[last] is None:
                return
            needed = needed or self.plain[last] > limit
            if not needed:
                continue
            for height in HEIGHTS:
                found = self._stream(first, last, height)
                if found is None or found[1] > limit:
                    break
                yield found[0]

    def _stream(self, first: int, last: int, height: int) -> tuple[Stream, int] | None:
        """With the most bytes that are alive in one of its steps; None where it would be no stream."""
        key = first, last, height
        if key not in self._found:
            stream = self._make(*key)
            most = max(self.measure((stream,))[first : last + 1]) if stream else 0
            self._found[key] = (stream, most) if stream else None
        return self._found[key]

    def _make(self, first: int, last: int, height: int) -> Stream | None:
        steps = [s for s in self.steps[first : last + 1] if s is not None]
        if height >= steps[-1].height:
            return None
        made = {id(self.root[id(s.step.output)]): s.step.output for s in steps}
        if len(made) < len(steps):
            return None
        for step in steps:
            for value, reach in zip(step.values, step.reaches, strict=True):
                maker = None if value is None else made.get(id(self.root[id(value)]))
                if maker is not None and (maker is not value or reach is None):
                    return None  # under another shape, or read as a whole
        whole = tuple(
            any(not first <= i <= last for i in self.readers.get(id(self.root[id(s.step.output)]), ()))
            for s in steps
        )
        return Stream(first, tuple(steps), whole, height)


def choose_streams(
    candidates: Callable[[], Streams],
    arena_bytes: Callable[[tuple[Stream, ...], bool], int],
    plain: int,
    mode: Streaming,
    ram: int | None,
) -> tuple[Stream, ...]:
    """The streams of a program whose arena takes ``plain`` bytes without any.

    ``mode``: "on" makes the arena as small as it gets, "auto" as far as this is nearly free, "off" has none. With ``ram``,
    an arena that fits is left as it is, otherwise the cheapest streams are chosen that make it fit; TargetError where
    there are none. ``arena_bytes``: what the plan, or a draft of it, needs with some streams.
    """
    if ram is not None and plain <= ram:
        return ()
    if mode == "off":
        if ram is not None:
            raise _too_large(plain, ram, "allow streams, on one thread")
        return ()
    found = candidates()

    def smallest(most_instructions: float) -> tuple[Stream, ...]:
        return min(
            ((), *found.ever_smaller(most_instructions)), key=lambda streams: arena_bytes(streams, True)
        )

    if ram is None:
        most = FREE_SHARE * sum(found.work) if mode == "auto" else inf
        chosen = smallest(most)
        return chosen if arena_bytes(chosen, False) < plain else ()
    limit = ram
    for _ in range(ATTEMPTS):
        cheapest = found.cheapest(limit)
        if cheapest is None:
            break
        excess = arena_bytes(cheapest[1], False) - ram
        if excess <= 0:
            return cheapest[1]
        limit -= max(excess, ram // 50)  # the plan is above its lower bound
    chosen = smallest(inf)
    least = arena_bytes(chosen, False)
    if least <= ram:
        return chosen
    raise _too_large(least, ram, "choose a smaller model, or a processor with more memory")


def _too_large(least: int, ram: int, way_out: str) -> TargetError:
    return TargetError(f"the arena takes at least {least} bytes, more than the {ram} there are", hint=way_out)
