"""What every op promises, checked on its own cases: an op that is added is covered without a line here."""

import contextlib
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest

import qcc.ir.ops  # noqa: F401  (fills the registry)
from qcc.ir.errors import VerifyError
from qcc.ir.fixedpoint import dequantize, quantize
from qcc.ir.graph import Graph, Node, Value
from qcc.ir.interpreter import run
from qcc.ir.interval import Interval
from qcc.ir.lowering import Lowering
from qcc.ir.op import OPS, Array, Case, Op, Signature
from qcc.ir.qparams import QParams
from qcc.ir.types import DType, TensorType, f32

# Largest |integer - exact result of the same quantized operands| in LSB of the result: half an LSB is the
# rounding, the rest is the multiplier or an algorithm's own stated error.
DEFAULT_BOUND_LSB = 0.51
# resize_linear: 1/2 + 2 axes * 2^-8 * 255 * s_x / s_y, and s_x / s_y < 1.25 in its cases.
BOUND_LSB = {"softmax": 1.0, "resize_linear": 3.0}


def all_cases() -> list[tuple[str, int]]:
    """(op, index of the case) of every case of an op with a float meaning."""
    named = [name for name in sorted(OPS) if OPS[name].float_ref is not Op.float_ref]
    return [(name, index) for name in named for index, _ in enumerate(cases_of(name))]


def cases_of(name: str) -> list[Case]:
    return list(OPS[name].cases(np.random.default_rng(zlib.crc32(name.encode()))))


def case_of(name: str, index: int) -> Case:
    return cases_of(name)[index]


def is_constant(case: Case, index: int) -> bool:
    return index < len(case.constant) and case.constant[index]


def types_of(inputs: tuple[Array | None, ...]) -> list[TensorType | None]:
    return [None if a is None else f32(*a.shape) for a in inputs]


def signature(case: Case) -> Signature:
    types = types_of(case.inputs)
    return Signature(tuple(types), case.op.infer(*types))


every_case = pytest.mark.parametrize(("name", "index"), all_cases())


# ---------------------------------------------------------------------- float
@every_case
def test_infer_agrees_with_float_ref(name: str, index: int) -> None:
    case = case_of(name, index)
    result = np.asarray(case.op.float_ref(*case.inputs))
    assert result.shape == signature(case).result.shape
    assert result.dtype in (np.float32, np.float64)


@every_case
def test_elementwise_keeps_float64(name: str, index: int) -> None:
    case = case_of(name, index)
    if not case.op.elementwise:
        return
    wide = case.op.float_ref(*(None if a is None else a.astype(np.float64) for a in case.inputs))
    narrow = case.op.float_ref(*case.inputs)
    assert wide.dtype == np.float64
    assert narrow.dtype == np.float32
    np.testing.assert_allclose(narrow, wide, rtol=2e-6, atol=2e-6)


def float_graph(case: Case) -> Graph:
    graph = Graph("case")
    values: list[Value | None] = []
    for index, array in enumerate(case.inputs):
        if array is None:
            values.append(None)
        elif is_constant(case, index):
            values.append(graph.constant(array, f"c{index}", f32(*array.shape)))
        else:
            values.append(graph.add_input(f"x{index}", f32(*array.shape)))
    node = graph.add_node(case.op, values, signature(case).result, "y")
    graph.add_output(node.output)
    return graph


def samples_of(case: Case, count: int, rng: np.random.Generator) -> dict[str, Array]:
    """Each sample holds the case's own elements in another order: inside of the op's domain."""
    return {
        f"x{i}": np.stack([rng.permutation(a.reshape(-1)).reshape(a.shape) for _ in range(count)])
        for i, a in enumerate(case.inputs)
        if a is not None and not is_constant(case, i)
    }


@every_case
@pytest.mark.parametrize("count", [3, 4, 5])  # a length that equals an inner axis must not confuse anything
def test_stacked_samples_equal_single_ones(name: str, index: int, count: int) -> None:
    case = case_of(name, index)
    graph = float_graph(case)
    samples = samples_of(case, count, np.random.default_rng(index))
    together = run(graph, samples)["y"]
    single = [run(graph, {k: v[i : i + 1] for k, v in samples.items()})["y"] for i in range(count)]
    np.testing.assert_allclose(together, np.concatenate(single), rtol=1e-6, atol=1e-6)


def test_stacked_samples_of_lower_rank_do_not_meet_inner_axes() -> None:
    rng = np.random.default_rng(0)
    for name, a, b in (
        ("add", (1, 3, 5), (1, 5)),
        ("matmul", (1, 3, 5), (1, 3, 5, 2)),
        ("mul", (1, 3, 5), (1,)),
    ):
        graph = float_graph(Case(OPS[name](), (np.zeros(a, np.float32), np.zeros(b, np.float32))))
        x0, x1 = (rng.normal(size=(3, *shape)).astype(np.float32) for shape in (a, b))
        together = run(graph, {"x0": x0, "x1": x1})["y"]
        single = [np.asarray(OPS[name]().float_ref(p, q)) for p, q in zip(x0, x1, strict=True)]
        np.testing.assert_allclose(together, np.concatenate(single), rtol=1e-6)


