"""Equalization, absorption and correction of biases, weight rounding: what each promises, measured by other means."""

import numpy as np
import pytest
from quantized_nets import Net, Samples, node_of, run_pass

from qcc.float_runtime import FloatRuntime
from qcc.ir import interpreter
from qcc.ir.fixedpoint import quantize_exactly
from qcc.ir.graph import Graph
from qcc.ir.ops.elementwise import Add
from qcc.ir.ops.pool import MaxPool2d
from qcc.ir.ops.rearrange import Concat
from qcc.ir.ops.reduce import ReduceMean
from qcc.ir.ops.shape import Pad
from qcc.ir.ops.softmax import Softmax
from qcc.passes.base import PassContext
from qcc.passes.channel_groups import FIXED, channel_groups
from qcc.passes.graph_error import GraphError
from qcc.passes.layerwise import layers, shrunk_mean
from qcc.passes.manager import PassManager


def uneven(high: float = float("inf")) -> tuple[Graph, Samples]:
    """Channels of very different ranges; a residual sum, a pool, a depthwise layer and a joined branch."""
    net = Net(1, 8, 8, 3, seed=6)
    spread = np.exp2(np.linspace(-6, 0, 8))
    weights = net.rng.normal(size=(8, 3, 3, 3)) * spread[:, None, None, None]
    x = net.relu(net.conv(net.x, 8, weights=weights, bias=0.1 * spread, pads=(1, 1, 1, 1)), high)
    y = net.relu(net.depthwise(x, pads=(1, 1, 1, 1)), high)
    y = net(Add(), net.conv(y, 8), x)
    y = net(MaxPool2d((2, 2), (2, 2)), net.relu(y))
    y = net(Concat(3), y, net.relu(net.conv(y, 4)))
    y = net.dense(net(ReduceMean((1, 2)), net.conv(y, 6)), 5, name="y")
    return net.finish(y), net.samples(32)


def annotated(graph: Graph, samples: Samples, seen: Samples | None = None) -> tuple[Graph, PassContext]:
    ctx = PassContext({"calibration": [samples], "correction_samples": seen or samples})
    return PassManager("fuse-epilogues,calibrate,choose-qparams", ctx).run(graph), ctx


# ---------------------------------------------------------------------- equalization
@pytest.mark.parametrize("high", [float("inf"), 6.0])
def test_equalization_preserves_the_function(high: float) -> None:
    graph, samples = uneven(high)
    before = FloatRuntime(graph).run(samples)["y0"]
    run_pass(graph, "fuse-epilogues")
    scaled, result = run_pass(graph, "equalize", correction_samples=samples)
    assert result.changed
    assert scaled is not graph
    after = FloatRuntime(scaled).run(samples)["y0"]
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-5)
    first = next(n.output.name for n in scaled.nodes if n.op.name == "clamp")
    assert uneven_by(scaled, samples, first) < 0.7 * uneven_by(graph, samples, first)


@pytest.mark.parametrize("high", [float("inf"), 0.5])
def test_coarse_weights_get_more_even_unless_a_bound_acts(high: float) -> None:
    """The reader's weights differ between channels of equal ranges: what 8 bits hold, 4 do not."""
    net = Net(1, 8, 8, 3, seed=2)
    spread = np.exp2(np.linspace(-4, 0, 8))
    x = net.relu(net.conv(net.x, 8, pads=(1, 1, 1, 1)), high)
    y = net.conv(x, 6, weights=net.rng.normal(size=(6, 3, 3, 8)) * spread, name="reader")
    graph, samples = net.finish(net.dense(net(ReduceMean((1, 2)), y), 5)), net.samples(32)
    run_pass(graph, "fuse-epilogues")
    before = FloatRuntime(graph).run(samples)["y0"]
    seen: dict[str, np.ndarray] = {}
    interpreter.run(graph, samples, observe=lambda v, a: seen.update({v.name: a}))
    clamped = next(n.output.name for n in graph.nodes if n.op.name == "clamp")
    assert (seen[clamped] == high).any() == np.isfinite(high)
    for qspec in ("", "w_bits=4"):
        scaled, _ = run_pass(graph, f'equalize{{qspec="{qspec}"}}', correction_samples=samples)
        np.testing.assert_allclose(FloatRuntime(scaled).run(samples)["y0"], before, rtol=1e-4, atol=1e-5)
        peaks = np.abs(np.asarray(node_of(scaled, "reader").input(1).data)).max(axis=(0, 1, 2))
        evened = peaks.max() / peaks.min() < 8
        assert evened == (qspec != "" and not np.isfinite(high))


