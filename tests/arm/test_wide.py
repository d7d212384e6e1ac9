"""The Arm kernels of tensors with 16 bits under QEMU: the bytes of the interpreter for any shape and mixture."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from wide_layers import WideNet, every_layer

from qcc.backends.arm import cortex_m_wide
from qcc.backends.c.run import load
from qcc.backends.program import Program, build_program
from qcc.backends.target import Target, find_target
from qcc.backends.targets import availability
from qcc.ir import fixedpoint, interpreter
from qcc.ir.ops.quant import Requantize

pytestmark = [pytest.mark.compiler, pytest.mark.qemu]

Emitted = Callable[..., tuple[Path, Program]]
CORES = ("cortex-m4", "cortex-m7", "cortex-m55")


def usable(name: str) -> Target:
    """Skips where programs cannot be built and run."""
    target = find_target(name)
    found = availability(target)
    if not found.runs:
        pytest.skip(f"{name}: no compiler or no emulator (QEMU): {', '.join(found.missing)}")
    return target


def check(net: WideNet, target: Target, emitted: Emitted) -> Program:
    """All outputs equal the interpreter's."""
    samples = net.plan()
    folder, program = emitted(net, target)
    expected, got = interpreter.run(program.graph, samples), load(folder, target).run(samples)
    wrong = [net.names[int(k[1:])] for k, y in expected.items() if not np.array_equal(got[k], y)]
    assert wrong == []
    spread = np.concatenate([y.reshape(-1) for y in expected.values() if y.dtype == np.int16])
    assert np.unique(spread).size > 1000, "the test data must not saturate"
    return program


@pytest.mark.parametrize(
    ("name", "seed"),
    [
        ("cortex-m4", 1),
        pytest.param("cortex-m7", 2, marks=pytest.mark.slow),
        ("cortex-m55", 3),
        pytest.param("cortex-m4", 4, marks=pytest.mark.slow),
    ],
)
def test_layers_of_every_kind(name: str, seed: int, emitted: Emitted, strict: Callable[..., Target]) -> None:
    """Compiled without a warning."""
    program = check(every_layer(seed, 20), strict(usable(name)), emitted)
    wide = [op for op in program.operations if op.step.wide]
    ours = {k.symbol for k in cortex_m_wide.WIDE_KERNELS}
    assert {op.kernel.symbol for op in wide} >= ours
    others = [op for op in wide if op.kernel.symbol not in ours]
    fours = [op for op in others if op.step.output.type.shape[-1] % 4 == 0]
    assert len(fours) < 0.1 * len(wide)


@pytest.mark.parametrize("compiler", ["clang", "g++"])
def test_other_compilers_see_nothing(compiler: str, emitted: Emitted, strict: Callable[..., Target]) -> None:
    """They only parse."""
    argv = {
        "clang": ["clang", "--target=arm-none-eabi", "-std=c99", "-ffreestanding"],
        "g++": ["arm-none-eabi-g++", "-xc++", "-std=c++17"],
    }[compiler]
    target, net = usable("cortex-m4"), every_layer(6, 8)
    if shutil.which(argv[0]) is None:
        pytest.skip(f"compiler {argv[0]} is not installed")
    net.plan()
    folder, _ = emitted(net, target)
    options = (*target.compilers[0].argv[1:], *strict(target).flags, "-fsyntax-only")
    subprocess.run([*argv, *options, *map(str, sorted(folder.glob("s16_*_dsp.c")))], check=True, timeout=300)


def test_rows_refuse_what_is_not_proved() -> None:
    net, target = WideNet(1), find_target("cortex-m4")
    net.share = 1.0
    net.conv((2, 2), (4, 1, 1, 8))
    net.conv((2, 2), (4, 5, 5, 1000), pads=(2, 2, 2, 2))
    net.plan()

    def reasons() -> list[set[str]]:
        program = build_program(net.graph, target, "layers")
        return [{r.reason.partition(" between ")[0] for r in op.refused} for op in program.operations]

    assert not any("32 bits" in r or "accumulators" in r for r in reasons()[0])
    assert "accumulators" in reasons()[1]
    for node in net.graph.nodes:
        if isinstance(node.op, Requantize):
            net.graph.set_inputs(node, [node.input(0), *node.inputs[1:3], None, None])
    assert "the accumulators have no proven interval" in reasons()[0]


@given(st.data(), st.integers(2**20, 2**31 - 1), st.integers(3, 54), st.integers(-128, 127))
def test_the_high_half_of_a_product_requantizes(
    data: st.DataObject, multiplier: int, shift: int, zero_point: int
) -> None:
    """smmla and a shift, behind an accumulator that was moved up as far as it may be."""
    up = max(0, 33 - shift)
    bound = 2 ** (31 - up) - 1
    found = cortex_m_wide.Requantization(
        *(np.array([n]) for n in (multiplier, shift + up, up, -bound, bound))
    )
    assert found.refused is None
    acc = data.draw(st.integers(-bound, bound))
    rounding = (2 * zero_point + 1) << (shift + up - 33)
    product = ((acc << up) * multiplier + (rounding << 32)) >> 32
    assert -(2**31) <= rounding < 2**31
    assert -(2**31) <= product < 2**31
    expected = fixedpoint.requantize(np.array([acc]), multiplier, shift, zero_point, -(2**31), 2**31 - 1)
    assert product >> (shift + up - 32) == expected[0]
