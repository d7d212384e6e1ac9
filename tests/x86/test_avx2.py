"""The AVX2 and AVX-VNNI kernels: the bytes of the interpreter for any shape, memory clean, portable C, no saturation."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from math import prod
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from test_conv_avx512vnni import command, every_count, random_layers, sanitized
from test_kernels import Net as FloatNet
from test_kernels import every_layer

from qcc.backends.c.build import build_program, library_sources, run_program
from qcc.backends.c.emit import emit
from qcc.backends.c.run import load
from qcc.backends.program import Program
from qcc.backends.program import build_program as make_program
from qcc.backends.target import Compiler, Target, find_target
from qcc.backends.x86 import avx2
from qcc.backends.x86.features import lacking_features
from qcc.driver import compile_graph
from qcc.ir import interpreter
from qcc.ir.fixedpoint import quantize

pytestmark = pytest.mark.compiler

Emitted = Callable[..., tuple[Path, Program]]
NAMES = ("x86-avx2", "x86-avxvnni")
KERNELS = {"x86-avx2": ("conv2d_avx2", "dense_avx2"), "x86-avxvnni": ("conv2d_avxvnni", "dense_avxvnni")}


@pytest.fixture(params=NAMES)
def target(request: pytest.FixtureRequest) -> Target:
    """Each target; skips where its code cannot run."""
    found = find_target(request.param)
    lacking = lacking_features(found.features)
    if lacking:
        pytest.skip(f"this processor lacks {', '.join(lacking)}")
    return found


def compiled_by(target: Target, compiler: str) -> Target:
    return replace(target, compilers=(Compiler(command(compiler), ""),))


def check(net: Any, samples: Any, target: Target, emitted: Emitted, titles: list[Any]) -> Program:
    """All outputs equal the interpreter's, and all certified steps ran on kernels of the target."""
    folder, program = emitted(net, target)
    expected, got = interpreter.run(program.graph, samples), load(folder, target).run(samples)
    wrong = [titles[int(name[1:])] for name, y in expected.items() if not np.array_equal(got[name], y)]
    assert wrong == []
    spread = np.concatenate([y.reshape(-1) for y in expected.values()])
    assert np.unique(spread).size > 200, "the test data must not saturate"
    return program


# ---------------------------------------------------------------- bytes
@pytest.mark.parametrize("compiler", ["gcc", pytest.param("zig", marks=pytest.mark.slow)])
def test_every_number_of_channels(
    compiler: str, net: Any, layer: Any, emitted: Emitted, target: Target, strict: Callable[..., Target]
) -> None:
    layers = every_count(layer)
    graph = net(layers, 1)
    program = check(graph, graph.samples(5), strict(compiled_by(target, compiler)), emitted, layers)
    used = [o.kernel.symbol.endswith(KERNELS[target.name]) for o in program.operations]
    assert np.mean(used) > 0.75, "the rest has no certificate"


@pytest.mark.parametrize("seed", [11, pytest.param(12, marks=pytest.mark.slow)])
def test_random_convolutions(seed: int, net: Any, layer: Any, emitted: Emitted, target: Target) -> None:
    layers = random_layers(layer, np.random.default_rng(seed), 60)
    graph = net(layers, seed)
    check(graph, graph.samples(5), target, emitted, layers)


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_other_kernels(seed: int, emitted: Emitted, target: Target) -> None:
    graph = every_layer(seed, 32)
    samples = graph.plan()
    program = check(graph, samples, target, emitted, graph.names)
    used = {o.kernel.symbol for o in program.operations}
    products = {
        k.symbol for k in target.kernels if "_s8_" in k.symbol and k.symbol.endswith(KERNELS[target.name])
    }
    depthwise = {s for s in products if "depthwise" in s}
    assert {
        k.symbol for k in target.kernels if "_s8_" in k.symbol and "avx" in k.symbol
    } - products | depthwise <= used


def test_bands_of_large_images(net: Any, layer: Any, emitted: Emitted, target: Target) -> None:
    """More rows than one copy of the image holds."""
    layers = [
        layer(20, 18, (3, 3), size=(41, 40), pads=(1, 1, 1, 1)),
        layer(33, 9, (3, 3), size=(43, 50), pads=(0, 1, 2, 1), strides=(2, 2)),
        layer(40, 16, (5, 2), size=(37, 38), pads=(2, 0, 2, 1), dilations=(2, 1), residual="add"),
        layer(64, 24, size=None, rows=700),
    ]
    graph = net(layers, 3)
    program = check(graph, graph.samples(3), target, emitted, layers)
    for operation in program.operations:
        height, band = (operation.call.params[name] for name in ("output_height", "band"))
        assert isinstance(height, int)
        assert isinstance(band, int)
        assert band < height


