"""Memory plan: offsets in the arena for buffers that live at different times, close to the proven lower bound."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

SEARCH_PLACEMENTS = 200_000  # buffers placed by the local search in all: about a second at most
SEED = 20


@dataclass(frozen=True)
class Buffer:
    """``bytes`` needed from step ``first`` to step ``last``, both included."""

    name: str
    bytes: int
    first: int
    last: int

    def meets(self, other: Buffer) -> bool:
        """True if both are alive in some step."""
        return self.first <= other.last and other.first <= self.last


@dataclass(frozen=True)
class MemoryPlan:
    """``offsets``: one for each buffer; ``arena_bytes``: what they need; ``lower_bound_bytes``: what any plan needs.

    The lower bound is the largest sum of aligned sizes alive in one step.
    """

    offsets: tuple[int, ...]
    arena_bytes: int
    lower_bound_bytes: int


# By index of two buffers: bytes by which the first must begin before the second where it does not lie behind its end.
Leads = Mapping[tuple[int, int], int]


def plan_memory(
    buffers: Sequence[Buffer], alignment: int = 16, leads: Leads | None = None, is_draft: bool = False
) -> MemoryPlan:
    """Offsets, multiples of ``alignment``, such that buffers alive at the same time do not overlap.

    But for the pairs of ``leads``: the first overwrites the second while this is read, from its beginning on.

    Greedy first fit in several orders; while the best is above the lower bound, and this is no draft, a seeded local search
    over orders.
    Deterministic.
    """
    sizes = [-(-b.bytes // alignment) * alignment for b in buffers]
    leads = {pair: -(-lead // alignment) * alignment for pair, lead in (leads or {}).items()}
    bound = max(alive_bytes(buffers, sizes, leads).values(), default=0)
    meets = [[j for j, other in enumerate(buffers) if b.meets(other)] for b in buffers]
    keys: tuple[Callable[[int], tuple[int, ...]], ...] = (
        lambda i: (-sizes[i], buffers[i].first),
        lambda i: (buffers[i].first - buffers[i].last, -sizes[i]),
        lambda i: (sizes[i] * (buffers[i].first - buffers[i].last - 1), buffers[i].first),
        lambda i: (buffers[i].first, -sizes[i]),
        lambda i: (-buffers[i].last, -sizes[i]),
        lambda i: (-_pressure(i, sizes, meets), -sizes[i]),
    )
    orders = [sorted(range(len(buffers)), key=key) for key in keys]
    if leads:
        orders += [_leading_first(order, leads) for order in orders]
    placed = [_place(order, sizes, meets, leads) for order in orders]
    best = min(range(len(placed)), key=lambda i: _extent(placed[i], sizes))
    offsets = placed[best] if is_draft else _search(orders[best], placed[best], sizes, meets, leads, bound)
    return MemoryPlan(tuple(offsets), _extent(offsets, sizes), bound)


def alive_bytes(buffers: Sequence[Buffer], sizes: Sequence[int], leads: Leads) -> dict[int, int]:
    """Of every step in which a buffer begins, the bytes it needs: the most of them are a lower bound of any plan."""
    found = {
        step: sum(size for b, size in zip(buffers, sizes, strict=True) if b.first <= step <= b.last)
        for step in sorted({b.first for b in buffers})
    }
    for over in {first for first, _ in leads}:
        for step in found:
            pairs = [(over, under) for first, under in leads if first == over]
            alive = [p for p in pairs if all(buffers[i].first <= step <= buffers[i].last for i in p)]
            shared = [sizes[i] + sizes[j] - max(leads[i, j] + sizes[j], sizes[i]) for i, j in alive]
            found[step] -= min(sizes[over], sum(shared))
    return found


def _leading_first(order: Sequence[int], leads: Leads) -> list[int]:
    """What must begin before another buffer is placed before it: below, there may be no room later."""
    found: dict[int, None] = {}

    def add(index: int) -> None:
        for first, second in leads:
            if second == index and first not in found:
                add(first)
        found[index] = None

    for index in order:
        add(index)
    return list(found)


def _pressure(index: int, sizes: Sequence[int], meets: Sequence[Sequence[int]]) -> int:
    return sum(sizes[j] for j in meets[index])


def _extent(offsets: Sequence[int], sizes: Sequence[int]) -> int:
    return max((o + s for o, s in zip(offsets, sizes, strict=True)), default=0)


def _place(
    order: Sequence[int], sizes: Sequence[int], meets: Sequence[Sequence[int]], leads: Leads
) -> list[int]:
    """Each buffer, in order, at the lowest offset that is free for its whole life."""
    offsets = [-1] * len(sizes)
    for index in order:
        offset = 0
        size = sizes[index]
        for start, end in sorted(
            (offsets[j] - leads.get((index, j), size), offsets[j] + leads.get((j, index), sizes[j]))
            for j in meets[index]
            if offsets[j] >= 0
        ):
            if offset <= start:
                break
            offset = max(offset, end)
        offsets[index] = offset
    return offsets


def _search(
    order: list[int],
    offsets: list[int],
    sizes: Sequence[int],
    meets: Sequence[Sequence[int]],
    leads: Leads,
    bound: int,
) -> list[int]:
    """Move one buffer to the place of another while this does not make the arena larger."""
    best = _extent(offsets, sizes)
    rounds = SEARCH_PLACEMENTS // max(1, len(order)) if len(order) > 1 else 0
    generator = random.Random(SEED)
    for _ in range(rounds):
        if best <= bound:
            break
        trial = list(order)
        trial.insert(generator.randrange(len(order)), trial.pop(generator.randrange(len(order))))
        moved = _place(trial, sizes, meets, leads)
        if (extent := _extent(moved, sizes)) <= best:
            order, offsets, best = trial, moved, extent
    return offsets
