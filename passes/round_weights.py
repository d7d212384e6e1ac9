"""Error-feedback rounding of weights: codes that make the layer's error small, not that of each weight."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from qcc.ir.graph import Graph, Value
from qcc.passes.base import Note, Pass, PassContext, PassResult, register_pass
from qcc.passes.coarse_codes import FloatWalk, clipping_scales, following
from qcc.passes.error_feedback import output_error, round_with_feedback
from qcc.passes.graph_error import GraphError, decibels, declined
from qcc.passes.layerwise import Layer, layers, set_weights, shrunk_mean, weight_of
from qcc.passes.moments import covariance

_DAMPING = 0.01  # of the mean variance, for coarse codes: few samples tell little of moments


@register_pass
class RoundWeights(Pass):
    """Round each layer's weights so that its outputs, on the inputs it will get, stay close to the real ones.

    Closed form, layer by layer, from the covariance of the quantized inputs (passes/moments.py, error_feedback.py),
    then ``sweeps`` rounds of coordinate descent; the bias takes up the mean error that is left. Weights become multiples
    of their scale, so that quantize-ops finds these codes. ``limit``: filters with more weights are left alone, as time
    and memory grow with the cube and the square. ``coarse``: where codes go no further, what is rounded are weights that
    make up for the noise of the inputs, on scales that may clip the largest (passes/coarse_codes.py). Kept where the error
    of the outputs falls on the samples.
    Reads ctx.resources: see GraphError and layers; declines without samples.
    """

    name = "round-weights"
    stage = "annotated"
    requires = ("has_qparams",)
    exactness = "approximate"
    sweeps: int = 2
    limit: int = 2304
    coarse: int = 7

    def run(self, graph: Graph, ctx: PassContext) -> PassResult:
        """Returns a new graph where it is kept."""
        error = GraphError.of(graph, ctx)
        if error is None:
            return PassResult(False, (declined(graph, self.name, ctx),))
        rounded, notes = graph.clone(), []
        walk = FloatWalk(error.source, error.samples, ctx) if self._any_coarse(graph) else None
        for layer in layers(error.source, rounded, error.samples, ctx, "rounding weights"):
            notes.append(self._round(rounded, layer, walk))
            layer.add_to_bias(shrunk_mean(layer.errors()))
        note = error.note(graph, self.name, error.noise(graph), error.noise(rounded))
        if not note.applied:
            return PassResult(False, (note,))
        return PassResult(True, (*notes, note), rounded)

    def _any_coarse(self, graph: Graph) -> bool:
        weights = (weight_of(node) for node in graph.nodes)
        return any(w is not None and _largest_code(w) <= self.coarse for w in weights)

    def _round(self, graph: Graph, layer: Layer, walk: FloatWalk | None) -> Note:
        rule = layer.node.op.quant_rule()
        assert rule.weight is not None
        weight = layer.node.input(rule.weight)
        assert weight.data is not None
        assert weight.type.qparams is not None
        per_filter = weight.type.elements // weight.type.shape[rule.weight_axis]
        if per_filter > self.limit:
            reason = f"filters of {per_filter} weights, more than {self.limit}"
            return Note(layer.node.name, "round-layer", False, reason)
        hessian = covariance(layer.node, layer.quantized)
        if hessian is None or rule.weight_axis != 0:
            return Note(layer.node.name, "round-layer", False, f"{layer.node.op.name} does not tell its rows")
        groups, k, _ = hessian.shape
        w = weight.data.astype(np.float64).reshape(groups, -1, k)
        scale = np.broadcast_to(np.asarray(weight.type.qparams.scale), len(weight.data)).reshape(groups, -1)
        nearest = np.rint(w / scale[..., None])
        limit = _largest_code(weight)  # as many bits as the scales were chosen for
        if walk is not None and limit <= self.coarse:
            np.einsum("gkk->gk", hessian)[:] += _DAMPING * np.einsum("gkk->g", hessian)[:, None] / k
            w = following(layer.node, w, hessian, layer.quantized, walk.operand(layer.node.name))
        before = float(output_error(w, nearest, hessian, scale).sum())
        if walk is not None and limit <= self.coarse and weight.type.qparams.axis is not None:
            scale = clipping_scales(layer.node, w, hessian, scale, limit)
        codes = round_with_feedback(w, hessian, scale, limit, self.sweeps)
        after = float(output_error(w, codes, hessian, scale).sum())
        if after >= before:
            return Note(layer.node.name, "round-layer", False, "the nearest codes are no worse")
        qparams = replace(weight.type.qparams, scale=tuple(scale.ravel().tolist()))
        if weight.type.qparams.axis is not None:
            weight.type = weight.type.with_qparams(qparams)
        set_weights(graph, layer.node, _reals(codes, scale, weight.data))
        gain = decibels(after) - decibels(before)
        return Note(layer.node.name, "round-layer", True, f"{gain:.2f} dB less noise than the nearest codes")


def _largest_code(weight: Value) -> int:
    """The largest magnitude of a code of the weights, rounded to nearest."""
    assert weight.data is not None
    assert weight.type.qparams is not None
    return int(
        np.abs(np.rint(weight.data / weight.type.qparams.scale_array(weight.data.ndim))).max(initial=0)
    )


def _reals(
    codes: NDArray[np.float64], scale: NDArray[np.float64], like: NDArray[np.generic]
) -> NDArray[np.float32]:
    return np.asarray((codes * scale[..., None]).reshape(like.shape), np.float32)
