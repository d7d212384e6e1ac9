"""Movement ops: importers against onnxruntime, intervals against moved bounds, canonical forms."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import qcc.ir.ops  # noqa: F401  (fills the registry)
from qcc.ir.errors import ImportModelError, VerifyError
from qcc.ir.interval import Interval
from qcc.ir.op import OPS, Case, Signature
from qcc.ir.ops.pool import MaxPool2d
from qcc.ir.ops.rearrange import Concat, Slice, Take
from qcc.ir.ops.shape import Movement, Pad, Reshape
from qcc.ir.ops.tiling import Expand, Tile
from qcc.ir.qparams import QParams
from qcc.ir.types import DType, TensorType, f32

Array = NDArray[Any]
Node = Callable[..., Any]
OPSETS = (7, 9, 10, 11, 13, 18, 24)
HUGE = 2**63 - 1

several = settings(max_examples=40, deadline=None)


def image(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def ints(*values: int) -> Array:
    return np.array(values, np.int64)


shapes = st.lists(st.integers(1, 5), min_size=1, max_size=4)


# ------------------------------------------------------------------ importers
def test_slice_equals_onnxruntime(one_node: Node) -> None:
    @several
    @given(st.data(), shapes, st.sampled_from(OPSETS))
    def compare(data: st.DataObject, shape: list[int], opset: int) -> None:
        rank = len(shape)
        axes = data.draw(st.lists(st.integers(0, rank - 1), min_size=1, max_size=rank, unique=True))
        starts, ends, steps = [], [], []
        for axis in axes:
            # a range that is not empty, its ends spelled from the front, from the back or far outside
            n = shape[axis]
            low = data.draw(st.integers(0, n - 1))
            high = data.draw(st.integers(low, n - 1))
            step = data.draw(st.sampled_from([-3, -1, 1, 2] if opset >= 10 else [1]))
            steps.append(step)
            if step > 0:
                starts.append(data.draw(st.sampled_from([low, low - n])))
                ends.append(
                    data.draw(st.sampled_from([high + 1, HUGE] + ([high + 1 - n] if high + 1 < n else [])))
                )
            else:
                starts.append(
                    data.draw(st.sampled_from([high, high - n] + ([HUGE] if high == n - 1 else [])))
                )
                ends.append(low - 1 if low else -n - 1)
        named = [data.draw(st.sampled_from([a, a - rank])) for a in axes]
        x = image(*shape)
        if opset < 10:
            one_node("Slice", [x], opset, starts=starts, ends=ends, axes=axes).check()
        else:
            given_ = [ints(*v) for v in (starts, ends, named, steps)]
            one_node("Slice", [x, *given_], opset, constants=(1, 2, 3, 4)).check()

    compare()


@pytest.mark.parametrize("opset", OPSETS)
def test_concat_equals_onnxruntime(one_node: Node, opset: int) -> None:
    x, y = image(1, 2, 3), image(1, 4, 3, seed=1)
    one_node("Concat", [x, y, x], opset, axis=1).check()
    one_node("Concat", [y, x], opset, constants=(1,), axis=-2).check()
    one_node("Concat", [x], opset, axis=0).check()
    one_node("Concat", [x, x], opset, axis=0).check()


@pytest.mark.parametrize("opset", OPSETS)
def test_split_equals_onnxruntime(one_node: Node, opset: int) -> None:
    x = image(2, 6, 3)
    if opset < 13:
        one_node("Split", [x], opset, outputs=3, axis=1, split=[1, 3, 2]).check()
    else:
        one_node("Split", [x, ints(1, 3, 2)], opset, constants=(1,), outputs=3, axis=-2).check()
    if opset < 18:
        one_node("Split", [x], opset, outputs=2, axis=1).check()
    else:
        one_node("Split", [image(2, 7)], opset, outputs=3, axis=1, num_outputs=3).check()


def test_split_uneven_without_lengths_is_refused_before_opset_18(one_node: Node) -> None:
    with pytest.raises(ImportModelError, match="equal parts"):
        one_node("Split", [image(5)], 13, outputs=2).imported()


@pytest.mark.parametrize("opset", OPSETS)
def test_gather_equals_onnxruntime(one_node: Node, opset: int) -> None:
    x = image(1, 4, 5)
    for indices in (ints(2, 0, 2), ints(3), np.array(1), np.array([[0, 1, 4], [2, 3, 0]])):
        graph = one_node(
            "Gather", [x, indices], opset, constants=(1,), axis=2 if indices.size > 3 else 1
        ).check()
        assert all(n.op.name in ("take", "slice", "reshape") for n in graph.nodes)
    if opset >= 11:
        one_node("Gather", [x, ints(-1, -4)], opset, constants=(1,), axis=-2).check()


@pytest.mark.parametrize(
    "target", [(2, 12), (-1, 4), (0, -1), (4, 0, 2), (24,), (1, 24, 1), (0, 0, 0), (-1,)], ids=str
)
@pytest.mark.parametrize("opset", OPSETS)
def test_reshape_equals_onnxruntime(one_node: Node, opset: int, target: tuple[int, ...]) -> None:
    one_node("Reshape", [image(4, 3, 2), ints(*target)], opset, constants=(1,)).check()


@pytest.mark.parametrize("opset", OPSETS)
def test_squeeze_unsqueeze_flatten_equal_onnxruntime(one_node: Node, opset: int) -> None:
    x = image(1, 3, 1, 2)
    one_node("Squeeze", [x], opset).check()
    for op, axes in (("Squeeze", (2,)), ("Squeeze", (0, 2)), ("Unsqueeze", (1, 4)), ("Unsqueeze", (5, 0))):
        if opset < 13:
            one_node(op, [x], opset, axes=list(axes)).check()
        else:
            one_node(op, [x, ints(*axes)], opset, constants=(1,)).check()
    for axis in (0, 1, 2, 4) if opset < 11 else (0, 1, 4, -1, -4):
        one_node("Flatten", [x], opset, axis=axis).check()


def test_pad_equals_onnxruntime(one_node: Node) -> None:
    @several
    @given(st.data(), shapes, st.sampled_from(OPSETS), st.sampled_from(["constant", "edge", "reflect"]))
    def compare(data: st.DataObject, shape: list[int], opset: int, mode: str) -> None:
        axes = list(range(len(shape)))
        if opset >= 18:
            axes = data.draw(st.lists(st.sampled_from(axes), min_size=1, max_size=len(axes), unique=True))
        most = {a: min(3, shape[a] - 1) if mode == "reflect" else 3 for a in axes}
        # onnxruntime lets only one end of an axis crop all but one element
        least = {a: -((shape[a] - 1) // 2) if mode == "constant" else 0 for a in axes}
        pads = [data.draw(st.integers(least[a], most[a])) for a in axes * 2]
        x = image(*shape)
        if opset < 11:
            one_node("Pad", [x], opset, pads=pads, mode=mode, value=0.5).check()
            return
        value = np.array(0.5, np.float32) if mode == "constant" else None
        last = [value, ints(*axes)] if opset >= 18 else [value] if value is not None else []
        one_node("Pad", [x, ints(*pads), *last], opset, constants=(1, 2, 3), mode=mode).check()

    compare()


@pytest.mark.parametrize("opset", [8, 13, 24])
def test_expand_equals_onnxruntime(one_node: Node, opset: int) -> None:
    for shape, target in (((3, 1), (2, 1, 6)), ((3, 4), (1,)), ((1, 1, 5), (4, 1)), ((2, 1), (2, 3))):
        one_node("Expand", [image(*shape), ints(*target)], opset, constants=(1,)).check()


@pytest.mark.parametrize("opset", [7, 11, 13, 24])
def test_tile_and_blocks_equal_onnxruntime(one_node: Node, opset: int) -> None:
    one_node("Tile", [image(1, 2, 3), ints(1, 3, 2)], opset, constants=(1,)).check()
    one_node("SpaceToDepth", [image(1, 3, 4, 6)], opset, blocksize=2).check()
    one_node("DepthToSpace", [image(1, 18, 2, 3)], opset, blocksize=3).check()
    if opset >= 11:
        one_node("DepthToSpace", [image(1, 12, 2, 3)], opset, blocksize=2, mode="CRD").check()


@pytest.mark.parametrize(
    ("op", "operands", "attrs", "reason"),
    [
        ("Slice", [image(4), ints(3), ints(1), ints(0), ints(1)], {}, "no elements"),
        ("Slice", [image(4), ints(3), ints(1), ints(0), ints(0)], {}, "do not match"),
        ("Slice", [image(4), ints(0), ints(1), ints(2), ints(1)], {}, "out of range"),
        ("Gather", [image(4), ints(4)], {}, "within axis"),
        ("Reshape", [image(4), ints(3, -1)], {}, "does not divide"),
        ("Reshape", [image(4), ints(4, 0)], {}, "copies a dimension"),
        ("Reshape", [image(4), ints(0)], {"allowzero": 1}, "without elements"),
        ("Squeeze", [image(4, 1), ints(0)], {}, "not all of length 1"),
        ("Unsqueeze", [image(4), ints(0, -3)], {}, "an axis twice"),
        ("Pad", [image(4), ints(1)], {}, "two pads for each"),
        ("Pad", [image(4), ints(1, 1)], {"mode": "wrap"}, "mode wrap"),
        ("Pad", [image(4), ints(4, 0)], {"mode": "reflect"}, "shorter than each axis"),
        ("Pad", [image(4), ints(-1, 0)], {"mode": "edge"}, "cannot crop"),
        ("Pad", [image(4), ints(-2, -2)], {}, "leave nothing"),
        ("Tile", [image(4), ints(0)], {}, "one positive number"),
        ("Expand", [image(4), ints(3)], {}, "does not broadcast"),
        ("Expand", [image(4), ints(0)], {}, "without elements"),
    ],
)
def test_what_has_no_meaning_is_refused(
    one_node: Node, op: str, operands: list[Array], attrs: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ImportModelError, match=reason):
        one_node(op, operands, 19, constants=(1, 2, 3, 4), **attrs).imported()


# ------------------------------------------------------------------ ops
Q = QParams.per_tensor(0.5, -3)


def movement_cases() -> list[Case]:
    rng = np.random.default_rng(0)
    classes = [OPS[name] for name in sorted(OPS) if issubclass(OPS[name], Movement)]
    cases = [c for cls in classes if cls is not MaxPool2d for c in cls.cases(rng)]
    one = image(1, 1, 1, 12)
    for shape in ((1, 3, 4), (1, 12, 1), (1, 2, 6), (1, 1, 1, 12), (2, 3, 2)):
        cases.append(Case(Reshape(shape), (one,)))
    for shape in ((1, 18), (3, 6), (1, 9, 2), (6, 3), (2, 9)):
        cases.append(Case(Reshape(shape), (image(1, 3, 6),)))
    return cases


@pytest.mark.parametrize("case", movement_cases(), ids=lambda c: str(c.op))
def test_interval_is_the_channelwise_hull_of_moved_bounds(case: Case) -> None:
    rng = np.random.default_rng(1)
    types = [TensorType(DType.S8, a.shape, Q) for a in case.inputs if a is not None]
    sig = Signature(tuple(types), case.op.infer(*types))
    intervals = []
    for t in types:
        low = rng.integers(-128, 127, size=t.shape[-1])
        intervals.append(Interval(low, low + rng.integers(0, 128 - low)))
    found = case.op.interval(sig, *intervals)
    ends = []
    for name in ("low", "high"):
        bounds = [np.broadcast_to(getattr(i, name), t.shape) for i, t in zip(intervals, types, strict=True)]
        ends.append(case.op.int_ref(sig, *bounds).reshape(-1, sig.result.shape[-1]))
    low, high = ends[0].min(axis=0), ends[1].max(axis=0)
    assert (found.low <= low).all()
    assert (found.high >= high).all()
    lossy = isinstance(case.op, Reshape) or case.op.name in ("transpose", "pad")
    if not lossy:  # these know every channel
        np.testing.assert_array_equal(found.low, low)
        np.testing.assert_array_equal(found.high, high)


def test_reshape_interval_keeps_the_channels_of_a_flatten() -> None:
    op, x = Reshape((1, 12)), TensorType(DType.S8, (1, 2, 2, 3), Q)
    bounds = Interval(np.array([-3, -2, -1]), np.array([1, 2, 3]))
    found = op.interval(Signature((x,), op.infer(x)), bounds)
    np.testing.assert_array_equal(found.low, np.tile([-3, -2, -1], 4))
    np.testing.assert_array_equal(found.high, np.tile([1, 2, 3], 4))


def test_pad_fill_is_the_zero_point_and_saturates() -> None:
    x = TensorType(DType.S8, (4,), Q)
    for value, fill in ((0.0, -3), (1.0, -1), (-np.inf, -128), (1e9, 127)):
        op = Pad((1,), (0,), value)
        sig = Signature((x,), op.infer(x))
        assert op.fill(sig) == fill
        assert op.int_ref(sig, np.zeros(4, np.int8))[0] == fill


@pytest.mark.parametrize(
    ("op", "types"),
    [
        (Slice((1, 0), (0, 0), (1, 1), (1, 1)), [f32(2, 3)]),
        (Slice((0,), (0,), (3,), (1,)), [f32(2, 3)]),
        (Slice((0,), (1,), (1,), (1,)), [f32(2, 3)]),
        (Slice((0,), (2,), (0,), (-1,)), [f32(2, 3)]),
        (Slice((0,), (0,), (-2,), (-1,)), [f32(2, 3)]),
        (Slice((0,), (0,), (1,), (0,)), [f32(2, 3)]),
        (Slice((0,), (0,), (1,), ()), [f32(2, 3)]),
        (Take(2, (0,)), [f32(2, 3)]),
        (Take(1, (3,)), [f32(2, 3)]),
        (Take(1, ()), [f32(2, 3)]),
        (Concat(2), [f32(2, 3)]),
        (Concat(1), [f32(2, 3), f32(3, 3)]),
        (Concat(0), [f32(2, 3), f32(2)]),
        (Concat(0), [TensorType(DType.S8, (2,), Q), TensorType(DType.S8, (2,), QParams.per_tensor(1.0))]),
        (Expand((2, 2)), [f32(2, 3)]),
        (Tile((2,)), [f32(2, 3)]),
        (Pad((0,), (0,)), [f32(2, 3)]),
        (Pad((0, 0), (0, 0), mode="wrap"), [f32(2, 3)]),
    ],
    ids=lambda v: str(v) if not isinstance(v, list) else "",
)
def test_infer_refuses_what_is_not_canonical(op: Any, types: list[TensorType]) -> None:
    with pytest.raises(VerifyError, match=op.name):
        op.infer(*types)


def test_slice_backwards_to_element_zero() -> None:
    op = Slice((0,), (3,), (-1,), (-1,))
    np.testing.assert_array_equal(op.float_ref(np.arange(4)), [3, 2, 1, 0])
    assert op.ranges((4,)) == (range(3, -1, -1),)
