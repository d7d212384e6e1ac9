"""A float graph and its fake-quant meaning walked side by side, so that each layer can be corrected on its real inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from qcc.ir import interpreter
from qcc.ir.graph import Graph, Node, Value
from qcc.ir.interpreter import Evaluate, Execution, Held
from qcc.ir.ops.reduce import ReduceMean
from qcc.passes.base import PassContext

Array = NDArray[np.float32]
Arrays = dict[str, Array]
Run = Callable[[Mapping[str, Array]], Arrays]

_MACS = 1.6e10  # of all samples, in each of the two graphs
_BYTES = 2**28  # of the largest value, over all samples
_FEWEST = 8


class Layer:
    """A node with constant weights about to be run. ``quantized``: its operand as it will be, samples along axis 0.

    An operand of a batch of its own, which samples cannot join, counts as that many samples. The weights may change
    until ``errors`` is called, the bias by ``add_to_bias`` after that.
    """

    def __init__(self, graph: Graph, node: Node, walk: Execution, means: Array) -> None:
        self.node, self.quantized = node, _by_sample(node.input(0), walk.array(node.input(0)))
        self._graph, self._walk, self._means = graph, walk, means
        self._result: Held | None = None

    def errors(self) -> NDArray[np.float64]:
        """Runs the node: its mean error for each sample and channel, float64[N, C], float minus fake-quant accumulator."""
        self._result = self._walk.compute(self.node)
        found = _by_sample(self.node.output, self._result.array)
        mean = found.reshape(len(found), -1, found.shape[-1]).mean(axis=1, dtype=np.float64)
        return np.asarray(self._means - mean)

    def add_to_bias(self, added: NDArray[np.float64]) -> None:
        """Add float64[C] to the bias, and to the result if there is one."""
        add_to_bias(self._graph, self.node, added)
        if self._result is not None:
            self._result.array += added.astype(np.float32)  # of ``compute``: nobody else holds it

    def settle(self) -> None:
        """Let the nodes behind see the result."""
        self._walk.hold(self.node.output, self._result or self._walk.compute(self.node))


def layers(reference: Graph, graph: Graph, samples: Arrays, ctx: PassContext, what: str) -> Iterator[Layer]:
    """The layers of ``graph``, in order, with what the layers before, as the caller left them, feed to each.

    ``graph`` is a clone of the annotated ``reference``. Reads ctx.resources["evaluate"] (optional), a faster
    interpreter.evaluate, and ["runner"], as GraphError does. Takes as many samples as is quick.
    """
    inputs = {name: array[: sample_count(graph, array)] for name, array in samples.items()}
    means = _means(reference, inputs, ctx)
    compute: Evaluate = ctx.resources.get("evaluate", interpreter.evaluate)
    walk = Execution.start(graph, inputs, fake_quant=True, compute=compute)
    for number, node in enumerate(graph.nodes, 1):
        if weight_of(node) is None:
            walk.step(node)
        else:
            layer = Layer(graph, node, walk, means[node.name])
            yield layer
            layer.settle()
        walk.forget(node)
        ctx.progress(what, number, len(graph.nodes))


def _means(reference: Graph, inputs: Arrays, ctx: PassContext) -> dict[str, Array]:
    """By name of its layer, the mean over the positions of each sample of the float result: float32[N, C]."""
    graph = reference.clone()
    graph.outputs, graph.output_names = [], []
    for node in [n for n in graph.nodes if weight_of(n) is not None]:
        mean, type_ = node.output, node.output.type.with_qparams(None)
        if type_.rank > 2:
            op = ReduceMean(tuple(range(1, type_.rank - 1)))
            mean = graph.add_node(op, [mean], op.infer(type_), f"{node.name}_mean").output
        graph.add_output(mean, node.name)
    graph.remove_dead_nodes()
    if not graph.outputs:
        return {}
    found = ctx.resources.get("runner", interpret)(graph, fake_quant=False)(inputs)
    return {name: array.reshape(-1, array.shape[-1]) for name, array in found.items()}


def interpret(graph: Graph, *, fake_quant: bool) -> Run:
    """What runs ``graph`` where ctx.resources has no ``runner``."""
    return lambda inputs: interpreter.run(graph, inputs, fake_quant=fake_quant)


def _by_sample(value: Value, array: Array) -> Array:
    """``array`` of ``value`` as [N, ...], of the rank of its type, or [N, C] for a vector."""
    shape = value.type.shape
    return array.reshape(-1, *(shape[1:] if len(shape) > 1 else shape))


def weight_of(node: Node) -> Value | None:
    """The constant weights of a node that has qparams for them and a bias that can be set."""
    rule = node.op.quant_rule()
    if rule.weight is None or rule.bias is None:
        return None
    weight = node.input(rule.weight)
    return weight if weight.data is not None and weight.type.qparams is not None else None


def sample_count(graph: Graph, array: Array, budget: float = _MACS) -> int:
    """How many samples to walk with: as many as ``budget`` MACs, a few seconds, and some hundred megabytes allow."""
    macs = sum(n.op.macs(n.signature) for n in graph.nodes) or 1
    largest = max((n.output.type.bytes for n in graph.nodes), default=1)
    return min(len(array), max(_FEWEST, int(min(budget / macs, _BYTES / largest))))


def set_weights(graph: Graph, node: Node, data: Array) -> None:
    """Replace the weights of ``node``, of the same type."""
    rule = node.op.quant_rule()
    assert rule.weight is not None
    old = node.input(rule.weight)
    graph.set_input(node, rule.weight, graph.constant(data, old.name, old.type))


def add_to_bias(graph: Graph, node: Node, added: NDArray[np.float64]) -> None:
    """Add float64[O] to the bias of ``node``, which gets one if it has none."""
    rule = node.op.quant_rule()
    assert rule.weight is not None
    assert rule.bias is not None
    old = node.inputs[rule.bias] if rule.bias < len(node.inputs) else None
    before = 0.0 if old is None or old.data is None else old.data.astype(np.float64)
    type_ = node.input(rule.weight).type.with_qparams(None).with_shape((len(added),))
    name = f"{node.name}_bias" if old is None else old.name
    value = graph.constant((before + added).astype(np.float32), name, type_)
    if rule.bias < len(node.inputs):
        graph.set_input(node, rule.bias, value)
    else:
        graph.set_inputs(node, [*node.inputs, value])


def shrunk_mean(errors: NDArray[np.float64]) -> NDArray[np.float64]:
    """[C]: the mean over samples of [N, C], less what chance alone would give a mean of so few (James and Stein)."""
    mean = errors.mean(axis=0)
    if len(errors) < 2:
        return np.zeros_like(mean)
    chance = float(errors.var(axis=0, ddof=1).sum()) / len(errors)
    found = float((mean * mean).sum())
    return np.asarray(mean * max(0.0, 1 - chance / found)) if found > 0 else mean
