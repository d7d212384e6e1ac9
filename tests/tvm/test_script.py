"""TVMScript: written, read back, scheduled anew, and checked."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from planned_steps import Layer, Net

from qcc.backends.c.emit import EmitOptions, emit
from qcc.backends.c.run import load
from qcc.backends.program import build_program
from qcc.backends.target import Scripts, Target, find_target
from qcc.ir import interpreter
from qcc.ir.errors import QccError, TargetError
from qcc.options import CompileOptions

pytestmark = pytest.mark.compiler
RESCHEDULED = """
schedule = s_tir.Schedule(Steps["layers_step_y0"])
*_, channel = schedule.get_loops(schedule.get_sblock("output"))
schedule.unroll(channel)
Kernels["layers_step_y0"] = schedule.mod["main"]
"""
WRONG = """
Kernels["layers_step_y0"] = Kernels["layers_step_y1"]
"""


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., Any]:
    """`written(scripts, folder)`: samples, the folder of a library, its program."""

    def make(scripts: Scripts, folder: str) -> Any:
        net = Net([Layer(8, 16, (3, 3), size=(4, 4)), Layer(16, 16, (3, 3), size=(4, 4), groups=16)], 1)
        program = build_program(net.graph, find_target("tvm:x86-avx512vnni"), "layers")
        return net.samples(3), emit(program, tmp_path / folder, EmitOptions(scripts=scripts)), program

    return make


def test_what_is_written_compiles_to_the_same(written: Callable[..., Any]) -> None:
    _, first, _ = written(Scripts(written=True), "first")
    _, second, _ = written(Scripts(written=True, replaced=first / "layers_kernels.py"), "second")
    for name in ("layers_kernels.py", "layers_kernels.s"):
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_kernel_scheduled_anew(written: Callable[..., Any], vnni: Target) -> None:
    """Another schedule, other code, the same bytes."""
    samples, first, program = written(Scripts(written=True), "first")
    own = first / "layers_kernels.py"
    own.write_text(own.read_text() + RESCHEDULED)
    _, second, _ = written(Scripts(replaced=own), "second")
    assert (first / "layers_kernels.s").read_text() != (second / "layers_kernels.s").read_text()
    got = load(second, vnni).run(samples)
    for name, y in interpreter.run(program.graph, samples).items():
        np.testing.assert_array_equal(got[name], y)


def test_errors_of_the_file_are_told(written: Callable[..., Any], tmp_path: Path) -> None:
    _, first, _ = written(Scripts(written=True), "first")
    text = (first / "layers_kernels.py").read_text()
    for extra, message in (
        (WRONG, "kernel layers_step_y0 has other parameters than its step"),
        ("\nKernels['other'] = Kernels['layers_step_y1']\n", "has kernels of no step: other"),
        ("\nlayers = 1 / 0\n", "ZeroDivisionError"),
    ):
        own = tmp_path / "own.py"
        own.write_text(text + extra)
        with pytest.raises(TargetError, match=message):
            written(Scripts(replaced=own), "second")
    with pytest.raises(TargetError, match="does not exist"):
        written(Scripts(replaced=tmp_path / "nothing.py"), "second")


def test_other_targets_have_no_tvmscript() -> None:
    with pytest.raises(QccError, match="target c has no TVMScript"):
        CompileOptions(target="c", emit=("tvmscript",))
