"""Weights of few bits: regression on noisy operands, clipped scales, and the whole pass on them."""

import numpy as np
import pytest
from quantized_nets import Net, Samples, node_of, run_pass

from qcc.ir import interpreter
from qcc.ir.graph import Graph
from qcc.ir.ops.elementwise import Add
from qcc.ir.ops.reduce import ReduceMean
from qcc.passes.base import PassContext
from qcc.passes.coarse_codes import FloatWalk, clipping_scales, following
from qcc.passes.error_feedback import output_error, round_with_feedback
from qcc.passes.graph_error import GraphError
from qcc.passes.layerwise import layers
from qcc.passes.manager import PassManager
from qcc.passes.moments import covariance


def residual() -> tuple[Graph, Samples]:
    net = Net(1, 6, 6, 3, seed=3)
    x = net.relu(net.conv(net.x, 8, 3, name="first"))
    y = net.relu(net.depthwise(x, 1, name="depthwise"))
    y = net.relu(net(Add(), net.conv(y, 8, name="joined"), x))
    y = net.dense(net(ReduceMean((1, 2)), y), 5, name="last")
    return net.finish(y), net.samples(48)


def annotated(graph: Graph, samples: Samples, bits: int = 4) -> tuple[Graph, PassContext]:
    ctx = PassContext({"calibration": [samples], "correction_samples": samples})
    passes = f'fuse-epilogues,calibrate,choose-qparams{{qspec="w_bits={bits}"}}'
    return PassManager(passes, ctx).run(graph), ctx


def test_the_walk_finds_the_float_operand_of_each_layer() -> None:
    graph, samples = residual()
    plain, ctx = annotated(graph, samples)
    error = GraphError.of(plain, ctx)
    assert error is not None
    seen: dict[str, np.ndarray] = {}
    interpreter.run(plain, samples, observe=lambda v, a: seen.update({v.name: a}))
    walk, found = FloatWalk(error.source, error.samples, ctx), []
    for layer in layers(error.source, plain.clone(), error.samples, PassContext(), ""):
        if layer.node.name != "depthwise":  # some may be left out
            expected = seen[layer.node.input(0).name].reshape(layer.quantized.shape)
            np.testing.assert_array_equal(walk.operand(layer.node.name), expected)
            found.append(layer.node.name)
    assert found == ["first", "joined", "last"]
    with pytest.raises(ValueError, match="is not among the nodes to come"):
        walk.operand(layer.node.name)


def test_weights_follow_the_float_operand() -> None:
    """Closed form: ridge regression of the float result on the quantized operand, both centred."""
    net = Net(1, 6, seed=1)
    node = node_of(net.finish(net.dense(net.x, 4, name="layer")), "layer")
    real = net.rng.normal(size=(4000, 6)).astype(np.float32)
    mixed = np.eye(6) + 0.3 * net.rng.normal(size=(6, 6))
    x = (real @ mixed + 0.1).astype(np.float32)  # the layer can undo this exactly, if it dares to
    hessian = covariance(node, x)
    assert hessian is not None
    assert node.input(1).data is not None
    w = node.input(1).data.astype(np.float64)[None]
    np.testing.assert_allclose(following(node, w, hessian, x, x), w)
    found = following(node, w, hessian, x, real)
    centred = x - x.mean(axis=0, dtype=np.float64)
    target = (real - x) - (real - x).mean(axis=0, dtype=np.float64)
    ridge = np.trace(hessian[0]) / 6 * np.eye(6)
    expected = w[0] + w[0] @ (target.T @ centred / 4000) @ np.linalg.inv(hessian[0] + ridge)
    np.testing.assert_allclose(found[0], expected, rtol=1e-4, atol=1e-6)

    def error(weights: np.ndarray) -> float:
        difference = real @ w[0].T - x @ weights.T
        return float(difference.var(axis=0).sum())

    assert error(found[0]) < 0.95 * error(w[0])


def test_clipping_never_adds_error() -> None:
    graph, samples = residual()
    plain, ctx = annotated(graph, samples)
    rng = np.random.default_rng(0)
    for layer in layers(plain, plain.clone(), samples, ctx, ""):
        hessian = covariance(layer.node, layer.quantized)
        weight = layer.node.input(1)
        assert hessian is not None
        assert weight.data is not None
        assert weight.type.qparams is not None
        groups, k = hessian.shape[:2]
        w = weight.data.astype(np.float64).reshape(groups, -1, k) * rng.normal(1, 0.2, size=(1, 1, k))
        scale = np.asarray(weight.type.qparams.scale).reshape(groups, -1)
        found = clipping_scales(layer.node, w, hessian, scale, 7)
        assert (found <= scale * (1 + 1e-6)).all()
        before, after = (
            output_error(w, round_with_feedback(w, hessian, s, 7), hessian, s) for s in (scale, found)
        )
        assert (after <= before * (1 + 1e-5)).all()  # the descent is in float32


@pytest.mark.parametrize("bits", [3, 4])
def test_coarse_codes_stay_codes_and_the_skip_stays_exact(bits: int) -> None:
    graph, samples = residual()
    plain, ctx = annotated(graph, samples, bits)
    error = GraphError.of(plain, ctx)
    assert error is not None
    rounded, result = run_pass(plain, "round-weights", **ctx.resources)
    simple, _ = run_pass(plain, "round-weights{coarse=0}", **ctx.resources)
    assert result.changed
    assert error.noise(rounded) < error.noise(simple) < error.noise(plain)
    for name in ("first", "depthwise", "joined", "last"):
        weight = node_of(rounded, name).input(1)
        assert weight.data is not None
        assert weight.type.qparams is not None
        codes = weight.data / weight.type.qparams.scale_array(weight.data.ndim)
        np.testing.assert_allclose(codes, np.rint(codes), atol=1e-3)
        assert np.abs(codes).max() < 2 ** (bits - 1) - 0.5
    joined = node_of(rounded, "joined")
    (add,) = joined.output.users
    skip, weight = add.input(1).type.qparams, joined.input(1).type.qparams
    x = joined.input(0).type.qparams
    assert skip is not None
    assert weight is not None
    assert x is not None
    multipliers = skip.scale[0] / (x.scale[0] * np.asarray(weight.scale))
    assert joined.output.fused == (bits == 4)  # with 3 bits the skip would cost the weights too much
    if joined.output.fused:
        np.testing.assert_allclose(multipliers, np.rint(multipliers), rtol=1e-9)
    final = "quantize-ops,fold-zero-points,plan-accumulators,remove-dead-channels"
    planned = PassManager(final, PassContext()).run(rounded.clone())
    (value,) = planned.inputs
    assert value.type.qparams is not None
    quantized = np.clip(
        np.rint(samples["x"] / value.type.qparams.scale[0]) + value.type.qparams.zero_point, -128, 127
    )
    codes = interpreter.run(planned, {"x": quantized.astype(np.int8)})["y0"].astype(np.float64)
    qparams = planned.outputs[0].type.qparams
    assert qparams is not None
    expected = interpreter.run(rounded, samples, fake_quant=True)["y0"]
    found = qparams.scale[0] * (codes - qparams.zero_point)
    assert np.abs(found - expected).max() < 3 * qparams.scale[0]
