"""Move transposes out of the way of channels-last ops until pairs cancel and few or none are left.

One step *converts* a node n to the other side of a transpose T:

    n(T x, T y, ...)  =  T n'(x, y, ...)          n' = n.permuted(T)

An operand that is no T of something gets the inverse of T, a constant is permuted now, and an inverse of T
behind n disappears. ``_Layout._worthwhile`` says which conversions are done, and why that ends.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from qcc.ir.builder import Builder
from qcc.ir.graph import Graph, Node, Value
from qcc.ir.op import Op
from qcc.ir.ops.shape import Reshape, Transpose
from qcc.passes.base import Note, Pass, PassContext, PassResult, register_pass
from qcc.passes.reshaping import Perm, channels_first, commute, inverse, moves_only_ones
from qcc.passes.rewrite import is_live, replace_value


def _perm(value: Value | None) -> Perm | None:
    """The permutation that made ``value``, None if it is not the result of a transpose."""
    node = value.producer if value is not None else None
    return node.op.perm if node is not None and isinstance(node.op, Transpose) else None


def _goes_up(perm: Perm) -> bool:
    """Whether ``perm`` is channels-first to channels-last, and not its own inverse."""
    first = channels_first(len(perm))
    return perm == inverse(first) != first


def _weight(shape: tuple[int, ...], perm: Perm) -> int:
    """How much a transpose of ``shape`` counts: nothing where a reshape does the same."""
    return 0 if moves_only_ones(shape, perm) else 1


@dataclass(frozen=True)
class _Conversion:
    """Operands are T_perm of the new ones, the old result is T_result of what ``op`` makes of them.

    ``down``: an operand is such a transpose, so that it moves towards the outputs; else one moves up.
    """

    node: Node
    perm: Perm
    result: Perm
    op: Op
    down: bool


class _Layout:
    """One run over one graph."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.notes: list[Note] = []

    def run(self) -> bool:
        """Conversions and merges to a fixed point; True if anything changed."""
        changed = self._merge(list(self.graph.nodes))
        while self._sweep() | self._fold_flattened():
            changed = True
        return self._reshape_rest() | changed

    # ------------------------------------------------------------------ conversions
    def _sweep(self) -> bool:
        changed = False
        for node in list(self.graph.nodes):
            if not is_live(self.graph, node) or isinstance(node.op, Transpose):
                continue
            chosen = next((c for c in self._candidates(node) if self._worthwhile(c)), None)
            if chosen is not None:
                self._convert(chosen)
                changed = True
        return changed

    def _candidates(self, node: Node) -> list[_Conversion]:
        """Conversions by the transposes in front of the node, and by the inverses of those behind it."""
        found = []
        users = [_perm(u.output) for u in node.output.users]
        above = dict.fromkeys(p for p in map(_perm, node.inputs) if p is not None)
        below = dict.fromkeys(inverse(p) for p in users if p is not None and None not in users)
        for perm in dict.fromkeys((*above, *below)):
            if isinstance(node.op, Reshape):
                found += _convert_reshape(node, perm, perm in above, perm in below)
            else:
                op = self._permuted(node, perm)
                found += [_Conversion(node, perm, perm, op, perm in above)] if op is not None else []
        return found

    def _permuted(self, node: Node, perm: Perm) -> Op | None:
        """``node.op.permuted`` where all operands that move have the rank of ``perm``, and the rest is constant."""
        moving = self._moving_operands(node)
        for index, value in enumerate(node.inputs):
            if value is None:
                continue
            if index in moving and value.type.rank != len(perm) and not node.op.elementwise:
                return None
            if index not in moving and value.data is None:
                return None
        return node.op.permuted(perm, node.signature) if node.output.type.rank == len(perm) else None

    def _moving_operands(self, node: Node) -> range:
        """Operands permuted like the result: all of an elementwise or variadic op, else the first."""
        every = node.op.elementwise or node.op.operands[0].endswith("*")
        return range(len(node.inputs) if every else 1)

    def _worthwhile(self, conversion: _Conversion) -> bool:
        """Whether to convert: always where fewer transposes remain than before, otherwise in one direction.

        Channels-last to channels-first, which importers put behind each convolution, moves down to the outputs,
        even if it must be doubled for another reader; its inverse moves up to the inputs. So a node goes from
        channels-first to channels-last and not back. Any other transpose moves down, and one that is not
        its own inverse only where that costs nothing.
        """
        moved = conversion.perm if conversion.down else conversion.result
        first = channels_first(len(moved))
        last = inverse(first)
        if moved == last and not conversion.down:
            return False
        cost, pure = self._cost(conversion)
        if cost < 0:
            return True
        if conversion.down and _goes_up(conversion.result):
            return False  # also where a reshape turns what moves down into what moves up again
        if moved == first != last:
            return cost == 0 or (pure and conversion.down)
        return pure and conversion.down and (cost == 0 or moved == first)

    def _cost(self, conversion: _Conversion) -> tuple[int, bool]:
        """(transposes after minus transposes before, whether every computed operand is one that moves)."""
        node, back = conversion.node, inverse(conversion.perm)
        cost, pure = 0, True
        operands = (node.inputs[i] for i in self._moving_operands(node))
        for value in {id(v): v for v in operands if v is not None and v.data is None}.values():
            perm = _perm(value)
            goes = (
                perm is not None and all(u is node for u in value.users) and not self.graph.is_output(value)
            )
            if perm is not None and goes:
                cost -= _weight(value.type.shape, inverse(perm))
            if perm == conversion.perm:
                continue
            pure = False
            if all(_perm(u.output) != back for u in value.users):
                cost += _weight(_expanded(value.type.shape, len(back)), back)
        undo = inverse(conversion.result)
        weight = _weight(node.output.type.shape, undo)
        kept = [u for u in node.output.users if _perm(u.output) != undo]
        cost -= weight * (len(node.output.users) - len(kept))
        return cost + (weight if kept or self.graph.is_output(node.output) else 0), pure

    def _convert(self, conversion: _Conversion) -> None:
        node, graph = conversion.node, self.graph
        builder = Builder(graph, node)
        operands = list(node.inputs)
        for index in self._moving_operands(node):
            operands[index] = self._operand(operands[index], conversion, builder)
        made = builder.emit(conversion.op, *operands, name=node.name)
        result = builder.emit(Transpose(conversion.result), made, name=f"{node.name}_transposed")
        assert result.type == node.output.type
        self.notes.append(Note(node.name, "move-transpose", True))
        is_output, name = graph.is_output(node.output), node.name
        replace_value(graph, node.output, result, rename=False)
        (result if is_output else made).name = name
        around = [v.producer for v in (*operands, result) if v is not None and v.producer is not None]
        self._merge([*around, *result.users])

    def _operand(self, value: Value | None, conversion: _Conversion, builder: Builder) -> Value | None:
        """The operand of the converted node that stands for ``value``."""
        if value is None or (value.data is not None and value.type.elements == 1):
            return value
        if _perm(value) == conversion.perm:
            assert value.producer is not None
            return value.producer.input(0)
        back = inverse(conversion.perm)
        shape = _expanded(value.type.shape, len(back))
        if value.data is not None:
            data = np.ascontiguousarray(value.data.reshape(shape).transpose(back))
            return builder.constant(data, value.name)
        if shape != value.type.shape:
            value = builder.emit(Reshape(shape), value, name=f"{value.name}_expanded")
        return builder.emit(Transpose(back), value, name=f"{value.name}_transposed")

    # ------------------------------------------------------------------ what conversions leave
    def _merge(self, nodes: Iterable[Node]) -> bool:
        """Merge transposes of transposes, remove those that do nothing, share equal ones."""
        changed = False
        for node in dict.fromkeys(nodes):
            if not isinstance(node.op, Transpose) or not is_live(self.graph, node):
                continue
            x, perm = node.input(0), node.op.perm
            inner = _perm(x)
            if inner is not None:
                assert x.producer is not None
                x, perm = x.producer.input(0), tuple(inner[i] for i in perm)
            if perm == tuple(range(len(perm))) and self._may_replace(node.output, x):
                changed |= self._replace(node, x)
            elif inner is not None:
                merged = Builder(self.graph, node).emit(Transpose(perm), x, name=node.name)
                changed |= self._replace(node, merged)
            else:
                first, *twins = self._in_order(u for u in x.users if u.op == node.op)
                for twin in twins:
                    if self._may_replace(twin.output, first.output):
                        changed |= self._replace(twin, first.output)
        return changed

    def _replace(self, node: Node, new: Value) -> bool:
        users = list(node.output.users)
        replace_value(self.graph, node.output, new, rename=False)
        self.notes.append(Note(node.name, "merge-transposes", True))
        self._merge([*([new.producer] if new.producer is not None else []), *users])
        return True

    def _in_order(self, nodes: Iterable[Node]) -> list[Node]:
        """``nodes`` as they stand in the graph, so that the first of two equal ones can serve both."""
        wanted = {id(n) for n in nodes}
        return [n for n in self.graph.nodes if id(n) in wanted]

    def _may_replace(self, old: Value, new: Value) -> bool:
        """A graph output keeps a value of its own."""
        return not self.graph.is_output(old) or (new.producer is not None and not self.graph.is_output(new))

    def _fold_flattened(self) -> bool:
        """dense(reshape(T x)) where the reshape flattens: T into the columns of the dense weights."""
        changed = False
        for node in list(self.graph.nodes):
            rule = node.op.quant_rule()
            reshape = node.inputs[0].producer if node.inputs and node.inputs[0] is not None else None
            if rule.weight is None or reshape is None or not isinstance(reshape.op, Reshape):
                continue
            weight, transpose = node.input(rule.weight), reshape.input(0).producer
            if weight.data is None or weight.type.rank != 2 or transpose is None:
                continue
            perm, x = _perm(transpose.output), transpose.inputs[0]
            if perm is None or x is None or perm[0] != 0:
                continue
            if reshape.output.type.shape != (x.type.shape[0], x.type.elements // x.type.shape[0]):
                continue
            columns = np.arange(reshape.output.type.shape[1]).reshape(x.type.shape[1:])
            order = columns.transpose(
                [axis - 1 for axis in perm[1:]]
            ).ravel()  # dense column k reads x[order[k]]
            data = weight.data.take(np.argsort(order), axis=1 - rule.weight_axis)
            builder = Builder(self.graph, node)
            operands = list(node.inputs)
            operands[0] = builder.emit(reshape.op, x, name=reshape.name)
            operands[rule.weight] = builder.constant(data, weight.name)
            made = builder.emit(node.op, *operands, name=node.name)
            replace_value(self.graph, node.output, made, rename=True)
            self.notes.append(Note(node.name, "fold-flatten", True))
            changed = True
        return changed

    def _reshape_rest(self) -> bool:
        """A transpose that keeps the order of elements becomes a reshape."""
        changed = False
        for node in list(self.graph.nodes):
            if isinstance(node.op, Transpose) and moves_only_ones(node.input(0).type.shape, node.op.perm):
                op = Reshape(node.output.type.shape)
                made = Builder(self.graph, node).emit(op, node.input(0), name=node.name)
                replace_value(self.graph, node.output, made, rename=True)
                self.notes.append(Note(node.name, "transpose-as-reshape", True))
                changed = True
        return changed

    def declined(self) -> list[Note]:
        """Why the nodes that still read a transpose do."""
        notes = []
        for node in self.graph.nodes:
            if isinstance(node.op, Transpose) or all(_perm(v) is None for v in node.inputs):
                continue
            possible = any(c.down for c in self._candidates(node))
            reason = "it would not save a transpose" if possible else f"{node.op.name} cannot be permuted so"
            notes.append(Note(node.name, "move-transpose", False, reason))
        return notes


def _expanded(shape: tuple[int, ...], rank: int) -> tuple[int, ...]:
    return (1,) * (rank - len(shape)) + shape


def _convert_reshape(node: Node, perm: Perm, above: bool, below: bool) -> list[_Conversion]:
    """Conversions of a reshape that splits or merges only axes that stay together: down, up."""
    source, target = node.input(0).type.shape, node.output.type.shape
    found = []
    if above and len(perm) == len(source):
        commuted = commute(source, perm, target)
        if commuted is not None:
            shape, result = commuted
            found.append(_Conversion(node, perm, result, Reshape(shape), True))
    if below and len(perm) == len(target):
        commuted = commute(target, perm, source)
        if commuted is not None:
            op = Reshape(tuple(target[i] for i in inverse(perm)))
            found.append(_Conversion(node, commuted[1], perm, op, False))
    return found


@register_pass
class EliminateTransposes(Pass):
    """Move transposes to where they cancel, disappear in dense weights, or cost nothing as a reshape.

    What is left of the layout of a channels-first model is one transpose at each image input and output.
    """

    name = "eliminate-transposes"
    stage = "float"
    exactness = "float-exact"

    def run(self, graph: Graph, ctx: PassContext) -> PassResult:
        """To a fixed point."""
        layout = _Layout(graph)
        changed = layout.run()
        return PassResult(changed, (*layout.notes, *layout.declined()))
