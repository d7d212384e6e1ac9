"""Planned graphs of random convolution and dense steps, and fixtures of them, for the tests of every instruction set."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qcc.backends.c.emit import EmitOptions, emit
from qcc.backends.program import Program, build_program
from qcc.backends.target import Target
from qcc.ir import interpreter
from qcc.ir.builder import Builder
from qcc.ir.graph import Graph, Value
from qcc.ir.ops.conv import Conv2d
from qcc.ir.ops.dense import Dense
from qcc.ir.ops.elementwise import Add, Sub
from qcc.ir.ops.quant import Requantize
from qcc.ir.qparams import QParams
from qcc.ir.types import DType, TensorType
from qcc.passes.base import PassContext
from qcc.passes.plan_accumulators import PlanAccumulators

Array = np.ndarray[Any, Any]
X_SCALE = 0.05
CHANNELS = (*range(1, 11), 15, 16, 17, 63, 64, 65, 100, 130)


@dataclass(frozen=True)
class Layer:
    """A convolution (``size``: its image), or with ``size`` None a dense layer of ``rows`` rows.

    ``residual``: "", "add" or "sub"; ``clamp``: low and high of the requantize; ``least``: weight;
    ``steep``: some channels have few, small weights, and multipliers of the requantize from 1/8 to 64.
    """

    channels: int
    outputs: int
    kernel: tuple[int, int] = (1, 1)
    size: tuple[int, int] | None = (4, 5)
    strides: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilations: tuple[int, int] = (1, 1)
    residual: str = ""
    clamp: tuple[int, int] = (-128, 127)
    rows: int = 1
    groups: int = 1
    least: int = -127
    steep: bool = False


class Net:
    """A graph with one branch for each layer: input, step, output; planned as a compilation plans it."""

    def __init__(self, layers: Sequence[Layer], seed: int, name: str = "layers") -> None:
        self.rng = np.random.default_rng(seed)
        self.graph = Graph(name, "integer")
        self.builder = Builder(self.graph)
        for index, layer in enumerate(layers):
            self._add(layer, f"y{index}")
        PlanAccumulators().run(self.graph, PassContext())

    def _add(self, layer: Layer, name: str) -> None:
        shape = (layer.rows, layer.channels) if layer.size is None else (*layer.size, layer.channels)
        x = self._input(f"{name}_x", (1, *shape))
        taps = () if layer.size is None else layer.kernel
        inputs = layer.channels // layer.groups
        data = self.rng.integers(layer.least, 128, (layer.outputs, *taps, inputs)).astype(np.int8)
        data[0] = layer.least
        spread = float(self.rng.uniform(0.5, 2)) * 127 * 74 * np.sqrt(data[0].size)
        scales = self.rng.uniform(1e-3, 4e-3, layer.outputs)
        bias = self.rng.integers(-5000, 5000, layer.outputs).astype(np.int32)
        scale = X_SCALE * float(np.mean(scales)) * spread / 100
        if layer.steep:
            steep = np.unique(self.rng.integers(0, layer.outputs, 1 + layer.outputs // 2))
            few = self.rng.random(data[steep].shape) < 3 / data[0].size
            data[steep] = np.where(few, self.rng.integers(-2, 3, few.shape), 0)
            scales[steep] = scale / X_SCALE * 2.0 ** self.rng.uniform(-3, 6, steep.size)
            bias[steep] //= 64
        weights = self.builder.constant(data, f"{name}_w", QParams.per_channel(scales, 0))
        op = self._op(layer, zero_point(x))
        acc = self.builder.emit(op, x, weights, self.builder.constant(bias, f"{name}_b"), name=f"{name}_acc")
        if layer.residual:
            acc = self._residual(acc, layer.residual, spread, name)
        low, high = layer.clamp
        y = self.builder.emit(
            Requantize(low=low, high=high),
            acc,
            name=name,
            qparams=QParams.per_tensor(scale, self._zero_point()),
        )
        self.graph.add_output(y, name)

    def _op(self, layer: Layer, x_zero_point: int) -> Conv2d | Dense:
        if layer.size is None:
            return Dense(x_zero_point=x_zero_point)
        return Conv2d(
            strides=layer.strides,
            pads=layer.pads,
            dilations=layer.dilations,
            groups=layer.groups,
            x_zero_point=x_zero_point,
            pad_value=x_zero_point,
        )

    def _residual(self, acc: Value, kind: str, spread: float, name: str) -> Value:
        skip = self._input(f"{name}_skip", acc.type.shape)
        factor = self.rng.integers(1, max(2, int(spread / 100)), acc.type.shape[-1])
        multiplier = self.builder.constant(
            (factor if kind == "add" else -factor).astype(np.int32), f"{name}_multiplier"
        )
        op = Add() if kind == "add" else Sub()
        return self.builder.emit(
            op, acc, skip, None, multiplier, name=f"{name}_sum", qparams=acc.type.qparams
        )

    def _zero_point(self) -> int:
        return int(self.rng.choice([-128, 127, 0, int(self.rng.integers(-128, 128))]))

    def _input(self, name: str, shape: tuple[int, ...]) -> Value:
        return self.graph.add_input(
            name, TensorType(DType.S8, shape, QParams.per_tensor(X_SCALE, self._zero_point()))
        )

    def samples(self, count: int) -> dict[str, Array]:
        """All -128, all 127, then random bytes, the last ones with many extremes."""
        found = {}
        for value in self.graph.inputs:
            x = self.rng.integers(-128, 128, (count, *value.type.shape[1:]))
            x[0], x[1] = -128, 127
            x[-1] = self.rng.choice([-128, 127], x[-1].shape)
            found[value.name] = x.astype(np.int8)
        return found


def zero_point(value: Value) -> int:
    assert value.type.qparams is not None
    return value.type.qparams.zero_point


@pytest.fixture
def net() -> Callable[..., Net]:
    """`net(layers, seed)`."""
    return Net


@pytest.fixture
def layer() -> type[Layer]:
    return Layer


@pytest.fixture
def emitted(tmp_path: Path) -> Callable[..., tuple[Path, Program]]:
    """`emitted(net, target, samples, threads)`: the folder of the library, with a test vector for each sample."""

    def make(
        net: Net, target: Target, samples: Mapping[str, Array] | None = None, threads: int = 1
    ) -> tuple[Path, Program]:
        program = build_program(net.graph, target, net.graph.name, threads=threads)
        vectors = blocks(program, samples) if samples else []
        return emit(program, tmp_path / program.name, EmitOptions(vectors=vectors)), program

    return make


def blocks(program: Program, samples: Mapping[str, Array]) -> list[tuple[Array, Array]]:
    """Input and output bytes of each sample, by the interpreter."""
    results = interpreter.run(program.graph, samples)
    count = len(next(iter(samples.values())))
    inputs = np.zeros((count, program.input_bytes), np.int8)
    outputs = np.zeros((count, program.output_bytes), np.int8)
    for block, ports, arrays in ((inputs, program.inputs, samples), (outputs, program.outputs, results)):
        for port in ports:
            data = np.ascontiguousarray(arrays[port.name]).reshape(count, -1).view(np.int8)
            block[:, port.offset : port.offset + data.shape[1]] = data
    return list(zip(inputs, outputs, strict=True))


@pytest.fixture
def strict() -> Callable[..., Target]:
    """`strict(target, *flags)`: warnings are errors."""

    def make(target: Target, *flags: str) -> Target:
        warnings = ("-Wall", "-Wextra", "-Wconversion", "-pedantic", "-Werror")
        return replace(target, flags=(*target.flags, *warnings, *flags))

    return make


def every_count(layer: Any) -> list[Any]:
    """Every number of channels as inputs and as outputs, 1x1 and dense."""
    found = []
    for index, channels in enumerate(CHANNELS):
        outputs = CHANNELS[(7 * index + 3) % len(CHANNELS)]  # 7 is prime to their number
        found.append(layer(channels, outputs))
        found.append(layer(channels, outputs, size=None, rows=index % 3 + 1))
    return found


def random_layers(layer: Any, rng: np.random.Generator, count: int) -> list[Any]:
    """Convolutions and dense layers of all kinds."""
    found = []
    for _ in range(count):
        side = int(rng.choice([1, 3, 3, 5]))
        kernel = (side, side) if rng.random() < 0.8 else (side, int(rng.integers(1, 6)))
        dilations = tuple(int(d) for d in rng.choice([1, 1, 2], 2))
        reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
        low = int(rng.choice([-128, rng.integers(-128, 0)]))
        found.append(
            layer(
                int(rng.choice(CHANNELS)),
                int(rng.choice(CHANNELS)),
                kernel,
                size=None if rng.random() < 0.1 else tuple(r + int(rng.integers(0, 5)) for r in reach),
                strides=tuple(int(s) for s in rng.integers(1, 3, 2)),
                pads=tuple(int(p) for p in rng.integers(0, 3, 4)),
                dilations=dilations,
                residual=str(rng.choice(["", "", "add", "sub"])),
                clamp=(low, int(rng.choice([127, rng.integers(low, 128)]))),
                rows=int(rng.integers(1, 18)),
            )
        )
    return found
