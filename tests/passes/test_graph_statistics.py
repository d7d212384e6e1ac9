"""Statistics of a graph: merged in any order, in a file and back, refused for another graph; the kept samples."""

import json
from pathlib import Path
from time import sleep

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from quantized_nets import Net, Samples, run_pass

from qcc.ir import interpreter
from qcc.ir.errors import ParseError, PassError
from qcc.ir.graph import Graph, Value
from qcc.ir.npz import load_arrays, pack_arrays
from qcc.ir.ops.activation import Clamp
from qcc.ir.ops.pool import MaxPool2d
from qcc.ir.ops.rearrange import Concat
from qcc.passes.base import PassContext
from qcc.passes.calibrate import collect, observed_values
from qcc.passes.graph_statistics import (
    COUNTED_SAMPLES,
    KEPT_BYTES,
    Batch,
    GraphStatistics,
    Observe,
    Record,
    SampleSketch,
    never_negative,
)
from qcc.passes.statistics import FEW, MANY, SMALLEST_STRIDE, TensorStatistics, histogram_stride
from qcc.passes.statistics_file import load_statistics, save_statistics


def net(seed: int = 0) -> tuple[Graph, Samples]:
    made = Net(1, 4, 4, 3, seed=seed)
    graph = made.finish(made.relu(made.conv(made.x, 2, name="acc"), name="y"))
    run_pass(graph, "fuse-epilogues")
    return graph, made.samples(60)


def collected(graph: Graph, *batches: Samples) -> GraphStatistics:
    return collect(graph, observed_values(graph), batches, PassContext())


def parts(samples: Samples, cuts: list[int]) -> list[Samples]:
    return [{"x": part} for part in np.split(samples["x"], sorted(set(cuts)))]


def facts(statistics: GraphStatistics) -> tuple[object, ...]:
    """All but the moving averages, which depend on the order."""
    tensors = {
        n: (t.count, t.min, t.max, t.exponent, t.first, t.counts.tolist())
        for n, t in statistics.tensors.items()
    }
    kept = {k: {n: a.tolist() for n, a in s.items()} for k, s in statistics.sketch.samples.items()}
    return statistics.digest, statistics.count, tensors, kept


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(1, 59), max_size=4), st.randoms(use_true_random=False))
def test_merging_in_any_order_is_collecting_all(cuts: list[int], random: object) -> None:
    graph, samples = net()
    found = [collected(graph, part) for part in parts(samples, cuts)]
    random.shuffle(found)  # type: ignore[attr-defined]
    first, *rest = found
    for other in rest:
        first.merge(other)
    assert facts(first) == facts(collected(graph, samples))


def test_merging_in_order_keeps_moving_averages() -> None:
    graph, samples = net()
    batches = parts(samples, [10, 20, 30, 40, 50])
    first, second = collected(graph, *batches[:2]), collected(graph, *batches[2:])
    first.merge(second)
    whole = collected(graph, *batches)
    for name, tensor in whole.tensors.items():
        assert first.tensors[name].moving.range == pytest.approx(tensor.moving.range, rel=1e-12)
        assert tensor.moving.batches == 6


def test_statistics_of_other_models_do_not_merge() -> None:
    (graph, samples), (other, _) = net(), net(seed=1)
    with pytest.raises(PassError) as caught:
        collected(graph, samples).merge(collected(other, samples))
    assert caught.value.message == "the statistics are those of different models"


# ---------------------------------------------------------------------- counted samples
def many(count: int = 900) -> tuple[Graph, Samples]:
    made = Net(1, 2, 2, 3)
    graph = made.finish(made.relu(made.conv(made.x, 2, name="acc"), name="y"))
    run_pass(graph, "fuse-epilogues")
    return graph, made.samples(count)


def test_histograms_count_some_samples_and_extremes_see_all() -> None:
    graph, samples = many()
    found = collected(graph, *parts(samples, list(range(32, 900, 32))))
    x, counted = found.tensors["x"], sum(found.seen[found.first_layer :])
    assert found.count == sum(found.seen) == 900
    assert COUNTED_SAMPLES / 4 < counted <= COUNTED_SAMPLES < counted + found.seen[found.first_layer - 1]
    assert x.counts.sum() == 12 * counted
    assert x.count == 12 * 900
    assert (x.min, x.max) == (samples["x"].min(), samples["x"].max())


@settings(deadline=None, max_examples=10)
@given(st.lists(st.integers(1, 899), max_size=4), st.randoms(use_true_random=False))
def test_counted_samples_do_not_depend_on_cut_or_order(cuts: list[int], random: object) -> None:
    graph, samples = many()
    found = [collected(graph, *parts(part, [50])) for part in parts(samples, cuts)]
    random.shuffle(found)  # type: ignore[attr-defined]
    first, *rest = found
    for other in rest:
        first.merge(other)
    assert facts(first) == facts(collected(graph, samples))


