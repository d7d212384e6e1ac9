"""fixedpoint.py against exact integers and fractions, against onnxruntime, and the tables of NUMERICS.md."""

import re
from fractions import Fraction
from importlib import resources
from math import floor

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from qcc.ir.fixedpoint import (
    dequantize,
    fake_quantize,
    quantize,
    quantize_exactly,
    quantize_multiplier,
    requantize,
)
from qcc.ir.qparams import INTEGER_RANGE, QParams

INT32 = st.one_of(st.sampled_from([-(2**31), 2**31 - 1, -1, 0, 1]), st.integers(-(2**31), 2**31 - 1))
MULTIPLIER = st.one_of(st.sampled_from([2**30, 2**31 - 1]), st.integers(2**30, 2**31 - 1))
SHIFT = st.one_of(st.sampled_from([1, 31, 62]), st.integers(1, 62))


def round_half_up(x: Fraction) -> int:
    return floor(x + Fraction(1, 2))


def saturate(q: int, dtype: str) -> int:
    low, high = INTEGER_RANGE[dtype]
    return min(max(q, low), high)


# ---------------------------------------------------------------------- requantize
@given(INT32, MULTIPLIER, SHIFT, st.integers(-128, 127))
def test_requantize_equals_exact_fractions(acc: int, multiplier: int, shift: int, zero_point: int) -> None:
    exact = round_half_up(Fraction(acc * multiplier, 2**shift)) + zero_point
    wide = requantize(np.array([acc]), multiplier, shift, zero_point, -(2**62), 2**62)
    assert wide.tolist() == [exact]
    narrow = requantize(np.array([acc]), multiplier, shift, zero_point, -128, 127)
    assert narrow.tolist() == [saturate(exact, "s8")]


@given(INT32, MULTIPLIER, st.integers(31, 62))
def test_two_roundings_are_those_of_gemmlowp(acc: int, multiplier: int, shift: int) -> None:
    got = requantize(np.array([acc]), multiplier, shift, 0, -(2**62), 2**62, rounding="twice")
    assert got.tolist() == [gemmlowp(acc, multiplier, shift - 31)]


@given(st.integers(-(2**15), 2**15 - 1), st.integers(1, 62))
def test_requantize_rounds_exact_ties_up(half: int, shift: int) -> None:
    # acc * 2^30 * 2^-31 = acc / 2: every odd acc is a tie
    acc = 2 * half + 1
    assert requantize(np.array([acc]), 2**30, 31, 0, -(2**31), 2**31).tolist() == [half + 1]


def test_requantize_takes_one_multiplier_per_channel() -> None:
    acc = np.array([[100, 100, -100], [7, 7, 7]], np.int32)
    multiplier, shift = np.array([2**30, 2**31 - 1, 2**30]), np.array([31, 32, 33])
    expected = [
        [
            saturate(round_half_up(Fraction(int(a) * int(m), 2 ** int(s))) - 5, "s8")
            for a, m, s in zip(row, multiplier, shift, strict=True)
        ]
        for row in acc
    ]
    assert requantize(acc, multiplier, shift, -5, -128, 127).tolist() == expected


@given(INT32, INT32, MULTIPLIER, SHIFT)
def test_requantize_is_monotone(a: int, b: int, multiplier: int, shift: int) -> None:
    low, high = requantize(np.array(sorted((a, b))), multiplier, shift, 0, -(2**62), 2**62)
    assert low <= high


# ---------------------------------------------------------------------- multipliers
@given(st.floats(2**-32, 2**30 - 1, allow_nan=False))
def test_quantize_multiplier_is_within_half_a_unit(real: float) -> None:
    multiplier, shift = quantize_multiplier(real)
    assert 2**30 <= multiplier < 2**31
    assert 1 <= shift <= 62
    error = abs(Fraction(multiplier, 2**shift) - Fraction(real))
    assert error <= Fraction(real) / 2**31


@pytest.mark.parametrize("real", [0.0, -1.0, 2.0**-33, 2.0**30])
def test_quantize_multiplier_refuses_what_no_shift_represents(real: float) -> None:
    with pytest.raises(ValueError, match="outside the range of a 32-bit multiplier"):
        quantize_multiplier(real)


# ---------------------------------------------------------------------- quantize
def quantize_linear(x: np.ndarray, scale: np.ndarray, zero_point: np.ndarray, axis: int) -> np.ndarray:
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape),
        helper.make_tensor_value_info("s", TensorProto.FLOAT, scale.shape),
        helper.make_tensor_value_info(
            "z", helper.np_dtype_to_tensor_dtype(zero_point.dtype), zero_point.shape
        ),
    ]
    output = helper.make_tensor_value_info("y", helper.np_dtype_to_tensor_dtype(zero_point.dtype), x.shape)
    node = helper.make_node("QuantizeLinear", ["x", "s", "z"], ["y"], axis=axis)
    graph = helper.make_graph([node], "quantize", inputs, [output])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x, "s": scale, "z": zero_point})[0])


