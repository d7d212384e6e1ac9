"""Pools, resizes, transposed convolutions: importers against onnxruntime, integer forms against exact sums."""

from collections.abc import Callable
from fractions import Fraction
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from qcc.ir.errors import ImportModelError, VerifyError
from qcc.ir.graph import Graph
from qcc.ir.interval import Interval
from qcc.ir.lowering import Lowering
from qcc.ir.op import Op, Signature
from qcc.ir.ops.conv_transpose import ConvTranspose2d
from qcc.ir.ops.pool import DIVISOR_MAX, AvgPool2d, MaxPool2d
from qcc.ir.ops.resize import COORDINATES, NEAREST_MODES, ResizeLinear, ResizeNearest, linear_taps
from qcc.ir.qparams import QParams
from qcc.ir.types import DType, TensorType, f32

Array = NDArray[Any]
Node = Callable[..., Any]
several = settings(max_examples=60, deadline=None)


def image(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def s8(*shape: int, zero_point: int = 0, scale: float = 0.5) -> TensorType:
    return TensorType(DType.S8, shape, QParams.per_tensor(scale, zero_point))


def codes(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(-128, 128, size=shape).astype(np.int8)


# ------------------------------------------------------------------ pools
@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
def test_pool_equals_onnxruntime(one_node: Node, op: str) -> None:
    @several
    @given(st.data(), st.sampled_from([7, 10, 11, 13, 18, 19, 24]), st.integers(1, 2))
    def compare(data: st.DataObject, opset: int, spatial: int) -> None:
        def draw(low: int, high: int) -> list[int]:
            return [data.draw(st.integers(low, high)) for _ in range(spatial)]

        kernel, strides, size = draw(1, 4), draw(1, 3), draw(3, 9)
        attrs: dict[str, Any] = {"kernel_shape": kernel, "strides": strides}
        dilations = [1] * spatial
        auto = data.draw(st.sampled_from(["NOTSET", "NOTSET", "NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"]))
        if auto == "NOTSET":
            attrs["pads"] = [data.draw(st.integers(0, k - 1)) for k in kernel * 2]
            # with auto_pad SAME onnxruntime leaves the dilations out of the size of a window
            if (op == "MaxPool" and opset >= 10) or opset >= 19:
                dilations = attrs["dilations"] = draw(1, 2)
        else:
            attrs["auto_pad"] = auto
            # it also fails, or crops, where SAME needs no padding at all
            assume(all(k >= s for k, s in zip(kernel, strides, strict=True)))
        if opset >= 10:
            attrs["ceil_mode"] = data.draw(st.integers(0, 1))
        if op == "AveragePool":
            attrs["count_include_pad"] = data.draw(st.integers(0, 1))
        pads = attrs.get("pads", [0] * (2 * spatial))
        for n, k, d, begin, end in zip(size, kernel, dilations, pads, pads[spatial:], strict=False):
            assume(n + min(begin, end) >= (k - 1) * d + 1)
        one_node(op, [image(1, 3, *size)], opset, **attrs).check(1e-5)

    compare()


def test_pool_refuses_indices(one_node: Node) -> None:
    model = one_node("MaxPool", [image(1, 1, 4, 4)], 12, outputs=2, kernel_shape=[2, 2])
    del model.proto.graph.output[0]  # only the indices are used
    with pytest.raises(ImportModelError, match="Indices"):
        model.imported()


def test_pool_refuses_three_dimensions(one_node: Node) -> None:
    with pytest.raises(ImportModelError, match="1-D and 2-D"):
        one_node("MaxPool", [image(1, 1, 4, 4, 4)], 12, kernel_shape=[2, 2, 2]).imported()


@pytest.mark.parametrize(
    "op",
    [
        MaxPool2d((2, 2), pads=(2, 0, 0, 0)),
        AvgPool2d((1, 2), pads=(0, 0, 0, 2)),
        MaxPool2d((5, 1)),
        MaxPool2d(pads=(-1, 0, 0, 0)),
        AvgPool2d(strides=(0, 1)),
    ],
    ids=str,
)
def test_pool_refuses_windows_without_elements(op: Op) -> None:
    with pytest.raises(VerifyError):
        op.infer(f32(1, 4, 4, 1))
    with pytest.raises(VerifyError):
        op.infer(f32(4, 4, 1))


pools = st.builds(
    lambda kernel, strides, pads, ceil, include: AvgPool2d(
        kernel,
        strides,
        (pads[0] % kernel[0], pads[1] % kernel[1], pads[2] % kernel[0], pads[3] % kernel[1]),
        ceil_mode=ceil,
        count_include_pad=include,
    ),
    st.tuples(st.integers(1, 4), st.integers(1, 4)),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.tuples(*[st.integers(0, 3)] * 4),
    st.booleans(),
    st.booleans(),
)


@several
@given(pools, st.integers(4, 7), st.integers(4, 7), st.integers(-128, 127))
def test_avg_pool_accumulator_is_the_exact_mean(op: AvgPool2d, h: int, w: int, zero_point: int) -> None:
    x, type_ = codes(1, h, w, 2), s8(1, h, w, 2, zero_point=zero_point)
    sig = Signature((type_,), op.infer(type_))
    acc = op.int_ref(sig, x)
    centred = x.astype(int) - zero_point
    divisor = op.divisor(h, w)
    top, left, bottom, right = op.pads
    bounds = op.interval(sig, Interval.of_array(x))
    for i, j in product(range(acc.shape[1]), range(acc.shape[2])):
        total, count = np.zeros(2, int), 0
        for a, b in product(range(op.kernel[0]), range(op.kernel[1])):
            row, column = i * op.strides[0] + a - top, j * op.strides[1] + b - left
            if 0 <= row < h and 0 <= column < w:
                total, count = total + centred[0, row, column], count + 1
            elif op.count_include_pad and row < h + bottom and column < w + right:
                count += 1
        for c in range(2):
            assert Fraction(int(acc[0, i, j, c]), divisor) == Fraction(int(total[c]), count)
            assert bounds.low[c] <= acc[0, i, j, c] <= bounds.high[c]
    assert sig.result.qparams is not None
    assert sig.result.qparams.scale[0] == 0.5 / divisor


def test_avg_pool_of_one_count_has_factor_one() -> None:
    op = AvgPool2d((2, 2), (2, 2))
    assert op.divisor(8, 8) == 4
    assert (op.factors(8, 8) == 1).all()


def test_avg_pool_with_a_huge_divisor_stays_in_float() -> None:
    op = AvgPool2d((1, 29), pads=(0, 14, 0, 14))
    assert op.divisor(1, 29) > DIVISOR_MAX
    graph = Graph("one")
    x = graph.add_input("x", f32(1, 1, 29, 2))
    node = graph.add_node(op, [x], op.infer(x.type), "y")
    assert op.accumulate(Lowering(graph), node) is None


def test_max_pool_padding_never_wins() -> None:
    op, type_ = MaxPool2d((3, 3), pads=(1, 1, 1, 1)), s8(1, 2, 2, 1, zero_point=100)
    x = np.full((1, 2, 2, 1), -128, np.int8)
    assert (op.int_ref(Signature((type_,), op.infer(type_)), x) == -128).all()


def test_max_pool_takes_over_a_pad_below_all_floats() -> None:
    op = MaxPool2d((3, 3))
    assert op.with_padding((1, 0, 1, 2), float("-inf")) == MaxPool2d((3, 3), pads=(1, 0, 1, 2))
    assert op.with_padding((1, 0, 1, 2), 0.0) is None
    assert op.with_padding((3, 0, 0, 0), float("-inf")) is None


# ------------------------------------------------------------------ resize
@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_resize_equals_onnxruntime(one_node: Node, mode: str) -> None:
    @settings(max_examples=120, deadline=None)
    @given(st.data(), st.sampled_from([10, 11, 13, 18, 19, 24]), st.integers(1, 2), st.booleans())
    def compare(data: st.DataObject, opset: int, spatial: int, by_size: bool) -> None:
        size = [data.draw(st.integers(2, 9)) for _ in range(spatial)]
        axes = list(range(2 + spatial))
        attrs: dict[str, Any] = {"mode": mode}
        scales = [1.0, 1.0] + [data.draw(st.sampled_from([0.5, 0.6, 1.0, 1.3, 2.0, 2.5, 4.0])) for _ in size]
        sizes = [1, 2] + [data.draw(st.integers(1, 19)) for _ in size]
        if opset >= 11:
            known = [c for c in COORDINATES if c != "half_pixel_symmetric" or opset >= 19]
            attrs["coordinate_transformation_mode"] = data.draw(st.sampled_from(known))
            if mode == "nearest":
                attrs["nearest_mode"] = data.draw(st.sampled_from(NEAREST_MODES[:4]))
        if opset >= 18 and data.draw(st.booleans()):
            axes = attrs["axes"] = axes[2:]
            scales, sizes = scales[2:], sizes[2:]
        x, factors = image(1, 2, *size), np.array(scales, np.float32)
        if opset == 10:
            operands: list[Array | None] = [x, factors]
        elif by_size:
            roi = np.zeros(0, np.float32) if opset < 13 else None
            operands = [x, roi, roi, np.array(sizes, np.int64)]
        else:
            operands = [x, np.zeros(0, np.float32) if opset < 13 else None, factors]
        one_node("Resize", operands, opset, constants=(1, 2, 3), **attrs).check(1e-5)

    compare()


@pytest.mark.parametrize("coordinates", [c for c in COORDINATES if c != "tf_half_pixel_for_nn"])
@pytest.mark.parametrize("nearest_mode", NEAREST_MODES[:4])
def test_nearest_ties_fall_as_in_onnxruntime(one_node: Node, coordinates: str, nearest_mode: str) -> None:
    attrs = {"coordinate_transformation_mode": coordinates, "nearest_mode": nearest_mode, "mode": "nearest"}
    for size, out in ((7, 2), (14, 1), (14, 19), (20, 6), (5, 17), (10, 12), (26, 64)):
        x = np.arange(size, dtype=np.float32).reshape(1, 1, size, 1)
        sizes = np.array([1, 1, out, 1], np.int64)
        one_node("Resize", [x, None, None, sizes], 19, constants=(3,), **attrs).check()


@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_upsample_equals_onnxruntime(one_node: Node, mode: str) -> None:
    for height, width in ((2.0, 2.0), (1.0, 3.0), (1.5, 2.3)):
        scales, x = [1.0, 1.0, height, width], image(1, 3, 4, 5)
        one_node("Upsample", [x], 7, scales=scales, mode=mode).check(1e-5)
        one_node("Upsample", [x, np.array(scales, np.float32)], 9, constants=(1,), mode=mode).check(1e-5)


@pytest.mark.parametrize(
    ("scales", "attrs", "reason"),
    [
        ((1, 2, 2, 2), {}, "only spatial axes"),
        ((1, 1, 2, 2), {"mode": "cubic"}, "mode cubic"),
        ((1, 1, 2, 2), {"mode": "linear", "antialias": 1}, "antialias"),
        ((1, 1, 2, 2), {"coordinate_transformation_mode": "tf_crop_and_resize"}, "tf_crop_and_resize"),
        ((1, 1, 2, 2), {"keep_aspect_ratio_policy": "not_larger"}, "keep_aspect_ratio_policy"),
        ((2, 2), {}, "for each of axes"),
        ((1, 1, 0.1, 1), {}, "cannot be resized"),
    ],
)
def test_resize_refuses_what_it_cannot(
    one_node: Node, scales: tuple[float, ...], attrs: dict[str, Any], reason: str
) -> None:
    operands = [image(1, 2, 3, 3), None, np.array(scales, np.float32)]
    with pytest.raises(ImportModelError, match=reason):
        one_node("Resize", operands, 18, constants=(2,), **attrs).imported()


@pytest.mark.parametrize(
    "op",
    [
        ResizeNearest((2, 2), (1.0, 1.0), "round"),
        ResizeNearest((2, 2), (1.0, 1.0), nearest_mode="round"),
        ResizeLinear((2, 2), (1.0, 1.0), "round"),
        ResizeLinear((2, 0)),
        ResizeLinear((2, 2), (0.0, 1.0)),
    ],
    ids=str,
)
def test_resize_infer_refuses_unknown_modes_and_sizes(op: Op) -> None:
    with pytest.raises(VerifyError, match=op.name):
        op.infer(f32(1, 2, 2, 1))


@several
@given(st.integers(1, 20), st.integers(1, 40), st.sampled_from(COORDINATES))
def test_linear_weights_round_to_within_their_stated_error(size: int, out: int, coordinates: str) -> None:
    op = ResizeLinear((out, 1), (out / size, 1.0), coordinates)
    (i0, i1, weight), _ = op.taps(size, 1)
    (_, _, integer), _ = op.integer_taps(size, 1)
    assert (i0 >= 0).all()
    assert (i1 < size).all()
    assert (weight >= 0).all()
    assert (weight <= 1).all()
    assert np.abs(integer / 128 - weight).max() <= 2**-8
    if out in (2 * size, 4 * size, 8 * size) and coordinates != "align_corners":
        np.testing.assert_array_equal(integer / 128, weight)


@pytest.mark.parametrize("zero_point", [-128, 0, 127])
def test_resize_linear_accumulator_is_the_exact_weighted_sum(zero_point: int) -> None:
    op, type_ = ResizeLinear((7, 9), (7 / 4, 9 / 5)), s8(1, 4, 5, 2, zero_point=zero_point)
    sig, x = Signature((type_,), op.infer(type_)), codes(1, 4, 5, 2)
    acc = op.int_ref(sig, x)
    rows, columns = (linear_taps(n, m, m / n, "half_pixel") for n, m in ((4, 7), (5, 9)))
    for i, j in product(range(7), range(9)):
        expected = np.zeros(2, int)
        down, right = round(float(rows[2][i]) * 128), round(float(columns[2][j]) * 128)
        for row, weight in ((rows[0][i], 128 - down), (rows[1][i], down)):
            for column, other in ((columns[0][j], 128 - right), (columns[1][j], right)):
                expected = expected + weight * other * (x[0, row, column].astype(int) - zero_point)
        np.testing.assert_array_equal(acc[0, i, j], expected)
    assert sig.result.qparams is not None
    assert sig.result.qparams.scale[0] == 0.5 / 2**14


# ------------------------------------------------------------------ transposed convolution
def test_conv_transpose_equals_onnxruntime(one_node: Node) -> None:
    @several
    @given(st.data(), st.sampled_from([7, 11, 13, 18, 22]), st.integers(1, 2), st.integers(1, 3))
    def compare(data: st.DataObject, opset: int, spatial: int, groups: int) -> None:
        def draw(low: int, high: int) -> list[int]:
            return [data.draw(st.integers(low, high)) for _ in range(spatial)]

        kernel, strides, dilations, size = draw(1, 4), draw(1, 3), draw(1, 2), draw(3, 5)
        attrs: dict[str, Any] = {"strides": strides, "dilations": dilations, "group": groups}
        reach = [
            (n - 1) * s + (k - 1) * d + 1 for n, s, k, d in zip(size, strides, kernel, dilations, strict=True)
        ]
        auto = data.draw(st.sampled_from(["NOTSET", "NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"]))
        if auto == "NOTSET" and data.draw(st.booleans()):
            attrs["output_shape"] = [data.draw(st.integers(max(1, r - 3), r)) for r in reach]
        elif auto == "NOTSET":
            attrs["pads"] = [data.draw(st.integers(0, min(2, (r - 1) // 2))) for r in reach * 2]
            attrs["output_padding"] = [data.draw(st.integers(0, s - 1)) for s in strides]
        else:
            attrs["auto_pad"] = auto
            assume(auto == "VALID" or all(r >= n * s for r, n, s in zip(reach, size, strides, strict=True)))
        x = image(1, 2 * groups, *size)
        w, bias = image(2 * groups, 3, *kernel, seed=1), image(3 * groups, seed=2)
        operands = [x, w, bias] if data.draw(st.booleans()) else [x, w]
        one_node("ConvTranspose", operands, opset, constants=(1, 2), **attrs).check(1e-4)

    compare()


def test_conv_transpose_refuses_outputs_that_no_tap_reaches(one_node: Node) -> None:
    operands = [image(1, 1, 3), image(1, 1, 2)]
    for attrs in ({"output_shape": [9]}, {"auto_pad": "SAME_UPPER", "strides": [3]}):
        with pytest.raises(ImportModelError, match="larger than what the input reaches"):
            one_node("ConvTranspose", operands, 11, constants=(1,), **attrs).imported()


def test_conv_transpose_refuses_computed_weights_and_three_dimensions(one_node: Node) -> None:
    with pytest.raises(ImportModelError, match="computed at run time"):
        one_node("ConvTranspose", [image(1, 1, 3), image(1, 1, 2)], 11).imported()
    with pytest.raises(ImportModelError, match="1-D and 2-D"):
        one_node("ConvTranspose", [image(1, 1, 3, 3, 3), image(1, 1, 2, 2, 2)], 11, constants=(1,)).imported()


@pytest.mark.parametrize(
    ("op", "types"),
    [
        (ConvTranspose2d(), [f32(3, 3, 1), f32(1, 2, 2, 1)]),
        (ConvTranspose2d(groups=2), [f32(1, 3, 3, 3), f32(2, 2, 2, 1)]),
        (ConvTranspose2d(), [f32(1, 3, 3, 1), f32(2, 2, 2, 1), f32(1)]),
        (ConvTranspose2d(pads=(-1, 0, 0, 0)), [f32(1, 3, 3, 1), f32(2, 2, 2, 1)]),
        (ConvTranspose2d(strides=(0, 1)), [f32(1, 3, 3, 1), f32(2, 2, 2, 1)]),
        (ConvTranspose2d(pads=(2, 0, 2, 0)), [f32(1, 3, 3, 1), f32(2, 2, 2, 1)]),
    ],
    ids=lambda v: str(v) if isinstance(v, Op) else "",
)
def test_conv_transpose_infer_refuses(op: Op, types: list[TensorType]) -> None:
    with pytest.raises(VerifyError, match="conv_transpose2d"):
        op.infer(*types)


def integer_case(op: ConvTranspose2d, channels: int, weight: Array) -> Signature:
    x = s8(1, 3, 4, channels, zero_point=op.x_zero_point)
    w = TensorType(DType.S8, weight.shape, QParams.per_channel(np.full(len(weight), 0.25), 0))
    bias = TensorType(DType.S32, (len(weight),), QParams.per_channel(np.full(len(weight), 0.125), 0, "s32"))
    return Signature((x, w, bias), op.infer(x, w, bias))


@pytest.mark.parametrize("strides", [(1, 1), (2, 3), (3, 1)])
@pytest.mark.parametrize("groups", [1, 2])
def test_conv_transpose_accumulator_is_the_exact_sum(strides: tuple[int, int], groups: int) -> None:
    op = ConvTranspose2d(strides, (1, 0, 0, 1), (0, 0), (1, 2), groups, x_zero_point=-7)
    x, w = codes(1, 3, 4, 4), codes(4, 2, 3, 4 // groups, seed=1)
    bias = np.array([5, -(2**20), 0, 2**20], np.int32)
    sig = integer_case(op, 4, w)
    acc = op.int_ref(sig, x, w, bias)
    expected = np.zeros(sig.result.shape, object) + bias.astype(object)
    for i, j, a, b, o, c in product(*map(range, (3, 4, 2, 3, 4, 4 // groups))):
        row, column = i * strides[0] + a - 1, j * strides[1] + 2 * b
        if 0 <= row < acc.shape[1] and 0 <= column < acc.shape[2]:
            channel = o // (4 // groups) * (4 // groups) + c
            expected[0, row, column, o] += int(w[o, a, b, c]) * (int(x[0, i, j, channel]) + 7)
    np.testing.assert_array_equal(acc, expected.astype(np.int64))
    bounds = op.interval(sig, Interval.of_array(x), w, bias)
    assert (bounds.low <= acc.min(axis=(0, 1, 2))).all()
    assert (acc.max(axis=(0, 1, 2)) <= bounds.high).all()
    assert np.abs(acc).max() <= op.partial_sum_bound(sig, Interval.of_array(x), w, bias)


def test_conv_transpose_interval_counts_one_phase_at_a_time() -> None:
    op, w = ConvTranspose2d((2, 2)), np.array([1, 2, 3, -4], np.int8).reshape(1, 2, 2, 1)
    sig = integer_case(op, 1, w)
    bounds = op.interval(sig, Interval.full(-128, 127, 1), w, np.zeros(1, np.int32))
    # no two taps meet at stride 2: the widest single product, not the sum of four
    assert (int(bounds.low[0]), int(bounds.high[0])) == (-4 * 127, 4 * 128)
