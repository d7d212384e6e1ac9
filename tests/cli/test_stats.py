"""Statistics in files from the command line: collected apart, merged, used again; every refusal."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from qcc.ir.parser import load_graph


@pytest.fixture(scope="module")
def halves(qcc, model: Path, calib: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Statistics of the first and of the second half of the calibration data."""
    folder, files = tmp_path_factory.mktemp("stats"), []
    with np.load(calib) as data:
        images = data[data.files[0]]
    for number, part in enumerate((images[:64], images[64:])):
        np.save(folder / f"{number}.npy", part)
        files.append(folder / f"{number}.qstats")
        arguments = ("--calib", folder / f"{number}.npy", "--save-stats", files[-1], "--no-build")
        assert qcc("compile", model, "-o", folder / "out", *arguments).exit_code == 0
    return files


def test_merged_statistics_compile_to_the_library_of_all_the_data(
    qcc, model: Path, calib: Path, halves: list[Path], tmp_path: Path
) -> None:
    merged = tmp_path / "all.qstats"
    result = qcc("stats", "merge", *halves, "-o", merged)
    with np.load(calib) as data:
        count = len(data[data.files[0]])
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith(f"{merged}: {count} samples of ")
    choices = ("--observer", "mse", "--observer-of", "image=min-max", "--qspec", "a_bits=6", "--no-build")
    for source, out in ((("--calib", calib), "a"), (("--stats", merged), "b")):
        assert qcc("compile", model, "-o", tmp_path / out, *source, *choices).exit_code == 0
    one, other = (load_graph(tmp_path / out / "graphs" / "planned.qir") for out in "ab")
    assert [v.type for v in one.values()] == [v.type for v in other.values()]
    report = json.loads((tmp_path / "b" / "report.json").read_text())
    assert report["calibration"]["samples"] == count
    shown = qcc("stats", "show", merged).stdout
    assert f"{count} samples" in shown
    assert "moving average" in shown


def test_the_default_observer_chooses_the_ranges_of_the_run_that_wrote_the_file(
    qcc, model: Path, calib: Path, tmp_path: Path
) -> None:
    """Although that run judged corrections on more samples than the file keeps."""
    stats = tmp_path / "all.qstats"
    for out, source in (("a", ("--calib", calib, "--save-stats", stats)), ("b", ("--stats", stats))):
        choices = ("--no-corrections", "--no-build")
        assert qcc("compile", model, "-o", tmp_path / out, *source, *choices).exit_code == 0
    one, other = ((tmp_path / out / "graphs" / "planned.qir").read_text() for out in "ab")
    assert one == other
    notes = [json.loads((tmp_path / out / "report.json").read_text())["corrections"] for out in "ab"]
    assert notes[0] == notes[1]
    assert [c["pass"] for c in notes[0]] == ["prefer-extremes"]


def test_a_library_of_few_bits_equals_the_interpreter(
    qcc, model: Path, halves: list[Path], tmp_path: Path
) -> None:
    spec = "activations=symmetric weights=per-tensor a_bits=5 w_bits=4 narrow=true"
    result = qcc("compile", model, "-o", tmp_path / "out", "--stats", halves[0], "--qspec", spec)
    assert (result.exit_code, result.stderr) == (0, "")
    assert "samples equal to the interpreter" in result.stdout


# ---------------------------------------------------------------------- refusals
def another(path: Path) -> Path:
    """A model with another input."""
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", 4]) for n in "xy")
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "other", [x], [y])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def failure(result) -> str:
    assert result.exit_code == 1
    return str(result.stderr)


def test_statistics_of_another_model_are_refused(
    qcc, model: Path, halves: list[Path], tmp_path: Path
) -> None:
    other, stats = another(tmp_path / "other.onnx"), tmp_path / "other.qstats"
    text = failure(qcc("compile", other, "-o", tmp_path / "out", "--stats", halves[0]))
    assert text == (
        f"error: the statistics in {halves[0]} are those of another model: its inputs are not ['x']\n"
        "hint: collect them again with --save-stats, for this model\n"
    )
    text = failure(
        qcc(
            "compile", model, "-o", tmp_path / "out", "--stats", halves[0], "--float-pipeline", "canonicalize"
        )
    )
    assert "(calibrate): the statistics are those of another model" in text
    np.save(tmp_path / "x.npy", np.ones((3, 4), np.float32))
    arguments = ("--calib", tmp_path / "x.npy", "--save-stats", stats, "--no-build")
    assert qcc("compile", other, "-o", tmp_path / "out", *arguments).exit_code == 0
    text = failure(qcc("stats", "merge", halves[0], stats, "-o", tmp_path / "all.qstats"))
    assert text == (
        f"error: {stats} holds statistics of another model than {halves[0]}\n"
        "hint: merge statistics of one model, compiled with the same float passes\n"
    )


def test_statistics_beside_data_or_for_floats_are_refused(
    qcc, model: Path, calib: Path, halves: list[Path], tmp_path: Path
) -> None:
    arguments = ("compile", model, "-o", tmp_path / "out", "--stats", halves[0])
    assert failure(qcc(*arguments, "--calib", calib)) == (
        f"error: statistics in {halves[0]} are of no use: they take the place of calibration data\n"
        "hint: leave one of them out\n"
    )
    assert "are of no use: float32 needs none" in failure(qcc(*arguments, "--float32"))


def test_what_is_no_statistics_file_is_refused(qcc, model: Path, calib: Path, tmp_path: Path) -> None:
    text = failure(qcc("compile", model, "-o", tmp_path / "out", "--stats", tmp_path / "absent.qstats"))
    assert "absent.qstats: cannot read the arrays" in text
    assert "qcc compile --save-stats" in failure(qcc("stats", "show", calib)) or "is compressed" in failure(
        qcc("stats", "show", calib)
    )


def test_a_wrong_qspec_is_refused(qcc, model: Path, tmp_path: Path) -> None:
    text = failure(qcc("compile", model, "-o", tmp_path / "out", "--qspec", "w_bits=12"))
    assert text == "error: qspec: w_bits is 12\nhint: 2 to 8 bits are possible\n"
