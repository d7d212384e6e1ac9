"""--tune on the command line, and where choices of kernels are shown. Times are given, not measured."""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from qcc.backends import tuning
from qcc.backends.program import Program
from qcc.backends.target import TARGETS, find_target
from qcc.driver import quantize_pipeline
from qcc.options import CompileOptions

CONV = "qcc_s8_conv2d_scalar"
SPEEDS = {"6x64": 4.0, "7x64": 3.0}


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Target `tiles`, whose convolutions have two rows; the number of programs of every measurement."""
    c = find_target("c")
    tiles = [
        replace(k, variant=name, priority=10, cost=lambda step, cycles=cycles: cycles)
        for k in c.kernels
        if k.symbol == CONV
        for name, cycles in (("6x64", 1000.0), ("7x64", 1234.4))
    ]
    monkeypatch.setitem(TARGETS, "tiles", replace(c, name="tiles", kernels=(*tiles, *c.kernels)))
    counts: list[int] = []

    def measure(programs: Sequence[Program], progress: tuning.Progress) -> list[list[float]]:
        counts.append(len(programs))
        return [[SPEEDS.get(op.kernel.variant, 1.0) for op in p.operations] for p in programs]

    monkeypatch.setattr(tuning, "measure_steps", measure)
    return counts


def test_tune_measures_once_and_is_reported(
    qcc, model: Path, calib: Path, tmp_path: Path, measured: list[int]
) -> None:
    out, file = tmp_path / "out", tmp_path / "times.json"
    command = ("compile", model, "--calib", calib, "-o", out, "--target", "tiles", "--no-build")
    plain = qcc(*command)
    assert "measured" not in plain.stdout
    assert measured == []
    layer = json.loads((out / "report.json").read_text())["layers"][0]
    assert (layer["kernel"], layer["cycles"]) == (f"{CONV}[6x64]", 1000)
    assert layer["beaten"] == [{"kernel": f"{CONV}[7x64]", "cycles": 1234}]

    tuned = qcc(*command, "--tune", "--tune-file", file)
    assert (tuned.exit_code, tuned.stderr) == (0, "")
    assert "in 6 steps, kernels of 3 measured" in tuned.stdout
    assert measured == [2]
    report = json.loads((out / "report.json").read_text())
    assert report["options"]["tuned"] is True
    layer = report["layers"][0]
    assert (layer["kernel"], layer["cycles"], layer["microseconds"]) == (f"{CONV}[7x64]", 1234, 3.0)
    assert layer["beaten"] == [{"kernel": f"{CONV}[6x64]", "cycles": 1000, "microseconds": 4.0}]
    page = (out / "report.html").read_text()
    assert re.search(r"7x64\]</td><td.*>1,234</td><td.*>3.00</td>\n<td>.*6x64\]: 1,000 cycles, 4.00 us", page)

    assert qcc(*command, "--tune", "--tune-file", file).exit_code == 0
    assert measured == [2]


def test_explain_lists_what_the_kernel_was_preferred_to(
    qcc, model: Path, calib: Path, tmp_path: Path, measured: list[int]
) -> None:
    command = ("explain", model, "conv1", "--calib", calib, "--target", "tiles")
    text = qcc(*command).stdout
    assert f"kernel {CONV}[6x64] computes conv2d+requantize" in text
    assert re.search(r"chosen +qcc_s8_conv2d_scalar\[6x64\] +1,000 +-", text)
    assert re.search(r"not +qcc_s8_conv2d_scalar\[7x64\] +1,234 +-", text)
    assert "refused" not in text  # the portable row would have come last
    text = qcc(*command, "--tune", "--tune-file", tmp_path / "t.json").stdout
    assert re.search(r"chosen +qcc_s8_conv2d_scalar\[7x64\] +1,234 +3.00", text)
    assert re.search(r"not +qcc_s8_conv2d_scalar\[6x64\] +1,000 +4.00", text)


def test_what_cannot_be_tuned_is_an_error_before_the_work(qcc, model: Path, tmp_path: Path) -> None:
    command = ("compile", model, "-o", tmp_path / "out", "--tune")
    result = qcc(*command, "--target", "cortex-m4")
    assert result.exit_code == 1
    assert result.stderr == (
        "error: target cortex-m4 cannot be tuned here: the time of an emulator says nothing\n"
        "hint: leave tuning out: kernels are then chosen by estimated cycles\n"
    )
    result = qcc(*command, "--tune-file", model)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: {model} is no file of tuning results")
    result = qcc(*command[:-1], "--tune-file", tmp_path / "t.json")
    assert (result.exit_code, result.stderr) == (
        1,
        "error: a tune file without tuning has no use\nhint: add --tune (tune=True)\n",
    )


def test_targets_lists_the_kernels_of_one(qcc, measured: list[int]) -> None:
    text = qcc("targets", "--kernels", "tiles").stdout
    assert re.search(r"qcc_s8_conv2d_scalar\[7x64\] +10 +yes +conv2d\+requantize", text)
    assert re.search(r"qcc_s8_conv2d_scalar +0 +conv2d\+requantize", text)
    assert qcc("targets", "--kernels", "abacus").exit_code == 1


def test_only_vector_targets_keep_dead_channels() -> None:
    assert quantize_pipeline(CompileOptions()).endswith(",remove-dead-channels")
    text = quantize_pipeline(CompileOptions(target="x86-avx512vnni"))
    assert text.endswith(",remove-dead-channels{granularity=4}")
