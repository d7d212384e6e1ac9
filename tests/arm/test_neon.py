"""The NEON kernels under QEMU: the bytes of the interpreter for any shape, nothing beyond the tensors touched, portable C."""

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from math import prod
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from float_layers import CHANNELS, every_layer, moving_layers, run_guarded, softmax_layers, table_layers
from float_layers import Net as FloatNet
from planned_steps import every_count, random_layers

from qcc.backends import parallel
from qcc.backends.arm import lanes, neon
from qcc.backends.c.build import library_sources
from qcc.backends.program import build_program as make_program
from qcc.backends.target import Target
from qcc.driver import compile_graph
from qcc.ir.fixedpoint import quantize

pytestmark = [pytest.mark.compiler, pytest.mark.qemu]

OURS = ("_neon", "_dotprod", "_i8mm")


def used(program: Any) -> list[str]:
    return [o.kernel.symbol for o in program.operations]


# ---------------------------------------------------------------- bytes
def test_every_number_of_channels(net: Any, layer: Any, passes: Any, target: Target) -> None:
    layers = every_count(layer)
    graph = net(layers, 1)
    program = passes(graph, target, graph.samples(4))
    assert all(symbol.endswith(OURS) for symbol in used(program))


@pytest.mark.parametrize("seed", [11, pytest.param(12, marks=pytest.mark.slow)])
def test_random_convolutions(seed: int, net: Any, layer: Any, passes: Any, target: Target) -> None:
    graph = net(random_layers(layer, np.random.default_rng(seed), 40), seed)
    assert np.mean([symbol.endswith(OURS) for symbol in used(passes(graph, target, graph.samples(4)))]) > 0.9


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_other_kernels(seed: int, passes: Any, target: Target) -> None:
    graph = every_layer(seed, 32)
    program = passes(graph, target, graph.plan())
    kernels = {k.symbol for k in target.kernels if k.symbol.endswith(OURS)}
    others = ("pool2d", "s8_interleave", "s8_add", "_mul", "depthwise")
    assert {s for s in kernels if any(name in s for name in others)} <= set(used(program))


def test_movement_tables_and_softmax(passes: Any, target: Target) -> None:
    graph = FloatNet(1)
    for layers in (moving_layers, softmax_layers, table_layers):
        layers(graph)
    symbols = used(passes(graph, target, graph.plan()))
    kernels = {k.symbol for k in target.kernels if k.symbol.endswith(OURS)}
    others = {"concat", "copy", "gather", "table", "softmax_pair", "dense_accumulator", "sum_accumulator"}
    assert {s for s in kernels if any(name in s for name in others)} <= set(symbols)


def test_the_softmax_of_all_pairs(passes: Any, target: Target) -> None:
    graph = FloatNet(3)
    graph.emit("softmax", graph.input(1, 256 * 256, 2), output="softmax", axis=2)
    ((name, x),) = graph.plan().items()
    values = np.arange(-128, 128, dtype=np.int8)
    x[2] = np.stack(np.meshgrid(values, values), axis=-1).reshape(-1, 2)
    assert used(passes(graph, target, {name: x[2:3]})) == ["qcc_s8_softmax_pair_neon"]


