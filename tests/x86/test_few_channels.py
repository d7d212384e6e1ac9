"""The AVX512-VNNI convolution with pixels in the lanes: the bytes of the interpreter for any shape, memory clean."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qcc.backends import parallel
from qcc.backends.c.build import build_program, run_program
from qcc.backends.c.emit import emit
from qcc.backends.c.run import load
from qcc.backends.program import build_program as make_program
from qcc.backends.target import Compiler, Target
from qcc.backends.x86.few_channels import SYMBOL
from qcc.ir import interpreter

pytestmark = pytest.mark.compiler


def first(target: Target) -> Target:
    """The target with these rows before all others, whatever they cost."""
    rows = [replace(k, priority=100) if k.symbol == SYMBOL else k for k in target.kernels]
    return replace(target, kernels=tuple(rows))


def shapes(layer: Any) -> list[Any]:
    """Widths around the registers, rows around those of the workspace, channels around quads, halves and blocks."""
    found = [
        layer(
            (1, 2, 3, 4, 5, 8, 15, 16, 17, 32, 33, 36)[n % 12],
            (16, 1, 4, 5, 8, 9, 15, 17, 24, 25, 32, 40, 48)[n % 13],
            ((3, 3), (1, 1), (2, 3), (3, 2), (5, 4))[n % 5],
            size=((9, 8, 1, 7, 17, 2, 10)[n % 7] + 4, (16, 1, 15, 17, 32, 31, 33, 5)[n % 8] + 3),
            strides=(1 + n % 3 // 2, 1),
            pads=((1, 1, 1, 1), (0, 0, 0, 0), (2, 3, 0, 1), (0, 1, 2, 0))[n % 4],
            residual=("", "add", "", "sub")[n // 2 % 4],
            clamp=((-128, 127), (-128, 127), (-20, 90))[n % 3],
        )
        for n in range(48)
    ]
    return [*found, layer(16, 16, (3, 3), size=(5, 32), pads=(9, 15, 9, 15), residual="add")]


def check(graph: Any, target: Target, emitted: Callable[..., Any]) -> None:
    """All outputs equal the interpreter's, by the kernel under test where the plan has a certificate."""
    samples = graph.samples(5)
    folder, program = emitted(graph, target)
    symbols = [operation.kernel.symbol for operation in program.operations]
    assert symbols.count(SYMBOL) >= len(symbols) * 2 // 3
    got = load(folder, target).run(samples)
    for name, y in interpreter.run(program.graph, samples).items():
        np.testing.assert_array_equal(got[name], y, err_msg=name)


def test_shapes(
    net: Any, layer: Any, emitted: Callable[..., Any], vnni: Target, strict: Callable[..., Target]
) -> None:
    check(net(shapes(layer), 1), strict(first(vnni)), emitted)


def test_threads(net: Any, layer: Any, vnni: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows, and blocks of channels, shared however small they are."""
    for name in ("BARRIER_CYCLES", "RUN_CYCLES", "RUN_SHARE"):
        monkeypatch.setattr(parallel, name, -1e12)
    layers = [
        layer(8, 40, (3, 3), size=(1, 20), pads=(1, 1, 1, 1)),
        layer(16, 16, (3, 3), size=(29, 32), pads=(1, 1, 1, 1), residual="add"),
        layer(5, 9, (1, 1), size=(30, 7)),
    ]
    graph = net(layers, 4)
    samples = graph.samples(3)
    program = make_program(graph.graph, first(vnni), "net", threads=3)
    assert [op.kernel.symbol for op in program.operations] == [SYMBOL] * 3
    assert [op.parts[0].extent[0] for op in program.operations] == ["channels", "rows", "rows"]
    got = load(emit(program, tmp_path / "net"), first(vnni)).run(samples)
    for name, y in interpreter.run(program.graph, samples).items():
        np.testing.assert_array_equal(got[name], y, err_msg=name)


def test_library_runs_clean_under_sanitizers(
    net: Any, layer: Any, emitted: Callable[..., Any], vnni: Target
) -> None:
    flags = [flag for flag in vnni.flags if flag != "-O3"]
    flags += ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    target = replace(first(vnni), compilers=(Compiler(("gcc",), ""),), flags=tuple(flags))
    kinds = [
        layer(3, 17, (3, 3), size=(9, 19), pads=(1, 1, 1, 1), residual="add"),
        layer(16, 16, (3, 2), size=(11, 33)),
    ]
    for index, kind in enumerate(kinds):  # a library each: nothing but red zones around its tensors
        graph = net([kind], index, f"net{index}")
        folder, _ = emitted(graph, target, graph.samples(3))
        program = build_program(folder, target, [folder / "test_main.c"])
        assert run_program(program, target) == f"net{index}: 3 of 3 test vectors passed\n"


def test_what_it_refuses(net: Any, layer: Any, vnni: Target) -> None:
    layers = [
        layer(4, 4, (3, 3), dilations=(2, 1), size=(6, 6)),
        layer(4, 4, (3, 3), strides=(1, 2)),
        layer(8, 4, (1, 1), groups=2),
        layer(4, 4, (1, 1), pads=(0, 16, 0, 0)),
    ]
    program = make_program(net(layers, 1).graph, first(vnni), "layers")
    assert all(operation.kernel.symbol != SYMBOL for operation in program.operations)
    reasons = {r.reason for op in program.operations for r in op.refused if r.kernel.symbol == SYMBOL}
    assert reasons == {"groups, dilation, or a stride between columns", "16 columns or more are padded"}


def test_cost_decides(net: Any, layer: Any, vnni: Target) -> None:
    """It wins for 16 channels of a 3x3 kernel, and leaves 64 to those with channels in the lanes."""
    layers = [
        layer(16, outputs, (3, 3), size=(32, 32), pads=(1, 1, 1, 1), residual=residual)
        for outputs in (16, 64)
        for residual in ("", "add")
    ]
    program = make_program(net(layers, 1).graph, vnni, "layers")
    assert [op.kernel.symbol == SYMBOL for op in program.operations] == [True, True, False, False]
