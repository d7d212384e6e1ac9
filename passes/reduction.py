"""The smallest graph on which something still fails: delta debugging of outputs, nodes, constants and sizes.

Source of the chunked removal: A. Zeller and R. Hildebrandt, Simplifying and Isolating Failure-Inducing Input, IEEE TSE 28(2),
2002 (ddmin). A graph has more to offer than subsets: a result becomes an output, or an input, and the rest falls away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from qcc.ir.errors import QccError
from qcc.ir.graph import Graph, Value
from qcc.ir.printer import INLINE_ELEMENTS
from qcc.ir.verifier import verify

Fails = Callable[[Graph], bool]
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Reduced:
    """The smallest graph found, and how many graphs were tried on the way."""

    graph: Graph
    tried: int


def reduce_graph(
    graph: Graph, fails: Fails, progress: Progress = lambda what, done, total: None, limit: int = 2000
) -> Reduced:
    """A graph made of parts of ``graph`` on which ``fails`` holds, none of whose steps down does, after ``limit`` tries
    at most. ``graph`` stays as it is.

    ``fails`` gets graphs of its own, which it may change; only those that the verifier accepts. Raises QccError where it does
    not hold for ``graph``.
    """
    return _Reducer(graph, fails, progress, limit).run()


def input_name(name: str) -> str:
    """Of the graph input that takes the place of the result ``name``."""
    return f"{name}_in"


class _Reducer:
    """The best graph so far, and the ways down from it."""

    def __init__(self, graph: Graph, fails: Fails, progress: Progress, limit: int) -> None:
        self.best, self.fails, self.progress, self.limit = graph, fails, progress, limit
        self.tried = 0

    def run(self) -> Reduced:
        if not self.fails(self.best.clone()):
            raise QccError("nothing to reduce: the graph as it is does not fail")
        ways = (
            self._end_early,
            self._cut_outputs,
            self._start_late,
            self._bypass,
            self._sizes,
            self._constants,
        )
        before = None
        while before is not self.best and self.tried < self.limit:
            before = self.best
            for way in ways:
                way()
        return Reduced(self.best, self.tried)

    def _accept(self, candidate: Graph | None) -> bool:
        """Take ``candidate`` as the best where it is a legal graph that fails."""
        if candidate is None or self.tried >= self.limit:
            return False
        try:
            verify(candidate)
        except QccError:
            return False
        self.tried += 1
        self.progress(f"reducing: {len(self.best.nodes)} nodes", self.tried, 0)
        if not self.fails(candidate.clone()):
            return False
        self.best = candidate
        return True

    # ------------------------------------------------------------ ways down
    def _end_early(self) -> None:
        """One result as the only output: the earliest by bisection, which finds one where failing is monotone."""
        low, high = 0, len(self.best.nodes) - 1
        names = [n.name for n in self.best.nodes]
        while low < high:
            middle = (low + high) // 2
            if self._accept(_ending(self.best, names[middle])):
                names = [n.name for n in self.best.nodes]
                low, high = 0, len(names) - 1
            else:
                low = middle + 1
        if len(self.best.nodes) > 1:
            self._accept(_ending(self.best, self.best.nodes[-1].name))

    def _cut_outputs(self) -> None:
        self._remove([*dict.fromkeys(v.name for v in self.best.outputs)], _without_outputs)

    def _start_late(self) -> None:
        self._remove([n.name for n in self.best.nodes], _with_inputs)

    def _remove(self, names: Sequence[str], cut: Callable[[Graph, frozenset[str]], Graph | None]) -> None:
        """Cut chunks of ``names``, halves first, then smaller ones, down to each alone."""
        size = len(names)
        while size:
            for start in range(0, len(names), size):
                self._accept(cut(self.best, frozenset(names[start : start + size])))
            size //= 2

    def _bypass(self) -> None:
        """A node gives way to an operand of its type."""
        for name in [n.name for n in reversed(self.best.nodes)]:
            self._first(_bypassed(self.best, name))

    def _sizes(self) -> None:
        """Every axis of one length, of inputs and of constants, gets shorter: 1, or half; types follow."""
        values = [*self.best.inputs, *self.best.constants()]
        for size in sorted({s for v in values for s in v.type.shape if s > 1}, reverse=True):
            while size > 1 and self._accept(_resized(self.best, size, size // 2)):
                size //= 2

    def _constants(self) -> None:
        """A constant becomes one number: 0, or 1."""
        for name in [v.name for v in self.best.constants() if v.type.elements > INLINE_ELEMENTS]:
            self._first(_uniform(self.best, name, number) for number in (0, 1))

    def _first(self, candidates: Iterable[Graph | None]) -> None:
        any(self._accept(candidate) for candidate in candidates)


# ---------------------------------------------------------------- smaller graphs; None where there is none
def _ending(graph: Graph, name: str) -> Graph | None:
    copy = graph.clone()
    last = next((n for n in copy.nodes if n.name == name), None)
    if last is None or copy.outputs == [last.output]:
        return None
    copy.outputs, copy.output_names = [last.output], [last.name]
    return _tidied(copy)


def _without_outputs(graph: Graph, names: frozenset[str]) -> Graph | None:
    copy = graph.clone()
    kept = [(v, n) for v, n in zip(copy.outputs, copy.output_names, strict=True) if v.name not in names]
    if not kept or len(kept) == len(copy.outputs):
        return None
    copy.outputs, copy.output_names = [v for v, _ in kept], [n for _, n in kept]
    return _tidied(copy)


def _with_inputs(graph: Graph, names: frozenset[str]) -> Graph | None:
    """The results ``names`` come from outside; what only led to them goes."""
    copy = graph.clone()
    for node in [n for n in copy.nodes if n.name in names]:
        if node.output.users:
            new = copy.add_input(input_name(node.name), node.output.type)
            new.range, new.fused = node.output.range, node.output.fused
            for user in [*dict.fromkeys(node.output.users)]:
                for index, value in enumerate(user.inputs):
                    if value is node.output:
                        copy.set_input(user, index, new)
    copy = _tidied(copy)
    return copy if 0 < len(copy.nodes) < len(graph.nodes) else None


def _bypassed(graph: Graph, name: str) -> Iterator[Graph | None]:
    found = next((n for n in graph.nodes if n.name == name), None)
    for index, operand in enumerate(found.inputs if found is not None else ()):
        assert found is not None
        if operand is None or operand.is_constant or operand.type != found.output.type:
            continue
        copy = graph.clone()
        node = copy.nodes[graph.nodes.index(found)]
        copy.replace_uses(node.output, node.input(index))
        yield _tidied(copy)


def _resized(graph: Graph, old: int, new: int) -> Graph | None:
    """Every axis of length ``old`` gets the length ``new``: the first elements stay. None where a node cannot follow."""
    copy = graph.clone()
    for value in (*copy.inputs, *copy.constants()):
        qparams = value.type.qparams
        if qparams is not None and qparams.axis is not None and value.type.shape[qparams.axis] == old:
            return None
        value.type = value.type.with_shape(tuple(new if s == old else s for s in value.type.shape))
        if value.data is not None:
            value.data = np.ascontiguousarray(value.data[tuple(slice(s) for s in value.type.shape)])
    try:
        for node in copy.nodes:
            inferred = node.op.infer(*(v.type if v is not None else None for v in node.inputs))
            node.output.type = node.output.type.with_shape(inferred.shape)
    except QccError:
        return None
    return copy


def _uniform(graph: Graph, name: str, number: int) -> Graph | None:
    copy = graph.clone()
    value = next((v for v in copy.constants() if v.name == name), None)
    if value is None or value.data is None or (value.data == value.data.flat[0]).all():
        return None
    value.data = np.full_like(value.data, number)
    return copy


def _tidied(graph: Graph) -> Graph:
    """Without what no output depends on; an output that is an input, or twice there, is none."""
    pairs: dict[int, tuple[Value, str]] = {}
    for value, name in zip(graph.outputs, graph.output_names, strict=True):
        if value.producer is not None:
            pairs.setdefault(id(value), (value, name))
    graph.outputs, graph.output_names = [v for v, _ in pairs.values()], [n for _, n in pairs.values()]
    graph.remove_dead_nodes()
    graph.inputs = [v for v in graph.inputs if v.users]
    return graph
