"""`--min-ratio`: reached at a price, or refused with reasons; `qcc sensitivity`."""

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnxruntime
import pytest

import qcc as library
from qcc.ir import interpreter
from qcc.ir.errors import QccError
from qcc.ir.fixedpoint import dequantize, quantize
from qcc.ir.parser import load_graph
from qcc.ir.printer import print_graph

Arrays = dict[str, np.ndarray[Any, Any]]


@pytest.fixture(scope="module")
def kws(zoo: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path, Path]:
    """The zoo's entry, calibration data and evaluation data with labels."""
    entry, folder = zoo.load("kws"), tmp_path_factory.mktemp("kws")
    np.savez(folder / "calib.npz", x=entry.calib[:60])
    np.savez(folder / "eval.npz", x=entry.x[:80], y=entry.y[:80])
    return entry, folder / "calib.npz", folder / "eval.npz"


def explained(folder: Path, model: str, x: np.ndarray[Any, Any]) -> float:
    """1 - noise / signal of the saved integer program against the original model in onnxruntime."""
    graph = load_graph(folder / "graphs" / "planned.qir")
    given, result = graph.inputs[0], graph.outputs[0]
    assert given.type.qparams is not None
    assert result.type.qparams is not None
    outputs = interpreter.run(graph, {given.name: quantize(x, given.type.qparams)})
    y = dequantize(outputs[graph.output_names[0]], result.type.qparams).astype(np.float64)
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    reference = session.run(None, {session.get_inputs()[0].name: x})[0].astype(np.float64)
    return float(1 - np.sum((y.reshape(reference.shape) - reference) ** 2) / np.sum(reference**2))


@pytest.mark.compiler
def test_a_contract_is_reached_where_8_bits_are_too_few(qcc, kws, tmp_path: Path) -> None:
    entry, calib, evaluation = kws
    out = tmp_path / "kws"
    asked = ("--eval", evaluation, "--metric", "sqnr", "--min-ratio", "0.9998")
    result = qcc("compile", entry.model, "--calib", calib, "-o", out, *asked)
    assert result.exit_code == 0, result.stderr
    assert "samples equal to the interpreter" in result.stdout
    contract = json.loads((out / "report.json").read_text())["contract"]
    page = (out / "report.html").read_text()
    assert (
        f'sqnr reaches <b class="good">{contract["ratio"]:.6g}</b> of float on 80 evaluation samples' in page
    )
    table = page.partition('<table id="contract">')[2].partition("</table>")[0]
    for restored in contract["restorations"]:
        assert f'title="{restored["name"]}"' in table
        assert f"+{restored['added_macs']:,}" in table
    assert contract["ratio_before"] < 0.9998 <= contract["ratio"]
    assert contract["ratio"] == pytest.approx(explained(out, entry.model, entry.x[:80]), abs=1e-6)
    assert 0 < contract["added_macs"] < contract["macs"], "16 bits everywhere would double them"
    for entry in contract["restorations"]:
        assert entry["name"].rpartition("/")[2] in result.stdout.replace("\n", "")
        assert entry["ratio_without"] is None or entry["ratio_without"] < 0.9998
    planned = load_graph(out / "graphs" / "planned.qir")
    assert planned.inputs[0].type.dtype.value == planned.outputs[0].type.dtype.value == "s8"


def test_8_bits_that_suffice_stay_as_they_are(kws) -> None:
    entry, calib, evaluation = kws
    compiled = library.compile(entry.model, calibration=calib, evaluation=evaluation, min_ratio=0.98)
    contract = compiled.compilation.contract
    assert contract is not None
    assert (contract["metric"], contract["labels"], contract["restorations"]) == ("top1", True, [])
    plain = library.compile(entry.model, calibration=calib)
    x = entry.x[:4]
    np.testing.assert_array_equal(
        compiled.run_integer(compiled.quantize_input(x)), plain.run_integer(plain.quantize_input(x))
    )


