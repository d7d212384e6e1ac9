"""Local rewrites: rules with pattern, check and rewrite, and the driver that applies them to a fixed point."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from qcc.ir.builder import Builder
from qcc.ir.graph import Graph, Node, Value
from qcc.passes.base import Note, PassResult


@dataclass(frozen=True)
class Match:
    """Where a rule's pattern occurs: the root ``node``, whose result is replaced, and what else was found."""

    node: Node
    graph: Graph
    found: tuple[Any, ...] = ()


class Rule:
    """A local rewrite. ``match`` is the pattern alone; ``check`` says why a match must stay as it is."""

    name: ClassVar[str]

    def match(self, node: Node, graph: Graph) -> Match | None:
        """The match rooted at ``node``, or None where the pattern does not occur."""
        raise NotImplementedError

    def check(self, match: Match) -> str | None:
        """The reason to decline, or None."""
        return None

    def rewrite(self, match: Match, builder: Builder) -> Value:
        """The value, new or existing, that replaces the result of ``match.node``."""
        raise NotImplementedError


def apply_rules(graph: Graph, rules: Sequence[Rule]) -> PassResult:
    """Sweep over the nodes in topological order, rules in the order given, until a sweep changes nothing.

    Notes: every application, then the refusals of the last sweep.
    """
    applied: list[Note] = []
    while True:
        count, declined = len(applied), []
        for node in list(graph.nodes):
            for rule in rules:
                match = rule.match(node, graph) if is_live(graph, node) else None
                if match is None:
                    continue
                reason = rule.check(match) or _replace(graph, match, rule)
                if reason is None:
                    applied.append(Note(node.name, rule.name, True))
                    break
                declined.append(Note(node.name, rule.name, False, reason))
        if len(applied) == count:
            return PassResult(bool(applied), (*applied, *declined))


def is_live(graph: Graph, node: Node) -> bool:
    """Whether anything reads the result of ``node``."""
    return bool(node.output.users) or graph.is_output(node.output)


def _replace(graph: Graph, match: Match, rule: Rule) -> str | None:
    old = match.node.output
    known = {id(v) for v in graph.inputs} | {id(n.output) for n in graph.nodes}
    new = rule.rewrite(match, Builder(graph, match.node))
    assert new.type == old.type, f"{rule.name} turns {old} into {new}"
    if graph.is_output(old) and id(new) in known and (new.producer is None or graph.is_output(new)):
        return "a graph output needs a value of its own"
    replace_value(graph, old, new, rename=id(new) not in known)
    return None


def replace_value(graph: Graph, old: Value, new: Value, *, rename: bool) -> None:
    """Let ``new`` take the place of ``old``, and its name with ``rename``; removes what nobody reads any more."""
    graph.replace_uses(old, new, except_for=new.producer)
    if rename and not graph.is_output(old) and not old.users:
        new.name = old.name
    assert old.producer is not None
    remove_if_dead(graph, old.producer)


def remove_if_dead(graph: Graph, node: Node) -> None:
    """Remove ``node`` if nothing reads it, then its operands' producers likewise."""
    pending = [node]
    while pending:
        current = pending.pop()
        if is_live(graph, current) or current not in graph.nodes:
            continue
        producers = [v.producer for v in current.inputs if v is not None and v.producer is not None]
        graph.remove_node(current)
        pending += producers


# ---------------------------------------------------------------- what patterns ask
def sole_user_problem(graph: Graph, value: Value) -> str | None:
    """Why ``value`` cannot be changed for its one user: None when nothing else reads it."""
    if graph.is_output(value):
        return f"%{value.name} is a graph output"
    if len(value.users) != 1:
        return f"%{value.name} has {len(value.users)} uses"
    return None


def constant_operand(node: Node) -> tuple[Value, NDArray[Any]] | None:
    """(other operand, array) of a node of two operands of which exactly one is constant; None otherwise."""
    if len(node.inputs) != 2:
        return None
    for index in (1, 0):
        constant, other = node.inputs[index], node.inputs[1 - index]
        if constant is not None and constant.data is not None and other is not None and other.data is None:
            return other, constant.data
    return None


def channel_vector(data: NDArray[Any], channels: int) -> NDArray[Any] | None:
    """A constant that varies along the last axis at most, as [channels]; None when it varies along others."""
    if data.size != (data.shape[-1] if data.ndim else 1) or data.size not in (1, channels):
        return None
    return np.broadcast_to(data.reshape(-1), channels)
