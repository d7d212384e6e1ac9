"""Prove every accumulator and choose every requantize multiplier, in one walk over the integer graph."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from numpy.typing import NDArray

from qcc.ir.errors import PassError
from qcc.ir.fixedpoint import multiplier_bits
from qcc.ir.graph import Graph, Node, Value
from qcc.ir.interval import Interval
from qcc.ir.ops.quant import Requantize
from qcc.ir.types import DType, TensorType
from qcc.passes.base import Note, Pass, PassContext, PassResult, register_pass
from qcc.passes.certify import FLOAT32, certify, nearest

WIDE_BITS = 43  # of an s64 accumulator: a multiplier of 20 bits is left, exact to a 16th of a step of 16 bits

Known = Interval | NDArray[Any] | None


@register_pass
class PlanAccumulators(Pass):
    """Propagate integer intervals from the inputs and plan each requantize.

    A requantize gets multiplier and shift (certified for the float32 fast path where the search finds one), the
    proven interval of its accumulator per channel, and the bits that hold every partial sum in any order.
    An s64 accumulator that is proved to pass 32 bits gets multipliers of fewer bits, so that the product stays within 64.
    Raises PassError where a partial sum could pass 32 bits, or one of s64 more than multipliers of 20 bits allow.
    """

    name = "plan-accumulators"
    stage = "integer"
    result_stage = "planned"
    ensures = ("planned",)
    exactness = "approximate"

    def run(self, graph: Graph, ctx: PassContext) -> PassResult:
        """Add operands to requantize nodes; the graph becomes planned."""
        intervals: dict[int, Interval] = {}
        bounds: dict[int, int] = {}
        notes = []
        for value in graph.inputs:
            intervals[id(value)] = _full(value)
        for node in list(graph.nodes):
            known = known_operands(node, intervals)
            if isinstance(node.op, Requantize):
                notes.append(_plan(graph, node, known[0], bounds.get(id(node.input(0)))))
                known = known_operands(node, intervals)
            if node.output.type.dtype.is_integer:
                intervals[id(node.output)] = interval_of(node, known)
                if node.op.accumulates:
                    bounds[id(node.output)] = _partial_sums(node, known, bounds)
        graph.stage = "planned"
        return PassResult(True, tuple(notes))


def propagate(graph: Graph) -> dict[int, Interval]:
    """Intervals of every integer value of a graph, by id(value)."""
    intervals = {id(v): _full(v) for v in graph.inputs}
    for node in graph.nodes:
        if node.output.type.dtype.is_integer:
            intervals[id(node.output)] = interval_of(node, known_operands(node, intervals))
    return intervals


def known_operands(node: Node, intervals: dict[int, Interval]) -> list[Known]:
    """Operands as Op.interval wants them: arrays where constant, intervals elsewhere, None for floats."""
    return [
        None if v is None else v.data if v.data is not None else intervals.get(id(v)) for v in node.inputs
    ]


def interval_of(node: Node, known: list[Known]) -> Interval:
    """The op's interval; the whole range of the type where it reads floats."""
    floats = any(v is not None and not v.type.dtype.is_integer for v in node.inputs)
    return _full(node.output) if floats else node.op.interval(node.signature, *known)


def _full(value: Value) -> Interval:
    dtype, shape = value.type.dtype, value.type.shape
    low, high = (dtype.min, dtype.max) if dtype.is_integer else (0, 0)
    return Interval.full(low, high, shape[-1] if shape else 1)


def _partial_sums(node: Node, known: list[Known], bounds: dict[int, int]) -> int:
    """Bound of |partial sum| of this node, plus what its own accumulator operand may have passed through.

    Raises PassError where it does not fit 32 bits, or WIDE_BITS in s64.
    """
    bound = node.op.partial_sum_bound(node.signature, *known)
    for value, operand in zip(node.inputs, known, strict=True):
        if value is not None and id(value) in bounds and isinstance(operand, Interval):
            reached = int(max(-operand.low.min(), operand.high.max(), 0))
            bound += max(0, bounds[id(value)] - reached)
    bits = WIDE_BITS if node.output.type.dtype is DType.S64 else 32
    if bound >= 2 ** (bits - 1):
        raise PassError(
            f"%{node.name}: a partial sum may reach {bound}, which does not fit {bits} bits",
            node.location,
            "use a coarser weight scale or split the reduction",
        )
    return bound


def _plan(graph: Graph, node: Node, acc: Known, bound: int | None) -> Note:
    """Give ``node`` its plan. ``bound``: of |partial sum| where its operand is an accumulator."""
    assert isinstance(node.op, Requantize)
    x, result = node.input(0), node.output.type.qparams
    assert isinstance(acc, Interval)
    assert x.type.qparams is not None
    assert result is not None
    acc = acc.shifted(-x.type.qparams.zero_point)
    real = node.op.real_multipliers(node.signature)
    # one multiplier for all channels must hold for the widest interval
    across = acc if real.size > 1 else acc.over_channels(1)
    reached = int(max(-acc.low.min(), acc.high.max(), 1)) if bound is None else bound
    if x.type.dtype is DType.S64 or node.output.type.dtype is not DType.S8:
        chosen = nearest(real, multiplier_bits(reached))  # no fast path computes with 16 bits
    else:
        chosen = certify(real, across.low, across.high, result.zero_point, node.op.low, node.op.high)
    proved = bool(chosen.certified.all())
    node.op = replace(
        node.op, certified=(FLOAT32,) if proved else (), accumulator_bits=reached.bit_length() + 1
    )
    operands = (
        ("multiplier", chosen.multiplier),
        ("shift", chosen.shift),
        ("acc_min", acc.low),
        ("acc_max", acc.high),
    )
    wide = DType.S64 if x.type.dtype is DType.S64 else DType.S32
    constants = (
        _constant(graph, data, f"{node.name}.{name}", wide if name.startswith("acc") else DType.S32)
        for name, data in operands
    )
    graph.set_inputs(node, [x, *constants])
    open_ = int((~chosen.certified).sum())
    reason = "" if proved else f"{open_} of {real.size} channels have no certificate"
    return Note(node.name, "certify-f32", proved, reason)


def _constant(graph: Graph, data: NDArray[Any], name: str, dtype: DType) -> Value:
    return graph.constant(data.astype(dtype.numpy), name, TensorType(dtype, data.shape))
