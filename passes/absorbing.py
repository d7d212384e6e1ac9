"""Which constants in front of a value can take over a division of its elements."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qcc.ir.graph import Graph, Node, Value
from qcc.ir.ops.activation import Clamp, LeakyRelu
from qcc.ir.ops.dense import MatMul
from qcc.ir.ops.elementwise import Add, Mul, Sub
from qcc.ir.ops.norm import BatchNorm, InstanceNorm, LayerNorm
from qcc.ir.ops.pool import AvgPool2d
from qcc.ir.ops.reduce import ReduceMean
from qcc.ir.ops.shape import Reshape, Transpose
from qcc.passes.channel_groups import linear_weight
from qcc.passes.rewrite import sole_user_problem

Reals = NDArray[np.float64]


class NotAbsorbedError(Exception):
    """The message says which node cannot take the factors, and why."""


@dataclass(frozen=True)
class Division:
    """Operand ``index`` of ``node``, a constant, is to be divided by ``factors``, which broadcast with it."""

    node: Node
    index: int
    factors: Reals

    def apply(self, graph: Graph, node: Node) -> None:
        """Give ``node`` of ``graph``, a clone, a constant of its own."""
        old = node.input(self.index)
        assert old.data is not None
        data = np.asarray(old.data / self.factors, np.float32)
        graph.set_input(node, self.index, graph.constant(data, old.name, old.type.with_shape(data.shape)))


def absorb(graph: Graph, value: Value, factors: Reals) -> list[Division]:
    """What divides ``value`` by ``factors``, positive and of its shape.

    Weights and biases of layers, scales and biases of normalizations, constant factors and terms take them, reached through
    reshapes, transposes, means, ReLU, sums, and products of computed values. What lies between must have no other user;
    the users of ``value`` itself are the caller's concern. Raises NotAbsorbedError.
    """
    node = value.producer
    if node is None:
        raise NotAbsorbedError(f"%{value.name} is computed by no node")
    if linear_weight(node) is not None:
        return _into_layer(node, _row(node, factors))
    op = node.op
    if isinstance(op, LayerNorm | InstanceNorm | BatchNorm):
        taken = _reduced(factors) if isinstance(op, LayerNorm) else _row(node, factors)
        return [
            _divided(node, i, taken) for i in (1, 2) if i < len(node.inputs) and node.inputs[i] is not None
        ]
    if isinstance(op, Mul):
        return _into_factor(graph, node, factors)
    if isinstance(op, Add | Sub):
        found = [absorb_operand(graph, node, i, factors) for i in range(2)]
        return [division for divisions in found for division in divisions]
    if isinstance(op, MatMul):
        return _into_product(graph, node, factors)
    if isinstance(op, Reshape | Transpose):
        places = np.arange(factors.size, dtype=np.float64).reshape(node.input(0).type.shape)
        before = np.empty(factors.size)
        before[np.asarray(op.float_ref(places)).astype(np.intp).ravel()] = factors.ravel()
        return absorb_operand(graph, node, 0, before.reshape(places.shape))
    if isinstance(op, ReduceMean | AvgPool2d):
        channels = _row(node, factors)
        if node.op.channel_map(node.signature) != (0,):
            raise NotAbsorbedError(f"{op.name} mixes channels")
        return absorb_operand(graph, node, 0, np.broadcast_to(channels, node.input(0).type.shape))
    if isinstance(op, LeakyRelu) or (isinstance(op, Clamp) and (op.low, op.high) == (0.0, np.inf)):
        return absorb_operand(graph, node, 0, factors)
    raise NotAbsorbedError(f"{op.name} has no constants that could take factors")


def _reduced(factors: Reals) -> Reals:
    """The smallest array that broadcasts to ``factors``, without leading axes of size 1."""
    for axis in range(factors.ndim):
        first = factors.take([0], axis=axis)
        if (factors == first).all():
            factors = first
    while factors.ndim > 1 and factors.shape[0] == 1:
        factors = factors[0]
    return factors


def _row(node: Node, factors: Reals) -> Reals:
    """[C]: the factors of the channels of the result of ``node``."""
    found = _reduced(factors)
    if found.ndim != 1:
        raise NotAbsorbedError(f"the elements of one channel of %{node.output.name} have different factors")
    return np.asarray(np.broadcast_to(found, factors.shape[-1:]))


def _divided(node: Node, index: int, factors: Reals) -> Division:
    if node.input(index).data is None:
        raise NotAbsorbedError(f"the parameters of {node.op.name} are computed")
    return Division(node, index, factors)


def _into_layer(node: Node, channels: Reals) -> list[Division]:
    rule = node.op.quant_rule()
    assert rule.weight is not None
    assert rule.bias is not None
    if any(v is not None and not v.is_constant for v in node.inputs[1:]):
        raise NotAbsorbedError(f"{node.op.name} adds what is computed")
    rank = node.input(rule.weight).type.rank
    found = [_divided(node, rule.weight, channels.reshape(-1, *[1] * (rank - 1)))]
    if rule.bias < len(node.inputs) and node.inputs[rule.bias] is not None:
        found.append(_divided(node, rule.bias, channels))
    return found


def absorb_operand(graph: Graph, node: Node, index: int, factors: Reals) -> list[Division]:
    """Divide operand ``index`` of ``node``, which broadcasts to the shape of ``factors``; nothing else may read it."""
    value, needed = node.input(index), _reduced(factors)
    if value.data is not None:
        return [Division(node, index, needed)]
    problem = sole_user_problem(graph, value)
    if problem:
        raise NotAbsorbedError(problem)
    return absorb(graph, value, _for_shape(value, needed))


def _for_shape(value: Value, needed: Reals) -> Reals:
    try:
        return np.asarray(np.broadcast_to(needed, value.type.shape))
    except ValueError:
        raise NotAbsorbedError(f"%{value.name} is broadcast to elements of different factors") from None


def _into_factor(graph: Graph, node: Node, factors: Reals) -> list[Division]:
    """One operand of a product: a computed one where it can, so that what is rounded before it gains as well."""
    reasons = []
    for index in sorted(range(2), key=lambda i: node.input(i).is_constant):
        try:
            return absorb_operand(graph, node, index, factors)
        except NotAbsorbedError as error:
            reasons.append(str(error))
    raise NotAbsorbedError(" and ".join(reasons))


def _into_product(graph: Graph, node: Node, factors: Reals) -> list[Division]:
    """Factors of columns into the right operand of a matrix product, those of rows into the left one."""
    columns = factors[..., :1, :]
    if (factors != columns).any():
        raise NotAbsorbedError(f"the rows of %{node.output.name} have different factors")
    right = node.input(1)
    if right.data is not None:
        return [Division(node, 1, _reduced(columns))]
    problem = sole_user_problem(graph, right)
    if problem:
        raise NotAbsorbedError(problem)
    return absorb(graph, right, _for_shape(right, _reduced(columns)))
