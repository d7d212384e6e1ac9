"""QSpec: what a text says, the codes it allows, and graphs that keep to them down to the bytes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcc.ir.errors import QccError
from qcc.ir.fixedpoint import quantize
from qcc.ir.qparams import QParams
from qcc.ir.qspec import QSpec


def test_a_text_names_what_differs_from_the_default() -> None:
    assert QSpec.parse("") == QSpec()
    text = "weights=per-tensor activations=symmetric a_bits=6 w_bits=4 narrow=true"
    assert QSpec.parse(text) == QSpec("symmetric", "per-tensor", 6, 4, True)


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("bits=4", "qspec: there is no 'bits'", "known: activations, weights, a_bits, w_bits, narrow, pack"),
        ("a_bits=1", "qspec: a_bits is 1", "2 to 8 bits are possible"),
        ("w_bits=9", "qspec: w_bits is 9", "2 to 8 bits are possible"),
        ("a_bits=few", "qspec: a_bits cannot be 'few'", "write a number of bits"),
        ("narrow=yes", "qspec: narrow cannot be 'yes'", "known: true, false"),
        ("weights=some", "qspec: weights cannot be 'some'", "known: per-channel, per-tensor"),
        ("activations", "qspec: activations cannot be ''", "known: asymmetric, symmetric, by-sign"),
    ],
)
def test_wrong_texts(text: str, message: str, hint: str) -> None:
    with pytest.raises(QccError) as caught:
        QSpec.parse(text)
    assert (caught.value.message, caught.value.hint) == (message, hint)


@settings(deadline=None)
@given(
    st.floats(-1e6, 1e6),
    st.floats(-1e6, 1e6),
    st.integers(2, 8),
    st.booleans(),
    st.sampled_from(["asymmetric", "symmetric"]),
)
def test_codes_are_kept_zero_is_exact_and_the_range_covered(
    a: float, b: float, bits: int, narrow: bool, symmetry: str
) -> None:
    spec = QSpec(symmetry, a_bits=bits, narrow=narrow)  # type: ignore[arg-type]
    chosen = spec.activation(min(a, b), max(a, b))
    lowest, highest = chosen.code_range
    assert (lowest, highest) == (-(2 ** (bits - 1)) + narrow, 2 ** (bits - 1) - 1)
    x = np.array([a, b, 0.0, -1e9, 1e9], np.float32)
    q = quantize(x, chosen)
    assert lowest <= q.min() <= q.max() <= highest
    assert q[2] == chosen.zero_point
    assert symmetry == "asymmetric" or chosen.zero_point == 0
    slack = chosen.scale[0] * (0.5 + 1e-4)
    assert chosen.range[0] - slack <= min(a, b, 0.0)
    assert max(a, b, 0.0) <= chosen.range[1] + slack


@pytest.mark.parametrize("codes", [(-129, 3), (4, 4), (0, 128)])
def test_codes_outside_the_type_are_refused(codes: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="are not within s8"):
        QParams((1.0,), 0, codes=codes)


def test_zero_point_is_a_code() -> None:
    with pytest.raises(ValueError, match=r"zero_point 9 is outside s8 \[-8, 7\]"):
        QParams((1.0,), 9, codes=(-8, 7))
