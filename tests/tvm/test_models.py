"""Whole models compiled by TVM equal the interpreter."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import qcc
from qcc.backends.target import Target, find_target
from qcc.backends.targets import availability
from qcc.verify import quantize_inputs

pytestmark = pytest.mark.compiler


def check(name: str, target: str, zoo: ModuleType, folder: Path, count: int) -> Any:
    entry = zoo.load(name)
    compiled = qcc.compile(entry.model, target=target, calibration=entry.calib[:8], name=name)
    compiled.save(folder)
    assert compiled.verify(compiled.build(folder), entry.x[:count]).exact
    return compiled.program


@pytest.mark.parametrize(
    "name", ["kws", "ic", *(pytest.param(n, marks=pytest.mark.slow) for n in ("mobilenetv2",))]
)
def test_model(name: str, zoo: ModuleType, vnni: Target, tmp_path: Path) -> None:
    program = check(name, vnni.name, zoo, tmp_path / name, 4)
    left = {op.step.pattern for op in program.operations if not op.kernel.is_generated}
    assert left <= {"transpose"}, "all arithmetic is compiled by TVM"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is read as Linux tells it")
def test_ten_thousand_calls_of_a_model_do_not_grow_memory(
    zoo: ModuleType, vnni: Target, tmp_path: Path
) -> None:
    """Neither pages in use nor address space, and the result stays what it was."""
    entry = zoo.load("kws")
    compiled = qcc.compile(entry.model, target=vnni.name, calibration=entry.calib[:8], name="kws")
    compiled.save(tmp_path / "kws")
    library = compiled.build(tmp_path / "kws")
    x = quantize_inputs(compiled.graph, {compiled.graph.inputs[0].name: entry.x[:1]})
    name, batch = next(iter(x.items()))
    many = {name: np.repeat(batch, 1000, axis=0)}
    expected = library.compiled.run(many)
    before = memory_pages()
    for _ in range(10):
        got = library.compiled.run(many)
    assert all(now - then < 256 for now, then in zip(memory_pages(), before, strict=True))
    for output, y in expected.items():
        np.testing.assert_array_equal(got[output], y)


def memory_pages() -> list[int]:
    """Of this process: address space, resident."""
    return [int(n) for n in Path("/proc/self/statm").read_text(encoding="ascii").split()[:2]]


@pytest.mark.qemu
@pytest.mark.parametrize("isa", ["dotprod", "i8mm"])
@pytest.mark.parametrize("name", ["kws", "ic"])
def test_model_on_aarch64(name: str, isa: str, zoo: ModuleType, tmp_path: Path) -> None:
    target = find_target(f"tvm:arm-neon-{isa}")
    found = availability(target)
    if not found.runs:
        pytest.skip(f"no compiler or emulator for {target.name}: {'; '.join(found.missing)}")
    check(name, target.name, zoo, tmp_path / name, 2)