def uneven_by(graph: Graph, samples: Samples, name: str) -> float:
    """The largest over the smallest range of a channel."""
    seen: dict[str, np.ndarray] = {}
    interpreter.run(graph, samples, observe=lambda v, a: seen.update({v.name: a}))
    peaks = np.abs(seen[name]).reshape(-1, seen[name].shape[-1]).max(axis=0)
    return float(peaks.max() / peaks.min())


def test_channels_that_only_sums_join_are_turned_to_one_side() -> None:
    net = Net(1, 8, 8, 2)
    signs = np.array([1.0, -1.0, 1.0, -1.0])
    inner = net.conv(
        net.x, 4, 1, weights=signs[:, None, None, None] * np.full((4, 1, 1, 2), 0.5), name="inner"
    )
    graph = net.finish(net.conv(inner, 3, 1))
    samples = {"x": np.abs(net.samples(32)["x"])}
    before = FloatRuntime(graph).run(samples)["y0"]
    run_pass(graph, "fuse-epilogues")
    scaled, result = run_pass(graph, "equalize", correction_samples=samples)
    assert result.changed
    weights = [node_of(g, "inner").input(1).data for g in (graph, scaled)]
    np.testing.assert_array_equal(weights[1], weights[0] * signs[:, None, None, None])
    np.testing.assert_array_equal(FloatRuntime(scaled).run(samples)["y0"], before)


def test_channels_behind_an_activation_keep_their_sign() -> None:
    net = Net(1, 4, 4, 2)
    linear, free = net.conv(net.x, 2, name="linear"), net.conv(net.x, 2, name="free")
    positive = net.relu(linear)
    graph = net.finish(net.conv(net(Concat(3), positive, free), 2))
    groups = channel_groups(graph)
    assert not groups.odd[FIXED]
    assert not groups.odd[groups.of[id(positive)]].any()
    assert not groups.odd[groups.of[id(linear)]].any()
    assert groups.odd[groups.of[id(free)]].all()


def test_channels_in_front_of_a_maximum_keep_their_sign() -> None:
    net = Net(1, 4, 4, 2)
    inner = net.conv(net.x, 2, name="inner")
    graph = net.finish(net.conv(net(MaxPool2d((2, 2), (2, 2)), inner), 2))
    groups = channel_groups(graph)
    assert not groups.odd[groups.of[id(inner)]].any()
    assert FIXED not in groups.of[id(inner)]


def test_equalization_changes_nothing_where_no_channel_is_free() -> None:
    net = Net(1, 6)
    graph = net.finish(net.dense(net.x, 4))
    run_pass(graph, "fuse-epilogues")
    found, result = run_pass(graph, "equalize", correction_samples=net.samples(8))
    assert not result.changed
    assert found is graph
    assert result.notes[0].reason == "no channels to scale"


def test_channels_are_tied_by_sums_and_cut_at_layers() -> None:
    net = Net(1, 4, 4, 3)
    a, b = net.conv(net.x, 2, name="a"), net.conv(net.x, 2, name="b")
    total = net(Add(), a, b)
    joined = net(Concat(3), total, net(Pad((0, 0, 0, 0), (0, 1, 1, 0)), net.conv(net.x, 1, 2, name="c")))
    deep = net.depthwise(joined, 1)
    graph = net.finish(net.conv(deep, 2))
    of = channel_groups(graph).of
    ids = [of[id(v)].tolist() for v in (a, b, total)]
    assert ids[0] == ids[1] == ids[2]
    assert of[id(joined)].tolist() == [*ids[0], *of[id(node_of(graph, "c").output)].tolist()]
    assert not set(of[id(deep)]) & {*of[id(joined)], FIXED}
    assert set(of[id(net.x)]) == set(of[id(graph.outputs[0])]) == {FIXED}


