"""The checker's part for softmax over accumulators: the one op besides sums and requantize that may read them."""

from __future__ import annotations

from math import log2

import numpy as np

from qcc.ir.errors import VerifyError
from qcc.ir.graph import Node
from qcc.ir.types import DType

_TOLERANCE = {31: 2.0**-29, 20: 2.0**-18}  # of a multiplier, by its bits
_SMALLEST = (
    2.0**-30
)  # below it the result is uniform, from 2^(bits - 2) on it is one-hot, whatever the multiplier


def check_wide_softmax(node: Node) -> None:
    """Multipliers must be scale * log2(e) * 2^16 of the accumulator; products of table entries must fit 32 bits.

    An accumulator of s32 has 32 bits and the multiplier 31, one of s64 at most 43 (as the checker proves) and the multiplier
    20, so the 64-bit product cannot overflow.
    Raises VerifyError naming the channel, or the table.
    """
    x, multiplier, shift, table = (node.input(i) for i in range(4))
    if x.type.qparams is None or multiplier.data is None or shift.data is None or table.data is None:
        raise VerifyError(f"%{node.name}: a wide softmax needs a scale and constants", node.location)
    if int(multiplier.data.min()) < 1 or int(shift.data.min()) < 1 or int(shift.data.max()) > 62:
        raise VerifyError(f"%{node.name}: multiplier or shift is out of range", node.location)
    bits = 20 if x.type.dtype is DType.S64 else 31
    if int(multiplier.data.max()) >= 2**bits:
        raise VerifyError(f"%{node.name}: a multiplier has more than {bits} bits", node.location)
    scales = x.type.qparams.scale
    if len(scales) != multiplier.data.size or len(scales) != shift.data.size:
        raise VerifyError(
            f"%{node.name}: {len(scales)} scales and {multiplier.data.size} multipliers", node.location
        )
    for channel, scale in enumerate(scales):
        wanted = min(max(scale * log2(np.e) * 2**16, _SMALLEST), 2.0 ** (bits - 2))
        claimed = int(multiplier.data[channel]) / 2 ** int(shift.data[channel])
        if abs(claimed - wanted) > wanted * _TOLERANCE[bits]:
            raise VerifyError(
                f"%{node.name}, channel {channel}: multiplier: claimed {claimed!r}, recomputed {wanted!r}",
                node.location,
            )
    coarse, fine = table.data[:256].astype(np.int64), table.data[256:].astype(np.int64)
    if (
        coarse.min() < 0
        or fine.min() < 0
        or int(coarse.max()) * int(fine.max()) >= 2**32
        or coarse[0] * fine[0] < 2**31
    ):
        raise VerifyError(f"%{node.name}: the products of the table do not fit 32 bits", node.location)
