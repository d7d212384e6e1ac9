"""Canonical form: each rule on the smallest graph that shows it."""

import numpy as np
import pytest

from qcc.ir.ops.activation import Clamp
from qcc.ir.ops.elementwise import Add, Div, Mul, Sub
from qcc.ir.ops.pool import MaxPool2d
from qcc.ir.ops.rearrange import Concat, Slice
from qcc.ir.ops.shape import Pad, Reshape, Transpose
from qcc.passes.base import PASSES, PassContext

INF = float("inf")


@pytest.mark.parametrize(
    "op",
    [
        Reshape((1, 3, 4, 4)),
        Transpose((0, 1, 2, 3)),
        Pad((0, 0, 0, 0), (0, 0, 0, 0)),
        Clamp(-INF, INF),
        Slice((1, 3), (0, 0), (3, 4), (1, 1)),
        Concat(2),
        MaxPool2d((1, 1)),
    ],
    ids=lambda op: op.name,
)
def test_canonicalize_identity_is_removed(make, apply, op):
    g = make(1, 3, 4, 4)
    outcome = apply("canonicalize", g.finish(g(Clamp(0.0), g(op, g.x))))
    assert outcome.ops == ["clamp"]


@pytest.mark.parametrize(
    "op",
    [
        Transpose((0, 1, 3, 2)),
        Slice((3,), (3,), (-1,), (-1,)),
        Pad((0, 1, 0, 0), (0, -1, 0, 0)),
        Clamp(0.0, INF),
        # a window that holds the element before: an ascending ramp passes through it unchanged
        MaxPool2d((1, 2), pads=(0, 1, 0, 0)),
        MaxPool2d((1, 2), pads=(0, 0, 0, 1)),
    ],
    ids=lambda op: op.name,
)
def test_canonicalize_near_identity_stays(make, apply, op):
    g = make(1, 3, 4, 4)
    assert apply("canonicalize", g.finish(g(op, g.x))).ops == [op.name]


@pytest.mark.parametrize(("op", "neutral"), [(Mul, 1.0), (Add, 0.0), (Sub, 0.0), (Div, 1.0)])
@pytest.mark.parametrize("shape", [(), (4,), (1, 3, 1)])
def test_canonicalize_neutral_constant_is_removed(make, apply, op, neutral, shape):
    g = make(1, 3, 4)
    outcome = apply("canonicalize", g.finish(g(Clamp(0.0), g(op(), g.x, g.full(neutral, *shape)))))
    assert outcome.ops == ["clamp"]


def test_canonicalize_neutral_constant_that_broadcasts_stays(make, apply):
    g = make(1, 4)
    outcome = apply("canonicalize", g.finish(g(Clamp(0.0), g(Mul(), g.x, g.full(1.0, 3, 4)))))
    assert outcome.ops == ["mul", "clamp"]


@pytest.mark.parametrize(
    ("inner", "outer", "merged"),
    [
        ((0.0, 6.0), (-1.0, 3.0), (0.0, 3.0)),
        ((0.0, INF), (-INF, 1.0), (0.0, 1.0)),
        ((-1.0, 0.5), (0.7, 2.0), (0.7, 0.7)),  # disjoint: a constant
        ((0.7, 2.0), (-1.0, 0.5), (0.5, 0.5)),
    ],
)
def test_canonicalize_clamps_are_merged(make, apply, inner, outer, merged):
    g = make(1, 5)
    outcome = apply("canonicalize", g.finish(g(Clamp(*outer), g(Clamp(*inner), g.x))))
    assert [n.op for n in outcome.graph.nodes] == [Clamp(*merged)]


def test_canonicalize_chains_of_movement_are_merged(make, apply):
    g = make(1, 2, 3, 4)
    y = g(Transpose((0, 3, 1, 2)), g(Transpose((0, 2, 3, 1)), g(Transpose((0, 1, 3, 2)), g.x)))
    y = g(Reshape((6, 4)), g(Reshape((24,)), y))
    outcome = apply("canonicalize", g.finish(y))
    assert [n.op for n in outcome.graph.nodes] == [Transpose((0, 1, 3, 2)), Reshape((6, 4))]


def test_canonicalize_constants_are_joined(make, apply):
    g = make(1, 3, 4)
    y = g(Mul(), g(Mul(), g.x, g.constant(4)), g.constant(3, 1))
    y = g(Add(), g(Add(), y, g.constant(4)), g.constant(1))
    assert apply("canonicalize", g.finish(y)).ops == ["mul", "add"]


