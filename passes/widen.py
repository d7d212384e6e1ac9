"""Inputs and outputs in 16 bits, where that costs next to nothing and removes noise that nothing else can."""

from __future__ import annotations

from qcc.ir.graph import Graph
from qcc.passes.base import Note, Pass, PassContext, PassResult, register_pass
from qcc.passes.choose_qparams import ChooseQParams
from qcc.passes.graph_error import OF_SAMPLES, GraphError, declined
from qcc.passes.sensitivity import Restoration, cost_of, quantize_alone, restorations, restore

_HEADROOM = 2.0  # times the range seen: of 16 bits one is well spent on numbers that samples do not have


@register_pass
class Widen(Pass):
    """Hold graph inputs and outputs in s16 where that is nearly free and the outputs gain.

    What an input is rounded by meets every layer, and what an output is rounded by nothing can make up for. A tensor
    qualifies where the layers that it would slow down are at most ``share`` of all work (see sensitivity.Cost), and where it
    alone causes at least ``gain`` of the noise of the outputs, both on the samples. All are kept if the error of the outputs
    falls. ``qspec``, ``int16``, ``floats``: as choose-qparams will have them.
    Reads ctx.resources: see GraphError. Declines without samples.
    """

    name = "widen"
    stage = "annotated"
    requires = ("has_ranges",)
    exactness = "approximate"
    share: float = 0.015
    gain: float = 0.05
    qspec: str = ""
    int16: tuple[str, ...] = ()
    floats: tuple[str, ...] = ()

    def run(self, graph: Graph, ctx: PassContext) -> PassResult:
        """Set qparams on types of values."""
        own = PassContext({k: v for k, v in ctx.resources.items() if k not in OF_SAMPLES}, ctx.progress)
        error = GraphError.of(graph, own)
        if error is None:
            return PassResult(False, (declined(graph, self.name, own),))
        base = self._quantized(graph, own)
        candidates = self._candidates(base, graph)
        if not candidates:
            return PassResult(False, (Note(graph.outputs[0].name, self.name, False, "none is nearly free"),))
        before = max(error.noise(base), 1e-300)
        alone = {r: error.noise(quantize_alone(graph, base, r)) for r in candidates}
        chosen = [r for r in candidates if alone[r] >= self.gain * before]
        notes = [
            Note(r.name, "hold-in-16-bits", r in chosen, f"causes {alone[r] / before:.0%} of the noise")
            for r in candidates
        ]
        if not chosen:
            reason = "the noise has other causes"
            return PassResult(False, (*notes, Note(graph.outputs[0].name, self.name, False, reason)))
        widened = graph.clone()
        for value in (*widened.inputs, *(n.output for n in widened.nodes)):
            if any(value.name in r.values for r in chosen):
                low, high = value.range or (0.0, 0.0)
                value.range = _HEADROOM * low, _HEADROOM * high
        for r in chosen:
            restore(widened, graph, r)
        note = error.note(graph, self.name, before, error.noise(self._quantized(widened, own)))
        return PassResult(note.applied, (*notes, note), widened if note.applied else None)

    def _quantized(self, graph: Graph, ctx: PassContext) -> Graph:
        copy = graph.clone()
        ChooseQParams(qspec=self.qspec, int16=self.int16, floats=self.floats).run(copy, ctx)
        return copy

    def _candidates(self, annotated: Graph, calibrated: Graph) -> list[Restoration]:
        now = cost_of(annotated)
        ends = {v.name for v in (*annotated.inputs, *annotated.outputs)}
        found = []
        for r in restorations(annotated, calibrated):
            if r.to == "int16" and ends & {*r.values}:
                wide = annotated.clone()
                restore(wide, calibrated, r)
                if (cost_of(wide) - now).total <= self.share * now.total:
                    found.append(r)
        return found
