"""What the accuracy benchmarks conclude from figures, and how peers answer; not the figures themselves."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from qcc.metrics import sqnr_db

CHECKOUT = Path(__file__).resolve().parent.parent
EXAMPLES = CHECKOUT / "examples"


@pytest.fixture
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[ModuleType, ModuleType]]:
    """accuracy.py and w4a8.py, forgotten afterwards."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(CHECKOUT / "benchmarks"))
    yield importlib.import_module("accuracy"), importlib.import_module("w4a8")
    for name in ("accuracy", "w4a8", "peers", "models", "seeded_models", "engines", "engines.base"):
        if name not in before:
            sys.modules.pop(name, None)


def test_marks_follow_from_the_best_peer(benchmarks: tuple[ModuleType, ModuleType]) -> None:
    accuracy, _ = benchmarks
    float32 = {"top1": 0.9, "agree": 1.0, "sqnr_db": [np.inf]}
    peers = [{"top1": 0.9, "agree": 0.98, "sqnr_db": [20.0]}, {"top1": 0.8, "agree": 0.97, "sqnr_db": [25.0]}]
    good = {"top1": 0.897, "agree": 0.985, "sqnr_db": [28.0]}
    assert accuracy.marks(good, float32, peers) == {"dB": True, "agreement": True, "labels": True}
    bad = {"top1": 0.896, "agree": 0.98, "sqnr_db": [27.9]}
    assert accuracy.marks(bad, float32, peers) == {"dB": False, "agreement": False, "labels": False}
    assert accuracy.marks(good, float32, []) == {"labels": True}
    assert accuracy.marks({"sqnr_db": [46.0]}, {"sqnr_db": [np.inf]}, [{"sqnr_db": [42.0]}]) == {"dB": True}


def test_outputs_come_in_the_order_of_the_model(benchmarks: tuple[ModuleType, ModuleType]) -> None:
    accuracy, _ = benchmarks
    a, b = np.zeros((2, 3, 4)), np.ones((2, 5))
    found = accuracy.in_order([b, a.reshape(2, 12)], [a, b])
    assert [f.shape for f in found] == [(2, 3, 4), (2, 5)]
    assert (found[1] == 1).all()


def test_shares_of_a_loss(benchmarks: tuple[ModuleType, ModuleType]) -> None:
    _, w4a8 = benchmarks
    figures = {"8 bits": (30.0, 0.99), "4 bits": (10.0, 0.89), "4 bits, corrected": (21.0, 0.93)}
    metrics = {name: {"sqnr_db": [db], "agree": agree} for name, (db, agree) in figures.items()}
    won = w4a8.won_back(metrics)
    noise = (0.1 - 10**-2.1) / (0.1 - 0.001)
    assert won == pytest.approx({"sqnr_db": 0.55, "noise": noise, "agree": 0.4})
    assert not w4a8.Result("model", metrics, won, {}).passes
    metrics["8 bits"]["agree"] = 0.89  # nothing was lost
    won = w4a8.won_back(metrics)
    assert won["agree"] is None
    assert w4a8.Result("model", metrics, won, {}).passes


def test_a_peer_answers_once(benchmarks: tuple[ModuleType, ModuleType], tmp_path: Path) -> None:
    accuracy, _ = benchmarks
    samples = np.load(EXAMPLES / "digits_calib.npz")["image"].astype(np.float32)
    model = str(EXAMPLES / "digits.onnx")
    peers = {p.peer.name: p for p in accuracy.find_installed(None, accuracy.PEERS)}
    runtime = importlib.import_module("qcc.float_runtime")
    reference = list(runtime.run_onnx(model, {"image": samples[:20]}).values())
    case = accuracy.Case("digits", model, samples[:50], samples[:20], reference, None)
    for name in ("onnxruntime MinMax", "onnxruntime Percentile"):
        (found,) = accuracy.answers(peers[name], case, tmp_path)
        assert sqnr_db(reference[0], found) > 15
        files = sorted(tmp_path.rglob("*.npz"))
        (again,) = accuracy.answers(peers[name], case, tmp_path)
        np.testing.assert_array_equal(found, again)
        assert sorted(tmp_path.rglob("*.npz")) == files
