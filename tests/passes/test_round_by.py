"""Rounding schemes of one's own: the integers that come out are those that the scheme chose."""

from pathlib import Path

import numpy as np
import pytest

import qcc
from qcc.ir.errors import PassError
from qcc.passes.round_by import ROUNDING_SCHEMES, register_rounding

EXAMPLES = Path(__file__).resolve().parent.parent.parent / "examples"


@pytest.fixture
def schemes():
    before = dict(ROUNDING_SCHEMES)
    yield
    ROUNDING_SCHEMES.clear()
    ROUNDING_SCHEMES.update(before)


def planned_weights(pipeline: str, bits: int = 8) -> dict[str, np.ndarray]:
    calibration = np.load(EXAMPLES / "digits_calib.npz")["image"][:20]
    choices = {"corrections": False, "qspec": f"w_bits={bits}", "annotated_pipeline": pipeline}
    graph = qcc.compile(EXAMPLES / "digits.onnx", calibration=calibration, **choices).compilation.planned
    return {n.name: n.input(1).data for n in graph.nodes if n.op.name in ("conv2d", "dense")}


def test_nearest_is_what_is_there_without_a_scheme() -> None:
    for bits in (8, 3):
        plain, nearest = (planned_weights(p, bits) for p in ("", f"round-by{{bits={bits}}}"))
        assert len(plain) == 4
        assert all(np.array_equal(plain[n], nearest[n]) for n in plain)


def test_the_codes_of_the_scheme_are_those_of_the_program(schemes: None) -> None:
    seen = []

    @register_rounding("tests-down")
    def down(steps, limit):
        seen.append(np.clip(np.floor(steps), -limit, limit))
        return seen[-1]

    found = planned_weights("round-by{scheme=tests-down bits=4}", 4)
    assert [a.shape for a in seen] == [a.shape for a in found.values()]
    for codes, weights in zip(seen, found.values(), strict=True):
        np.testing.assert_array_equal(codes, weights)
    with pytest.raises(ValueError, match="registered twice"):
        register_rounding("tests-down")(down)


@pytest.mark.parametrize(
    "wrong", [lambda s, limit: s + 0.25, lambda s, limit: np.full_like(s, limit + 1), lambda s, limit: s[:1]]
)
def test_what_is_no_code_is_refused(schemes: None, wrong) -> None:
    register_rounding("tests-wrong")(wrong)
    with pytest.raises(PassError, match="scheme tests-wrong must return integers from -127 to 127"):
        planned_weights("round-by{scheme=tests-wrong}")


def test_unknown_scheme_lists_the_known_ones() -> None:
    with pytest.raises(PassError, match="no rounding scheme nowhere") as caught:
        planned_weights("round-by{scheme=nowhere}")
    assert "nearest" in caught.value.hint
