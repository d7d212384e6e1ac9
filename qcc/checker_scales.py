"""The checker's part for scales: each follows from those of the operands."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qcc.checker_rules import MOVEMENT, average_divisor, fail
from qcc.ir.graph import Node, Value

SCALE_TOLERANCE = 2.0**-20  # of a product of scales, which is computed once in float64
RESIDUAL_TOLERANCE = 2.0**-12


def scales_of(node: Node, value: Value) -> NDArray[np.float64]:
    """One scale, or one for each channel. Raises VerifyError where there is none."""
    if value.type.qparams is None:
        fail(node, None, f"%{value.name} has no qparams", "a scale", "none")
    return np.asarray(value.type.qparams.scale, np.float64)


def check_scales(node: Node) -> None:
    """The scale that the operands give the result is the one recorded, for each kind of op."""
    name, result = node.op.name, node.output
    if name in MOVEMENT:
        for value in node.inputs:
            assert value is not None
            if value.type.qparams != result.type.qparams:
                fail(node, None, f"%{value.name} is moved", result.type.qparams, value.type.qparams)
    elif name in ("conv2d", "conv_transpose2d", "dense", "matmul", "mul"):
        product = scales_of(node, node.input(0)) * scales_of(node, node.input(1))
        check_close(node, "scale of the result", scales_of(node, result), product, SCALE_TOLERANCE)
        if name not in ("matmul", "mul"):
            _check_bias(node, product)
    elif name in ("avg_pool2d", "reduce_mean", "reduce_sum", "resize_linear"):
        divisor = 2**14 if name == "resize_linear" else average_divisor(node)
        mean = scales_of(node, node.input(0)) / divisor
        check_close(node, "scale of the result", scales_of(node, result), mean, SCALE_TOLERANCE)
    elif name in ("add", "sub"):
        _check_sum(node)


def check_close(
    node: Node, what: str, claimed: NDArray[np.float64], found: NDArray[np.float64], tolerance: float
) -> None:
    """Raise VerifyError where ``claimed`` is off by more than that share of ``found``; channels broadcast."""
    claimed, found = np.broadcast_arrays(claimed, found)
    for bad in np.flatnonzero(np.abs(claimed - found) > tolerance * found):
        fail(node, int(bad), what, float(claimed[bad]), float(found[bad]))


def _check_bias(node: Node, product: NDArray[np.float64]) -> None:
    """A bias has the type and the scale of the products."""
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        bias = node.input(2)
        if bias.type.dtype is not node.output.type.dtype:
            fail(node, None, "type of the bias", node.output.type.dtype.value, bias.type.dtype.value)
        check_close(node, "scale of the bias", scales_of(node, bias), product, SCALE_TOLERANCE)


def _check_sum(node: Node) -> None:
    """Each multiplier is the ratio of its operand's scale to that of the result.

    A sum of 8-bit operands has a scale so fine that the nearest integer serves: it is off by at most half of such a
    fine step. A residual sum happens at the scale of an accumulator, and its ratios must be integers.
    """
    scale = scales_of(node, node.output)
    residual = any(v is not None and v.data is None and v.type.dtype.is_accumulator for v in node.inputs[:2])
    for index in range(2):
        value, multiplier = node.input(index), np.ones(1)
        if len(node.inputs) > 2 + index and node.inputs[2 + index] is not None:
            multiplier = np.asarray(node.input(2 + index).data, np.float64)
        if value.is_constant and value.type.qparams is None:
            continue  # a constant at the scale of the result itself
        sign = -1 if index and node.op.name == "sub" else 1
        ratio, multiplier = np.broadcast_arrays(sign * scales_of(node, value) / scale, multiplier)
        allowed = RESIDUAL_TOLERANCE * np.abs(ratio) if residual else np.full(ratio.shape, 0.5 + 1e-6)
        for bad in np.flatnonzero(np.abs(ratio - multiplier) > allowed):
            fail(node, int(bad), f"multiplier of operand {index}", int(multiplier[bad]), float(ratio[bad]))
