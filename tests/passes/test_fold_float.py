"""fold-constants, fold-batch-norm, fold-pad, fold-affine, eliminate-dead on small graphs, every refusal included."""

import numpy as np
import pytest

from qcc.ir.ops.activation import Clamp
from qcc.ir.ops.conv import Conv2d
from qcc.ir.ops.conv_transpose import ConvTranspose2d
from qcc.ir.ops.dense import Dense
from qcc.ir.ops.elementwise import Add, Mul
from qcc.ir.ops.norm import BatchNorm
from qcc.ir.ops.pool import AvgPool2d, MaxPool2d
from qcc.ir.ops.shape import Pad, Reshape, Transpose


def conv(g, x, outputs=4, op=None, bias=True):
    op = op or Conv2d(pads=(1, 1, 1, 1))
    w = g.constant(outputs, 3, 3, x.type.shape[-1] // op.groups)
    return g(op, x, w, g.constant(outputs) if bias else None, name="conv")


# ---------------------------------------------------------------- constants, dead nodes
def test_fold_constants_computes_what_is_known(make, apply):
    g = make(1, 2, 3)
    known = g(Transpose((1, 0)), g(Add(), g.constant(3, 2), g.constant(2)))
    outcome = apply("fold-constants", g.finish(g(Mul(), g.x, known)))
    assert outcome.ops == ["mul"]
    assert len(outcome.graph.constants()) == 1


def test_fold_constants_makes_a_constant_graph_output(make, apply):
    g = make(1, 3)
    outcome = apply("fold-constants", g.finish(g(Clamp(0.0), g.x), g(Clamp(0.0), g.constant(1, 3))))
    assert outcome.ops == ["clamp"]
    assert outcome.graph.outputs[1].is_constant


def test_eliminate_dead_removes_chains_and_keeps_inputs(make, apply):
    g = make(1, 3)
    g(Clamp(0.0), g(Mul(), g.x, g.constant(3)), name="unread")
    outcome = apply("eliminate-dead", g.finish(g(Clamp(1.0), g.constant(1, 3))))
    assert outcome.ops == ["clamp"]
    assert next(n.node for n in outcome.notes) == "unread"
    assert len(outcome.graph.inputs) == 1


# ---------------------------------------------------------------- batch normalization
def batch_norm(g, x, **changed):
    c = x.type.shape[-1]
    parameters = {n: g.constant(c) for n in ("scale", "bias", "mean")} | {"var": g.full(1.7, c)} | changed
    return g(BatchNorm(1e-3), x, *parameters.values(), name="norm")


def test_fold_batch_norm_disappears_in_a_convolution(make, apply):
    g = make(1, 5, 5, 3)
    outcome = apply("fold-batch-norm,fold-affine", g.finish(batch_norm(g, conv(g, g.x, bias=False))))
    assert outcome.ops == ["conv2d"]


def test_fold_batch_norm_alone_becomes_mul_and_add(make, apply):
    g = make(1, 5)
    outcome = apply("fold-batch-norm,fold-affine", g.finish(batch_norm(g, g.x)))
    assert outcome.ops == ["mul", "add"]


def test_fold_batch_norm_declines_computed_parameters(make, apply):
    g = make(5)
    scale = g(Clamp(0.5), g.x, name="s")
    y = batch_norm(g, g.constant(1, 5), scale=scale)
    outcome = apply("fold-batch-norm", g.finish(y))
    assert outcome.declined == [("batch-norm-as-affine", "%s is computed at run time")]


# ---------------------------------------------------------------- padding
@pytest.mark.parametrize(
    "window",
    [
        Conv2d(),
        Conv2d((2, 2), (1, 0, 1, 0)),
        AvgPool2d((3, 3)),
        AvgPool2d((3, 3), (2, 2), (1, 1, 0, 0), count_include_pad=True),
    ],
    ids=str,
)
def test_fold_pad_joins_the_pads_of_the_window(make, apply, window):
    g = make(1, 6, 5, 3)
    padded = g(Pad((0, 1, 0, 0), (0, 2, 1, 0)), g.x)
    y = conv(g, padded, op=window) if isinstance(window, Conv2d) else g(window, padded)
    outcome = apply("fold-pad", g.finish(y))
    (node,) = outcome.graph.nodes
    assert node.op.pads == tuple(a + b for a, b in zip(window.pads, (1, 0, 2, 1), strict=True))


def test_fold_pad_leaves_the_pad_to_its_other_readers(make, apply):
    g = make(1, 6, 5, 3)
    padded = g(Pad((0, 1, 1, 0), (0, 1, 1, 0)), g.x)
    outcome = apply("fold-pad", g.finish(conv(g, padded, op=Conv2d()), g(Clamp(0.0), padded)))
    assert outcome.ops == ["pad", "conv2d", "clamp"]


@pytest.mark.parametrize(
    ("pad", "window", "reason"),
    [
        (Pad((0, 1, 1, 0), (0, 1, 1, 0), mode="edge"), Conv2d(), "the pad repeats the image (edge)"),
        (Pad((0, 1, 1, 0), (0, 1, 1, 1)), Conv2d(), "the pad acts on the batch or channel axis"),
        (Pad((0, -1, 1, 0), (0, 1, 1, 0)), Conv2d(), "the pad crops"),
        (Pad((0, 1, 1, 0), (0, 1, 1, 0), 0.5), Conv2d(), "conv2d cannot pad with 0.5 by itself"),
        (Pad((0, 1, 1, 0), (0, 1, 1, 0)), MaxPool2d((3, 3)), "max_pool2d cannot pad with 0 by itself"),
        (
            Pad((0, 1, 1, 0), (0, 1, 1, 0)),
            AvgPool2d((3, 3), pads=(1, 1, 1, 1)),
            "avg_pool2d cannot pad with 0 by itself",
        ),
        (
            Pad((0, 1, 1, 0), (0, 1, 1, 0)),
            AvgPool2d((3, 3), (2, 2), ceil_mode=True),
            "avg_pool2d cannot pad with 0 by itself",
        ),
    ],
)
def test_fold_pad_declines(make, apply, pad, window, reason):
    g = make(1, 6, 5, 3)
    padded = g(pad, g.x)
    y = conv(g, padded, op=window) if isinstance(window, Conv2d) else g(window, padded)
    outcome = apply("fold-pad", g.finish(y))
    assert outcome.declined == [("fold-pad", reason)]


# ---------------------------------------------------------------- products and sums with constants
LINEAR = {
    "conv": lambda g, x, bias: conv(g, x, 4, bias=bias),
    "strided": lambda g, x, bias: conv(g, x, 4, Conv2d((2, 2)), bias),
    "grouped": lambda g, x, bias: conv(g, x, 6, Conv2d(groups=3), bias),
    "depthwise": lambda g, x, bias: conv(g, x, 6, Conv2d(pads=(1, 1, 1, 1), groups=6), bias),
    "multiplied": lambda g, x, bias: conv(g, x, 12, Conv2d(groups=6), bias),
    "transposed": lambda g, x, bias: conv(g, x, 4, ConvTranspose2d((2, 2)), bias),
    "dense": lambda g, x, bias: g(Dense(), x, g.constant(4, 6), g.constant(4) if bias else None),
}


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kind", list(LINEAR))
@pytest.mark.parametrize("shape", [(), (1,), (0,), (1, 1, 0)])
def test_fold_affine_behind(make, apply, kind, bias, shape):
    """mul, add, mul, add behind a linear op; a 0 in ``shape`` stands for the channels."""
    g = make(1, 6, 5, 6)
    y = LINEAR[kind](g, g.x, bias)
    for op in (Mul(), Add(), Mul(), Add()):
        y = g(op, y, g.constant(*(n or y.type.shape[-1] for n in shape)))
    outcome = apply("fold-affine", g.finish(y))
    assert [n.name for n in outcome.graph.nodes] == [y.name]


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kind", list(LINEAR))
@pytest.mark.parametrize("shape", [(), (6,)])
def test_fold_affine_scale_in_front(make, apply, kind, bias, shape):
    g = make(1, 6, 5, 6)
    y = LINEAR[kind](g, g(Mul(), g.x, g.constant(*shape)), bias)
    assert len(apply("fold-affine", g.finish(y)).ops) == 1


@pytest.mark.parametrize("kind", ["strided", "grouped", "multiplied", "dense"])
def test_fold_affine_sum_in_front_without_padding(make, apply, kind):
    g = make(1, 6, 5, 6)
    y = LINEAR[kind](g, g(Add(), g(Mul(), g.x, g.constant(6)), g.constant(6)), True)
    assert len(apply("fold-affine", g.finish(y)).ops) == 1


@pytest.mark.parametrize("kind", ["conv", "depthwise", "transposed"])
def test_fold_affine_sum_in_front_of_padding_stays(make, apply, kind):
    g = make(1, 6, 5, 6)
    outcome = apply("fold-affine", g.finish(LINEAR[kind](g, g(Add(), g.x, g.constant(6)), True)))
    assert len(outcome.ops) == 2
    assert outcome.declined == [("fold-bias-before", "the contribution differs between positions")]


def test_fold_affine_never_writes_into_a_constant(make, apply):
    g = make(1, 4)
    w, b = g.constant(4, 4), g.constant(4)
    kept = w.data.copy(), b.data.copy()
    first = g(Mul(), g(Dense(), g.x, w, b), g.constant(4))
    second = g(Dense(), first, w, b)
    apply("fold-affine", g.finish(second))
    assert np.array_equal(w.data, kept[0])
    assert np.array_equal(b.data, kept[1])
    assert g.graph.nodes[-1].input(1) is w


def declines(outcome, rule):
    return [reason for name, reason in outcome.declined if name == rule]


@pytest.mark.parametrize(("op", "rule"), [(Mul(), "fold-scale-after"), (Add(), "fold-bias-after")])
def test_fold_affine_behind_declines(make, apply, op, rule):
    g = make(1, 6, 5, 3)
    y = conv(g, g.x)
    outcome = apply("fold-affine", g.finish(g(op, y, g.constant(4)), y))
    assert declines(outcome, rule) == ["%conv is a graph output"]

    g = make(1, 6, 5, 3)
    y = conv(g, g.x)
    outcome = apply("fold-affine", g.finish(g(op, y, g.constant(4)), g(Clamp(0.0), y)))
    assert declines(outcome, rule) == ["%conv has 2 uses"]

    g = make(1, 6, 5, 3)
    outcome = apply("fold-affine", g.finish(g(op, conv(g, g.x), g.constant(6, 1, 1))))
    assert declines(outcome, rule) == ["the constant is not per channel of the last axis"]

    g = make(1, 3)
    y = g(Dense(), g.x, g.constant(4, 3), name="dense")
    outcome = apply("fold-affine", g.finish(g(op, y, g.constant(2, 4))))
    assert declines(outcome, rule) == ["the constant broadcasts the result to another shape"]

    g = make(1, 3)
    y = g(Dense(), g.x, g(Clamp(0.0), g.constant(4, 3)), name="dense")
    outcome = apply("fold-affine", g.finish(g(op, y, g.constant(4))))
    assert declines(outcome, rule) == ["the weights of %dense are computed at run time"]


@pytest.mark.parametrize(("op", "rule"), [(Mul(), "fold-scale-before"), (Add(), "fold-bias-before")])
def test_fold_affine_in_front_declines(make, apply, op, rule):
    g = make(1, 3)
    x = g(op, g.x, g.constant(3), name="scaled")
    outcome = apply("fold-affine", g.finish(g(Dense(), x, g.constant(4, 3)), g(Clamp(0.0), x)))
    assert declines(outcome, rule) == ["%scaled has 2 uses"]

    g = make(1, 3)
    x = g(op, g.x, g.constant(2, 3))
    outcome = apply("fold-affine", g.finish(g(Dense(), x, g.constant(4, 3))))
    assert len(declines(outcome, rule)) == 1

    g = make(1, 3)
    x = g(op, g.x, g.constant(3))
    outcome = apply("fold-affine", g.finish(g(Dense(), x, g(Clamp(0.0), g.constant(4, 3)), name="dense")))
    assert declines(outcome, rule) == ["the weights of %dense are computed at run time"]


def test_fold_affine_scale_along_another_axis_declines(make, apply):
    g = make(1, 6, 5, 3)
    outcome = apply("fold-affine", g.finish(conv(g, g(Mul(), g.x, g.constant(5, 1)))))
    assert declines(outcome, "fold-scale-before") == ["the constant is not per channel of the last axis"]


def test_fold_affine_position_dependent_sum_folds_where_every_position_is_one(make, apply):
    """A window as large as the image has one position, so that even an image of constants is a bias."""
    g = make(1, 3, 3, 2)
    y = conv(g, g(Add(), g.x, g.constant(3, 3, 2)), op=Conv2d())
    assert apply("fold-affine", g.finish(g(Reshape((1, 4)), y))).ops == ["conv2d", "reshape"]
