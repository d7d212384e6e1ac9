"""Migration of outliers: channels of a matrix product's operand shrink, and what they meet grows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qcc.ir import fixedpoint, interpreter
from qcc.ir.graph import Graph, Node, Value
from qcc.ir.ops.dense import MatMul
from qcc.ir.qspec import QSpec
from qcc.passes.absorbing import Division, NotAbsorbedError, absorb, absorb_operand
from qcc.passes.base import Note, Pass, PassContext, PassResult, register_pass
from qcc.passes.channel_groups import FIXED, channel_groups, linear_weight
from qcc.passes.choose_qparams import ChooseQParams
from qcc.passes.graph_error import Arrays, GraphError, declined
from qcc.passes.graph_statistics import Batch, Observe
from qcc.passes.trial import trial_noise

Reals = NDArray[np.float64]

_ALPHAS = (0.25, 0.5, 0.65, 0.8, 1.0)
_MARGIN = 1.5  # a channel may get this much larger than it was seen
_FURTHEST = 2.0**12  # factors lie within this of 1
_WORTH = 0.98  # of the noise: what does not fall below is left alone
_KEPT = 2**20  # elements of an operand that the noise is measured on; whole samples, one at least
_POSITIONS = 64  # of each of them


@register_pass
class MigrateScales(Pass):
    """Divide channels of an operand by factors s[j], and multiply what they meet by them.

    s[j] = max|x[j]|^alpha / max|w[j]|^(1 - alpha) (Xiao et al. 2023, SmoothQuant, equation 4), as a power of two, so that the
    float function stays the same, bit for bit. The constants in front of x take the division (passes/absorbing.py:
    normalizations, products and sums with constants, layers, through movements). What meets x: the weights of all layers that
    read it, or the other operand of a product, which is constant or whose producers take 1 / s. Operands that equalize can scale
    are left to it. alpha is, of a few values and none, the one with the least noise of the products on the samples; the whole
    is kept if the error of the outputs falls on them. ``observer``, ``qspec``, ``int16``, ``floats``: as calibrate and
    choose-qparams will have them. Reads ctx.resources: see GraphError, and ``channel_observer_factory``
    as equalize does. Declines without samples.
    """

    name = "migrate-scales"
    stage = "float"
    exactness = "exact"
    observer: str = "min-max"
    qspec: str = ""
    int16: tuple[str, ...] = ()
    floats: tuple[str, ...] = ()

    def run(self, graph: Graph, ctx: PassContext) -> PassResult:
        """Returns a new graph where it is kept."""
        error = GraphError.of(graph, ctx)
        if error is None:
            return PassResult(False, (declined(graph, self.name, ctx),))
        sites, notes = _sites(graph)
        seen = _observe(graph, sites, error.samples, ctx) if sites else {}
        candidate, spec, changed = graph.clone(), QSpec.parse(self.qspec), False
        nodes = {id(old): new for old, new in zip(graph.nodes, candidate.nodes, strict=True)}
        for site in sites:
            alpha, factors, gain = _best(site, seen, spec)
            if alpha is None:
                notes.append(Note(site.value.name, "migrate-channels", False, "no noise would be saved"))
                continue
            for division in site.divisions(graph, factors):
                division.apply(candidate, nodes[id(division.node)])
            what = f"alpha {alpha}, {gain:.1f} dB less noise of the products"
            notes.append(Note(site.value.name, "migrate-channels", True, what))
            changed = True
        if not changed:
            notes.append(Note(graph.outputs[0].name, self.name, False, "no channels to scale"))
            return PassResult(False, tuple(notes))
        choices = ChooseQParams(qspec=self.qspec, int16=self.int16, floats=self.floats)
        before, after = (
            trial_noise(g, error, error.samples, ctx, choices, self.observer) for g in (graph, candidate)
        )
        note = error.note(graph, self.name, before, after)
        return PassResult(True, (*notes, note), candidate) if note.applied else PassResult(False, (note,))


@dataclass
class _Seen:
    """A computed operand: the least and the greatest value of each element, and the first samples, [N, *shape]."""

    low: Reals
    high: Reals
    samples: NDArray[np.float32]

    def add(self, array: NDArray[np.float32]) -> None:
        """More samples."""
        self.low, self.high = (
            np.minimum(self.low, array.min(axis=0)),
            np.maximum(self.high, array.max(axis=0)),
        )
        room = max(1, _KEPT // self.low.size) - len(self.samples)
        if room > 0:
            self.samples = np.concatenate([self.samples, array[:room]])

    @property
    def peak(self) -> Reals:
        """The largest magnitude of each element."""
        return np.maximum(-self.low, self.high)

    def rounded(self, factors: Reals, spec: QSpec) -> Reals:
        """The samples as they are after a division by ``factors``, quantization, and multiplication."""
        qparams = spec.activation(float((self.low / factors).min()), float((self.high / factors).max()))
        return np.asarray(fixedpoint.fake_quantize(self.samples / factors, qparams) * factors)


_SeenValues = dict[int, _Seen]  # by id(value)


@dataclass(frozen=True)
class _LayerSite:
    """``value`` is read by ``readers``, layers with constant weights, and by nothing else. Factors: [C]."""

    value: Value
    readers: tuple[Node, ...]

    @property
    def values(self) -> tuple[Value, ...]:
        """Those that the noise depends on."""
        return (self.value,)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the factors."""
        return self.value.type.shape[-1:]

    def peaks(self, seen: _SeenValues) -> tuple[Reals, Reals]:
        """The largest magnitude in each channel, of the operand and of the weights on it."""
        x = seen[id(self.value)].peak.reshape(-1, *self.shape).max(axis=0)
        return x, np.max([_by_channel(node) for node in self.readers], axis=0)

    def noise(self, seen: _SeenValues, factors: Reals, spec: QSpec) -> float:
        """Noise over signal of the products, summed over the readers."""
        kept = seen[id(self.value)]
        x, found = kept.samples, kept.rounded(factors, spec)
        total = 0.0
        for node in self.readers:
            rule = node.op.quant_rule()
            assert rule.weight is not None
            weight = node.input(rule.weight)
            assert weight.data is not None
            rows, rounded = (_rows(node, a.astype(np.float32)) for a in (x, found))
            assert rows is not None
            assert rounded is not None
            w = weight.data.astype(np.float64)
            scaled = w * _columns(node, factors)
            scale = np.abs(scaled).max(axis=tuple(range(1, w.ndim)), keepdims=True) / spec.weight_max + 1e-30
            codes = np.rint(scaled / scale) * scale / _columns(node, factors)
            groups = rows.shape[1]
            y, z = (
                r.transpose(1, 0, 2) @ m.reshape(groups, -1, rows.shape[2]).transpose(0, 2, 1)
                for r, m in ((rows, w), (rounded, codes))
            )
            total += _ratio(y, z)
        return total

    def divisions(self, graph: Graph, factors: Reals) -> list[Division]:
        """Of the operand by the factors, and of the weights by their inverses. Raises NotAbsorbedError."""
        found = absorb(graph, self.value, np.broadcast_to(factors, self.value.type.shape))
        for node in self.readers:
            rule = node.op.quant_rule()
            assert rule.weight is not None
            found.append(Division(node, rule.weight, 1 / _columns(node, factors)))
        return found


