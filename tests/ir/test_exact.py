"""Products through float arithmetic against exact integers, where float32 or float64 just holds them or no longer does."""

import numpy as np
import pytest

from qcc.ir import exact


@pytest.mark.parametrize("terms", [1, 1032, 1033, 1041, 5000])
@pytest.mark.parametrize(("x", "w"), [(-128, 127), (127, 127), (-128, -127)])
def test_largest_products_are_exact(terms: int, x: int, w: int) -> None:
    """1032 products of 128 * 127 are the most that stay under 2^24, 1041 of 127 * 127 the first above it."""
    a, b = np.full((2, 3, terms), x, np.int8), np.full((terms, 2), w, np.int8)
    b[-1, 1] -= 1 if w > 0 else -1
    found = exact.matmul(a, b)
    assert found.dtype == np.int64
    assert found[1, 2].tolist() == [terms * x * w, (terms - 1) * x * w + x * int(b[-1, 1])]


@pytest.mark.parametrize("bits", [(12, 11), (12, 12), (26, 26), (27, 27), (31, 31)])
def test_carrier_changes_at_the_limits(bits: tuple[int, int]) -> None:
    bound, weight = 2 ** bits[0] - 1, 2 ** bits[1]
    w = np.array([[weight], [1]], np.int64)
    total = bound * (weight + 1)
    expected = np.float32 if total + 1 < 2**24 else np.float64 if total + 1 < 2**53 else np.int64
    assert exact.carrier(bound, w) is expected
    a = np.array([[bound, -bound]], np.int64)
    assert exact.matmul(a, w).tolist() == [[bound * weight - bound]]


@pytest.mark.parametrize("offset", [2**31 - 2**24 - 1, 2**31 - 2**24, -(2**31), 0])
def test_offset_leaves_no_integer_type(offset: int) -> None:
    sums = np.array([[2**24 - 1.0, 1.0 - 2**24]], np.float32)
    found = exact.plus(sums, np.array([offset, offset], np.int64))
    assert found.tolist() == [[2**24 - 1 + offset, 1 - 2**24 + offset]]


def test_empty_operand_has_no_largest() -> None:
    assert exact.largest(np.zeros((0, 3), np.int8)) == 0
