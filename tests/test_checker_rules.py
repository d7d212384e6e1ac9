"""The checker's bounds: those of the planner op by op, exact against brute force, and of code of their own."""

import ast
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import qcc.ir.ops  # noqa: F401  (fills the registry)
from qcc.checker import Walk, check_plan
from qcc.checker_rules import RULES, Bounds, weighted_sum
from qcc.ir import interpreter
from qcc.ir.builder import Builder
from qcc.ir.errors import VerifyError
from qcc.ir.graph import Graph, Value
from qcc.ir.op import OPS, Case, Op
from qcc.ir.ops.activation import Tanh
from qcc.ir.ops.conv import Conv2d
from qcc.ir.ops.conv_transpose import ConvTranspose2d
from qcc.ir.ops.dense import Dense
from qcc.ir.ops.elementwise import Add, Mul
from qcc.ir.ops.quant import Requantize, Table
from qcc.ir.ops.shape import Pad, Reshape
from qcc.ir.qparams import QParams
from qcc.ir.types import DType, TensorType, f32
from qcc.passes.base import PassContext
from qcc.passes.manager import parse_pipeline
from qcc.passes.plan_accumulators import propagate

UNFOLDED = "fuse-epilogues,calibrate,choose-qparams,quantize-ops,plan-accumulators"
PLANNED = UNFOLDED.replace("plan", "fold-zero-points,plan") + ",remove-dead-channels"


def plan(graph: Graph, batch: dict[str, np.ndarray], pipeline: str) -> Graph:
    ctx = PassContext(resources={"calibration": [batch]})
    for step in parse_pipeline(pipeline):
        graph = step.run(graph, ctx).graph or graph
    return graph


MORE_CASES = {
    "conv_transpose2d": (ConvTranspose2d((2, 2), dilations=(2, 3)), (1, 3, 3, 2), (3, 2, 3, 2)),
    "reshape": (Reshape((1, 6, 4)), (1, 4, 6)),
    "conv2d": (Conv2d((1, 1), (2, 2, 2, 2), (2, 2), 2), (1, 4, 4, 4), (4, 3, 3, 2)),
    "pad": (Pad((0, 0, 1), (0, 0, 2), 2.5), (1, 2, 3)),
}
WITHIN_ONE = ("acos", "asin", "atanh")  # no numbers outside of (-1, 1)


def cases_of(name: str) -> list[Case]:
    """The op's own cases, and some whose bounds are less plain."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    cases = list(OPS[name].cases(rng))
    if name in MORE_CASES:
        op, *shapes = MORE_CASES[name]
        cases.append(Case(op, tuple(rng.normal(size=s).astype(np.float32) for s in shapes), (False, True)))
    return cases


def op_cases() -> list[tuple[str, int]]:
    floats = [n for n in sorted(OPS) if OPS[n].float_ref is not Op.float_ref and not OPS[n].simulated]
    return [(name, index) for name in floats for index, _ in enumerate(cases_of(name))]


@pytest.mark.filterwarnings("ignore:invalid value encountered in cast")  # 0 / 0 where a float op meets noise
@pytest.mark.parametrize("pipeline", [PLANNED, UNFOLDED])
@pytest.mark.parametrize(("name", "index"), op_cases())
def test_bounds_of_every_op(name: str, index: int, pipeline: str) -> None:
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
        largest = 0.8 if name in WITHIN_ONE else 1.0
        spread = b.constant(np.linspace(0.2, largest, channels).astype(np.float32), "spread")
        ends = (-0.1, -0.05) if name in WITHIN_ONE else (0.3, 3.0)
        offset = b.constant(np.linspace(*ends, channels).astype(np.float32), "offset")
        y = b.emit(Mul(), b.emit(Tanh(), x), spread)
        operands.append(b.emit(Add(), y, offset))
    y = b.emit(case.op, *operands, name="op")
    if y.type.rank:
        w = b.constant(np.random.default_rng(3).normal(size=(2, y.type.shape[-1])).astype(np.float32), "w")
        y = b.emit(Dense(), y, w, name="last")
    graph.add_output(y)
    planned = plan(graph, batch, pipeline)
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
    op = Requantize(accumulator_bits=15)
    graph.add_output(b.emit(op, acc, *claims, name="y", qparams=QParams.per_tensor(0.5)))
    check_plan(graph)
    graph.nodes[-1].op = replace(op, accumulator_bits=14)  # type: ignore[type-var]
    with pytest.raises(VerifyError, match="accumulator_bits: claimed 14, recomputed 15"):
        check_plan(graph)


# ---------------------------------------------------------------------- independence
def test_the_checker_shares_nothing_with_the_planner() -> None:
    """Containers, errors and numpy only; none of the analysis methods of ops."""
    folder = Path(__file__).resolve().parent.parent / "qcc"
    allowed = {"__future__", "collections.abc", "dataclasses", "math", "typing", "numpy", "numpy.typing"}
    parts = ["checker_requantize", "checker_rules", "checker_scales", "checker_softmax"]
    allowed |= {*(f"qcc.{part}" for part in parts), "qcc.ir.errors", "qcc.ir.graph", "qcc.ir.types"}
    banned = {"interval", "partial_sum_bound", "int_ref", "float_ref", "quant_rule", "infer"}
    for name in ("checker", *parts):
        tree = ast.parse((folder / f"{name}.py").read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                assert {a.name for a in node.names} <= allowed
            if isinstance(node, ast.ImportFrom):
                assert node.module in allowed
            if isinstance(node, ast.Attribute):
                assert node.attr not in banned
