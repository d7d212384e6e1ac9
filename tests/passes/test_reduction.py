"""Reduction of failing graphs: what is left is minimal, legal, and fails as before."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcc.ir.builder import Builder
from qcc.ir.errors import QccError
from qcc.ir.graph import Graph
from qcc.ir.ops.activation import Clamp
from qcc.ir.ops.elementwise import Add, Mul
from qcc.ir.printer import print_graph
from qcc.ir.types import f32
from qcc.ir.verifier import verify
from qcc.passes.reduction import reduce_graph


def chain(length: int, guilty: frozenset[int], width: int = 6, outputs: int = 1) -> Graph:
    """x through ``length`` adds of a constant, some of which are products; the last results are outputs."""
    graph = Graph("chain")
    value = graph.add_input("x", f32(1, width))
    builder, rng = Builder(graph), np.random.default_rng(3)
    for number in range(length):
        data = rng.normal(size=(4, width)).astype(np.float32) if number == 0 else rng.normal(size=width)
        constant = builder.constant(data, f"c{number}")
        value = builder.emit(Mul() if number in guilty else Add(), value, constant, name=f"n{number}")
    for node in graph.nodes[-outputs:]:
        graph.add_output(node.output)
    return graph


def count(graph: Graph, op: type) -> int:
    return sum(isinstance(n.op, op) for n in graph.nodes)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 25), st.data())
def test_reduce_leaves_exactly_the_guilty_nodes(length: int, data: st.DataObject) -> None:
    guilty = data.draw(st.frozensets(st.integers(0, length - 1), min_size=1, max_size=3))
    graph = chain(length, guilty, outputs=data.draw(st.integers(1, length)))
    text = print_graph(graph)[0]
    found = reduce_graph(graph, lambda g: count(g, Mul) >= len(guilty))
    verify(found.graph)
    assert (count(found.graph, Mul), count(found.graph, Add)) == (len(guilty), 0)
    assert print_graph(graph)[0] == text  # the graph that was given stays as it is


def test_reduce_shrinks_sizes_and_constants() -> None:
    found = reduce_graph(chain(5, frozenset({3}), width=64), lambda g: count(g, Mul) == 1).graph
    assert [v.type.shape for v in found.inputs + found.constants()] in (
        [(1, 1), (1,)],
        [(4, 1), (1,)],
        [(2, 1), (1,)],
    )


def test_reduce_keeps_the_size_the_failure_needs() -> None:
    def fails(graph: Graph) -> bool:
        return any(isinstance(n.op, Mul) and n.output.type.shape[-1] >= 32 for n in graph.nodes)

    found = reduce_graph(chain(3, frozenset({1}), width=64), fails).graph
    assert found.outputs[0].type.shape[-1] == 32
    assert not found.constants()[0].data.any()  # what is in them plays no part


def test_reduce_keeps_the_numbers_the_failure_needs() -> None:
    def fails(graph: Graph) -> bool:
        return any(v.data is not None and v.data.max() > 1.5 for v in graph.constants())

    assert fails(reduce_graph(chain(8, frozenset(), width=64), fails).graph)


def test_reduce_stops_at_the_limit_and_reports_progress() -> None:
    seen: list[int] = []
    found = reduce_graph(
        chain(20, frozenset({9, 12})),
        lambda g: count(g, Mul) == 2,
        lambda what, done, total: seen.append(done),
        limit=5,
    )
    assert (found.tried, seen) == (5, [1, 2, 3, 4, 5])
    assert count(found.graph, Mul) == 2


def test_reduce_refuses_a_graph_that_does_not_fail() -> None:
    with pytest.raises(QccError, match="does not fail"):
        reduce_graph(chain(3, frozenset()), lambda g: count(g, Clamp) == 1)
