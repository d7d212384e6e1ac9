"""What the tests of passes share: run a pass, hold it to its class, and look at what is left."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from qcc.ir import interpreter
from qcc.ir.builder import Builder
from qcc.ir.graph import Graph, Value
from qcc.ir.types import f32
from qcc.ir.verifier import verify
from qcc.passes.base import Note, PassContext
from qcc.passes.manager import parse_pipeline

sys.path.insert(
    0, str(Path(__file__).parent)
)  # modules beside this file are importable: pytest adds no folder


class Maker:
    """A graph under construction: `x` is its input, constants come from a seeded generator."""

    def __init__(self, *shape: int) -> None:
        self.graph = Graph("test")
        self.x = self.graph.add_input("x", f32(*shape))
        self.builder = Builder(self.graph)
        self.rng = np.random.default_rng(7)

    def constant(self, *shape: int) -> Value:
        data = self.rng.uniform(0.5, 2.0, shape) * self.rng.choice([-1, 1], shape)
        return self.builder.constant(np.asarray(data, np.float32), "c")

    def full(self, value: float, *shape: int) -> Value:
        return self.builder.constant(np.full(shape, value, np.float32), "c")

    def __call__(self, op: object, *inputs: Value | None, name: str | None = None) -> Value:
        return self.builder.emit(op, *inputs, name=name)

    def finish(self, *outputs: Value) -> Graph:
        for number, value in enumerate(outputs):
            self.graph.add_output(value, f"y{number}")
        return self.graph


@dataclass
class Outcome:
    graph: Graph
    notes: list[Note]
    changed: bool

    @property
    def ops(self) -> list[str]:
        return [n.op.name for n in self.graph.nodes]

    @property
    def declined(self) -> list[tuple[str, str]]:
        return [(n.rule, n.reason) for n in self.notes if not n.applied]


@pytest.fixture
def make() -> type[Maker]:
    return Maker


@pytest.fixture
def apply() -> Callable[[str, Graph], Outcome]:
    """`apply("a,b", graph)`: the outcome; numbers compared, a second run must change nothing."""

    def run(pipeline: str, graph: Graph) -> Outcome:
        rng = np.random.default_rng(3)
        inputs = {v.name: rng.normal(size=(2, *v.type.shape)).astype(np.float32) for v in graph.inputs}
        verify(graph)
        before = interpreter.run(graph, inputs)
        notes, changed = [], False
        for current in parse_pipeline(pipeline):
            result = current.run(graph, PassContext())
            notes += result.notes
            changed |= result.changed
            verify(graph)
            again = current.run(graph, PassContext())
            assert not again.changed, f"{current.name} changes its own result: {again.notes}"
        after = interpreter.run(graph, inputs)
        assert list(before) == list(after)
        for name, old in before.items():
            scale = max(1e-6, float(np.abs(old).max()))
            np.testing.assert_allclose(after[name] / scale, old / scale, rtol=0, atol=1e-5)
        return Outcome(graph, notes, changed)

    return run
