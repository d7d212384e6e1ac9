"""The error of a whole fake-quant graph on calibration samples: what decides whether a correction is kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf, log10
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcc.ir.graph import Graph, Value
from qcc.ir.ops.shape import Reshape
from qcc.ir.ops.softmax import Softmax
from qcc.ir.printer import print_graph
from qcc.passes.base import Note, PassContext
from qcc.passes.layerwise import interpret, sample_count

Arrays = dict[str, NDArray[np.float32]]
OF_SAMPLES = ("uncorrected", "measured")
"""Resources that hold for the samples of a GraphError only."""
_JUDGED_MACS = 3.2e10  # of the samples, in each run of the graph


@dataclass(frozen=True)
class _Measured:
    """A graph as text and constants, and its noise."""

    text: str
    arrays: dict[str, NDArray[Any]]
    noise: float


@dataclass(frozen=True)
class GraphError:
    """``samples``: what a correction may learn from, and is judged on; ``source``: the graph before the first
    correction, same nodes; ``reference``: its float outputs.

    A softmax at the end is looked through, up to what it ignores: it hides errors of samples that are easy.
    """

    samples: Arrays
    source: Graph
    reference: Arrays
    run: Callable[[Graph, bool, Arrays], Arrays]
    ctx: PassContext

    @staticmethod
    def of(graph: Graph, ctx: PassContext) -> GraphError | None:
        """None where ``declined`` tells why.

        Reads ctx.resources: ``has_own_qparams``, set by adopt-qparams, of a model that keeps its own;
        ``correction_samples``, arrays by input name, without which there is None; ``runner`` (optional),
        (graph, fake_quant=...) -> function of samples, the interpreter where absent. Keeps there, for the next
        correction, an annotated graph before the first one with its float outputs, as ``uncorrected``, and the
        noise of the two graphs that were measured last, as ``measured``.
        """
        samples: Arrays | None = ctx.resources.get("correction_samples")
        if not samples or _obstacle(ctx):
            return None
        samples = {name: array[: sample_count(graph, array, _JUDGED_MACS)] for name, array in samples.items()}
        runner = ctx.resources.get("runner", interpret)

        def run(graph: Graph, fake_quant: bool, inputs: Arrays) -> Arrays:
            return _centred(graph, runner(_before_softmax(graph), fake_quant=fake_quant)(inputs))

        names = [n.name for n in graph.nodes]
        source, reference = ctx.resources.get("uncorrected", (None, None))
        if graph.stage != "annotated" or source is None or [n.name for n in source.nodes] != names:
            source, reference = graph, run(graph, False, samples)
            if graph.stage == "annotated":
                ctx.resources["uncorrected"] = source, reference
            ctx.resources["finite_outputs"] = all(bool(np.isfinite(a).all()) for a in reference.values())
        return None if _obstacle(ctx) else GraphError(samples, source, reference, run, ctx)

    def noise(self, graph: Graph) -> float:
        """Noise over signal of the fake-quant outputs, the mean over outputs; lower is better."""
        text, arrays = print_graph(graph)
        known: list[_Measured] = self.ctx.resources.get("measured", [])
        for found in known:
            if found.text == text and all(array is found.arrays[name] for name, array in arrays.items()):
                return found.noise
        noise = self._noise(graph)
        self.ctx.resources["measured"] = [*known[-1:], _Measured(text, arrays, noise)]
        return noise

    def _noise(self, graph: Graph) -> float:
        outputs = self.run(graph, True, self.samples)
        shares = []
        for name, reference in self.reference.items():
            signal = float((reference.astype(np.float64) ** 2).sum())
            noise = float(((outputs[name].astype(np.float64) - reference) ** 2).sum())
            shares.append(noise / max(signal, 1e-300))
        return float(np.mean(shares))

    def note(self, graph: Graph, rule: str, before: float, after: float) -> Note:
        """What the correction ``rule`` brought, and whether it is kept."""
        count = len(next(iter(self.samples.values())))
        what = f"SQNR {decibels(before):.2f} dB would become {decibels(after):.2f} dB"
        if after < before:
            what = f"SQNR {decibels(before):.2f} dB becomes {decibels(after):.2f} dB"
        return Note(graph.outputs[0].name, rule, after < before, f"{what} on {count} samples")


def declined(graph: Graph, rule: str, ctx: PassContext) -> Note:
    """Why there is no GraphError."""
    reason = _obstacle(ctx) or "there are no samples to measure it on"
    return Note(graph.outputs[0].name, rule, False, reason)


def _obstacle(ctx: PassContext) -> str:
    """Why nothing can be corrected although there are samples; "" where it can."""
    if ctx.resources.get("has_own_qparams"):
        return "the model keeps its own qparams"
    if "" in ctx.resources.get("correction_samples", ()):
        return "an input has no name, so that no runtime can round it"
    return "" if ctx.resources.get("finite_outputs", True) else "the outputs are not finite on the samples"


def decibels(noise: float) -> float:
    """SQNR in dB of a ratio of noise to signal."""
    return -10 * log10(noise) if noise > 0 else inf


def _measured(value: Value) -> tuple[Value, Softmax | None]:
    """The operand of the softmax that ``value`` is the result of, if it is one."""
    found = value
    while found.producer is not None and isinstance(found.producer.op, Reshape):
        found = found.producer.input(0)
    if found.producer is not None and isinstance(found.producer.op, Softmax):
        operand = found.producer.input(0)
        if operand.producer is not None:
            return operand, found.producer.op
    return value, None


def _before_softmax(graph: Graph) -> Graph:
    copy = graph.clone()
    copy.outputs = [_measured(v)[0] for v in copy.outputs]
    copy.remove_dead_nodes()
    return copy


def _centred(graph: Graph, outputs: Arrays) -> Arrays:
    """What the softmaxes of ``graph`` ignore, a constant added to all classes, removed."""
    result = {}
    for value, name in zip(graph.outputs, graph.output_names, strict=True):
        operand, softmax = _measured(value)
        array = outputs[name]
        if softmax is not None:
            axis = softmax.axis - operand.type.rank
            array = array - array.mean(axis=axis, keepdims=True)
        result[name] = array
    return result
