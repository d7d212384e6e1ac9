"""How sums, products, pools, requantize and tables are spelled in TOSA: one function for each op name.

A function gets the Writer and the node, and returns the tensor of the result. References are to the TOSA 1.0
specification, integer profile. Sums stay in i32; what could leave it is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcc.ir.graph import Node
from qcc.ir.types import DType
from qcc.tosa.rules import check_scale, data, exports, look_up, op_of, refuse, zero_point
from qcc.tosa.writer import Tensor, Writer

_ROUNDINGS = {"ties_up": "SINGLE_ROUND", "twice": "DOUBLE_ROUND"}  # apply_scale_32


# ---------------------------------------------------------------- products and windows
@exports("conv2d")
def _conv2d(w: Writer, node: Node) -> Tensor:
    op, weight = op_of(node), data(node, 1, "weights")
    o, kh, kw, _ = weight.shape
    channels = node.input(0).type.shape[-1]
    depthwise = op.groups > 1 and op.groups == channels
    if op.groups > 1 and not depthwise:
        refuse(node, f"TOSA convolutions have no groups, this one has {op.groups}")
    zero_point = op.pad_value if any(op.pads) else op.x_zero_point
    x, pads = _fit(w, node, (kh, kw))
    bias = _bias(node, weight.reshape(o, -1), zero_point - op.x_zero_point, zero_point)
    if not depthwise:
        return _convolve(w, node, "conv2d", x, weight, bias, zero_point, pads)
    turned = weight.reshape(channels, o // channels, kh, kw).transpose(2, 3, 0, 1)  # to [KH, KW, C, M]
    return _convolve(w, node, "depthwise_conv2d", x, turned, bias, zero_point, pads)


def _bias(node: Node, weight: NDArray[Any], moved: int, zero_point: int) -> NDArray[np.int64]:
    """The bias, int64[O], of a sum of w * (x - zero_point): TOSA pads with it, and so adds nothing for padding."""
    wide = weight.astype(np.int64)
    bias: NDArray[np.int64] = moved * wide.sum(axis=1)
    if node.operand("bias") is not None:
        bias = bias + data(node, 2, "bias")
    farthest = max(127 - zero_point, zero_point + 128)
    if int((np.abs(bias) + farthest * np.abs(wide).sum(axis=1)).max()) >= 2**31:
        refuse(node, "a partial sum could leave 32 bits")
    return bias


def _convolve(
    w: Writer, node: Node, op: str, x: Tensor, weight: NDArray[Any], bias: NDArray[np.int64],
    zero_point: int, pads: tuple[int, int, int, int], shape: tuple[int, ...] | None = None,
) -> Tensor:  # fmt: skip
    """CONV2D or DEPTHWISE_CONV2D with an accumulator of i32 as result; pads are top, bottom, left, right."""
    attributes = node.op.attributes()
    operands = (
        x,
        w.constant(weight, f"{node.name}_weight"),
        w.ints(bias, f"{node.name}_bias"),
        w.ints([zero_point], "i8_zero_point", "i8"),
        w.ints([0], "i8_zero_point", "i8"),
    )
    return w.op(
        op,
        operands,
        "i32",
        shape or node.output.type.shape,
        node.name,
        pad=_i64(pads),
        stride=_i64(attributes.get("strides", (1, 1))),
        dilation=_i64(attributes.get("dilations", (1, 1))),
        acc_type="i32",
    )


def _i64(values: Sequence[int]) -> str:
    return f"array<i64: {', '.join(str(int(v)) for v in values)}>"


def _fit(w: Writer, node: Node, kernel: tuple[int, int]) -> tuple[Tensor, tuple[int, int, int, int]]:
    """x and its pads (top, bottom, left, right) such that windows end where the image does, as TOSA demands."""
    op, x = op_of(node), w.tensor(node.input(0))
    kept, pads = list(x.shape), []
    for axis in (0, 1):
        size, out, begin = x.shape[axis + 1], node.output.type.shape[axis + 1], op.pads[axis]
        end = (out - 1) * op.strides[axis] + (kernel[axis] - 1) * op.dilations[axis] + 1 - size - begin
        kept[axis + 1] = size + min(end, 0)
        pads += [begin, max(end, 0)]
    top, bottom, left, right = pads
    return w.slice(x, (0,) * 4, kept, f"{node.name}_x"), (top, bottom, left, right)


@exports("dense")
def _dense(w: Writer, node: Node) -> Tensor:
    """A convolution of 1x1 over rows."""
    op, weight, x = op_of(node), data(node, 1, "weights"), w.tensor(node.input(0))
    o, k = weight.shape
    rows = node.output.type.elements // o
    bias = _bias(node, weight, 0, op.x_zero_point)
    image = w.reshape(x, (rows, 1, 1, k), f"{node.name}_x")
    weight = weight.reshape(o, 1, 1, k)
    shape = (rows, 1, 1, o)
    y = _convolve(w, node, "conv2d", image, weight, bias, op.x_zero_point, (0, 0, 0, 0), shape)
    return w.reshape(y, node.output.type.shape, node.name)


@exports("matmul")
def _matmul(w: Writer, node: Node) -> Tensor:
    a, b = (w.tensor(node.input(i)) for i in (0, 1))
    if (a.element, b.element) != ("i8", "i8") or a.shape[:-2] != b.shape[:-2] or len(a.shape) < 2:
        refuse(node, f"TOSA multiplies stacks of i8 matrices of one number, not {a.type} and {b.type}")
    stack = int(np.prod(a.shape[:-2], dtype=np.int64))
    left, right = (w.reshape(t, (stack, *t.shape[-2:]), node.name) for t in (a, b))
    zero_points = [w.ints([zero_point(node.input(i))], "i8_zero_point", "i8") for i in (0, 1)]
    shape = (stack, a.shape[-2], b.shape[-1])
    y = w.op("matmul", (left, right, *zero_points), "i32", shape, node.name)
    return w.reshape(y, node.output.type.shape, node.name)


@exports("avg_pool2d")
def _avg_pool2d(w: Writer, node: Node) -> Tensor:
    """A depthwise convolution with weights of 1, as TOSA's own pool rounds; then the factor of each window."""
    op, channels = op_of(node), node.output.type.shape[-1]
    x, pads = _fit(w, node, op.kernel)
    ones, none = np.ones((*op.kernel, channels, 1), np.int8), np.zeros(channels, np.int64)
    y = _convolve(w, node, "depthwise_conv2d", x, ones, none, zero_point(node.input(0)), pads)
    factors = op.factors(*node.input(0).type.shape[1:3])
    if (factors == 1).all():
        return y
    return w.binary("mul", y, w.ints(factors[None, ..., None], f"{node.name}_factors"), node.name)


