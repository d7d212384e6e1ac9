"""The checker accepts what the planner plans, op by op, and rejects every planted fault by its name."""

import ast
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import qcc.ir.ops  # noqa: F401  (fills the registry)
from qcc import checker
from qcc.checker import FAST_PATHS, PlanReport, Walk, check_plan
from qcc.checker_rules import RULES, Bounds, weighted_sum
from qcc.ir import interpreter
from qcc.ir.builder import Builder
from qcc.ir.errors import VerifyError
from qcc.ir.graph import Graph, Node, Value
from qcc.ir.op import OPS, Case, Op
from qcc.ir.ops.activation import Clamp, Tanh
from qcc.ir.ops.conv import Conv2d
from qcc.ir.ops.conv_transpose import ConvTranspose2d
from qcc.ir.ops.dense import Dense
from qcc.ir.ops.elementwise import Add, Mul
from qcc.ir.ops.pool import AvgPool2d
from qcc.ir.ops.quant import Dequantize, Table
from qcc.ir.ops.rearrange import Concat
from qcc.ir.ops.shape import Pad, Reshape
from qcc.ir.qparams import QParams
from qcc.ir.types import DType, TensorType, f32
from qcc.passes.base import PassContext
from qcc.passes.calibrate import Calibrate
from qcc.passes.certify import agrees_in_float32
from qcc.passes.choose_qparams import ChooseQParams
from qcc.passes.fold_zero_points import FoldZeroPoints
from qcc.passes.fuse_epilogues import FuseEpilogues
from qcc.passes.plan_accumulators import PlanAccumulators, propagate
from qcc.passes.quantize_ops import QuantizeOps
from qcc.passes.remove_dead_channels import RemoveDeadChannels

REMOVAL = (RemoveDeadChannels(),)
STEPS = (
    FuseEpilogues(),
    Calibrate(),
    ChooseQParams(),
    QuantizeOps(),
    FoldZeroPoints(),
    PlanAccumulators(),
)


def plan(graph: Graph, batch: dict[str, np.ndarray], steps: tuple[Any, ...] = STEPS + REMOVAL) -> Graph:
    ctx = PassContext(resources={"calibration": [batch]})
    for step in steps:
        result = step.run(graph, ctx)
        graph = result.graph or graph
    return graph


def build(*shape: int) -> tuple[Graph, Builder, Callable[..., Value]]:
    """A graph with input x, its builder, and constants from a seeded normal distribution."""
    rng = np.random.default_rng(11)
    graph = Graph("test")
    graph.add_input("x", f32(*shape))
    b = Builder(graph)
    return graph, b, lambda *s: b.constant(rng.normal(size=s).astype(np.float32), "c")


def samples(*shape: int) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(5).normal(size=(8, *shape[1:])).astype(np.float32)}


def network() -> Graph:
    """conv + relu6, conv + residual add + relu, depthwise, average pool, tanh, dense."""
    graph, b, c = build(1, 6, 6, 3)
    y = b.emit(Conv2d(pads=(1, 1, 1, 1)), graph.inputs[0], c(4, 3, 3, 3), c(4), name="conv")
    y = b.emit(Clamp(0.0, 6.0), y, name="relu6")
    z = b.emit(Conv2d(), y, c(4, 1, 1, 4), c(4), name="conv2")
    y = b.emit(Add(), z, y, name="residual")
    y = b.emit(Clamp(0.0), y, name="relu")
    y = b.emit(Conv2d((2, 2), (1, 1, 1, 1), groups=4), y, c(4, 3, 3, 1), c(4), name="depthwise")
    y = b.emit(AvgPool2d((2, 2), (1, 1)), y, name="pool")
    y = b.emit(Tanh(), y, name="tanh")
    y = b.emit(Reshape((1, 16)), y, name="flat")
    graph.add_output(b.emit(Dense(), y, c(5, 16), c(5), name="dense"))
    return plan(graph, samples(1, 6, 6, 3))


@pytest.fixture
def planned() -> Graph:
    graph = network()
    check_plan(graph)
    return graph


def node_of(graph: Graph, name: str) -> Node:
    return next(n for n in graph.nodes if n.name == name)


def edit(graph: Graph, node: str, index: int, change: Callable[[np.ndarray], Any]) -> None:
    """Replace a constant operand by ``change`` of a copy of it (or by what ``change`` made of it in place)."""
    found = node_of(graph, node)
    old = found.input(index)
    assert old.data is not None
    data = old.data.copy()
    made = change(data)
    made = data if made is None else made
    type_ = TensorType(DType.of(made.dtype), made.shape, old.type.qparams)
    graph.set_input(found, index, graph.constant(made, old.name, type_))