def test_canonicalize_constants_are_not_joined_for_two_readers_or_out_of_range(make, apply):
    g = make(1, 4)
    inner = g(Mul(), g.x, g.constant(4), name="inner")
    outcome = apply("canonicalize", g.finish(g(Mul(), inner, g.constant(4)), inner))
    assert outcome.ops == ["mul", "mul"]
    assert outcome.declined == [("merge-constants", "%inner is a graph output")]
    g = make(1, 4)
    y = g(Mul(), g(Mul(), g.x, g.full(1e-30, 1)), g.full(1e-30, 1))
    outcome = apply("canonicalize", g.finish(y))
    assert outcome.declined == [("merge-constants", "the joined constant is not a normal float32")]


def test_canonicalize_difference_and_quotient_become_sum_and_product(make, apply):
    g = make(1, 4)
    y = g(Div(), g(Sub(), g.x, g.constant(4)), g.constant(4))
    assert apply("canonicalize", g.finish(y)).ops == ["add", "mul"]


@pytest.mark.parametrize("divisor", [0.0, 1e-45, 3e38, INF])
def test_canonicalize_divisor_without_a_reciprocal_stays(make, divisor):
    g = make(1, 4)
    result = PASSES["canonicalize"]().run(g.finish(g(Div(), g.x, g.full(divisor))), PassContext())
    (note,) = result.notes
    assert (note.rule, note.applied) == ("divide-by-constant", False)
    assert note.reason == "the reciprocal of a divisor is not a normal float32"


def test_canonicalize_constant_minuend_and_dividend_stay(make, apply):
    g = make(1, 4)
    y = g(Sub(), g.constant(4), g(Clamp(1.0, 2.0), g.x))
    outcome = apply("canonicalize", g.finish(g(Div(), g.constant(4), g(Clamp(1.0), y))))
    assert outcome.ops == ["clamp", "sub", "clamp", "div"]


@pytest.mark.parametrize("op", [Add(), Mul()])
def test_canonicalize_constant_comes_second(make, apply, op):
    g = make(1, 4)
    (node,) = apply("canonicalize", g.finish(g(op, g.constant(4), g.x))).graph.nodes
    assert (node.input(0).is_constant, node.input(1).is_constant) == (False, True)


@pytest.mark.parametrize(
    ("shape", "repeat", "small"),
    [
        ((1,), (), ()),
        ((1, 1, 1, 1), (), ()),
        ((1, 1, 1, 4), (), (4,)),
        ((1, 1, 1, 1), (1, 2, 3, 4), ()),
        ((1, 1, 1, 4), (1, 2, 3, 1), (4,)),
        ((1, 2, 1, 1), (1, 1, 3, 4), (2, 1, 1)),
        ((2, 3, 4), (), (2, 3, 4)),
    ],
)
def test_canonicalize_constant_takes_its_smallest_shape(make, apply, shape, repeat, small):
    g = make(1, 2, 3, 4)
    data = np.tile(g.rng.normal(size=shape).astype(np.float32), repeat or 1)
    constant = g.builder.constant(data.reshape(shape if not repeat else data.shape), "c")
    (node,) = apply("canonicalize", g.finish(g(Add(), g.x, constant))).graph.nodes
    assert node.input(1).type.shape == small


def test_canonicalize_constant_that_gives_the_shape_stays(make, apply):
    g = make(1, 4)
    (node,) = apply("canonicalize", g.finish(g(Add(), g.x, g.full(2.0, 3, 4)))).graph.nodes
    assert node.input(1).type.shape == (3, 4)


def test_canonicalize_equal_nodes_are_shared(make, apply):
    g = make(1, 4)
    a = g(Mul(), g.x, g.full(2.0, 4))
    b = g(Mul(), g.x, g.full(2.0, 4))
    c = g(Mul(), g.x, g.full(3.0, 4))
    outcome = apply("canonicalize", g.finish(g(Add(), g(Clamp(0.0), a), g(Add(), g(Clamp(0.0), b), c))))
    assert outcome.ops == ["mul", "mul", "clamp", "add", "add"]


def test_canonicalize_equal_graph_outputs_stay(make, apply):
    g = make(1, 4)
    assert apply("canonicalize", g.finish(g(Clamp(0.0), g.x), g(Clamp(0.0), g.x))).ops == ["clamp", "clamp"]


@pytest.mark.parametrize(
    ("start", "end", "step", "kept"),
    [(0, 2, 1, False), (2, 5, 1, False), (1, 3, 1, True), (0, 4, 1, True), (4, 1, -1, True)],
)
def test_canonicalize_slice_of_concat_is_the_operand_it_takes(make, apply, start, end, step, kept):
    g = make(1, 5)
    a = g(Slice((1,), (1,), (3,), (1,)), g.x)
    b = g(Slice((1,), (0,), (5,), (2,)), g.x)
    y = g(Slice((1,), (start,), (end,), (step,)), g(Concat(1), a, b))
    outcome = apply("canonicalize", g.finish(g(Clamp(0.0), y)))
    assert ("concat" in outcome.ops) == kept
