"""A planned network that the checker accepts, and ways to spoil it."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from qcc.checker import check_plan
from qcc.ir.builder import Builder
from qcc.ir.graph import Graph, Node, Value
from qcc.ir.ops.activation import Clamp, Tanh
from qcc.ir.ops.conv import Conv2d
from qcc.ir.ops.dense import Dense
from qcc.ir.ops.elementwise import Add
from qcc.ir.ops.pool import AvgPool2d
from qcc.ir.ops.shape import Reshape
from qcc.ir.types import DType, TensorType, f32
from qcc.passes.base import PassContext
from qcc.passes.manager import parse_pipeline

FOLDED = "fuse-epilogues,calibrate,choose-qparams,quantize-ops,fold-zero-points,"
PLANNED = FOLDED + "plan-accumulators,remove-dead-channels"
MULTIPLIER, SHIFT, ACC_MIN, ACC_MAX = 1, 2, 3, 4


def plan(graph: Graph, batch: dict[str, np.ndarray], pipeline: str = PLANNED) -> Graph:
    ctx = PassContext(resources={"calibration": [batch]})
    for step in parse_pipeline(pipeline):
        graph = step.run(graph, ctx).graph or graph
    return graph


def build(*shape: int) -> tuple[Graph, Builder, Callable[..., Value]]:
    """A graph with input x, its builder, and constants from a seeded normal distribution."""
    rng = np.random.default_rng(11)
    graph = Graph("test")
    graph.add_input("x", f32(*shape))
    b = Builder(graph)
    return graph, b, lambda *s: b.constant(rng.normal(size=s).astype(np.float32), "c")


def samples(*shape: int) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(5).normal(size=(8, *shape[1:])).astype(np.float32)}


def network() -> Graph:
    """conv + relu6, conv + residual add + relu, depthwise, average pool, tanh, dense."""
    graph, b, c = build(1, 6, 6, 3)
    y = b.emit(Conv2d(pads=(1, 1, 1, 1)), graph.inputs[0], c(4, 3, 3, 3), c(4), name="conv")
    y = b.emit(Clamp(0.0, 6.0), y, name="relu6")
    z = b.emit(Conv2d(), y, c(4, 1, 1, 4), c(4), name="conv2")
    y = b.emit(Add(), z, y, name="residual")
    y = b.emit(Clamp(0.0), y, name="relu")
    y = b.emit(Conv2d((2, 2), (1, 1, 1, 1), groups=4), y, c(4, 3, 3, 1), c(4), name="depthwise")
    y = b.emit(AvgPool2d((2, 2), (1, 1)), y, name="pool")
    y = b.emit(Tanh(), y, name="tanh")
    y = b.emit(Reshape((1, 16)), y, name="flat")
    graph.add_output(b.emit(Dense(), y, c(5, 16), c(5), name="dense"))
    made = plan(graph, samples(1, 6, 6, 3))
    check_plan(made)
    return made


def node_of(graph: Graph, name: str) -> Node:
    return next(n for n in graph.nodes if n.name == name)


def edit(graph: Graph, node: str, index: int, change: Callable[[np.ndarray], Any]) -> None:
    """Replace a constant operand by ``change`` of a copy of it (or by what ``change`` made of it in place)."""
    found = node_of(graph, node)
    old = found.input(index)
    assert old.data is not None
    data = old.data.copy()
    made = change(data)
    made = data if made is None else made
    type_ = TensorType(DType.of(made.dtype), made.shape, old.type.qparams)
    graph.set_input(found, index, graph.constant(made, old.name, type_))


def put(channel: int, value: int) -> Callable[[np.ndarray], None]:
    def change(data: np.ndarray) -> None:
        data.reshape(len(data), -1)[channel] = value

    return change


def bump(channel: int, by: int) -> Callable[[np.ndarray], None]:
    def change(data: np.ndarray) -> None:
        data[channel] += by

    return change


def uncertify(graph: Graph) -> None:
    for node in graph.nodes:
        if node.op.name == "requantize":
            node.op = replace(node.op, certified=())
