"""eliminate-transposes: where transposes go, which stay, and why; random graphs keep their numbers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcc.ir import interpreter
from qcc.ir.graph import Graph
from qcc.ir.ops.activation import Clamp, Sigmoid
from qcc.ir.ops.conv import Conv2d
from qcc.ir.ops.dense import Dense
from qcc.ir.ops.elementwise import Add, Mul
from qcc.ir.ops.pool import MaxPool2d
from qcc.ir.ops.rearrange import Concat, Slice
from qcc.ir.ops.reduce import ReduceMean
from qcc.ir.ops.shape import Pad, Reshape, Transpose
from qcc.ir.ops.softmax import Softmax
from qcc.ir.verifier import verify
from qcc.passes.base import PassContext
from qcc.passes.layout import EliminateTransposes
from qcc.passes.reshaping import channels_first, commute, inverse, moves_only_ones

LAST, FIRST = Transpose((0, 2, 3, 1)), Transpose((0, 3, 1, 2))


def image_op(g, x, op, *constants):
    """A channels-last op on channels-first values, as the importers write it."""
    return g(FIRST, g(op, g(LAST, x), *constants))


def conv(g, x, outputs=3):
    return image_op(g, x, Conv2d(pads=(1, 1, 1, 1)), g.constant(outputs, 3, 3, x.type.shape[1]))


def transposes(outcome):
    return [n.op.perm for n in outcome.graph.nodes if isinstance(n.op, Transpose)]


# ---------------------------------------------------------------- permutations and reshapes
@given(st.permutations(range(5)))
def test_inverse_undoes(perm):
    x = np.zeros((2, 3, 4, 5, 6)).transpose(perm)
    assert x.transpose(inverse(tuple(perm))).shape == (2, 3, 4, 5, 6)


@given(st.lists(st.integers(1, 3), min_size=1, max_size=5), st.data())
def test_moves_only_ones_means_that_elements_keep_their_order(shape, data):
    perm = tuple(data.draw(st.permutations(range(len(shape)))))
    x = np.arange(np.prod(shape)).reshape(shape)
    # distinct elements tell all there is to tell
    assert moves_only_ones(tuple(shape), perm) == bool((x.transpose(perm).ravel() == x.ravel()).all())


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from([1, 2, 3, 4, 6]), min_size=1, max_size=4), st.data())
def test_commute_moves_a_transpose_across_a_reshape(shape, data):
    """`given` is g transposed; the other side of the reshape must be o transposed."""
    perm = tuple(data.draw(st.permutations(range(len(shape)))))
    g = np.arange(np.prod(shape)).reshape(shape)
    given_side = g.transpose(perm)
    other = data.draw(st.sampled_from(reshapes(given_side.shape)))
    found = commute(given_side.shape, perm, other)
    if found is not None:
        new_shape, new_perm = found
        assert np.array_equal(g.reshape(new_shape).transpose(new_perm), given_side.reshape(other))


def reshapes(shape):
    """The shape itself, flat, with neighbours merged, with factors split, with ones added and dropped."""
    found = [
        shape,
        (int(np.prod(shape)),),
        (1, *shape),
        (*shape, 1),
        tuple(n for n in shape if n != 1) or (1,),
    ]
    found += [(*shape[:i], shape[i] * shape[i + 1], *shape[i + 2 :]) for i in range(len(shape) - 1)]
    found += [(*shape[:i], 2, n // 2, *shape[i + 1 :]) for i, n in enumerate(shape) if n % 2 == 0]
    return found


def test_commute_refuses_axes_that_are_apart():
    assert commute((1, 3, 4, 5), (0, 3, 1, 2), (1, 60)) is None
    assert commute((1, 3, 4, 5), (0, 3, 1, 2), (1, 3, 20)) == ((1, 20, 3), (0, 2, 1))


# ---------------------------------------------------------------- movement
def test_layout_pair_behind_each_other_cancels(make, apply):
    g = make(1, 4, 5, 3)
    y = g(LAST, g(FIRST, g(Clamp(0.0), g.x)))
    assert apply("eliminate-transposes", g.finish(g(Clamp(1.0), y))).ops == ["clamp", "clamp"]


def test_layout_channels_first_chain_keeps_one_at_each_end(make, apply):
    g = make(1, 3, 6, 6)
    y = conv(g, g(Clamp(0.0), g(Add(), conv(g, g.x), g.constant(3, 1, 1))))
    y = image_op(g, g(Pad((0, 0, 1, 1), (0, 0, 0, 0)), y), MaxPool2d())
    outcome = apply("eliminate-transposes", g.finish(y))
    assert outcome.ops == ["transpose", "conv2d", "add", "clamp", "conv2d", "pad", "max_pool2d", "transpose"]
    assert transposes(outcome) == [LAST.perm, FIRST.perm]


def test_layout_transpose_moves_up_to_the_input(make, apply):
    """Preprocessing in channels-first order becomes channels-last, beside the convolution that absorbs it."""
    g = make(1, 3, 6, 6)
    y = g(Pad((0, 0, 1, 1), (0, 0, 0, 0)), g(Mul(), g.x, g.constant(3, 1, 1)))
    outcome = apply("eliminate-transposes", g.finish(g(Conv2d(), g(LAST, y), g.constant(4, 3, 3, 3))))
    assert outcome.ops == ["transpose", "mul", "pad", "conv2d"]


@pytest.mark.parametrize("swap", [False, True])
def test_layout_residual_and_concat(make, apply, swap):
    g = make(1, 3, 6, 6)
    a = g(Clamp(0.0), conv(g, g.x))
    b = conv(g, a)
    y = g(Add(), *((b, a) if swap else (a, b)))
    y = g(Concat(1), y, a, g.constant(1, 2, 6, 6))
    y = conv(g, g(Slice((1,), (1,), (7,), (2,)), y))
    outcome = apply("eliminate-transposes", g.finish(y))
    assert transposes(outcome) == [LAST.perm, FIRST.perm]


def test_layout_swish_doubles_the_transpose_for_a_moment(make, apply):
    g = make(1, 3, 6, 6)
    y = conv(g, g.x)
    y = conv(g, g(Mul(), y, g(Sigmoid(), y)))
    outcome = apply("eliminate-transposes", g.finish(y))
    assert transposes(outcome) == [LAST.perm, FIRST.perm]


def test_layout_squeeze_and_excite(make, apply):
    """The gate passes through [1, C] and comes back by a reshape: a transpose of it costs nothing."""
    g = make(1, 4, 6, 6)
    y = conv(g, g.x, 4)
    gate = g(Reshape((1, 4)), g(ReduceMean((2, 3)), y))
    gate = g(Reshape((1, 4, 1, 1)), g(Sigmoid(), g(Dense(), gate, g.constant(4, 4))))
    y = conv(g, g(Mul(), y, gate))
    outcome = apply("eliminate-transposes,canonicalize", g.finish(y))
    assert transposes(outcome) == [LAST.perm, FIRST.perm]


def test_layout_operand_of_lower_rank_is_expanded(make, apply):
    g = make(1, 4, 6, 6)
    y = conv(g, g.x, 4)
    row = g(Reshape((4, 1, 1)), g(ReduceMean((2, 3)), y))
    outcome = apply("eliminate-transposes", g.finish(conv(g, g(Mul(), y, row))))
    assert transposes(outcome) == [LAST.perm, FIRST.perm]


def test_layout_residual_of_the_input_shares_its_transpose(make, apply):
    g = make(1, 3, 6, 6)
    y = conv(g, g(Add(), conv(g, g.x), g.x))
    assert transposes(apply("eliminate-transposes", g.finish(y))) == [LAST.perm, FIRST.perm]


def test_layout_channel_shuffle_keeps_only_the_shuffle(make, apply):
    g = make(1, 4, 6, 6)
    y = g(Transpose((0, 2, 1, 3, 4)), g(Reshape((1, 2, 2, 6, 6)), conv(g, g.x, 4)))
    outcome = apply("eliminate-transposes", g.finish(conv(g, g(Reshape((1, 4, 6, 6)), y))))
    assert transposes(outcome) == [LAST.perm, (0, 1, 2, 4, 3), FIRST.perm]


def test_layout_patches_to_tokens_cancels(make, apply):
    """Image to sequence: [N, C, H, W] to [N, C, H*W] to [N, H*W, C]."""
    g = make(1, 3, 6, 6)
    y = g(Transpose((0, 2, 1)), g(Reshape((1, 5, 36)), conv(g, g.x, 5)))
    assert transposes(apply("eliminate-transposes", g.finish(y))) == [LAST.perm]


def test_layout_one_dimensional_chain(make, apply):
    g = make(1, 3, 9)
    y = g.x
    for _ in range(2):
        y = g(Reshape((1, 1, 9, 3)), g(Transpose((0, 2, 1)), y))
        y = g(Conv2d(pads=(0, 1, 0, 1)), y, g.constant(3, 1, 3, 3))
        y = g(Transpose((0, 2, 1)), g(Reshape((1, 9, 3)), y))
        y = g(Mul(), y, g(Sigmoid(), g(Add(), y, g.constant(3, 1))))
    outcome = apply("eliminate-transposes,canonicalize", g.finish(y))
    assert len(transposes(outcome)) == 2


def test_layout_softmax_over_channels(make, apply):
    g = make(1, 3, 4, 4)
    y = conv(g, g(Softmax(1), conv(g, g.x)))
    assert transposes(apply("eliminate-transposes", g.finish(y))) == [LAST.perm, FIRST.perm]


@pytest.mark.parametrize("bias", [False, True])
def test_layout_flatten_permutes_dense_weights(make, apply, bias):
    g = make(1, 3, 4, 5)
    flat = g(Reshape((1, 120)), conv(g, g.x, 6))
    y = g(Dense(), flat, g.constant(7, 120), g.constant(7) if bias else None)
    outcome = apply("eliminate-transposes", g.finish(y))
    assert outcome.ops == ["transpose", "conv2d", "reshape", "dense"]
    assert any(n.rule == "fold-flatten" and n.applied for n in outcome.notes)


def test_layout_transpose_of_ones_becomes_a_reshape(make, apply):
    g = make(1, 1, 6, 6)
    y = g(ReduceMean((2, 3)), g(Clamp(0.0), conv(g, g.x, 4)))
    assert transposes(apply("eliminate-transposes", g.finish(y))) == []


def test_layout_two_readers_that_cannot_be_permuted_share_one(make, apply):
    g = make(1, 3, 4, 5)
    y = g(FIRST, g(Clamp(0.0), g(LAST, g.x)))
    a, b = (g(Dense(), g(Transpose((0, 1, 3, 2)), y), g.constant(2, 4)) for _ in range(2))
    assert len(transposes(apply("eliminate-transposes", g.finish(a, b)))) == 1


# ---------------------------------------------------------------- refusals
def test_layout_says_why_a_transpose_stays(make, apply):
    g = make(1, 3, 4, 5)
    y = g(Conv2d(), g(LAST, g.x), g.constant(2, 1, 1, 3))
    outcome = apply("eliminate-transposes", g.finish(y))
    assert outcome.declined == [("move-transpose", "conv2d cannot be permuted so")]


def test_layout_mixed_operands_stay_where_nothing_is_saved(make, apply):
    g = make(1, 4, 4, 3)
    other = g.graph.add_input("other", g.x.type.with_shape((1, 3, 4, 4)))
    outcome = apply("eliminate-transposes", g.finish(g(Add(), g(FIRST, g.x), other)))
    assert outcome.ops == ["transpose", "add"]
    assert outcome.declined == [("move-transpose", "it would not save a transpose")]


def test_layout_identity_between_input_and_output_stays_a_node(make, apply):
    g = make(1, 3, 4, 5)
    outcome = apply("eliminate-transposes", g.finish(g(FIRST, g(LAST, g.x))))
    assert outcome.ops == ["reshape"]


# ---------------------------------------------------------------- random graphs
def random_graph(make, seed) -> Graph:
    """Channels-first images [1, C, 4, 4] with everything that meets transposes in real models."""
    g = make(1, 4, 4, 4)
    rng = g.rng = np.random.default_rng(seed)
    images = [g.x]
    perms = [(0, 2, 3, 1), (0, 3, 1, 2), (0, 1, 3, 2), (0, 2, 1, 3), (0, 3, 2, 1)]

    def pick():
        return images[max(0, len(images) - 1 - int(rng.geometric(0.5)) + 1)]

    steps = [
        lambda: g(Clamp(0.0), pick()),
        lambda: g(Sigmoid(), pick()),
        lambda: conv(g, pick(), 4),
        lambda: conv(g, pick(), 4),
        lambda: g(Add(), pick(), pick()),
        lambda: g(Mul(), pick(), pick()),
        lambda: g(Mul(), pick(), g.constant(*[(4, 1, 1), (4,), (), (1, 4, 4, 4)][rng.integers(4)])),
        lambda: g(Mul(), pick(), g(ReduceMean((2, 3)), pick())),
        lambda: g(Add(), pick(), g(Reshape((4, 1)), g(ReduceMean((1, 3)), pick()))),
        lambda: g(Slice((1,), (2,), (6,), (1,)), g(Concat(1), pick(), pick())),
        lambda: g(Slice((2,), (0,), (8,), (2,)), g(Concat(2), pick(), pick())),
        lambda: g(Pad((0, 0, 1, 0), (0, 0, -1, 0)), pick()),
        lambda: g(Softmax(int(rng.integers(1, 4))), pick()),
        lambda: g(Transpose(perms[rng.integers(len(perms))]), pick()),
        lambda: g(Transpose(perms[rng.integers(2)]), pick()),
        lambda: g(Reshape((1, 4, 4, 4)), g(Transpose((0, 2, 1)), g(Reshape((1, 4, 16)), pick()))),
        lambda: g(Reshape((1, 4, 4, 4)), g(Transpose((0, 2, 1, 3, 4)), g(Reshape((1, 2, 2, 4, 4)), pick()))),
        lambda: g(Reshape((1, 4, 4, 4)), g(Dense(), g(Reshape((1, 64)), pick()), g.constant(64, 64))),
        lambda: g(Dense(), pick(), g.constant(4, 4)),
    ]
    for _ in range(int(rng.integers(2, 16))):
        images.append(steps[rng.integers(len(steps))]())
    unread = [v for v in images[1:] if not v.users] or [g(Clamp(0.0), g.x)]
    g.finish(*unread, *([pick()] if rng.random() < 0.2 and images[-1] is not g.x else []))
    return g.graph


@pytest.mark.parametrize("seed", range(150))
def test_layout_random_graph_keeps_its_numbers(make, seed):
    graph = random_graph(make, seed)
    x = {"x": np.random.default_rng(seed).normal(size=(2, 4, 4, 4)).astype(np.float32)}
    before = interpreter.run(graph, x)
    EliminateTransposes().run(graph, PassContext())
    verify(graph)
    after = interpreter.run(graph, x)
    for name, old in before.items():
        scale = max(1e-6, float(np.abs(old).max()))
        np.testing.assert_allclose(
            after[name] / scale, old / scale, rtol=0, atol=1e-5, err_msg=f"seed {seed}"
        )
    again = EliminateTransposes().run(graph, PassContext())
    assert not again.changed, f"seed {seed}: {again.notes}"


def test_channels_first_is_what_the_importers_emit():
    assert channels_first(4) == FIRST.perm
    assert inverse(FIRST.perm) == LAST.perm
