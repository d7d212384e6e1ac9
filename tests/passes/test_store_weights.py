"""Weights of float graphs as codes: rounding against closed forms and numpy, what is declined, and what may stand in a graph."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qcc.ir.builder import Builder
from qcc.ir.errors import ParseError, VerifyError
from qcc.ir.graph import Graph
from qcc.ir.interpreter import run
from qcc.ir.ops.conv import Conv2d
from qcc.ir.ops.dense import Dense
from qcc.ir.ops.stored import DynamicDense, StoredWeight, dynamic_quantize
from qcc.ir.parser import load_graph
from qcc.ir.printer import save_graph
from qcc.ir.types import DType, TensorType, f32
from qcc.ir.verifier import verify
from qcc.passes.base import PassContext
from qcc.passes.manager import run_pipeline
from qcc.passes.pipelines import parse_pipeline
from qcc.passes.store_weights import WeightOnly, fed_back, rounded


def net(outputs: int = 16, depth: int = 24) -> Graph:
    """A 1x1 convolution, a depthwise one, a 3x3 one and a dense layer."""
    rng = np.random.default_rng(0)
    graph = Graph("net")
    builder = Builder(graph)

    def weights(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    x = graph.add_input("x", f32(1, 6, 5, depth))
    for name, op, w in (
        ("point", Conv2d(), weights(outputs, 1, 1, depth)),
        ("depth", Conv2d(groups=outputs), weights(outputs, 3, 3, 1)),
        ("window", Conv2d(pads=(1, 1, 1, 1)), weights(outputs, 3, 3, outputs)),
    ):
        bias = builder.constant(weights(outputs), f"{name}_bias")
        x = builder.emit(op, x, builder.constant(w, f"{name}_weight"), bias, name=name)
    graph.add_output(
        builder.emit(Dense(), x, builder.constant(weights(9, outputs), "dense_weight"), name="dense"), "y"
    )
    return graph


def sample(graph: Graph, count: int = 3) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    return {v.name: rng.normal(size=(count, *v.type.shape[1:])).astype(np.float32) for v in graph.inputs}


# ---------------------------------------------------------------------- rounding
@given(
    st.integers(1, 5), st.integers(1, 20), st.integers(0, 8), st.sampled_from([7, 127]), st.integers(0, 99)
)
def test_error_is_that_of_the_nearest_code_or_less(o: int, k: int, group: int, top: int, seed: int) -> None:
    w = np.random.default_rng(seed).normal(size=(o, k))
    codes, scale = rounded(w, top, group)
    size = group or k
    assert codes.shape == w.shape
    assert scale.shape == (o, -(-k // size))
    assert np.abs(codes.astype(int)).max() <= top
    for first in range(0, k, size):
        block, s = w[:, first : first + size], scale[:, first // size, None].astype(np.float64)
        found = ((block - codes[:, first : first + size] * s) ** 2).sum(axis=1)
        plain = np.abs(block).max(axis=1, keepdims=True) / top
        nearest = ((block - np.rint(block / plain) * plain) ** 2).sum(axis=1)
        assert (found <= nearest * 1.001 + 1e-9).all()


def test_zeros_and_tiny_weights_are_kept() -> None:
    w = np.array([[0.0, 0.0], [1e-44, 0.0], [127.0, -1.0]])
    codes, scale = rounded(w, 127, 0)
    assert scale[:, 0].tolist() == [1.0, 1.0, 1.0]
    assert codes.tolist() == [[0, 0], [0, 0], [127, -1]]


@pytest.mark.parametrize("options", ["format=int8", "format=int4", "format=int4 group=7", "format=fp16"])
def test_stored_graph_computes_with_the_decoded_weights(options: str) -> None:
    plain, stored = net(), run_pipeline(net(), f"weight-only{{{options} min_bytes=0}}", PassContext())
    verify(stored)
    for node in stored.nodes:
        weight = node.inputs[1] if isinstance(node.op, Conv2d | Dense) else None
        if weight is None or weight.producer is None:
            continue
        original = next(n for n in plain.nodes if n.name == node.name).input(1)
        assert original.data is not None
        if "fp16" in options:
            decoded = original.data.astype(np.float16).astype(np.float32)
        else:
            codes, scale = (v.data for v in weight.producer.inputs if v is not None)
            assert codes is not None
            assert scale is not None
            rows = codes.reshape(len(codes), -1)
            group = 7 if "group" in options else rows.shape[1]
            decoded = np.empty(rows.shape, np.float32)
            for k in range(rows.shape[1]):
                decoded[:, k] = rows[:, k].astype(np.float32) * scale[:, k // group]
        constant = plain.constant(
            decoded.reshape(original.type.shape),
            f"{original.name}_decoded",
            TensorType(DType.F32, original.type.shape),
        )
        plain.set_input(next(n for n in plain.nodes if n.name == node.name), 1, constant)
    inputs = sample(plain)
    np.testing.assert_array_equal(run(plain, inputs)["y"], run(stored, inputs)["y"])


# ---------------------------------------------------------------------- what is taken
def test_what_is_declined_says_why() -> None:
    graph = net()
    result = WeightOnly(format="fp16", min_bytes=1000).run(graph, PassContext())
    notes = {n.node: (n.applied, n.reason) for n in result.notes}
    assert notes["depth"] == (False, "a depthwise convolution has few weights")
    assert notes["dense"] == (False, "its weights are 576 bytes, fewer than 1000")
    assert notes["point"][0]
    assert notes["window"][1].startswith("9216 to 4608 bytes, ")


def test_weights_beyond_binary16_are_declined() -> None:
    graph = net()
    weight = graph.nodes[0].input(1)
    assert weight.data is not None
    weight.data = weight.data * np.float32(1e6)
    notes = WeightOnly(format="fp16").run(graph, PassContext()).notes
    assert notes[0].reason == "a weight is beyond 65504"


def test_dynamic_weights_take_dense_layers_and_plain_1x1_convolutions() -> None:
    plain, graph = net(), net()
    notes = parse_pipeline("dynamic-weights")[0].run(net(), PassContext()).notes
    assert notes[0].reason == "1x1 convolutions stay in float without pointwise"
    run_pipeline(graph, "dynamic-weights{pointwise=true min_bytes=0}", PassContext())
    verify(graph)
    assert [n.op.name for n in graph.nodes] == ["dynamic_dense", "conv2d", "conv2d", "dynamic_dense"]
    assert [n.name for n in graph.nodes] == [n.name for n in plain.nodes]
    inputs = sample(plain)
    expected, got = run(plain, inputs)["y"], run(graph, inputs)["y"]
    assert np.abs(expected - got).max() < 0.03 * np.abs(expected).max()


def test_a_sum_that_could_pass_32_bits_is_declined() -> None:
    graph = Graph("deep")
    builder = Builder(graph)
    w = builder.constant(np.ones((1, 65794), np.float32), "w")
    graph.add_output(builder.emit(Dense(), graph.add_input("x", f32(1, 65794)), w, name="y"), "y")
    (note,) = parse_pipeline("dynamic-weights")[0].run(graph, PassContext()).notes
    assert not note.applied
    assert "sums of 65794 products may pass 32 bits; at most 65793 do not" in note.reason
    assert 255 * 128 * 65793 < 2**31 <= 255 * 128 * 65794 + 255 * 128


def test_range_is_that_of_one_sample() -> None:
    graph = run_pipeline(net(), "dynamic-weights{pointwise=true min_bytes=0}", PassContext())
    inputs = sample(graph)
    inputs["x"][1] *= 100
    together = run(graph, inputs)["y"]
    for index in range(3):
        alone = run(graph, {"x": inputs["x"][index : index + 1]})["y"]
        np.testing.assert_array_equal(together[index : index + 1], alone)


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=20))
def test_codes_are_within_half_a_step(values: list[float]) -> None:
    x = np.array(values, np.float32)
    codes, scale, zero_point = dynamic_quantize(x)
    if scale > 1e-36:
        real = (codes.astype(np.float64) - zero_point) * float(scale)
        assert np.abs(real - x).max() <= 1.0001 * float(scale)


# ---------------------------------------------------------------------- graphs with codes
def test_text_is_read_back(tmp_path) -> None:  # type: ignore[no-untyped-def]
    for pipeline in (
        "weight-only{format=int4 group=5 min_bytes=0}",
        "weight-only{format=fp16}",
        "dynamic-weights{pointwise=true}",
    ):
        graph = run_pipeline(net(), pipeline, PassContext())
        save_graph(graph, tmp_path / "graph.qir")
        loaded = load_graph(tmp_path / "graph.qir")
        verify(loaded)
        inputs = sample(graph)
        np.testing.assert_array_equal(run(graph, inputs)["y"], run(loaded, inputs)["y"])


def test_codes_of_the_wrong_kind_are_refused() -> None:
    builder = Builder(Graph("wrong"))
    s8 = builder.constant(np.zeros((2, 3), np.int8), "s8")
    s16 = builder.constant(np.zeros((2, 3), np.int16), "s16")
    scale = builder.constant(np.ones((2, 1), np.float32), "scale")
    for op, operands, message in (
        (StoredWeight("int2"), (s8, scale), "unknown format 'int2'"),
        (StoredWeight("fp16"), (s8,), r"codes of fp16 are s16 \[O, ...\]"),
        (StoredWeight("fp16"), (s16, scale), "neither scale nor group"),
        (StoredWeight("int8"), (s8,), r"the scale must be f32 \(2, 1\)"),
        (StoredWeight("int8", 2), (s8, scale), r"the scale must be f32 \(2, 2\)"),
        (StoredWeight("int4", -1), (s8, scale), "a group of -1 weights"),
    ):
        with pytest.raises(VerifyError, match=message):
            builder.emit(op, *operands)


def test_operands_of_a_dynamic_product_are_checked() -> None:
    graph = Graph("wrong")
    builder = Builder(graph)
    x = graph.add_input("x", f32(1, 3))
    w = builder.constant(np.zeros((2, 3), np.int8), "w")
    scale = builder.constant(np.ones(2, np.float32), "scale")
    with pytest.raises(VerifyError, match=r"x \[..., K\] and w s8 \[N, K\]"):
        builder.emit(DynamicDense(), x, scale, scale)
    with pytest.raises(VerifyError, match="scale must be f32, of 2 channels"):
        builder.emit(DynamicDense(), x, w, w)


def test_pipeline_refuses_what_the_pass_refuses() -> None:
    with pytest.raises(ParseError, match="fp16 has no group of 8 weights"):
        parse_pipeline("weight-only{format=fp16 group=8}")


# ---------------------------------------------------------------------- error feedback
@pytest.mark.parametrize("options", ["format=int4", "format=int4 group=5", "format=int8"])
def test_samples_make_the_error_of_the_outputs_smaller(options: str) -> None:
    rng = np.random.default_rng(2)
    mixed = rng.normal(size=(24, 24))  # correlated channels: what one weight does wrong others can undo

    def samples(count: int) -> dict[str, np.ndarray]:
        return {"x": (rng.normal(size=(count, 6, 5, 24)) @ mixed + 1).astype(np.float32)}

    pipeline, learned = f"weight-only{{{options} min_bytes=0}}", samples(40)
    plain = run_pipeline(net(), pipeline, PassContext())
    given_samples = run_pipeline(net(), pipeline, PassContext({"correction_samples": learned}))
    inputs = samples(40)
    want = run(net(), inputs)["y"]
    before, after = (float(((run(g, inputs)["y"] - want) ** 2).mean()) for g in (plain, given_samples))
    assert after < 0.8 * before


def test_long_filters_are_rounded_to_nearest() -> None:
    ctx = PassContext({"correction_samples": sample(net())})
    found = run_pipeline(net(), "weight-only{format=int4 min_bytes=0 limit=1}", ctx)
    plain = run_pipeline(net(), "weight-only{format=int4 min_bytes=0}", PassContext())
    inputs = sample(found)
    np.testing.assert_array_equal(run(found, inputs)["y"], run(plain, inputs)["y"])


def test_a_row_never_gets_worse_than_rounded_to_nearest() -> None:
    rng = np.random.default_rng(3)
    w, x = rng.normal(size=(6, 10)), rng.normal(size=(50, 10)) @ rng.normal(size=(10, 10))
    moments = (x.T @ x / 50)[None]
    codes, scale = rounded(w, 7, 4)
    better, scales = fed_back(w, codes, scale, moments, 7, 4)
    assert np.abs(better).max() <= 7

    def errors(codes: np.ndarray, scale: np.ndarray) -> np.ndarray:
        return (((w - codes * np.repeat(scale, 4, axis=1)[:, :10]) @ x.T) ** 2).mean(axis=1)

    assert (errors(better, scales) <= errors(codes, scale) * (1 + 1e-5)).all()
    assert errors(better, scales).sum() < 0.7 * errors(codes, scale).sum()