def test_a_filter_as_large_as_the_image_is_a_dense_layer(
    net: Any, layer: Any, emitted: Emitted, target: Target
) -> None:
    layers = [layer(c, o, (2, 3), size=(2, 3), residual="add") for c, o in ((5, 70), (16, 9), (3, 121))]
    graph = net(layers, 5)
    program = check(graph, graph.samples(5), target, emitted, layers)
    symbol = f"qcc_s8_{KERNELS[target.name][1]}"
    assert [o.kernel.symbol for o in program.operations] == [symbol] * 3


def test_pairs_of_products_that_leave_16_bits(net: Any, layer: Any, emitted: Emitted, target: Target) -> None:
    """vpmaddubsw would saturate here: it adds two products of u8 and s8 in 16 bits."""
    graph = net([layer(64, 16, size=(1, 2))], 7)
    (node,) = (n for n in graph.graph.nodes if n.op.name == "conv2d")
    weights = node.input(1).data
    pairs = weights.reshape(16, -1, 2).astype(np.int64)
    x = graph.samples(5)
    u8 = {name: (a.astype(np.int64) + 128).reshape(5, 2, -1, 2) for name, a in x.items()}["y0_x"]
    products = (u8[:, :, None] * pairs).sum(axis=-1)
    assert (np.abs(products) > 2**15 - 1).mean() > 0.02
    assert np.any(products.sum(axis=-1) != np.clip(products, -(2**15), 2**15 - 1).sum(axis=-1))
    folder, program = emitted(graph, target)
    assert program.operations[0].kernel.symbol.endswith(KERNELS[target.name])
    got, expected = load(folder, target).run(x), interpreter.run(program.graph, x)
    np.testing.assert_array_equal(got["y0"], expected["y0"])


# ---------------------------------------------------------------- packing
def test_order_of_vectors() -> None:
    x = np.arange(24)
    assert avx2.in_vectors(x).tolist() == [
        *(0, 1, 2, 3, 8, 9, 10, 11, 4, 5, 6, 7, 12, 13, 14, 15),
        *range(16, 24),
    ]
    assert avx2.in_vectors(x[:9]).tolist() == [0, 1, 2, 3, 8, 0, 0, 0, 4, 5, 6, 7, 0, 0, 0, 0]
    assert avx2.in_vectors(x[:3], 16).tolist() == [0, 1, 2, *[0] * 13]


