"""Prove every accumulator and choose every requantize multiplier, in one walk over the integer graph."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from qcc.ir.errors import PassError
from qcc.ir.fixedpoint import multiplier_bits
from qcc.ir.graph import Graph, Node, Value
from qcc.ir.interval import Interval
from qcc.ir.ops.conv import Conv2d
from qcc.ir.ops.conv_transpose import ConvTranspose2d
from qcc.ir.ops.dense import Dense
from qcc.ir.ops.pool import AvgPool2d
from qcc.ir.ops.quant import Dequantize, Quantize, Requantize
from qcc.ir.ops.shape import Movement
from qcc.ir.types import DType, TensorType
from qcc.passes.base import Note, Pass, PassContext, PassResult, register_pass
from qcc.passes.certify import FLOAT32, Certified, Like, certify, nearest

Rounding = Literal["ties_up", "tflite", "onnx"]
ROUNDS_TWICE = "it rounds twice"
_LIKE: dict[Rounding, Like] = {"ties_up": "free", "tflite": "nearest", "onnx": "float32"}
WIDE_BITS = 43  # of an s64 accumulator: a multiplier of 20 bits is left, exact to a 16th of a step of 16 bits

Known = Interval | NDArray[Any] | None


@register_pass
class PlanAccumulators(Pass):
    """Propagate integer intervals from the inputs and plan each requantize.

    A requantize gets multiplier and shift (certified for the float32 fast path where the search finds one), the
    proven interval of its accumulator per channel, and the bits that hold every partial sum in any order.
    An s64 accumulator that is proved to pass 32 bits gets multipliers of fewer bits, so that the product stays within 64.
    ``rounding``: whose integers each requantize must yield. "ties_up": those of a multiplier near the real scale, which
    is chosen so that it certifies. "tflite": those of the reference kernels of TensorFlow Lite; behind a convolution
    they round twice. "onnx": those of onnxruntime, which multiplies in float32 and rounds half to even. A warning names the
    nodes where that is not proved, as with 16 bits. Raises PassError where a partial sum could pass 32 bits, or one of
    s64 more than multipliers of 20 bits allow.
    """

    name = "plan-accumulators"
    stage = "integer"
    result_stage = "planned"
    ensures = ("planned",)
    exactness = "approximate"
    rounding: Rounding = "ties_up"

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
                notes.append(_plan(graph, node, known[0], bounds.get(id(node.input(0))), self.rounding))
                known = known_operands(node, intervals)
            if node.output.type.dtype.is_integer:
                intervals[id(node.output)] = interval_of(node, known)
                if node.op.accumulates:
                    bounds[id(node.output)] = _partial_sums(node, known, bounds)
        graph.stage = "planned"
        if self.rounding != "ties_up":
            _warn_of_others(graph, notes, self.rounding, ctx)
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


def _plan(graph: Graph, node: Node, acc: Known, bound: int | None, rounding: Rounding) -> Note:
    """Give ``node`` its plan. ``bound``: of |partial sum| where its operand is an accumulator."""
    assert isinstance(node.op, Requantize)
    x, result = node.input(0), node.output.type.qparams
    assert isinstance(acc, Interval)
    assert x.type.qparams is not None
    assert result is not None
    acc = acc.shifted(-x.type.qparams.zero_point)
    wide = x.type.dtype is DType.S64 or node.output.type.dtype is not DType.S8
    twice = rounding == "tflite" and not wide and _is_convolution(node.input(0).producer)
    reached = int(max(-acc.low.min(), acc.high.max(), 1)) if bound is None else bound
    if wide or twice:  # no fast path computes with 16 bits, or rounds twice
        chosen, reason = nearest(node.op.real_multipliers(node.signature), multiplier_bits(reached)), ""
    else:
        chosen, reason = _certified(node, acc, rounding)
    proved = bool(chosen.certified.all())
    node.op = replace(
        node.op,
        rounding="twice" if twice else "ties_up",
        certified=(FLOAT32,) if proved else (),
        accumulator_bits=reached.bit_length() + 1,
    )
    operands = (
        ("multiplier", chosen.multiplier),
        ("shift", chosen.shift),
        ("acc_min", acc.low),
        ("acc_max", acc.high),
    )
    widest = DType.S64 if x.type.dtype is DType.S64 else DType.S32
    constants = (
        _constant(graph, data, f"{node.name}.{name}", widest if name.startswith("acc") else DType.S32)
        for name, data in operands
    )
    graph.set_inputs(node, [x, *constants])
    if not proved:
        open_ = int((~chosen.certified).sum())
        reason = ROUNDS_TWICE if twice else f"{open_} of {chosen.certified.size} channels have no certificate"
    return Note(node.name, "certify-f32", proved, reason)


def _certified(node: Node, acc: Interval, rounding: Rounding) -> tuple[Certified, str]:
    """Multipliers for the accumulators ``acc`` (less their zero_point), and where their integers are not those wanted."""
    assert isinstance(node.op, Requantize)
    x, result = node.input(0).type.qparams, node.output.type.qparams
    assert x is not None
    assert result is not None
    real = node.op.real_multipliers(node.signature)
    if rounding == "onnx":  # which has the scales in float32 and divides in float32
        scale = np.asarray(x.scale, np.float32) / np.float32(result.scale[0])
        real = np.clip(scale.astype(np.float64), 2.0**-32, 2.0**29)
    # one multiplier for all channels must hold for the widest interval
    across = acc if real.size > 1 else acc.over_channels(1)
    bounds = (across.low, across.high, result.zero_point, node.op.low, node.op.high)
    chosen = certify(real, *bounds, _LIKE[rounding])
    open_ = int((~chosen.certified).sum())
    if rounding != "onnx" or not open_:
        return chosen, ""
    # ties of float32 that no integer multiplier has: any certified one comes next
    free, kept = certify(real, *bounds), chosen.certified
    chosen = Certified(
        np.where(kept, chosen.multiplier, free.multiplier),
        np.where(kept, chosen.shift, free.shift),
        kept | free.certified,
    )
    return chosen, f"{open_} of {real.size} channels round apart from onnxruntime at some accumulator"


def _is_convolution(producer: Node | None) -> bool:
    return producer is not None and isinstance(producer.op, Conv2d | ConvTranspose2d)


def _warn_of_others(graph: Graph, notes: list[Note], rounding: Rounding, ctx: PassContext) -> None:
    """Name the nodes whose integers may differ from those of the other runtime."""
    proved = {n.node for n in notes if n.reason in ("", ROUNDS_TWICE)}
    others = []
    for node in graph.nodes:
        if isinstance(node.op, Requantize):
            producer = node.input(0).producer
            same = node.name in proved and producer is not None and _scales_once(producer, rounding)
        else:
            same = node.op.accumulates or isinstance(node.op, Movement | Quantize | Dequantize)
        if not same:
            others.append(f"%{node.name}")
    if others:
        listed = ", ".join(others[:4]) + (f" and {len(others) - 4} more" if len(others) > 4 else "")
        ctx.warn(f"rounding {rounding}: not proved to equal that runtime for every input: {listed}")


def _scales_once(producer: Node, rounding: Rounding) -> bool:
    """Whether the other runtime has the same accumulator and scales it as ``rounding`` says."""
    if isinstance(producer.op, AvgPool2d):
        # TensorFlow Lite divides the sum of the codes, ties away from zero: an odd count has no ties
        h, w = producer.input(0).type.shape[1:3]
        return rounding == "tflite" and producer.op.divisor(h, w) % 2 == 1
    return _is_convolution(producer) or isinstance(producer.op, Dense)


def _constant(graph: Graph, data: NDArray[Any], name: str, dtype: DType) -> Value:
    return graph.constant(data.astype(dtype.numpy), name, TensorType(dtype, data.shape))
