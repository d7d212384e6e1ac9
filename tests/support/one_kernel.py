"""Checks of the rows of one kernel, with which the tests of x86 convolutions choose the target's others away."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qcc.backends import parallel
from qcc.backends.c.build import build_program, run_program
from qcc.backends.c.emit import emit
from qcc.backends.c.run import load
from qcc.backends.program import Program
from qcc.backends.program import build_program as make_program
from qcc.backends.target import Compiler, Target
from qcc.ir import interpreter

Array = np.ndarray[Any, Any]


def first(target: Target, symbol: str) -> Target:
    """The target with the rows of a kernel before all others, whatever they cost."""
    rows = [replace(k, priority=100) if k.symbol == symbol else k for k in target.kernels]
    return replace(target, kernels=tuple(rows))


def assert_bytes(program: Program, folder: Path, target: Target, samples: Mapping[str, Array]) -> None:
    """All outputs of the library in ``folder`` equal the interpreter's."""
    got = load(folder, target).run(samples)
    for name, y in interpreter.run(program.graph, samples).items():
        np.testing.assert_array_equal(got[name], y, err_msg=name)


def check_bytes(graph: Any, target: Target, emitted: Callable[..., Any], symbol: str) -> None:
    """The interpreter's bytes, by the kernel under test where the plan has a certificate."""
    samples = graph.samples(5)
    folder, program = emitted(graph, target)
    symbols = [operation.kernel.symbol for operation in program.operations]
    assert symbols.count(symbol) >= len(symbols) * 2 // 3
    assert_bytes(program, folder, target, samples)


def check_threads(
    graph: Any, target: Target, symbol: str, shared: Sequence[str], folder: Path, patch: pytest.MonkeyPatch
) -> None:
    """Every step is shared along the axis in ``shared``, however small it is, and the bytes stay."""
    for name in ("BARRIER_CYCLES", "RUN_CYCLES", "RUN_SHARE"):
        patch.setattr(parallel, name, -1e12)
    samples = graph.samples(3)
    program = make_program(graph.graph, target, "net", threads=3)
    assert [op.kernel.symbol for op in program.operations] == [symbol] * len(shared)
    assert [op.parts[0].extent[0] for op in program.operations] == list(shared)
    assert_bytes(program, emit(program, folder / "net"), target, samples)


def check_sanitizers(net: Any, layers: Sequence[Any], target: Target, emitted: Callable[..., Any]) -> None:
    """A library for each layer: nothing but red zones around its tensors."""
    for index, layer in enumerate(layers):
        graph = net([layer], index, f"net{index}")
        run_sanitized(graph, target, emitted, graph.samples(3))


def run_sanitized(
    net: Any, target: Target, emitted: Callable[..., Any], samples: Mapping[str, Array]
) -> None:
    """The library passes its test vectors under the sanitizers of addresses and of undefined behaviour."""
    kept = tuple(flag for flag in target.flags if flag != "-O3")
    flags = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    target = replace(target, compilers=(Compiler(("gcc",), "install gcc"),), flags=(*kept, *flags))
    folder, program = emitted(net, target, samples)
    count = len(next(iter(samples.values())))
    text = run_program(build_program(folder, target, [folder / "test_main.c"]), target)
    assert text == f"{program.name}: {count} of {count} test vectors passed\n"
