"""Fast paths: the checker's verdict against brute force, on short and on long intervals."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcc import checker_requantize
from qcc.checker import check_plan
from qcc.checker_requantize import FAST_PATHS
from qcc.ir.builder import Builder
from qcc.ir.errors import VerifyError
from qcc.ir.graph import Graph, Node
from qcc.ir.ops.dense import Dense
from qcc.ir.ops.quant import Requantize
from qcc.ir.qparams import QParams
from qcc.ir.types import DType, TensorType, f32
from qcc.passes.base import PassContext
from qcc.passes.certify import agrees_in_float32
from qcc.passes.manager import parse_pipeline

PIPELINE = "fuse-epilogues,calibrate,choose-qparams,quantize-ops,fold-zero-points,plan-accumulators"
MULTIPLIER, SHIFT = 1, 2


@pytest.fixture
def planned() -> Graph:
    """One dense of 16 inputs and 5 outputs."""
    rng = np.random.default_rng(11)
    graph = Graph("test")
    b = Builder(graph)
    constants = (b.constant(rng.normal(size=s).astype(np.float32), "c") for s in ((5, 16), (5,)))
    graph.add_output(b.emit(Dense(), graph.add_input("x", f32(1, 16)), *constants, name="dense"))
    ctx = PassContext(resources={"calibration": [{"x": rng.normal(size=(8, 16)).astype(np.float32)}]})
    for step in parse_pipeline(PIPELINE):
        graph = step.run(graph, ctx).graph or graph
    return graph


def put_multiplier(graph: Graph, channel: int, multiplier: int) -> None:
    node = graph.nodes[-1]
    old = node.input(MULTIPLIER)
    assert old.data is not None
    data = old.data.copy()
    data[channel] = multiplier
    graph.set_input(node, MULTIPLIER, graph.constant(data, old.name, old.type))


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
    node = planned.nodes[-1]
    multiplier = breaking_multiplier(node, 2)
    put_multiplier(planned, 2, multiplier)
    with pytest.raises(VerifyError, match=r"%dense, channel 2: fast path f32 at accumulator -?\d+: claimed"):
        check_plan(planned)
    node.op = replace(node.op, certified=())
    check_plan(planned)  # the 64-bit path needs no certificate


def test_the_accumulator_named_is_where_they_differ(planned: Graph) -> None:
    node = planned.nodes[-1]
    multiplier = breaking_multiplier(node, 0)
    put_multiplier(planned, 0, multiplier)
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
    op = Requantize(certified=("f32",), accumulator_bits=32)
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


@settings(deadline=None, max_examples=60)
@given(
    st.integers(2**30, 2**31 - 1),
    st.integers(37, 41),
    st.booleans(),
    # on one side of 0 a multiplier rounded up in float32 passes every threshold too early, or every one too late
    st.sampled_from([(-(2**17), 2**17), (-128, 2**17), (-(2**17), 127)]),
)
def test_long_intervals_are_judged_by_their_thresholds(
    multiplier: int, shift: int, short: bool, ends: tuple[int, int]
) -> None:
    """More accumulators than are tried one by one, against brute force; half of the multipliers have 24 bits."""
    multiplier &= ~127 if short else ~0
    acc = np.arange(ends[0], ends[1] + 1)
    slow = np.clip((acc * multiplier + 2 ** (shift - 1)) >> shift, -128, 127)
    product = acc.astype(np.float32) * np.float32(multiplier * 2.0**-shift)
    graph = wide_plan(multiplier, shift, *ends)
    if (np.clip(np.rint(product), -128, 127) == slow).all():
        assert check_plan(graph).exhaustive == 0
    else:
        with pytest.raises(VerifyError, match="fast path f32"):
            check_plan(graph)


@pytest.mark.parametrize("channel", range(5))
def test_every_channel_is_judged_in_chunks_too(
    planned: Graph, channel: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checker_requantize, "_CHUNK", 700)  # two channels of the dense at a time
    for limit in (0, checker_requantize.EXHAUSTIVE):
        monkeypatch.setattr(checker_requantize, "EXHAUSTIVE", limit)
        check_plan(planned)
    put_multiplier(planned, channel, breaking_multiplier(planned.nodes[-1], channel))
    for limit in (0, 2**31):
        monkeypatch.setattr(checker_requantize, "EXHAUSTIVE", limit)
        with pytest.raises(VerifyError, match=f"%dense, channel {channel}: fast path f32"):
            check_plan(planned)


def test_a_product_beyond_int32_is_no_fast_path() -> None:
    check_plan(wide_plan(2**30, 30, -128, 2**29))
    with pytest.raises(VerifyError, match="fast path f32 at accumulator 536870912"):
        check_plan(wide_plan(2**30, 28, -128, 2**29))


def test_accumulator_bits_one_too_few() -> None:
    """127 * 127 = 16129 and 127 * -128 = -16256 need 15 bits."""
    graph = wide_plan(2**30, 31, -(2**15), 2**15)
    w = graph.nodes[0].input(1)
    assert w.data is not None
    w.data[...] = 127
    graph.nodes[-1].op = replace(graph.nodes[-1].op, certified=(), accumulator_bits=15)
    assert check_plan(graph).accumulator_bits == 15
    graph.nodes[-1].op = replace(graph.nodes[-1].op, accumulator_bits=14)
    with pytest.raises(VerifyError, match=r"%y, channel 0: accumulator_bits: claimed 14, recomputed 15"):
        check_plan(graph)


def test_known_fast_paths() -> None:
    assert set(FAST_PATHS) == {"f32"}
