"""Memory plans: buffers that live together never overlap, and the arena is near the lower bound."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qcc.backends import memory_plan
from qcc.backends.memory_plan import Buffer, MemoryPlan, plan_memory


def assert_valid(buffers: list[Buffer], plan: MemoryPlan, alignment: int) -> None:
    assert all(offset % alignment == 0 for offset in plan.offsets)
    for i, (a, start) in enumerate(zip(buffers, plan.offsets, strict=True)):
        assert 0 <= start <= start + a.bytes <= plan.arena_bytes
        for b, other in zip(buffers[i + 1 :], plan.offsets[i + 1 :], strict=True):
            together = any(b.first <= step <= b.last for step in range(a.first, a.last + 1))
            if together:
                assert start + a.bytes <= other or other + b.bytes <= start
    for step in range(max((b.last for b in buffers), default=0) + 1):
        alive = sum(b.bytes for b in buffers if b.first <= step <= b.last)
        assert plan.arena_bytes >= plan.lower_bound_bytes >= alive


@given(
    st.lists(st.tuples(st.integers(1, 300), st.integers(0, 12), st.integers(0, 6)), max_size=16),
    st.sampled_from([1, 16, 64]),
)
def test_plan_never_overlaps_live_buffers(rows: list[tuple[int, int, int]], alignment: int) -> None:
    memory_plan.SEARCH_PLACEMENTS, budget = 500, memory_plan.SEARCH_PLACEMENTS
    try:
        check_plan(rows, alignment)
    finally:
        memory_plan.SEARCH_PLACEMENTS = budget


def check_plan(rows: list[tuple[int, int, int]], alignment: int) -> None:
    buffers = [Buffer(f"b{i}", size, first, first + length) for i, (size, first, length) in enumerate(rows)]
    plan = plan_memory(buffers, alignment)
    assert_valid(buffers, plan, alignment)
    assert plan == plan_memory(buffers, alignment)
    assert plan.arena_bytes <= sum(-(-b.bytes // alignment) * alignment for b in buffers)


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([8000] * 9, 16000),
        ([490, 8000, 8000, 64, 12], 16000),
        ([640, 128, 128, 8, 128, 640], 768),
    ],
)
def test_plan_of_a_chain_is_its_largest_neighbours(sizes: list[int], expected: int) -> None:
    buffers = [Buffer(f"b{i}", size, i, i + 1) for i, size in enumerate(sizes)]
    plan = plan_memory(buffers, 16)
    assert plan.arena_bytes == plan.lower_bound_bytes == expected


def test_plan_keeps_a_residual_beside_the_chain() -> None:
    buffers = [Buffer("a", 100, 0, 3), Buffer("b", 100, 1, 2), Buffer("c", 100, 2, 3), Buffer("d", 100, 3, 4)]
    assert plan_memory(buffers, 1).arena_bytes == 300


def test_search_reaches_the_bound_where_greedy_orders_do_not() -> None:
    rows = [
        (106, 3, 4), (62, 0, 3), (130, 4, 6), (90, 5, 8), (55, 2, 3), (80, 7, 9), (140, 8, 9), (33, 1, 7),
        (71, 4, 5), (64, 6, 8), (120, 9, 11), (47, 0, 2), (95, 10, 12), (52, 9, 12), (110, 11, 13),
    ]  # fmt: skip
    buffers = [Buffer(f"b{i}", size, first, last) for i, (size, first, last) in enumerate(rows)]
    plan = plan_memory(buffers, 1)
    assert_valid(buffers, plan, 1)
    assert plan.arena_bytes <= 1.05 * plan.lower_bound_bytes


def test_plan_of_nothing_is_empty() -> None:
    assert plan_memory([]) == MemoryPlan((), 0, 0)


@given(
    st.lists(st.tuples(st.integers(1, 300), st.integers(1, 300)), min_size=2, max_size=8),
    st.sampled_from([1, 16]),
)
def test_a_buffer_that_leads_overwrites_no_more(chain: list[tuple[int, int]], alignment: int) -> None:
    """Each buffer of a chain is written over the one before it, at least so many bytes ahead."""
    buffers = [Buffer(f"b{i}", size, i, i + 1) for i, (size, _) in enumerate(chain)]
    leads = {(i + 1, i): min(ahead, buffers[i + 1].bytes) for i, (_, ahead) in enumerate(chain[:-1])}
    plan = plan_memory(buffers, alignment, leads, is_draft=True)
    assert all(offset % alignment == 0 for offset in plan.offsets)
    for (over, under), ahead in leads.items():
        below, above = plan.offsets[over], plan.offsets[under]
        assert below + ahead <= above or below >= above + buffers[under].bytes
    assert max(o + b.bytes for o, b in zip(plan.offsets, buffers, strict=True)) <= plan.arena_bytes
    assert max(b.bytes for b in buffers) <= plan.lower_bound_bytes <= plan.arena_bytes


def test_one_buffer_over_another() -> None:
    """The second begins 8 bytes before the first."""
    buffers = [Buffer("read", 96, 0, 1), Buffer("written", 64, 1, 2)]
    plan = plan_memory(buffers, 8, {(1, 0): 8})
    assert plan == MemoryPlan((8, 0), 104, 104)
