"""The textual IR: what is printed is read back as the same graph, and the same text is printed again."""

import json
import math
import random
import re
from collections.abc import Callable
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from qcc.ir.attributes import attribute_types, conforms, convert, describe_type, format_attribute
from qcc.ir.builder import Builder
from qcc.ir.compare import first_difference
from qcc.ir.errors import PassError, QccError
from qcc.ir.graph import Graph, Value
from qcc.ir.location import Location
from qcc.ir.lowering import Lowering
from qcc.ir.op import OPS, Case
from qcc.ir.ops.activation import Clamp
from qcc.ir.ops.elementwise import Add
from qcc.ir.parser import parse_graph
from qcc.ir.printer import print_graph
from qcc.ir.qparams import QParams
from qcc.ir.types import DType, TensorType, f32
from qcc.ir.verifier import verify

CASES = [
    (f"{name}-{index}", case)
    for name, op in sorted(OPS.items())
    for index, case in enumerate(op.cases(np.random.default_rng(7)))
]
QPARAMS = QParams.per_tensor(0.05, 3)


def check_round_trip(graph: Graph, *, locations: bool = False) -> str:
    text, arrays = print_graph(graph, locations=locations)
    parsed = parse_graph(text, arrays)
    assert first_difference(graph, parsed, locations=locations) is None
    again, arrays_again = print_graph(parsed, locations=locations)
    assert again == text
    assert list(arrays_again) == list(arrays)
    return text


def add_case(graph: Graph, case: Case, name: Callable[[], str]) -> list[Value]:
    builder, operands = Builder(graph), list[Value | None]()
    constant = case.constant or (False,) * len(case.inputs)
    for array, fixed in zip(case.inputs, constant, strict=True):
        if array is None:
            operands.append(None)
        elif fixed:
            operands.append(builder.constant(array, name()))
        else:
            operands.append(graph.add_input(name(), f32(*array.shape)))
    result = builder.emit(case.op, *operands, name=name())
    return [*(v for v in operands if v is not None), result]


def lowered(case: Case) -> Graph | None:
    """The integer form of a case with plausible qparams; None where the op has none."""
    source, names = Graph("case", "annotated"), iter("abcdefgh")
    *_, result = add_case(source, case, lambda: next(names))
    assert result.producer is not None
    rule = case.op.quant_rule()
    for index, value in enumerate(result.producer.inputs):
        if value is None or index == rule.bias:
            continue
        qparams = QPARAMS
        if index == rule.weight:
            assert value.data is not None
            others = tuple(a for a in range(value.type.rank) if a != rule.weight_axis)
            scale = np.abs(value.data.astype(np.float64)).max(axis=others) / 127
            qparams = QParams.per_channel(scale, rule.weight_axis)
        value.type = value.type.with_qparams(qparams)
    result.type = result.type.with_qparams(rule.result or QPARAMS)
    q = Lowering(source)
    for value in source.inputs:
        q.define(
            value, q.graph.add_input(value.name, TensorType(DType.S8, value.type.shape, value.type.qparams))
        )
    try:
        integer = case.op.quantize(q, result.producer)
    except PassError:
        return None
    if integer is None:
        return None
    q.graph.add_output(integer)
    return q.graph


# ---------------------------------------------------------------------- every op
@pytest.mark.parametrize("case", [c for _, c in CASES], ids=[n for n, _ in CASES])
def test_float_case_of_every_op_survives(case: Case) -> None:
    graph = Graph("case")
    names = iter("abcdefgh")
    graph.add_output(add_case(graph, case, lambda: next(names))[-1])
    text = check_round_trip(graph)
    if not graph.outputs[0].type.dtype.is_integer:
        assert f"nn.{case.op.name}(" in text
        verify(graph)


@pytest.mark.parametrize("case", [c for _, c in CASES], ids=[n for n, _ in CASES])
def test_integer_form_of_every_op_survives_and_verifies(case: Case) -> None:
    graph = lowered(case)
    if graph is None:
        return
    check_round_trip(graph)
    verify(graph)


@pytest.mark.parametrize("op", sorted(OPS))
def test_attributes_of_every_op_have_printable_types(op: str) -> None:
    for hint in attribute_types(OPS[op]).values():
        assert describe_type(hint)


# ---------------------------------------------------------------------- random graphs
NAMES = st.one_of(st.from_regex(r"[A-Za-z_][A-Za-z0-9_./:-]{0,8}", fullmatch=True), st.text(max_size=8))
REALS = st.floats()
SCALES = st.floats(min_value=5e-324, max_value=1e308)