# ---------------------------------------------------------------------- high biases
def high_biases(reader: str) -> tuple[Graph, Samples]:
    """A layer whose third channel never comes near 0, a ReLU, and a reader."""
    net = Net(1, 6, 6, 3, seed=2)
    bias = np.array([0.1, -0.2, 40.0, 0.0])
    x = net.relu(net.conv(net.x, 4, bias=bias, name="first"))
    if reader == "dense":
        y = net.dense(x, 5, name="reader")
    elif reader == "padded":
        y = net.conv(x, 5, 3, pads=(1, 1, 1, 1), name="reader")
    else:
        y = net.conv(x, 8, 3, groups=4 if reader == "grouped" else 1, name="reader")
    graph = net.finish(y)
    run_pass(graph, "fuse-epilogues")
    return graph, net.samples(24)


@pytest.mark.parametrize("reader", ["whole", "grouped", "dense"])
def test_a_high_bias_moves_to_the_reader(reader: str) -> None:
    graph, samples = high_biases(reader)
    absorbed, result = run_pass(graph, "absorb-bias", correction_samples=samples)
    assert result.changed
    first, second = node_of(graph, "first"), node_of(graph, "reader")
    x = FloatRuntime(graph, [first.output]).run
    seen: list[np.ndarray] = []
    interpreter.run(graph, samples, observe=lambda v, a: seen.append(a) if v.name == "first" else None)
    channel = seen[0].reshape(-1, 4).astype(np.float64)[:, 2]
    c = channel.mean() - 1.5 * (channel.mean() - channel.min())
    moved = [np.asarray(node_of(absorbed, n).input(2).data) for n in ("first", "reader")]
    np.testing.assert_allclose(moved[0] - first.input(2).data, [0, 0, -c, 0], rtol=1e-5)
    w = np.asarray(second.input(1).data)
    taps = w.reshape(len(w), -1, w.shape[-1]).sum(axis=1)
    on_filters = np.repeat([0, 0, 1, 0], 2) * taps[:, 0] if reader == "grouped" else taps[:, 2]
    np.testing.assert_allclose(moved[1] - second.input(2).data, c * on_filters, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(FloatRuntime(absorbed).run(samples)["y0"], x(samples)["y0"], atol=2e-4)
    assert absorbed is not graph


def test_biases_stay_where_padding_would_tell() -> None:
    graph, samples = high_biases("padded")
    found, result = run_pass(graph, "absorb-bias", correction_samples=samples)
    assert found is graph
    assert [n.reason for n in result.notes] == ["no ReLU between layers without padding"]


def test_channels_that_reach_zero_keep_their_biases() -> None:
    net = Net(1, 6)
    graph = net.finish(net.dense(net.relu(net.dense(net.x, 8)), 3))
    run_pass(graph, "fuse-epilogues")
    _, result = run_pass(graph, "absorb-bias", correction_samples=net.samples(32))
    assert [n.reason for n in result.notes] == ["no channel stays clear of 0"]


# ---------------------------------------------------------------------- biases
def test_bias_correction_brings_the_mean_error_to_zero() -> None:
    graph, samples = uneven()
    plain, ctx = annotated(graph, samples)
    error = GraphError.of(plain, ctx)
    assert error is not None
    corrected, result = run_pass(plain, "correct-bias{shrink=false}", **ctx.resources)
    assert result.changed
    for layer in layers(plain, corrected.clone(), error.samples, PassContext(), ""):
        found = np.abs(layer.errors().mean(axis=0)).max()
        qparams = (
            layer.node.output.type.qparams
        )  # what is rounded right away is rounded anew with the new bias
        assert found < (1e-5 if qparams is None else qparams.scale[0])


def test_a_correction_that_does_not_help_is_not_kept() -> None:
    graph, samples = uneven()
    other = {name: np.flip(array, axis=-1) * 3 + 1 for name, array in samples.items()}
    count = np.arange(32) % 4 == 3  # these are the judges, and quite unlike what the correction learns from
    mixed = {
        name: np.where(count[:, None, None, None, None], array, other[name])
        for name, array in samples.items()
    }
    plain, ctx = annotated(graph, samples, mixed)
    before = GraphError.of(plain, ctx)
    assert before is not None
    found, result = run_pass(plain, "correct-bias", **ctx.resources)
    kept = result.notes[-1].applied
    assert kept == (before.noise(found) < before.noise(plain))
    assert kept or found is plain


def test_few_samples_correct_less() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(4, 500))
    assert np.abs(shrunk_mean(noise)).mean() < 0.3 * np.abs(noise.mean(axis=0)).mean()
    np.testing.assert_allclose(shrunk_mean(noise + 50), noise.mean(axis=0) + 50, rtol=1e-3)
    assert (shrunk_mean(np.ones((1, 3))) == 0).all()