@pytest.mark.parametrize(("group", "largest"), [(2, 2), (4, 2), (2, 8), (4, 8)])
def test_packed_weights_hold_every_weight_once(group: int, largest: int) -> None:
    for shape in ((1, 1, 1), (24, 3, 5), (130, 2, 9), (104, 1, 7)):
        weights = np.arange(1, prod(shape) + 1, dtype=np.int64).reshape(shape)
        packed = avx2.pack_weights(weights, group, largest)
        assert packed.size == -(-shape[0] // 8) * 8 * shape[1] * -(-shape[2] // group) * group
        assert np.array_equal(np.sort(packed[packed != 0]), weights.reshape(-1))


# ---------------------------------------------------------------- memory, languages
def test_libraries_run_clean_under_sanitizers(net: Any, layer: Any, emitted: Emitted, target: Target) -> None:
    clean = sanitized(target)
    convolutions = net(random_layers(layer, np.random.default_rng(21), 16), 21, "convolutions")
    others = every_layer(4, 8)
    for graph, samples in ((convolutions, convolutions.samples(3)), (others, others.plan())):
        folder, program = emitted(graph, clean, samples)
        count = len(next(iter(samples.values())))
        text = run_program(build_program(folder, clean, [folder / "test_main.c"]), clean)
        assert text == f"{program.name}: {count} of {count} test vectors passed\n"


@pytest.mark.parametrize(
    "kind",
    [
        {"channels": 3, "outputs": 17, "residual": "add"},
        {"channels": 5, "outputs": 70, "kernel": (3, 3), "pads": (1, 1, 1, 1), "strides": (2, 2)},
        {"channels": 9, "outputs": 5, "kernel": (3, 3), "pads": (0, 0, 0, 0)},
        {"channels": 33, "outputs": 107, "size": None, "residual": "add"},
        {"channels": 17, "outputs": 24, "size": None, "rows": 7},
    ],
)
def test_reads_and_writes_end_with_the_tensors(
    kind: dict[str, Any], net: Any, layer: Any, emitted: Emitted, target: Target
) -> None:
    """Nothing but red zones lies behind the input and the output of a library of one layer."""
    clean = sanitized(target)
    graph = net([layer(**kind)], 1)
    folder, program = emitted(graph, clean, graph.samples(3))
    assert target.name.removeprefix("x86-") in program.operations[0].kernel.symbol
    text = run_program(build_program(folder, clean, [folder / "test_main.c"]), clean)
    assert text == "layers: 3 of 3 test vectors passed\n"


def test_other_reads_and_writes_end_with_the_tensors(emitted: Emitted, target: Target) -> None:
    clean = sanitized(target)
    for op in ("depthwise", "avg_pool2d", "max_pool2d", "transpose", "add"):
        graph = FloatNet(3)
        if op == "depthwise":
            graph.depthwise((5, 6), 21, (3, 3), pads=(1, 1, 1, 1))
        elif op == "transpose":
            graph.emit(op, graph.input(1, 3, 5, 13), output=op, perm=(0, 2, 3, 1))
        elif op == "add":
            graph.emit(op, graph.input(1, 5, 21), graph.input(1, 5, 21), output=op)
        else:
            graph.emit(op, graph.input(1, 5, 5, 21), output=op, kernel=(3, 3), pads=(1, 1, 0, 1))
        samples = graph.plan()
        graph.graph.name = op
        folder, program = emitted(graph, clean, samples)
        assert ["avx" in o.kernel.symbol for o in program.operations] == [True]
        text = run_program(build_program(folder, clean, [folder / "test_main.c"]), clean)
        assert text == f"{program.name}: 5 of 5 test vectors passed\n"


def test_library_compiles_as_cpp(
    net: Any, layer: Any, emitted: Emitted, target: Target, strict: Callable[..., Target]
) -> None:
    others = every_layer(7, 8)
    others.plan()
    others.graph.name = "others"
    for graph in (net(random_layers(layer, np.random.default_rng(31), 12), 31), others):
        folder, _ = emitted(graph, target)
        argv = ["g++", "-xc++", "-std=c++17", *strict(target).flags, "-O1", "-fsyntax-only"]
        subprocess.run([*argv, *map(str, library_sources(folder))], check=True, timeout=300)


@pytest.mark.parametrize("compiler", ["gcc", pytest.param("zig", marks=pytest.mark.slow)])
def test_library_compiles_without_a_warning(
    compiler: str, emitted: Emitted, target: Target, strict: Callable[..., Target]
) -> None:
    graph = every_layer(6, 16)
    samples = graph.plan()
    check(graph, samples, strict(compiled_by(target, compiler)), emitted, graph.names)


def test_emitted_c_refuses_to_compile_without_the_instructions(
    net: Any, layer: Any, emitted: Emitted, target: Target
) -> None:
    folder, _ = emitted(net([layer(4, 4)], 1), target)
    source = next(s for s in library_sources(folder) if "conv2d" in s.name)
    done = subprocess.run(
        [*command("gcc"), "-std=c99", "-fsyntax-only", str(source)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode != 0
    wanted = {"x86-avx2": "AVX2", "x86-avxvnni": "AVX-VNNI"}[target.name]
    assert f"this library needs a processor with {wanted}" in done.stderr


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
def test_zoo_model_equals_the_interpreter(name: str, zoo: ModuleType, target: Target, tmp_path: Path) -> None:
    entry = zoo.load(name)
    graph = compile_graph(entry.model, calibration=entry.calib[:8]).graph
    program = make_program(graph, target, name)
    (x,) = program.graph.inputs
    assert x.type.qparams is not None
    samples = quantize(entry.x[:4], x.type.qparams)
    expected = interpreter.run(program.graph, {x.name: samples})
    got = load(emit(program, tmp_path / name), target).run({x.name: samples})
    for output, y in expected.items():
        np.testing.assert_array_equal(got[output], y)
