"""Memory plan: offsets in the arena for buffers that live at different times, close to the proven lower bound."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
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


def plan_memory(buffers: Sequence[Buffer], alignment: int = 16) -> MemoryPlan:
    """Offsets, multiples of ``alignment``, such that buffers alive at the same time do not overlap.

    Greedy first fit in several orders; while the best is above the lower bound, a seeded local search over orders.
    Deterministic.
    """
    sizes = [-(-b.bytes // alignment) * alignment for b in buffers]
    bound = lower_bound(buffers, sizes)
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
    placed = [_place(order, sizes, meets) for order in orders]
    best = min(range(len(placed)), key=lambda i: _extent(placed[i], sizes))
    offsets = _search(orders[best], placed[best], sizes, meets, bound)
    return MemoryPlan(tuple(offsets), _extent(offsets, sizes), bound)


def lower_bound(buffers: Sequence[Buffer], sizes: Sequence[int]) -> int:
    """Largest sum of sizes alive in one step; it can only rise where a buffer begins."""
    return max(
        (
            sum(size for b, size in zip(buffers, sizes, strict=True) if b.first <= step <= b.last)
            for step in {b.first: None for b in buffers}
        ),
        default=0,
    )


def _pressure(index: int, sizes: Sequence[int], meets: Sequence[Sequence[int]]) -> int:
    return sum(sizes[j] for j in meets[index])


def _extent(offsets: Sequence[int], sizes: Sequence[int]) -> int:
    return max((o + s for o, s in zip(offsets, sizes, strict=True)), default=0)


def _place(order: Sequence[int], sizes: Sequence[int], meets: Sequence[Sequence[int]]) -> list[int]:
    """Each buffer, in order, at the lowest offset that is free for its whole life."""
    offsets = [-1] * len(sizes)
    for index in order:
        offset = 0
        for start, end in sorted(
            (offsets[j], offsets[j] + sizes[j]) for j in meets[index] if offsets[j] >= 0
        ):
            if start - offset >= sizes[index]:
                break
            offset = max(offset, end)
        offsets[index] = offset
    return offsets


def _search(
    order: list[int], offsets: list[int], sizes: Sequence[int], meets: Sequence[Sequence[int]], bound: int
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
        moved = _place(trial, sizes, meets)
        if (extent := _extent(moved, sizes)) <= best:
            order, offsets, best = trial, moved, extent
    return offsets
