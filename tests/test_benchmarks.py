"""The benchmarks' machinery, not their figures: a contest on the digits model, models with random weights, hidden features."""

import importlib
import platform
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from qcc.backends.target import find_target
from qcc.backends.x86.features import lacking_features

CHECKOUT = Path(__file__).resolve().parent.parent
EXAMPLES = CHECKOUT / "examples"


@pytest.fixture
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The folder of scripts is importable, and its modules are forgotten afterwards."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(CHECKOUT / "benchmarks"))
    yield
    for name in (
        "contest",
        "peers",
        "models",
        "seeded_models",
        "engines",
        "engines.base",
        "isa_limit",
        "tvm_kernels",
    ):
        if name not in before:
            sys.modules.pop(name, None)


@pytest.mark.compiler
@pytest.mark.skipif(
    sys.platform != "linux", reason="processes are pinned, and their memory read, as Linux does"
)
@pytest.mark.usefixtures("benchmarks")
def test_engines_take_turns_in_processes_of_their_own(tmp_path: Path) -> None:
    contest, peers, seeded_models = (
        importlib.import_module(name) for name in ("contest", "peers", "seeded_models")
    )
    calibration = np.load(EXAMPLES / "digits_calib.npz")["image"]
    entry = seeded_models.Entry(EXAMPLES / "digits.onnx", calibration, calibration[:4])
    case = contest.Case.make("digits", entry, tmp_path)
    ours = contest.compile_ours(case, "c")
    assert ours.exact
    installed = [p for p in peers.find_installed(None) if p.peer.name.startswith("onnxruntime")]
    assert len(installed) == 2
    assert all(v.startswith("onnxruntime ") for p in installed for v in p.versions)
    broken = peers.Installed(peers.Peer("broken", "engines.none:load", ()), Path(sys.executable), None, ())
    unmade = peers.Installed(
        peers.Peer("unmade", "engines.ort:load_int8", (), "engines.none:prepare", (), ".onnx"),
        Path(sys.executable),
        Path(sys.executable),
        (),
    )
    found = contest.entrants(case, ours, [*installed, broken, unmade], lambda text: None)
    rows = {r.engine: r for r in contest.contend(case, found, None, contest.cores_from(-1), 2, 0.01)}
    for engine in ("qcc", "qcc, C loop", "onnxruntime f32", "onnxruntime u8s8"):
        row = rows.pop(engine)
        assert row.error == ""
        assert len(row.medians) == len(row.minima) == 2
        assert 0 < row.min_us <= row.median_us
        assert row.resident_bytes > 0
        assert row.sqnr_db > 20
    assert "No module named 'engines.none'" in rows.pop("broken").error
    assert rows.pop("unmade").error.startswith("not converted: ModuleNotFoundError")
    assert rows == {}


@pytest.mark.compiler
@pytest.mark.slow
@pytest.mark.skipif(
    sys.platform != "linux", reason="processes are pinned, and their memory read, as Linux does"
)
@pytest.mark.usefixtures("benchmarks")
def test_tvm_is_timed_beside_itself_and_beside_c(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if find_spec("tvm") is None:
        pytest.skip("TVM is not installed")
    target = find_target("tvm")
    if lacking_features(target.features):
        pytest.skip("this processor lacks AVX512-VNNI")
    contest, seeded_models, tvm_kernels = (
        importlib.import_module(name) for name in ("contest", "seeded_models", "tvm_kernels")
    )
    calibration = np.load(EXAMPLES / "digits_calib.npz")["image"]
    entry = seeded_models.Entry(EXAMPLES / "digits.onnx", calibration, calibration[:4])
    case = contest.Case.make("digits", entry, tmp_path)
    found = tvm_kernels.found_of(case, {})
    rows = contest.contend(case, found, None, contest.cores_from(-1), 2, 0.01)
    assert [row.engine for row in rows] == [tvm_kernels.TVM, tvm_kernels.IN_C, tvm_kernels.FLOAT]
    assert [row.error for row in rows] == ["", "", ""]
    assert rows[0].sqnr_db == rows[1].sqnr_db > 20
    assert rows[2].sqnr_db > 100  # float, in another order
    tvm_kernels.report(rows)
    told = capsys.readouterr().out
    assert "takes" in told
    assert "our schedules, TVM" in told


@pytest.mark.usefixtures("benchmarks")
def test_seeded_models_are_the_known_ones() -> None:
    seeded_models = importlib.import_module("seeded_models")
    model, macs = seeded_models.MODELS["mobilenet_v2"]()
    assert macs == 300_774_272
    assert model.SerializeToString() == seeded_models.MODELS["mobilenet_v2"]()[0].SerializeToString()
    samples = seeded_models.smooth_noise(2, 5)
    assert np.allclose([samples.mean(), samples.std()], [0, 1], atol=1e-3)
    deviations, dead = seeded_models.layer_statistics(model, samples[:1])
    assert max(deviations) < 10 * min(deviations)
    assert dead < 0.05


FEATURES = """
#include <cpuid.h>
/* bit 0: AVX2; bit 1: AVX512F; bit 2: AVX-VNNI */
unsigned features(void) {
  unsigned a, b, c, d, found = 0;
  __get_cpuid_count(7, 0, &a, &b, &c, &d);
  found |= (b >> 5 & 1) | (b >> 16 & 1) << 1;
  __get_cpuid_count(7, 1, &a, &b, &c, &d);
  return found | (a >> 4 & 1) << 2;
}
"""
ASK = """
import ctypes, sys
if len(sys.argv) == 3:
    ctypes.CDLL(sys.argv[2])
print(ctypes.CDLL(sys.argv[1]).features())
"""


@pytest.mark.compiler
@pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64",
    reason="cpuid is an instruction of x86-64, and the handler one of Linux",
)
@pytest.mark.usefixtures("benchmarks")
def test_hidden_instruction_sets(tmp_path: Path) -> None:
    isa_limit = importlib.import_module("isa_limit")
    source, plain, patched = (tmp_path / name for name in ("features.c", "plain.so", "patched.so"))
    source.write_text(FEATURES, encoding="utf-8")
    subprocess.run(["cc", "-O1", "-shared", "-fPIC", str(source), "-o", str(plain)], check=True)
    patched.write_bytes(plain.read_bytes())
    isa_limit.replace_cpuid(patched)

    def ask(*libraries: Path) -> int:
        command = [sys.executable, "-c", ASK, *map(str, libraries)]
        return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    everything = ask(plain)
    for isa, kept in (("avx2", 0b001), ("avxvnni", 0b101)):
        mask = tmp_path / f"{isa}.so"
        isa_limit.build_mask(mask, isa)
        assert ask(patched, mask) == everything & kept
        assert ask(plain, mask) == everything  # without breakpoints the processor itself answers
    with pytest.raises(isa_limit.QccError, match="holds no cpuid"):
        isa_limit.replace_cpuid(patched)
