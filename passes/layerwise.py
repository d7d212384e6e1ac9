"""A float graph and its fake-quant meaning walked side by side, so that each layer can be corrected on its real inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qcc.ir.graph import Graph, Node, Value
from qcc.ir.interpreter import Evaluate, Execution, evaluate
from qcc.passes.base import PassContext

Arrays = dict[str, NDArray[np.float32]]

_MACS = 5e9  # of all samples, in each of the two graphs
_BYTES = 2**28  # of the largest value, over all samples
_FEWEST = 8


@dataclass(frozen=True)
class Layer:
    """A node with constant weights about to be run. ``quantized``: its operand as it will be, samples along axis 0.

    An operand of a batch of its own, which samples cannot join, counts as that many samples. ``settle`` runs the node, with the weights it has now, and gives its mean error for each sample and channel,
    float64[N, C]: float result minus quantized one.
    """

    node: Node
    quantized: NDArray[np.float32]
    settle: Callable[[], NDArray[np.float64]]


def layers(reference: Graph, graph: Graph, samples: Arrays, ctx: PassContext, what: str) -> Iterator[Layer]:
    """The layers of ``graph``, in order, with what the layers before, as the caller left them, feed to each.

    ``graph`` is a clone of the annotated ``reference``. Constants of the current node may be replaced. Reads
    ctx.resources["evaluate"] (optional), a faster interpreter.evaluate. Takes as many samples as is quick.
    """
    compute: Evaluate = ctx.resources.get("evaluate", evaluate)
    inputs = {name: array[: sample_count(graph, array)] for name, array in samples.items()}
    real = Execution.start(reference, inputs, compute=compute)
    quantized = Execution.start(graph, inputs, fake_quant=True, compute=compute)
    for number, (source, node) in enumerate(zip(reference.nodes, graph.nodes, strict=True), 1):
        real.step(source)
        weight = weight_of(node)
        if weight is None:
            quantized.step(node)
        else:

            def settle(source: Node = source, node: Node = node) -> NDArray[np.float64]:
                quantized.step(node)
                y, found = _by_sample(real, source.output), _by_sample(quantized, node.output)
                error = (y - found).reshape(len(y), -1, y.shape[-1])
                return np.asarray(error.mean(axis=1, dtype=np.float64))

            yield Layer(node, _by_sample(quantized, node.input(0)), settle)
            quantized.step(node)
        real.forget(source)
        quantized.forget(node)
        ctx.progress(what, number, len(graph.nodes))


def _by_sample(walk: Execution, value: Value) -> NDArray[np.float32]:
    """What ``value`` holds as [N, ...], of the rank of its type, or [N, C] for a vector."""
    shape = value.type.shape
    return walk.array(value).reshape(-1, *(shape[1:] if len(shape) > 1 else shape))


def weight_of(node: Node) -> Value | None:
    """The constant weights of a node that has qparams for them and a bias that can be set."""
    rule = node.op.quant_rule()
    if rule.weight is None or rule.bias is None:
        return None
    weight = node.input(rule.weight)
    return weight if weight.data is not None and weight.type.qparams is not None else None


def sample_count(graph: Graph, array: NDArray[np.float32], budget: float = _MACS) -> int:
    """How many samples to walk with: as many as ``budget`` MACs, a few seconds, and some hundred megabytes allow."""
    macs = sum(n.op.macs(n.signature) for n in graph.nodes) or 1
    largest = max((n.output.type.bytes for n in graph.nodes), default=1)
    return min(len(array), max(_FEWEST, int(min(budget / macs, _BYTES / largest))))


def set_weights(graph: Graph, node: Node, data: NDArray[np.float32]) -> None:
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