@st.composite
def annotations(draw: st.DrawFn, shape: tuple[int, ...]) -> QParams | None:
    kind = draw(st.sampled_from(["none", "tensor", "channel"]))
    dtype = draw(st.sampled_from(["s8", "u8", "s16", "s32"]))
    if kind == "none":
        return None
    if kind == "tensor" or not shape:
        return QParams.per_tensor(draw(SCALES), draw(st.integers(0, 127)), dtype)
    axis = draw(st.integers(0, len(shape) - 1))
    return QParams.per_channel(np.array([draw(SCALES)] * shape[axis]), axis, dtype)


@st.composite
def places(draw: st.DrawFn) -> Location | None:
    line = draw(st.integers(0, 3))
    return draw(
        st.one_of(
            st.none(),
            st.builds(Location, file=NAMES, node=NAMES),
            st.just(Location("m.qir", line, line and draw(st.integers(1, 200)))),
        )
    )


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    graph = Graph(draw(NAMES), draw(st.sampled_from(["float", "annotated", "integer", "planned"])))
    used: list[Value] = []
    for _ in range(draw(st.integers(1, 3))):
        _, case = draw(st.sampled_from(CASES))
        used += add_case(graph, case, lambda: draw(NAMES))
    for value in used:
        value.range = draw(st.none() | st.tuples(REALS, REALS))
        value.fused = draw(st.booleans())
        if not value.type.dtype.is_integer:  # the qparams of integers follow from their operands
            value.type = value.type.with_qparams(draw(annotations(value.type.shape)))
    for value in draw(st.lists(st.sampled_from(used), max_size=3)):
        if value.producer is not None or value.users:
            graph.add_output(value, draw(NAMES))
    for node in graph.nodes:
        node.location = draw(places())
    return graph


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(graphs())
def test_random_graph_survives(graph: Graph) -> None:
    check_round_trip(graph)
    check_round_trip(graph, locations=True)


# ---------------------------------------------------------------------- names and numbers
def unary(name: str = "x", data: np.ndarray | None = None) -> Graph:
    graph = Graph(name)
    x = graph.add_input(name, f32(2, 3))
    if data is not None:
        c = Builder(graph).constant(data, "c")
        graph.add_output(Builder(graph).emit(Add(), x, c, name="y"), name)
    else:
        graph.add_output(Builder(graph).emit(Clamp(0.0), x, name="y"), name)
    return graph


@given(st.text())
@example("")
@example("conv1/weights:0")
@example("ends:")
@example('q" \\ \n\t\x00\x7f\x85\u2028\U0001f600')
@example("\ud800 lone surrogate")
@example("_")
def test_any_name_survives(name: str) -> None:
    text = check_round_trip(unary(name))
    assert len(text.split("\n")) == 6
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f\x85\u2028]", text)


@settings(deadline=None)
@given(st.lists(st.floats(width=32, allow_nan=False), min_size=3, max_size=3))
@example([0.1, -0.0, float("inf")])
@example([1e-45, 3.4028234663852886e38, float("nan")])
@example([16777216.0, 1.1754943508222875e-38, -1e20])
def test_inline_float_constant_is_exact(elements: list[float]) -> None:
    check_round_trip(unary(data=np.array(elements, np.float32)))


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.int32])
@pytest.mark.parametrize("size", [1, 16, 17])
def test_integer_constant_is_exact(dtype: type, size: int) -> None:
    info = np.iinfo(dtype)
    graph = Graph("g", "integer")
    type_ = TensorType(DType.of(dtype), (size,))
    data = np.resize(np.array([info.min, info.max, 0, 1], dtype), size)
    a = graph.constant(data, "a", type_)
    x = graph.add_input("x", type_)
    graph.add_output(Builder(graph).emit(Add(), x, a, name="y"))
    text = check_round_trip(graph)
    assert ("= @a" in text) == (size > 16)


def test_attribute_equal_to_its_default_is_left_out_bit_by_bit() -> None:
    graph = Graph("g")
    x = graph.add_input("x", f32(1, 4, 4, 2))
    for low in (-math.inf, 0.0, -0.0, math.nan, 0.1):
        x = Builder(graph).emit(Clamp(low), x)
    graph.add_output(x)
    text = check_round_trip(graph)
    assert re.findall(r"clamp\(%\w+\)(.*) :", text) == [
        "",
        " {low=0.0}",
        " {low=-0.0}",
        " {low=nan}",
        " {low=0.1}",
    ]