def put(channel: int, value: int) -> Callable[[np.ndarray], None]:
    def change(data: np.ndarray) -> None:
        data.reshape(len(data), -1)[channel] = value

    return change


def bump(channel: int, by: int) -> Callable[[np.ndarray], None]:
    def change(data: np.ndarray) -> None:
        data[channel] += by

    return change


def uncertify(graph: Graph) -> None:
    for node in graph.nodes:
        if node.op.name == "requantize":
            node.op = replace(node.op, certified=())


MULTIPLIER, SHIFT, ACC_MIN, ACC_MAX = 1, 2, 3, 4


# ---------------------------------------------------------------------- accepted
def test_a_planned_network_is_proved(planned: Graph) -> None:
    names = [n.op.name for n in planned.nodes]
    assert names.count("add") == 1  # the residual: one accumulator for both
    report = check_plan(planned)
    assert report == PlanReport(
        requantizes=names.count("requantize"),
        channels=sum(n.output.type.shape[-1] for n in planned.nodes if n.op.name == "requantize"),
        certified=report.channels,
        exhaustive=report.exhaustive,
        accumulators=6,
        accumulator_bits=report.accumulator_bits,
    )
    assert 0 < report.exhaustive <= report.certified
    assert 14 <= report.accumulator_bits <= 20


def test_wider_claims_are_fine(planned: Graph) -> None:
    uncertify(planned)
    edit(planned, "relu6", ACC_MIN, bump(0, -1000))
    edit(planned, "relu6", ACC_MAX, bump(1, 1000))
    op = node_of(planned, "relu6").op
    node_of(planned, "relu6").op = replace(op, accumulator_bits=32)
    assert check_plan(planned).certified == 0


def test_dead_channels_removed_or_not() -> None:
    graph, b, c = build(1, 4, 4, 2)
    bias = b.constant(np.array([0.0, -500.0, 1.0, -500.0], np.float32), "bias")
    y = b.emit(Clamp(0.0), b.emit(Conv2d(), graph.inputs[0], c(4, 1, 1, 2), bias), name="relu")
    graph.add_output(b.emit(Conv2d(), y, c(3, 1, 1, 4), c(3)))
    full = plan(graph, samples(1, 4, 4, 2), STEPS)
    before = check_plan(full)
    removed = REMOVAL[0].run(full, PassContext())
    assert removed.changed
    assert check_plan(full).channels == before.channels - 2


MORE_CASES = {
    "conv_transpose2d": (ConvTranspose2d((2, 2), dilations=(2, 3)), (1, 3, 3, 2), (3, 2, 3, 2)),
    "reshape": (Reshape((1, 6, 4)), (1, 4, 6)),
    "conv2d": (Conv2d((1, 1), (2, 2, 2, 2), (2, 2), 2), (1, 4, 4, 4), (4, 3, 3, 2)),
    "pad": (Pad((0, 0, 1), (0, 0, 2), 2.5), (1, 2, 3)),
}


