"""Programs of Arm targets under QEMU."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from planned_steps import emitted, layer, net, strict

from qcc.backends.arm import ARM_LEVELS
from qcc.backends.c.build import build_program, find_compiler, find_runner, run_program
from qcc.backends.target import Target, find_target

__all__ = ["emitted", "layer", "net", "strict"]  # fixtures


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
    """`passes(net, target, samples, threads)`: the program, after its library computed the interpreter's bytes of all samples."""

    def run(net: Any, target: Target, samples: Mapping[str, Any], threads: int = 1) -> Any:
        folder, program = emitted(net, target, samples, threads)
        text = run_program(build_program(folder, target, [folder / "test_main.c"]), target)
        count = len(next(iter(samples.values())))
        assert text == f"{program.name}: {count} of {count} test vectors passed\n"
        return program

    return run