def test_absent_operand_and_scalar_are_spelled() -> None:
    graph = Graph("g", "planned")
    x = graph.add_input("x", TensorType(DType.S32, (), QParams.per_tensor(0.5, 0, "s32")))
    low = graph.constant(np.zeros(1, np.int32), "low", TensorType(DType.S32, (1,)))
    op = OPS["requantize"]()
    y = Builder(graph).emit(op, x, None, None, low, name="y", qparams=QPARAMS)
    graph.add_output(y)
    text = check_round_trip(graph)
    assert "%y = q.requantize(%x, _, _, %low) : s8<scalar> q(0.05, 3)" in text


def test_explicit_default_and_missing_hint_are_read() -> None:
    text = """
        // a comment before the graph
        graph @g stage(float) {
          input %x: f32<1x2>      // no space before the colon
          %y = nn.clamp(%x) {low=0, high=inf}: f32<1x2>
          output %y as "y"
        }"""
    op = parse_graph(text).nodes[0].op
    assert op == Clamp(0.0, math.inf)
    assert isinstance(op, Clamp)
    assert type(op.low) is float


def test_names_stay_fresh_after_parsing() -> None:
    graph = parse_graph(print_graph(unary())[0])
    assert graph.fresh_name("y") == "y_2"
    assert graph.fresh_name("x") == "x_2"
    assert graph.fresh_name("z") == "z"


def test_users_are_recorded_in_order() -> None:
    graph = parse_graph(
        "graph @g stage(float) { input %x : f32<2> %a = nn.add(%x, %x) : f32<2> "
        '%b = nn.add(%a, %x) : f32<2> output %b as "b" }'
    )
    assert [n.name for n in graph.inputs[0].users] == ["a", "a", "b"]


def test_location_is_the_place_in_the_text_unless_it_is_given() -> None:
    text = print_graph(unary())[0]
    node = parse_graph(text, filename="a.qir").nodes[0]
    assert str(node.location) == "a.qir:3:3"
    node = parse_graph(text.replace("f32<2x3>\n  output", 'f32<2x3> loc(node "Relu_0")\n  output')).nodes[0]
    assert str(node.location) == "node Relu_0"


# ---------------------------------------------------------------------- attributes
@pytest.mark.parametrize(
    ("hint", "good", "bad"),
    [
        (int, [0, -3, np.int64(2)], [1.0, True, "1", None, (1,)]),
        (float, [0.5, 1, np.float32(2)], [True, "1", (1.0,)]),
        (bool, [True, False], [0, 1, "true"]),
        (str, ["", "a"], [1, None]),
        (tuple[int, int], [(1, 2)], [(1,), (1, 2, 3), [1, 2], (1, 2.0), 1]),
        (tuple[int, ...], [(), (1,), (1, 2, 3)], [[1], (1.5,), ("1",)]),
        (tuple[str, ...], [(), ("a", "b")], ["ab", (1,)]),
    ],
)
def test_attribute_types_are_checked(hint: object, good: list[object], bad: list[object]) -> None:
    assert all(conforms(v, hint) for v in good)
    assert not any(conforms(v, hint) for v in bad)
    for value in good:
        plain = convert(value, hint)
        assert plain == value
        assert json.loads(format_attribute(value, hint)) == (
            list(plain) if isinstance(plain, tuple) else plain
        )


# ---------------------------------------------------------------------- hostile texts
TOKENS = re.compile(r'"[^"]*"|%?[\w.]+|\S')
JUNK = [
    "",
    "%",
    "-1",
    "0",
    "1e999",
    "99999999999",
    "9" * 5000,
    "nan",
    "-inf",
    "[]",
    "[1, 2, 3]",
    '""',
    "_",
    "}",
    "]",
]


@pytest.mark.parametrize("case", [c for _, c in CASES], ids=[n for n, _ in CASES])
def test_damaged_text_is_refused_with_an_error_of_ours(case: Case) -> None:
    graph = Graph("case")
    names = iter("abcdefgh")
    graph.add_output(add_case(graph, case, lambda: next(names))[-1])
    texts = [print_graph(graph)]
    integer = lowered(case)
    if integer is not None:
        texts.append(print_graph(integer))
    rng = random.Random(case.op.name)
    for text, arrays in texts:
        spans = [m.span() for m in TOKENS.finditer(text)]
        words = JUNK + [text[a:b] for a, b in spans]
        for _ in range(40):
            start, end = rng.choice(spans)
            damaged = text[:start] + rng.choice(words) + text[end:]
            with suppress(QccError):  # and nothing else
                verify(parse_graph(damaged, arrays))
