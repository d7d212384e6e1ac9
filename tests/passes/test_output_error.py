"""Choices by what reads a value: errors against a direct computation, EQ against a full search, per-tensor choices."""

import numpy as np
import pytest
from quantized_nets import Array, Net, node_of, run_pass, value_of

from qcc.ir import interpreter
from qcc.ir.errors import PassError
from qcc.ir.fixedpoint import fake_quantize
from qcc.ir.graph import Graph, Value
from qcc.ir.ops.elementwise import Add
from qcc.ir.ops.pool import MaxPool2d
from qcc.ir.qspec import QSpec
from qcc.passes.calibrate import AUTO_CHOICES
from qcc.passes.output_error import ReaderErrors, cosine_similarity, round_weight


def dense(outputs: int = 3) -> tuple[Net, Graph]:
    net = Net(1, 40)
    return net, net.finish(net.dense(net.x, outputs, name="y"))


def heavy_tails(net: Net, count: int = 8) -> dict[str, Array]:
    rng = np.random.default_rng(3)
    return {"x": rng.standard_t(3, size=(count, *net.x.type.shape)).astype(np.float32)}


def test_the_error_is_that_of_the_readers_and_of_the_output() -> None:
    net = Net(1, 4, 4, 3)
    total = net(Add(), net.x, net.constant(np.ones(3)))
    graph = net.finish(net.conv(total, 2, name="a"), net(MaxPool2d((2, 2), (2, 2)), total), total)
    samples, spec, found = net.samples(2), QSpec(a_bits=4), (-1.5, 2.0)
    errors = ReaderErrors(graph, samples, spec)
    seen: dict[str, Array] = {}
    interpreter.run(graph, samples, observe=lambda v, a: seen.update({v.name: a}))
    x = seen[total.name].astype(np.float64)
    q = fake_quantize(x, spec.activation(*found)).astype(np.float64)
    w = node_of(graph, "a").input(1).data
    assert w is not None
    conv = [np.einsum("nhwc,oc->nhwo", v, w[:, 0, 0].astype(np.float64)) for v in (x, q)]
    bias = node_of(graph, "a").input(2).data
    pooled = [v.reshape(2, 2, 2, 2, 2, 3).max(axis=(2, 4)) for v in (x, q)]
    expected = sum(
        np.sum((b - a) ** 2) / np.sum((a + shift) ** 2)
        for (a, b), shift in ((conv, bias), (pooled, 0.0), ((x, q), 0.0))
    )
    assert errors.error(total, found) == pytest.approx(expected, rel=1e-4)


def test_auto_takes_the_observer_of_least_error() -> None:
    net, graph = dense()
    samples = heavy_tails(net)
    other = graph.clone()
    _, result = run_pass(
        graph,
        "calibrate{observer=auto qspec=a_bits=4}".replace("a_bits=4", '"a_bits=4"'),
        calibration=[samples],
    )
    ranges = {}
    for name in AUTO_CHOICES:
        copy = other.clone()
        run_pass(copy, f'calibrate{{observer={name} qspec="a_bits=4"}}', calibration=[samples])
        ranges[name] = value_of(copy, "x").range
    errors = ReaderErrors(other, samples, QSpec(a_bits=4))
    measured = {n: errors.error(value_of(other, "x"), r) for n, r in ranges.items() if r}
    chosen = next(n.rule for n in result.notes if n.node == "x").removeprefix("calibrate-")
    assert measured[chosen] == min(measured.values())
    assert chosen != "min-max"
    assert value_of(graph, "x").range == ranges[chosen]


@pytest.mark.parametrize("bits", [3, 4, 8])
def test_eq_is_near_the_best_of_all_pairs_of_scales(bits: int) -> None:
    net, graph = dense()
    samples = heavy_tails(net)
    spec = QSpec(a_bits=bits, w_bits=bits)
    x, w = samples["x"][:, 0], value_of(graph, "w")
    assert w.data is not None
    whole = (float(x.min()), float(x.max()))
    exact = x @ w.data.T

    def similarity(activation: float, weight: float) -> float:
        q = fake_quantize(x, spec.activation(activation * whole[0], activation * whole[1]))
        return cosine_similarity([exact], [q @ round_weight(w, 0, weight, spec).T])

    grid = np.linspace(0.4, 1.0, 61)
    best = max(similarity(a, b) for a in grid for b in grid)
    (low, high), factors = ReaderErrors(graph, samples, spec).alternating_cosine(value_of(graph, "x"), whole)
    found = similarity(high / whole[1], factors["y"])
    assert low / whole[0] == pytest.approx(high / whole[1])
    assert found >= similarity(1.0, 1.0)
    assert 1 - found <= 1.25 * (1 - best)  # turns end where neither scale alone can improve


