"""The benchmarks' machinery, not their figures: a contest on the digits model, and the models with random weights."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

CHECKOUT = Path(__file__).resolve().parent.parent
EXAMPLES = CHECKOUT / "examples"


@pytest.fixture
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The folder of scripts is importable, and its modules are forgotten afterwards."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(CHECKOUT / "benchmarks"))
    yield
    for name in ("contest", "peers", "models", "seeded_models", "engines", "engines.base"):
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
