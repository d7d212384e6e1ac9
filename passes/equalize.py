"""Cross-layer equalization: scale inner channels so that the one scale of an 8-bit tensor suits all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from qcc.ir import interpreter
from qcc.ir.graph import Graph, Node, Value
from qcc.ir.ops.activation import Clamp
from qcc.ir.qspec import QSpec
from qcc.passes.base import Note, Pass, PassContext, PassResult, register_pass
from qcc.passes.channel_groups import FIXED, ChannelGroups, channel_groups, linear_weight
from qcc.passes.choose_qparams import ChooseQParams
from qcc.passes.graph_error import Arrays, GraphError, declined
from qcc.passes.graph_statistics import Batch, Observe
from qcc.passes.layerwise import sample_count
from qcc.passes.trial import trial_noise

Reals = NDArray[np.float64]

SAMPLES = 32  # at least, of those there are
_EXPONENTS = (0.0, 0.25, 0.5, 0.75, 1.0)
_OF_COARSE_WEIGHTS = (0.0, 0.25, 0.5)
_COARSE = 4  # bits
_SMALLEST = 2.0**-8  # of the largest range of a tensor: narrower channels count as this wide
_WORTH = 0.98  # of the predicted noise: what is not below is left alone


@register_pass
class Equalize(Pass):
    """Divide channels by factors s[c], and undo it in the weights of the layers that read them.

    ReLU, pooling and sums commute with positive factors (Nagel et al. 2019, Data-Free Quantization, section 4.1);
    passes/channel_groups.py finds the channels that must share one. As weights have a scale per output channel, those
    of the producer do not care: s[c] = r[c]^a, where r is the channel's share of the largest range of its tensor,
    and a (0, 1/4 ... 1) minimizes the predicted noise, of activations and of the reader's weights, over signal. Weights of
    few bits are noisier than what they read: for them s[c] = r[c]^a / v[c]^b, where v is the share of the weights that read
    the channel, and b is 0, 1/4 or 1/2 (Xiao et al. 2023, SmoothQuant, equation 4, with two free exponents); not where a
    ReLU6 acts, which would lose its bound with s[c] above 1.
    Where only sums and means join them, channels that reach further below 0 than above change their sign as well:
    then one asymmetric range fits them all.
    ``margin``: r is this much more than was seen. A ReLU6 keeps its bound for the scaled values, so that a channel is
    cut where it leaves ``margin`` times the range seen, and never acts before: for what was seen, the float function
    stays the same. Tried with a up to 1 and up to 1/2; the better is kept if the error of the outputs falls on the
    samples, ranges being chosen by ``observer``, types by ``qspec``, ``int16`` and ``floats`` (see choose-qparams).
    Reads ctx.resources: see GraphError; ``channel_observer_factory``
    (optional), (graph, values) -> Observe, arrays channels-last; the interpreter where absent. Declines without samples.
    """

    name = "equalize"
    stage = "float"
    exactness = "approximate"
    margin: float = 1.5
    observer: str = "min-max"
    qspec: str = ""
    int16: tuple[str, ...] = ()
    floats: tuple[str, ...] = ()

    def run(self, graph: Graph, ctx: PassContext) -> PassResult:
        """Returns a new graph where it is kept."""
        error = GraphError.of(graph, ctx)
        if error is None:
            return PassResult(False, (declined(graph, self.name, ctx),))
        clusters = _clusters(graph, error.samples, self.margin, QSpec.parse(self.qspec), ctx)
        if not clusters:
            return PassResult(False, (Note(graph.outputs[0].name, self.name, False, "no channels to scale"),))
        before = self._noise(graph, error, ctx)
        best, best_graph, best_notes = before, None, list[Note]()
        for strongest in (1.0, 0.5):
            candidate, notes = _equalized(graph, clusters, strongest)
            if not any(n.applied for n in notes):
                continue
            after = self._noise(candidate, error, ctx)
            if best_graph is None or after < best:
                best, best_graph, best_notes = after, candidate, notes
        if best_graph is None:
            return PassResult(False, (Note(graph.outputs[0].name, self.name, False, "no channels to scale"),))
        note = error.note(graph, self.name, before, best)
        if not note.applied:
            return PassResult(False, (note,))
        return PassResult(True, (*best_notes, note), best_graph)

    def _noise(self, graph: Graph, error: GraphError, ctx: PassContext) -> float:
        """Of ``graph`` after calibration and choose-qparams, on a few samples."""
        choices = ChooseQParams(qspec=self.qspec, int16=self.int16, floats=self.floats)
        return trial_noise(graph, error, _some(graph, error.samples), ctx, choices, self.observer)


@dataclass(frozen=True)
class _Read:
    """A tensor that a layer reads. Per channel: ``ids``, its group; extremes ``low`` <= 0 <= ``high``; ``power``, mean square;
    ``density``, share of elements that are not 0; ``gain``, sum of the squared weights on it. ``signal``: the power
    of the result; ``spec``: bits of weights and activations."""

    node: Node
    ids: NDArray[np.intp]
    low: Reals
    high: Reals
    power: Reals
    density: Reals
    gain: Reals
    signal: float
    spec: QSpec

    def noise(self, factors: Reals) -> float:
        """Predicted noise over signal of the result when each channel is divided by its factor."""
        s = factors[self.ids]
        step = _width(self.low / s, self.high / s) / (2**self.spec.a_bits - 1)
        rounding = np.minimum(step**2 / 12 * s**2 * self.density, self.power)
        weights = _by_group(self.node) * s.reshape(-1, 1, 1, _inputs(self.node))
        scale = np.abs(weights).max(axis=(2, 3), keepdims=True) / self.spec.weight_max + 1e-30
        error = ((weights - np.rint(weights / scale) * scale) ** 2).sum(axis=(1, 2)).ravel()
        return float((self.gain * rounding + error * self.power / s**2).sum()) / self.signal


@dataclass(frozen=True)
class _Cluster:
    """Groups of channels that some tensor holds together. By group, of all of the graph: ``range``, and ``sign``, -1 for
    those that are better negated; ``bounded``: some ReLU6 acts on them."""

    members: NDArray[np.bool_]
    reads: list[_Read]
    range: Reals
    sign: Reals
    groups: ChannelGroups
    bounded: bool

    @property
    def weights(self) -> Reals:
        """By group, the root of the sum of squared weights on it, over their results' signals; a share of the largest."""
        power = np.zeros(self.groups.count)
        for read in self.reads:
            np.add.at(power, read.ids, read.gain / read.signal)
        return np.asarray(np.clip(np.sqrt(power / max(float(power.max()), 1e-300)), _SMALLEST, 1.0))

    def factors(self, strongest: float) -> tuple[Reals, float, float]:
        """Factors of all groups (1 outside), and predicted noise without and with them."""
        ones = np.ones(self.groups.count)
        before = sum(r.noise(ones) for r in self.reads)
        best, found, weights = before * _WORTH, ones, self.weights
        coarse = not self.bounded and self.reads[0].spec.w_bits <= _COARSE
        exponents = product(_EXPONENTS, _OF_COARSE_WEIGHTS if coarse else (0.0,))
        for a, b in (pair for pair in exponents if max(pair) <= strongest):
            factors = np.where(self.members, self.sign * self.range**a / weights**b, 1.0)
            noise = sum(r.noise(factors) for r in self.reads)
            if noise < best:
                best, found = noise, factors
        return found, before, best


