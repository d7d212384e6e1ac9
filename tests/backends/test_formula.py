"""Formulas recorded from int_ref: evaluated with numpy, they give what int_ref gives, within their intervals."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcc.backends.tvm.formula import Formula, operand
from qcc.ir.types import DType, TensorType

Array = np.ndarray[Any, Any]
FUNCTIONS = (
    lambda x, y: (x - 3) * (y + 5) - x * 70000,
    lambda x, y: np.minimum(np.maximum(x, y) << 9, 12345) >> 3,
    lambda x, y: (x & 255) * 2**40 // ((y & 7) + 1),
    lambda x, y: (x * 2**23 * y).sum(axis=-1, keepdims=True) + x.max(axis=(0, 2), keepdims=True),
    lambda x, y: (
        x.take(np.array([1, 0, 1]), axis=1) * np.arange(-3, 0)[:, None] - y.min(axis=0, keepdims=True)
    ),
    lambda x, y: x.astype(np.int64) // y,
)


def evaluated(f: Formula, operands: list[Array]) -> Array:
    """By numpy, with every element inside of its interval, and held by its dtype."""
    terms = [evaluated(t, operands) for t in f.terms]
    if f.data is not None:
        result = f.data.astype(np.int64)
    elif f.kind == "operand":
        result = operands[f.at]
    elif f.kind in ("sum", "max", "min"):
        result = getattr(terms[0], f.kind)(axis=f.axes, keepdims=True)
    elif f.kind == "look":
        result = terms[0][tuple(terms[1:])]
    elif f.kind == "take":
        result = terms[0].take(terms[1], axis=f.at)
    else:
        result = getattr(np, f.kind)(*terms)
    assert result.shape == f.shape
    assert f.low <= result.min()
    assert result.max() <= f.high
    np.testing.assert_array_equal(result.astype(f.dtype), result)
    return result


@pytest.mark.parametrize("function", FUNCTIONS)
@settings(deadline=None)
@given(data=st.data())
def test_recorded_equals_numpy(function: Any, data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    shape = (2, 3, data.draw(st.integers(1, 5)))
    x, y = (rng.integers(-128, 128, s).astype(np.int64) for s in (shape, shape[2:]))
    y = np.where(y == 0, 1, y)
    formula = function(*(operand(TensorType(DType.S8, a.shape), i) for i, a in enumerate((x, y))))
    np.testing.assert_array_equal(evaluated(formula, [x, y]), function(x, y))


def test_what_fits_32_bits_is_computed_there() -> None:
    x = operand(TensorType(DType.S8, (4,)), 0)
    assert (x * 2**23).dtype == "int32"
    assert (x * 2**25).dtype == "int64"
    assert (x * 2**25 >> 25).dtype == "int32"


def test_an_unknown_function_is_refused() -> None:
    x = operand(TensorType(DType.S8, (4,)), 0)
    with pytest.raises(TypeError):
        np.exp(x)
