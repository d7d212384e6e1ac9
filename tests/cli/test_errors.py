"""What the user reads when something is wrong: whole messages, on stderr, with the right status."""

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from qcc.cli import main


@pytest.fixture
def fails(qcc):
    """`fails(*arguments)`: stderr of a command that must exit with 1 and print nothing else."""

    def call(*arguments: object) -> str:
        result = qcc(*arguments)
        assert (result.exit_code, result.stdout) == (1, "")
        assert "Traceback" not in result.stderr
        return str(result.stderr)

    return call


@pytest.fixture
def misuses(qcc):
    """`misuses(*arguments)`: the last line of a usage error."""

    def call(*arguments: object) -> str:
        result = qcc(*arguments)
        assert result.exit_code == 2
        return str(result.stderr.splitlines()[-1])

    return call


def test_missing_model(fails, tmp_path: Path) -> None:
    assert fails("compile", "nowhere/model.onnx", "-o", tmp_path / "out") == (
        "error: model.onnx: nowhere/model.onnx does not exist\nhint: check the path of the model\n"
    )
    assert not (tmp_path / "out").exists()


def test_missing_calibration_file(fails, model: Path, tmp_path: Path) -> None:
    assert fails("compile", model, "--calib", "nowhere.npz", "-o", tmp_path / "out") == (
        "error: nowhere.npz does not exist\nhint: check the path of the calibration data\n"
    )


def test_unknown_target(fails, model: Path, tmp_path: Path) -> None:
    assert fails("compile", model, "-o", tmp_path / "out", "--target", "vax").startswith(
        "error: unknown target 'vax'\nhint: known targets: c, host, arm-neon, "
    )


