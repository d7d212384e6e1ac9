"""How each integer op is spelled in TOSA: one function for each op name, entered in EXPORTERS.

A function gets the Writer and the node, and returns the tensor of the result. References are to the TOSA 1.0
specification, integer profile. Sums stay in i32; what could leave it is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from qcc.ir.errors import QccError
from qcc.ir.graph import Node, Value
from qcc.ir.interval import Interval
from qcc.ir.ops.softmax import LOG_BITS
from qcc.ir.types import DType
from qcc.tosa_writer import Tensor, Writer

Exporter = Callable[[Writer, Node], Tensor]
EXPORTERS: dict[str, Exporter] = {}
_ROUNDINGS = {"ties_up": "SINGLE_ROUND", "twice": "DOUBLE_ROUND"}  # apply_scale_32
_MIN_SHIFT = 2  # of apply_scale_32


def exports(*names: str) -> Callable[[Exporter], Exporter]:
    """Decorator: the function writes the ops of these names."""

    def enter(function: Exporter) -> Exporter:
        EXPORTERS.update(dict.fromkeys(names, function))
        return function

    return enter


def _refuse(node: Node, reason: str) -> NoReturn:
    raise QccError(
        f"{node.op.name} ({node.name}) cannot be written to TOSA: {reason}",
        node.location,
        "the C backend takes this program: qcc compile",
    )


def _attributes(node: Node) -> Any:
    """The op, untyped: each function reads the attributes of its own op."""
    return node.op


def _zero_point(value: Value) -> int:
    return value.type.qparams.zero_point if value.type.qparams is not None else 0


def _data(node: Node, index: int, what: str) -> NDArray[Any]:
    data = node.input(index).data
    if data is None:
        _refuse(node, f"its {what} must be constant")
    return np.asarray(data)


def _interval(value: Value) -> Interval:
    """What an accumulator can hold, from its constants and any code of 8 bits."""
    producer = value.producer
    if value.type.dtype is DType.S8 or producer is None:
        low, high = value.type.dtype.min, value.type.dtype.max
        return Interval.full(low, high, value.type.shape[-1] if value.type.rank else 1)
    operands = [None if v is None else (_interval(v) if v.data is None else v.data) for v in producer.inputs]
    return producer.op.interval(producer.signature, *operands)


def _largest(interval: Interval) -> int:
    return max(-int(interval.low.min()), int(interval.high.max()))


# ---------------------------------------------------------------- products and windows
@exports("conv2d")
def _conv2d(w: Writer, node: Node) -> Tensor:
    op, weight = _attributes(node), _data(node, 1, "weights")
    o, kh, kw, _ = weight.shape
    channels = node.input(0).type.shape[-1]
    depthwise = op.groups > 1 and op.groups == channels
    if op.groups > 1 and not depthwise:
        _refuse(node, f"TOSA convolutions have no groups, this one has {op.groups}")
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
        bias = bias + _data(node, 2, "bias")
    farthest = max(127 - zero_point, zero_point + 128)
    if int((np.abs(bias) + farthest * np.abs(wide).sum(axis=1)).max()) >= 2**31:
        _refuse(node, "a partial sum could leave 32 bits")
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
    op, x = _attributes(node), w.tensor(node.input(0))
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
    op, weight, x = _attributes(node), _data(node, 1, "weights"), w.tensor(node.input(0))
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
        _refuse(node, f"TOSA multiplies stacks of i8 matrices of one number, not {a.type} and {b.type}")
    stack = int(np.prod(a.shape[:-2], dtype=np.int64))
    left, right = (w.reshape(t, (stack, *t.shape[-2:]), node.name) for t in (a, b))
    zero_points = [w.ints([_zero_point(node.input(i))], "i8_zero_point", "i8") for i in (0, 1)]
    shape = (stack, a.shape[-2], b.shape[-1])
    y = w.op("matmul", (left, right, *zero_points), "i32", shape, node.name)
    return w.reshape(y, node.output.type.shape, node.name)


@exports("avg_pool2d")
def _avg_pool2d(w: Writer, node: Node) -> Tensor:
    """A depthwise convolution with weights of 1, as TOSA's own pool rounds; then the factor of each window."""
    op, channels = _attributes(node), node.output.type.shape[-1]
    x, pads = _fit(w, node, op.kernel)
    ones, none = np.ones((*op.kernel, channels, 1), np.int8), np.zeros(channels, np.int64)
    y = _convolve(w, node, "depthwise_conv2d", x, ones, none, _zero_point(node.input(0)), pads)
    factors = op.factors(*node.input(0).type.shape[1:3])
    if (factors == 1).all():
        return y
    return w.binary("mul", y, w.ints(factors[None, ..., None], f"{node.name}_factors"), node.name)


