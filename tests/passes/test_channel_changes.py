"""What passes did to channels, as the report tells it: it undoes the change, element by element."""

import numpy as np
import pytest
from quantized_nets import Net, Samples, run_pass
from transformer_blocks import block

from qcc.driver import Compilation
from qcc.ir import interpreter
from qcc.ir.graph import Graph
from qcc.ir.ops.activation import Clamp
from qcc.options import CompileOptions
from qcc.report_changes import Changes, changes


def changed(before: Graph, after: Graph, samples: Samples) -> Changes:
    made = Compilation(CompileOptions(), "", "", before, before, calibrated=after, annotated=after)
    made.samples = samples
    return changes(made)


def assert_undone(before: Graph, after: Graph, found: Changes, samples: Samples) -> None:
    """Values of both graphs agree where the changes are taken back, and differ where some are told."""
    old, new = {}, {}
    for graph, seen in ((before, old), (after, new)):
        interpreter.run(graph, samples, observe=lambda v, a, seen=seen: seen.update({v.name: a}))
    assert found.others == []
    for name, x in old.items():
        shape = (-1, *next(v for v in before.values() if v.name == name).type.shape)
        x, y = (a.reshape(shape) for a in (x, new[name]))
        tolerance = 1e-4 * float(np.abs(x).max())
        real = (y + found.offsets.get(name, 0.0)) / found.factors.get(name, 1.0)
        np.testing.assert_allclose(real, x, rtol=1e-3, atol=tolerance, err_msg=name)
        told = name in found.factors or name in found.offsets
        assert told != np.allclose(x, y, rtol=1e-3, atol=tolerance), name


def layers(bias: float) -> tuple[Graph, Samples]:
    """Two dense layers with a ReLU between them, and channels of unlike sizes."""
    net = Net(1, 6)
    sizes = np.array([[1.0], [8.0], [0.1], [3.0], [1.0]])
    first = net.dense(net.x, 5, weights=net.rng.normal(size=(5, 6)) * sizes, bias=bias * sizes.ravel())
    hidden = net(Clamp(0.0, np.inf), first)
    weights = net.rng.normal(size=(4, 5)) / sizes.ravel()
    graph = net.finish(net.dense(hidden, 4, weights=weights, bias=np.zeros(4)))
    run_pass(graph, "fuse-epilogues")
    return graph, net.samples(64)


@pytest.mark.parametrize("text", ["equalize", "absorb-bias", "equalize,absorb-bias"])
def test_channels_that_were_scaled_and_shifted(text: str) -> None:
    graph, samples = layers(12.0)
    after = graph
    for name in text.split(","):
        after, result = run_pass(after, name, correction_samples=samples)
        assert result.changed, result.notes
    found = changed(graph, after, samples)
    assert bool(found.factors) == ("equalize" in text)
    assert bool(found.offsets) == ("absorb-bias" in text)
    assert_undone(graph, after, found, samples)


@pytest.mark.parametrize("kind", ["attention", "mlp", "gated", "both", "batched"])
def test_operands_of_products_are_scaled_along_other_axes(kind: str) -> None:
    graph, samples = block(kind)
    samples = {name: x[:8] for name, x in samples.items()}
    run_pass(graph, "fuse-epilogues")
    after, result = run_pass(graph, "migrate-scales", correction_samples=samples)
    assert result.changed, result.notes
    found = changed(graph, after, samples)
    assert found.offsets == {}
    assert_undone(graph, after, found, samples)


def test_what_follows_no_rule_is_named() -> None:
    graph, samples = layers(0.0)
    other, _ = layers(0.0)
    node = other.nodes[0]
    other.set_input(node, 1, other.constant(np.ones((5, 6), np.float32), "ones", node.input(1).type))
    found = changed(graph, other, samples)
    assert found.others
    assert graph.inputs[0].name not in found.others


def test_a_graph_that_stayed_is_unchanged() -> None:
    graph, samples = layers(0.0)
    assert changed(graph, graph.clone(), samples) == Changes()
