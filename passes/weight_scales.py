"""Scales of weights: as fine as 8 bits allow, coarser where 32-bit sums or a fused residual add demand it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qcc.ir.graph import Node, Value
from qcc.ir.qspec import SMALLEST_SCALE, QSpec

# A channel of tiny weights would let the skip's term pass 32 bits. Here it stays under 2^23, the multiplier is an int16 as
# SIMD units multiply them, and what the coarser weights cost is about a fiftieth of a step of the skip for a sum of 1000
# products.
LARGEST_SKIP_MULTIPLIER = 2**15 - 1
WIDE_SKIP_MULTIPLIER = 2**22  # where the input has 16 bits, and the sum 64
# Of a bias that no sum of products outweighs: the accumulators stay float32 numbers, at a like cost.
_LARGEST_BIAS = 2.0**23
_CONSTANT_SKIP = 2.0**29  # of the 32 bits, a quarter for a constant that is added to the accumulator
_SUM_LIMIT = 2.0**31 * (1 - 2.0**-20)  # the margin covers what rounding a scale to float32 may add

Scales = NDArray[np.float64]


def weight_scales(node: Node, spec: QSpec | None = None) -> Scales:
    """float64[O]: the scale of each output channel's weights, for a ``node`` whose operand 0 has qparams.

    They are float32 numbers, so that every runtime reads the same ones; but where the accumulator is fused with a
    residual add, they make the skip's scale an integer multiple of the accumulator's.
    """
    ratio, skip = skip_ratio(node, spec), _skip(node)
    if ratio is None or skip is None:
        return _least_scales(node, spec or QSpec()).astype(np.float32).astype(np.float64)
    largest = WIDE_SKIP_MULTIPLIER if _is_wide(node.input(0)) else LARGEST_SKIP_MULTIPLIER
    multiplier = np.clip(np.floor(ratio), 1, largest)
    return np.asarray(_scale(skip) / (_scale(node.input(0)) * multiplier))


def skip_ratio(node: Node, spec: QSpec | None = None) -> Scales | None:
    """float64[O]: the scale of a computed skip over the least scale of the accumulator it joins; None without one."""
    skip = _skip(node)
    if skip is None or skip.is_constant:
        return None
    return np.asarray(_scale(skip) / (_scale(node.input(0)) * _least_scales(node, spec or QSpec())))


def allowed_scales(node: Node, wanted: Scales) -> Scales:
    """float64[O]: the scales near ``wanted`` that sums in 32 bits and a fused residual add allow."""
    rule, skip = node.op.quant_rule(), _skip(node)
    assert rule.weight is not None
    data = node.input(rule.weight).data
    assert data is not None
    w = np.moveaxis(np.abs(data.astype(np.float64)), rule.weight_axis, 0)
    scale = np.maximum(wanted, _scales_for_sums(node, w.reshape(len(w), -1)))
    if skip is None or skip.is_constant:
        return scale.astype(np.float32).astype(np.float64)
    largest = WIDE_SKIP_MULTIPLIER if _is_wide(node.input(0)) else LARGEST_SKIP_MULTIPLIER
    ratio = _scale(skip) / _scale(node.input(0))
    return np.asarray(ratio / np.clip(np.floor(ratio / scale), 1, largest))


def _least_scales(node: Node, spec: QSpec) -> Scales:
    """The finest scales at which weights, as far as their range keeps them, fit their bits and sums fit 32.

    A channel of zeros takes the largest scale of its neighbours; tiny weights take at least 2^-24 of it.
    """
    rule = node.op.quant_rule()
    assert rule.weight is not None
    weight = node.input(rule.weight)
    data = weight.data
    assert data is not None
    w = np.moveaxis(np.abs(data.astype(np.float64)), rule.weight_axis, 0)
    w = w.reshape(len(w), -1)
    scale = w.max(axis=1) / spec.weight_max
    if weight.range is not None and w.any():
        scale *= min(weight.range[1] / w.max(), 1.0)
    largest = float(scale.max()) or _scale(materialized(node.output)) / _scale(node.input(0))
    scale = np.where(scale == 0.0, largest, scale)
    scale = np.maximum(scale, max(largest * 2.0**-24, SMALLEST_SCALE))
    scale = np.maximum(scale, _scales_for_sums(node, w))
    return np.full_like(scale, scale.max()) if spec.weights == "per-tensor" else np.asarray(scale)


def _scales_for_sums(node: Node, w: Scales) -> Scales:
    """The scales at which no partial sum passes 32 bits, in any order; ``w``: |weights| [O, K].

    With q = w / scale rounded, |x| <= 128 and the input's zero_point folded into the bias, it is at most

        (128 + |zero_point|) * (sum |w| / scale + K / 2) + |bias| / (s_x * scale) + the term of the skip.

    Where K alone is too large nothing helps: plan-accumulators refuses such a sum.
    """
    qparams = node.input(0).type.qparams
    assert qparams is not None
    if _is_wide(node.input(0)):
        return np.zeros(len(w))  # the sum has 64 bits
    s_x, products = qparams.scale[0], 128.0 + abs(qparams.zero_point)
    bias, skip = _bias(node), _skip(node)
    scale, room = np.zeros(len(w)), _SUM_LIMIT - products * w.shape[1] / 2
    if skip is not None and skip.data is not None:
        # of its own, as the planner adds the largest skip of any channel to the largest sum of any channel
        room -= _CONSTANT_SKIP
        scale = _largest(skip.data, len(w)) / (s_x * _CONSTANT_SKIP)
    elif skip is not None:
        room -= 255.0 * LARGEST_SKIP_MULTIPLIER
    if room <= 0:
        return scale
    terms = products * w.sum(axis=1)
    if bias is not None:
        in_steps = _largest(bias, len(w)) / s_x
        scale = np.maximum(scale, np.where(in_steps > terms, in_steps / _LARGEST_BIAS, 0.0))
        terms += in_steps
    return np.asarray(np.maximum(scale, terms / room))


def _largest(data: NDArray[np.generic], channels: int) -> Scales:
    """float64[C]: the largest magnitude in each channel of the last axis."""
    return np.asarray(np.abs(data.astype(np.float64)).reshape(-1, channels).max(axis=0))


def _bias(node: Node) -> NDArray[np.generic] | None:
    index = node.op.quant_rule().bias
    bias = node.inputs[index] if index is not None and index < len(node.inputs) else None
    return None if bias is None else bias.data


def _skip(node: Node) -> Value | None:
    """What the add that takes this node's fused accumulator adds to it."""
    if not node.output.fused:
        return None
    (user,) = node.output.users
    if not user.op.accumulates:
        return None
    return user.input(1) if user.input(0) is node.output else user.input(0)


def materialized(value: Value) -> Value:
    """The value in which a chain of fused ones ends."""
    while value.fused:
        (user,) = value.users
        value = user.output
    return value


def _is_wide(value: Value) -> bool:
    return value.type.qparams is not None and value.type.qparams.dtype == "s16"


def _scale(value: Value) -> float:
    assert value.type.qparams is not None
    return value.type.qparams.scale[0]
