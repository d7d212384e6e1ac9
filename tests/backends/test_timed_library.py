"""A library with a clock behind each step: one time for each layer, the same results, and no emulators."""

from pathlib import Path

import numpy as np
import pytest

import qcc
from qcc.backends.c import run
from qcc.backends.targets import find_target
from qcc.ir.errors import TargetError

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiled = qcc.compile(EXAMPLES / "digits.onnx", calibration=EXAMPLES / "digits_calib.npz")
    return compiled.save(tmp_path_factory.mktemp("timed") / "digits")


@pytest.mark.compiler
def test_every_step_has_a_time(saved: Path) -> None:
    library = run.load_timed(saved, find_target("c"))
    call = library.step_microseconds(np.zeros(library.meta["input_bytes"], np.uint8))
    times = np.stack([call() for _ in range(5)])
    assert times.shape == (5, len(library.meta["layers"]))
    assert (times >= 0).all()
    assert (times.max(0) > 0).any()
    assert library.peak is None


@pytest.mark.compiler
def test_the_clock_changes_no_result(saved: Path, tmp_path: Path) -> None:
    timed, plain = (
        load(saved, find_target("c"), tmp_path / load.__name__) for load in (run.load_timed, run.load)
    )
    inputs = np.random.default_rng(0).integers(0, 256, (3, plain.meta["input_bytes"]), np.uint8)
    timed.step_microseconds(inputs[0])()
    assert np.array_equal(timed.run_bytes(inputs), plain.run_bytes(inputs))


@pytest.mark.compiler
def test_the_peak_counts_its_multiply_accumulates(saved: Path, tmp_path: Path) -> None:
    compiled = qcc.compile(EXAMPLES / "digits.onnx", target="host", calibration=EXAMPLES / "digits_calib.npz")
    library = run.load_timed(compiled.save(tmp_path / "digits"), find_target("host"))
    if library.peak is None:
        pytest.skip("no peak is known for the processor of this machine: processor lacks AVX512-VNNI")
    assert library.peak(20) == 2 * library.peak(10) > 0


def test_an_emulator_has_no_clock(saved: Path) -> None:
    with pytest.raises(TargetError, match="the time of an emulator says nothing"):
        run.load_timed(saved, find_target("arm-neon"))