@exports("max_pool2d")
def _max_pool2d(w: Writer, node: Node) -> Tensor:
    op = _attributes(node)
    if op.dilations != (1, 1):
        _refuse(node, "TOSA pools have no dilations")
    x, pads = _fit(w, node, op.kernel)
    if max(pads[:2]) >= op.kernel[0] or max(pads[2:]) >= op.kernel[1]:
        _refuse(node, f"its padding {pads} reaches the size of its kernel")
    attributes = {"kernel": _i64(op.kernel), "stride": _i64(op.strides), "pad": _i64(pads)}
    return w.op("max_pool2d", (x,), x.element, node.output.type.shape, node.name, **attributes)


# ---------------------------------------------------------------- sums, products, requantize
@exports("add", "sub")
def _sum(w: Writer, node: Node) -> Tensor:
    """The sign of the second operand is in its multiplier."""
    terms = []
    for index, key in enumerate(("a_multiplier", "b_multiplier")):
        value, factor = node.input(index), node.operand(key)
        term = w.centred(w.tensor(value), _zero_point(value), f"{node.name}_{key[0]}")
        if factor is not None:
            term = w.binary("mul", term, w.tensor(factor), f"{node.name}_{key[0]}")
        terms.append(term)
    return w.binary("add", terms[0], terms[1], node.name)


@exports("mul")
def _mul(w: Writer, node: Node) -> Tensor:
    a, b = (w.centred(w.tensor(v), _zero_point(v), node.name) for v in (node.input(0), node.input(1)))
    return w.binary("mul", a, b, node.name)


@exports("reduce_sum", "reduce_mean")
def _total(w: Writer, node: Node) -> Tensor:
    """A mean is the sum at another scale."""
    x = w.centred(w.tensor(node.input(0)), _zero_point(node.input(0)), node.name)
    for axis in _attributes(node).axes:
        x = w.reduce("reduce_sum", x, axis, node.name)
    return x


@exports("reduce_max", "reduce_min")
def _extreme(w: Writer, node: Node) -> Tensor:
    x = w.tensor(node.input(0))
    for axis in _attributes(node).axes:
        x = w.reduce(node.op.name, x, axis, node.name)
    return x


@exports("requantize")
def _requantize(w: Writer, node: Node) -> Tensor:
    op, x = _attributes(node), w.tensor(node.input(0))
    if node.output.type.dtype is not DType.S8:
        _refuse(node, f"the result is {node.output.type.dtype.value}, the export has 8 bits only")
    multiplier, shift = op.multipliers(node.signature, *(None if v is None else v.data for v in node.inputs))
    zero_points = (_zero_point(node.input(0)), _zero_point(node.output))
    _check_scale(node, shift, zero_points[0])
    y = w.rescale(x, multiplier, shift, zero_points, "i8", node.name, _ROUNDINGS[op.rounding])
    if (op.low, op.high) == (-128, 127):
        return y
    bounds = {"min_val": f"{op.low} : i8", "max_val": f"{op.high} : i8"}
    return w.op("clamp", (y,), "i8", y.shape, f"{node.name}_clamped", **bounds)


def _check_scale(node: Node, shift: NDArray[Any], zero_point: int = 0) -> None:
    """apply_scale_32: a shift of 2 at least, and |value| < 2^(shift-1)."""
    if int(shift.min()) < _MIN_SHIFT:
        _refuse(node, f"RESCALE shifts by {_MIN_SHIFT} bits or more, this one by {int(shift.min())}")
    reach = _largest(_interval(node.input(0)).shifted(-zero_point))
    if reach >= 2 ** (int(shift.min()) - 1):
        _refuse(node, f"its operand reaches {reach}, RESCALE takes less than 2^{int(shift.min()) - 1}")


# ---------------------------------------------------------------- tables
@exports("table")
def _table(w: Writer, node: Node) -> Tensor:
    table, x = _data(node, 1, "table"), w.tensor(node.input(0))
    if table.shape != (256,) or table.dtype != np.int8:
        _refuse(node, f"TABLE has one table of 256 bytes, this one is {node.input(1).type}")
    return w.op("table", (x, w.constant(table, f"{node.name}_table")), "i8", x.shape, node.name)


