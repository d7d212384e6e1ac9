"""High-bias absorption: what a channel never falls below moves into the biases of the layers that read it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qcc.ir import interpreter
from qcc.ir.graph import Graph, Node, Value
from qcc.ir.ops.activation import Clamp
from qcc.ir.ops.conv import Conv2d
from qcc.ir.ops.dense import Dense
from qcc.passes.base import Note, Pass, PassContext, PassResult, register_pass
from qcc.passes.choose_qparams import ChooseQParams
from qcc.passes.graph_error import Arrays, GraphError, declined
from qcc.passes.graph_statistics import Batch, Observe
from qcc.passes.layerwise import add_to_bias, sample_count
from qcc.passes.trial import trial_noise

Reals = NDArray[np.float64]

_SAMPLES = 32
_WORTH = (
    1 / 64
)  # of the largest magnitude of the tensor: what is less saves no part of its range worth a trial


@register_pass
class AbsorbBias(Pass):
    """Take c from the bias of a channel behind which a ReLU never acts, and add W c to the bias of its readers.

    Nagel et al. 2019, Data-Free Quantization, section 4.1.3: relu(x) - c = relu(x - c) where x >= c. There c is the mean
    less three deviations, assumed; here it is taken from the samples: c = max(0, mean - ``margin`` (mean - smallest)), and
    a ReLU6 that would act on such a channel keeps it. Readers without padding only: zeros around an image stand for
    what they would stand for no more. The float function stays the same for what was seen. Kept if the error of the
    outputs falls on the samples, ranges being chosen by ``observer``, types by ``int16`` and ``floats``.
    Reads ctx.resources: see GraphError; ``channel_observer_factory`` as equalize. Declines without samples.
    """

    name = "absorb-bias"
    stage = "float"
    exactness = "approximate"
    margin: float = 1.5
    observer: str = "min-max"
    int16: tuple[str, ...] = ()
    floats: tuple[str, ...] = ()

    def run(self, graph: Graph, ctx: PassContext) -> PassResult:
        """Returns a new graph where it is kept."""
        outputs = graph.outputs[0].name
        places = _places(graph)
        if not places:
            return PassResult(
                False, (Note(outputs, self.name, False, "no ReLU between layers without padding"),)
            )
        error = GraphError.of(graph, ctx)
        if error is None:
            return PassResult(False, (declined(graph, self.name, ctx),))
        samples = {n: a[: max(_SAMPLES, sample_count(graph, a))] for n, a in error.samples.items()}
        surplus = self._surplus(graph, places, samples, ctx)
        if not surplus:
            return PassResult(False, (Note(outputs, self.name, False, "no channel stays clear of 0"),))
        candidate, choices = graph.clone(), ChooseQParams(int16=self.int16, floats=self.floats)
        for place in _places(candidate):
            if place.value.name in surplus:
                place.absorb(candidate, surplus[place.value.name])
        before, after = (
            trial_noise(g, error, samples, ctx, choices, self.observer) for g in (graph, candidate)
        )
        note = error.note(graph, self.name, before, after)
        if not note.applied:
            return PassResult(False, (note,))
        notes = [
            Note(name, "absorb-channels", True, f"{np.count_nonzero(c)} channels")
            for name, c in surplus.items()
        ]
        return PassResult(True, (*notes, note), candidate)

    def _surplus(
        self, graph: Graph, places: list[_Place], samples: Arrays, ctx: PassContext
    ) -> dict[str, Reals]:
        """By name of a value, c for each channel, where it is worth something."""
        seen: dict[str, _Seen] = {}

        def record(value: Value, array: NDArray[np.float32]) -> None:
            x = array.reshape(-1, array.shape[-1])
            now = _Seen(x.min(axis=0), x.max(axis=0), x.sum(axis=0, dtype=np.float64), len(x))
            if value.name in wanted:
                seen[value.name] = seen[value.name].joined(now) if value.name in seen else now

        values = [p.value for p in places]
        wanted = {v.name for v in values}
        ctx.resources.get("channel_observer_factory", _interpret)(graph, values)(samples, record)
        found = {}
        for place in places:
            extremes = seen[place.value.name]
            c = extremes.mean - self.margin * (extremes.mean - extremes.low)
            c[~np.isfinite(c) | (extremes.high >= place.high)] = 0.0
            c = np.maximum(c, 0.0)
            if c.max() > _WORTH * extremes.high.max():
                found[place.value.name] = c
        return found


@dataclass(frozen=True)
class _Seen:
    """Of each channel: extremes, and the sum over ``count`` elements."""

    low: NDArray[np.float32]
    high: NDArray[np.float32]
    total: Reals
    count: int

    def joined(self, other: _Seen) -> _Seen:
        return _Seen(
            np.minimum(self.low, other.low),
            np.maximum(self.high, other.high),
            self.total + other.total,
            self.count + other.count,
        )

    @property
    def mean(self) -> Reals:
        return self.total / self.count


@dataclass(frozen=True)
class _Place:
    """``value``, the result of a ReLU on that of ``layer`` alone; ``high``, where it cuts; its ``readers``."""

    value: Value
    layer: Node
    high: float
    readers: tuple[Node, ...]

    def absorb(self, graph: Graph, surplus: Reals) -> None:
        """Move float64[C] from the bias of the layer to those of the readers."""
        add_to_bias(graph, self.layer, -surplus)
        for reader in self.readers:
            weight = reader.input(1).data
            assert weight is not None
            per_filter = weight.astype(np.float64).reshape(len(weight), -1, weight.shape[-1]).sum(axis=1)
            group = np.arange(len(weight)) // (len(weight) * weight.shape[-1] // len(surplus))
            add_to_bias(
                graph, reader, (per_filter * surplus.reshape(-1, weight.shape[-1])[group]).sum(axis=1)
            )


def _places(graph: Graph) -> list[_Place]:
    found = []
    for node in graph.nodes:
        layer, readers = _producer(node), tuple(dict.fromkeys(node.output.users))
        if (
            isinstance(node.op, Clamp)
            and node.op.low == 0
            and layer is not None
            and _is_layer(layer)
            and layer.output.users == [node]
            and not graph.is_output(layer.output)
            and not graph.is_output(node.output)
            and readers
            and all(_is_layer(r) and r.inputs.count(node.output) == 1 and _unpadded(r) for r in readers)
        ):
            found.append(_Place(node.output, layer, node.op.high, readers))
    return found


def _producer(node: Node) -> Node | None:
    value = node.inputs[0] if node.inputs else None
    return None if value is None else value.producer


def _is_layer(node: Node) -> bool:
    """Whether weights and bias, if any, are constants."""
    constants = node.inputs[1:]
    return isinstance(node.op, Conv2d | Dense) and all(v is None or v.is_constant for v in constants)


def _unpadded(node: Node) -> bool:
    return not (isinstance(node.op, Conv2d) and any(node.op.pads))


def _interpret(graph: Graph, values: list[Value]) -> Observe:
    def observe(batch: Batch, record: Callable[[Value, NDArray[np.float32]], None]) -> None:
        interpreter.run(graph, batch, observe=record)

    return observe
