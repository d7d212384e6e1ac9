"""Movements read off references: the tables, and what is refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_cases import FAMILIES

from qcc.backends.scalar.movement import Moves, movement
from qcc.ir.errors import VerifyError
from qcc.ir.op import OPS, Case, Signature
from qcc.ir.ops.shape import Pad, Transpose
from qcc.ir.types import f32

MOVERS = [
    f
    for f in FAMILIES
    if f.__name__ in ("transpose", "slice_", "pad", "take", "tile", "expand", "resize_nearest")
]


def moves_of(case: Case) -> Moves | None:
    (x,) = case.inputs
    assert x is not None
    type_ = f32(*x.shape)
    return movement(case.op, Signature((type_,), case.op.infer(type_)))


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), family=st.sampled_from(MOVERS))
def test_tables_reproduce_the_reference(seed: int, family: object) -> None:
    case = family(np.random.default_rng(seed))  # type: ignore[operator]
    (x,) = case.inputs
    try:
        moves = moves_of(case)
    except VerifyError:
        return
    expected = case.op.float_ref(x)
    assert moves is not None
    index = np.zeros(1, np.int64)
    for table in moves.tables:
        outside = (index[:, None] < 0) | (table < 0)
        index = np.where(outside, -1, index[:, None] + table).reshape(-1)
    got = np.where(index < 0, np.float32(moves.fill), x.reshape(-1)[index])
    np.testing.assert_array_equal(got, expected.reshape(-1))


def test_transpose_of_a_contiguous_tail_merges_into_two_axes() -> None:
    x = np.zeros((1, 3, 4, 5), np.float32)
    moves = moves_of(Case(Transpose((0, 2, 3, 1)), (x,)))
    assert moves is not None
    assert [len(t) for t in moves.tables] == [20, 3]
    assert moves.strides == (1, 20)


def test_padding_has_no_strides_and_a_fill() -> None:
    moves = moves_of(Case(Pad((0, 1), (0, 0), 0.75), (np.zeros((2, 3), np.float32),)))
    assert moves is not None
    assert moves.strides is None
    assert moves.fill == 0.75


@pytest.mark.parametrize("name", ["max_pool2d", "reduce_max", "neg"])
def test_an_op_that_computes_is_no_movement(name: str) -> None:
    for case in OPS[name].cases(np.random.default_rng(0)):
        assert moves_of(case) is None
