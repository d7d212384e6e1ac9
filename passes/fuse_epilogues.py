"""Decide which values are never materialized: they stay in an accumulator or inside a table."""

from __future__ import annotations

from qcc.ir.graph import Graph, Node, Value
from qcc.ir.lowering import table_source
from qcc.passes.base import Note, Pass, PassContext, PassResult, register_pass


@register_pass
class FuseEpilogues(Pass):
    """Mark values ``fused``: accumulators read by one clamp or one residual add, and inner values of tables.

    1. fuse-residual: op with constant weights per channel -> add of the same shape, the add being its only user; of
       two candidates the later one, whose accumulator need not wait. The add itself may then be fused by rule 2.
    2. fuse-activation: accumulating op -> clamp or softmax, this being its only user.
    3. fuse-table: elementwise nodes that together are a function of one materialized value.
    Declines, with the reason, where the value has other users, is a graph output, or shapes broadcast.
    ``residuals``: whether rule 1 applies.
    """

    name = "fuse-epilogues"
    stage = "float"
    exactness = "exact"
    residuals: bool = True

    def run(self, graph: Graph, ctx: PassContext) -> PassResult:
        """Set ``fused`` on values; the graph's nodes stay as they are."""
        before = [v.fused for v in graph.values()]
        for value in graph.values():
            value.fused = False
        residuals = _fuse_residuals(graph) if self.residuals else []
        notes = [*residuals, *_fuse_activations(graph), *_fuse_tables(graph)]
        return PassResult(before != [v.fused for v in graph.values()], tuple(notes))


def _sole_user_problem(graph: Graph, value: Value) -> str:
    if graph.is_output(value):
        return "the value is a graph output"
    if value.type.qparams is not None:
        return "the model rounds the value"
    if len(value.users) != 1:
        return f"the value has {len(value.users)} users"
    return ""


def _fuse_residuals(graph: Graph) -> list[Note]:
    notes = []
    position = {id(n): i for i, n in enumerate(graph.nodes)}
    for node in graph.nodes:
        if not (node.op.accepts_accumulator and node.op.accumulates):
            continue
        operands = [v for v in node.inputs[:2] if v is not None and v.producer is not None]
        operands.sort(key=lambda v: -position[id(v.producer)])
        for value in operands:
            reason = _residual_problem(graph, node, value)
            value.fused = not reason
            notes.append(Note(node.name, "fuse-residual", not reason, reason))
            if not reason:
                break
    return notes


def _residual_problem(graph: Graph, add: Node, value: Value) -> str:
    producer = value.producer
    assert producer is not None
    other = add.input(1) if add.input(0) is value else add.input(0)
    weight = producer.op.quant_rule().weight
    if weight is None or producer.input(weight).data is None:
        return f"{producer.op.name} has no weights whose scale could be matched to the other operand"
    if producer.input(weight).type.qparams is not None:
        return "the model brings the scales of the weights"
    if other is value:
        return "both operands are the same value"
    if value.type.shape != add.output.type.shape or other.type.shape != add.output.type.shape:
        return f"shapes {value.type.shape} and {other.type.shape} broadcast"
    if getattr(add.op, "sign", 1) < 0 and add.input(1) is value:
        return "the accumulator would be subtracted"
    return _sole_user_problem(graph, value)


def _fuse_activations(graph: Graph) -> list[Note]:
    notes = []
    position = {id(n): i for i, n in enumerate(graph.nodes)}
    for node in graph.nodes:
        if not node.op.accumulates:
            continue
        for user in dict.fromkeys(node.output.users):
            if not user.op.accepts_accumulator or user.op.accumulates:
                continue
            reason = user.op.accumulator_problem(user.signature, node.op) or _sole_user_problem(
                graph, node.output
            )
            if not reason and _is_table(graph, node, position):
                reason = "the operand is itself a function of one value: a table computes both"
            node.output.fused = not reason
            notes.append(Note(node.name, "fuse-activation", not reason, reason))
    return notes


def _is_table(graph: Graph, node: Node, position: dict[int, int]) -> bool:
    """Whether ``node`` is a function of one value, alone or with the nodes behind it."""
    if not _may_join_table(node):
        return False
    return table_source(node) is not None or bool(_largest_single_source(graph, node, position))


def _fuse_tables(graph: Graph) -> list[Note]:
    notes = []
    position = {id(n): i for i, n in enumerate(graph.nodes)}
    for root in reversed(graph.nodes):
        if root.output.fused or not _may_join_table(root):
            continue
        inner = _largest_single_source(graph, root, position)
        for node in inner:
            node.output.fused = True
            notes.append(Note(node.name, "fuse-table", True))
    return notes


def _may_join_table(node: Node) -> bool:
    """Elementwise, and none of its operands is an accumulator."""
    return node.op.elementwise and not any(
        v is not None and v.fused and v.producer is not None and v.producer.op.accumulates
        for v in node.inputs
    )


def _largest_single_source(graph: Graph, root: Node, position: dict[int, int]) -> list[Node]:
    """The nodes behind ``root`` that can join its table: the largest set that leaves a single source."""
    members: list[Node] = [root]
    best: list[Node] = []
    inside, sources = {id(root)}, _computed_operands(root)
    while True:
        ready = [
            v.producer
            for v in sources.values()
            if v.producer is not None
            and _may_join_table(v.producer)
            and not v.fused
            and not graph.is_output(v)
            and v.type.qparams is None
            and all(id(u) in inside for u in v.users)
        ]
        if not ready:
            return best
        latest = max(ready, key=lambda n: position[id(n)])
        members.append(latest)
        inside.add(id(latest))
        del sources[id(latest.output)]
        sources |= _computed_operands(latest)
        if len(sources) == 1 and _makes_table(root, members[1:]):
            best = members[1:]


def _computed_operands(node: Node) -> dict[int, Value]:
    return {id(v): v for v in node.inputs if v is not None and not v.is_constant}


def _makes_table(root: Node, inner: list[Node]) -> bool:
    """Whether ``root`` is a table once ``inner`` is fused: table_source reads the marks."""
    for node in inner:
        node.output.fused = True
    found = table_source(root) is not None
    for node in inner:
        node.output.fused = False
    return found
