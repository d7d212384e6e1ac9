"""Whether ranges that clip serve the outputs: each may be best for what reads it, and their errors still add up."""

from __future__ import annotations

from collections.abc import Mapping

from qcc.ir.graph import Graph
from qcc.passes.base import Note, PassContext
from qcc.passes.choose_qparams import ChooseQParams
from qcc.passes.graph_error import GraphError

Range = tuple[float, float]


def prefer_extremes(graph: Graph, extremes: Mapping[str, Range], qspec: str, ctx: PassContext) -> Note | None:
    """Set the ranges of ``graph`` to ``extremes``, by value name, where the outputs have less error with these.

    ``graph``: a float one whose values have ranges; of each range, those that ``extremes`` names are compared all at once.
    Reads ctx.resources as GraphError does; None, and nothing is changed, where there is nothing to measure on.
    """
    error = GraphError.of(graph, ctx)
    if error is None:
        return None
    as_it_is, candidate = graph.clone(), graph.clone()
    _set_ranges(candidate, extremes)
    noises = []
    for copy in (as_it_is, candidate):
        copy.stage = "annotated"
        ChooseQParams(qspec=qspec).run(copy, ctx)
        noises.append(error.noise(copy))
    chosen, other = noises
    if other < chosen:
        _set_ranges(graph, extremes)
    return error.note(graph, "prefer-extremes", chosen, other)


def _set_ranges(graph: Graph, ranges: Mapping[str, Range]) -> None:
    for value in (*graph.inputs, *(n.output for n in graph.nodes)):
        if value.name in ranges:
            value.range = ranges[value.name]
