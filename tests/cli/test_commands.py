"""The commands at work, on the digits model."""

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from qcc.backends.target import TARGETS
from qcc.backends.targets import Availability, availability, find_target
from qcc.ir.parser import load_graph
from qcc.passes.base import PASSES
from qcc.passes.calibrate import CALIBRATORS
from qcc.passes.round_by import ROUNDING_SCHEMES

NAME = "c<b>"  # also what a page must escape


@pytest.fixture(scope="module")
def mixed_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A convolution in integers, then LRN, which has no integer form."""
    rng = np.random.default_rng(0)
    weight = numpy_helper.from_array(rng.normal(size=(4, 2, 3, 3)).astype(np.float32), "w")
    nodes = [
        helper.make_node("Conv", ["x", "w"], [NAME], pads=[1] * 4),
        helper.make_node("LRN", [NAME], ["n"], size=3),
        helper.make_node("Relu", ["n"], ["y"]),
    ]
    x, y = (
        helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", c, 6, 6]) for n, c in (("x", 2), ("y", 4))
    )
    graph = helper.make_graph(nodes, "mixed", [x], [y], [weight])
    path = tmp_path_factory.mktemp("mixed") / "mixed.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    np.save(path.with_suffix(".npy"), rng.normal(size=(8, 2, 6, 6)).astype(np.float32))
    return path


# ---------------------------------------------------------------- compile
def test_compile_prints_a_summary_and_writes_the_library(compiled) -> None:
    out, result = compiled
    assert (result.exit_code, result.stderr) == (0, "")
    for text in (
        "model      digits.onnx, sha256 934fe1a3ce9b",
        "target     c: portable C99, any processor; int8",
        "work       230,720 MACs in 6 steps",
        "arena 1,536 bytes; lower bound 1,536 bytes",
        "placement  7 nodes in integers, 0 in float",
        "112 of 112 requantized channels certified",
        "library    16 of 16 samples equal to the interpreter, on this machine",
        f"next: qcc verify {out}",
    ):
        assert text in result.stdout
    assert re.search(r"accuracy +probabilities: \d\d\.\d dB SQNR", result.stdout)
    names = {p.name for p in out.iterdir()}
    assert names >= {"digits.h", "digits.c", "digits.json", "report.json", "report.html", "graphs", "build"}
    report = json.loads((out / "report.json").read_text())
    assert report["verification"] == {
        "samples": 16,
        "equal": 16,
        "meaning": "equal to",
        "how": "on this machine",
    }


def test_compile_for_threads_says_how_many_steps_share_them(qcc, model, calib, tmp_path) -> None:
    out = tmp_path / "digits"
    result = qcc("compile", model, "--calib", calib, "-o", out, "--threads", "2")
    assert result.exit_code == 0
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    shared = sum(bool(layer["parts"]) for layer in report["layers"])
    assert 0 < shared < len(report["layers"])
    assert f"threads    2 share {shared} of {len(report['layers'])} steps" in result.stdout
    assert "16 of 16 samples equal to the interpreter" in result.stdout
    refused = qcc("compile", model, "-o", out, "--threads", "65")
    assert (refused.exit_code, "1<=x<=64" in refused.stderr) == (2, True)


def test_compile_without_calibration_warns(qcc, model: Path, tmp_path: Path) -> None:
    result = qcc("compile", model, "-o", tmp_path / "out", "--no-build")
    assert result.exit_code == 0
    assert result.stderr == (
        "warning: no calibration data: ranges come from synthetic noise, and the accuracy on real inputs is not "
        "known; give about 100 real samples with --calib\n"
    )
    assert "16 synthetic samples" in result.stdout
    assert "written, not built" in result.stdout
    assert json.loads((tmp_path / "out" / "report.json").read_text())["warnings"] != []


def test_compile_lists_what_runs_in_float(qcc, mixed_model: Path, tmp_path: Path) -> None:
    data = mixed_model.with_suffix(".npy")
    result = qcc("compile", mixed_model, "--calib", data, "-o", tmp_path / "out", "--no-build")
    assert result.exit_code == 0
    assert "1 in float" in result.stdout
    assert re.search(r"in float:\nnode +why it runs in float *\nn +lrn has no integer form", result.stdout)

    strict = qcc("compile", mixed_model, "--calib", data, "-o", tmp_path / "out", "--strict")
    assert strict.exit_code == 1
    assert "1 nodes have no integer form" in strict.stderr
    assert "hint: drop --strict to run them in float" in strict.stderr


def test_compile_float32_claims_a_tolerance_only(qcc, model: Path, calib: Path, tmp_path: Path) -> None:
    result = qcc("compile", model, "--calib", calib, "-o", tmp_path / "out", "--float32", "--name", "plain")
    assert result.exit_code == 0
    assert "16 of 16 samples within float tolerance of the interpreter" in result.stdout
    assert "certified" not in result.stdout
    assert (tmp_path / "out" / "plain.h").is_file()
    assert not (tmp_path / "out" / "graphs" / "planned.qir").exists()
    assert "within float tolerance of" in qcc("verify", tmp_path / "out").stdout


def test_compile_float_boundary_shape_and_observer(qcc, model: Path, calib: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = ("--io", "float", "--shape", "N=1", "--observer", "percentile", "--percentile", "99")
    assert qcc("compile", model, "--calib", calib, "-o", out, *options, "--no-build").exit_code == 0
    record = json.loads((out / "digits.json").read_text())
    assert [p["dtype"] for p in (*record["inputs"], *record["outputs"])] == ["f32", "f32"]
    assert "observer=percentile p=99.0" in (out / "report.json").read_text()


@pytest.mark.compiler
def test_compile_writes_weights_in_the_form_asked_for(qcc, model: Path, calib: Path, tmp_path: Path) -> None:
    for form, suffixes in (("auto", {".c", ".h"}), ("c", {".c", ".h"}), ("binary", {".S", ".bin", ".h"})):
        result = qcc("compile", model, "--calib", calib, "--weights", form, "-o", tmp_path / form)
        assert result.exit_code == 0, result.output
        assert {p.suffix for p in (tmp_path / form).glob("*_weights.*")} == suffixes


def test_compile_says_loudly_what_it_could_not_run(
    qcc, model: Path, calib: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Availability, "runs", property(lambda self: False))
    result = qcc("compile", model, "--calib", calib, "-o", tmp_path / "out", "--target", "c")
    assert result.exit_code == 0
    assert "warning: built, not run: no emulator for c here" in result.stderr
    assert "library    built, not run: no emulator for c here" in result.stdout
    assert list((tmp_path / "out" / "build").glob("*.o"))
    monkeypatch.setattr(Availability, "builds", property(lambda self: False))
    result = qcc("compile", model, "--calib", calib, "-o", tmp_path / "out")
    assert result.exit_code == 0
    assert "warning: not built: no compiler for c here" in result.stderr


def test_compile_dumps_and_verifies_each_pass(qcc, model: Path, calib: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = ("--dump-after", "all", "--verify-each", "--no-build")
    assert qcc("compile", model, "--calib", calib, "-o", out, *options).exit_code == 0
    dumps = sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.glob("out-dumps/*/*.qir"))
    assert dumps[0] == "out-dumps/1-float/01-canonicalize.qir"
    assert dumps[-1].startswith("out-dumps/2-quantize/")
    assert load_graph(tmp_path / dumps[-1]).stage == "planned"

    one = ("--dump-after", "calibrate", "--dump-folder", tmp_path / "one", "--no-build")
    assert qcc("compile", model, "--calib", calib, "-o", out, *one).exit_code == 0
    assert [p.stage for p in map(load_graph, tmp_path.glob("one/*/*.qir"))] == ["annotated"]


@pytest.fixture
def registries() -> Iterator[None]:
    """What a test registers is gone after it."""
    kept = [(registry, dict(registry)) for registry in (PASSES, CALIBRATORS)]
    yield
    for registry, content in kept:
        registry.clear()
        registry.update(content)


@pytest.mark.usefixtures("registries")
def test_compile_uses_the_passes_and_calibrators_of_a_plugin(
    qcc, model: Path, calib: Path, tmp_path: Path
) -> None:
    plugin = tmp_path / "plugin.py"
    plugin.write_text(
        "from qcc.passes.base import Note, Pass, PassResult, register_pass\n"
        "from qcc.passes.calibrate import register_calibrator\n"
        "@register_calibrator('tests-half')\n"
        "def half(statistics, options):\n"
        "    return statistics.min / 2, statistics.max / 2\n"
        "@register_pass\n"
        "class Nothing(Pass):\n"
        "    '''Do nothing.'''\n"
        "    name = 'tests-nothing'\n"
        "    how_often: int = 1\n"
        "    def run(self, graph, ctx):\n"
        "        return PassResult(False, (Note('conv1', 'tests-rule', False, 'it does nothing'),))\n"
    )
    pipeline = ("--float-pipeline", "float,tests-nothing{how_often=2}", "--observer", "tests-half")
    out = tmp_path / "out"
    result = qcc("compile", model, "--calib", calib, "-o", out, "--plugin", plugin, *pipeline, "--no-build")
    assert result.exit_code == 0
    report = json.loads((out / "report.json").read_text())
    assert "tests-nothing" in [p["name"] for p in report["passes"]]
    assert (report["ranges"][0]["tensor"], report["ranges"][0]["high"]) == ("image", 0.5)
    manual = re.sub(r" +\n", "\n", qcc("passes").stdout)  # registered by now
    assert "tests-nothing  [any; exact]\n  Do nothing.\n  {how_often=...}  int, default 1" in manual


# ---------------------------------------------------------------- verify and bench
def test_verify_counts_equal_samples_and_label_accuracy(
    qcc, compiled, test_data: Path, tmp_path: Path
) -> None:
    result = qcc("verify", compiled[0], "--data", test_data)
    assert result.exit_code == 0
    assert "450 of 450 samples equal to the interpreter" in result.stdout.replace("\n", " ")
    assert re.search(
        r"probabilities +\d\d\.\d dB +0\.9999\d\d +\d+\.\d\d% +99\.\d\d% +99\.\d\d%", result.stdout
    )

    data = np.load(test_data)
    np.savez(tmp_path / "other.npz", image=data["image"][:40], kind=(data["label"][:40] + 1) % 10)
    wrong = qcc("verify", compiled[0], "--data", tmp_path / "other.npz", "--labels", "kind")
    assert re.search(r" 0\.00% +0\.00%", wrong.stdout)


def test_verify_without_data_uses_noise(qcc, compiled) -> None:
    result = qcc("verify", compiled[0])
    assert result.exit_code == 0
    assert "16 of 16 samples equal to the interpreter (seeded noise: accuracy says little)" in result.stdout


def test_verify_names_the_first_difference(qcc, compiled, calib: Path, tmp_path: Path) -> None:
    """Another zero_point in one layer: sixteen wrong channels, found and named."""
    out = tmp_path / "digits"
    shutil.copytree(compiled[0], out)
    source = (out / "digits.c").read_text()
    (out / "digits.c").write_text(
        source.replace("-128, /* output_zero_point */", "-100, /* output_zero_point */", 1)
    )
    result = qcc("verify", out, "--data", calib)
    assert result.exit_code == 1
    counted = re.match(r"(\d+) of 100 samples equal to the interpreter", result.stdout)
    assert counted is not None
    assert int(counted[1]) < 100
    assert re.search(
        r"first: sample 0, output probabilities, element \d+: expected -?\d+, got -?\d+", result.stdout
    )
    assert "first step that differs: sample 0, step 1 of 6, %relu1 = conv2d+requantize" in result.stdout


def test_bench_prints_both_times(qcc, compiled, calib: Path) -> None:
    result = qcc("bench", compiled[0], "--data", calib, "--seconds", "0.02")
    assert result.exit_code == 0
    number = r"[\d,]+\.\d\d"
    assert re.search(rf"qcc library +{number} +{number} +{number} +[\d,]+", result.stdout)
    assert re.search(rf"onnxruntime float32, 1 thread +{number} +{number}", result.stdout)
    assert "Other work on this machine moves these numbers" in result.stdout


def test_bench_prints_each_layer(qcc, compiled, calib: Path) -> None:
    result = qcc("bench", compiled[0], "--data", calib, "--seconds", "0.02")
    assert "layer" in result.stdout
    assert "of peak" not in result.stdout  # target c says nothing about the processor
    layers = json.loads((compiled[0] / "digits.json").read_text())["layers"]
    number, share = r"[\d,]+\.\d\d", r"\d+\.\d%"
    for layer in layers:
        rate = rf" +{layer['macs']:,} +\d+\.\d" if layer["macs"] else " *"
        line = rf"^{layer['name']} +{re.escape(layer['kernel'])} +{number} +{number} +{share}{rate} *$"
        assert re.search(line, result.stdout, re.MULTILINE), layer["name"]
    assert re.search(rf"[\d,]+ runs; {number} us in all$", result.stdout, re.MULTILINE)


@pytest.mark.compiler
def test_bench_knows_the_peak_of_vector_instructions(qcc, model: Path, calib: Path, tmp_path: Path) -> None:
    if not availability(find_target("x86-avx512vnni")).runs:
        pytest.skip("the processor lacks AVX512-VNNI, or there is no compiler")
    out = tmp_path / "digits"
    assert qcc("compile", model, "--calib", calib, "-o", out, "--target", "x86-avx512vnni").exit_code == 0
    text = qcc("bench", out, "--data", calib, "--seconds", "0.02").stdout
    assert re.search(r"GMAC/s +of peak", text)
    assert re.search(r"peak: \d+ GMAC/s, a loop of multiply-accumulates over registers", text)


# ---------------------------------------------------------------- opt, explain, passes, targets
def test_opt_writes_a_graph_that_opt_reads(qcc, model: Path, calib: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "float.qir", tmp_path / "planned.qir"
    assert qcc("opt", model, "--pipeline", "float", "-o", first, "--shape", "N=1").exit_code == 0
    assert load_graph(first).stage == "float"
    rest = "fuse-epilogues,calibrate{observer=min-max},choose-qparams,quantize-ops,plan-accumulators"
    result = qcc("opt", first, "--pipeline", rest, "--calib", calib, "-o", second, "--time-passes")
    assert result.exit_code == 0
    assert load_graph(second).stage == "planned"
    assert re.search(r"plan-accumulators +\d+\.\d\d", result.stderr)
    shown = qcc(
        "opt", model, "--pipeline", "fold-batch-norm", "-o", first, "--shape", "N=1", "--print-ir-diff"
    )
    lines = shown.stderr.splitlines()
    assert lines[1] == "+++ after pass 1 (fold-batch-norm)"
    assert sum(line.startswith("-  %norm") and "nn.batch_norm" in line for line in lines) == 3
    assert qcc("opt", model, "--pipeline", "float", "-o", first, "--shape", "N=1").exit_code == 0
    printed = qcc("opt", first, "--pipeline", "eliminate-dead")
    assert printed.stdout == first.read_text()


def test_opt_measures_simulated_codes(qcc, model: Path, calib: Path, test_data: Path, tmp_path: Path) -> None:
    def sqnr(*passes: str) -> float:
        pipeline = ",".join(("float", "fuse-epilogues", "calibrate", *passes))
        options = ("--shape", "N=1", "--calib", calib, "--eval", test_data, "--notes", passes[-1])
        result = qcc("opt", model, "--pipeline", pipeline, "-o", tmp_path / "out.qir", *options)
        assert result.exit_code == 0
        assert re.search(rf"^{passes[-1]} ", result.stderr, re.MULTILINE)
        found = re.search(r"^\S+: (\S+) dB SQNR against digits.onnx$", result.stderr, re.MULTILINE)
        return float(found[1])

    weights, all_of_it = sqnr("simulate-codes"), sqnr("choose-qparams", "analyze-mse")
    assert 5 < weights < all_of_it
    misused = qcc("opt", model, "--pipeline", "float", "--notes", "calibrate", "--shape", "N=1")
    assert misused.exit_code == 2
    assert "calibrate is not in the pipeline" in misused.stderr


def test_explain_follows_a_node_to_its_kernel(qcc, model: Path, calib: Path) -> None:
    result = qcc("explain", model, "conv1", "--calib", calib)
    assert result.exit_code == 0
    text = result.stdout
    assert "conv1 is computed together with, or inside: norm1, relu1" in text
    assert re.search(r"fold-affine +norm1 +fold-bias-after +applied", text)
    assert re.search(r"remove-dead-channels +\S+ +remove-dead-channels +declined", text) is None
    assert "kernel qcc_s8_conv2d_scalar computes conv2d+requantize -> relu1" in text
    assert "refused: qcc_s8_depthwise_conv2d_scalar: not depthwise" in text
    declined = qcc("explain", model, "logits", "--calib", calib).stdout
    assert re.search(
        r"remove-dead-channels +logits\.acc +remove-dead-channels +declined +wide_softmax", declined
    )
    assert (
        "no kernel: the bytes are only renamed" in qcc("explain", model, "features", "--calib", calib).stdout
    )


def test_passes_prints_the_manual(qcc) -> None:
    text = qcc("passes").stdout
    assert "calibrate  [float -> annotated; exact]" in text
    assert "  {observer=...}  str, default min-max" in text
    assert "pipeline float = " in text


def test_targets_says_what_works_here(qcc) -> None:
    text = qcc("targets").stdout
    for name in ("c", "host", "arm-neon", "cortex-m4", "x86-avx512vnni", "x86-avxvnni", "x86-avx2"):
        assert re.search(rf"^{name} +{re.escape(find_target(name).description)}", text, re.MULTILINE)


def test_help_teaches_and_the_module_runs() -> None:
    start = time.perf_counter()
    result = subprocess.run(
        [sys.executable, "-m", "qcc", "--help"], capture_output=True, text=True, check=True
    )
    assert time.perf_counter() - start < 10  # a second on an idle machine
    for text in ("A first session:", "qcc compile model.onnx --calib data.npz -o out", "explain", "targets"):
        assert text in result.stdout


def test_compile_knows_the_targets_and_roundings_of_a_plugin(
    qcc, model: Path, calib: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for registry in (TARGETS, ROUNDING_SCHEMES):
        monkeypatch.setitem(registry, "tests-of-mine", None)
        del registry["tests-of-mine"]  # and again, whatever the plugin puts there, behind the test
    plugin, out = tmp_path / "mine.py", tmp_path / "out"
    plugin.write_text(
        "from dataclasses import replace\n"
        "import numpy as np\n"
        "from qcc.backends.target import register_target\n"
        "from qcc.backends.targets import find_target\n"
        "from qcc.passes.round_by import register_rounding\n"
        "register_target(replace(find_target('c'), name='tests-of-mine', flags=('-Os',)))\n"
        "@register_rounding('tests-of-mine')\n"
        "def down(steps, limit):\n"
        "    return np.clip(np.floor(steps), -limit, limit)\n"
    )
    own = (
        "--plugin",
        plugin,
        "--target",
        "tests-of-mine",
        "--annotated-pipeline",
        "round-by{scheme=tests-of-mine}",
    )
    result = qcc("compile", model, "--calib", calib, "-o", out, *own)
    assert result.exit_code == 0, result.stderr
    report = json.loads((out / "report.json").read_text())
    assert report["target"] == "tests-of-mine"
    assert "round-by" in [p["name"] for p in report["passes"]]
    assert qcc("verify", out).exit_code == 0