def cases_of(name: str) -> list[Case]:
    """The op's own cases, and some whose bounds are less plain."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    cases = list(OPS[name].cases(rng))
    if name in MORE_CASES:
        op, *shapes = MORE_CASES[name]
        cases.append(Case(op, tuple(rng.normal(size=s).astype(np.float32) for s in shapes), (False, True)))
    return cases


def op_cases() -> list[tuple[str, int]]:
    floats = [name for name in sorted(OPS) if OPS[name].float_ref is not Op.float_ref]
    return [(name, index) for name in floats for index, _ in enumerate(cases_of(name))]


@pytest.mark.filterwarnings("ignore:invalid value encountered in cast")  # 0 / 0 where a float op meets noise
@pytest.mark.parametrize("steps", [STEPS + REMOVAL, tuple(s for s in STEPS if s.name != "fold-zero-points")])
@pytest.mark.parametrize(("name", "index"), op_cases())
def test_bounds_of_every_op(name: str, index: int, steps: tuple[Any, ...]) -> None:
    """They hold, and are those of the planner, whose plan of the last dense would be refused if they were wider."""
    case = cases_of(name)[index]
    graph, batch, operands = Graph("case"), {}, []
    b = Builder(graph)
    for i, array in enumerate(case.inputs):
        if array is None or (i < len(case.constant) and case.constant[i]):
            operands.append(None if array is None else b.constant(array, f"c{i}"))
            continue
        x = graph.add_input(f"x{i}", f32(*array.shape))
        batch[x.name] = array if array.shape[:1] == (1,) else array[None]
        # channels with clearly different bounds, most without 0, so that a mixed-up channel or zero_point is seen
        channels = array.shape[-1] if array.ndim else 1
        spread = b.constant(np.linspace(0.2, 1.0, channels).astype(np.float32), "spread")
        offset = b.constant(np.linspace(0.3, 3.0, channels).astype(np.float32), "offset")
        y = b.emit(Mul(), b.emit(Tanh(), x), spread)
        operands.append(b.emit(Add(), y, offset))
    y = b.emit(case.op, *operands, name="op")
    if y.type.rank:
        w = b.constant(np.random.default_rng(3).normal(size=(2, y.type.shape[-1])).astype(np.float32), "w")
        y = b.emit(Dense(), y, w, name="last")
    graph.add_output(y)
    planned = plan(graph, batch, steps)
    walk = Walk(planned)
    walk.run()
    for value, intervals in ((n.output, propagate(planned)) for n in planned.nodes):
        if value.type.dtype.is_integer:
            bounds = walk.facts[id(value)].value
            np.testing.assert_array_equal(bounds.low, intervals[id(value)].low, err_msg=value.name)
            np.testing.assert_array_equal(bounds.high, intervals[id(value)].high, err_msg=value.name)
    outside = []

    def observe(value: Value, array: np.ndarray) -> None:
        if value.type.dtype.is_integer:
            bounds = walk.facts[id(value)].value
            if (array < bounds.low).any() or (array > bounds.high).any():
                outside.append(value.name)

    interpreter.run(planned, {v.name: extremes(v) for v in planned.inputs}, observe=observe)
    assert outside == []


def extremes(value: Value) -> np.ndarray:
    """32 samples: ends of the type in random channels or everywhere, and random codes."""
    rng = np.random.default_rng(3)
    shape = (8, *(value.type.shape[1:] if value.type.shape[:1] == (1,) else value.type.shape))
    if not value.type.dtype.is_integer:
        return rng.normal(size=(32, *shape[1:])).astype(np.float32)
    ends = np.array([-128, 127])
    parts = [
        np.broadcast_to(rng.choice(ends, size=(8, *[1] * (len(shape) - 1))), shape),
        np.broadcast_to(rng.choice(ends, size=(8, *[1] * (len(shape) - 2), *shape[1:][-1:])), shape),
        rng.choice(ends, size=shape),
        rng.integers(-128, 128, size=shape),
    ]
    return np.concatenate(parts).astype(np.int8)


def test_every_accumulating_op_has_a_rule() -> None:
    missing = [n for n, op in OPS.items() if op.accumulates and n not in RULES]
    assert missing == []


# ---------------------------------------------------------------------- bounds against brute force
@settings(deadline=None, max_examples=60)
@given(st.data(), st.sampled_from([1, 2, 4]))
def test_weighted_sum_is_exact(data: st.DataObject, groups: int) -> None:
    """All corners of a small box, also where int64 would overflow."""
    size = data.draw(st.sampled_from([1, 100, 2**31 - 1]))
    numbers = st.integers(-size, size)
    w = np.array(data.draw(st.lists(numbers, min_size=8, max_size=8))).reshape(4, 2, 1)
    ends = [sorted(data.draw(st.tuples(numbers, numbers))) for _ in range(groups)]
    found = weighted_sum(w, Bounds(np.array([e[0] for e in ends]), np.array([e[1] for e in ends])), groups)
    for o in range(4):
        low, high = ends[o // (4 // groups)]
        sums = [int(w[o, 0, 0]) * p + int(w[o, 1, 0]) * q for p in (low, high) for q in (low, high)]
        assert (found.low[o], found.high[o]) == (min(sums), max(sums))


def test_sums_beyond_64_bits_stay_exact() -> None:
    wide = Bounds.full(-(2**32), 2**32, 1)
    assert wide.times(wide).high[0] == 2**64
    assert wide.times(wide).plus(wide.times(wide)).low[0] == -(2**65)
    assert Bounds.full(2**61, 2**61, 3).summed().high[0] == 3 * 2**61


# ---------------------------------------------------------------------- multipliers
def breaking_multiplier(node: Node, channel: int) -> int:
    """The nearest other multiplier at the node's shift for which the float32 path differs somewhere."""
    claims = [node.input(i).data for i in range(1, 5)]
    m, shift, low, high = (np.asarray(c, np.int64)[channel : channel + 1] for c in claims)
    result = node.output.type.qparams
    assert result is not None
    for step in range(1, 4096):
        if not agrees_in_float32(m + step, shift, low, high, result.zero_point, node.op.low, node.op.high)[0]:
            return int(m[0]) + step
    pytest.fail("every neighbour agrees")