@pytest.mark.parametrize(("dtype", "numpy_dtype"), [("s8", np.int8), ("u8", np.uint8), ("s16", np.int16)])
@pytest.mark.parametrize("scale", [0.5, 0.0235, 1e-6, 3.0])
def test_quantize_equals_onnxruntime(dtype: str, numpy_dtype: type, scale: float) -> None:
    rng = np.random.default_rng(int(scale * 1e6))
    low, high = INTEGER_RANGE[dtype]
    for zero_point in (low, 0 if low else 128, high):
        span = (high - low) * scale
        ties = (np.arange(-300, 300) + 0.5) * scale
        x = np.concatenate([rng.uniform(-span, span, 4000), ties, [0.0, -0.0]]).astype(np.float32)
        ours = quantize(x, QParams.per_tensor(scale, zero_point, dtype))
        theirs = quantize_linear(x, np.array(scale, np.float32), np.array(zero_point, numpy_dtype), 1)
        np.testing.assert_array_equal(ours, theirs)
        assert ours.dtype == theirs.dtype


def test_quantize_per_channel_equals_onnxruntime() -> None:
    rng = np.random.default_rng(5)
    x = rng.normal(size=(4, 3, 50)).astype(np.float32)
    scale = np.array([0.01, 0.5, 0.03], np.float32)
    ours = quantize(x, QParams.per_channel(scale.astype(np.float64), 1))
    np.testing.assert_array_equal(ours, quantize_linear(x, scale, np.zeros(3, np.int8), 1))


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e3), st.integers(-128, 127))
def test_quantize_exactly_rounds_the_float64_quotient_to_even(
    x: float, scale: float, zero_point: int
) -> None:
    quotient = Fraction(x / scale)  # float64 division, as specified; the rounding after it is exact
    q = quantize_exactly(np.array([x]), QParams.per_tensor(scale, zero_point))
    assert q.tolist() == [saturate(round(quotient) + zero_point, "s8")]


@given(st.integers(-128, 127), st.integers(-128, 127), st.floats(1e-6, 1e3))
def test_quantize_inverts_dequantize(q: int, zero_point: int, scale: float) -> None:
    qparams = QParams.per_tensor(scale, zero_point)
    real = dequantize(np.array([q], np.int8), qparams)
    assert real[0] == np.float32(np.float32(scale) * np.float32(q - zero_point))
    assert quantize(real, qparams).tolist() == [q]
    np.testing.assert_array_equal(fake_quantize(real, qparams), real)


@pytest.mark.parametrize("dtype", ["s8", "u8", "s16"])
@pytest.mark.parametrize("shape", [(), (0,), (3, 5), (70000,)])
def test_fake_quantize_is_both_in_turn(dtype: str, shape: tuple[int, ...]) -> None:
    x = np.asarray(np.random.default_rng(3).normal(size=shape) * 4, np.float32)
    special = np.array([-0.0, 1e-9, -1e-9, np.nan, np.inf, -np.inf], np.float32)
    x.reshape(-1)[:6] = special[: x.size]
    for zero_point in INTEGER_RANGE[dtype]:
        qparams = QParams.per_tensor(0.037, zero_point, dtype)
        found, expected = fake_quantize(x, qparams), dequantize(quantize(x, qparams), qparams)
        assert found.shape == shape
        np.testing.assert_array_equal(found.view(np.int32), expected.view(np.int32))


# ---------------------------------------------------------------------- the document
def gemmlowp(acc: int, multiplier: int, exponent: int) -> int:
    """SaturatingRoundingDoublingHighMul, then RoundingDivideByPOT: as gemmlowp's fixedpoint.h states them."""
    product = acc * multiplier
    nudge = 2**30 if product >= 0 else 1 - 2**30
    total = product + nudge
    high = abs(total) // 2**31 * (1 if total >= 0 else -1)  # division in C truncates
    mask = 2**exponent - 1
    threshold = (mask >> 1) + (1 if high < 0 else 0)
    return (high >> exponent) + (1 if (high & mask) > threshold else 0)


def document_rows(header: str) -> list[list[str]]:
    text = resources.files("qcc.ir").joinpath("NUMERICS.md").read_text(encoding="utf-8")
    table = re.search(rf"^\| {re.escape(header)} \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", text, re.MULTILINE)
    assert table is not None, f"NUMERICS.md has no table that starts with {header!r}"
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[1].splitlines()]


def test_document_rounding_table_is_true() -> None:
    rows = document_rows("x")
    assert len(rows) >= 6
    for x, acc, half_even, ties_up, twice in rows:
        assert Fraction(x) * 4 == int(acc)
        assert quantize(np.array([float(x)]), QParams.per_tensor(1.0)).tolist() == [int(half_even)]
        assert requantize(np.array([int(acc)]), 2**30, 32, 0, -128, 127).tolist() == [int(ties_up)]
        assert gemmlowp(int(acc), 2**30, 1) == int(twice)


def test_document_multiplier_table_is_true() -> None:
    rows = document_rows("real M")
    assert len(rows) >= 6
    for real, multiplier, shift in rows:
        assert quantize_multiplier(float(real)) == (int(multiplier), int(shift))