def _clusters(graph: Graph, samples: Arrays, margin: float, spec: QSpec, ctx: PassContext) -> list[_Cluster]:
    groups = channel_groups(graph)
    observe = ctx.resources.get("channel_observer_factory", _interpret)(graph, _computed(graph))
    measured = _measure(observe, groups, _some(graph, samples))
    if not all(np.isfinite(low).all() and np.isfinite(high).all() for low, high, *_ in measured.values()):
        return []
    root = _roots(graph, groups)
    share, skew = np.zeros(groups.count), np.zeros(groups.count)
    for value in _computed(graph):
        if not value.fused:
            low, high = measured[id(value)][:2]
            peak = np.maximum(-low, high)
            largest = max(float(peak.max()), 1e-30)
            np.maximum.at(share, groups.of[id(value)], peak / largest)
            np.add.at(skew, groups.of[id(value)], (low + high) / largest)
    share = np.clip(margin * share, _SMALLEST, 1.0)
    sign = np.where(groups.odd & (skew < 0), -1.0, 1.0)
    reads: dict[int, list[_Read]] = {}
    for node in graph.nodes:
        if linear_weight(node) is None or node.input(0).is_constant or node.input(0).fused:
            continue
        ids = groups.of[id(node.input(0))]
        number = int(root[ids].max())
        if number != FIXED:
            gain = (_by_group(node) ** 2).sum(axis=(1, 2)).ravel()
            signal = max(float(measured[id(node.output)][2].sum()), 1e-30)
            reads.setdefault(number, []).append(
                _Read(node, ids, *measured[id(node.input(0))], gain, signal, spec)
            )
    clamps = [n for n in graph.nodes if isinstance(n.op, Clamp) and np.isfinite(n.op.high)]
    bounded = {int(i) for n in clamps for i in root[groups.of[id(n.output)]]}
    return [
        _Cluster((root == n) & (n != FIXED), r, share, sign, groups, n in bounded) for n, r in reads.items()
    ]


