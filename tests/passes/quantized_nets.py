"""Networks for the tests of quantization passes, and the stages of the pipeline on them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcc.checker import check_plan
from qcc.ir import fixedpoint, interpreter
from qcc.ir.builder import Builder
from qcc.ir.graph import Graph, Node, Value
from qcc.ir.op import Op
from qcc.ir.ops.activation import Clamp, HardSwish, LeakyRelu, Sigmoid, Tanh
from qcc.ir.ops.conv import Conv2d
from qcc.ir.ops.dense import Dense
from qcc.ir.ops.elementwise import Add, Div, Mul, Sub
from qcc.ir.ops.pool import AvgPool2d, MaxPool2d
from qcc.ir.ops.quant import Requantize
from qcc.ir.ops.rearrange import Concat, Slice
from qcc.ir.ops.reduce import ReduceMean
from qcc.ir.ops.shape import Pad, Reshape
from qcc.ir.ops.softmax import Softmax
from qcc.ir.qparams import QParams
from qcc.ir.types import f32
from qcc.ir.verifier import verify
from qcc.passes.base import Note, PassContext, PassResult
from qcc.passes.manager import parse_pipeline

Array = NDArray[Any]
Samples = dict[str, Array]

STEPS = (
    "fuse-epilogues",
    "calibrate",
    "choose-qparams",
    "quantize-ops",
    "fold-zero-points",
    "plan-accumulators",
    "remove-dead-channels",
)


class Net:
    """A float graph under construction: ``x`` is its first input, weights come from a seeded generator."""

    def __init__(self, *shape: int, seed: int = 0) -> None:
        self.graph, self.seed = Graph("net"), seed
        self.builder = Builder(self.graph)
        self.rng = np.random.default_rng(seed)
        self.x = self.input("x", *shape)

    def input(self, name: str, *shape: int) -> Value:
        return self.graph.add_input(name, f32(*shape))

    def __call__(self, op: Op, *inputs: Value | None, name: str | None = None) -> Value:
        return self.builder.emit(op, *inputs, name=name)

    def constant(self, data: Any, name: str = "c") -> Value:
        return self.builder.constant(np.asarray(data, np.float32), name)

    def conv(
        self,
        x: Value,
        channels: int,
        kernel: int = 1,
        *,
        weights: Array | None = None,
        bias: Array | None = None,
        name: str | None = None,
        **attributes: Any,
    ) -> Value:
        per_group = x.type.shape[-1] // attributes.get("groups", 1)
        if weights is None:
            shape = (channels, kernel, kernel, per_group)
            weights = self.rng.normal(size=shape) / np.sqrt(kernel * kernel * per_group)
        bias = self.rng.normal(size=channels) * 0.3 if bias is None else bias
        return self(Conv2d(**attributes), x, self.constant(weights, "w"), self.constant(bias, "b"), name=name)

    def depthwise(self, x: Value, kernel: int = 3, **keywords: Any) -> Value:
        channels = x.type.shape[-1]
        return self.conv(x, channels, kernel, groups=channels, **keywords)

    def dense(
        self,
        x: Value,
        channels: int,
        *,
        weights: Array | None = None,
        bias: Array | None = None,
        name: str | None = None,
    ) -> Value:
        k = x.type.shape[-1]
        weights = self.rng.normal(size=(channels, k)) / np.sqrt(k) if weights is None else weights
        bias = self.rng.normal(size=channels) * 0.3 if bias is None else bias
        return self(Dense(), x, self.constant(weights, "w"), self.constant(bias, "b"), name=name)

    def relu(self, x: Value, high: float = float("inf"), name: str | None = None) -> Value:
        return self(Clamp(0.0, high), x, name=name)

    def finish(self, *outputs: Value) -> Graph:
        for number, value in enumerate(outputs):
            self.graph.add_output(value, f"y{number}")
        verify(self.graph)
        return self.graph

    def samples(self, count: int = 6) -> Samples:
        """Normal numbers, the same in every call."""
        rng = np.random.default_rng(self.seed)
        return {v.name: rng.normal(size=(count, *v.type.shape)).astype(np.float32) for v in self.graph.inputs}


@dataclass
class Stages:
    """The graph after each step, and its notes, by the name of the step."""

    graphs: dict[str, Graph] = field(default_factory=dict)
    notes: dict[str, tuple[Note, ...]] = field(default_factory=dict)

    def __getitem__(self, step: str) -> Graph:
        return self.graphs[step]

    def declined(self, step: str, rule: str = "") -> list[tuple[str, str]]:
        found = (n for n in self.notes[step] if not n.applied and rule in ("", n.rule))
        return [(n.node, n.reason) for n in found]

    def applied(self, step: str, rule: str) -> list[str]:
        return [n.node for n in self.notes[step] if n.applied and n.rule == rule]


def run_pass(graph: Graph, text: str, **resources: Any) -> tuple[Graph, PassResult]:
    """One pass on ``graph`` itself; the graph it leaves, verified."""
    (current,) = parse_pipeline(text)
    result = current.run(graph, PassContext(resources))
    graph = result.graph or graph
    graph.stage = current.result_stage or graph.stage
    verify(graph)
    return graph, result


def quantize(graph: Graph, samples: Samples, until: str = STEPS[-1]) -> Stages:
    """The stages of a copy of ``graph``."""
    stages = Stages()
    graph = graph.clone()
    for step in STEPS[: STEPS.index(until) + 1]:
        graph, result = run_pass(graph, step, calibration=[samples])
        stages.graphs[step], stages.notes[step] = graph.clone(), result.notes
    return stages


def node_of(graph: Graph, name: str) -> Node:
    return next(n for n in graph.nodes if n.name == name)


def value_of(graph: Graph, name: str) -> Value:
    return next(v for v in graph.values() if v.name == name)


def qparams(graph: Graph, value: Value | str) -> QParams:
    found = value_of(graph, value if isinstance(value, str) else value.name).type.qparams
    assert found is not None
    return found


def annotated(graph: Graph, samples: Samples) -> Graph:
    return quantize(graph, samples, "choose-qparams")["choose-qparams"]


def is_float32(numbers: tuple[float, ...]) -> bool:
    return all(float(np.float32(n)) == n for n in numbers)


def ops(graph: Graph) -> list[str]:
    return [n.op.name for n in graph.nodes]


def integers(graph: Graph, samples: Samples) -> Samples:
    """Real samples as an integer graph wants them: [N, *shape]."""
    made = {}
    for value in graph.inputs:
        assert value.type.qparams is not None
        made[value.name] = fixedpoint.quantize(samples[value.name], value.type.qparams)
    return made


def extreme_inputs(graph: Graph, seed: int = 0, count: int = 4) -> Samples:
    """Random 8-bit inputs, and samples of all -128, all 127, and a mixture of both."""
    made, rng = {}, np.random.default_rng(seed)
    for value in graph.inputs:
        x = rng.integers(-128, 128, size=(count + 3, *value.type.shape)).astype(np.int8)
        x[0], x[1] = -128, 127
        x[2] = rng.choice([-128, 127], size=value.type.shape)
        made[value.name] = x
    return made


def assert_same_bytes(a: Graph, b: Graph, seed: int = 0) -> None:
    inputs = extreme_inputs(a, seed)
    before, after = interpreter.run(a, inputs), interpreter.run(b, inputs)
    assert list(before) == list(after)
    for name in before:
        np.testing.assert_array_equal(before[name], after[name])


def reals(graph: Graph, samples: Samples) -> Samples:
    """Outputs as real numbers, of float samples."""
    outputs = interpreter.run(
        graph,
        integers(graph, samples) if graph.stage in ("integer", "planned") else samples,
        fake_quant=graph.stage == "annotated",
    )
    for value, name in zip(graph.outputs, graph.output_names, strict=True):
        if value.type.dtype.is_integer:
            assert value.type.qparams is not None
            outputs[name] = fixedpoint.dequantize(outputs[name], value.type.qparams)
    return outputs


def sqnr_db(reference: Array, other: Array) -> float:
    noise = float(((reference - other).astype(np.float64) ** 2).sum())
    signal = float((reference.astype(np.float64) ** 2).sum())
    return float("inf") if noise == 0 else float(10 * np.log10(signal / noise))


def steps_apart(annotated: Graph, integer: Graph, samples: Samples) -> dict[str, int]:
    """By value: |fake-quant code less integer code|, each computed from the fake-quant codes of its operands."""
    worst: dict[str, int] = {}
    for index in range(len(next(iter(samples.values())))):
        fake: Samples = {}

        def remember(value: Value, array: Array, fake: Samples = fake) -> None:
            fake[value.name] = array

        one = {k: v[index : index + 1] for k, v in samples.items()}
        interpreter.run(annotated, one, observe=remember, fake_quant=True)
        held: dict[int, Array] = {}
        for value in [*integer.inputs, *(n.output for n in integer.nodes)]:
            if value.producer is not None:
                operands = [
                    v if v is None else v.data if v.data is not None else held[id(v)]
                    for v in value.producer.inputs
                ]
                held[id(value)] = interpreter.evaluate(value.producer, operands)
            qparams = value.type.qparams
            if value.name in fake and qparams is not None and value.type.dtype.value == "s8":
                code = fixedpoint.quantize(fake[value.name], qparams).reshape(value.type.shape)
                if value.producer is not None:
                    apart = int(np.abs(code.astype(int) - held[id(value)]).max())
                    worst[value.name] = max(worst.get(value.name, 0), apart)
                held[id(value)] = code
    return worst


class RandomNet(Net):
    """A small convolutional net of random steps; with ``dead``, some channels are planted constant or unread."""

    def __init__(self, seed: int, dead: bool) -> None:
        super().__init__(1, 6, 5, 4, seed=seed)
        self.dead = dead

    def convolution(self, x: Value, channels: int, kernel: int = 1, **attributes: Any) -> Value:
        rng, groups = self.rng, attributes.get("groups", 1)
        per_group = x.type.shape[-1] // groups
        bias = rng.normal(size=channels) * 0.3
        weights = rng.normal(size=(channels, kernel, kernel, per_group)) / np.sqrt(
            kernel * kernel * per_group
        )
        if self.dead:
            bias[rng.random(channels) < 0.3] = -40.0
            weights[rng.random(channels) < 0.2] = 0.0
            if groups == 1:
                weights[..., rng.random(per_group) < 0.2] = 0.0
        return self.conv(x, channels, kernel, weights=weights, bias=bias, **attributes)

    def residual(self, x: Value) -> Value:
        inner = self.relu(self.convolution(x, int(self.rng.integers(2, 8))))
        y = self.convolution(inner, x.type.shape[-1], 3, pads=(1, 1, 1, 1))
        y = self(Add(), *((x, y) if self.rng.random() < 0.5 else (y, x)))
        return self.relu(y) if self.rng.random() < 0.6 else y

    def squeeze(self, x: Value) -> Value:
        y = self.relu(self.convolution(self(ReduceMean((1, 2)), x), 3))
        return self(Mul(), x, self(Sigmoid(), self.convolution(y, x.type.shape[-1])))

    def island(self, x: Value) -> Value:
        """A quotient, which has no integer form."""
        y = self(Sigmoid(), self.convolution(x, x.type.shape[-1]))
        return self(Div(), x, self(Add(), y, self.constant(0.5)))

    def depthwise_step(self, x: Value) -> Value:
        channels = x.type.shape[-1]
        return self.relu(self.convolution(x, channels, 3, groups=channels, pads=(1, 0, 1, 2)))

    def steps(self) -> list[Callable[[Value], Value]]:
        rng = self.rng

        def some() -> int:
            return int(rng.integers(2, 10))

        steps: list[Callable[[Value], Value]] = [
            lambda x: self.relu(self.convolution(x, some(), 3, pads=(1, 1, 1, 1))),
            lambda x: self.relu(self.convolution(x, some()), 6.0),
            self.depthwise_step,
            self.residual,
            self.residual,
            self.squeeze,
            lambda x: self(HardSwish(), self.convolution(x, some())),
            lambda x: self(Mul(), x, self(Sigmoid(), x)),
            lambda x: self(Tanh(), self(LeakyRelu(0.1), x)),
            lambda x: self(Concat(3), x, self.convolution(x, 3)),
            lambda x: self(Concat(2), x, self.relu(x)),
            lambda x: self(MaxPool2d((2, 2), (1, 1), (1, 1, 0, 0)), x),
            lambda x: self(AvgPool2d((3, 3), (1, 1), (1, 1, 1, 1)), x),
            lambda x: self(Sub(), x, self.relu(self.convolution(x, x.type.shape[-1]))),
            lambda x: self(Add(), self(Mul(), x, self.constant(rng.normal(size=x.type.shape[-1]))), x),
            lambda x: self(Mul(), x, self.constant(rng.normal(size=(*x.type.shape[1:3], 1)))),
            lambda x: self(Add(), x, self.convolution(x, 1)),
            lambda x: self(Pad((0, 1, 0, 0), (0, 0, 1, 0), 0.7), x),
            lambda x: self(Slice((3,), (0,), (max(1, x.type.shape[3] - 1),), (1,)), x),
        ]
        return steps if self.dead else [*steps, self.island]

    def build(self) -> Graph:
        x = self.conv(self.x, int(self.rng.integers(3, 9)), 3, pads=(1, 1, 1, 1))
        steps = self.steps()
        for _ in range(int(self.rng.integers(2, 7))):
            x = steps[int(self.rng.integers(len(steps)))](x)
        heads, ending = [], int(self.rng.integers(4))
        if ending == 0:
            x = self(ReduceMean((1, 2)), x)
        if ending <= 1:
            x = self.dense(self(Reshape((1, x.type.elements)), x), 5)
        if ending == 1:
            heads.append(self(Softmax(1), x))
        if ending == 2:
            heads.append(self(Softmax(3), self.convolution(x, 4)))
        return self.finish(*heads, x)


def random_net(seed: int, dead: bool = False) -> tuple[Graph, Samples]:
    """A net whose every choice follows from ``seed``, and samples for it."""
    net = RandomNet(seed, dead)
    return net.build(), net.samples()


def planned(net: Net, *outputs: Value, samples: Samples | None = None) -> Graph:
    graph = quantize(net.finish(*outputs), samples or net.samples(), "plan-accumulators")["plan-accumulators"]
    check_plan(graph)
    return graph


def claims(graph: Graph, name: str) -> tuple[Array, Array, int]:
    """acc_min, acc_max and accumulator_bits of a requantize."""
    node = node_of(graph, name)
    low, high = node.operand("acc_min"), node.operand("acc_max")
    assert isinstance(node.op, Requantize)
    assert low is not None
    assert high is not None
    assert low.data is not None
    assert high.data is not None
    return low.data, high.data, node.op.accumulator_bits