@dataclass(frozen=True)
class _ProductSite:
    """The operands of ``node``, [..., M, K] and [..., K, N], are read by nothing else; the left is computed.

    Factors: [..., K].
    """

    node: Node

    @property
    def value(self) -> Value:
        """The left operand, which is divided."""
        return self.node.input(0)

    @property
    def values(self) -> tuple[Value, ...]:
        """Those that the noise depends on."""
        return (self.node.input(0), self.node.input(1))

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the factors."""
        return (*self.value.type.shape[:-2], self.value.type.shape[-1])

    def peaks(self, seen: _SeenValues) -> tuple[Reals, Reals]:
        """The largest magnitude in each column of the left operand, and in each row of the right one."""
        left, right = (seen[id(v)].peak for v in self.values)
        return left.max(axis=-2), right.max(axis=-1)

    def noise(self, seen: _SeenValues, factors: Reals, spec: QSpec) -> float:
        """Noise over signal of the product."""
        left, right = (seen[id(v)] for v in self.values)
        b = right.rounded(1 / factors[..., None], spec)
        count = (
            len(left.samples) if len(b) == 1 else min(len(left.samples), len(b))
        )  # a constant is one sample
        y = left.samples[:count].astype(np.float64) @ right.samples[:count]
        return _ratio(y, left.rounded(factors[..., None, :], spec)[:count] @ b[:count])

    def divisions(self, graph: Graph, factors: Reals) -> list[Division]:
        """Of the left operand by the factors, of the right one by their inverses. Raises NotAbsorbedError."""
        left, right = (v.type.shape for v in self.values)
        return [
            *absorb_operand(graph, self.node, 0, np.broadcast_to(factors[..., None, :], left)),
            *absorb_operand(graph, self.node, 1, np.broadcast_to(1 / factors[..., None], right)),
        ]


_Site = _LayerSite | _ProductSite


def _sites(graph: Graph) -> tuple[list[_Site], list[Note]]:
    """Where factors can be absorbed, and notes on where not."""
    groups, sites, notes = channel_groups(graph).of, list[_Site](), list[Note]()
    for value in (n.output for n in graph.nodes):
        readers = [n for n in value.users if linear_weight(n) is not None and n.input(0) is value]
        users = [n for n in value.users if isinstance(n.op, MatMul) and n.input(0) is value]
        if not (readers or users) or value.fused or value.type.qparams is not None:
            continue
        site: _Site = _LayerSite(value, tuple(dict.fromkeys(readers))) if readers else _ProductSite(users[0])
        reason = _problem(graph, site, groups[id(value)])
        if reason is None:
            sites.append(site)
        else:
            notes.append(Note(value.name, "migrate-channels", False, reason))
    return sites, notes


def _problem(graph: Graph, site: _Site, groups: NDArray[np.intp]) -> str | None:
    """Why nothing can be scaled at ``site``."""
    if isinstance(site, _LayerSite):
        if (groups != FIXED).any():
            return "equalize scales its channels"
        others = [n for n in site.value.users if n not in site.readers]
        if others or graph.is_output(site.value):
            return f"{others[0].op.name} reads it too" if others else "it is a graph output"
        if any(_rows(n, np.zeros((1, *site.value.type.shape), np.float32)) is None for n in site.readers):
            return "a layer does not tell its rows"
    else:
        left, right = site.values
        if left.type.shape[:-2] != right.type.shape[:-2]:
            return "an operand is broadcast"
    try:  # with factors that are all different
        site.divisions(graph, np.arange(1, 1 + np.prod(site.shape), dtype=np.float64).reshape(site.shape))
    except NotAbsorbedError as error:
        return str(error)
    return None


def _best(site: _Site, seen: _SeenValues, spec: QSpec) -> tuple[float | None, Reals, float]:
    """The alpha with the least noise, None for no migration; its factors, and what they gain in dB."""
    x, w = (np.maximum(p, max(float(p.max()), 1e-30) / _FURTHEST) for p in site.peaks(seen))
    x = np.minimum(_MARGIN * x, x.max())
    ones = np.ones(site.shape)
    before = site.noise(seen, ones, spec)
    best, alpha, found = before * _WORTH, None, ones
    for candidate in _ALPHAS:
        factors = x**candidate / w ** (1 - candidate)
        factors = np.exp2(np.rint(np.log2(np.maximum(factors / factors.max(), 1 / _FURTHEST))))
        noise = site.noise(seen, factors, spec)
        if noise < best:
            best, alpha, found = noise, candidate, factors
    gain = 10 * float(np.log10(max(before, 1e-300) / max(best, 1e-300)))
    return alpha, found, gain


def _observe(graph: Graph, sites: list[_Site], samples: Arrays, ctx: PassContext) -> _SeenValues:
    values = list({id(v): v for site in sites for v in site.values}.values())
    seen: _SeenValues = {}
    for value in values:
        if value.data is not None:
            data = value.data.astype(np.float64)
            seen[id(value)] = _Seen(np.minimum(data, 0), np.maximum(data, 0), value.data[None])
    values = [v for v in values if not v.is_constant]

    def record(value: Value, array: NDArray[np.float32]) -> None:
        if value not in values:
            return
        shape = value.type.shape
        zeros = np.zeros(shape)  # every range holds 0
        seen.setdefault(id(value), _Seen(zeros, zeros, np.empty((0, *shape), np.float32))).add(
            array.reshape(-1, *shape)
        )

    ctx.resources.get("channel_observer_factory", _interpret)(graph, values)(samples, record)
    return seen


def _ratio(y: Reals, z: Reals) -> float:
    return float(((y - z) ** 2).sum()) / max(float((y**2).sum()), 1e-300)


def _columns(node: Node, factors: Reals) -> Reals:
    """The factors of the operand's channels, [C], as they lie on the weights: [O, 1 ..., C / groups]."""
    weight = linear_weight(node)
    assert weight is not None
    outputs, *taps, inputs = weight.type.shape
    groups = len(factors) // inputs
    rows = np.repeat(factors.reshape(groups, inputs), outputs // groups, axis=0)
    return np.asarray(rows.reshape(outputs, *[1] * len(taps), inputs))


def _by_channel(node: Node) -> Reals:
    """The largest weight on each channel of the operand, [C]."""
    weight = linear_weight(node)
    assert weight is not None
    assert weight.data is not None
    inputs, channels = weight.type.shape[-1], node.input(0).type.shape[-1]
    by_group = np.abs(weight.data.astype(np.float64)).reshape(channels // inputs, -1, inputs)
    return np.asarray(by_group.max(axis=1).ravel())


def _rows(node: Node, x: NDArray[np.float32]) -> Reals | None:
    """[rows, G, K]: some of what the weights of ``node`` meet in its operand, [N, *shape]."""
    weight = linear_weight(node)
    assert weight is not None
    stacked = x if x.ndim == 2 else x.reshape(-1, *x.shape[2:])
    rows = node.op.weight_rows(stacked, weight.type, _POSITIONS)
    return None if rows is None else rows.reshape(-1, *rows.shape[2:]).astype(np.float64)


def _interpret(graph: Graph, values: list[Value]) -> Observe:
    def observe(batch: Batch, record: Callable[[Value, NDArray[np.float32]], None]) -> None:
        interpreter.run(graph, batch, observe=record)

    return observe
