"""Bounds that are claimed as exact or as a number: intervals of matrix products, the error of softmax."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcc.ir.interval import Interval
from qcc.ir.op import Signature
from qcc.ir.ops.dense import Dense, MatMul
from qcc.ir.ops.quant import softmax_qparams
from qcc.ir.ops.softmax import EXP_ONE, Softmax
from qcc.ir.qparams import QParams
from qcc.ir.types import DType, TensorType

FULL = (-128, 127)


def s8(*shape: int, zero_point: int = 0, scale: float = 0.1) -> TensorType:
    return TensorType(DType.S8, shape, QParams.per_tensor(scale, zero_point))


@given(st.integers(1, 12), st.integers(1, 5), st.integers(-128, 127), st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_dense_interval_is_attained(k: int, n: int, zero_point: int, seed: int) -> None:
    """For each channel an input exists that reaches each end, and none that passes it."""
    rng = np.random.default_rng(seed)
    w = rng.integers(-127, 128, size=(n, k)).astype(np.int8)
    bias = rng.integers(-1000, 1000, size=n).astype(np.int32)
    op = Dense(zero_point)
    x_type, w_type = s8(1, k, zero_point=zero_point), TensorType(DType.S8, (n, k), QParams.per_tensor(0.5))
    sig = Signature((x_type, w_type, None), op.infer(x_type, w_type, None))
    interval = op.interval(sig, Interval.full(*FULL, k), w, bias)
    highest = np.where(w > 0, 127, -128).astype(np.int8)  # row n drives channel n to its maximum
    lowest = np.where(w > 0, -128, 127).astype(np.int8)
    np.testing.assert_array_equal(np.diag(op.int_ref(sig, highest, w, bias)), interval.high)
    np.testing.assert_array_equal(np.diag(op.int_ref(sig, lowest, w, bias)), interval.low)


@given(st.integers(1, 9), st.integers(-128, 127), st.integers(-128, 127))
@settings(max_examples=60, deadline=None)
def test_matmul_interval_is_attained(k: int, zero_a: int, zero_b: int) -> None:
    """One of the four corners of the operands reaches each end."""
    a_type, b_type = s8(2, k, zero_point=zero_a), s8(k, 3, zero_point=zero_b)
    op = MatMul()
    sig = Signature((a_type, b_type), op.infer(a_type, b_type))
    interval = op.interval(sig, Interval.full(*FULL, k), Interval.full(*FULL, 3))
    corners = [
        op.int_ref(sig, np.full((2, k), a, np.int8), np.full((k, 3), b, np.int8)) for a in FULL for b in FULL
    ]
    assert np.max(corners) == interval.high.max()
    assert np.min(corners) == interval.low.min()


def softmax_of(x: np.ndarray, scale: float, zero_point: int = 0) -> np.ndarray:
    table = np.rint(EXP_ONE * np.exp(-np.arange(256) * scale)).astype(np.int32)
    x_type, table_type = s8(*x.shape, scale=scale, zero_point=zero_point), TensorType(DType.S32, (256,))
    op = Softmax(x.ndim - 1)
    return op.int_ref(Signature((x_type, table_type), op.infer(x_type, table_type)), x, table)


@given(st.floats(1e-4, 1.0), st.integers(1, 2000), st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_softmax_error_is_within_the_stated_bound(scale: float, n: int, seed: int) -> None:
    x = np.random.default_rng(seed).integers(-128, 128, size=(4, n)).astype(np.int8)
    real = x.astype(np.float64) * scale
    e = np.exp(real - real.max(axis=-1, keepdims=True))
    exact = np.clip(256 * e / e.sum(axis=-1, keepdims=True) - 128, -128, 127)
    error = np.abs(softmax_of(x, scale) - exact).max()
    assert error <= 0.5 + (n + 1) / 2**16
    assert error <= 1


@pytest.mark.parametrize("value", FULL)
@pytest.mark.parametrize("n", [1, 2, 255, 256, 257, 4096])
def test_softmax_of_equal_elements_shares_evenly(value: int, n: int) -> None:
    result = softmax_of(np.full((1, n), value, np.int8), 0.05)
    assert (result == min((512 + n) // (2 * n), 255) - 128).all()  # 256 / n rounded, ties up


def test_softmax_result_qparams_are_those_of_the_rule() -> None:
    assert Softmax(1).quant_rule().result == softmax_qparams()