def test_a_neighbour_that_breaks_the_certificate(planned: Graph) -> None:
    multiplier = breaking_multiplier(node_of(planned, "dense"), 2)
    edit(planned, "dense", MULTIPLIER, put(2, multiplier))
    with pytest.raises(VerifyError, match=r"%dense, channel 2: fast path f32 at accumulator -?\d+: claimed"):
        check_plan(planned)
    uncertify(planned)
    check_plan(planned)  # the 64-bit path needs no certificate


def test_the_accumulator_named_is_where_they_differ(planned: Graph) -> None:
    node = node_of(planned, "dense")
    multiplier = breaking_multiplier(node, 0)
    edit(planned, "dense", MULTIPLIER, put(0, multiplier))
    with pytest.raises(VerifyError) as error:
        check_plan(planned)
    message = error.value.message
    acc = int(message.split("at accumulator ")[1].split(":")[0])
    shift = node.input(SHIFT).data
    result = node.output.type.qparams
    assert shift is not None
    assert result is not None
    canonical = ((acc * multiplier + 2 ** (int(shift[0]) - 1)) >> int(shift[0])) + result.zero_point
    fast = round(float(np.float32(acc) * np.float32(multiplier * 2.0 ** -int(shift[0])))) + result.zero_point
    assert canonical != fast
    clipped = [min(max(q, -128), 127) for q in (fast, canonical)]
    assert message.endswith(f"claimed {clipped[0]} (fast), recomputed {clipped[1]} (canonical)")


def wide_plan(multiplier: int, shift: int, low: int, high: int) -> Graph:
    """One dense of one channel with the claimed interval [low, high], wider than what it can reach."""
    graph = Graph("wide", "planned")
    x = graph.add_input("x", TensorType(DType.S8, (1, 1), QParams.per_tensor(0.5)))
    b = Builder(graph)
    w = b.constant(np.array([[1]], np.int8), "w", QParams.per_channel(np.array([0.5]), 0))
    acc = b.emit(Dense(), x, w, name="acc")
    claims = [b.constant(np.array([v], np.int32), "claim") for v in (multiplier, shift, low, high)]
    op = OPS["requantize"](certified=("f32",), accumulator_bits=32)  # type: ignore[call-arg]
    scale = 0.25 / (multiplier * 2.0**-shift)
    graph.add_output(b.emit(op, acc, *claims, name="y", qparams=QParams.per_tensor(scale)))
    return graph


@settings(deadline=None, max_examples=80)
@given(st.integers(1, 2**24 - 1) | st.integers(1, 40), st.integers(0, 16), st.integers(0, 20000))
def test_certificates_are_judged_like_brute_force(significant: int, spread: int, width: int) -> None:
    """Few significant bits make exact ties, where rounding to even differs from rounding upward."""
    multiplier, shift = significant << (31 - significant.bit_length()), 31 + spread
    low, high = -128 - width, 127 + width // 2
    acc = np.arange(low, high + 1)
    slow = np.clip((acc.astype(object) * multiplier + 2 ** (shift - 1)) >> shift, -128, 127).astype(np.int64)
    product = acc.astype(np.float32) * np.float32(multiplier * 2.0**-shift)
    equal = bool((np.clip(np.rint(product), -128, 127) == slow).all())
    graph = wide_plan(multiplier, shift, low, high)
    if equal:
        assert check_plan(graph).exhaustive == 1
    else:
        with pytest.raises(VerifyError, match="fast path f32"):
            check_plan(graph)


@settings(deadline=None, max_examples=50)
@given(st.integers(2**30, 2**31 - 1), st.integers(37, 41), st.booleans())
def test_long_intervals_are_judged_by_their_thresholds(multiplier: int, shift: int, short: bool) -> None:
    """More accumulators than are tried one by one, against brute force; half of the multipliers have 24 bits."""
    multiplier &= ~127 if short else ~0
    acc = np.arange(-(2**17), 2**17 + 1)
    slow = np.clip((acc * multiplier + 2 ** (shift - 1)) >> shift, -128, 127)
    product = acc.astype(np.float32) * np.float32(multiplier * 2.0**-shift)
    graph = wide_plan(multiplier, shift, int(acc[0]), int(acc[-1]))
    if (np.clip(np.rint(product), -128, 127) == slow).all():
        assert check_plan(graph).exhaustive == 0
    else:
        with pytest.raises(VerifyError, match="fast path f32"):
            check_plan(graph)


