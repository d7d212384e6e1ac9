"""What the tests of kernels for 16 bits share: running a net against the interpreter, and targets made for checks."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from wide_layers import WideNet

from qcc.backends.c.run import load
from qcc.backends.program import Program
from qcc.backends.target import Compiler, Target, find_target
from qcc.backends.targets import availability
from qcc.ir import interpreter
from qcc.ir.graph import Graph

Emitted = Callable[..., tuple[Path, Program]]


@dataclass(frozen=True)
class Planned:
    """A graph in its integer form."""

    graph: Graph


def usable(name: str) -> Target:
    """Skips where programs cannot be built and run."""
    target = find_target(name)
    found = availability(target)
    if not found.runs:
        pytest.skip(f"{name}: no compiler or no emulator (QEMU): {', '.join(found.missing)}")
    return target


def check(net: WideNet, target: Target, emitted: Emitted, threads: int = 1) -> Program:
    """All outputs equal the interpreter's."""
    samples = net.plan()
    folder, program = emitted(net, target, None, threads)
    expected, got = interpreter.run(program.graph, samples), load(folder, target).run(samples)
    wrong = [net.names[int(k[1:])] for k, y in expected.items() if not np.array_equal(got[k], y)]
    assert wrong == []
    spread = np.concatenate([y.reshape(-1) for y in expected.values() if y.dtype == np.int16])
    assert np.unique(spread).size > 1000, "the test data must not saturate"
    return program


def sanitized(target: Target) -> Target:
    """gcc with sanitizers, which end the program at the first error."""
    flags = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    kept = tuple(flag for flag in target.flags if flag != "-O3")
    return replace(target, compilers=(Compiler(("gcc",), "install gcc"),), flags=(*kept, *flags))