def test_a_contract_out_of_reach_is_refused_with_what_each_restoration_brings(
    qcc, kws, tmp_path: Path
) -> None:
    entry, calib, evaluation = kws
    out = tmp_path / "kws"
    asked = ("--eval", evaluation, "--metric", "sqnr", "--min-ratio", "0.999995")
    result = qcc("compile", entry.model, "--calib", calib, "-o", out, *asked)
    assert (result.exit_code, result.stdout) == (1, "")
    assert not any(tmp_path.iterdir())
    lines = result.stderr.splitlines()
    assert lines[0].startswith("error: sqnr reaches 0.99")
    assert "of float, not 0.999995; with 8 bits alone 0.99" in lines[0]
    assert sum(line.startswith("  +0.") and " bytes" in line for line in lines) >= 5
    assert lines[-1].startswith("hint: lower --min-ratio; or let inputs and outputs have more than 8 bits")


def test_float_at_the_boundary_reaches_more_and_the_names_repeat_it(
    model: Path, calib: Path, test_data: Path
) -> None:
    choices: dict[str, Any] = {"evaluation": test_data, "min_ratio": 0.999995, "metric": "sqnr"}
    with pytest.raises(QccError, match="sqnr reaches"):
        library.compile(model, calibration=calib, **choices)
    found = [library.compile(model, calibration=calib, io="float", **choices) for _ in range(2)]
    contract = found[0].compilation.contract
    assert contract is not None
    assert contract["ratio"] >= 0.999995
    assert contract == found[1].compilation.contract, "the search is deterministic"
    names = {
        to: tuple(r["name"] for r in contract["restorations"] if r["to"] == to) for to in ("int16", "float")
    }
    repeated = library.compile(
        model, calibration=calib, io="float", int16=names["int16"], float_nodes=names["float"]
    )
    assert print_graph(repeated.graph)[0] == print_graph(found[0].graph)[0]


PLUGIN = """
from qcc.metrics import register_metric

@register_metric("{name}")
def measure(outputs, reference, labels):
    assert labels is not None
    return {result}
"""


@pytest.mark.parametrize(
    ("name", "result", "status"),
    [
        ("closeness", "2 - max(float(abs(outputs[n] - r).max()) for n, r in reference.items())", 0),
        ("nonsense", "float('nan')", 1),
    ],
)
def test_a_metric_of_a_plugin(
    qcc, model: Path, calib: Path, test_data: Path, tmp_path: Path, name: str, result: str, status: int
) -> None:
    plugin = tmp_path / f"{name}.py"
    plugin.write_text(PLUGIN.format(name=name, result=result))
    asked = ("--plugin", plugin, "--eval", test_data, "--min-ratio", "0.9", "--metric", name)
    found = qcc("compile", model, "--calib", calib, "--no-build", "-o", tmp_path / "out", *asked)
    assert found.exit_code == status, found.stderr
    if status == 0:
        assert "closeness 0.9" in found.stdout
    else:
        assert found.stderr == "error: the metric returned nan\nhint: it must return a finite number\n"


def test_without_labels_top1_is_agreement_with_float(model: Path, calib: Path, test_data: Path) -> None:
    with np.load(test_data) as data:
        images = {"image": data["image"][:100]}
    compiled = library.compile(model, calibration=calib, evaluation=images, min_ratio=0.5)
    contract = compiled.compilation.contract
    assert contract is not None
    assert not contract["labels"]
    q = compiled.run_integer(compiled.quantize_input(images))["probabilities"].reshape(100, -1)
    real = compiled.run_float(images)["probabilities"].reshape(100, -1)
    assert contract["ratio"] == (q.argmax(axis=1) == real.argmax(axis=1)).mean()


# ---------------------------------------------------------------- refusals
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--min-ratio", "0.9"], "min_ratio without evaluation has no use"),
        (["--eval"], "evaluation data without min_ratio has no use"),
        (["--eval", "--min-ratio", "1.5"], "min_ratio is 1.5"),
        (["--eval", "--min-ratio", "nan"], "min_ratio is nan"),
        (["--eval", "--min-ratio", "0.9", "--metric", "psnr"], "unknown metric 'psnr'"),
        (["--eval", "--min-ratio", "0.9", "--float32"], "min_ratio is for 8 bits, not for float32"),
        (["--eval", "--min-ratio", "0.9", "--dynamic"], "min_ratio is for 8 bits, not for dynamic"),
    ],
)
def test_choices_that_make_no_sense(
    qcc, model: Path, calib: Path, test_data: Path, tmp_path: Path, options: list[str], message: str
) -> None:
    given = [o for option in options for o in ([option, test_data] if option == "--eval" else [option])]
    result = qcc("compile", model, "--calib", calib, "-o", tmp_path / "out", *given)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: {message}")
    assert "hint: " in result.stderr
    assert not any(tmp_path.iterdir())


