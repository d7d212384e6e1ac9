"""Sensitivities against rounding by hand, one node after the other; costs against counts by hand."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from qcc import float_runtime
from qcc.ir.builder import Builder
from qcc.ir.graph import Graph, Value
from qcc.ir.interpreter import Execution
from qcc.ir.ops.activation import Clamp
from qcc.ir.ops.conv import Conv2d
from qcc.ir.ops.dense import Dense
from qcc.ir.ops.pool import MaxPool2d
from qcc.ir.ops.reduce import ReduceMean
from qcc.ir.qparams import QParams
from qcc.ir.types import f32
from qcc.passes.base import PassContext
from qcc.passes.graph_error import GraphError
from qcc.passes.manager import PassManager, parse_pipeline
from qcc.passes.sensitivity import (
    Cost,
    Restoration,
    Sensitivity,
    by_worth,
    cost_of,
    restorations,
    sensitivities,
)

Floats = NDArray[np.float32]
Stages = tuple[Graph, Graph, PassContext]


def samples(count: int = 24) -> Floats:
    return np.random.default_rng(7).normal(size=(count, 8, 8, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def net() -> Stages:
    """conv, relu, conv, max pool, mean, dense: annotated, calibrated, and what sensitivities are measured with."""
    rng = np.random.default_rng(2)
    graph = Graph("net")
    builder = Builder(graph)

    def weights(*shape: int, name: str) -> Value:
        return builder.constant(
            (rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32), name
        )

    a = graph.add_input("x", f32(1, 8, 8, 3))
    same = {"pads": (1, 1, 1, 1)}
    a = builder.emit(Conv2d(**same), a, weights(6, 3, 3, 3, name="w1"), name="first")
    a = builder.emit(Clamp(0.0), a, name="relu")
    a = builder.emit(Conv2d(**same), a, weights(4, 3, 3, 6, name="w2"), name="second")
    a = builder.emit(MaxPool2d((2, 2), (2, 2)), a, name="pooled")
    a = builder.emit(ReduceMean((1, 2)), a, name="mean")
    graph.add_output(builder.emit(Dense(), a, weights(5, 4, name="w3"), name="y"), "y")
    ctx = PassContext({"calibration": [{"x": samples()}]})
    annotated = PassManager(parse_pipeline("fuse-epilogues,calibrate,choose-qparams"), ctx).run(graph)
    resources = {"correction_samples": {"x": samples()}}
    return annotated, ctx.resources["calibrated_graph"], PassContext(resources)


def rounded(x: Floats, q: QParams) -> Floats:
    """Quantized and back, written out."""
    scale = np.asarray(q.scale)
    if q.axis is not None:
        scale = scale.reshape([-1 if i == q.axis else 1 for i in range(x.ndim)])
    low, high = (-32768, 32767) if q.dtype == "s16" else (-128, 127)
    return ((np.clip(np.rint(x / scale) + q.zero_point, low, high) - q.zero_point) * scale).astype(np.float32)


def run(graph: Graph, held: Callable[[Value], QParams | None]) -> NDArray[np.float64]:
    """The output where each value, weights included, is rounded as ``held`` says."""
    graph = graph.clone()
    for value in graph.values():
        qparams = held(value)
        if value.data is not None and qparams is not None:
            value.data = rounded(value.data, qparams)
        value.type = value.type.with_qparams(None)
    (given,) = graph.inputs
    qparams = held(given)
    x = samples() if qparams is None else rounded(samples(), qparams)
    execution = Execution.start(graph, {"x": x})
    for node in graph.nodes:
        execution.step(node)
        qparams = held(node.output)
        if qparams is not None:
            execution.replace(node.output, rounded(execution.array(node.output), qparams))
    return execution.array(graph.outputs[0]).astype(np.float64)


@pytest.fixture(scope="module")
def measured(net: Stages) -> tuple[float, dict[Restoration, Sensitivity]]:
    annotated, calibrated, ctx = net
    found = sensitivities(annotated, calibrated, restorations(annotated, calibrated), ctx, both=True)
    return found.noise, {s.restoration: s for s in found.found}


def test_restorations_are_scales_and_layers(net: Stages) -> None:
    annotated, calibrated, _ = net
    found = restorations(annotated, calibrated)
    assert [(r.to, r.name, r.values) for r in found] == [
        ("int16", "x", ("x",)),
        ("int16", "relu", ("relu",)),
        ("int16", "pooled", ("second", "pooled")),
        ("int16", "mean", ("mean",)),
        ("int16", "y", ("y",)),
        ("float", "first", ()),
        ("float", "second", ()),
        ("float", "y", ()),
    ]
    kept = restorations(annotated, calibrated, frozenset({"x", "second"}))
    assert [r.name for r in kept if r.to == "int16"] == ["relu", "mean", "y"]


def test_sensitivities_equal_brute_force(
    net: Stages, measured: tuple[float, dict[Restoration, Sensitivity]]
) -> None:
    annotated, _, _ = net
    own = {v.name: v.type.qparams for v in annotated.values()}
    reference = run(annotated, lambda v: None)

    def noise(held: dict[str, QParams | None]) -> float:
        y = run(annotated, lambda v: held.get(v.name))
        return float(np.sum((y - reference) ** 2) / np.sum(reference**2))

    base, found = measured
    assert base == pytest.approx(noise(own), rel=1e-3)
    for chosen, s in found.items():
        wide = None
        if chosen.to == "int16":
            names = list(chosen.values)
            ranges = [v.range for v in annotated.values() if v.name in names]
            reach = max(max(-r[0], r[1]) for r in ranges if r is not None)
            wide = QParams.per_tensor(float(np.float32(reach / 32767)), 0, "s16")
        else:
            names = [next(n for n in annotated.nodes if n.name == chosen.name).input(1).name]
        assert s.alone == pytest.approx(noise({name: own[name] for name in names}), rel=2e-3), chosen
        assert s.restored == pytest.approx(noise(own | dict.fromkeys(names, wide)), rel=2e-3), chosen


def test_noise_of_all_is_about_the_sum_of_each(
    measured: tuple[float, dict[Restoration, Sensitivity]],
) -> None:
    noise, found = measured
    assert sum(s.alone for s in found.values()) == pytest.approx(noise, rel=0.3)


def test_onnxruntime_measures_the_same(
    net: Stages, measured: tuple[float, dict[Restoration, Sensitivity]]
) -> None:
    annotated, calibrated, ctx = net
    resources = ctx.resources | {
        "runner": float_runtime.runner,
        "observer_factory": float_runtime.observer,
    }
    found = sensitivities(
        annotated, calibrated, restorations(annotated, calibrated), PassContext(resources)
    ).found
    for s in found:
        other = measured[1][s.restoration]
        assert (s.alone, s.local) == (
            pytest.approx(other.alone, rel=0.02),
            pytest.approx(other.local, rel=0.02),
        )
        assert s.restored is None


def test_what_is_not_measured_is_predicted(net: Stages) -> None:
    annotated, calibrated, ctx = net
    found = sensitivities(annotated, calibrated, restorations(annotated, calibrated), ctx, most=3).found
    noisiest = sorted(found, key=lambda s: -s.local)[:3]
    assert {s.restoration for s in found if s.measured} == {s.restoration for s in noisiest}
    typical = np.median([s.alone / s.local for s in noisiest])
    assert [s.alone for s in found] == sorted((s.alone for s in found), reverse=True)
    for s in found:
        if not s.measured:
            assert s.alone == pytest.approx(s.local * typical)


def test_costs_equal_a_count_by_hand(
    net: Stages, measured: tuple[float, dict[Restoration, Sensitivity]]
) -> None:
    first, second, dense = 64 * 6 * 27, 64 * 4 * 54, 20
    activations = 192 + 384 + 256 + 64 + 4 + 5
    assert cost_of(net[0]) == Cost(first + second + dense, activations + 6 * 27 + 4 * 54 + 20)
    added = {(r.to, r.name): s.added for r, s in measured[1].items()}
    assert added["int16", "x"] == Cost(first, 192)
    assert added["int16", "relu"] == Cost(first + second, 384)
    assert added["int16", "pooled"] == Cost(second, 256 + 64)
    assert added["int16", "mean"] == Cost(dense, 4)
    assert added["float", "second"] == Cost(3 * second, 3 * 4 * 54)


def test_order_takes_the_most_noise_for_the_least_cost(
    net: Stages, measured: tuple[float, dict[Restoration, Sensitivity]]
) -> None:
    annotated, calibrated, ctx = net
    found = sensitivities(annotated, calibrated, restorations(annotated, calibrated), ctx)
    order = by_worth(annotated, calibrated, found)
    assert sorted(order, key=id) == sorted(found.found, key=id)
    assert order[0] == max(found.found, key=lambda s: s.alone / s.added.total)
    assert by_worth(annotated, calibrated, found) == order


def test_fewer_samples_than_the_corrections_had_are_measured_anew(
    net: Stages, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What corrections left behind, outputs and noise of all samples, does not hold for some of them."""
    annotated, calibrated, ctx = net
    restored = restorations(annotated, calibrated)
    some = PassContext({**ctx.resources, "correction_samples": {"x": samples()[:8]}})
    expected = sensitivities(annotated, calibrated, restored, some).noise
    used = PassContext(dict(ctx.resources))
    error = GraphError.of(annotated, used)
    assert error is not None
    all_of_them = error.noise(annotated)
    assert {"uncorrected", "measured"} <= set(used.resources)
    monkeypatch.setattr("qcc.passes.sensitivity._MACS", 1)  # the fewest: 8 samples
    assert sensitivities(annotated, calibrated, restored, used).noise == expected != all_of_them
