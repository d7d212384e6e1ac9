"""Whole models compiled by TVM equal the interpreter."""

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import qcc
from qcc.backends.target import Target, find_target
from qcc.backends.targets import availability

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


@pytest.mark.qemu
@pytest.mark.parametrize("isa", ["dotprod", "i8mm"])
@pytest.mark.parametrize("name", ["kws", "ic"])
def test_model_on_aarch64(name: str, isa: str, zoo: ModuleType, tmp_path: Path) -> None:
    target = find_target(f"tvm:arm-neon-{isa}")
    found = availability(target)
    if not found.runs:
        pytest.skip(f"no compiler or emulator for {target.name}: {'; '.join(found.missing)}")
    check(name, target.name, zoo, tmp_path / name, 2)