@pytest.mark.parametrize("channel", range(5))
def test_every_channel_is_judged_in_chunks_too(
    planned: Graph, channel: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checker, "_CHUNK", 700)  # two channels of the dense at a time
    for limit in (0, checker.EXHAUSTIVE):
        monkeypatch.setattr(checker, "EXHAUSTIVE", limit)
        check_plan(planned)
    edit(planned, "dense", MULTIPLIER, put(channel, breaking_multiplier(node_of(planned, "dense"), channel)))
    for limit in (0, 2**31):
        monkeypatch.setattr(checker, "EXHAUSTIVE", limit)
        with pytest.raises(VerifyError, match=f"%dense, channel {channel}: fast path f32"):
            check_plan(planned)


def test_a_product_beyond_int32_is_no_fast_path() -> None:
    check_plan(wide_plan(2**30, 30, -128, 2**29))
    with pytest.raises(VerifyError, match="fast path f32 at accumulator 536870912"):
        check_plan(wide_plan(2**30, 28, -128, 2**29))


@pytest.mark.parametrize(
    ("index", "change", "message"),
    [
        (MULTIPLIER, lambda d: d + d // 1000, r"multiplier \* 2\^-shift: claimed \d.*, recomputed \d"),
        (SHIFT, lambda d: d + 1, r"multiplier \* 2\^-shift: claimed \d.*, recomputed \d"),
        (MULTIPLIER, put(1, 2**23 - 1), r"multiplier out of range: claimed 8388607, recomputed \[8388608, "),
        (MULTIPLIER, put(1, -5), r"channel 1: multiplier out of range: claimed -5"),
        (SHIFT, put(1, 0), r"channel 1: shift out of range: claimed 0, recomputed \[1, 62\]"),
        (SHIFT, put(1, 63), r"channel 1: shift out of range: claimed 63"),
        (ACC_MIN, bump(1, 1), r"%relu6, channel 1: accumulator interval: claimed \[-?\d+, \d+\], recomputed"),
        (ACC_MAX, bump(2, -1), r"%relu6, channel 2: accumulator interval: claimed"),
        (ACC_MAX, lambda d: d[:2], r"type of acc_max: claimed s32\[4\], recomputed int32\[2\]"),
        (ACC_MAX, lambda d: d.astype(np.int8), r"type of acc_max: claimed s32\[4\], recomputed int8\[4\]"),
    ],
)
def test_faults_in_the_claims_of_a_requantize(
    planned: Graph, index: int, change: Callable[[np.ndarray], Any], message: str
) -> None:
    edit(planned, "relu6", index, change)
    with pytest.raises(VerifyError, match=message):
        check_plan(planned)


def test_a_scale_within_the_planned_neighbours_passes(planned: Graph) -> None:
    uncertify(planned)
    edit(planned, "relu6", MULTIPLIER, lambda d: d + (d >> 15))
    check_plan(planned)
    edit(planned, "relu6", MULTIPLIER, lambda d: d + (d >> 14))
    with pytest.raises(VerifyError, match="multiplier"):
        check_plan(planned)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"certified": ("f16",)}, r"%relu6: unknown fast path: claimed 'f16', recomputed known: f32"),
        ({"certified": ("f32", "sqrdmulh")}, r"unknown fast path: claimed 'sqrdmulh'"),
        ({"low": -129}, r"rounding and saturation: claimed ties_up, \[-129, "),
        ({"low": 5, "high": 4}, r"rounding and saturation"),
        ({"rounding": "half_even"}, r"rounding and saturation: claimed half_even"),
        ({"accumulator_bits": 0}, r"accumulator_bits: claimed 0, recomputed 1\d "),
        ({"accumulator_bits": 33}, r"accumulator_bits: claimed 33"),
    ],
)
def test_faults_in_the_attributes_of_a_requantize(
    planned: Graph, options: dict[str, Any], message: str
) -> None:
    node = node_of(planned, "relu6")
    node.op = replace(node.op, **options)
    with pytest.raises(VerifyError, match=message):
        check_plan(planned)