def test_threads_share_every_step(passes: Any, target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    """However small it is."""
    for name in ("BARRIER_CYCLES", "RUN_CYCLES", "RUN_SHARE"):
        monkeypatch.setattr(parallel, name, -1e12)
    graph = every_layer(3, 8)
    moving_layers(graph)
    softmax_layers(graph)
    program = passes(graph, target, graph.plan(), threads=3)
    shared = {o.kernel.symbol for o in program.operations if len(o.parts) > 1}
    for name in ("conv2d", "pool2d", "_add", "_mul", "_copy", "concat", "softmax_pair", "accumulator"):
        assert any(name in symbol and symbol.endswith(OURS) for symbol in shared), name


@pytest.mark.parametrize("strides", [(1, 1), (2, 2), (1, 2)])
def test_depthwise_of_every_number_of_channels(strides: tuple[int, int], passes: Any, target: Target) -> None:
    graph = FloatNet(1)
    for index, count in enumerate(CHANNELS):
        size = (4 + index % 3, 2 + index % 8)
        graph.depthwise(size, count, (3, 3), strides=strides, pads=(1, index % 2, 1, 1))
    program = passes(graph, target, graph.plan())
    assert np.mean(["depthwise" in symbol and symbol.endswith(OURS) for symbol in used(program)]) > 0.9


def test_a_filter_as_large_as_the_image_is_a_dense_layer(
    net: Any, layer: Any, passes: Any, target: Target
) -> None:
    layers = [
        layer(c, o, (2, 3), size=(2, 3), residual="add") for c, o in ((5, 70), (16, 9), (3, 121), (1, 4))
    ]
    graph = net(layers, 5)
    assert all("dense" in symbol for symbol in used(passes(graph, target, graph.samples(4))))


def test_pairs_of_products_of_the_largest_weights(net: Any, layer: Any, passes: Any, target: Target) -> None:
    """-127 * -128 twice is all that 16 bits hold; a weight of -128 would be too much."""
    graph = net([layer(64, 16, size=(1, 3))], 7)
    (node,) = (n for n in graph.graph.nodes if n.op.name == "conv2d")
    node.input(1).data[0] = -127
    assert used(passes(graph, target, graph.samples(4)))[0].endswith(OURS)
    node.input(1).data[0, 0, 0, 0] = -128
    (symbol,) = used(make_program(graph.graph, target, "layers"))
    assert symbol.endswith(OURS) == ("dotprod" in target.features)


# ---------------------------------------------------------------- requantization, packing
def test_multipliers_compute_the_definition() -> None:
    """sqshl, sqdmulh and raddhn as NEON defines them, on accumulators that reach all 32 bits."""
    rng = np.random.default_rng(1)
    multiplier = rng.integers(2**30, 2**31, 4000)
    multiplier[:50] = 2**31 - 1 - np.arange(50)
    multiplier[50:100] = 2**30 + np.arange(50)
    shift = rng.integers(20, 48, 4000)
    m, k = lanes.fixed_point(multiplier, shift)
    assert (k >= 0).mean() > 0.95
    m, k, multiplier, shift = (a[k >= 0] for a in (m, k, multiplier, shift))
    largest = 2**31 - 1
    for zero_point in (-128, 0, 127):
        for acc in (
            np.full(m.size, -(2**31)),
            np.full(m.size, largest),
            rng.integers(-(2**31), 2**31, m.size),
            rng.integers(-300, 300, m.size) * 2 ** np.clip(shift - 31, 0, 20),
        ):
            a = np.clip(acc << k, -(2**31), largest)
            b = (a * m) >> 31
            c = (b + (zero_point << 16) + 2**15) >> 16
            assert np.abs(b + (zero_point << 16) + 2**15).max() < 2**31
            got = np.clip(c, -128, 127)
            exact = [
                min(127, max(-128, ((int(x) * int(n) + (1 << (int(s) - 1))) >> int(s)) + zero_point))
                for x, n, s in zip(acc, multiplier, shift, strict=True)
            ]
            np.testing.assert_array_equal(got, exact)


@pytest.mark.parametrize("group", [4, 8])
@pytest.mark.parametrize("run", [1, 3, 4, 9, 15, 16, 17, 20, 31, 47, 64, 106])
def test_groups_hold_every_tap_once(run: int, group: int) -> None:
    taps = neon.taps_of(run, group)
    assert sorted(taps[taps >= 0]) == list(range(run))
    assert len(taps) == -(-run // group)


@pytest.mark.parametrize("isa", [neon.NEON, neon.DOTPROD])
def test_packed_weights_hold_every_weight_once(isa: neon.Isa) -> None:
    for shape in ((1, 1, 1), (24, 3, 5), (30, 2, 9), (50, 1, 19)):
        weights = np.arange(prod(shape), dtype=np.int64).reshape(shape) % 127 + 1
        packed = neon.pack_weights(weights, isa, neon.BLOCKS)
        assert packed.size == -(-shape[0] // 4) * 4 * shape[1] * -(-shape[2] // 4) * 4
        assert np.array_equal(np.sort(packed[packed != 0]), np.sort(weights.reshape(-1)))


# ---------------------------------------------------------------- memory, languages
def test_nothing_beyond_the_tensors_is_touched(
    net: Any, layer: Any, emitted: Any, target: Target, tmp_path: Path
) -> None:
    """The pages around the input and the output fault."""
    nets: list[Any] = []
    for index, kind in enumerate(
        (
            {"channels": 3, "outputs": 17, "residual": "add"},
            {"channels": 21, "outputs": 18, "residual": "add"},
            {"channels": 5, "outputs": 30, "kernel": (3, 3), "pads": (1, 1, 1, 1), "strides": (2, 2)},
            {"channels": 9, "outputs": 5, "kernel": (3, 3)},
            {"channels": 33, "outputs": 107, "size": None, "residual": "add"},
            {"channels": 7, "outputs": 45, "size": None},
            {"channels": 17, "outputs": 24, "size": None, "rows": 7},
        )
    ):
        nets.append(net([layer(**kind)], index))
    for channels, size, stride, pad in (
        (17, (5, 6), 1, 1),
        (9, (4, 6), 1, 0),
        (70, (5, 5), 2, 0),
        (3, (6, 7), 2, 1),
    ):
        nets.append(FloatNet(channels))
        nets[-1].depthwise(size, channels, (3, 3), strides=(stride, stride), pads=(pad,) * 4)
    for op in ("avg_pool2d", "max_pool2d"):
        nets.append(FloatNet(3))
        nets[-1].emit(op, nets[-1].input(1, 5, 5, 21), output=op, kernel=(3, 3), pads=(1, 1, 0, 1))
    nets.append(FloatNet(3))
    nets[-1].emit("transpose", nets[-1].input(1, 3, 5, 7), output="t", perm=(0, 2, 3, 1))
    a, b = FloatNet(4), FloatNet(5)
    a.emit("add", a.input(1, 5, 7), a.input(1, 5, 7), output="add")
    b.emit("mul", b.input(1, 5, 9), b.input(1, 1, 9), output="mul")
    nets += [a, b]
    for run in (3, 5, 17, 70):
        for op, shapes, attributes in (
            ("concat", [(1, 3, run), (1, 3, 5)], {"axis": 2}),
            ("slice", [(1, 4, run)], {"axes": (2,), "starts": (1,), "ends": (run,), "steps": (1,)}),
            ("pad", [(1, 4, run)], {"begins": (0, 1, 2), "ends": (0, 0, 3)}),
            ("softmax", [(1, run, 2)], {"axis": 2}),
            *([("sigmoid", [(1, run)], {})] if target.name != "armv7-neon" else []),
        ):
            nets.append(FloatNet(run))
            nets[-1].emit(op, *(nets[-1].input(*shape) for shape in shapes), output=op, **attributes)
    run_guarded(nets, target, emitted, tmp_path, OURS)


@pytest.mark.parametrize("compiler", ["gcc", "clang", pytest.param("zig", marks=pytest.mark.slow), "g++"])
def test_library_compiles_without_a_warning(
    compiler: str,
    net: Any,
    layer: Any,
    emitted: Any,
    passes: Any,
    target: Target,
    strict: Callable[..., Target],
) -> None:
    """zig, which is clang, also runs; C++ and clang are only parsed."""
    others = every_layer(6, 16)
    samples = others.plan()
    if compiler in ("gcc", "zig"):
        found = [c for c in target.compilers if ("ziglang" in c.argv) == (compiler == "zig")]
        if compiler == "zig":
            pytest.importorskip("ziglang", reason="the zig compiler is not installed")
        passes(others, strict(replace(target, compilers=tuple(found))), samples)
        return
    system = target.compilers[0].argv[0].removesuffix("-gcc")
    argv = {"clang": ["clang", f"--target={system}"], "g++": [f"{system}-g++", "-xc++"]}[compiler]
    if shutil.which(argv[0]) is None:
        pytest.skip(f"compiler {argv[0]} is not installed")
    standard = {"clang": "-std=c99", "g++": "-std=c++17"}[compiler]
    for graph in (net(random_layers(layer, np.random.default_rng(31), 12), 31), others):
        graph.graph.name = f"layers{len(graph.graph.nodes)}"
        folder, _ = emitted(graph, target)
        options = target.compilers[0].argv[1:]
        command = [*argv, *options, standard, *strict(target).flags, "-fsyntax-only"]
        subprocess.run([*command, *map(str, library_sources(folder))], check=True, timeout=300)


# ---------------------------------------------------------------- models
@pytest.mark.parametrize(
    "name",
    [
        *("kws", "ad"),
        *(
            pytest.param(n, marks=pytest.mark.slow)
            for n in ("ic", "vww", "resnet20", "squeezenet", "mobilenetv2", "ultraface_rfb320")
        ),
    ],
)
def test_zoo_model_equals_the_interpreter(name: str, zoo: ModuleType, passes: Any, target: Target) -> None:
    entry = zoo.load(name)
    graph = compile_graph(entry.model, calibration=entry.calib[:8]).graph
    graph.name = name
    (x,) = make_program(graph, target, name).graph.inputs
    assert x.type.qparams is not None
    passes(SimpleNamespace(graph=graph), target, {x.name: quantize(entry.x[:2], x.type.qparams)})
