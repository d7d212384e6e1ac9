"""Where the error of a quantized model comes from: every tensor measured on the kept samples, split into causes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcc import verify
from qcc.driver import Compilation, Progress
from qcc.float_runtime import FloatRuntime
from qcc.ir import fixedpoint, interpreter
from qcc.ir.graph import Graph, Node, Value
from qcc.passes.statistics import TensorStatistics

Array = NDArray[Any]
Arrays = Mapping[str, Array]

MEASURED_ELEMENTS = (
    3 * 2**23
)  # of all tensors in all measured samples: fewer samples of large models, at least one

_SMALL, _LARGE = 1e-20, 1e30  # sums of squares that float32 holds


@dataclass
class Noise:
    """Sums of squares over samples and their ``elements``: of a reference, and of what was added to it."""

    signal: float = 0.0
    noise: float = 0.0
    elements: int = 0

    def add(self, reference: Array, result: Array) -> None:
        """Count one more sample."""
        self.elements += reference.size
        self.signal += _square(reference)
        self.noise += _squared_distance(result, reference)

    @property
    def sqnr_db(self) -> float | None:
        """10 log10(signal / noise); None where there is no noise."""
        return decibels(self.noise / self.signal if self.signal else self.noise)


@dataclass
class TensorErrors:
    """Errors of one quantized value, f its values in float, Q its own quantization, i the integers as reals.

    ``rounding``, ``clipping``: squared Q(f) - f inside and outside of what the codes can hold, over ``clipped`` of
    ``elements``. ``weights``: what quantized weights and bias on float inputs change, None where there are none.
    ``requantization``: i against the fake-quant meaning of its layer on the integers before it. ``simulated``: values of the
    fake-quant graph against f; ``cumulative``: i against f. What compares with i covers the channels that were kept,
    and stays empty for a value that the program does not hold.
    """

    value: Value
    seen: TensorStatistics = field(default_factory=TensorStatistics)
    elements: int = 0
    clipped: int = 0
    signal: float = 0.0
    rounding: float = 0.0
    clipping: float = 0.0
    weights: Noise | None = None
    simulated: Noise = field(default_factory=Noise)
    requantization: Noise | None = None
    cumulative: Noise | None = None

    @property
    def local(self) -> Noise:
        """What quantizing this tensor alone adds: rounding and clipping."""
        return Noise(self.signal, self.rounding + self.clipping, self.elements)


def decibels(ratio: float) -> float | None:
    """Noise over signal as SQNR; None without noise."""
    return -10 * math.log10(ratio) if ratio > 0 else None


def split_quantization_error(errors: TensorErrors, x: Array) -> None:
    """Add the rounding and clipping of ``x`` (float32) by the qparams of the value."""
    qparams = errors.value.type.qparams
    assert qparams is not None
    low, high = qparams.range
    rounded = fixedpoint.fake_quantize(x, qparams)
    total, clipped = _squared_distance(rounded, x), 0.0
    half = (
        qparams.scale[0] / 2
    )  # up to half a step beyond the last code a value is rounded to it, not clipped
    if x.size and (float(x.min()) < low - half or float(x.max()) > high + half):
        outside = (x < low - half) | (x > high + half)
        clipped = _squared_distance(rounded[outside], x[outside])
        errors.clipped += int(np.count_nonzero(outside))
    errors.elements += x.size
    errors.signal += _square(x)
    errors.clipping += clipped
    errors.rounding += max(0.0, total - clipped)


def measure(made: Compilation, progress: Progress = lambda what, done, total: None) -> list[TensorErrors]:
    """The errors of every quantized value of ``made`` in graph order, on as many kept samples as MEASURED_ELEMENTS allow.

    Raises QccError where onnxruntime cannot run the graph.
    """
    calibrated, annotated, planned = made.calibrated, made.annotated, made.planned
    if calibrated is None or annotated is None or planned is None or not made.samples:
        return []
    found = {v.name: TensorErrors(v) for v in quantized_values(annotated)}
    reference, twins = _with_quantized_weights(calibrated, annotated)
    for name in twins:
        if name in found:
            found[name].weights = Noise()
    observed = [v for v in computed_values(reference) if v.name in found or v.name in twins.values()]
    runtime = FloatRuntime(reference, observed)
    simulated = FloatRuntime(
        annotated, [v for v in computed_values(annotated) if not v.fused], fake_quant=True
    )
    layers = _LayersApart(annotated, made.kept_channels)
    count = samples_measured(made)
    for index in range(count):
        sample = {name: array[index : index + 1] for name, array in made.samples.items()}
        f, a = observe(runtime, sample), observe(simulated, sample)
        i = integers_as_reals(planned, sample)
        r = layers(sample, a, i)
        for name, errors in found.items():
            kept = made.kept_channels.get(name)
            _add_sample(errors, f, a[name], i.get(name), r.get(name), twins.get(name), kept)
        progress("measuring errors", index + 1, count)
    return list(found.values())


def samples_measured(made: Compilation) -> int:
    """How many of the kept samples ``measure`` runs."""
    if made.annotated is None or not made.samples:
        return 0
    per_sample = sum(v.type.elements for v in computed_values(made.annotated) if not v.fused) or 1
    kept = len(next(iter(made.samples.values())))
    return max(1, min(kept, MEASURED_ELEMENTS // per_sample))


def quantized_values(graph: Graph) -> list[Value]:
    """Inputs and results of an annotated graph that are held in integers."""
    values = (v for v in computed_values(graph) if v.type.qparams is not None)
    return [v for v in values if v.type.qparams is not None and v.type.qparams.axis is None]


def integers_as_reals(planned: Graph, sample: Arrays) -> dict[str, Array]:
    """Every value but accumulators of one sample, by the name it has in the annotated graph, as float32."""
    found: dict[str, Array] = {}

    def keep(value: Value, array: Array) -> None:
        qparams, dtype = value.type.qparams, value.type.dtype
        if dtype.is_integer and (qparams is None or dtype.value == "s32"):
            return
        real = fixedpoint.dequantize(array, qparams) if dtype.is_integer and qparams is not None else array
        made_from = value.producer.input(0).name if value.producer is not None else ""
        name = made_from if value.name == f"{made_from}_q" else value.name  # a float that was quantized
        found[name] = real.reshape(value.type.shape)

    interpreter.run(planned, verify.quantize_inputs(planned, sample), observe=keep)
    return found


def computed_values(graph: Graph) -> list[Value]:
    """Inputs, then results of nodes."""
    return [*graph.inputs, *(n.output for n in graph.nodes)]


def observe(runtime: FloatRuntime, sample: Arrays) -> dict[str, Array]:
    """Observed values of one sample, each in its own shape."""
    (arrays,) = runtime.observed(sample)
    return {v.name: np.reshape(arrays[v.name], v.type.shape) for v in runtime.observe}


def _add_sample(
    errors: TensorErrors,
    f: Arrays,
    a: Array,
    i: Array | None,
    r: Array | None,
    twin: str | None,
    kept: list[int] | None,
) -> None:
    x = f[errors.value.name]
    errors.seen.extend(x[None])
    errors.seen.tally(x[None])
    split_quantization_error(errors, x)
    errors.simulated.add(x, a)
    if errors.weights is not None and twin is not None:
        errors.weights.add(x, f[twin])
    if kept is not None:
        x, r = x[..., kept], None if r is None else r[..., kept]
    if i is None or i.shape != x.shape:
        return
    errors.cumulative = errors.cumulative or Noise()
    errors.cumulative.add(x, i)
    if r is not None:
        errors.requantization = errors.requantization or Noise()
        errors.requantization.add(r, i)


class _LayersApart:
    """The fake-quant meaning of every layer by itself, on operands that are given: each materialized value is an input."""

    def __init__(self, annotated: Graph, kept_channels: Mapping[str, list[int]]) -> None:
        graph = annotated.clone()
        graph.outputs, graph.output_names = [], []
        self.kept_channels = kept_channels
        self.held: dict[str, str] = {}
        for node in graph.nodes:
            if node.output.fused:
                continue
            if node.output.users:
                held = graph.add_input(f"{node.name}.held", node.output.type)
                self.held[held.name] = node.name
                graph.replace_uses(node.output, held)
            graph.add_output(node.output, node.name)
        self.runtime = FloatRuntime(graph, fake_quant=True)

    def __call__(self, sample: Arrays, a: Arrays, i: Arrays) -> dict[str, Array]:
        """By value name, on the integers ``i`` of one sample; what these lack is taken from the fake-quant values ``a``."""
        feed: dict[str, Array] = {}
        for value in self.runtime.graph.inputs:
            name = self.held.get(value.name)
            x = sample[value.name] if name is None else self._whole(name, a[name], i.get(name))
            feed[value.name] = x if name is None or value.type.shape[:1] == (1,) else x[None]
        results = self.runtime.run(feed)
        outputs = zip(self.runtime.graph.output_names, self.runtime.graph.outputs, strict=True)
        return {name: results[name].reshape(v.type.shape) for name, v in outputs}

    def _whole(self, name: str, a: Array, i: Array | None) -> Array:
        """``i`` with the removed channels, which are constant."""
        kept = self.kept_channels.get(name)
        if i is None or kept is None:
            return a if i is None or i.shape != a.shape else i
        whole = a.copy()
        whole[..., kept] = i
        return whole


def _square(x: Array) -> float:
    """The sum of squares: fast in float32, where that neither overflows nor underflows, else in float64."""
    flat = np.ravel(x)
    found = float(np.vdot(flat, flat))
    if not _SMALL < found < _LARGE:
        wide = flat.astype(np.float64)
        found = float(np.vdot(wide, wide))
    return found


def _squared_distance(a: Array, b: Array) -> float:
    with np.errstate(over="ignore"):
        difference = np.subtract(a, b, dtype=np.float32)
    if not np.isfinite(difference).all():
        difference = np.subtract(a, b, dtype=np.float64)
    return _square(difference)


def _with_quantized_weights(calibrated: Graph, annotated: Graph) -> tuple[Graph, dict[str, str]]:
    """The float graph, with a twin beside each layer that has the quantized constants, and the layer's float inputs.

    Also: by name of the materialized value in which a layer ends, the value of its twin.
    """
    graph = calibrated.clone()
    values = {v.name: v for v in computed_values(graph)}
    twins: dict[str, str] = {}

    def copy(node: Node, behind: Value | None, twin: Value | None) -> Value:
        operands: list[Value | None] = []
        for v in node.inputs:
            if v is not None and v.data is not None:
                qparams = v.type.qparams
                data = v.data if qparams is None else fixedpoint.fake_quantize(v.data, qparams)
                operands.append(graph.constant(data, v.name, v.type.with_qparams(None)))
            else:
                operands.append(twin if v is behind and v is not None else v and values[v.name])
        type_ = node.output.type.with_qparams(None)
        return graph.add_node(node.op, operands, type_, f"{node.name}.weights").output

    for node in annotated.nodes:
        weight = node.op.quant_rule().weight
        if weight is None or node.input(weight).type.qparams is None or node.name not in values:
            continue
        current, twin = node, copy(node, None, None)
        while current.output.fused:
            behind, current = current.output, current.output.users[0]
            twin = copy(current, behind, twin)
        twins[current.name] = twin.name
    return graph, twins
