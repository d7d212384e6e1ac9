"""The float boundary on the values where rounding, saturation and NaN decide."""

import ctypes
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from qcc.backends.scalar.lowering import KERNEL_FOLDER
from qcc.ir.fixedpoint import dequantize, quantize
from qcc.ir.qparams import QParams

pytestmark = pytest.mark.compiler

FLOAT = st.floats(width=32, allow_nan=False)
SCALE = st.floats(2.0**-40, 2.0**40, width=32)


class Params(ctypes.Structure):
    """qcc_quantize_params."""

    _fields_ = (("count", ctypes.c_int32), ("zero_point", ctypes.c_int32), ("scale", ctypes.c_float))


@pytest.fixture(scope="module")
def library(functions: Callable[[str], ctypes.CDLL]) -> ctypes.CDLL:
    names = ("f32_quantize_scalar", "s8_dequantize_scalar")
    return functions("\n".join((KERNEL_FOLDER / f"{name}.c").read_text() for name in names))


def kernel_quantize(library: ctypes.CDLL, x: NDArray[np.float32], qparams: QParams) -> NDArray[np.int8]:
    result = np.empty(x.shape, np.int8)
    params = Params(x.size, qparams.zero_point, qparams.scale[0])
    library.qcc_f32_quantize_scalar(
        ctypes.byref(params), *(ctypes.c_void_p(a.ctypes.data) for a in (x, result))
    )
    return result


@settings(max_examples=300, deadline=None)
@given(x=st.lists(FLOAT, min_size=1, max_size=20), scale=SCALE, zero_point=st.integers(-128, 127))
def test_quantize_equals_the_reference(
    library: ctypes.CDLL, x: list[float], scale: float, zero_point: int
) -> None:
    qparams, array = QParams.per_tensor(scale, zero_point), np.array(x, np.float32)
    np.testing.assert_array_equal(kernel_quantize(library, array, qparams), quantize(array, qparams))


@pytest.mark.parametrize("scale", [1.0, 0.1, 0.0235, 3e-3, 7.0])
@pytest.mark.parametrize("zero_point", [-128, -5, 0, 127])
def test_quantize_ties_and_their_neighbours_equal_the_reference(
    library: ctypes.CDLL, scale: float, zero_point: int
) -> None:
    ties = (np.arange(-600, 601) / 2 * np.float32(scale)).astype(np.float32)
    x = np.concatenate(
        [ties, np.nextafter(ties, np.float32(np.inf)), np.nextafter(ties, np.float32(-np.inf))]
    )
    qparams = QParams.per_tensor(scale, zero_point)
    np.testing.assert_array_equal(kernel_quantize(library, x, qparams), quantize(x, qparams))


def test_quantize_saturates_infinities_and_maps_nan_to_zero_point(library: ctypes.CDLL) -> None:
    x = np.array([np.inf, -np.inf, 3e38, -3e38, np.nan], np.float32)
    got = kernel_quantize(library, x, QParams.per_tensor(1e-6, 17))
    assert got.tolist() == [127, -128, 127, -128, 17]


@settings(max_examples=100, deadline=None)
@given(scale=SCALE, zero_point=st.integers(-128, 127))
def test_dequantize_equals_the_reference_to_the_bit(
    library: ctypes.CDLL, scale: float, zero_point: int
) -> None:
    codes, qparams = np.arange(-128, 128).astype(np.int8), QParams.per_tensor(scale, zero_point)
    result = np.empty(256, np.float32)
    params = Params(256, zero_point, scale)
    library.qcc_s8_dequantize_scalar(
        ctypes.byref(params), *(ctypes.c_void_p(a.ctypes.data) for a in (codes, result))
    )
    np.testing.assert_array_equal(result.view(np.int32), dequantize(codes, qparams).view(np.int32))
