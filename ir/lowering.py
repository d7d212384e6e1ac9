"""Lowering: what an op's integer form is written with. It maps values of the annotated graph to integer ones."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qcc.ir.builder import Builder
from qcc.ir.errors import PassError
from qcc.ir.fixedpoint import quantize_exactly
from qcc.ir.graph import Graph, Node, Value
from qcc.ir.op import Op
from qcc.ir.ops.quant import Dequantize, Quantize, Requantize, Table
from qcc.ir.qparams import QParams
from qcc.ir.qspec import QSpec
from qcc.ir.types import DType, sum_dtype


class Lowering:
    """The integer graph under construction, with the annotated ``source`` it comes from.

    ``narrows``: while it is set, values of 16 bits are read as 8, requantized once for all such readers.
    """

    def __init__(self, source: Graph) -> None:
        self.source = source
        self.graph = Graph(source.name, "integer")
        self.builder = Builder(self.graph)
        self._integer: dict[int, Value] = {}
        self._float: dict[int, Value] = {}
        self._narrowed: dict[int, Value] = {}
        self.narrows = False

    # ------------------------------------------------------------------ driving (used by the pass)
    def define(self, source: Value, lowered: Value) -> None:
        """Record the form, integer or float, that ``source`` has in the new graph.

        A float with qparams is quantized at once: all its readers see 8 bits, as the fake-quant meaning says.
        """
        qparams = source.type.qparams
        if qparams is not None and not lowered.type.dtype.is_integer:
            lowered = self.emit(Quantize(), lowered, name=f"{source.name}_q", qparams=qparams)
        (self._integer if lowered.type.dtype.is_integer else self._float)[id(source)] = lowered

    # ------------------------------------------------------------------ operands
    def integer(self, value: Value) -> Value:
        """The integer form of a materialized value or of a constant with qparams."""
        if id(value) not in self._integer:
            qparams = value.type.qparams
            if qparams is None or value.data is None:
                raise PassError(f"value %{value.name} has no qparams: it cannot be read as an integer")
            made = self.builder.constant(quantize_exactly(value.data, qparams), value.name, qparams)
            self._integer[id(value)] = made
        found = self._integer[id(value)]
        return self._narrow(value, found) if self.narrows and found.type.dtype is DType.S16 else found

    def is_wide(self, value: Value) -> bool:
        """Whether ``value`` is materialized in 16 bits and read so."""
        qparams = value.type.qparams
        return not self.narrows and qparams is not None and qparams.dtype == "s16"

    def _narrow(self, value: Value, wide: Value) -> Value:
        """``value`` in 8 bits, at qparams of its calibrated range."""
        if id(value) not in self._narrowed:
            assert wide.type.qparams is not None
            qparams = QSpec().activation(*(value.range or wide.type.qparams.range))
            made = self.emit(Requantize(), wide, name=f"{value.name}_s8", qparams=qparams)
            self._narrowed[id(value)] = made
        return self._narrowed[id(value)]

    def real(self, value: Value) -> Value:
        """The float form of a value: itself, or the dequantized integer."""
        if id(value) not in self._float:
            if value.fused:
                assert value.producer is not None
                self._float[id(value)] = self.float_node(value.producer)
            elif value.data is not None:
                self._float[id(value)] = self.builder.constant(value.data, value.name)
            else:
                q = self.integer(value)
                self._float[id(value)] = self.emit(Dequantize(), q, name=f"{value.name}_f")
        return self._float[id(value)]

    def float_node(self, node: Node) -> Value:
        """``node`` as it is, in float, on the float forms of its operands."""
        operands = [None if v is None else self.real(v) for v in node.inputs]
        return self.emit(node.op, *operands, name=node.name)

    def accumulator(self, value: Value) -> Value | None:
        """The s32 accumulator of a fused value, None if its op has none here; else the integer value itself."""
        if not value.fused:
            return self.integer(value)
        assert value.producer is not None
        return value.producer.op.accumulate(self, value.producer)

    def integer_as(self, value: Value, like: Value) -> Value:
        """The integer form of ``value`` at the qparams of ``like``, requantized when they differ."""
        qparams = like.type.qparams
        if value.data is not None and qparams is not None:
            return self.builder.constant(quantize_exactly(value.data, qparams), value.name, qparams)
        q = self.integer(value)
        if qparams is None or q.type.qparams == qparams:
            return q
        low, high = qparams.code_range
        return self.emit(Requantize(low=low, high=high), q, name=f"{value.name}_as", qparams=qparams)

    def zero_point(self, value: Value) -> int:
        """zero_point of an integer value."""
        assert value.type.qparams is not None
        return value.type.qparams.zero_point

    def bias(self, bias: Value | None, x: Value, w: Value) -> Value:
        """The bias at scale s_x * s_w, in the type of the sum (zeros when absent: folding has a place to add to)."""
        assert x.type.qparams is not None
        assert w.type.qparams is not None
        scale = np.asarray(w.type.qparams.scale) * x.type.qparams.scale[0]
        channels = w.type.shape[w.type.qparams.axis or 0]
        dtype = sum_dtype(x.type, w.type)
        qparams = QParams.per_channel(np.broadcast_to(scale, channels), 0, dtype.value)
        if bias is None:
            return self.builder.constant(np.zeros(channels, dtype.numpy), f"{w.name}_bias", qparams)
        assert bias.data is not None
        return self.builder.constant(quantize_exactly(bias.data, qparams), bias.name, qparams)

    # ------------------------------------------------------------------ emission
    def emit(self, op: Op, *inputs: Value | None, name: str, qparams: QParams | None = None) -> Value:
        """Add a node to the integer graph; an accumulator is named after its node with ``.acc``."""
        if op.accumulates:
            name = f"{name}.acc"
        return self.builder.emit(op, *inputs, name=name, qparams=qparams)

    def constant(self, data: NDArray[np.generic], name: str, qparams: QParams | None = None) -> Value:
        """Add an integer constant."""
        return self.builder.constant(data, name, qparams)

    def requantize(
        self, acc: Value, like: Value, low: float | None = None, high: float | None = None
    ) -> Value:
        """Requantize ``acc`` to the qparams of the annotated value ``like``, clamped to real [low, high]."""
        qparams = like.type.qparams
        if qparams is None:
            raise PassError(f"value %{like.name} has no qparams")
        q_low, q_high = clamp_bounds(qparams, low, high)
        return self.emit(Requantize(low=q_low, high=q_high), acc, name=like.name, qparams=qparams)

    def table(self, node: Node) -> Value | None:
        """``node`` and the fused elementwise nodes behind it as one table of their single source.

        None when they depend on more than one materialized value, on an accumulator, on 16 bits, or on a constant
        that is neither a scalar nor per channel of the last axis.
        """
        found = table_source(node)
        if found is None or node.output.type.qparams is None or self.is_wide(found):
            return None
        x = self.integer(found)
        assert x.type.qparams is not None
        codes = np.arange(-128, 128, dtype=np.int64)
        reals = np.asarray((codes - x.type.qparams.zero_point) * x.type.qparams.scale[0], np.float64)
        y = _evaluate(node, found, reals)
        if np.isnan(y).any() and found.range is not None:
            # codes beyond what calibration saw: the function may end there, so they take its last value
            y = np.where(np.isnan(y), _evaluate(node, found, np.clip(reals, *found.range)), y)
        if np.isnan(y).any():
            raise PassError(f"%{node.name}: {node.op.name} is not a number for some input", node.location)
        table = quantize_exactly(y, node.output.type.qparams)
        table = np.ascontiguousarray(table[:, 0] if table.shape[1] == 1 else table.T)
        return self.emit(
            Table(),
            x,
            self.constant(table, f"{node.name}_table"),
            name=node.name,
            qparams=node.output.type.qparams,
        )


def table_source(node: Node) -> Value | None:
    """The one materialized value that ``node`` is an elementwise function of, or None."""
    sources: dict[int, Value] = {}
    for current in with_fused(node):
        if not current.op.elementwise:
            return None
        for value in current.inputs:
            if value is None:
                continue
            if value.data is not None:
                if value.data.size not in (1, value.type.shape[-1] if value.type.shape else 1):
                    return None
            elif not value.fused:
                sources[id(value)] = value
    if len(sources) != 1:
        return None
    (source,) = sources.values()
    return source if source.type.shape == node.output.type.shape else None


def with_fused(node: Node) -> list[Node]:
    """``node`` after the fused nodes behind it: operands first, each once, however often it is read."""
    done: dict[int, Node] = {}
    pending = [node]
    while pending:
        producers = (v.producer for v in pending[-1].inputs if v is not None and v.fused)
        missing = [p for p in producers if p is not None and id(p) not in done]
        pending += missing
        if not missing:
            current = pending.pop()
            done[id(current)] = current
    return list(done.values())


def _evaluate(node: Node, source: Value, reals: NDArray[np.float64]) -> NDArray[np.float64]:
    """The result of ``node`` as a function of ``source`` on reals [256]: [256, 1] or [256, C]."""
    known = {id(source): reals[:, None]}
    with np.errstate(all="ignore"):
        for current in with_fused(node):
            for value in current.inputs:
                if value is not None and value.data is not None:
                    known[id(value)] = value.data.astype(np.float64).reshape(1, -1)
            operands = [None if v is None else known[id(v)] for v in current.inputs]
            known[id(current.output)] = np.asarray(current.op.float_ref(*operands), np.float64)
    return known[id(node.output)]


def clamp_bounds(qparams: QParams, low: float | None, high: float | None) -> tuple[int, int]:
    """Integer bounds that clamp to real [low, high], within the codes."""
    q_low, q_high = qparams.code_range
    if low is not None and np.isfinite(low):
        q_low = int(quantize_exactly(low, qparams))
    if high is not None and np.isfinite(high):
        q_high = int(quantize_exactly(high, qparams))
    return min(q_low, q_high), q_high  # as in min(max(x, low), high), the upper bound wins
