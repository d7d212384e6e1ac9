"""Empirical bias correction: quantization shifts the mean of each channel, and the bias can take it back."""

from __future__ import annotations

from qcc.ir.graph import Graph
from qcc.passes.base import Pass, PassContext, PassResult, register_pass
from qcc.passes.graph_error import GraphError, declined
from qcc.passes.layerwise import layers, shrunk_mean


@register_pass
class CorrectBias(Pass):
    """Add to each bias the mean error of its channel, layer by layer, behind layers that are corrected already.

    Nagel et al. 2019, Data-Free Quantization, section 4.2, with data in the place of assumptions. The mean error is
    that of the accumulator, float minus fake-quant, over samples and positions; ``shrink``: less what chance
    contributes to the mean of few samples. Kept where the error of the outputs falls on the samples.
    Reads ctx.resources: see GraphError and layers; declines without samples.
    """

    name = "correct-bias"
    stage = "annotated"
    requires = ("has_qparams",)
    exactness = "approximate"
    shrink: bool = True

    def run(self, graph: Graph, ctx: PassContext) -> PassResult:
        """Returns a new graph where it is kept."""
        error = GraphError.of(graph, ctx)
        if error is None:
            return PassResult(False, (declined(graph, self.name, ctx),))
        corrected = graph.clone()
        for layer in layers(error.source, corrected, error.samples, ctx, "correcting biases"):
            errors = layer.errors()
            layer.add_to_bias(shrunk_mean(errors) if self.shrink else errors.mean(axis=0))
        note = error.note(graph, self.name, error.noise(graph), error.noise(corrected))
        return PassResult(note.applied, (note,), corrected if note.applied else None)
