"""From ranges to qparams: scale and zero_point of every materialized value and of every weight."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from difflib import get_close_matches
from fnmatch import fnmatchcase

import numpy as np
from numpy.typing import NDArray

from qcc.ir.errors import PassError
from qcc.ir.graph import Graph, Node, Value
from qcc.ir.lowering import table_source, with_fused
from qcc.ir.op import Op
from qcc.ir.qparams import QParams
from qcc.ir.qspec import QSpec
from qcc.passes.base import Note, Pass, PassContext, PassResult, register_pass
from qcc.passes.weight_scales import materialized, skip_ratio, weight_scales

SMALLEST_SKIP_MULTIPLIER = 4  # under it, matching the scales would cost a weight channel over 12 % resolution


@register_pass
class ChooseQParams(Pass):
    """Give qparams to every value that will be held in integers.

    Activations: s8, per tensor, asymmetric, from the calibrated range (which holds 0); scales are float32
    numbers, so that every runtime reads the same one. Ops that only move elements share qparams
    with their operands (one range for the whole group). Weights: s8, symmetric, per output channel; one that has a
    range is clipped: of each channel's largest magnitude it keeps the share that the range is of the tensor's. Where a
    convolution's accumulator is fused with a residual add, its weight scales grow slightly until the
    skip's scale is an integer multiple of the accumulator's; where that would cost too much the fusion is undone.
    ``qspec``: other bits, symmetry and granularity, as text of a QSpec. Fewer bits restrict the codes of what is
    computed in integers; graph inputs, results of float nodes and what an algorithm dictates keep 8.
    ``int16``: names of values (globs), see ``wide_values``; they are held in symmetric s16, with all that shares their qparams,
    but for those that bring qparams. ``floats``: names of nodes (globs), see ``chosen_nodes``; their weights get no qparams, nor
    does what only they read.
    Raises PassError where a value has no finite range, where a weight or a bias is computed, and for a name of no value.
    """

    name = "choose-qparams"
    stage = "annotated"
    requires = ("has_ranges",)
    ensures = ("has_qparams",)
    exactness = "approximate"
    qspec: str = ""
    int16: tuple[str, ...] = ()
    floats: tuple[str, ...] = ()

    def run(self, graph: Graph, ctx: PassContext) -> PassResult:
        """Set qparams on types; constants used as weights are split, one for each use."""
        before, spec = [v.type for v in graph.values()], QSpec.parse(self.qspec)
        wide = wide_values(graph, self.int16)
        floats = chosen_nodes(graph, self.floats)
        dictated = _dictated(graph, wide)
        for members in _groups(graph, dictated, floats):
            qparams = dictated.get(id(members[0])) or _range_qparams(members, spec, wide)
            for value in members:
                value.type = value.type.with_qparams(qparams)
        notes: list[Note] = []
        for node in graph.nodes:
            if node.op.quant_rule().weight is not None and node.name not in floats:
                notes.extend(_choose_weights(graph, node, spec, wide))
        return PassResult(before != [v.type for v in graph.values()], tuple(notes))


def activation_qparams(low: float, high: float, spec: QSpec | None = None) -> QParams:
    """s8 qparams for real [low, high], widened to 0. See QSpec.activation; the default has 8 asymmetric bits."""
    try:
        return (spec or QSpec()).activation(low, high)
    except ValueError as error:
        raise PassError(str(error)) from None


def wide_values(graph: Graph, patterns: Iterable[str]) -> frozenset[str]:
    """Names of the values of an annotated ``graph`` that names or globs choose.

    A fused value stands for the one in which its chain is materialized. Raises PassError for a pattern without a match.
    """
    values = {v.name: v for v in (*graph.inputs, *(n.output for n in graph.nodes))}
    return frozenset(materialized(values[name]).name for name in _matches(values, patterns, "value"))


def chosen_nodes(graph: Graph, patterns: Iterable[str]) -> frozenset[str]:
    """Names of the nodes of an annotated ``graph`` that names or globs choose, and of those fused with them.

    Raises PassError for a pattern without a match.
    """
    found = _matches([n.name for n in graph.nodes], patterns, "node")
    chains = [with_fused(n) for n in graph.nodes if not n.output.fused] if found else []
    return frozenset(n.name for chain in chains if found & {c.name for c in chain} for n in chain)


def _matches(names: Iterable[str], patterns: Iterable[str], what: str) -> set[str]:
    known, found = list(names), set[str]()
    for pattern in patterns:
        matched = {n for n in known if n == pattern or fnmatchcase(n, pattern)}
        if not matched:
            near = get_close_matches(pattern, known, n=3)
            hint = (
                f"did you mean {' or '.join(near)}?" if near else f"qcc opt prints the names of all {what}s"
            )
            raise PassError(f"no {what} has a name like {pattern}", hint=hint)
        found |= matched
    return found


def has_integer_form(node: Node) -> bool:
    """Whether quantize-ops will find an integer form: a table, or methods of the op."""
    cls = type(node.op)
    own = cls.quantize is not Op.quantize or cls.accumulate is not Op.accumulate
    return own or (node.op.elementwise and table_source(node) is not None)


# ---------------------------------------------------------------------- activations
def _groups(graph: Graph, dictated: dict[int, QParams], floats: frozenset[str]) -> list[list[Value]]:
    """Values that will be held in integers; those tied by ops that share qparams are in one group."""
    wanted = _quantized(graph, floats)
    leader = {id(v): v for v in wanted}

    def find(v: Value) -> Value:
        while leader[id(v)] is not v:
            v = leader[id(v)]
        return v

    for node in graph.nodes:
        if not node.op.quant_rule().shares or id(node.output) not in leader or id(node.output) in dictated:
            continue
        for operand in node.inputs:
            # an operand with dictated qparams keeps them: it is requantized where it is read
            if operand is not None and id(operand) in leader and id(operand) not in dictated:
                a, b = find(operand), find(node.output)
                leader[id(b)] = a
    groups: dict[int, list[Value]] = {}
    for v in wanted:
        groups.setdefault(id(find(v)), []).append(v)
    return list(groups.values())


def _quantized(graph: Graph, floats: frozenset[str]) -> list[Value]:
    """Inputs, outputs, and whatever an op with an integer form reads or yields, unless it is fused."""
    integer = {id(n.output) for n in graph.nodes if n.name not in floats and has_integer_form(n)}
    computed = [*graph.inputs, *(n.output for n in graph.nodes)]
    return [
        v
        for v in computed
        if not v.fused
        and (
            v.producer is None
            or id(v) in integer
            or graph.is_output(v)
            or any(id(u.output) in integer for u in v.users)
        )
    ]


def _dictated(graph: Graph, wide: frozenset[str]) -> dict[int, QParams]:
    """By id(value): qparams that the model brings or an integer algorithm imposes, also on what only moves its results."""
    computed = [*graph.inputs, *(n.output for n in graph.nodes)]
    found = {id(v): v.type.qparams for v in computed if v.type.qparams is not None}
    wanted = _moved_into(graph, wide)
    for node in graph.nodes:
        rule = node.op.quant_rule()
        if rule.result is not None and id(node.output) not in found:
            found[id(node.output)] = (node.output.name in wanted and rule.wide_result) or rule.result
        if not rule.shares or id(node.output) in found:
            continue
        operands = {found.get(id(v)) for v in node.inputs if v is not None and not v.is_constant}
        qparams = operands.pop() if len(operands) == 1 else None
        if qparams is not None and _holds(qparams, node.output):
            found[id(node.output)] = qparams
    return found


def _moved_into(graph: Graph, wide: frozenset[str]) -> frozenset[str]:
    """The names ``wide``, and those of what is moved into the values that have them."""
    found = set(wide)
    for node in reversed(graph.nodes):
        if node.output.name in found and node.op.quant_rule().shares:
            found.update(v.name for v in node.inputs if v is not None)
    return frozenset(found)


def _holds(qparams: QParams, value: Value) -> bool:
    """Whether ``value`` fits, to a step: constants may have joined what was moved."""
    (low, high), step = qparams.range, qparams.scale[0]
    return value.range is not None and low - step <= value.range[0] and value.range[1] <= high + step


def _range_qparams(members: list[Value], spec: QSpec, wide: frozenset[str]) -> QParams:
    ranges = [_range(v) for v in members]
    if any(v.name in wide for v in members):
        try:
            return QSpec.wide_activation(min(r[0] for r in ranges), max(r[1] for r in ranges))
        except ValueError as error:
            raise PassError(str(error)) from None
    if not all(v.producer is not None and has_integer_form(v.producer) for v in members):
        spec = replace(spec, a_bits=8, narrow=False)  # a float is quantized to the whole type
    return activation_qparams(min(r[0] for r in ranges), max(r[1] for r in ranges), spec)


def _range(value: Value) -> tuple[float, float]:
    if value.range is None:
        raise PassError(f"%{value.name} has no range", hint="run calibrate before choose-qparams")
    return value.range


# ---------------------------------------------------------------------- weights
def _choose_weights(graph: Graph, node: Node, spec: QSpec, wide: frozenset[str]) -> list[Note]:
    _check_constants(node)
    if node.input(node.op.quant_rule().weight or 0).type.qparams is not None:
        return []  # the model brings its scales
    ratio, notes = skip_ratio(node, spec), []
    if ratio is not None and float(ratio.min()) < SMALLEST_SKIP_MULTIPLIER:
        (user,) = node.output.users
        node.output.fused = False
        node.output.type = node.output.type.with_qparams(_range_qparams([node.output], spec, wide))
        reason = f"the skip's scale is only {ratio.min():.2f} times that of the accumulator"
        notes.append(Note(user.name, "fuse-residual", False, reason))
    _set_weight(graph, node, weight_scales(node, spec), spec)
    return notes


def _check_constants(node: Node) -> None:
    """Raise PassError where integers need a constant that is not there, or an operand that is computed."""
    rule = node.op.quant_rule()
    for role, index in (("weight", rule.weight), ("bias", rule.bias)):
        value = node.inputs[index] if index is not None and index < len(node.inputs) else None
        if value is not None and value.data is None:
            raise PassError(
                f"%{node.name}: {role} %{value.name} is computed, {node.op.name} needs a constant",
                node.location,
            )
    if node.input(0).type.qparams is None:
        raise PassError(
            f"%{node.name}: operand %{node.input(0).name} is constant",
            node.location,
            "run fold-constants first",
        )


def _set_weight(graph: Graph, node: Node, scale: NDArray[np.float64], spec: QSpec) -> None:
    """A weight used by several nodes, or as an output, gets a constant of its own for each, with its own scales.

    So does one that is clipped.
    """
    rule = node.op.quant_rule()
    assert rule.weight is not None
    weight = node.input(rule.weight)
    assert weight.data is not None
    shape = [1] * weight.type.rank
    shape[rule.weight_axis] = scale.size
    limit = (scale * (spec.weight_max + 0.25)).reshape(shape)  # the margin covers scales rounded to float32
    data = np.clip(weight.data, -limit, limit).astype(weight.data.dtype)
    if len(weight.users) > 1 or graph.is_output(weight) or not np.array_equal(data, weight.data):
        weight = graph.constant(data, weight.name, weight.type.with_qparams(None))
        graph.set_input(node, rule.weight, weight)
    qparams = QParams.per_channel(scale, rule.weight_axis)
    if spec.pack:
        qparams = replace(qparams, codes=(-spec.weight_max, spec.weight_max))
    weight.type = weight.type.with_qparams(qparams)
