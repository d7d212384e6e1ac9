"""qcc compare: it finds a planted difference at its node, and has nothing to say where there is none."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import Result
from onnx import numpy_helper

from qcc import metrics, verify
from qcc.compare import Comparison, Subject, compare, open_subject
from qcc.float_runtime import FloatRuntime
from qcc.ir import interpreter
from qcc.ir.errors import QccError
from qcc.ir.graph import Graph
from qcc.ir.parser import load_graph
from qcc.ir.printer import save_graph
from qcc.options import CompileOptions
from qcc.saved import open_saved

Qcc = Callable[..., Result]


def plant(graph: Graph, index: int, delta: int) -> str:
    """Change one weight of the ``index``-th node that has weights; returns the node's name."""
    node = [n for n in graph.nodes if n.op.quant_rule().weight is not None][index]
    position = node.op.quant_rule().weight
    assert position is not None
    weight = node.input(position)
    assert weight.data is not None
    data = weight.data.copy()
    at = np.unravel_index(int(np.abs(data.astype(np.int64)).argmin()), data.shape)
    data[at] += delta
    graph.set_input(node, position, graph.constant(data, weight.name, weight.type))
    return node.name


@pytest.fixture
def planned(compiled: tuple[Path, Result]) -> Path:
    return compiled[0] / "graphs" / "planned.qir"


@pytest.fixture
def samples(test_data: Path) -> dict[str, np.ndarray]:
    with np.load(test_data) as data:
        return {"image": data["image"][:8].astype(np.float32)}


def compare_files(a: Path, b: Path, samples: dict[str, np.ndarray], **choices: float) -> Comparison:
    options = CompileOptions()
    return compare(open_subject(a, options), open_subject(b, options), samples, **choices)


@pytest.mark.parametrize("index", [0, 1, 2])
def test_a_changed_weight_is_found_at_its_node(
    planned: Path, samples: dict[str, np.ndarray], tmp_path: Path, index: int
) -> None:
    graph = load_graph(planned)
    name = plant(graph, index, 1)
    save_graph(graph, tmp_path / "other.qir")
    found = compare_files(planned, tmp_path / "other.qir", samples)
    assert found.first is not None
    assert found.first.name == name
    assert found.first.integers
    before = found.rows[: found.rows.index(found.first)]
    assert all(row.equal and row.sqnr_db == np.inf for row in before)
    assert found.computed[0] == found.computed[1] == len(found.rows)


def test_status_tells_of_a_divergence_only_when_asked(
    qcc: Qcc, planned: Path, test_data: Path, tmp_path: Path
) -> None:
    graph = load_graph(planned)
    name = plant(graph, 1, 30)
    other = tmp_path / "other.qir"
    save_graph(graph, other)
    free = qcc("compare", planned, other, "--data", test_data, "--samples", 4)
    assert free.exit_code == 0
    assert f"the runs part at {name}" in free.stdout
    assert qcc("compare", planned, other, "--data", test_data, "--threshold", "inf").exit_code == 1
    same = qcc("compare", planned, planned, "--data", test_data, "--threshold", "inf")
    assert same.exit_code == 0
    assert "no value is under inf dB" in same.stdout


def test_float_model_against_its_library(
    qcc: Qcc, compiled: tuple[Path, Result], model: Path, samples: dict[str, np.ndarray], test_data: Path
) -> None:
    out = compiled[0]
    found = compare_files(model, out, samples)
    assert found.first is None
    saved = open_saved(out)
    reference = FloatRuntime(saved.float_graph).run(samples)["probabilities"]
    last = found.rows[-1]
    assert last.name == "probabilities"
    wanted = open_subject(out, CompileOptions())
    own = compare(Subject("float", saved.float_graph), wanted, samples).rows[-1]
    assert own.sqnr_db == pytest.approx(last.sqnr_db, abs=0.01)
    assert last.signal == pytest.approx(float((reference.astype(np.float64) ** 2).sum()), rel=1e-5)
    shown = qcc("compare", model, out, "--data", test_data, "--threshold", 60)
    assert shown.exit_code == 1
    assert "first divergence" in shown.stdout
    assert "probabilities" in shown.stdout


def test_a_changed_onnx_model_diverges_at_the_layer(
    model: Path, samples: dict[str, np.ndarray], tmp_path: Path
) -> None:
    proto = onnx.load(model)
    weights = [t for t in proto.graph.initializer if len(t.dims) == 4]
    changed = numpy_helper.to_array(weights[1]).copy()
    changed[0] += 3.0
    weights[1].CopyFrom(numpy_helper.from_array(changed, weights[1].name))
    onnx.save(proto, tmp_path / "changed.onnx")
    found = compare_files(model, tmp_path / "changed.onnx", samples)
    readers = [n.output[0] for n in proto.graph.node if weights[1].name in n.input]
    assert found.first is not None
    position = found.rows.index(found.first)
    assert all(row.equal for row in found.rows[:position])
    assert found.first.op == "conv2d"
    assert readers
    assert found.steepest is found.first


def test_figures_are_those_of_metrics(planned: Path, samples: dict[str, np.ndarray], tmp_path: Path) -> None:
    graph = load_graph(planned)
    plant(graph, 0, 40)
    save_graph(graph, tmp_path / "other.qir")
    last = compare_files(planned, tmp_path / "other.qir", samples).rows[-1]
    a, b = (_outputs(load_graph(p), samples) for p in (planned, tmp_path / "other.qir"))
    assert last.sqnr_db == pytest.approx(metrics.sqnr_db(a, b), abs=1e-6)
    assert last.cosine == pytest.approx(metrics.cosine(a, b), abs=1e-9)
    assert last.max_error == pytest.approx(float(np.abs(a - b).max()), rel=1e-6)


def _outputs(graph: Graph, samples: dict[str, np.ndarray]) -> np.ndarray:
    run = interpreter.run(graph, verify.quantize_inputs(graph, samples))
    return verify.dequantize_outputs(graph, run)["probabilities"]


def test_removed_channels_and_equalized_ones_are_taken_into_account(
    planned: Path, samples: dict[str, np.ndarray]
) -> None:
    graph = load_graph(planned)
    value = next(v for v in (n.output for n in graph.nodes) if v.name == "relu1")
    channels = value.type.shape[-1]
    plain = Subject("a", graph)
    doubled = Subject("b", load_graph(planned), {}, {"relu1": [2.0] * channels})
    rows = {r.name: r for r in compare(plain, doubled, samples).rows}
    assert rows["relu1"].sqnr_db == pytest.approx(
        20 * np.log10(2), abs=1e-3
    )  # halved: the noise is half the signal
    assert rows["probabilities"].equal


def test_values_changed_in_other_ways_have_no_partner(planned: Path, samples: dict[str, np.ndarray]) -> None:
    plain = Subject("a", load_graph(planned))
    changed = Subject("b", load_graph(planned), others=["relu1"])
    assert "relu1" not in {r.name for r in compare(plain, changed, samples).rows}


def test_models_that_have_nothing_in_common_are_refused(
    planned: Path, samples: dict[str, np.ndarray]
) -> None:
    other = load_graph(planned)
    other.inputs[0].name = "another"
    with pytest.raises(QccError, match="the inputs are not the same"):
        compare(Subject("a", load_graph(planned)), Subject("b", other), samples)


def test_folder_brings_its_record(compiled: tuple[Path, Result], tmp_path: Path) -> None:
    subject = open_subject(compiled[0], CompileOptions())
    report = json.loads((compiled[0] / "report.json").read_text())
    assert dict(subject.kept_channels) == report["dead_channels"]["kept_channels"]
