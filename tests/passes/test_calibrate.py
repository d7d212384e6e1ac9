"""calibrate: which values get a range, from which data, with which observer; every refusal."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from quantized_nets import Array, Net, Samples, run_pass, value_of

from qcc.ir import interpreter
from qcc.ir.errors import PassError
from qcc.ir.graph import Graph, Value
from qcc.ir.ops.activation import Sigmoid, Tanh
from qcc.ir.ops.elementwise import Add, Div, Mul
from qcc.passes.base import PassContext
from qcc.passes.calibrate import CALIBRATORS, Calibrate, observer_names, register_calibrator
from qcc.passes.statistics import TensorStatistics


def residual() -> tuple[Graph, Samples]:
    """acc is fused into an add, total into a clamp, gate into a table."""
    net = Net(1, 4, 4, 3)
    total = net(Add(), net.x, net.conv(net.x, 3, name="acc"), name="total")
    y = net.relu(total, name="y")
    swish = net(Mul(), y, net(Sigmoid(), y, name="gate"), name="swish")
    graph = net.finish(swish)
    run_pass(graph, "fuse-epilogues")
    return graph, net.samples(8)


def seen(graph: Graph, samples: Samples) -> Samples:
    arrays: Samples = {}
    interpreter.run(graph, samples, observe=lambda v, a: arrays.update({v.name: a}))
    return arrays


def ranges(graph: Graph) -> dict[str, tuple[float, float]]:
    return {v.name: v.range for v in graph.values() if v.range is not None}


def test_ranges_are_those_of_the_values_widened_to_zero() -> None:
    graph, samples = residual()
    arrays = seen(graph, samples)
    graph, result = run_pass(graph, "calibrate", calibration=[samples])
    assert graph.stage == "annotated"
    assert result.changed
    expected = {
        n: (min(0.0, float(arrays[n].min())), float(arrays[n].max())) for n in ("x", "acc", "y", "swish")
    }
    assert ranges(graph) == expected  # acc, because choose-qparams may undo that fusion; not total, not gate
    assert [(n.node, n.rule, n.applied) for n in result.notes] == [
        (name, "calibrate-min-max", True) for name in expected
    ]
    low, high = arrays["swish"].min(), arrays["swish"].max()
    assert result.notes[-1].reason == f"[{low:.6g}, {high:.6g}]"


def test_a_positive_and_a_negative_range_reach_zero() -> None:
    net = Net(1, 3)
    graph = net.finish(net(Sigmoid(), net.x))
    x = np.array([[[-5.0, -4.0, -4.5]]], np.float32)
    run_pass(graph, "calibrate", calibration=[{"x": x}])
    assert value_of(graph, "x").range == (-5.0, 0.0)
    low, high = value_of(graph, graph.outputs[0].name).range or (1.0, 1.0)
    assert low == 0.0
    assert high == pytest.approx(1 / (1 + np.exp(4)))


@pytest.mark.parametrize("option", ["", "{observer=percentile p=90}"])
def test_the_cut_and_the_order_of_batches_do_not_matter(option: str) -> None:
    found = []
    for cut in (lambda x: [x], lambda x: np.split(x, [1, 4]), lambda x: np.split(x, 8)[::-1]):
        graph, samples = residual()
        batches = [{"x": part} for part in cut(samples["x"])]
        run_pass(graph, f"calibrate{option}", calibration=iter(batches))
        found.append(ranges(graph))
    assert found[0] == found[1] == found[2]


def test_percentile_leaves_outliers_outside() -> None:
    net = Net(1, 1000)
    graph = net.finish(net(Tanh(), net.x))
    x = np.random.default_rng(2).uniform(-1, 1, size=(10, 1, 1000)).astype(np.float32)
    x[3, 0, :4] = (50.0, 60.0, -70.0, -80.0)
    run_pass(graph, "calibrate{observer=percentile p=99}", calibration=[{"x": x}])
    low, high = value_of(graph, "x").range or (0.0, 0.0)
    step = 160.0 / 4096 * 2
    assert low == pytest.approx(float(np.percentile(x, 0.5)), abs=step)
    assert high == pytest.approx(float(np.percentile(x, 99.5)), abs=step)


def test_percentile_100_is_min_max() -> None:
    graph, samples = residual()
    run_pass(graph, "calibrate{observer=percentile p=100}", calibration=[samples])
    other, _ = residual()
    run_pass(other, "calibrate", calibration=[samples])
    assert ranges(graph) == ranges(other)


def test_an_observer_of_the_user() -> None:
    @register_calibrator("test-two-thirds")
    def two_thirds(statistics: TensorStatistics, options: Calibrate) -> tuple[float, float]:
        assert statistics.counts.sum() == statistics.count  # observers other than min-max get a histogram
        return statistics.min * 2 / 3, statistics.max * 2 / 3

    try:
        graph, samples = residual()
        _, result = run_pass(graph, "calibrate{observer=test-two-thirds}", calibration=[samples])
        assert value_of(graph, "x").range == (
            float(samples["x"].min()) * 2 / 3,
            float(samples["x"].max()) * 2 / 3,
        )
        assert result.notes[0].rule == "calibrate-test-two-thirds"
    finally:
        del CALIBRATORS["test-two-thirds"]


def test_a_lent_runtime_may_hand_values_in_any_layout_and_in_pieces() -> None:
    wanted: list[str] = []

    def factory(graph: Graph, values: list[Value], peaks: list[Value]) -> Callable[..., None]:
        wanted.extend(v.name for v in values)

        def observe(batch: Samples, record: Callable[[Value, Array], None]) -> None:
            def forward(value: Value, array: Array) -> None:
                for piece in np.array_split(array.reshape(-1)[::-1], 3):
                    record(value, piece)

            interpreter.run(graph, batch, observe=forward)  # also values that nobody wants

        return observe

    graph, samples = residual()
    run_pass(graph, "calibrate", calibration=[samples], observer_factory=factory)
    other, _ = residual()
    run_pass(other, "calibrate", calibration=[samples])
    assert wanted == ["x", "acc", "y", "swish"]
    assert ranges(graph) == ranges(other)


def test_progress_counts_samples() -> None:
    graph, samples = residual()
    steps: list[tuple[str, int, int]] = []
    ctx = PassContext(
        {"calibration": ({"x": p} for p in np.split(samples["x"], [3])), "calibration_samples": 8},
        progress=lambda what, done, total: steps.append((what, done, total)),
    )
    Calibrate().run(graph, ctx)
    assert steps == [("calibrating", 3, 8), ("calibrating", 8, 8)]


# ---------------------------------------------------------------------- refusals
def failure(option: str = "", **resources: object) -> PassError:
    graph, _ = residual()
    with pytest.raises(PassError) as caught:
        run_pass(graph, f"calibrate{option}", **resources)
    assert graph.stage == "float"
    assert not ranges(graph)
    return caught.value


def test_no_data_is_an_error() -> None:
    error = failure()
    assert error.message == "calibrate has no calibration data"
    assert error.hint == "pass --calib data.npz, or samples in resources"


@pytest.mark.parametrize("batches", [[], [{"x": np.zeros((0, 1, 4, 4, 3), np.float32)}]])
def test_empty_data_is_an_error(batches: list[Samples]) -> None:
    error = failure(calibration=batches)
    assert error.message == "the calibration data is empty"
    assert error.hint == "give at least one sample"


def test_an_unknown_observer_is_an_error_that_lists_the_known() -> None:
    error = failure("{observer=best}", calibration=[])
    assert error.message == "unknown observer 'best'"
    assert error.hint == f"known observers: {', '.join(observer_names())}"


@pytest.mark.parametrize("p", ["0", "-1", "100.5", "nan"])
def test_a_share_that_is_no_percentage_is_an_error(p: str) -> None:
    error = failure(f"{{observer=percentile p={p}}}", calibration=[])
    assert error.message == f"p = {float(p)} is no percentage"
    assert error.hint == "give the share to keep, such as p=99.99"


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("batch", [0, 1])
@pytest.mark.parametrize("observer", ["min-max", "percentile"])
def test_what_is_not_finite_is_an_error_in_any_batch(bad: float, batch: int, observer: str) -> None:
    _, samples = residual()
    batches = [{"x": p.copy()} for p in np.split(samples["x"], [4])]
    batches[batch]["x"][2, 0, 1, 1, 1] = bad
    error = failure(f"{{observer={observer}}}", calibration=batches)
    assert error.message == "%x is not finite on the calibration data"


def test_a_computed_value_that_is_not_finite_is_named() -> None:
    net = Net(1, 3)
    graph = net.finish(net(Div(), net.input("z", 1, 3), net.x, name="y"))
    data = {"x": np.zeros((1, 1, 3), np.float32), "z": np.ones((1, 1, 3), np.float32)}
    with pytest.raises(PassError) as caught:
        run_pass(graph, "calibrate", calibration=[data])
    assert caught.value.message == "%y is not finite on the calibration data"
    assert caught.value.hint is not None
    assert "overflows, or is not a number" in caught.value.hint


def test_batches_are_read_once_and_one_at_a_time() -> None:
    """The data may be larger than the memory."""
    graph, samples = residual()
    alive: list[int] = []

    def batches() -> Iterator[Samples]:
        for number in range(5):
            alive.append(number)
            yield {"x": samples["x"][:2] * number}

    progress: list[int] = []
    ctx = PassContext({"calibration": batches()}, progress=lambda *a: progress.append(len(alive)))
    Calibrate().run(graph, ctx)
    assert progress == [1, 2, 3, 4, 5]


def test_outputs_may_have_an_observer_of_their_own() -> None:
    net = Net(1, 8)
    graph = net.finish(net(Tanh(), net.relu(net.x, name="inner"), name="last"))
    _, result = run_pass(
        graph, "calibrate{observer=mean-min-max outputs=min-max}", calibration=[net.samples(4)]
    )
    rules = {n.node: n.rule for n in result.notes}
    assert rules["last"] == "calibrate-min-max"
    assert rules["x"] == "calibrate-mean-min-max"


def test_an_unknown_observer_of_outputs_is_an_error() -> None:
    net = Net(1, 8)
    graph = net.finish(net(Tanh(), net.x))
    with pytest.raises(PassError) as caught:
        run_pass(graph, "calibrate{outputs=best}", calibration=[net.samples(4)])
    assert caught.value.message == "unknown observer 'best'"
