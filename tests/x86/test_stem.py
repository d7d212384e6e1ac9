"""The AVX512-VNNI convolution whose kernel rows leave one byte over: the interpreter's bytes for any shape, memory clean."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from one_kernel import check_bytes, check_sanitizers, check_threads, first

from qcc.backends.program import build_program as make_program
from qcc.backends.target import Target
from qcc.backends.x86 import stem

pytestmark = pytest.mark.compiler


def shapes(layer: Any) -> list[Any]:
    """Kernel rows of 4 * n + 1 bytes, up to 11 of them; widths around the tiles; pixels 4 to 64 bytes apart."""
    kinds = (
        (3, (3, 3), (2, 2)),
        (3, (7, 7), (2, 2)),
        (1, (5, 5), (1, 4)),
        (3, (1, 3), (1, 3)),
        (5, (4, 1), (2, 1)),
        (3, (11, 3), (3, 2)),
        (1, (2, 9), (1, 7)),
        (9, (3, 1), (1, 7)),
    )
    return [
        layer(
            channels,
            (64, 32, 128, 96, 28, 113)[n % 6],
            kernel,
            size=(kernel[0] + (0, 3, 7)[n % 3], kernel[1] + strides[1] * (0, 4, 5, 6, 11, 12, 13, 29)[n % 8]),
            strides=strides,
            pads=((0, 0, 0, 0), (1, 1, 1, 1), (0, 1, 1, 0))[n % 3],
            clamp=((-128, 127), (-20, 90))[n % 2],
        )
        for n in range(24)
        for channels, kernel, strides in (kinds[n * 5 % 8],)
    ]


def test_shapes(
    net: Any, layer: Any, emitted: Callable[..., Any], vnni: Target, strict: Callable[..., Target]
) -> None:
    check_bytes(net(shapes(layer), 1), strict(first(vnni, stem.SYMBOL)), emitted, stem.SYMBOL)


def test_threads(net: Any, layer: Any, vnni: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows, and blocks of channels, shared however small they are."""
    layers = [
        layer(3, 64, (3, 3), size=(25, 33), strides=(2, 2), pads=(1, 1, 1, 1)),
        layer(3, 192, (7, 7), size=(7, 20), strides=(2, 2)),
    ]
    target, shared = first(vnni, stem.SYMBOL), ["rows", "channels"]
    check_threads(net(layers, 4), target, stem.SYMBOL, shared, tmp_path, monkeypatch)


def test_library_runs_clean_under_sanitizers(
    net: Any, layer: Any, emitted: Callable[..., Any], vnni: Target
) -> None:
    kinds = [
        layer(3, 64, (3, 3), size=(9, 19), strides=(2, 2), pads=(1, 1, 1, 1)),
        layer(3, 28, (7, 7), size=(8, 41), strides=(1, 2)),
    ]
    check_sanitizers(net, kinds, first(vnni, stem.SYMBOL), emitted)


def test_what_it_refuses(net: Any, layer: Any, vnni: Target) -> None:
    layers = [
        layer(3, 64, (3, 3), size=(9, 9), strides=(2, 2), dilations=(1, 2)),
        layer(4, 64, (3, 3), size=(9, 9), strides=(2, 2)),
        layer(3, 64, (3, 3), size=(9, 9)),
        layer(3, 48, (3, 3), size=(9, 9), strides=(2, 2)),
    ]
    program = make_program(net(layers, 1).graph, first(vnni, stem.SYMBOL), "layers")
    assert all(operation.kernel.symbol != stem.SYMBOL for operation in program.operations)
    reasons = [
        next(r.reason for r in op.refused if r.kernel.symbol == stem.SYMBOL) for op in program.operations
    ]
    assert reasons == [
        "groups or dilation",
        "kernel rows of 12 bytes do not leave one over, or are too many",
        "output pixels see the image in steps of 3 bytes, not 4 to 64",
        "48 output channels do not fill registers of 64",
    ]


def test_cost_decides(net: Any, layer: Any, vnni: Target) -> None:
    layers = [
        layer(3, outputs, (taps, taps), size=(112, 112), strides=(2, 2), pads=(taps // 2,) * 4)
        for taps, outputs in ((3, 32), (3, 64), (7, 64), (5, 64))
    ]
    program = make_program(net(layers, 1).graph, vnni, "layers")
    found = [op.kernel.symbol == stem.SYMBOL for op in program.operations]
    assert found == [True, True, True, False]
