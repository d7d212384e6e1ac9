"""Weights of -128, which models quantized elsewhere may have: the bytes of the interpreter on every target."""

from pathlib import Path

import numpy as np
import pytest
from planned_steps import Layer, Net

from qcc.backends.c.emit import emit
from qcc.backends.c.run import load
from qcc.backends.program import build_program
from qcc.backends.targets import describe
from qcc.ir import interpreter

pytestmark = [pytest.mark.compiler, pytest.mark.qemu]

KERNELS = {"kernel": (3, 3), "size": (6, 7), "pads": (1, 1, 1, 1), "least": -128}
LAYERS = (
    Layer(16, 16, **KERNELS),
    Layer(3, 24, strides=(2, 2), **KERNELS),
    Layer(1, 16, **KERNELS),
    Layer(64, 64, least=-128),
    Layer(32, 40, residual="add", least=-128),
    Layer(16, 16, groups=16, **KERNELS),
    Layer(20, 20, groups=20, strides=(2, 1), **KERNELS),
    Layer(24, 24, groups=3, **KERNELS),
    Layer(130, 33, size=None, least=-128),
    Layer(64, 16, size=None, rows=5, least=-128),
)


@pytest.mark.parametrize("name", [found.target.name for found in describe()])
def test_every_family(name: str, tmp_path: Path) -> None:
    (found,) = (f for f in describe() if f.target.name == name)
    if not found.runs:
        pytest.skip(f"{name} cannot run here: {', '.join((*found.missing, *found.lacking))}")
    net = Net(LAYERS, 3)
    samples = net.samples(4)
    program = build_program(net.graph, found.target, "lowest")
    got = load(emit(program, tmp_path / "lowest"), found.target).run(samples)
    expected = interpreter.run(net.graph, samples)
    for output, y in expected.items():
        np.testing.assert_array_equal(got[output], y, err_msg=output)
    assert np.unique(np.concatenate([y.reshape(-1) for y in expected.values()])).size > 200, "saturated"