@every_case
def test_permuted_commutes(name: str, index: int) -> None:
    """P(x) transposed equals op(x transposed), for the data operands (and same-rank constants, elementwise)."""
    case = case_of(name, index)
    rng = np.random.default_rng(index)
    sig = signature(case)
    rank = sig.operand(0).rank
    ranks = {t.rank for t in sig.operands if t is not None} - {0}
    if case.op.elementwise and ranks != {rank}:
        return  # such operands commute once they have equal rank
    moved = [
        a is not None and a.ndim == rank and (case.op.elementwise or not is_constant(case, i))
        for i, a in enumerate(case.inputs)
    ]
    for _ in range(8):
        perm = tuple(int(p) for p in rng.permutation(rank))
        other = case.op.permuted(perm, sig)
        if other is None:
            continue
        before = [
            np.ascontiguousarray(a.transpose(np.argsort(perm))) if m and a is not None else a
            for a, m in zip(case.inputs, moved, strict=True)
        ]
        assert other.infer(*types_of(tuple(before))).shape == tuple(
            sig.result.shape[i] for i in np.argsort(perm)
        )
        result = np.asarray(other.float_ref(*before)).transpose(perm)
        np.testing.assert_allclose(result, case.op.float_ref(*case.inputs), rtol=1e-5, atol=1e-6)


# ---------------------------------------------------------------------- integers
@dataclass
class Lowered:
    """The integer form of a case, and what its operands mean as reals."""

    graph: Graph
    result: QParams
    constants: dict[int, Array]  # dequantized, by operand


def asymmetric(*arrays: Array) -> QParams:
    """qparams of a range that holds the arrays and zero."""
    low = min(0.0, *(float(a.min()) for a in arrays))
    high = max(1e-3, *(float(a.max()) for a in arrays))
    scale = (high - low) / 255
    return QParams.per_tensor(scale, round(-128 - low / scale))


def annotated_graph(case: Case) -> Graph:
    """One node with qparams on everything that choose-qparams would give them to."""
    rule = case.op.quant_rule()
    data = [a for i, a in enumerate(case.inputs) if a is not None and not is_constant(case, i)]
    result = np.asarray(case.op.float_ref(*case.inputs))
    graph = Graph("case", "annotated")
    values: list[Value | None] = []
    for index, array in enumerate(case.inputs):
        if array is None:
            values.append(None)
            continue
        type_ = f32(*array.shape)
        if index == rule.weight:
            axes = tuple(i for i in range(array.ndim) if i != rule.weight_axis)
            scales = np.maximum(np.abs(array).max(axis=axes), 1e-6) / 127
            type_ = type_.with_qparams(QParams.per_channel(scales.astype(np.float64), rule.weight_axis))
        elif not is_constant(case, index):
            type_ = type_.with_qparams(asymmetric(*data) if rule.shares else asymmetric(array))
        name = f"x{index}"
        constant = is_constant(case, index) or index == rule.weight
        values.append(graph.constant(array, name, type_) if constant else graph.add_input(name, type_))
    qparams = rule.result or (asymmetric(*data) if rule.shares else asymmetric(result))
    graph.add_output(graph.add_node(case.op, values, f32(*result.shape).with_qparams(qparams), "y").output)
    return graph


def lowered_forms(case: Case) -> Iterator[Lowered]:
    """The table and the op's own integer form, whichever exist."""
    for form in ("table", "quantize"):
        source = annotated_graph(case)
        (node,) = source.nodes
        q = Lowering(source)
        for value in source.inputs:
            q.define(
                value,
                q.graph.add_input(value.name, TensorType(DType.S8, value.type.shape, value.type.qparams)),
            )
        result = node.op.quantize(q, node) if form == "quantize" else table_of(q, node)
        if result is None:
            continue
        q.graph.add_output(result, "y")
        assert result.type.qparams is not None
        yield Lowered(q.graph, result.type.qparams, dict(dequantized_constants(q.graph, node)))


def table_of(q: Lowering, node: Node) -> Value | None:
    return q.table(node) if node.op.elementwise else None


def dequantized_constants(graph: Graph, node: Node) -> Iterator[tuple[int, Array]]:
    """Constant operands as the integer form holds them; unchanged where only a table has seen them."""
    held = {v.name: v for v in graph.constants() if v.type.qparams is not None}
    for index, value in enumerate(node.inputs):
        if value is not None and value.data is not None:
            twin = held.get(value.name)
            if twin is None or twin.data is None or twin.type.qparams is None:
                yield index, value.data
            else:
                yield index, dequantize(twin.data, twin.type.qparams)