@exports("softmax")
def _softmax(w: Writer, node: Node) -> Tensor:
    name, x = node.name, w.centred(w.tensor(node.input(0)), 0, node.name)
    below = w.binary("sub", w.reduce("reduce_max", x, len(x.shape) - 1, name), x, f"{name}_below")
    return _shares(w, node, _look_up(w, _data(node, 1, "table"), below, f"{name}_e"), 8)


@exports("wide_softmax")
def _wide_softmax(w: Writer, node: Node) -> Tensor:
    """table[i] * table[256 + j] / 2^8 has 32 bits without sign: the first factor is split into bytes."""
    op, name, x = _attributes(node), node.name, w.tensor(node.input(0))
    multiplier, shift, table = (_data(node, i, "table").astype(np.int64) for i in (1, 2, 3))
    if op.bits != 8:
        _refuse(node, "the result has 16 bits, the export has 8 only")
    _check_scale(node, shift)
    bound = _interval(node.input(0))
    u_low, u_high = ((end * multiplier) >> shift for end in (bound.low, bound.high))
    if _largest(Interval(u_low, u_high)) >= 2**30 - 1:
        _refuse(node, "a difference of its operands could leave 32 bits")
    u = w.rescale(x, multiplier, shift, (_zero_point(node.input(0)), 0), "i32", f"{name}_u")
    d = w.binary("sub", w.reduce("reduce_max", u, len(u.shape) - 1, name), u, f"{name}_d")
    rank = len(u.shape)

    def bits(start: int, count: int) -> Tensor:
        shifted = w.binary("logical_right_shift", d, w.scalar(start, rank, "shift"), name) if start else d
        return w.binary("bitwise_and", shifted, w.scalar(2**count - 1, rank, "mask"), name)

    coarse, fine = bits(8, 8), _look_up(w, table[256:], bits(0, 8), f"{name}_fine")
    high = _look_up(w, table[:256] >> 8, coarse, f"{name}_high")
    low = _look_up(w, table[:256] & 255, coarse, f"{name}_low")
    product = w.binary("mul", low, fine, name)
    product = w.binary("arithmetic_right_shift", product, w.scalar(8, rank, "shift"), name)
    product = w.binary("add", w.binary("mul", high, fine, name), product, name)
    halvings = w.binary("logical_right_shift", d, w.scalar(LOG_BITS, rank, "shift"), name)
    halvings = w.binary("minimum", halvings, w.scalar(31, rank, "mask"), name)
    return _shares(w, node, w.binary("arithmetic_right_shift", product, halvings, f"{name}_e"), 8)


def _look_up(w: Writer, table: NDArray[Any], index: Tensor, name: str) -> Tensor:
    """table[index] of i32 by GATHER, as TABLE has 8 bits."""
    count = int(np.prod(index.shape, dtype=np.int64))
    values = w.ints(table[None, :, None], f"{name}_table")
    found = w.op("gather", (values, w.reshape(index, (1, count), name)), "i32", (1, count, 1), name)
    return w.reshape(found, index.shape, name)


def _shares(w: Writer, node: Node, e: Tensor, bits: int) -> Tensor:
    """min((2^bits e + sum // 2) // sum, 2^bits - 1) - 2^(bits-1), by long division, one binary digit after the other.

    The sum and the remainder are pairs (high, low) of i32 that mean 2^16 high + low: they need more than 32 bits. Of
    bits + 1 digits the last one rounds. (One element may be the sum: its digits are all 1, and the minimum holds.)
    """
    name, rank = node.name, len(e.shape)
    if e.shape[-1] >= 2**15:
        _refuse(node, f"the sum over {e.shape[-1]} elements could leave 32 bits")

    def carried(high: Tensor, low: Tensor) -> tuple[Tensor, Tensor]:
        """The pair with low in [0, 2^16): high has its sign."""
        carry = w.binary("arithmetic_right_shift", low, w.scalar(16, rank, "shift"), name)
        kept = w.binary("bitwise_and", low, w.scalar(2**16 - 1, rank, "mask"), name)
        return w.binary("add", high, carry, name), kept

    zero = w.scalar(0, rank, "zero")
    rest, quotient = carried(zero, e), zero
    high, low = (w.reduce("reduce_sum", part, rank - 1, f"{name}_sum") for part in rest)
    total = carried(high, low)
    for _ in range(bits + 1):
        doubled = [w.binary("add", part, part, name) for part in rest]
        high, low = (w.binary("sub", d, t, name) for d, t in zip(doubled, total, strict=True))
        less = carried(high, low)
        digit = w.binary("greater_equal", less[0], zero, f"{name}_digit", "i1")
        high, low = (
            w.op("select", (digit, a, b), "i32", e.shape, f"{name}_rest")
            for a, b in zip(less, doubled, strict=True)
        )
        rest = high, low
        quotient = w.binary("add", quotient, quotient, name)
        quotient = w.binary("add", quotient, w.op("cast", (digit,), "i32", e.shape, name), f"{name}_quotient")
    one = w.scalar(1, rank, "one")
    quotient = w.binary("arithmetic_right_shift", w.binary("add", quotient, one, name), one, name)
    quotient = w.binary("minimum", quotient, w.scalar(2**bits - 1, rank, "largest"), name)
    shifted = w.binary("sub", quotient, w.scalar(2 ** (bits - 1), rank, "half"), name)
    return w.op("cast", (shifted,), "i8", e.shape, name)


