"""The nets of the x86 tests, and programs of Arm targets under QEMU."""

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from qcc.backends.arm import ARM_LEVELS
from qcc.backends.c.build import build_program, find_compiler, find_runner, run_program
from qcc.backends.target import Target, find_target

_spec = importlib.util.spec_from_file_location(
    "x86_conftest", Path(__file__).parents[1] / "x86" / "conftest.py"
)
assert _spec is not None
assert _spec.loader is not None
_x86 = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_x86)
net, layer, emitted, strict = _x86.net, _x86.layer, _x86.emitted, _x86.strict


@pytest.fixture(params=[level.target for level in ARM_LEVELS])
def target(request: pytest.FixtureRequest) -> Target:
    """Each target, compiled for speed of the tests; skips where its programs cannot be built and run."""
    found = find_target(request.param)
    if find_compiler(found) is None:
        pytest.skip(f"no compiler for {found.name} is installed")
    if find_runner(found) is None:
        pytest.skip(f"{found.runner[0]} is not installed")
    return replace(found, flags=("-O1", *found.flags[1:]))


@pytest.fixture
def passes(emitted: Callable[..., Any]) -> Callable[..., Any]:
    """`passes(net, target, samples)`: the program, after its library computed the interpreter's bytes of all samples."""

    def run(net: Any, target: Target, samples: Mapping[str, Any]) -> Any:
        folder, program = emitted(net, target, samples)
        text = run_program(build_program(folder, target, [folder / "test_main.c"]), target)
        count = len(next(iter(samples.values())))
        assert text == f"{program.name}: {count} of {count} test vectors passed\n"
        return program

    return run
