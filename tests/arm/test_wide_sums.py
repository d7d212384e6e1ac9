"""Means, sums and interleaving of tensors with 16 bits for NEON under QEMU: the bytes of the interpreter."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from wide_layers import WideNet, sums

sys.path.insert(0, str(Path(__file__).parent))
from test_wide import Emitted, check, usable

from qcc.backends.arm import neon_wide_sums
from qcc.backends.target import Target

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
