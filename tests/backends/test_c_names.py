"""Names and texts of a hostile model in C."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qcc.backends.c.names import Names, c_array, c_comment, c_identifier, c_number, library_name
from qcc.backends.c.run import load
from qcc.ir import interpreter

HOSTILE = (
    "x */ int y; /*",
    "trigraph ??/",
    "ends with \\",
    "new\nline\r\u2028",
    "int",
    "main",
    "9 lives",
    "naïve 模型",
    "",
    "NULL",
    "a" * 300,
    "X */ INT Y; /*",
    '"quoted" {{ 1 + 1 }} {% raw %}',
)


@given(st.text())
def test_identifier_is_valid_c(text: str) -> None:
    assert re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,50}", c_identifier(text))
    assert "__" not in c_identifier(text)


@given(st.lists(st.text(alphabet="aA_:/1", max_size=4), max_size=12))
def test_names_of_a_scope_are_unique_without_case(texts: list[str]) -> None:
    scope = Names()
    made = [scope.make(text).lower() for text in texts]
    assert len(set(made)) == len(made)


@given(st.text())
def test_comment_stays_a_comment_of_one_line(text: str) -> None:
    made = c_comment(text)
    assert made.isascii()
    assert made.isprintable()
    assert not any(bad in made for bad in ("*/", "/*", "??"))
    assert not made.endswith("\\")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (5, "5"),
        (-(2**31), "(-2147483647 - 1)"),
        (0.5, "0x1p-1f"),
        (0.1, "0x1.99999ap-4f"),
        (float("inf"), "QCC_INFINITY"),
        (float("-inf"), "-QCC_INFINITY"),
        (float("nan"), "QCC_NAN"),
    ],
)
def test_number_is_exact(value: float, text: str) -> None:
    assert c_number(value) == text


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_float_literal_reads_back_exactly(value: float) -> None:
    assert float.fromhex(c_number(value).removesuffix("f")) == value


def test_array_fills_lines() -> None:
    lines = c_array(np.arange(-128, 128).astype(np.int8))
    assert ", ".join(line.removesuffix(",") for line in lines) == ", ".join(map(str, range(-128, 128)))
    assert max(map(len, lines)) <= 108


def test_library_name_avoids_qcc_files() -> None:
    assert [library_name(n) for n in ("KWS v1", "qcc_kernels", "test_main")] == [
        "kws_v1",
        "model_qcc_kernels",
        "model_test_main",
    ]


@pytest.mark.compiler
def test_hostile_names_compile_and_run(
    integer_graph: Callable[..., Any], emitted: Callable[..., Any], compiler_target: Callable[..., Any]
) -> None:
    net = integer_graph(1, "*/ #error hostile ??/")
    value = net.input("in */ put", 1, 3, 3, 2)
    for name in HOSTILE:
        value = net.requantize(net.conv2d(value, 2, (1, 1), name), 2e4, name)
    net.output(value, "out */ put")
    samples = net.samples(3)
    folder, program = emitted(net, samples)
    for path in folder.iterdir():
        assert path.read_text(encoding="utf-8").isascii()
    target = compiler_target("cc", "-O1", "-Wcomment", "-Wtrigraphs", "-Werror", "-pedantic")
    expected = interpreter.run(program.graph, samples)
    got = load(folder, target).run(samples)
    np.testing.assert_array_equal(got["out */ put"], expected["out */ put"])
