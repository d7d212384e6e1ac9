"""The AVX512-VNNI convolution with pixels in the lanes: the bytes of the interpreter for any shape, memory clean."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from one_kernel import check_bytes, check_sanitizers, check_threads, first

from qcc.backends.program import build_program as make_program
from qcc.backends.target import Target
from qcc.backends.x86.few_channels import SYMBOL

pytestmark = pytest.mark.compiler


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


def test_shapes(
    net: Any, layer: Any, emitted: Callable[..., Any], vnni: Target, strict: Callable[..., Target]
) -> None:
    check_bytes(net(shapes(layer), 1), strict(first(vnni, SYMBOL)), emitted, SYMBOL)


def test_threads(net: Any, layer: Any, vnni: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows, and blocks of channels, shared however small they are."""
    layers = [
        layer(8, 40, (3, 3), size=(1, 20), pads=(1, 1, 1, 1)),
        layer(16, 16, (3, 3), size=(29, 32), pads=(1, 1, 1, 1), residual="add"),
        layer(5, 9, (1, 1), size=(30, 7)),
    ]
    target, shared = first(vnni, SYMBOL), ["channels", "rows", "rows"]
    check_threads(net(layers, 4), target, SYMBOL, shared, tmp_path, monkeypatch)


def test_library_runs_clean_under_sanitizers(
    net: Any, layer: Any, emitted: Callable[..., Any], vnni: Target
) -> None:
    kinds = [
        layer(3, 17, (3, 3), size=(9, 19), pads=(1, 1, 1, 1), residual="add"),
        layer(16, 16, (3, 2), size=(11, 33)),
    ]
    check_sanitizers(net, kinds, first(vnni, SYMBOL), emitted)


def test_what_it_refuses(net: Any, layer: Any, vnni: Target) -> None:
    layers = [
        layer(4, 4, (3, 3), dilations=(2, 1), size=(6, 6)),
        layer(4, 4, (3, 3), strides=(1, 2)),
        layer(8, 4, (1, 1), groups=2),
        layer(4, 4, (1, 1), pads=(0, 16, 0, 0)),
    ]
    program = make_program(net(layers, 1).graph, first(vnni, SYMBOL), "layers")
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