def test_large_samples_do_not_wait_for_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, samples = many()
    want = facts(collected(graph, samples))
    monkeypatch.setattr("qcc.passes.graph_statistics.KEPT_BYTES", 5 * graph.inputs[0].type.bytes)
    assert facts(collected(graph, *parts(samples, [7, 300])))[:3] == want[:3]


def test_equal_samples_are_counted_though_they_are_many() -> None:
    graph, samples = many(1)
    found = collected(graph, {"x": np.repeat(samples["x"], COUNTED_SAMPLES + 9, axis=0)})
    assert found.tensors["x"].counts.sum() == 12 * (COUNTED_SAMPLES + 9)


def test_the_smallest_of_what_cannot_be_negative_is_0() -> None:
    made = Net(1, 4, 4, 3)
    relu = made.relu(made.conv(made.x, 2), name="relu")
    pooled = made(MaxPool2d(strides=(2, 2)), relu, name="pooled")
    joined = made(Concat(3), pooled, made.relu(pooled), name="joined")
    graph = made.finish(made(Clamp(-1.0, 1.0), joined, name="both"))
    assert never_negative(made.relu(joined))
    assert not never_negative(made.relu(joined, high=-3.0))
    names = {v.name for v in (n.output for n in graph.nodes) if never_negative(v)}
    assert {"relu", "pooled", "joined"} < names
    assert not names & {"x", "both"}
    statistics = TensorStatistics(never_negative=True)
    statistics.extend(np.array([2.0, 3.0], np.float32))
    statistics.end_batch()
    assert (statistics.min, statistics.max, statistics.moving.range) == (0.0, 3.0, (0.0, 3.0))


# ---------------------------------------------------------------------- kept samples
def test_kept_samples_are_a_choice_that_ignores_order_and_repetition() -> None:
    graph, samples = net()
    once, often = SampleSketch.of_graph(graph), SampleSketch.of_graph(graph)
    once.update(samples)
    for _ in range(3):
        often.update({"x": samples["x"][::-1]})
    assert len(once.samples) == once.limit == 32
    assert sorted(once.samples) == sorted(often.samples)
    rows = {a.tobytes() for a in samples["x"]}
    assert {a.tobytes() for a in once.batch()["x"]} <= rows
    assert once.batch(3)["x"].shape == (3, *samples["x"].shape[1:])


def test_large_samples_are_few() -> None:
    made = Net(1, 2048, 1024, 3)
    sketch = SampleSketch.of_graph(made.graph)
    assert sketch.limit == 1  # of 24 MB
    assert made.x.type.bytes > KEPT_BYTES