@exports("max_pool2d")
def _max_pool2d(w: Writer, node: Node) -> Tensor:
    op = op_of(node)
    if op.dilations != (1, 1):
        refuse(node, "TOSA pools have no dilations")
    x, pads = _fit(w, node, op.kernel)
    attributes = {"kernel": _i64(op.kernel), "stride": _i64(op.strides), "pad": _i64(pads)}
    return w.op("max_pool2d", (x,), x.element, node.output.type.shape, node.name, **attributes)


# ---------------------------------------------------------------- sums, products, requantize
@exports("add", "sub")
def _sum(w: Writer, node: Node) -> Tensor:
    """The sign of the second operand is in its multiplier."""
    terms = []
    for index, key in enumerate(("a_multiplier", "b_multiplier")):
        value, factor = node.input(index), node.operand(key)
        term = w.centred(w.tensor(value), zero_point(value), f"{node.name}_{key[0]}")
        if factor is not None:
            term = w.binary("mul", term, w.tensor(factor), f"{node.name}_{key[0]}")
        terms.append(term)
    return w.binary("add", terms[0], terms[1], node.name)


@exports("mul")
def _mul(w: Writer, node: Node) -> Tensor:
    a, b = (w.centred(w.tensor(v), zero_point(v), node.name) for v in (node.input(0), node.input(1)))
    return w.binary("mul", a, b, node.name)


@exports("reduce_sum", "reduce_mean")
def _total(w: Writer, node: Node) -> Tensor:
    """A mean is the sum at another scale."""
    x = w.centred(w.tensor(node.input(0)), zero_point(node.input(0)), node.name)
    for axis in op_of(node).axes:
        x = w.reduce("reduce_sum", x, axis, node.name)
    return x


@exports("reduce_max", "reduce_min")
def _extreme(w: Writer, node: Node) -> Tensor:
    x = w.tensor(node.input(0))
    for axis in op_of(node).axes:
        x = w.reduce(node.op.name, x, axis, node.name)
    return x


@exports("requantize")
def _requantize(w: Writer, node: Node) -> Tensor:
    op, x = op_of(node), w.tensor(node.input(0))
    if node.output.type.dtype is not DType.S8:
        refuse(node, f"the result is {node.output.type.dtype.value}, the export has 8 bits only")
    multiplier, shift = op.multipliers(node.signature, *(None if v is None else v.data for v in node.inputs))
    zero_points = (zero_point(node.input(0)), zero_point(node.output))
    check_scale(node, shift, zero_points[0])
    y = w.rescale(x, multiplier, shift, zero_points, "i8", node.name, _ROUNDINGS[op.rounding])
    if (op.low, op.high) == (-128, 127):
        return y
    bounds = {"min_val": f"{op.low} : i8", "max_val": f"{op.high} : i8"}
    return w.op("clamp", (y,), "i8", y.shape, f"{node.name}_clamped", **bounds)


# ---------------------------------------------------------------- tables
@exports("table")
def _table(w: Writer, node: Node) -> Tensor:
    """TABLE; tables of their own for channels lie one after the other for a GATHER."""
    table, x = data(node, 1, "table"), w.tensor(node.input(0))
    if table.ndim == 1:
        return w.op("table", (x, w.constant(table, f"{node.name}_table")), "i8", x.shape, node.name)
    first = w.ints(128 + 256 * np.arange(len(table)), f"{node.name}_first")
    index = w.binary("add", w.centred(x, 0, node.name), first, node.name)
    return look_up(w, table.ravel(), index, node.name)
