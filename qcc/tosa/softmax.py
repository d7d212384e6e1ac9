"""The integer softmax in TOSA: operations on i32, with the sum and the remainder of its division in two parts."""

from __future__ import annotations

from qcc.ir.graph import Node
from qcc.ir.ops.softmax import LOG_BITS
from qcc.tosa.rules import (
    check_scale,
    data,
    exports,
    look_up,
    refuse,
)
from qcc.tosa.writer import Tensor, Writer


@exports("softmax")
def _softmax(w: Writer, node: Node) -> Tensor:
    name, x = node.name, w.centred(w.tensor(node.input(0)), 0, node.name)
    below = w.binary("sub", w.reduce("reduce_max", x, len(x.shape) - 1, name), x, f"{name}_below")
    return _shares(w, node, look_up(w, data(node, 1, "table"), below, f"{name}_e"), 8)


@exports("wide_softmax")
def _wide_softmax(w: Writer, node: Node) -> Tensor:
    """table[i] * table[256 + j] / 2^8 has 32 bits without sign: the first factor is split into bytes."""
    name, x = node.name, w.tensor(node.input(0))
    multiplier, shift, table = (data(node, i, "table") for i in (1, 2, 3))
    check_scale(node, shift)  # so |u| < 2^30, and a difference of two stays within 31 bits
    u = w.rescale(x, multiplier, shift, (0, 0), "i32", f"{name}_u")
    d = w.binary("sub", w.reduce("reduce_max", u, len(u.shape) - 1, name), u, f"{name}_d")
    rank = len(u.shape)

    def bits(start: int, count: int) -> Tensor:
        shifted = w.binary("logical_right_shift", d, w.scalar(start, rank, "shift"), name) if start else d
        return w.binary("bitwise_and", shifted, w.scalar(2**count - 1, rank, "mask"), name)

    coarse, fine = bits(8, 8), look_up(w, table[256:], bits(0, 8), f"{name}_fine")
    high = look_up(w, table[:256] >> 8, coarse, f"{name}_high")
    low = look_up(w, table[:256] & 255, coarse, f"{name}_low")
    product = w.binary("mul", low, fine, name)
    product = w.binary("arithmetic_right_shift", product, w.scalar(8, rank, "shift"), name)
    product = w.binary("add", w.binary("mul", high, fine, name), product, name)
    halvings = w.binary("logical_right_shift", d, w.scalar(LOG_BITS, rank, "shift"), name)
    halvings = w.binary("minimum", halvings, w.scalar(31, rank, "mask"), name)
    return _shares(w, node, w.binary("arithmetic_right_shift", product, halvings, f"{name}_e"), 8)


def _shares(w: Writer, node: Node, e: Tensor, bits: int) -> Tensor:
    """min((2^bits e + sum // 2) // sum, 2^bits - 1) - 2^(bits-1), by long division, one binary digit after the other.

    The sum and the remainder are pairs (high, low) of i32 that mean 2^16 high + low: they need more than 32 bits. Of
    bits + 1 digits the last one rounds. (One element may be the sum: its digits are all 1, and the minimum holds.)
    """
    name, rank = node.name, len(e.shape)
    if e.shape[-1] >= 2**15:
        refuse(node, f"the sum over {e.shape[-1]} elements could leave 32 bits")

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
