"""Nets compiled for a target of TVM, and what was generated for them."""

from collections.abc import Callable
from typing import Any

import numpy as np

from qcc.backends.c.run import load
from qcc.backends.program import Program
from qcc.backends.target import Target
from qcc.ir import interpreter

Emitted = Callable[..., Any]


def check(net: Any, target: Target, emitted: Emitted, samples: Any) -> Program:
    """All outputs equal those of the interpreter."""
    folder, program = emitted(net, target)
    expected, got = interpreter.run(program.graph, samples), load(folder, target).run(samples)
    wrong = [name for name, y in expected.items() if not np.array_equal(got[name], y)]
    assert wrong == []
    spread = np.concatenate([y.reshape(-1) for y in expected.values()])
    assert np.unique(spread).size > 200, "the test data must not saturate"
    return program


def generated(program: Program) -> list[str]:
    return [op.kernel.symbol for op in program.operations if op.kernel.is_generated]