def integer_samples(graph: Graph, rng: np.random.Generator) -> dict[str, Array]:
    """Random bytes, random extremes, all low, all high, all zero_point: 7 samples for each input."""
    samples = {}
    for value in graph.inputs:
        shape = value.type.shape
        assert value.type.qparams is not None
        random = [rng.integers(-128, 128, size=shape) for _ in range(3)]
        extremes = [rng.choice([-128, 127], size=shape) for _ in range(2)]
        flat = [np.full(shape, -128), np.full(shape, 127)]
        samples[value.name] = np.stack([*random, *extremes, *flat]).astype(np.int8)
    return samples


@every_case
def test_integer_form_is_near_the_exact_result(name: str, index: int) -> None:
    case = case_of(name, index)
    for form in lowered_forms(case):
        samples = integer_samples(form.graph, np.random.default_rng(index))
        for k, a in enumerate(case.inputs):  # and the case itself
            if a is not None and f"x{k}" in samples:
                (value,) = (v for v in form.graph.inputs if v.name == f"x{k}")
                assert value.type.qparams is not None
                own = quantize(a, value.type.qparams)[None]
                samples[f"x{k}"] = np.concatenate([samples[f"x{k}"], own])
        result = run(form.graph, samples)["y"]
        result = result.reshape(-1, *form.graph.outputs[0].type.shape)
        for i in range(len(result)):
            reals = operands_of(case, form, {k: v[i] for k, v in samples.items()})
            exact = case.op.float_ref(*reals).astype(np.float64)
            finite = np.clip(exact, *form.result.range)
            error = np.abs(dequantize(result[i], form.result) - finite) / form.result.scale[0]
            bound = BOUND_LSB.get(name, DEFAULT_BOUND_LSB)
            assert error.max() <= bound, f"sample {i}: {error.max()} LSB, stated {bound}"


def operands_of(case: Case, form: Lowered, sample: dict[str, Array]) -> list[Array | None]:
    reals: list[Array | None] = []
    for index, array in enumerate(case.inputs):
        if array is None:
            reals.append(None)
        elif index in form.constants:
            reals.append(form.constants[index].astype(np.float64))
        else:
            (value,) = (v for v in form.graph.inputs if v.name == f"x{index}")
            assert value.type.qparams is not None
            reals.append(dequantize(sample[value.name], value.type.qparams).astype(np.float64))
    return reals


@every_case
def test_integer_values_stay_within_their_intervals(name: str, index: int) -> None:
    """Every value of the integer form lies in the propagated interval, partial_sum_bound covers |acc|."""
    case = case_of(name, index)
    for form in lowered_forms(case):
        bounds: dict[int, Interval | Array] = {}
        partial: dict[int, int] = {}
        for value in form.graph.inputs:
            bounds[id(value)] = Interval.full(-128, 127, value.type.shape[-1] if value.type.shape else 1)
        for value in form.graph.constants():
            assert value.data is not None
            bounds[id(value)] = value.data
        for node in form.graph.nodes:
            operands = [None if v is None else bounds[id(v)] for v in node.inputs]
            bounds[id(node.output)] = node.op.interval(node.signature, *operands)
            if node.op.accumulates:
                partial[id(node.output)] = node.op.partial_sum_bound(node.signature, *operands)
        seen: dict[int, Array] = {}
        run(
            form.graph,
            integer_samples(form.graph, np.random.default_rng(index)),
            observe=lambda value, array, seen=seen: seen.__setitem__(id(value), array),  # type: ignore[misc]
        )
        for node in form.graph.nodes:
            interval, actual = bounds[id(node.output)], seen[id(node.output)].astype(np.int64)
            assert isinstance(interval, Interval)
            assert interval.channels == (node.output.type.shape[-1] if node.output.type.shape else 1)
            assert (actual >= interval.low).all(), node
            assert (actual <= interval.high).all(), node
            if node.op.accumulates:
                assert np.abs(actual).max() <= partial[id(node.output)], node
                assert partial[id(node.output)] >= max(-interval.low.min(), interval.high.max())


# ---------------------------------------------------------------------- types
@every_case
def test_infer_refuses_a_scalar_or_names_the_op(name: str, index: int) -> None:
    """An operand that cannot be is an error for the user, never a crash."""
    case = case_of(name, index)
    types = [None if t is None else f32() for t in types_of(case.inputs)]
    with contextlib.suppress(VerifyError):
        case.op.infer(*types)


@every_case
def test_attributes_are_plain_values(name: str, index: int) -> None:
    """The textual form prints numbers, strings, booleans and tuples of these."""
    for value in case_of(name, index).op.attributes().values():
        for item in value if isinstance(value, tuple) else (value,):
            assert type(item) in (int, float, str, bool)
