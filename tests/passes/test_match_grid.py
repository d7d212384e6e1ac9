"""Inputs on a grid: their codes are exact, whatever grid it is; others keep the range that was seen."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from quantized_nets import Net, Samples

from qcc.ir.fixedpoint import fake_quantize
from qcc.ir.graph import Graph
from qcc.passes.base import Note, PassContext
from qcc.passes.manager import PassManager
from qcc.passes.match_grid import grid_qparams


@settings(deadline=None)
@given(
    step=st.floats(1e-6, 1e6),
    zero=st.integers(0, 255),
    low=st.integers(0, 100),
    high=st.integers(230, 255),
    seed=st.integers(0, 1000),
)
def test_numbers_on_a_grid_are_exact(step: float, zero: int, low: int, high: int, seed: int) -> None:
    codes = np.random.default_rng(seed).integers(low, high + 1, size=(8, 500))
    x = ((codes - zero) * step).astype(np.float32)
    qparams = grid_qparams(x, (float(x.min()), float(x.max())))
    assert qparams is not None
    np.testing.assert_allclose(fake_quantize(x, qparams), x, rtol=1e-5, atol=step * 1e-4)
    assert qparams.range[0] <= 0 <= qparams.range[1]


def test_codes_left_over_extend_the_end_that_fewer_samples_reach() -> None:
    codes = np.tile(np.arange(-100, 101), (4, 1)).astype(np.float32)
    codes[1:, -10:] = 0  # only one of four reaches 100, all reach -100
    qparams = grid_qparams(codes, (-100.0, 100.0))
    assert qparams is not None
    assert qparams.range == (-100.0, 155.0)
    flipped = grid_qparams(-codes, (-100.0, 100.0))
    assert flipped is not None
    assert flipped.range == (-155.0, 100.0)


@pytest.mark.parametrize(
    "x",
    [
        np.linspace(-1, 1, 400),  # more than 256 levels
        np.linspace(-1, 1, 200) ** 3,  # no grid
        np.arange(100) + 0.4,  # 0 lies between two points
        np.array([0.0, 1.0, 2.0]),  # too few to tell
        np.concatenate([np.arange(100), [1000.0]]),  # wider than 256 steps
        np.array([np.nan] * 20 + list(range(20))),
    ],
)
def test_what_lies_on_no_grid_is_left_alone(x: np.ndarray) -> None:
    x = x.astype(np.float32)[None]
    assert grid_qparams(x, (float(np.nanmin(x)), float(np.nanmax(x)))) is None


def quantized(samples: Samples, options: str = "") -> tuple[Graph, list[Note]]:
    net = Net(1, 8, 8, 3)
    graph = net.finish(net.relu(net.conv(net.x, 4)))
    ctx = PassContext({"calibration": [samples]})
    own = f"{{{options}}}" if options else ""
    manager = PassManager(f"fuse-epilogues,calibrate,match-grid{own},choose-qparams{own}", ctx)
    return manager.run(graph), [n for name, n in manager.notes() if name == "match-grid"]


def pixels() -> Samples:
    shape = (16, 8, 8, 3)
    x = np.random.default_rng(1).integers(3, 240, size=shape)
    return {"x": (x / 255).astype(np.float32)}


def test_pixels_get_the_scale_of_their_grid() -> None:
    graph, (note,) = quantized(pixels())
    qparams = graph.inputs[0].type.qparams
    assert qparams is not None
    assert qparams.scale[0] == np.float32(1 / 255)
    assert qparams.zero_point == -128
    assert note.applied
    x = pixels()["x"].astype(np.float64)
    step = x.max() / 255  # of the range that was seen
    noise = ((np.rint(x / step) * step - x) ** 2).mean()
    assert float(note.reason.split()[-2]) == pytest.approx(10 * np.log10((x**2).mean() / noise), abs=0.06)
    np.testing.assert_allclose(fake_quantize(pixels()["x"], qparams), pixels()["x"], atol=1e-6)


@pytest.mark.parametrize("options", ["int16=[x]", 'qspec="activations=symmetric"'])
def test_what_was_asked_for_stays(options: str) -> None:
    graph, notes = quantized(pixels(), options)
    assert not any(n.applied for n in notes)
    assert graph.inputs[0].type.qparams is not None
    assert graph.inputs[0].type.qparams.zero_point == 0


def test_codes_between_the_points_of_a_coarse_grid_are_used() -> None:
    x = np.tile(np.arange(17) / 16, (4, 1)).astype(np.float32)  # the digits of scikit-learn have 17 levels
    qparams = grid_qparams(x, (0.0, 1.0))
    assert qparams is not None
    assert qparams.scale[0] == np.float32(1 / 240)
    np.testing.assert_allclose(fake_quantize(x, qparams), x, rtol=1e-6)


def test_noise_keeps_the_range_that_was_seen() -> None:
    samples = {"x": np.random.default_rng(1).normal(size=(16, 8, 8, 3)).astype(np.float32)}
    graph, notes = quantized(samples)
    assert not any(n.applied for n in notes)
    qparams = graph.inputs[0].type.qparams
    assert qparams is not None
    low, high = float(samples["x"].min()), float(samples["x"].max())
    assert qparams.scale[0] == pytest.approx((high - low) / 255)