def test_output_is_a_file(fails, model: Path, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("mine")
    assert (
        fails("compile", model, "-o", path)
        == f"error: {path} is a file\nhint: name a folder for the C library\n"
    )
    assert path.read_text() == "mine"


def test_output_below_a_file(fails, model: Path, calib: Path, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("mine")
    assert fails("compile", model, "--calib", calib, "-o", path / "out") == (
        f"error: cannot write {path / 'out'}: File exists\nhint: name a folder that you may write to\n"
    )


def test_output_is_not_ours(fails, model: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    assert fails("compile", model, "-o", tmp_path) == (
        f"error: {tmp_path} is not empty and was not written by qcc\nhint: name a new or an empty folder\n"
    )
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def test_output_read_only(fails, model: Path, calib: Path, tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    folder.mkdir()
    folder.chmod(0o500)
    try:
        (folder / "probe").touch()
        pytest.skip("this user may write everywhere")
    except PermissionError:
        assert fails("compile", model, "--calib", calib, "-o", folder / "out") == (
            f"error: cannot write {folder / 'out'}: Permission denied\nhint: name a folder that you may write to\n"
        )
    finally:
        folder.chmod(0o700)


@pytest.mark.parametrize("text", ["N", "=3", "N=", "N=0", "N=-1", "image=1x", "N=1.5"])
def test_shape_malformed(misuses, model: Path, tmp_path: Path, text: str) -> None:
    assert misuses("compile", model, "-o", tmp_path / "out", "--shape", text) == (
        f"Error: Invalid value for '--shape': {text!r}: write NAME=SIZE or INPUT=1x3x224x224"
    )


def test_shape_of_nothing(fails, model: Path, tmp_path: Path) -> None:
    assert fails("compile", model, "-o", tmp_path / "out", "--shape", "Q=2") == (
        "error: digits.onnx: --shape Q: the model has no input or dimension of that name\n"
        "hint: inputs and symbolic dimensions: image, N\n"
    )


def test_unknown_pass_points_into_the_pipeline(fails, model: Path) -> None:
    assert fails("opt", model, "--pipeline", "float,canonicalise") == (
        "error: <pipeline>:1:7: there is no pass canonicalise\n"
        "  float,canonicalise\n"
        "        ^\n"
        "hint: did you mean canonicalize?\n"
    )


def test_unknown_observer_and_percentile(misuses, model: Path, tmp_path: Path) -> None:
    arguments = ("compile", model, "-o", tmp_path / "out")
    wrong = misuses(*arguments, "--observer", "guess")
    assert wrong.startswith(
        "Error: Invalid value for '--observer': 'guess' is not one of admm, auto, eq, histogram, kl,"
    )
    assert misuses(*arguments, "--observer", "min-max", "--percentile", "99") == (
        "Error: --percentile belongs to --observer percentile, not to min-max"
    )
    assert misuses(*arguments, "--percentile", "101").startswith(
        "Error: Invalid value for '--percentile': 101"
    )
    assert misuses("compile", model) == "Error: Missing option '-o' / '--out'."


def test_dump_after_unknown_pass(fails, model: Path, tmp_path: Path) -> None:
    text = fails("compile", model, "-o", tmp_path / "out", "--dump-after", "calibrat")
    assert text.startswith(
        "error: cannot dump after calibrat: it is not in the pipeline\nhint: use all, or canonicalize"
    )


def test_opt_names_its_output(misuses, fails, model: Path, tmp_path: Path) -> None:
    assert misuses("opt", model, "--pipeline", "float", "-o", "graph.txt") == (
        "Error: Invalid value for '-o': graph.txt: the name must end in .qir"
    )
    path = tmp_path / "nowhere" / "graph.qir"
    assert fails("opt", model, "--pipeline", "float", "-o", path) == (
        f"error: cannot write {path}: No such file or directory\n"
    )
    assert fails("opt", tmp_path / "none.qir", "--pipeline", "float").startswith(
        f"error: {tmp_path}/none.qir: cannot read"
    )


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("x = 1\nx.y\n", ":2:1: the plugin failed: AttributeError: 'int' object has no attribute 'y'\n  x.y\n"),
        ("def f(:\n", ":1:1: the plugin failed: SyntaxError: invalid syntax\n  def f(:\n"),
        ("1 / 0\n", ":1:1: the plugin failed: ZeroDivisionError: division by zero\n  1 / 0\n"),
    ],
)  # fmt: skip
def test_plugin_with_an_error(fails, tmp_path: Path, source: str, expected: str) -> None:
    plugin = tmp_path / "plugin.py"
    plugin.write_text(source)
    assert fails("passes", "--plugin", plugin) == f"error: {plugin}{expected}"


def test_plugin_missing(fails, tmp_path: Path) -> None:
    path = tmp_path / "none.py"
    assert (
        fails("targets", "--plugin", path)
        == f"error: plugin {path} does not exist\nhint: name a Python file\n"
    )
    text = tmp_path / "plugin.txt"
    text.write_text("")
    assert fails("targets", "--plugin", text) == (
        f"error: plugin {text} is not a Python file\nhint: its name must end in .py\n"
    )


def test_verify_of_no_library(fails, tmp_path: Path) -> None:
    hint = "hint: name the folder that was given to qcc compile -o\n"
    assert fails("verify", tmp_path / "none") == f"error: {tmp_path / 'none'} does not exist\n{hint}"
    assert fails("bench", tmp_path) == f"error: {tmp_path} is no library written by qcc compile\n{hint}"


def test_verify_labels(fails, misuses, compiled, calib: Path) -> None:
    assert fails("verify", compiled[0], "--data", calib, "--labels", "kind") == (
        "error: digits_calib.npz has no labels 'kind'\nhint: its arrays: 'image', 'label'\n"
    )
    assert misuses("verify", compiled[0], "--labels", "kind") == "Error: --labels needs --data"


def test_verify_data_of_another_shape(fails, compiled, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((3, 2, 8, 8), np.float32))
    assert "has shape (3, 2, 8, 8), expected (N, 1, 8, 8)" in fails(
        "verify", compiled[0], "--data", tmp_path / "x.npy"
    )


def test_bench_refuses_an_emulator(fails, qcc, model: Path, calib: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert (
        qcc("compile", model, "--calib", calib, "-o", out, "--target", "arm-neon", "--no-build").exit_code
        == 0
    )
    text = fails("bench", out)
    if "cannot run here" in text or "cannot be built here" in text:
        pytest.skip("no compiler or no emulator for arm-neon here")
    assert text == (
        "error: target arm-neon cannot be timed here: the time of an emulator says nothing\n"
        "hint: compile for target host\n"
    )


def test_explain_unknown_node(fails, model: Path, calib: Path) -> None:
    assert fails("explain", model, "conv9", "--calib", calib).startswith(
        "error: the model has no node 'conv9'\nhint: did you mean conv"
    )
    assert fails("explain", model, "zzz", "--calib", calib).startswith(
        "error: the model has no node 'zzz'\nhint: nodes of the model: conv1_2, "
    )


def test_a_bug_is_not_swallowed(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object, **choices: object) -> None:
        raise KeyError("a bug of ours")

    monkeypatch.setattr("qcc.compile", broken)
    with pytest.raises(KeyError, match="a bug of ours"):
        CliRunner().invoke(main, ["compile", str(model), "-o", str(tmp_path / "o")], catch_exceptions=False)