def test_accumulator_bits_one_too_few() -> None:
    """127 * 127 = 16129 and 127 * -128 = -16256 need 15 bits."""
    graph = wide_plan(2**30, 31, -(2**15), 2**15)
    edit(graph, "acc", 1, lambda d: np.full_like(d, 127))
    graph.nodes[-1].op = replace(graph.nodes[-1].op, certified=(), accumulator_bits=15)
    assert check_plan(graph).accumulator_bits == 15
    graph.nodes[-1].op = replace(graph.nodes[-1].op, accumulator_bits=14)
    with pytest.raises(VerifyError, match=r"%y, channel 0: accumulator_bits: claimed 14, recomputed 15"):
        check_plan(graph)


# ---------------------------------------------------------------------- what the bounds rest on
@pytest.mark.parametrize("residual", [False, True])
def test_partial_sums_count_not_only_the_total(residual: bool) -> None:
    """Products of a constant that cancel, 12700 - 12700: the total is 0 and needs one bit, one product 15."""
    graph = Graph("cancel", "planned")
    x = graph.add_input("x", TensorType(DType.S8, (1, 2), QParams.per_tensor(0.5)))
    b = Builder(graph)
    table = b.constant(np.full(256, 100, np.int8), "table")
    x = b.emit(Table(), x, table, name="constant", qparams=QParams.per_tensor(0.5))
    w = b.constant(np.array([[127, -127]], np.int8), "w", QParams.per_channel(np.array([0.5]), 0))
    acc = b.emit(Dense(), x, w, name="acc")
    if residual:  # the sums behind the operand still count
        skip = b.constant(np.array([[100]], np.int32), "skip")
        acc = b.emit(Add(), acc, skip, name="sum", qparams=QParams.per_tensor(0.25, 0, "s32"))
    total = 100 if residual else 0
    claims = [b.constant(np.array([v], np.int32), "claim") for v in (2**30, 31, total, total)]
    op = OPS["requantize"](accumulator_bits=15)  # type: ignore[call-arg]
    graph.add_output(b.emit(op, acc, *claims, name="y", qparams=QParams.per_tensor(0.5)))
    check_plan(graph)
    graph.nodes[-1].op = replace(op, accumulator_bits=14)  # type: ignore[type-var]
    with pytest.raises(VerifyError, match="accumulator_bits: claimed 14, recomputed 15"):
        check_plan(graph)


def test_a_changed_weight(planned: Graph) -> None:
    uncertify(planned)
    edit(planned, "conv2.acc", 1, put(3, 127))
    with pytest.raises(VerifyError, match=r"%relu, channel 3: accumulator interval"):
        check_plan(planned)


def test_a_weight_of_minus_128(planned: Graph) -> None:
    edit(planned, "conv2.acc", 1, put(1, -128))
    with pytest.raises(VerifyError, match=r"%conv2.acc, channel 1: weight out of range: .* recomputed -128"):
        check_plan(planned)


def test_a_bias_that_lets_sums_pass_32_bits(planned: Graph) -> None:
    edit(planned, "depthwise.acc", 2, put(2, 2**31 - 1))
    message = (
        r"%depthwise.acc, channel 2: a partial sum overflows: claimed every partial sum in 32 bits, recomp"
    )
    with pytest.raises(VerifyError, match=message):
        check_plan(planned)


def test_a_removed_clamp(planned: Graph) -> None:
    uncertify(planned)
    node = node_of(planned, "relu6")
    node.op = replace(node.op, low=-128)
    node.output.type = node.output.type.with_qparams(
        replace(node.output.type.qparams, zero_point=0)  # type: ignore[type-var]
    )
    with pytest.raises(VerifyError, match=r"%relu, channel \d: accumulator interval"):
        check_plan(planned)


