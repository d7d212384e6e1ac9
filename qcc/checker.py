"""The independent checker of a planned graph: it proves again what the planner claims, and shares no code with it.

``check_plan`` walks the graph once. From the full range of every input it derives bounds of each value per
channel (``checker_rules``), and of every partial sum of each accumulator, in any order. Then every requantize must
hold what the bounds demand (``checker_requantize``), and every scale follow from others (``checker_scales``). The first
claim that fails ends the walk.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qcc.checker_requantize import (
    FAST_PATHS,
    SUM_BITS,
    bits_of,
    check_fast_path,
    check_requantize,
    read_claims,
)
from qcc.checker_rules import RULES, Bounds, channels_of, fail, zero_point
from qcc.checker_scales import check_scales
from qcc.checker_softmax import check_wide_softmax
from qcc.ir.errors import VerifyError
from qcc.ir.graph import Graph, Node, Value


@dataclass(frozen=True)
class PlanReport:
    """What was proved.

    ``requantizes``: nodes; ``channels``: those of all requantizes; ``certified``: channels with a fast path proved
    equal; ``exhaustive``: certified channels where, besides, every accumulator was tried; ``accumulators``: nodes
    that leave one; ``accumulator_bits``: the most bits that any partial sum needs.
    """

    requantizes: int
    channels: int
    certified: int
    exhaustive: int
    accumulators: int
    accumulator_bits: int


@dataclass(frozen=True)
class Fact:
    """Bounds of a value, and of all partial sums behind it; the same where it is no accumulator."""

    value: Bounds
    partial: Bounds


def check_plan(graph: Graph) -> PlanReport:
    """Prove the plan of ``graph``, whose shapes ``qcc.ir.verifier`` accepts.

    Raises VerifyError naming node, channel, claimed and recomputed values.
    """
    return Walk(graph).run()


class Walk:
    """The facts found so far, and the counts of the report."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.facts: dict[int, Fact] = {}
        self.requantizes = self.channels = self.certified = self.exhaustive = 0
        self.accumulators = self.bits = 0

    def run(self) -> PlanReport:
        """Visit every node. Raises VerifyError at the first claim that does not hold."""
        if self.graph.stage != "planned":
            raise VerifyError(
                f"only a planned graph can be checked, {self.graph.name} is {self.graph.stage}",
                hint="run plan-accumulators first",
            )
        for value in self.graph.inputs:
            self._learn(value, _whole_type(value))
        for node in self.graph.nodes:
            self._visit(node)
        return PlanReport(
            self.requantizes, self.channels, self.certified, self.exhaustive, self.accumulators, self.bits
        )

    def _learn(self, value: Value, bounds: Bounds, partial: Bounds | None = None) -> None:
        self.facts[id(value)] = Fact(bounds, partial or bounds)

    def _fact(self, node: Node, index: int) -> Fact:
        value = node.input(index)
        if value.data is not None:
            bounds = Bounds.of(value.data)
            return Fact(bounds, bounds)
        if id(value) not in self.facts:
            raise VerifyError(
                f"%{node.name} reads %{value.name}, which is not defined before it", node.location
            )
        return self.facts[id(value)]

    def _visit(self, node: Node) -> None:
        name, dtype = node.op.name, node.output.type.dtype
        integer = all(v is None or v.type.dtype.is_integer for v in (*node.inputs, node.output))
        if name == "requantize":
            if not integer:
                fail(node, None, "requantize", "integers", "floats")
            self._learn(node.output, self._requantize(node))
        elif integer and name in RULES:
            check_scales(node)
            self._compute(node)
        elif name == "wide_softmax":
            check_wide_softmax(node)
            self._learn(node.output, _whole_type(node.output))
        elif dtype.is_accumulator:
            fail(node, None, f"{name} leaves an accumulator", "a rule that bounds it", "none")
        else:
            _check_no_accumulator(node)
            self._learn(node.output, _whole_type(node.output))

    def _compute(self, node: Node) -> None:
        """Bounds by the op's rule; for an accumulator those of its partial sums too, which must fit its type."""
        channels = channels_of(node.output)

        def exact(index: int, zero_point: int = 0) -> Bounds:
            return self._fact(node, index).value.shifted(-zero_point)

        def partial(index: int, zero_point: int = 0) -> Bounds:
            return self._fact(node, index).partial.shifted(-zero_point).with_value(0)

        bounds = _per_channel(RULES[node.op.name](node, exact), channels)
        dtype = node.output.type.dtype
        if not dtype.is_accumulator:
            _check_no_accumulator(node)
            self._learn(node.output, bounds)
            return
        sums = _per_channel(RULES[node.op.name](node, partial), channels)
        limit = 2 ** (SUM_BITS[dtype] - 1)
        for bad in np.flatnonzero((sums.low < -limit) | (sums.high >= limit)):
            claim = f"every partial sum in {SUM_BITS[dtype]} bits"
            fail(node, int(bad), "a partial sum overflows", claim, f"[{sums.low[bad]}, {sums.high[bad]}]")
        self.accumulators += 1
        self.bits = max(self.bits, bits_of(sums))
        self._learn(node.output, bounds, sums)

    def _requantize(self, node: Node) -> Bounds:
        zero, channels, fact = zero_point(node.input(0)), channels_of(node.output), self._fact(node, 0)
        acc = _per_channel(fact.value.shifted(-zero), channels)
        claims = read_claims(node)
        check_requantize(node, claims, acc, fact.partial.shifted(-zero).with_value(0))
        paths = node.op.attributes()["certified"]
        for path in paths:
            if path not in FAST_PATHS:
                fail(node, None, "unknown fast path", repr(path), f"known: {', '.join(FAST_PATHS)}")
            self.exhaustive += check_fast_path(claims, path)
        self.requantizes += 1
        self.channels += channels
        self.certified += channels if paths else 0
        every = np.arange(channels)
        return Bounds(claims.canonical(acc.low, every), claims.canonical(acc.high, every))


def _whole_type(value: Value) -> Bounds:
    """Nothing is known but the type; floats have no bounds, and none are asked of them."""
    dtype = value.type.dtype
    low, high = (dtype.min, dtype.max) if dtype.is_integer else (0, 0)
    return Bounds.full(low, high, channels_of(value))


def _per_channel(bounds: Bounds, channels: int) -> Bounds:
    return Bounds(np.broadcast_to(bounds.low, channels), np.broadcast_to(bounds.high, channels))


def _check_no_accumulator(node: Node) -> None:
    """An accumulator may be summed up further or requantized; nothing else reads it."""
    for value in node.inputs:
        if value is not None and value.data is None and value.type.dtype.is_accumulator:
            fail(
                node,
                None,
                f"{node.op.name} reads accumulator %{value.name}",
                "no accumulator",
                value.type.dtype.value,
            )
