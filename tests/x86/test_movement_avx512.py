"""Movement, tables and softmax in AVX512: the bytes of the interpreter for any shape, nothing touched beyond the tensors."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from one_kernel import run_sanitized

sys.path.insert(0, str(Path(__file__).parent))
from float_layers import Net, moving_layers, softmax_layers, table_layers
from test_kernels import check, check_guarded

from qcc.backends.program import Program
from qcc.backends.program import build_program as make_program
from qcc.backends.target import Target
from qcc.backends.x86 import lookup, movement

pytestmark = pytest.mark.compiler

Emitted = Callable[..., tuple[Path, Program]]


def every_layer(seed: int) -> Net:
    net = Net(seed)
    moving_layers(net)
    softmax_layers(net)
    table_layers(net)
    return net


def test_every_shape(vnni: Target, emitted: Emitted) -> None:
    program = check(every_layer(1), vnni, emitted)
    used = {operation.kernel.symbol for operation in program.operations}
    assert {k.symbol for module in (lookup, movement) for k in module.KERNELS} <= used
    scalar = [o.kernel.symbol.endswith("_scalar") for o in program.operations]
    assert np.mean(scalar) < 0.25, "runs of one element, elements in reverse, rows below 8"


def test_all_pairs(vnni: Target, emitted: Emitted) -> None:
    """The softmax of two, and a table, of every value there is."""
    net = Net(3)
    net.emit("softmax", net.input(1, 256 * 256, 2), output="softmax", axis=2)
    net.emit("tanh", net.input(1, 256), output="tanh")
    samples = net.plan()
    values = np.arange(-128, 128, dtype=np.int8)
    grid = np.stack(np.meshgrid(values, values), axis=-1).reshape(-1, 2)
    for name, x in samples.items():
        x[2] = grid if x.ndim == 3 else values
        samples[name] = x
    net.plan = lambda: samples  # type: ignore[method-assign]
    program = check(net, vnni, emitted)
    assert {o.kernel.symbol for o in program.operations} == {
        "qcc_s8_softmax_pair_avx512",
        "qcc_s8_table_avx512",
    }


def test_library_runs_clean_under_sanitizers(vnni: Target, emitted: Emitted) -> None:
    net = every_layer(2)
    run_sanitized(net, vnni, emitted, net.plan())


def test_nothing_beyond_the_tensors_is_touched(vnni: Target, emitted: Emitted, tmp_path: Path) -> None:
    nets: list[Net] = []

    def add(op: str, *shapes: tuple[int, ...], **attributes: Any) -> None:
        nets.append(Net(len(nets)))
        nets[-1].emit(op, *(nets[-1].input(*s) for s in shapes), output=op, **attributes)

    for run in (3, 17, 70):
        add("concat", (1, 3, run), (1, 3, 5), axis=2)
        add("slice", (1, 4, run), axes=(2,), starts=(1,), ends=(run,), steps=(1,))
        add("pad", (1, 4, run), begins=(0, 1, 2), ends=(0, 0, 3))
        add("sigmoid", (1, run))
        add("softmax", (1, 3, run + 8), axis=2)
        add("softmax", (1, run, 2), axis=2)
    check_guarded(nets, vnni, emitted, tmp_path)


def test_refusals_name_the_reason(vnni: Target) -> None:
    net = Net(4)
    net.emit("softmax", net.input(1, 5), output="softmax", axis=1)
    net.emit("slice", net.input(1, 9), output="slice", axes=(1,), starts=(0,), ends=(9,), steps=(3,))
    net.plan()
    program = make_program(net.graph, vnni, "layers")
    reasons = [[r.reason for r in o.refused] for o in program.operations]
    assert reasons[0] == ["rows of 5 elements, not 2", "rows of 5 elements, not 8 to 131072"]
    assert reasons[1][:2] == [
        "no neighbouring elements stay neighbours",
        "the innermost rows are not a run, with or without fills around it",
    ]
