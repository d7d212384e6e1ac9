"""Types that an op refuses, with the words a user reads."""

import pytest

from qcc.ir.errors import VerifyError
from qcc.ir.op import Op
from qcc.ir.ops.activation import Gelu
from qcc.ir.ops.dense import Dense, MatMul
from qcc.ir.ops.elementwise import PRelu
from qcc.ir.ops.norm import BatchNorm, LayerNorm
from qcc.ir.ops.reduce import ReduceMean
from qcc.ir.ops.softmax import Softmax
from qcc.ir.qparams import QParams
from qcc.ir.types import DType, TensorType, f32

S8 = TensorType(DType.S8, (1, 4, 3), QParams.per_tensor(0.1))
TABLE = TensorType(DType.S32, (256,))


@pytest.mark.parametrize(
    ("op", "operands", "reason"),
    [
        (Dense(), (f32(1, 4), f32(3, 5)), r"\[\.\.\., K\]"),
        (Dense(), (f32(1, 4), f32(3, 4), f32(4)), r"bias must have shape \(3,\)"),
        (MatMul(), (f32(4), f32(4, 3)), r"\[\.\.\., M, K\]"),
        (MatMul(), (f32(2, 5, 4), f32(3, 4, 5)), "do not broadcast"),
        (PRelu(), (f32(1, 3), f32(2, 1)), "does not broadcast to x"),
        (Gelu("fast"), (f32(1, 3),), "none or tanh, got 'fast'"),
        (Softmax(2), (f32(1, 3),), "axis 2 is not an axis"),
        (Softmax(1), (S8,), "needs a float operand"),
        (Softmax(1), (S8, TABLE), "last axis, got 1"),
        (Softmax(2), (S8, TABLE.with_shape((255,))), r"s32\[256\] table"),
        (BatchNorm(), (f32(4),), "rank 2 or more"),
        (BatchNorm(), (f32(1, 4), *(f32(3),) * 4), r"parameters must be \(4,\)"),
        (LayerNorm(2), (f32(1, 4), f32(4)), "axis 2 is not an axis"),
        (LayerNorm(1), (f32(1, 4), f32(3)), "does not broadcast"),
        (LayerNorm(1), (f32(1, 4), f32(2, 4)), "does not broadcast"),
        (ReduceMean((1, 1)), (f32(1, 4),), "not ascending axes"),
        (ReduceMean((2,)), (f32(1, 4),), "not ascending axes"),
        (ReduceMean((1,)), (S8.with_qparams(None),), "needs per-tensor qparams"),
    ],
)
def test_infer_refuses(op: Op, operands: tuple[TensorType, ...], reason: str) -> None:
    with pytest.raises(VerifyError, match=reason):
        op.infer(*operands)
