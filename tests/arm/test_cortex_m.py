"""The Cortex-M kernels under QEMU: the bytes of the interpreter for any shape, in place, in little memory."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from float_layers import every_layer
from planned_steps import Layer, Net

from qcc.backends.arm.cortex_m import SHORT
from qcc.backends.c.emit import emit
from qcc.backends.c.run import load
from qcc.backends.program import Program, build_program
from qcc.backends.scalar.lowering import requantize_constants
from qcc.backends.target import Target, find_target
from qcc.backends.targets import availability
from qcc.driver import compile_graph
from qcc.ir import interpreter
from qcc.ir.builder import Builder
from qcc.ir.fixedpoint import quantize
from qcc.ir.graph import Graph
from qcc.ir.ops.conv import Conv2d
from qcc.ir.ops.pool import AvgPool2d
from qcc.ir.ops.quant import Requantize
from qcc.ir.qparams import QParams
from qcc.ir.types import DType, TensorType
from qcc.options import CompileOptions
from qcc.passes.base import PassContext
from qcc.passes.plan_accumulators import PlanAccumulators

pytestmark = [pytest.mark.compiler, pytest.mark.qemu]

STRICT = ("-Wconversion", "-pedantic", "-Werror")


def usable(name: str) -> Target:
    """Skips where programs cannot be built and run."""
    target = find_target(name)
    found = availability(target)
    if not found.runs:
        pytest.skip(f"{name}: no compiler or no emulator (QEMU): {', '.join(found.missing)}")
    gcc = target.compilers[0].argv[0].endswith("gcc")
    return replace(target, flags=(*target.flags, *(STRICT if gcc else ())))


def check(
    program: Program, samples: dict[str, Any], folder: Path, titles: Sequence[object]
) -> dict[str, np.ndarray[Any, Any]]:
    expected = interpreter.run(program.graph, samples)
    got = load(emit(program, folder / program.name), program.target).run(samples)
    wrong = [titles[i] for i, (name, y) in enumerate(expected.items()) if not np.array_equal(got[name], y)]
    assert wrong == []
    return expected


def random_layer(layer: Any, rng: np.random.Generator) -> Any:
    """A convolution, a depthwise one or a dense layer."""
    kind = rng.choice(["conv", "conv", "depthwise", "dense"])
    low = int(rng.choice([-128, rng.integers(-128, 0)]))
    clamp = (low, int(rng.choice([127, rng.integers(low, 128)])))
    residual = str(rng.choice(["", "", "add", "sub"]))
    channels = int(rng.choice([1, 2, 3, 4, 5, 8, 12, 17, 20, 36]))
    outputs = int(rng.integers(1, 11))
    if kind == "dense":
        rows = int(rng.choice([1, 1, 2, 5]))
        return layer(channels * 3, outputs, size=None, rows=rows, residual=residual, clamp=clamp)
    if kind == "depthwise":
        stride = int(rng.integers(1, 3))
        return layer(
            *(4 * channels, 4 * channels, (3, 3)),
            size=(int(rng.integers(3, 9)), int(rng.integers(3, 9))),
            strides=(stride, stride),
            pads=(1, 1, 1, 1) if rng.random() < 0.5 else tuple(int(p) for p in rng.integers(0, 3, 4)),
            clamp=clamp,
            groups=4 * channels,
        )
    kernel = (1, 1) if rng.random() < 0.4 else tuple(int(k) for k in rng.integers(1, 5, 2))
    dilations = tuple(int(d) for d in rng.choice([1, 1, 2], 2))
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    return layer(
        *(channels, outputs, kernel),
        size=tuple(r + int(rng.integers(0, 5)) for r in reach),
        strides=tuple(int(s) for s in rng.integers(1, 3, 2)),
        pads=tuple(int(p) for p in rng.integers(0, 3, 4)),
        dilations=dilations,
        residual=residual,
        clamp=clamp,
    )


@pytest.mark.parametrize(
    ("name", "seed"),
    [
        ("cortex-m4", 1),
        ("cortex-m7", 2),
        ("cortex-m55", 4),
        *(pytest.param("cortex-m55", seed, marks=pytest.mark.slow) for seed in range(6, 10)),
        pytest.param("cortex-m4", 3, marks=pytest.mark.slow),
        pytest.param("cortex-m55", 5, marks=pytest.mark.slow),
    ],
)
def test_random_layers(name: str, seed: int, tmp_path: Path) -> None:
    target = usable(name)
    rng = np.random.default_rng(seed)
    layers = [random_layer(Layer, rng) for _ in range(48)]
    net = Net(layers, seed)
    program = build_program(net.graph, target, "layers")
    expected = check(program, net.samples(4), tmp_path, layers)
    assert np.unique(np.concatenate([y.reshape(-1) for y in expected.values()])).size > 200, "saturated"
    symbols = [o.kernel.symbol for o in program.operations]
    suffix = "_mve" if name == "cortex-m55" else "_dsp"
    assert np.mean([s.endswith(suffix) for s in symbols]) > 0.9
    ours = {
        k.symbol
        for k in target.kernels
        if k.symbol.endswith(suffix) and not k.wide and "_up_" not in k.symbol
    }
    assert ours - {"qcc_s8_avg_pool2d_mve"} <= set(symbols)


@pytest.mark.parametrize(
    ("name", "seed"),
    [("cortex-m4", 21), ("cortex-m55", 22), pytest.param("cortex-m4", 23, marks=pytest.mark.slow)],
)
def test_shifts_below_33(name: str, seed: int, tmp_path: Path) -> None:
    """Channels whose accumulators are moved up beside others, with every form of every kernel."""
    target = usable(name)
    rng = np.random.default_rng(seed)
    layers = [replace(random_layer(Layer, rng), steep=True, clamp=(-128, 127)) for _ in range(48)]
    net = Net(layers, seed)
    program = build_program(net.graph, target, "layers")
    expected = check(program, net.samples(4), tmp_path, layers)
    assert np.unique(np.concatenate([y.reshape(-1) for y in expected.values()])).size > 200, "saturated"
    shifts = [requantize_constants(o.step)["shift"] for o in program.operations]
    assert set(range(25, 34)) <= {int(s) for s in np.concatenate(shifts)}
    suffix = "_mve" if name == "cortex-m55" else "_dsp"
    symbols = {o.kernel.symbol for o in program.operations}
    assert {k.symbol for k in target.kernels if k.symbol.endswith(f"_up{suffix}")} <= symbols
    refused = [s for s in symbols if s.endswith("_scalar") and "depthwise" not in s]
    assert refused == []


def test_small_windows(tmp_path: Path) -> None:
    """Means over 1 to 4 elements, times up to 2: shifts down to 30."""
    target = usable("cortex-m55")
    graph = Graph("means", "integer")
    builder, names = Builder(graph), []
    for side in (1, 2):
        for ratio in (0.3, 1.0, 1.9):
            name = f"y{side}_{len(names)}"
            x = graph.add_input(f"{name}_x", TensorType(DType.S8, (1, 5, 6, 7), QParams.per_tensor(0.05, -3)))
            acc = builder.emit(AvgPool2d(kernel=(side, side), strides=(1, 1)), x, name=f"{name}_acc")
            graph.add_output(
                builder.emit(Requantize(), acc, name=name, qparams=QParams.per_tensor(0.05 / ratio, 9)), name
            )
            names.append(name)
    PlanAccumulators().run(graph, PassContext())
    program = build_program(graph, target, "means")
    assert {o.kernel.symbol for o in program.operations} == {"qcc_s8_avg_pool2d_mve"}
    rng = np.random.default_rng(7)
    check(
        program,
        {v.name: rng.integers(-128, 128, (3, 5, 6, 7)).astype(np.int8) for v in graph.inputs},
        tmp_path,
        names,
    )


@pytest.mark.slow
def test_another_compiler(tmp_path: Path) -> None:
    """zig, which is a clang, allocates the registers of the assembly its own way."""
    pytest.importorskip("ziglang", reason="the zig compiler is not installed")
    usable("cortex-m55")
    target = find_target("cortex-m55")
    target, rng = replace(target, compilers=target.compilers[1:]), np.random.default_rng(4)
    net = Net([random_layer(Layer, rng) for _ in range(24)], 4)
    check(build_program(net.graph, target, "layers"), net.samples(4), tmp_path, net.graph.output_names)


@pytest.mark.parametrize(
    "seed", [1, pytest.param(2, marks=pytest.mark.slow), pytest.param(3, marks=pytest.mark.slow)]
)
def test_depthwise_and_pooling(seed: int, tmp_path: Path) -> None:
    """Any filter of 3x3, stride, dilation and padding; windows that touch the padding."""
    target, net = usable("cortex-m55"), every_layer(seed, 48)
    samples = net.plan()
    program = build_program(net.graph, target, "layers")
    check(program, samples, tmp_path, net.names)
    symbols = [o.kernel.symbol for o in program.operations]
    assert min(symbols.count(f"qcc_s8_{op}_mve") for op in ("depthwise_conv2d", "avg_pool2d")) > 4


def chain(channels: Sequence[int], height: int, width: int, rng: np.random.Generator) -> Graph:
    """1x1 convolutions to so many channels, with a 3x3 depthwise one behind each."""
    graph = Graph("chain", "integer")
    builder = Builder(graph)
    x = graph.add_input(
        "x", TensorType(DType.S8, (1, height, width, channels[0]), QParams.per_tensor(0.05, 3))
    )
    for index, (inputs, outputs) in enumerate(pairwise(channels)):
        for name, shape, groups, pads in (
            (f"p{index}", (outputs, 1, 1, inputs), 1, (0, 0, 0, 0)),
            (f"d{index}", (outputs, 3, 3, 1), outputs, (1, 1, 1, 1)),
        ):
            data = rng.integers(-127, 128, shape).astype(np.int8)
            w = builder.constant(data, f"{name}_w", QParams.per_channel(rng.uniform(1e-3, 4e-3, outputs), 0))
            bias = builder.constant(rng.integers(-500, 500, outputs).astype(np.int32), f"{name}_b")
            assert x.type.qparams is not None
            zero = x.type.qparams.zero_point
            op = Conv2d(pads=pads, groups=groups, x_zero_point=zero, pad_value=zero)
            acc = builder.emit(op, x, w, bias, name=f"{name}_acc")
            scale = x.type.qparams.scale[0] * 0.0025 * 74 * np.sqrt(data[0].size)
            qparams = QParams.per_tensor(float(scale), int(rng.integers(-20, 20)))
            x = builder.emit(Requantize(), acc, name=name, qparams=qparams)
    graph.add_output(x, "y")
    PlanAccumulators().run(graph, PassContext())
    return graph


@pytest.mark.parametrize("name", ["cortex-m4", "cortex-m55"])
def test_one_buffer_for_a_chain(name: str, tmp_path: Path) -> None:
    """Pointwise and depthwise convolutions write over their input; several bands of a depthwise one."""
    target = usable(name)
    graph = chain([4, 40, 40, 36, 8], 33, 21, np.random.default_rng(5))
    program = build_program(graph, target, "chain")
    samples = {"x": np.random.default_rng(6).integers(-128, 128, (2, 33, 21, 4)).astype(np.int8)}
    check(program, samples, tmp_path, ["y"])
    if name == "cortex-m55":
        assert any(o.kernel.variant == "in place" for o in program.operations)
        return
    assert program.plan.arena_bytes < 33 * 21 * (40 + 8) + 2500
    assert any(o.call.params.get("band", 0) not in (0, 33) for o in program.operations)


def test_constant_channels_with_small_scales(tmp_path: Path) -> None:
    """A shift that the kernels do not have, on a channel that is always the same."""
    target = usable("cortex-m4")
    graph = Graph("still", "integer")
    builder = Builder(graph)
    x = graph.add_input("x", TensorType(DType.S8, (1, 3, 3, SHORT), QParams.per_tensor(0.05, 0)))
    w = builder.constant(
        np.ones((4, 1, 1, SHORT), np.int8), "w", QParams.per_channel([1e-9, 1e-9, 0.01, 0.01], 0)
    )
    bias = builder.constant(np.array([2**29, -(2**29), 7, -9], np.int32), "b")
    acc = builder.emit(Conv2d(), x, w, bias, name="acc")
    y = builder.emit(Requantize(), acc, name="y", qparams=QParams.per_tensor(0.01, 5))
    graph.add_output(y, "y")
    PlanAccumulators().run(graph, PassContext())
    program = build_program(graph, target, "still")
    assert program.operations[0].kernel.symbol == "qcc_s8_conv2d_short_dsp"
    samples = {"x": np.random.default_rng(6).integers(-128, 128, (3, 3, 3, SHORT)).astype(np.int8)}
    check(program, samples, tmp_path, ["y"])


@pytest.mark.parametrize(
    ("target", "name", "arena_bytes"),
    [
        ("cortex-m4", "kws", 16_000),
        ("cortex-m4", "ad", 768),
        ("cortex-m55", "kws", 16_000),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                ("cortex-m4", "ic", 49_152),
                ("cortex-m4", "vww", 55_296),
                ("cortex-m7", "vww", 55_296),
                ("cortex-m0", "kws", 16_000),
                ("cortex-m55", "ic", 49_152),
                ("cortex-m55", "vww", 55_296),
                ("cortex-m55", "ad", 768),
            )
        ),
    ],
)
def test_zoo_model_equals_the_interpreter(
    target: str, name: str, arena_bytes: int, zoo: ModuleType, tmp_path: Path
) -> None:
    found = usable(target)
    entry = zoo.load(name)
    options = CompileOptions(target=target)
    graph = compile_graph(entry.model, calibration=entry.calib[:8], options=options).graph
    program = build_program(graph, found, name)
    (x,) = program.graph.inputs
    assert x.type.qparams is not None
    check(program, {x.name: quantize(entry.x[:2], x.type.qparams)}, tmp_path, program.outputs)
    assert program.plan.arena_bytes <= arena_bytes
