"""Integer graphs made by hand, and what compiles and runs them."""

import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qcc.backends.c.emit import EmitOptions, emit
from qcc.backends.c.weights import Form
from qcc.backends.program import Program, build_program
from qcc.backends.target import Compiler, Target, find_target
from qcc.backends.targets import describe
from qcc.ir import interpreter
from qcc.ir.builder import Builder
from qcc.ir.graph import Graph, Value
from qcc.ir.ops.conv import Conv2d
from qcc.ir.ops.dense import Dense
from qcc.ir.ops.elementwise import Add, Mul, Sub
from qcc.ir.ops.quant import Requantize
from qcc.ir.ops.shape import Reshape
from qcc.ir.qparams import QParams
from qcc.ir.types import DType, TensorType

Array = np.ndarray[Any, Any]


class IntegerGraph:
    """Adds layers with random constants to an integer graph. The scales make results spread over all of s8."""

    def __init__(self, seed: int, name: str = "net") -> None:
        self.rng = np.random.default_rng(seed)
        self.graph = Graph(name, "integer")
        self.builder = Builder(self.graph)

    def zero_point(self) -> int:
        return int(self.rng.choice([-128, 127, 0, int(self.rng.integers(-128, 128))]))

    def input(self, name: str, *shape: int) -> Value:
        qparams = QParams.per_tensor(float(self.rng.uniform(0.01, 0.1)), self.zero_point())
        return self.graph.add_input(name, TensorType(DType.S8, shape, qparams))

    def weights(self, shape: tuple[int, ...], name: str) -> Value:
        data = self.rng.integers(-127, 128, shape).astype(np.int8)
        qparams = QParams.per_channel(self.rng.uniform(1e-3, 4e-3, shape[0]), 0)
        return self.builder.constant(data, f"{name}_weights", qparams)

    def bias(self, channels: int, name: str) -> Value:
        return self.builder.constant(
            self.rng.integers(-5000, 5000, channels).astype(np.int32), f"{name}_bias"
        )

    def conv2d(self, x: Value, outputs: int, kernel: tuple[int, int], name: str, **attributes: Any) -> Value:
        zero_point = _zero_point(x)
        groups = attributes.get("groups", 1)
        w = self.weights((outputs, *kernel, x.type.shape[-1] // groups), name)
        op = Conv2d(**attributes, x_zero_point=zero_point, pad_value=zero_point)
        return self.builder.emit(op, x, w, self.bias(outputs, name), name=f"{name}_acc")

    def dense(self, x: Value, outputs: int, name: str) -> Value:
        w = self.weights((outputs, x.type.shape[-1]), name)
        return self.builder.emit(
            Dense(x_zero_point=_zero_point(x)), x, w, self.bias(outputs, name), name=f"{name}_acc"
        )

    def residual(self, acc: Value, skip: Value, name: str, minus: bool = False, swap: bool = False) -> Value:
        factor = self.rng.integers(50, 3000, acc.type.shape[-1]) * (-1 if minus else 1)
        m = self.builder.constant(factor.astype(np.int32), f"{name}_multiplier")
        operands = (skip, acc, m, None) if swap else (acc, skip, None, m)
        return self.builder.emit(
            Sub() if minus else Add(), *operands, name=f"{name}_sum", qparams=acc.type.qparams
        )

    def add(self, a: Value, b: Value, name: str, per_channel: bool = False) -> Value:
        count = max(a.type.shape[-1], b.type.shape[-1]) if per_channel else 1
        factors = [
            self.builder.constant(
                self.rng.integers(-16384, 16385, count).astype(np.int32), f"{name}_multiplier"
            )
            for _ in range(2)
        ]
        scale = np.full(count, 1e-6)
        qparams = QParams.per_channel(scale, len(a.type.shape) - 1, "s32") if count > 1 else None
        return self.builder.emit(
            Add(), a, b, *factors, name=name, qparams=qparams or QParams.per_tensor(1e-6, 0, "s32")
        )

    def add_constant(self, a: Value, shape: tuple[int, ...], name: str, swap: bool = False) -> Value:
        data = self.rng.integers(-(2**20), 2**20, shape).astype(np.int32)
        b = self.builder.constant(data, f"{name}_constant")
        m = self.builder.constant(np.array([4321], np.int32), f"{name}_multiplier")
        operands = (b, a, None, m) if swap else (a, b, m, None)
        return self.builder.emit(Add(), *operands, name=name, qparams=QParams.per_tensor(1e-6, 0, "s32"))

    def add_constant_to(self, acc: Value, name: str) -> Value:
        """A constant per channel in the accumulator itself."""
        data = self.rng.integers(-4000, 4000, acc.type.shape[-1]).astype(np.int32)
        b = self.builder.constant(data, f"{name}_constant")
        return self.builder.emit(Add(), acc, b, name=f"{name}_sum", qparams=acc.type.qparams)

    def mul(self, a: Value, b: Value | tuple[int, ...], name: str) -> Value:
        if isinstance(b, tuple):
            data = self.rng.integers(-(2**15), 2**15, b).astype(np.int16)
            b = self.builder.constant(data, f"{name}_constant", QParams.per_tensor(1e-4, 0, "s16"))
        return self.builder.emit(Mul(), a, b, name=name, qparams=QParams.per_tensor(1e-4, 0, "s32"))

    def requantize(self, acc: Value, spread: float, name: str, low: int = -128, high: int = 127) -> Value:
        """``spread``: the size of accumulators that should fill the s8 range."""
        assert acc.type.qparams is not None
        scale = float(np.mean(acc.type.qparams.scale)) * spread / 100
        qparams = QParams.per_tensor(scale, self.zero_point())
        return self.builder.emit(Requantize(low=low, high=high), acc, name=name, qparams=qparams)

    def reshape(self, x: Value, *shape: int) -> Value:
        return self.builder.emit(Reshape(shape), x, name=f"{x.name}_reshaped")

    def output(self, value: Value, name: str | None = None) -> Value:
        self.graph.add_output(value, name)
        return value

    def samples(self, count: int) -> dict[str, Array]:
        """Random bytes; the first samples are all -128 and all 127."""
        found = {}
        for value in self.graph.inputs:
            x = self.rng.integers(-128, 128, (count, *value.type.shape[1:])).astype(np.int8)
            x[0], x[1] = -128, 127
            found[value.name] = x
        return found


def _zero_point(value: Value) -> int:
    assert value.type.qparams is not None
    return value.type.qparams.zero_point


@pytest.fixture
def integer_graph() -> Callable[..., IntegerGraph]:
    return IntegerGraph


@pytest.fixture
def residual_net() -> Callable[[], IntegerGraph]:
    """Convolution, depthwise convolution, 1x1 convolution with a residual, dense; a reshape in between."""

    def make() -> IntegerGraph:
        net = IntegerGraph(7, "residual net")
        x = net.input("image", 1, 6, 6, 3)
        a = net.requantize(net.conv2d(x, 8, (3, 3), "stem", pads=(1, 1, 1, 1)), 2e4, "stem")
        d = net.requantize(
            net.conv2d(a, 8, (3, 3), "depthwise", pads=(1, 1, 1, 1), groups=8), 2e4, "depthwise"
        )
        sums = net.residual(net.conv2d(d, 8, (1, 1), "point"), a, "point")
        c = net.requantize(sums, 4e5, "point", low=-100)
        y = net.requantize(net.dense(net.reshape(c, 1, 288), 5, "head"), 1e5, "head")
        net.output(y, "scores")
        return net

    return make


def expected_bytes(program: Program, inputs: Mapping[str, Array]) -> list[tuple[Array, Array]]:
    """Input and output blocks of each sample, by the interpreter."""
    results = interpreter.run(program.graph, inputs)
    blocks = []
    for index in range(len(next(iter(inputs.values())))):
        pair = np.zeros(program.input_bytes, np.uint8), np.zeros(program.output_bytes, np.uint8)
        for block, ports, arrays in zip(
            pair, (program.inputs, program.outputs), (inputs, results), strict=True
        ):
            for port in ports:
                data = np.ascontiguousarray(arrays[port.name][index]).reshape(-1).view(np.uint8)
                block[port.offset : port.offset + data.size] = data
        blocks.append(pair)
    return blocks


@pytest.fixture
def emitted(tmp_path: Path) -> Callable[..., tuple[Path, Program]]:
    """`emitted(net, samples)`: the folder of the C library with one test vector for each sample."""

    def make(
        net: IntegerGraph,
        inputs: Mapping[str, Array],
        io: str = "int8",
        target: str = "c",
        weights: Form = "auto",
    ) -> tuple[Path, Program]:
        program = build_program(net.graph, find_target(target), net.graph.name, io)
        options = EmitOptions(vectors=expected_bytes(program, inputs), weights=weights)
        return emit(program, tmp_path / program.name, options), program

    return make


@pytest.fixture
def target() -> Callable[[str], Target]:
    """`target("arm-neon")`: skips where it cannot be built and run."""

    def make(name: str) -> Target:
        found = next(a for a in describe() if a.target.name == name)
        if not found.runs:
            pytest.skip(f"no compiler or emulator for {name}: {'; '.join(found.missing)}")
        return found.target

    return make


@pytest.fixture
def compiler_target() -> Callable[..., Target]:
    """`compiler_target("gcc", "-O0")`: the portable target with one compiler; skips where it is missing."""

    def make(name: str, *flags: str) -> Target:
        if name == "zig":
            pytest.importorskip("ziglang", reason="the zig compiler is not installed")
            argv: tuple[str, ...] = (sys.executable, "-m", "ziglang", "cc")
        else:
            if shutil.which(name) is None:
                pytest.skip(f"compiler {name} is not installed")
            argv = (name,)
        return replace(find_target("c"), compilers=(Compiler(argv, ""),), flags=flags)

    return make