# ---------------------------------------------------------------- movement
@exports("reshape")
def _reshape(w: Writer, node: Node) -> Tensor:
    return w.reshape(w.tensor(node.input(0)), node.output.type.shape, node.name)


@exports("transpose")
def _transpose(w: Writer, node: Node) -> Tensor:
    x, perm = w.tensor(node.input(0)), ", ".join(map(str, _attributes(node).perm))
    return w.op("transpose", (x,), x.element, node.output.type.shape, node.name, perms=f"array<i32: {perm}>")


@exports("concat")
def _concat(w: Writer, node: Node) -> Tensor:
    parts = [w.tensor(v) for v in node.inputs if v is not None]
    axis = f"{_attributes(node).axis} : i32"
    return w.op("concat", parts, parts[0].element, node.output.type.shape, node.name, axis=axis)


@exports("slice")
def _slice(w: Writer, node: Node) -> Tensor:
    """SLICE for what lies together; an axis with another step is gathered."""
    op, x = _attributes(node), w.tensor(node.input(0))
    starts, sizes = [0] * len(x.shape), list(x.shape)
    for axis, start, end, step in zip(op.axes, op.starts, op.ends, op.steps, strict=True):
        if step == 1:
            starts[axis], sizes[axis] = start, end - start
        else:
            x = _gathered(w, x, axis, np.arange(start, end, step), node.name)
            sizes[axis] = x.shape[axis]
    return w.slice(x, starts, sizes, node.name)


@exports("take")
def _take(w: Writer, node: Node) -> Tensor:
    op = _attributes(node)
    return _gathered(w, w.tensor(node.input(0)), op.axis, np.array(op.indices), node.name)


def _gathered(w: Writer, x: Tensor, axis: int, indices: NDArray[Any], name: str) -> Tensor:
    """x[..., indices, ...] on one axis: GATHER on [outer, axis, inner]."""
    outer, inner = (int(np.prod(dims, dtype=np.int64)) for dims in (x.shape[:axis], x.shape[axis + 1 :]))
    rows = w.ints(np.tile(indices, (outer, 1)), f"{name}_indices")
    flat = w.reshape(x, (outer, x.shape[axis], inner), name)
    found = w.op("gather", (flat, rows), x.element, (outer, len(indices), inner), name)
    return w.reshape(found, (*x.shape[:axis], len(indices), *x.shape[axis + 1 :]), name)


@exports("pad")
def _pad(w: Writer, node: Node) -> Tensor:
    op, x = _attributes(node), w.tensor(node.input(0))
    if op.mode != "constant":
        _refuse(node, f"PAD knows no mode {op.mode}")
    starts = [max(0, -b) for b in op.begins]
    sizes = [n + min(b, 0) + min(e, 0) for b, n, e in zip(op.begins, x.shape, op.ends, strict=True)]
    kept = w.slice(x, starts, sizes, node.name)
    widths = [max(0, n) for pair in zip(op.begins, op.ends, strict=True) for n in pair]
    fill = w.ints([op.fill(node.signature)], f"{node.name}_fill", x.element)
    return w.op("pad", (kept, w.shape(widths), fill), x.element, node.output.type.shape, node.name)


@exports("tile")
def _tile(w: Writer, node: Node) -> Tensor:
    x, repeats = w.tensor(node.input(0)), w.shape(_attributes(node).repeats)
    return w.op("tile", (x, repeats), x.element, node.output.type.shape, node.name)