# ---------------------------------------------------------------------- strides
def test_strides_are_prime_and_leave_enough() -> None:
    for elements in (1, FEW, FEW + 1, 16384, 65536, 224 * 224 * 32, 10**8):
        stride = histogram_stride(elements)
        assert stride == 1 or all(stride % n for n in range(2, int(stride**0.5) + 1))
        assert stride == 1 if elements <= FEW else stride >= SMALLEST_STRIDE
        assert -(-elements // stride) <= max(FEW, MANY)


def test_large_samples_are_counted_in_part_but_their_extremes_are_those_of_all() -> None:
    x = np.random.default_rng(0).normal(size=(5, 40, 50, 8)).astype(np.float32)
    x[3, 7, 7, 7] = 99.0
    whole, apart = TensorStatistics(), TensorStatistics()
    for part in (x[:2], x[2:]):
        whole.extend(part)
        whole.tally(part)
    for sample in x:
        apart.extend(sample[None])
        apart.tally(sample[None])
    stride = histogram_stride(16000)
    assert (whole.count, whole.max) == (x.size, 99.0)
    assert whole.counts.sum() == 5 * -(-16000 // stride)
    assert whole.counts.tolist() == apart.counts.tolist()
    kept = x.reshape(5, -1)[:, ::stride]
    assert whole.percentile_range(90) == pytest.approx(np.percentile(kept, [5, 95]), abs=0.05)


# ---------------------------------------------------------------------- files
def test_a_file_holds_the_statistics(tmp_path: Path) -> None:
    graph, samples = net()
    found = collected(graph, *parts(samples, [20, 40]))
    save_statistics(found, tmp_path / "a.qstats")
    read = load_statistics(tmp_path / "a.qstats")
    assert facts(read) == facts(found)
    assert {n: t.moving for n, t in read.tensors.items()} == {n: t.moving for n, t in found.tensors.items()}
    save_statistics(read, tmp_path / "b.qstats")
    assert (tmp_path / "a.qstats").read_bytes() == (tmp_path / "b.qstats").read_bytes()


@pytest.mark.parametrize(
    "observer",
    [
        "min-max",
        "moving-average",
        "mean-min-max",
        "percentile",
        "histogram",
        "mse",
        "kl",
        "admm",
        "auto",
        "eq",
    ],
)
def test_ranges_from_a_file_are_those_from_the_data(observer: str, tmp_path: Path) -> None:
    graph, samples = net()
    save_statistics(collected(graph, samples), tmp_path / "a.qstats")
    other, _ = net()
    run_pass(graph, f"calibrate{{observer={observer}}}", calibration=[samples])
    run_pass(other, f"calibrate{{observer={observer}}}", statistics=load_statistics(tmp_path / "a.qstats"))
    assert [v.range for v in graph.values()] == [v.range for v in other.values()]


def test_statistics_of_another_model_are_refused() -> None:
    (graph, samples), (other, _) = net(), net(seed=1)
    with pytest.raises(PassError) as caught:
        run_pass(other, "calibrate", statistics=collected(graph, samples))
    assert caught.value.message == "the statistics are those of another model: the graph was another one"
    assert caught.value.hint == (
        "collect them again with --save-stats, for this model and these float passes"
    )


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"header": b"{}"}, "'format'"),
        ({"header": b"\xff"}, "'utf-8' codec"),
        ({"format": "other"}, "it is 'other', expected"),
        ({"values": ["x"]}, "its arrays do not fit its header"),
        ({"counts": np.zeros(3, np.int64)}, "a histogram is cut short"),
        ({"counts": np.zeros(10**6, np.int64)}, "it holds other counts than its header says"),
        ({"reals": np.full((2, 6), np.nan)}, "a range is not finite"),
        ({"integers": np.full((2, 5), 2**40)}, "a histogram is cut short"),
        ({"integers": np.zeros((2, 5), np.int64)}, "it holds other counts than its header says"),
        ({"layers": np.full((9, 3), 2**40)}, "a histogram has bins that cannot be"),
        ({"sums": np.zeros((1, 4))}, "its means over samples cannot be"),
        ({"sums": np.full((1, 4), np.nan)}, "its means over samples cannot be"),
        ({"sums": np.ones((1, 4), np.float32)}, "its arrays have other types"),
        ({"sums": np.ones((0, 4))}, "it holds other counts than its header says"),
        ({"seen": [-1] * 8}, "its numbers of samples cannot be"),
        ({"counts": np.zeros(3, np.float32)}, "its arrays have other types"),
    ],
)
def test_a_damaged_file_is_an_error(change: dict[str, object], reason: str, tmp_path: Path) -> None:
    graph, samples = net()
    path = tmp_path / "a.qstats"
    save_statistics(collected(graph, samples), path)
    arrays = load_arrays(path)
    header = json.loads(bytes(arrays["header"]))
    for key, value in change.items():
        if key in header:
            header[key] = value
            value = json.dumps(header).encode()
            key = "header"
        arrays[key] = np.frombuffer(value, np.uint8) if isinstance(value, bytes) else np.asarray(value)
    path.write_bytes(pack_arrays(arrays))
    with pytest.raises(ParseError) as caught:
        load_statistics(path)
    assert caught.value.message.startswith("these are no statistics that this version reads: ")
    assert reason in caught.value.message


def test_what_is_no_archive_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.qstats").write_bytes(b"no archive")
    with pytest.raises(ParseError, match="cannot read the arrays"):
        load_statistics(tmp_path / "a.qstats")


# ---------------------------------------------------------------------- threads
@pytest.mark.parametrize("threads", [1, 3])
def test_statistics_do_not_depend_on_the_number_of_threads(
    threads: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    graph, samples = many(300)
    batches = parts(samples, [7, 40, 41, 200])
    save_statistics(collected(graph, *batches), tmp_path / "want.qstats")
    monkeypatch.setattr("qcc.passes.graph_statistics.processors", lambda: threads)
    save_statistics(collected(graph, *batches), tmp_path / "got.qstats")
    assert (tmp_path / "got.qstats").read_bytes() == (tmp_path / "want.qstats").read_bytes()


def test_the_order_of_batches_is_kept_though_one_takes_longer() -> None:
    graph, samples = net()
    batches = parts(samples, [10, 20, 30])

    def factory(graph: Graph, values: list[Value], peaks: list[Value]) -> Observe:
        def observe(batch: Batch, record: Record) -> None:
            if np.shares_memory(batch["x"], batches[0]["x"]):
                sleep(0.05)
            interpreter.run(graph, batch, observe=record)

        return observe

    late = collect(graph, observed_values(graph), batches, PassContext({"observer_factory": factory}))
    want = collected(graph, *batches)
    for name, tensor in late.tensors.items():
        assert tensor.moving == want.tensors[name].moving


def test_what_is_not_finite_is_reported_though_a_thread_found_it() -> None:
    graph, samples = net()
    samples["x"][30] = np.inf
    with pytest.raises(PassError, match="%x is not finite on the calibration data"):
        collected(graph, *parts(samples, [10, 20, 40]))