def spoiled(what: str, arrays: Arrays) -> Arrays:
    image, label = arrays["image"][:20].copy(), arrays["label"][:20]
    if what == "nan":
        image[3, 0, 2, 2] = np.nan
    if what == "shape":
        image = image[..., :7]
    if what == "one-hot":
        label = np.eye(10)[label]
    if what == "few":
        label = label[:19]
    if what == "range":
        label = np.arange(1, 21) % 11
    if what == "wrong":
        label = (label + 5) % 10
    if what == "text":
        label = label.astype(str)
    return {"image": image, "label": label}


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("nan", "eval.npz: array 'image' has 1 elements that are NaN"),
        ("shape", "eval.npz: array 'image' has shape (20, 1, 8, 7), expected (N, 1, 8, 8)"),
        ("one-hot", "the labels are float64 of shape (20, 10): expected one class for each of 20 samples"),
        ("few", "the labels are int64 of shape (19,): expected one class for each of 20 samples"),
        ("range", "the labels go from 0 to 10: expected class numbers from 0 to 9"),
        ("wrong", "the float model has top1 = 0 on the evaluation data: nothing to keep a share of"),
        ("text", "the labels are <U21 of shape (20,): expected one class for each of 20 samples"),
    ],
)
def test_evaluation_data_that_do_not_fit(
    qcc, model: Path, test_data: Path, tmp_path: Path, what: str, message: str
) -> None:
    """That is found before anything is calibrated: calibration data that are absent are not missed."""
    with np.load(test_data) as data:
        np.savez(tmp_path / "eval.npz", **spoiled(what, dict(data)))
    asked = ("--eval", tmp_path / "eval.npz", "--min-ratio", "0.9")
    result = qcc("compile", model, "--calib", tmp_path / "absent.npz", "-o", tmp_path / "out", *asked)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: {message}"), result.stderr
    assert len(result.stderr.splitlines()) == 2
    assert not (tmp_path / "out").exists()


def test_evaluation_data_that_are_not_there(qcc, model: Path, calib: Path, tmp_path: Path) -> None:
    asked = ("--eval", tmp_path / "eval.npz", "--min-ratio", "0.9")
    result = qcc("compile", model, "--calib", calib, "-o", tmp_path / "out", *asked)
    assert (result.exit_code, "eval.npz does not exist" in result.stderr) == (1, True)


def test_a_model_with_its_own_scales_has_nothing_to_restore(kws, zoo: ModuleType) -> None:
    _, _, evaluation = kws
    model = zoo.load("kws_qdq").model
    with pytest.raises(QccError, match="brings its own scales"):
        library.compile(model, evaluation=evaluation, min_ratio=0.999999, metric="sqnr")


# ---------------------------------------------------------------- qcc sensitivity
def test_sensitivity_prints_and_writes_what_was_measured(
    qcc, model: Path, calib: Path, tmp_path: Path
) -> None:
    file = tmp_path / "found.json"
    result = qcc("sensitivity", model, "--calib", calib, "--json", file, "--top", "3", "--measure", "5")
    assert result.exit_code == 0, result.stderr
    found = json.loads(file.read_text())
    rows = found["restorations"]
    assert len(rows) > 5
    assert sum(r["measured"] for r in rows) == 5
    assert [r["alone"] for r in rows] == sorted((r["alone"] for r in rows), reverse=True)
    assert f"{-10 * np.log10(found['noise']):.2f} dB, on {found['samples']} samples" in result.stdout
    assert f"{len(rows) - 3} more rows" in result.stdout
    assert rows[0]["name"] in result.stdout


def test_sensitivity_of_a_model_with_its_own_scales_is_refused(qcc, zoo: ModuleType) -> None:
    result = qcc("sensitivity", zoo.load("kws_qdq").model)
    assert result.exit_code == 1
    assert "kws_qdq.onnx brings its own scales" in result.stderr