def test_eq_clips_weights_through_all_of_the_pipeline() -> None:
    net, graph = dense(outputs=2)
    w = value_of(graph, "w")
    assert w.data is not None
    option = 'observer=eq qspec="w_bits=3"'
    _, result = run_pass(graph, f"calibrate{{{option}}}", calibration=[heavy_tails(net)])
    notes = [n for n in result.notes if n.rule == "clip-weight"]
    assert [n.node for n in notes] == ["y"]
    assert w.range is not None
    share = w.range[1] / float(np.abs(w.data).max())
    assert 0.2 < share < 1
    run_pass(graph, 'choose-qparams{qspec="w_bits=3"}')
    weight = node_of(graph, "y").input(1)
    qparams = weight.type.qparams
    assert qparams is not None
    assert weight.data is not None
    largest = np.abs(w.data).max(axis=1)
    np.testing.assert_allclose(qparams.scale, share * largest / 3, rtol=1e-6)
    integer, _ = run_pass(graph, "quantize-ops")
    q = node_of(integer, "y.acc").input(1).data
    assert q is not None
    assert np.abs(q.astype(int)).max() == 3


# ---------------------------------------------------------------------- observers per tensor
def test_observers_of_some_tensors() -> None:
    net = Net(1, 4, 4, 3)
    graph = net.finish(net.conv(net.conv(net.x, 3, name="one"), 2, name="two"))
    text = 'calibrate{observer=min-max tensors=["t*=mse", "*w*=percentile"]}'
    _, result = run_pass(graph, text, calibration=[net.samples()])
    assert [(n.node, n.rule) for n in result.notes] == [
        ("x", "calibrate-min-max"),
        ("one", "calibrate-min-max"),
        ("two", "calibrate-mse"),  # the first match counts
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("conv", "'conv' names no observer"),
        ("z*=mse", "no value matches 'z*'"),
        ("x=best", "unknown observer 'best'"),
    ],
)
def test_wrong_observers_of_tensors(text: str, message: str) -> None:
    net, graph = dense()
    with pytest.raises(PassError) as caught:
        run_pass(graph, f'calibrate{{tensors=["{text}"]}}', calibration=[net.samples()])
    assert caught.value.message == message


def test_a_value_that_nobody_reads_in_reals_is_no_problem() -> None:
    """auto and eq on a graph with a residual add, a pool and two outputs run through the pipeline."""
    for observer in ("auto", "eq"):
        net = Net(1, 4, 4, 3)
        skip: Value = net.relu(net.conv(net.x, 3))
        total = net(Add(), net.conv(skip, 3), skip)
        graph = net.finish(net(MaxPool2d((2, 2), (2, 2)), total), total)
        run_pass(graph, "fuse-epilogues")
        run_pass(graph, f"calibrate{{observer={observer}}}", calibration=[net.samples()])
        run_pass(graph, "choose-qparams")


def test_the_first_range_stays_unless_another_is_clearly_better(monkeypatch: pytest.MonkeyPatch) -> None:
    _, graph = dense()
    x, samples = value_of(graph, "x"), {"x": np.zeros((1, 1, 40), np.float32)}
    errors = ReaderErrors(graph, samples, QSpec())
    monkeypatch.setattr(errors, "error", lambda value, found: found[1])  # the error is the high end
    assert errors.least_error(x, {"first": (0.0, 1.0), "second": (0.0, 0.8)}) == "first"
    assert errors.least_error(x, {"first": (0.0, 1.0), "second": (0.0, 0.7), "third": (0.0, 0.6)}) == "third"
    assert errors.least_error(x, {"first": (0.0, 0.0), "second": (0.0, 0.0)}) == "first"
