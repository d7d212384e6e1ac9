"""Rows of ops whose s32 accumulator goes to memory, and of the softmax that reads it."""

from __future__ import annotations

from math import prod

from qcc.backends.kernel import Call, Kernel, Step
from qcc.backends.scalar.convolution import folded_bias
from qcc.backends.scalar.lowering import constant, zero_point
from qcc.backends.scalar.reduction import accepts_s8_sum, reduced_axes, reduced_count, row
from qcc.ir.ops.dense import Dense


def lower_dense(step: Step) -> Call:
    """s8_dense_accumulator_scalar: weights stay [N, K], all leading axes are rows."""
    op, weights = step.root.op, constant(step.root, "w")
    assert isinstance(op, Dense)
    assert weights is not None
    outputs, inputs = weights.shape
    rows = step.root.input(0).type.elements // inputs
    params = {"rows": rows, "input_channels": inputs, "output_channels": outputs}
    return Call(params, {"weights": weights, "bias": folded_bias(step, weights, op.x_zero_point, 0)})


def lower_sum(step: Step) -> Call:
    """s8_reduce_sum_accumulator_scalar."""
    bias = -reduced_count(step) * zero_point(step.root.input(0))
    return Call({**reduced_axes(step), "bias": bias})


def lower_softmax(step: Step) -> Call:
    """s32_softmax_scalar."""
    shape = step.output.type.shape
    constants = {name: constant(step.root, name) for name in ("multiplier", "shift", "table")}
    multiplier = constants["multiplier"]
    assert multiplier is not None
    return Call({"rows": prod(shape[:-1]), "count": shape[-1], "channels": multiplier.size}, constants)


KERNELS: tuple[Kernel, ...] = (
    row(
        "dense",
        "s8",
        "dense_accumulator",
        "qcc_dense_accumulator_params",
        lower=lower_dense,
        channel_block=1,
    ),
    *(
        row(
            op,
            "s8",
            "reduce_sum_accumulator",
            "qcc_reduce_sum_accumulator_params",
            lower=lower_sum,
            accepts=accepts_s8_sum,
        )
        for op in ("reduce_mean", "reduce_sum")
    ),
    row("wide_softmax", "s32", "softmax", "qcc_wide_softmax_params", lower=lower_softmax),
)
