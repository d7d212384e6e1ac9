"""Choices that look at what reads a value: its range by the least error of the readers' results, on a few samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcc.ir import fixedpoint, interpreter
from qcc.ir.graph import Graph, Node, Value
from qcc.ir.qparams import QParams
from qcc.ir.qspec import QSpec

Array = NDArray[Any]
Range = tuple[float, float]

_SAMPLES, _BYTES = 32, 128 * 2**20  # of all values: fewer samples where they take more, at least one
CLEARLY_LESS = 0.75
_COARSE = 2.0 ** -(np.arange(13) / 6)  # factors of a scale
_FINE = np.linspace(0.95, 1.05, 11)  # of the best of these


class ReaderErrors:
    """Measures, for a value of a float graph, how far its readers' results move when it is quantized.

    A reader is a node with the value as an operand, and all other operands in float; that the value is an output
    counts like a reader that returns it. ``batch``: float32[N, ...] by input name; the first samples are used.
    """

    def __init__(self, graph: Graph, batch: Mapping[str, Array], spec: QSpec) -> None:
        self.graph, self.spec = graph, spec
        per_sample = sum(n.output.type.bytes for n in graph.nodes) or 1
        count = max(1, min(_SAMPLES, _BYTES // per_sample, len(next(iter(batch.values())))))
        self._samples = [
            _values(graph, {name: a[i : i + 1] for name, a in batch.items()}) for i in range(count)
        ]

    def least_error(self, value: Value, ranges: Mapping[str, Range]) -> str:
        """The key of the range that moves the readers' results least, or of the first, where none is clearly better.

        Rare large values are seldom among few samples, which therefore flatter ranges that clip: the first one, the
        extremes, stays unless the least error is under CLEARLY_LESS times its own.
        """
        errors = {found: self.error(value, found) for found in dict.fromkeys(ranges.values())}
        favourite = next(iter(ranges))
        best = min(ranges, key=lambda name: errors[ranges[name]])
        return best if errors[ranges[best]] < CLEARLY_LESS * errors[ranges[favourite]] else favourite

    def error(self, value: Value, found: Range) -> float:
        """Sum over the readers of |f(x) - f(quantized x)|^2 / |f(x)|^2, on all samples."""
        qparams = self.spec.activation(*found)
        total = 0.0
        for reader in self._readers(value):
            noise = signal = 0.0
            for sample in self._samples:
                x = sample[id(value)]
                exact = x if reader is None else sample[id(reader.output)]
                rounded = fixedpoint.fake_quantize(x, qparams)
                result = rounded if reader is None else _apply(reader, sample, {id(value): rounded})
                noise += float(np.sum((exact - result.astype(np.float64)) ** 2))
                signal += float(np.sum(exact.astype(np.float64) ** 2))
            total += noise / signal if signal else noise
        return total if np.isfinite(total) else np.inf

    def alternating_cosine(self, value: Value, found: Range) -> tuple[Range, dict[str, float]]:
        """EasyQuant (Wu et al. 2020, section 3.2): scales of a value and of the weights that meet it, in turns.

        Each turn takes, of factors of one scale with the others fixed, the one of largest cosine similarity between the
        float results of the readers, without bias, and those from quantized operands. ``found``: where the range of
        the value starts. Returns its range, and by name of a reader the factor of its weight's scales.
        """
        readers = self._readers(value)
        weighted = [r for r in readers if r is not None and _own_weight(r) is not None]
        factor, weights = 1.0, {r.name: 1.0 for r in weighted}
        exact = [[self._result(value, r, s, None, None) for s in self._samples] for r in readers]

        def similarity(share: float, shares: Mapping[str, float], only: Node | None = None) -> float:
            total = 0.0
            for reader, results in zip(readers, exact, strict=True):
                if only is not None and reader is not only:
                    continue
                qparams = self.spec.activation(share * found[0], share * found[1])
                weight = shares.get(reader.name) if reader is not None else None
                got = [self._result(value, reader, s, qparams, weight) for s in self._samples]
                total += cosine_similarity(results, got)
            return total

        for grid in (_COARSE, _FINE):
            factor = _best(grid * factor, lambda f: similarity(f, weights))
            for reader in weighted:
                start = weights[reader.name]

                def of_weight(f: float, reader: Node = reader, factor: float = factor) -> float:
                    return similarity(factor, {**weights, reader.name: f}, reader)

                weights[reader.name] = min(1.0, _best(grid * start, of_weight))
        return (factor * found[0], factor * found[1]), weights

    def _readers(self, value: Value) -> list[Node | None]:
        nodes: list[Node | None] = [*dict.fromkeys(value.users)]
        return [*nodes, None] if self.graph.is_output(value) or not nodes else nodes

    def _result(
        self,
        value: Value,
        reader: Node | None,
        sample: Mapping[int, Array],
        qparams: QParams | None,
        weight_factor: float | None,
    ) -> Array:
        """What ``reader`` makes of ``value``, without bias; of quantized operands where qparams are given."""
        x = sample[id(value)]
        x = x if qparams is None else fixedpoint.fake_quantize(x, qparams)
        if reader is None:
            return x
        changed: dict[int, Array | None] = {id(value): x}
        weight, bias = _own_weight(reader), reader.op.quant_rule().bias
        if weight is not None and weight_factor is not None:
            axis = reader.op.quant_rule().weight_axis
            changed[id(weight)] = round_weight(weight, axis, weight_factor, self.spec)
        if bias is not None and bias < len(reader.inputs) and reader.inputs[bias] is not None:
            changed[id(reader.inputs[bias])] = None
        return _apply(reader, sample, changed)


def cosine_similarity(a: Sequence[Array], b: Sequence[Array]) -> float:
    """<a, b> / (|a| |b|) of two lists of arrays taken as one vector each; 1 where both are zero."""
    product, left, right = (
        sum(float(np.vdot(x.astype(np.float64), y.astype(np.float64))) for x, y in zip(p, q, strict=True))
        for p, q in ((a, b), (a, a), (b, b))
    )
    if left == 0.0 or right == 0.0:
        return float(left == right)
    return float(product / np.sqrt(left * right))


def round_weight(weight: Value, axis: int, factor: float, spec: QSpec) -> NDArray[np.float32]:
    """The weight on the grid of ``factor`` times the scales that hold each channel, or the tensor, whole."""
    assert weight.data is not None
    w = weight.data.astype(np.float64)
    others = tuple(a for a in range(w.ndim) if a != axis)
    largest = np.abs(w).max(axis=None if spec.weights == "per-tensor" else others, keepdims=True)
    scale = np.where(largest > 0, factor * largest / spec.weight_max, 1.0)
    q = np.clip(np.rint(w / scale), -spec.weight_max, spec.weight_max)
    return np.asarray(q * scale, np.float32)


def _own_weight(node: Node) -> Value | None:
    """The constant weight that no other node reads."""
    index = node.op.quant_rule().weight
    weight = node.inputs[index] if index is not None else None
    return weight if weight is not None and weight.data is not None and len(weight.users) == 1 else None


def _best(factors: NDArray[np.float64], score: Callable[[float], float]) -> float:
    """The factor of the largest score; of equal ones that nearest to 1."""
    return max(map(float, factors), key=lambda f: (score(f), -abs(f - 1)))


def _apply(node: Node, sample: Mapping[int, Array], changed: Mapping[int, Array | None]) -> Array:
    """The float result of ``node`` on one sample, with some operands replaced."""
    operands: list[Array | None] = []
    for value in node.inputs:
        if value is not None and id(value) in changed:
            operands.append(changed[id(value)])
        elif value is not None and value.data is not None:
            operands.append(value.data)
        else:
            operands.append(None if value is None else sample[id(value)])
    return interpreter.evaluate(node, operands)


def _values(graph: Graph, inputs: Mapping[str, Array]) -> dict[int, Array]:
    """Every computed value of one sample, in its own shape, by id."""
    found: dict[int, Array] = {}

    def keep(value: Value, array: Array) -> None:
        found[id(value)] = array.reshape(value.type.shape)

    interpreter.run(graph, inputs, observe=keep)
    return found
