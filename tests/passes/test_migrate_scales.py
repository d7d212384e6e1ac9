"""Migration of outliers: the function stays bit for bit, the noise falls, and what cannot be scaled says why."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from quantized_nets import Net, Samples, quantize, run_pass
from transformer_blocks import WIDTH, Block, block

from qcc.float_runtime import FloatRuntime, observer
from qcc.ir import interpreter
from qcc.ir.graph import Graph
from qcc.ir.ops.activation import Gelu
from qcc.ir.ops.dense import MatMul
from qcc.ir.ops.elementwise import Add, Div, Mul, Sub
from qcc.ir.ops.functions import Sqrt
from qcc.ir.ops.norm import BatchNorm, InstanceNorm, LayerNorm
from qcc.ir.ops.pool import AvgPool2d
from qcc.ir.ops.reduce import ReduceMean
from qcc.ir.ops.shape import Reshape, Transpose
from qcc.metrics import sqnr_db
from qcc.passes.absorbing import Division, NotAbsorbedError, absorb

SEEDS = st.integers(0, 2**16)


def split(samples: Samples, count: int = 32) -> tuple[Samples, Samples]:
    """Those to calibrate on, and those to measure with."""
    return {k: v[:count] for k, v in samples.items()}, {k: v[count:] for k, v in samples.items()}


def migrated(graph: Graph, samples: Samples, text: str = "migrate-scales") -> Graph:
    run_pass(graph, "fuse-epilogues")
    found, result = run_pass(graph, text, correction_samples=samples)
    assert result.changed, result.notes
    assert found is not graph
    return found


# ---------------------------------------------------------------------- what it promises
@pytest.mark.parametrize(
    ("kind", "gain"), [("attention", 12), ("mlp", 12), ("gated", 12), ("both", 12), ("batched", 12)]
)
def test_migration_wins_decibels_on_samples_it_has_not_seen(kind: str, gain: float) -> None:
    graph, samples = block(kind)
    calibration, test = split(samples)
    scaled = migrated(graph, calibration)
    reference = interpreter.run(graph, test)["y0"]
    found = []
    for each in (graph, scaled):
        stages = quantize(each.clone(), calibration)
        outputs = interpreter.run(stages["choose-qparams"], test, fake_quant=True)["y0"]
        found.append(sqnr_db(reference, outputs))
    assert found[1] > found[0] + gain


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS, kind=st.sampled_from(["attention", "mlp", "gated", "batched"]), outlier=st.floats(4, 1e3))
def test_the_float_function_stays_bit_for_bit(seed: int, kind: str, outlier: float) -> None:
    graph, samples = block(kind, seed, outlier)
    run_pass(graph, "fuse-epilogues")
    scaled, _ = run_pass(graph, "migrate-scales", correction_samples=split(samples, 8)[0])
    np.testing.assert_array_equal(
        interpreter.run(scaled, samples)["y0"], interpreter.run(graph, samples)["y0"]
    )


def test_factors_are_those_of_the_paper() -> None:
    """A single channel beyond the others: x [3, 1, 1] * [32, 1, 1], weights of 1, so that s = (|x| / |x|max)^alpha."""
    net = Net(1, 4, 16)
    sizes = np.where(np.arange(16) == 5, 64.0, 1.0)
    normal = net(LayerNorm(2), net.x, net.constant(sizes), net.constant(np.zeros(16)))
    graph = net.finish(net.dense(normal, 3, weights=np.ones((3, 16)), bias=np.zeros(3)))
    samples = net.samples(64)
    scaled = migrated(graph, samples)
    seen = {}
    interpreter.run(graph, samples, observe=lambda v, a: seen.update({v.name: a}))
    peak = np.abs(seen[normal.name]).reshape(-1, 16).max(axis=0)
    factors = graph.nodes[0].input(1).data / scaled.nodes[0].input(1).data
    np.testing.assert_array_equal(scaled.nodes[1].input(1).data, np.broadcast_to(factors, (3, 16)))
    (alpha,) = {float(r.split()[1].rstrip(",")) for r in reasons(graph, samples)}
    expected = np.minimum(1.5 * peak, peak.max()) ** alpha
    expected = np.exp2(np.rint(np.log2(expected / expected.max())))
    np.testing.assert_array_equal(factors, expected)


def reasons(graph: Graph, samples: Samples) -> list[str]:
    _, result = run_pass(graph, "migrate-scales", correction_samples=samples)
    return [n.reason for n in result.notes if n.rule == "migrate-channels"]


def test_integers_and_a_faster_runtime_agree_with_it() -> None:
    graph, samples = block("both")
    calibration, test = split(samples)
    run_pass(graph, "fuse-epilogues")
    slow, _ = run_pass(graph, "migrate-scales", correction_samples=calibration)

    def observe(graph: Graph, values: list) -> object:
        return observer(graph, values, layout_free=False)

    fast, _ = run_pass(
        graph, "migrate-scales", correction_samples=calibration, channel_observer_factory=observe
    )
    for a, b in zip(slow.constants(), fast.constants(), strict=True):
        np.testing.assert_array_equal(a.data, b.data)
    outputs = FloatRuntime(fast).run(test)["y0"]
    np.testing.assert_allclose(outputs, FloatRuntime(graph).run(test)["y0"], rtol=1e-4, atol=1e-4)
    planned = quantize(fast, calibration)
    name = planned["remove-dead-channels"].output_names[0]
    codes = interpreter.run(
        planned["remove-dead-channels"], _quantized(planned["remove-dead-channels"], test)
    )
    assert codes[name].dtype == np.int8


def _quantized(graph: Graph, samples: Samples) -> Samples:
    (value,) = graph.inputs
    assert value.type.qparams is not None
    scale, zero = value.type.qparams.scale[0], value.type.qparams.zero_point
    return {value.name: np.clip(np.rint(samples["x"] / scale) + zero, -128, 127).astype(np.int8)}


# ---------------------------------------------------------------------- what absorbs, in closed form
def _scale(net: Net, x: object) -> object:
    return net(Mul(), x, net.constant(net.rng.uniform(0.5, 2, size=x.type.shape[-1])))


CASES = {
    "layer-norm": lambda n, x: n(LayerNorm(3), x, n.constant(n.rng.normal(size=6)), n.constant(np.ones(6))),
    "layer-norm-two-axes": lambda n, x: n(LayerNorm(2), x, n.constant(n.rng.normal(size=(3, 6)))),
    "instance-norm": lambda n, x: n(InstanceNorm(), x, n.constant(np.arange(6) + 1), n.constant(np.ones(6))),
    "batch-norm": lambda n, x: n(
        BatchNorm(), x, *(n.constant(n.rng.uniform(0.5, 2, size=6)) for _ in range(4))
    ),
    "root-mean-square": lambda n, x: _scale(n, n(Div(), x, n(Sqrt(), n(ReduceMean((3,)), n(Mul(), x, x))))),
    "scale": _scale,
    "scalar": lambda n, x: n(Mul(), n.constant(np.float32(3)), x),
    "sum": lambda n, x: n(Add(), _scale(n, x), n.constant(np.ones(6))),
    "difference": lambda n, x: n(Sub(), n.conv(x, 6), _scale(n, x)),
    "layer": lambda n, x: n.conv(x, 6, 3),
    "depthwise": lambda n, x: n.depthwise(x, 3),
    "relu": lambda n, x: n.relu(_scale(n, x)),
    "gate": lambda n, x: n(Mul(), n(Gelu(), x), n.dense(x, 6)),
    "pool": lambda n, x: n(AvgPool2d((2, 2), (2, 2)), _scale(n, x)),
    "mean": lambda n, x: n(ReduceMean((1, 2)), _scale(n, x)),
    "moved": lambda n, x: n(Reshape((1, 12, 6)), n(Transpose((0, 2, 1, 3)), _scale(n, x))),
    "product": lambda n, x: n(MatMul(), n(Gelu(), n(Reshape((1, 4, 3, 6)), x)), n.constant(np.ones((1, 4, 6, 5)))),
    "heads": lambda n, x: n(MatMul(), n(Gelu(), n(Transpose((0, 1, 3, 2)), x)), n.dense(x, 2)),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_what_absorbs_divides_the_value(name: str) -> None:
    net = Net(1, 4, 3, 6, seed=len(name))
    graph = net.finish(CASES[name](net, net.x))
    (value,) = graph.outputs
    factors = np.exp2(net.rng.integers(-4, 5, size=value.type.shape[-1])).astype(np.float64)
    before = interpreter.run(graph, net.samples())["y0"]
    for division in absorb(graph, value, np.broadcast_to(factors, value.type.shape)):
        assert isinstance(division, Division)
        division.apply(graph, division.node)
    np.testing.assert_array_equal(interpreter.run(graph, net.samples())["y0"], before / factors)


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (lambda n: n.x, "%x is computed by no node"),
        (lambda n: n(Gelu(), _scale(n, n.x)), "gelu has no constants that could take factors"),
        (lambda n: n.relu(_scale(n, n.x), 6.0), "clamp has no constants that could take factors"),
        (lambda n: n(Mul(), n.x, n(Gelu(), n.x)), "%x has 2 uses and gelu has no constants that could take factors"),
        (lambda n: n(ReduceMean((3,)), _scale(n, n.x)), "reduce_mean mixes channels"),
        (lambda n: n(Transpose((0, 1, 3, 2)), n.conv(n.x, 6)), "the elements of one channel of %x_2 have different"),
        (lambda n: n(MatMul(), n.x, n.input("z", 1, 1, 6, 5)), "%z is computed by no node"),
        (lambda n: n(LayerNorm(3), n.x, n.input("z", 6)), "the parameters of layer_norm are computed"),
    ],
)  # fmt: skip
def test_what_cannot_absorb_says_why(build: object, reason: str) -> None:
    net = Net(1, 4, 3, 6)
    value = build(net)
    graph = net.graph
    factors = np.broadcast_to(1.0 + np.arange(value.type.shape[-1]), value.type.shape)
    with pytest.raises(NotAbsorbedError) as error:
        absorb(graph, value, factors)
    assert reason in str(error.value)


# ---------------------------------------------------------------------- where it declines
def note_on(graph: Graph, samples: Samples) -> dict[str, str]:
    run_pass(graph, "fuse-epilogues")
    found, result = run_pass(graph, "migrate-scales", correction_samples=samples)
    assert found is graph
    assert not result.changed
    return {n.rule: n.reason for n in result.notes}


def test_what_equalize_scales_is_left_to_it() -> None:
    net = Net(1, 8)
    graph = net.finish(net.dense(net.relu(net.dense(net.x, 8)), 4))
    notes = note_on(graph, net.samples(8))
    assert notes == {
        "migrate-channels": "equalize scales its channels",
        "migrate-scales": "no channels to scale",
    }


def test_a_value_that_others_read_too_is_left_alone() -> None:
    net = Block()
    normal = net.norm(net.x, net.spread(WIDTH))
    graph = net.finish(net(Add(), net.dense(normal, WIDTH), normal))
    assert note_on(graph, net.samples(8))["migrate-channels"] == "add reads it too"


def test_even_channels_gain_nothing() -> None:
    graph, samples = block("mlp", outlier=1.0)
    run_pass(graph, "fuse-epilogues")
    _, result = run_pass(graph, "migrate-scales", correction_samples=samples)
    gains = [float(n.reason.split()[2]) for n in result.notes if n.rule == "migrate-channels" and n.applied]
    assert all(gain < 3 for gain in gains)


def test_it_is_kept_only_where_the_outputs_gain() -> None:
    graph, samples = block("mlp")
    run_pass(graph, "fuse-epilogues")
    calibration = split(samples)[0]
    floats = ",".join(n.name for n in graph.nodes if n.op.name == "dense")
    found, result = run_pass(graph, f"migrate-scales{{floats=[{floats}]}}", correction_samples=calibration)
    assert found is graph or result.notes[-1].applied
    assert result.notes[-1].reason.startswith("SQNR")


def test_without_samples_it_declines() -> None:
    graph, _ = block("mlp")
    found, result = run_pass(graph, "migrate-scales")
    assert found is graph
    assert [n.reason for n in result.notes] == ["there are no samples to measure it on"]
