"""Rounding with error feedback against OBQ written out step by step, and against the best codes there are."""

from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray

from qcc.passes.error_feedback import output_error, round_with_feedback

Reals = NDArray[np.float64]


def layer(outputs: int, inputs: int, seed: int, rows: int = 200) -> tuple[Reals, Reals, Reals]:
    """Weights [1, O, K], the second moments of correlated inputs, and scales of ``bits`` bits."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, inputs)) @ rng.normal(size=(inputs, inputs))
    w = rng.normal(size=(1, outputs, inputs))
    return w, (x.T @ x / rows)[None], np.abs(w).max(axis=-1) / 7


def obq(w: Reals, h: Reals, scale: float, limit: int) -> Reals:
    """Optimal brain quantization of one row in descending order of the diagonal: the inverse shrinks step by step."""
    w, inverse, codes = w.copy(), np.linalg.inv(h), np.zeros_like(w)
    for j in np.argsort(-np.diagonal(h), kind="stable"):
        codes[j] = np.clip(np.rint(w[j] / scale), -limit, limit)
        w -= (w[j] - codes[j] * scale) / inverse[j, j] * inverse[:, j]
        inverse = inverse - np.outer(inverse[:, j], inverse[j]) / inverse[j, j]
    return codes


@pytest.mark.parametrize("inputs", [1, 2, 9, 70, 130])
def test_it_equals_obq(inputs: int) -> None:
    w, h, scale = layer(3, inputs, seed=inputs, rows=400)
    found = round_with_feedback(w, h, scale, 7)
    for row in range(3):
        assert (found[0, row] == obq(w[0, row], h[0], scale[0, row], 7)).all()


def test_each_weight_may_have_a_scale_of_its_own() -> None:
    w, h, row_scale = layer(3, 70, seed=5, rows=400)
    scale = row_scale[..., None] * np.repeat(
        np.random.default_rng(6).uniform(0.3, 1.0, (1, 3, 7)), 10, axis=2
    )
    found = round_with_feedback(w, h, scale, 7)
    for row in range(3):
        inverse, left, want = np.linalg.inv(h[0]), w[0, row].copy(), np.zeros(70)
        for j in np.argsort(-np.diagonal(h[0]), kind="stable"):
            want[j] = np.clip(np.rint(left[j] / scale[0, row, j]), -7, 7)
            left -= (left[j] - want[j] * scale[0, row, j]) / inverse[j, j] * inverse[:, j]
            inverse = inverse - np.outer(inverse[:, j], inverse[j]) / inverse[j, j]
        assert (found[0, row] == want).all()
    before = output_error(w, found, h, scale)
    swept = output_error(w, round_with_feedback(w, h, scale, 7, sweeps=3), h, scale)
    assert (swept <= before * (1 + 1e-5)).all()
    assert swept.sum() < before.sum()


def test_groups_do_not_meet() -> None:
    layers = [layer(2, 9, seed) for seed in (1, 2)]
    w, h, scale = (np.concatenate([made[i] for made in layers]) for i in range(3))
    found = round_with_feedback(w, h, scale, 7, sweeps=2)
    for g, made in enumerate(layers):
        assert (found[g] == round_with_feedback(*made, 7, sweeps=2)[0]).all()


@pytest.mark.parametrize("seed", range(5))
def test_it_beats_rounding_to_the_nearest(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(300, 24)) @ rng.normal(size=(24, 24))
    w = rng.normal(size=(1, 8, 24))
    scale = np.abs(w).max(axis=-1) / 7
    codes = [np.rint(w / scale[..., None])]
    codes += [round_with_feedback(w, (x.T @ x / 300)[None], scale, 7, sweeps) for sweeps in (0, 3)]
    errors = [np.sum((x @ (w[0] - q[0] * scale[0][:, None]).T) ** 2) for q in codes]
    assert errors[1] < 0.9 * errors[0]
    assert errors[2] <= errors[1]


@pytest.mark.parametrize("seed", range(6))
def test_it_comes_close_to_the_best_codes(seed: int) -> None:
    w, h, scale = layer(1, 4, seed)
    every = np.array(list(product(range(-7, 8), repeat=4)), np.float64)
    best = output_error(
        np.broadcast_to(w, (1, len(every), 4)), every[None], h, np.full((1, len(every)), scale[0, 0])
    )
    found = float(output_error(w, round_with_feedback(w, h, scale, 7, 5), h, scale)[0, 0])
    nearest = float(output_error(w, np.rint(w / scale[..., None]), h, scale)[0, 0])
    assert best.min() <= found * (1 + 1e-5)
    assert found <= nearest * (1 + 1e-5)
    assert found <= 3 * best.min() * (1 + 1e-5)


def test_codes_stay_within_their_limit_and_exact_weights_stay() -> None:
    w, h, _ = layer(4, 12, 0)
    codes = round_with_feedback(w, h, np.full((1, 4), 0.01), 7, sweeps=3)
    assert np.abs(codes).max() == 7
    exact = np.random.default_rng(1).integers(-7, 8, size=(1, 4, 12)).astype(np.float64)
    assert (round_with_feedback(exact * 0.3, h, np.full((1, 4), 0.3), 7, sweeps=2) == exact).all()