def _equalized(graph: Graph, clusters: list[_Cluster], strongest: float) -> tuple[Graph, list[Note]]:
    groups, notes = clusters[0].groups, []
    total = np.ones(groups.count)
    for cluster in clusters:
        factors, before, after = cluster.factors(strongest)
        total *= factors
        changed = bool((factors != 1).any())
        gain = (
            f"predicted {10 * np.log10(before / max(after, 1e-300)):.1f} dB"
            if changed
            else "no gain is predicted"
        )
        notes.append(Note(cluster.reads[0].node.input(0).name, "equalize-channels", changed, gain))
    copy = graph.clone()
    # the clone's values stand in the order of the original's
    by_value = {
        id(new): total[groups.of[id(old)]] for old, new in zip(_computed(graph), _computed(copy), strict=True)
    }
    for node in copy.nodes:
        _scale(copy, node, by_value)
    return copy, notes


def _scale(graph: Graph, node: Node, factors: dict[int, Reals]) -> None:
    """Constants of ``node`` for operands and a result that are divided by their factors."""
    s_out = factors[id(node.output)]
    weight = linear_weight(node)
    if weight is not None:
        rule = node.op.quant_rule()
        assert rule.weight is not None
        assert rule.bias is not None
        s_in = np.ones(_inputs(node)) if node.input(0).is_constant else factors[id(node.input(0))]
        data = _by_group(node) * s_in.reshape(-1, 1, 1, _inputs(node))
        data = data.reshape(weight.type.shape) / s_out.reshape(-1, *[1] * (weight.type.rank - 1))
        graph.set_input(node, rule.weight, graph.constant(data.astype(np.float32), weight.name, weight.type))
    if (s_out != 1).any():
        for index, value in enumerate(node.inputs):
            if value is not None and value.data is not None and (weight is None or index == rule.bias):
                data = (value.data / s_out).astype(np.float32)
                graph.set_input(node, index, graph.constant(data, value.name, value.type))


def _by_group(node: Node) -> Reals:
    """Weights as [G, O/G, taps, C/G]."""
    weight = linear_weight(node)
    assert weight is not None
    assert weight.data is not None
    groups = node.input(0).type.shape[-1] // _inputs(node)
    return weight.data.astype(np.float64).reshape(groups, len(weight.data) // groups, -1, _inputs(node))


def _inputs(node: Node) -> int:
    """Channels of the operand that one output reads."""
    weight = linear_weight(node)
    assert weight is not None
    return weight.type.shape[-1]


def _computed(graph: Graph) -> list[Value]:
    return [*graph.inputs, *(n.output for n in graph.nodes)]


def _roots(graph: Graph, groups: ChannelGroups) -> NDArray[np.intp]:
    """For each group the smallest of those that a tensor holds beside it; FIXED ones join none."""
    root = np.arange(groups.count)
    changed = True
    while changed:
        changed = False
        for value in _computed(graph):
            ids = np.unique(groups.of[id(value)])
            ids = ids[ids != FIXED]
            if ids.size and (root[ids] != root[ids].min()).any():
                root[ids] = root[ids].min()
                changed = True
    return root


def _interpret(graph: Graph, values: list[Value]) -> Observe:
    def observe(batch: Batch, record: Callable[[Value, NDArray[np.float32]], None]) -> None:
        interpreter.run(graph, batch, observe=record)

    return observe


def _some(graph: Graph, samples: Arrays) -> Arrays:
    """As many as is quick."""
    return {name: array[: max(SAMPLES, sample_count(graph, array))] for name, array in samples.items()}


def _width(low: Reals, high: Reals) -> float:
    """Of the range that holds 0 and all channels' ranges, whose ends a negative factor has swapped."""
    return float(max(low.max(), high.max(), 0) - min(low.min(), high.min(), 0))


def _measure(
    observed: Observe, groups: ChannelGroups, samples: Arrays
) -> dict[int, tuple[Reals, Reals, Reals, Reals]]:
    """By id(value), per channel: least and largest element, with 0, mean square, share of elements that are not 0."""
    sums: dict[int, tuple[Reals, Reals, Reals, Reals, int]] = {}

    def observe(value: Value, array: NDArray[np.float32]) -> None:
        x = array.reshape(-1, groups.of[id(value)].size)
        low, high = np.minimum(x.min(axis=0), 0), np.maximum(x.max(axis=0), 0)
        power, used = np.einsum("nc,nc->c", x, x, dtype=np.float64), np.count_nonzero(x, axis=0)
        old = sums.get(id(value), (low, high, 0.0, 0.0, 0))
        sums[id(value)] = (
            np.minimum(old[0], low),
            np.maximum(old[1], high),
            old[2] + power,
            old[3] + used,
            old[4] + len(x),
        )

    observed(samples, observe)
    return {
        key: (low.astype(np.float64), high.astype(np.float64), q / n, d / n)
        for key, (low, high, q, d, n) in sums.items()
    }
