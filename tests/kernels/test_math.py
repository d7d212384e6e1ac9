"""qcc_math.h against float64 numpy."""

import ctypes
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytestmark = pytest.mark.compiler

Functions = Callable[[str], ctypes.CDLL]
Array = NDArray[Any]
RELATIVE = 2e-6

REFERENCES: dict[str, Callable[[Array], Array]] = {
    "expf": np.exp,
    "expm1f": np.expm1,
    "logf": np.log,
    "log1pf": np.log1p,
    "sqrtf": np.sqrt,
    "tanhf": np.tanh,
    "sigmoidf": lambda x: 1 / (1 + np.exp(-x)),
    "erff": np.vectorize(math.erf),
    "sinf": np.sin,
    "cosf": np.cos,
    "asinf": np.arcsin,
    "acosf": np.arccos,
    "atanf": np.arctan,
    "asinhf": np.arcsinh,
    "atanhf": np.arctanh,
}
EXACT: dict[str, Callable[[Array], Array]] = {
    "rintf": np.rint,
    "floorf": np.floor,
    "ceilf": np.ceil,
    "truncf": np.trunc,
    "fabsf": np.abs,
}
DOMAINS = {
    "logf": (1e-38, np.inf),
    "log1pf": (-0.99, np.inf),
    "sqrtf": (0.0, np.inf),
    "asinf": (-1.0, 1.0),
    "acosf": (-1.0, 1.0),
    "atanhf": (-1.0, 1.0),
}


@pytest.fixture(scope="module")
def library(functions: Functions) -> ctypes.CDLL:
    unary = "".join(
        f"void each_{name}(const float *x, float *y, int n) {{ for (int i = 0; i < n; ++i) y[i] = qcc_{name}(x[i]); }}\n"
        f"void each_{name}(const float *x, float *y, int n);\n"
        for name in (*REFERENCES, *EXACT)
    )
    power = (
        "void each_powf(const float *x, const float *b, float *y, int n);\n"
        "void each_powf(const float *x, const float *b, float *y, int n)"
        " { for (int i = 0; i < n; ++i) y[i] = qcc_powf(x[i], b[i]); }\n"
    )
    return functions(f'#include "qcc_math.h"\n{unary}{power}')


def call(library: ctypes.CDLL, name: str, *operands: Array) -> Array:
    arrays = [np.ascontiguousarray(a, np.float32) for a in operands]
    result = np.empty_like(arrays[0])
    pointers = [ctypes.c_void_p(a.ctypes.data) for a in (*arrays, result)]
    getattr(library, f"each_{name}")(*pointers, arrays[0].size)
    return result


def samples() -> Array:
    rng = np.random.default_rng(3)
    scales = (1e-30, 1e-10, 1e-3, 0.1, 0.3, 1, 3, 10, 40, 100)
    return np.concatenate([rng.normal(size=3000) * s for s in scales]).astype(np.float32)


@pytest.mark.parametrize("name", sorted(REFERENCES))
def test_function_is_accurate(library: ctypes.CDLL, name: str) -> None:
    x = samples()
    low, high = DOMAINS.get(name, (-np.inf, np.inf))
    x = x[(x >= low) & (x <= high)]
    with np.errstate(all="ignore"):
        expected = np.asarray(REFERENCES[name](x.astype(np.float64)), np.float64)
    normal = (np.abs(expected) > 1.2e-38) & (np.abs(expected) < 3.4e38)
    got = call(library, name, x).astype(np.float64)
    error = np.abs(got - expected)[normal]
    # sine and cosine cross zero far from x = 0, where the reduced argument has few digits left
    bound = RELATIVE if name in ("sinf", "cosf") else RELATIVE * np.abs(expected)[normal]
    assert (error <= bound).all()
    assert normal.sum() > 1000


@pytest.mark.parametrize("name", sorted(EXACT))
def test_rounding_is_exact_to_the_bit(library: ctypes.CDLL, name: str) -> None:
    halves = np.arange(-40, 41) / 4
    edges = [8388607.5, -8388607.5, 8388608.0, 16777217.0, 3e38, -3e38, np.inf, -np.inf, 0.49999997, -0.0]
    x = np.concatenate([samples(), halves, edges]).astype(np.float32)
    got, expected = call(library, name, x), np.asarray(EXACT[name](x), np.float32)
    np.testing.assert_array_equal(got.view(np.int32), expected.view(np.int32))


@pytest.mark.parametrize("name", sorted({*REFERENCES, *EXACT} - {"sinf", "cosf"}))
def test_nan_and_infinities_are_those_of_numpy(library: ctypes.CDLL, name: str) -> None:
    x = np.array([np.nan, np.inf, -np.inf, 0.0, 200.0, -200.0], np.float32)
    reference = {**REFERENCES, **EXACT}[name]
    with np.errstate(all="ignore"):
        expected = np.asarray(reference(x.astype(np.float64)), np.float64).astype(np.float32)
    np.testing.assert_allclose(call(library, name, x), expected, rtol=RELATIVE, atol=1e-37)


def test_subnormal_numbers_keep_their_value(library: ctypes.CDLL) -> None:
    x = np.array([1e-45, 1e-42, 1e-39], np.float32)
    for name in ("logf", "sqrtf"):
        np.testing.assert_allclose(
            call(library, name, x), REFERENCES[name](x.astype(np.float64)), rtol=RELATIVE
        )


def test_pow_is_accurate_and_follows_annex_f(library: ctypes.CDLL) -> None:
    rng = np.random.default_rng(4)
    a = np.exp(rng.uniform(-20, 20, size=20000)).astype(np.float32)
    b = rng.uniform(-4, 4, size=20000).astype(np.float32)
    expected = a.astype(np.float64) ** b.astype(np.float64)
    np.testing.assert_allclose(call(library, "powf", a, b), expected, rtol=RELATIVE)
    special = np.array(
        [0, -0.0, 1, -1, 2, -2, 0.5, -0.5, 3, -3, np.inf, -np.inf, np.nan, 1e-40, 1e30], np.float32
    )
    a, b = (m.reshape(-1) for m in np.meshgrid(special, special))
    with np.errstate(all="ignore"):
        expected = np.power(a.astype(np.float64), b.astype(np.float64)).astype(np.float32)
    np.testing.assert_allclose(call(library, "powf", a, b), expected, rtol=RELATIVE, atol=1e-45)
