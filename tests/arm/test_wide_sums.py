"""Means, sums and interleaving of tensors with 16 bits for NEON under QEMU: the bytes of the interpreter."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from wide_checks import Emitted, check, usable
from wide_layers import WideNet, sums

from qcc.backends.arm import neon_wide_sums, wide
from qcc.backends.target import Target
from qcc.ir import fixedpoint

pytestmark = [pytest.mark.compiler, pytest.mark.qemu]


@pytest.mark.parametrize("name", ["arm-neon", "arm-neon-dotprod", "armv7-neon"])
def test_means_and_images(name: str, emitted: Emitted, strict: Callable[..., Target]) -> None:
    """Compiled without a warning."""
    net = WideNet(5)
    for index, channels in enumerate((1, 7, 16, 33, 64, 70)):
        x = net.input(1, 3 + index, 5, channels)
        axes = ((1, 2), (1,), (2,), (1, 2), (3,), (1, 2))[index]
        op = ("reduce_mean", "reduce_sum")[index % 2]
        net.emit(op, x, output=f"{op} {x.type} {axes}", axes=axes)
    for channels, pixels in ((2, (3, 5)), (3, (5, 13)), (4, (4, 8)), (3, (1, 1))):
        x = net.input(1, channels, *pixels)
        net.emit("transpose", x, output=f"transpose {x.type}", perm=(0, 2, 3, 1))
    sums(net)
    program = check(net, strict(usable(name)), emitted)
    assert {k.symbol for k in neon_wide_sums.ROWS} <= {op.kernel.symbol for op in program.operations}


@given(
    st.integers(2**30, 2**31 - 1),
    st.integers(55, 62),
    st.lists(st.integers(-(2**31), 2**31 - 1), min_size=2, max_size=2, unique=True),
    st.data(),
)
def test_a_shorter_multiplier_has_the_same_results(
    multiplier: int, shift: int, ends: list[int], data: st.DataObject
) -> None:
    """Where results change, at the ends, and anywhere."""
    low, high = sorted(ends)
    found = wide.shortened(multiplier, shift, low, high, 54)
    if found is None:
        return
    near = [((2 * j + 1) << shift - 1) // multiplier + d for j in range(-64, 64) for d in (-2, -1, 0, 1, 2)]
    anywhere = data.draw(st.lists(st.integers(low, high), max_size=20))
    accs = np.array([acc for acc in (*near, *anywhere, low, high) if low <= acc <= high])
    expected = fixedpoint.requantize(accs, multiplier, shift, 0, -(2**15), 2**15)
    assert np.array_equal(fixedpoint.requantize(accs, *found, 0, -(2**15), 2**15), expected)


def test_a_multiplier_is_shortened() -> None:
    """Of few bits more than the accumulators have, nearly always."""
    rng = np.random.default_rng(1)
    multipliers = rng.integers(2**30, 2**31, 50)
    found = [wide.shortened(int(m), 57, -(2**25), 2**25, 54) for m in multipliers]
    assert sum(f is not None for f in found) > 40