# ---------------------------------------------------------------------- weights
def test_rounded_weights_are_codes_that_quantize_ops_finds() -> None:
    graph, samples = uneven()
    plain, ctx = annotated(graph, samples)
    rounded, result = run_pass(plain, "round-weights", **ctx.resources)
    assert result.changed
    changed = 0
    for node, old in zip(rounded.nodes, plain.nodes, strict=True):
        if node.op.quant_rule().weight is None:
            continue
        weight, before = node.input(1), old.input(1)
        assert weight.type == before.type
        assert weight.data is not None
        assert before.data is not None
        assert weight.type.qparams is not None
        if weight.data is before.data:
            continue
        codes = quantize_exactly(weight.data, weight.type.qparams)
        np.testing.assert_allclose(
            codes * weight.type.qparams.scale_array(weight.data.ndim), weight.data, rtol=1e-6
        )
        changed += int((codes != quantize_exactly(before.data, weight.type.qparams)).sum())
    assert changed > 20
    layer_notes = [n for n in result.notes if n.rule == "round-layer" and n.applied]
    assert all(float(n.reason.split()[0]) >= 0 for n in layer_notes)


def test_filters_beyond_the_limit_are_left_alone() -> None:
    graph, samples = uneven()
    plain, ctx = annotated(graph, samples)
    _, result = run_pass(plain, "round-weights{limit=8}", **ctx.resources)
    layer_notes = [n for n in result.notes if n.rule == "round-layer"]
    assert any("more than 8" in n.reason for n in layer_notes) or not result.changed


# ---------------------------------------------------------------------- what all share
@pytest.mark.parametrize("name", ["equalize", "absorb-bias", "correct-bias", "round-weights"])
def test_without_samples_they_decline(name: str) -> None:
    graph, samples = high_biases("dense") if name == "absorb-bias" else uneven()
    plain = graph if name in ("equalize", "absorb-bias") else annotated(graph, samples)[0]
    found, result = run_pass(plain, name)
    assert found is plain
    assert [n.reason for n in result.notes] == ["there are no samples to measure it on"]


def test_the_error_looks_through_a_softmax_at_the_end() -> None:
    net = Net(1, 12)
    logits = net.dense(net.x, 5, name="logits")
    graph = net.finish(net(Softmax(1), logits))
    plain, ctx = annotated(graph, net.samples(16))
    error = GraphError.of(plain, ctx)
    assert error is not None
    w, b = node_of(plain, "logits").input(1), node_of(plain, "logits").input(2)
    assert w.data is not None
    assert b.data is not None
    expected = error.samples["x"].reshape(-1, 12) @ w.data.T + b.data
    expected -= expected.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(error.reference["y0"].reshape(expected.shape), expected, rtol=1e-4, atol=1e-5)
    assert 0 < error.noise(plain) < 1e-3
