"""The Arm kernels of tensors with 16 bits under QEMU: the bytes of the interpreter for any shape and mixture."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from float_layers import pair, run_guarded
from hypothesis import given
from hypothesis import strategies as st
from kernel_harness import integer_graph
from wide_checks import Emitted, check, usable
from wide_layers import WideNet, every_layer

from qcc.backends import parallel
from qcc.backends.arm import cortex_m_wide, neon_wide, wide
from qcc.backends.program import Program, build_program
from qcc.backends.target import Target, find_target
from qcc.ir import fixedpoint
from qcc.ir.ops.quant import Requantize

pytestmark = [pytest.mark.compiler, pytest.mark.qemu]


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
    found = [op for op in program.operations if op.step.wide]
    ours = {k.symbol for k in cortex_m_wide.WIDE_KERNELS}
    assert {op.kernel.symbol for op in found} >= ours
    others = [op for op in found if op.kernel.symbol not in ours]
    fours = [op for op in others if op.step.output.type.shape[-1] % 4 == 0]
    assert len(fours) < 0.1 * len(found)


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
    still, value = np.array([False]), np.array([0])
    numbers = (np.array([n]) for n in (multiplier, shift + up, up, -bound, bound))
    found = wide.Requantization(*numbers, still, value, 54)
    assert found.refused is None
    acc = data.draw(st.integers(-bound, bound))
    rounding = (2 * zero_point + 1) << (shift + up - 33)
    product = ((acc << up) * multiplier + (rounding << 32)) >> 32
    assert -(2**31) <= rounding < 2**31
    assert -(2**31) <= product < 2**31
    expected = fixedpoint.requantize(np.array([acc]), multiplier, shift, zero_point, -(2**31), 2**31 - 1)
    assert product >> (shift + up - 32) == expected[0]


@pytest.mark.parametrize("name", ["arm-neon", "arm-neon-dotprod", "armv7-neon"])
def test_layers_of_every_kind_on_vectors(name: str, emitted: Emitted, strict: Callable[..., Target]) -> None:
    """Compiled without a warning."""
    program = check(every_layer(5, 20), strict(usable(name)), emitted)
    ours = {k.symbol for k in (neon_wide.DOTPROD_ROWS if "dotprod" in name else neon_wide.NEON_ROWS)}
    found = [op.kernel.symbol for op in program.operations if op.step.wide]
    assert set(found) >= ours


def few_channels(seed: int, count: int) -> WideNet:
    """Images of up to 4 channels, some wider than what is copied at once."""
    net = WideNet(seed)
    net.share = 0.75
    rng = net.rng
    for index in range(count):
        kernel = ((3, 3), (1, 1), (7, 7), (2, 5), (3, 1), (1, 4))[index % 6]
        dilations = (1, 1) if index % 4 else pair(rng, 1, 2)
        reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
        pads = tuple(int(rng.integers(0, r)) for r in (*reach, *reach))
        size = [max(1, r - pads[i] - pads[i + 2]) for i, r in enumerate(reach)]
        net.conv(
            (size[0] + int(rng.integers(0, 6)), size[1] + int(rng.choice((0, 3, 6, 63, 70)))),
            (int(rng.choice((1, 8, 16, 17, 33))), *kernel, 1 + index % 4),
            ("", "add", "sub")[index % 3],
            strides=pair(rng, 1, 3),
            pads=pads,
            dilations=dilations,
        )
    return net


@pytest.mark.parametrize(
    ("name", "seed"),
    [("arm-neon-dotprod", 1), ("armv7-neon", 2), pytest.param("arm-neon", 3, marks=pytest.mark.slow)],
)
def test_few_input_channels(name: str, seed: int, emitted: Emitted, strict: Callable[..., Target]) -> None:
    """Those with 16 bits go to the direct convolution."""
    program = check(few_channels(seed, 36), strict(usable(name)), emitted)
    wide_inputs = [op for op in program.operations if op.step.root.input(0).type.dtype.bytes == 2]
    assert len(wide_inputs) > 15
    assert {op.kernel.symbol for op in wide_inputs} == {"qcc_s16_conv2d_direct_neon"}


def test_threads(emitted: Emitted, passes: Callable[..., Program], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BARRIER_CYCLES", "RUN_CYCLES", "RUN_SHARE"):
        monkeypatch.setattr(parallel, name, -1e12)
    net = every_layer(7, 8)
    for pads in ((0,) * 4, (1,) * 4):
        net.conv((9, 40), (17, 1 + 2 * pads[0], 1 + 2 * pads[0], 3), "add", pads=pads)
        net.conv((9, 40), (17, 1 + 2 * pads[0], 1 + 2 * pads[0], 3), pads=pads)
    program = passes(net, usable("arm-neon-dotprod"), net.plan(), threads=3)
    assert {k.symbol for k in neon_wide.DOTPROD_ROWS} <= {
        o.kernel.symbol for o in program.operations if o.parts
    }


def test_nothing_beyond_the_tensors_is_touched(emitted: Emitted, tmp_path: Path) -> None:
    """The pages around the input and the output fault."""
    nets = []
    for index, (outputs, kernel, channels, pad) in enumerate(
        ((17, 1, 6, 0), (70, 1, 7, 0), (33, 3, 5, 1), (40, 3, 24, 0), (33, 3, 3, 1), (8, 1, 2, 0))
    ):
        for output in (False, True):
            net = WideNet(index)
            net.conv((4, 5), (outputs, kernel, kernel, channels), pads=(pad,) * 4)
            nets.append((net, (net.graph.outputs if output else net.graph.inputs)[0].name))
    net = WideNet(9)
    net.emit("add", net.input(1, 5, 21), net.input(1, 5, 21), output="add")
    nets.append((net, net.graph.inputs[0].name))
    for net, chosen in nets:
        real = {
            v.name: net.rng.normal(size=(3, *v.type.shape[1:])).astype(np.float32) for v in net.graph.inputs
        }
        net.graph = integer_graph(net.graph, real, [chosen])
    planned = [SimpleNamespace(graph=net.graph) for net, _ in nets]
    run_guarded(planned, usable("arm-neon-dotprod"), emitted, tmp_path, ("s16",))
