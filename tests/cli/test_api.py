"""The Python surface, where the command line does not reach it."""

from pathlib import Path

import numpy as np
import pytest

import qcc
from qcc.ir.errors import QccError, TargetError


def test_a_library_built_again_at_the_same_path_is_the_new_one(
    model: Path, calib: Path, tmp_path: Path
) -> None:
    """The loader of the system would hand out the library that it loaded from this path before."""
    images = np.load(calib)["image"]
    for scale in (1.0, 3.0):
        compiled = qcc.compile(model, calibration=images * np.float32(scale))
        library = compiled.build(compiled.save(tmp_path / "out"))
        integers = compiled.quantize_input(images[:4])
        assert np.array_equal(library.run_int8(integers), compiled.run_integer(integers))


def test_warnings_are_given_and_kept(model: Path) -> None:
    with pytest.warns(UserWarning, match="no calibration data: ranges come from synthetic noise"):
        noisy = qcc.compile(model)
    heard: list[str] = []
    same = qcc.compile(model, warn=heard.append)
    assert heard == same.warnings == noisy.warnings == same.report["warnings"]


def test_save_names_the_folder_it_cannot_write(model: Path, calib: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(QccError, match=r"cannot write .*file/out: File exists"):
        qcc.compile(model, calibration=calib).save(tmp_path / "file" / "out")


def test_time_of_library_and_of_float(model: Path, calib: Path) -> None:
    compiled = qcc.compile(model, calibration=calib)
    images = np.load(calib)["image"]
    for timing in (compiled.build().time(images, 0.01), compiled.time_float(images, 0.01)):
        assert 0 < timing.min_us <= timing.median_us
        assert timing.blocks >= 1


def test_time_refuses_an_emulator(model: Path, calib: Path) -> None:
    compiled = qcc.compile(model, target="arm-neon", calibration=calib)
    try:
        library = compiled.build()
    except TargetError:
        pytest.skip("no compiler for arm-neon here")
    with pytest.raises(TargetError, match="the time of an emulator says nothing"):
        library.time(np.load(calib)["image"], 0.01)