def test_a_widened_table() -> None:
    graph, b, c = build(1, 4)
    y = b.emit(Tanh(), graph.inputs[0], name="tanh")
    graph.add_output(b.emit(Dense(), y, c(3, 4), c(3), name="dense"))
    graph = plan(graph, samples(1, 4), STEPS[:-1])
    edit(graph, "tanh", 1, lambda d: d // 2)
    planned = plan(graph, {}, (PlanAccumulators(),))
    check_plan(planned)
    uncertify(planned)
    edit(planned, "tanh", 1, lambda d: d // 2)
    check_plan(planned)  # a narrower table leaves the claims true
    edit(planned, "tanh", 1, lambda d: np.arange(-128, 128).astype(np.int8))
    with pytest.raises(VerifyError, match=r"%dense, channel 0: accumulator interval"):
        check_plan(planned)


def test_an_input_of_another_type(planned: Graph) -> None:
    """The same graph read as unsigned bytes: the first convolution reaches further."""
    uncertify(planned)
    x = planned.inputs[0]
    assert x.type.qparams is not None
    x.type = TensorType(DType.U8, x.type.shape, replace(x.type.qparams, dtype="u8", zero_point=0))
    with pytest.raises(VerifyError, match=r"%relu6, channel \d: accumulator interval"):
        check_plan(planned)


def test_another_zero_point_of_the_input() -> None:
    graph, b, _ = build(1, 4, 4, 2)
    graph.add_output(b.emit(AvgPool2d((2, 2), (2, 2)), graph.inputs[0], name="pool"))
    planned = plan(graph, samples(1, 4, 4, 2))
    uncertify(planned)
    x = planned.inputs[0]
    assert x.type.qparams is not None
    x.type = x.type.with_qparams(replace(x.type.qparams, zero_point=x.type.qparams.zero_point + 7))
    with pytest.raises(VerifyError, match=r"%pool, channel 0: accumulator interval"):
        check_plan(planned)


# ---------------------------------------------------------------------- scales and types
def rescale(value: Value, factor: float) -> None:
    qparams = value.type.qparams
    assert qparams is not None
    scaled = replace(qparams, scale=tuple(s * factor for s in qparams.scale))
    value.type = value.type.with_qparams(scaled)


@pytest.mark.parametrize(
    ("node", "index", "message"),
    [
        ("conv.acc", 2, r"%conv.acc, channel 0: scale of the bias: claimed \S+, recomputed"),
        ("conv.acc", 1, r"%conv.acc, channel 0: scale of the result"),
        ("conv2.acc", None, r"%conv2.acc, channel 0: scale of the result"),
        ("residual.acc", None, r"%residual.acc, channel 0: multiplier of operand 0: claimed 1, recomputed"),
        ("pool.acc", None, r"%pool.acc, channel 0: scale of the result"),
        ("flat", None, r"%flat: %tanh is moved: claimed q\("),
        ("relu", None, r"%relu, channel 0: multiplier"),
    ],
)
def test_scales_that_do_not_fit(planned: Graph, node: str, index: int | None, message: str) -> None:
    found = node_of(planned, node)
    rescale(found.output if index is None else found.input(index), 1.001)
    with pytest.raises(VerifyError, match=message):
        check_plan(planned)


def test_a_wrong_multiplier_of_a_residual(planned: Graph) -> None:
    edit(planned, "residual.acc", 3, bump(1, 1))
    with pytest.raises(
        VerifyError, match=r"%residual.acc, channel 1: multiplier of operand 1: claimed \d+, reco"
    ):
        check_plan(planned)


def test_a_wrong_multiplier_of_a_plain_sum() -> None:
    graph, b, c = build(1, 4)
    y = b.emit(Dense(), graph.inputs[0], c(4, 4), name="dense")
    graph.add_output(b.emit(Add(), b.emit(Tanh(), y), graph.inputs[0], name="sum"))
    planned = plan(graph, samples(1, 4))
    check_plan(planned)
    edit(planned, "sum.acc", 2, bump(0, 1))
    with pytest.raises(VerifyError, match=r"%sum.acc, channel 0: multiplier of operand 0"):
        check_plan(planned)


def test_moved_values_must_share_qparams() -> None:
    graph, b, _ = build(1, 4)
    x = graph.inputs[0]
    graph.add_output(b.emit(Concat(1), x, b.emit(Tanh(), x, name="tanh"), name="concat"))
    planned = plan(graph, samples(1, 4))
    check_plan(planned)
    rescale(planned.inputs[0], 1.5)
    with pytest.raises(VerifyError, match=r"%concat: %x is moved"):
        check_plan(planned)


def test_a_value_without_scale(planned: Graph) -> None:
    value = node_of(planned, "conv.acc").input(0)
    value.type = value.type.with_qparams(None)
    with pytest.raises(VerifyError, match="%x has no qparams"):
        check_plan(planned)


def test_a_bias_of_another_type(planned: Graph) -> None:
    edit(planned, "conv.acc", 2, lambda d: np.minimum(d, 100).astype(np.int16))
    with pytest.raises(VerifyError, match=r"type of the bias: claimed s32, recomputed s16"):
        check_plan(planned)


# ---------------------------------------------------------------------- structure
def test_a_float_op_that_reads_an_accumulator(planned: Graph) -> None:
    b = Builder(planned)
    planned.add_output(b.emit(Dequantize(), node_of(planned, "dense.acc").output, name="float"), "float")
    with pytest.raises(VerifyError, match=r"%float: dequantize reads accumulator %dense.acc"):
        check_plan(planned)


def test_movement_of_an_accumulator_keeps_its_partial_sums(planned: Graph) -> None:
    node = node_of(planned, "dense")
    acc = node.input(0)
    moved = Builder(planned, before=node).emit(Reshape((1, 5)), acc, name="moved")
    planned.set_input(node, 0, moved)
    assert check_plan(planned).accumulators == 7
    node.op = replace(node.op, accumulator_bits=10)
    with pytest.raises(VerifyError, match="accumulator_bits"):
        check_plan(planned)


def test_an_op_without_a_rule() -> None:
    class Odd(Op):
        name = "odd"
        operands = ("x",)
        dtype = DType.S32

        def infer(self, *operands: TensorType | None) -> TensorType:
            assert operands[0] is not None
            return TensorType(self.dtype, operands[0].shape, QParams.per_tensor(1.0, 0, self.dtype.value))

    class OddBytes(Odd):
        dtype = DType.S8

    for op, message in (
        (Odd(), "%odd: odd leaves an accumulator: claimed a rule that bounds it"),
        (OddBytes(), ""),
    ):
        graph = Graph("odd", "planned")
        x = graph.add_input("x", TensorType(DType.S8, (1, 2), QParams.per_tensor(1.0)))
        graph.add_output(Builder(graph).emit(op, x, name="odd"))
        if message:
            with pytest.raises(VerifyError, match=message):
                check_plan(graph)
        else:
            assert check_plan(graph).accumulators == 0


def test_an_unplanned_graph(planned: Graph) -> None:
    planned.stage = "integer"
    with pytest.raises(VerifyError, match="only a planned graph can be checked, test is integer"):
        check_plan(planned)


def test_an_unplanned_requantize(planned: Graph) -> None:
    node = node_of(planned, "relu6")
    planned.set_inputs(node, node.inputs[:3])
    with pytest.raises(
        VerifyError, match=r"%relu6: is not planned: claimed a constant acc_min, recomputed none"
    ):
        check_plan(planned)


def test_a_requantize_of_floats(planned: Graph) -> None:
    planned.inputs[0].type = f32(1, 6, 6, 3)
    with pytest.raises(VerifyError, match=r"%conv.acc: conv2d leaves an accumulator"):
        check_plan(planned)
    node = node_of(planned, "relu6")
    node.inputs[0] = planned.inputs[0]
    planned.nodes = [node]
    with pytest.raises(VerifyError, match=r"%relu6: requantize: claimed integers, recomputed floats"):
        check_plan(planned)


def test_weights_must_be_constant(planned: Graph) -> None:
    node = node_of(planned, "dense.acc")
    value = planned.add_input("w", node.input(1).type)
    planned.set_input(node, 1, value)
    with pytest.raises(VerifyError, match=r"%dense.acc: operand 1 of dense must be a constant"):
        check_plan(planned)


def test_a_value_used_before_it_is_defined(planned: Graph) -> None:
    planned.nodes.reverse()
    with pytest.raises(VerifyError, match=r"reads %dense.acc, which is not defined before it"):
        check_plan(planned)


# ---------------------------------------------------------------------- independence
def test_the_checker_shares_nothing_with_the_planner() -> None:
    """Containers, errors and numpy only; none of the analysis methods of ops."""
    folder = Path(__file__).resolve().parent.parent / "qcc"
    allowed = {"__future__", "collections.abc", "dataclasses", "math", "typing", "numpy", "numpy.typing"}
    allowed |= {"qcc.checker_rules", "qcc.ir.errors", "qcc.ir.graph", "qcc.ir.types"}
    banned = {"interval", "partial_sum_bound", "int_ref", "float_ref", "quant_rule", "infer"}
    for name in ("checker.py", "checker_rules.py"):
        tree = ast.parse((folder / name).read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                assert {a.name for a in node.names} <= allowed
            if isinstance(node, ast.ImportFrom):
                assert node.module in allowed
            if isinstance(node, ast.Attribute):
                assert node.attr not in banned


def test_known_fast_paths() -> None:
    assert set(FAST_PATHS) == {"f32"}
