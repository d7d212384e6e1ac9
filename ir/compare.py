"""Whether two graphs are the same program, value by value and byte by byte."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest
from numbers import Integral, Real
from typing import Any

from qcc.ir.attributes import attribute_types, convert
from qcc.ir.graph import Graph, Node, Value


def graphs_equal(a: Graph, b: Graph, *, locations: bool = False) -> bool:
    """True when ``first_difference`` finds none."""
    return first_difference(a, b, locations=locations) is None


def first_difference(a: Graph, b: Graph, *, locations: bool = False) -> str | None:
    """The first difference in words, or None.

    Compares everything but bookkeeping: names, stage, order, types, qparams, ranges, ops, attributes and the
    bytes of constants. Numbers are compared as bits (nan equals nan, 0.0 differs from -0.0).
    """
    for left, right in zip_longest(_facts(a, locations), _facts(b, locations)):
        if left != right:
            return f"{left} is not {right}"
    return None


def _facts(graph: Graph, locations: bool) -> Iterator[tuple[object, ...]]:
    yield "graph", graph.name, graph.stage
    for value in graph.inputs:
        yield "input", *_value(value)
    for value in graph.constants():
        yield "constant", *_value(value)
    for node in graph.nodes:
        yield "node", *_node(node)
        yield "result", *_value(node.output)
        if locations:
            place = node.location
            yield "location", place and (place.file, place.line, place.column, place.node)
    for value, name in zip(graph.outputs, graph.output_names, strict=True):
        yield "output", value.name, name


def _value(value: Value) -> tuple[object, ...]:
    type_ = value.type
    qparams = type_.qparams
    quantization = qparams and (_plain(qparams.scale), qparams.zero_point, qparams.axis, qparams.dtype)
    data = None if value.data is None else (value.data.dtype.str, value.data.shape, value.data.tobytes())
    return value.name, type_.dtype.value, type_.shape, quantization, _plain(value.range), value.fused, data


def _node(node: Node) -> tuple[object, ...]:
    types = attribute_types(type(node.op))
    attributes = {k: _plain(convert(v, types[k])) for k, v in node.op.attributes().items()}
    return node.op.name, attributes, [v and v.name for v in node.inputs]


def _plain(value: Any) -> object:
    """Floats as their bits."""
    if isinstance(value, tuple):
        return tuple(map(_plain, value))
    if isinstance(value, Real) and not isinstance(value, Integral):
        return float(value).hex()
    return value
