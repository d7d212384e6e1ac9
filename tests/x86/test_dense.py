"""Dense layers of few rows in AVX512: the bytes of the interpreter for any shape, nothing touched beyond the tensors."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from one_kernel import run_sanitized

sys.path.insert(0, str(Path(__file__).parent))
from test_kernels import Net, check, check_guarded

from qcc.backends.program import Program
from qcc.backends.target import Target
from qcc.backends.x86.dense import LINE_CYCLES, blocks

pytestmark = pytest.mark.compiler

Emitted = Callable[..., tuple[Path, Program]]
INPUTS = (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 64, 130)
OUTPUTS = (
    1,
    2,
    15,
    16,
    17,
    31,
    32,
    33,
    47,
    48,
    49,
    63,
    64,
    65,
    80,
    127,
    128,
    129,
    176,
    177,
    192,
    193,
    256,
    300,
)


def dense_layers(net: Net) -> None:
    """Every number of outputs with some numbers of inputs, one or two rows."""
    for index, outputs in enumerate(OUTPUTS):
        for inputs in (INPUTS[index % len(INPUTS)], INPUTS[(7 * index + 3) % len(INPUTS)]):
            rows = index % 2 + 1
            x, w, bias = net.input(1, rows, inputs), net.constant(outputs, inputs), net.constant(outputs)
            net.emit("dense", x, w, bias, output=f"dense {rows} {inputs} {outputs}")


def heads(net: Net) -> None:
    """Layers whose accumulators a softmax reads."""
    for inputs, outputs in ((9, 7), (64, 12), (33, 17), (20, 64), (70, 130), (5, 300)):
        acc = net.emit("dense", net.input(1, inputs), net.constant(outputs, inputs), net.constant(outputs))
        net.emit("softmax", acc, output=f"dense softmax {inputs} {outputs}", axis=1)


def whole_images(net: Net) -> None:
    """Filters that cover the image."""
    for kernel, channels, outputs in (((1, 1), 20, 70), ((3, 2), 5, 33), ((7, 7), 3, 128)):
        x, w = net.input(1, *kernel, channels), net.constant(outputs, *kernel, channels)
        net.emit("conv2d", x, w, net.constant(outputs), output=f"conv2d {kernel} {channels} {outputs}")


def every_layer(seed: int) -> Net:
    net = Net(seed)
    dense_layers(net)
    heads(net)
    whole_images(net)
    return net


def test_every_shape(vnni: Target, emitted: Emitted) -> None:
    net = every_layer(1)
    program = check(net, vnni, emitted)
    symbols = [o.kernel.symbol for o in program.operations]
    layers = 2 * len(OUTPUTS) + 3
    assert symbols.count("qcc_s8_dense_avx512vnni") > 0.75 * layers, "the rest has no certificate"
    assert symbols.count("qcc_s8_dense_accumulator_avx512vnni") == 6


def test_library_runs_clean_under_sanitizers(vnni: Target, emitted: Emitted) -> None:
    net = every_layer(2)
    run_sanitized(net, vnni, emitted, net.plan())


def test_nothing_beyond_the_tensors_is_touched(vnni: Target, emitted: Emitted, tmp_path: Path) -> None:
    nets = []
    for inputs, outputs in ((1, 1), (7, 17), (33, 63), (66, 130), (5, 65)):
        nets.append(Net(inputs))
        x, w = nets[-1].input(1, inputs), nets[-1].constant(outputs, inputs)
        nets[-1].emit("dense", x, w, output="dense")
    check_guarded(nets, vnni, emitted, tmp_path)


@pytest.mark.parametrize(
    ("outputs", "vectors"),
    [(1, [1]), (48, [3]), (49, [4]), (64, [4]), (65, [4, 1]), (127, [4, 4]), (128, [8]), (300, [8, 8, 3])],
)
def test_blocks_cover_the_outputs(outputs: int, vectors: list[int]) -> None:
    assert blocks(outputs) == vectors


def test_more_rows_go_to_the_convolution(net: Any, layer: Any, vnni: Target, emitted: Emitted) -> None:
    layers = [layer(i, o, size=None, rows=r) for i, o, r in ((64, 64, 2), (64, 64, 3), (1024, 1000, 2))]
    _, program = emitted(net(layers, 1), vnni)
    symbols = [o.kernel.symbol for o in program.operations]
    assert symbols == ["qcc_s8_dense_avx512vnni", *2 * ["qcc_s8_conv2d_avx512vnni"]]
    refused = [[r.reason for r in o.refused] for o in program.operations]
    assert refused[1][0] == "3 rows, the kernel is for up to 2"
    assert refused[2][0] == "2 rows, and 1024000 weights to read for each"


def test_estimates_grow_with_the_weights(net: Any, layer: Any, vnni: Target, emitted: Emitted) -> None:
    _, program = emitted(net([layer(i, 128, size=None) for i in (64, 128, 8192)], 1), vnni)
    cycles = np.array([o.candidates[0].cycles for o in program.operations])
    lines = np.array([64, 128, 8192]) / 4 * 8
    assert (cycles > lines * LINE_CYCLES[0]).all()
    assert cycles[2] > lines[2] * LINE_CYCLES[1]
