"""Runs float graphs and ONNX models with onnxruntime: for calibration, and as a check independent of the interpreter."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from qcc.ir import interpreter
from qcc.ir.errors import QccError
from qcc.ir.graph import Graph, Node, Value
from qcc.onnx_exporter import carried_values, export, has_onnx_form
from qcc.passes.graph_statistics import processors

Array = NDArray[Any]

Observer = Callable[[Value, Array], None]

_RUNTIME_ERRORS = (
    ort_errors.EPFail,
    ort_errors.Fail,
    ort_errors.InvalidArgument,
    ort_errors.InvalidGraph,
    ort_errors.InvalidProtobuf,
    ort_errors.NoModel,
    ort_errors.NoSuchFile,
    ort_errors.NotImplemented,
    ort_errors.RuntimeException,
    RuntimeError,
    ValueError,
)
# The first, from opset 21 on, writes QuantizeLinear nodes that contradict themselves, for QDQ around a Transpose. The
# second lets zeros that a Pad put around an image become the padding of a max pool, which never wins.
# The third quantizes float weights, per tensor, wherever a layer's operand and result have QDQ nodes.
_DISABLED = ["QDQPropagationTransformer", "Pad_Fusion", "WeightBiasQuantization"]
_FATAL = 4  # log severity: errors arrive as exceptions
_OBSERVED_BYTES = 4 * 2**20  # of all observed tensors of one call: few enough to stay in a cache
_OUTPUT_BATCH = 64
_OUTPUT_BYTES = 2 * 2**20  # of all outputs of one call, of more than one sample


class SerializableModel(Protocol):
    """A ModelProto, without importing onnx."""

    def SerializeToString(self) -> bytes:  # noqa: N802
        """The bytes of the file."""
        ...


class FloatRuntime:
    """A float or annotated graph in onnxruntime.

    ``observe``: computed values that ``observed`` yields; ``layout_free``: they may come channels-first, which
    saves transposes and is enough for statistics over whole tensors. ``peaks``: those of which the largest element of
    each channel will do, where they have channels and that saves handing them out. ``fake_quant``: values with qparams are
    rounded to them. ``threads``: 0 means one for each processor of this process. Raises QccError.
    A graph with ops that have no ONNX form, those of plugins, runs in the interpreter; ``is_onnx`` is False then.
    """

    def __init__(
        self,
        graph: Graph,
        observe: Sequence[Value] = (),
        threads: int = 0,
        *,
        layout_free: bool = False,
        peaks: Sequence[Value] = (),
        fake_quant: bool = False,
    ) -> None:
        self.graph = graph
        self.observe = [v for v in observe if not v.is_constant]
        handed = (
            v.type.shape[-1] * 4 if v in peaks and v.type.rank == 4 else v.type.bytes for v in self.observe
        )
        self._observed_bytes = sum(handed) or 1  # of a sample
        self.is_onnx = has_onnx_form(graph)
        if not self.is_onnx:
            self._tensors = {v.name: f"observed {v.name}" for v in self.observe}
            self._stacks = carried_values(graph) is not None
            self._session: Any = _Interpreted(graph, self.observe, self._tensors, self._stacks, fake_quant)
            return
        exported = export(graph, qdq=fake_quant, observe=self.observe, layout_free=layout_free, peaks=peaks)
        self._tensors = exported.observed
        self._stacks = isinstance(exported.batch, str)
        content = exported.model.SerializeToString()
        del exported  # as large as the content
        self._session = _session(content, threads)

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Outputs by name for N samples.

        ``inputs``: float32 by name, each [N, *shape], or [N, *shape[1:]] when shape[0] is 1; results follow the
        same convention. Raises QccError for a wrong name or shape.
        """
        sample_bytes = sum(v.type.bytes for v in self.graph.outputs) or 1
        size = min(_OUTPUT_BATCH, max(1, _OUTPUT_BYTES // sample_bytes))
        found: dict[str, Array] = {}
        start = 0
        for outputs, _ in self._calls(inputs, size, observe=False):
            if not found:  # the inputs were found to be right
                count = len(next(iter(inputs.values()), [0]))
                found = {n: np.empty((count, *a.shape[1:]), a.dtype) for n, a in outputs.items()}
            stop = start + len(next(iter(outputs.values()), []))
            for name, array in outputs.items():
                found[name][start:stop] = array
            start = stop
        return found

    def prepared(self, inputs: Mapping[str, Array]) -> Callable[[], object]:
        """A call on the first sample of ``inputs`` with nothing left to do but the inference: for timing.

        Raises QccError where that would be the interpreter's.
        """
        if not self.is_onnx:
            raise QccError(
                "onnxruntime cannot run this model: it has ops of a plugin without an ONNX form",
                hint="give them one: qcc.onnx_export_ops.exports",
            )
        arrays, _ = self._checked(inputs)
        feed = {n: np.ascontiguousarray(a[:1] if self._stacks else a[0]) for n, a in arrays.items()}
        names = list(self.graph.output_names)
        return lambda: self._session.run(names, feed)

    def observed(self, inputs: Mapping[str, Array]) -> Iterator[dict[str, Array]]:
        """Observed values by name, a few samples at a time so that they take little memory."""
        size = max(1, _OBSERVED_BYTES // self._observed_bytes)
        for _, observed in self._calls(inputs, size, observe=True):
            yield observed

    def _calls(
        self, inputs: Mapping[str, Array], size: int, *, observe: bool
    ) -> Iterator[tuple[dict[str, Array], dict[str, Array]]]:
        arrays, count = self._checked(inputs)
        size = size if self._stacks else 1
        names = list(self._tensors.values()) if observe else list(self.graph.output_names)
        size = -(-count // -(-count // size))  # pieces of nearly one size
        for start in range(0, count, size):
            feed = {n: a[start : start + size] for n, a in arrays.items()}
            if not self._stacks:
                feed = {n: np.asarray(a[0]) for n, a in feed.items()}
            results = dict(zip(names, _run(self._session, feed, names), strict=True)) if names else {}
            if observe:
                yield {}, {v: results[t] for v, t in self._tensors.items()}
            else:
                yield self._as_samples(results, min(size, count - start)), {}

    def _checked(self, inputs: Mapping[str, Array]) -> tuple[dict[str, Array], int]:
        """Arrays as [N, *shape[1:]] when samples are stacked, else [N, *shape]."""
        expected = [v.name for v in self.graph.inputs]
        if sorted(inputs) != sorted(expected):
            raise QccError(f"inputs must be {sorted(expected)}, got {sorted(inputs)}")
        arrays: dict[str, Array] = {}
        for value in self.graph.inputs:
            shape, array = value.type.shape, np.asarray(inputs[value.name], np.float32)
            if array.shape[1:] != shape and not (shape[:1] == (1,) and array.shape[1:] == shape[1:]):
                raise QccError(f"input {value.name} must have shape (N, {str(shape)[1:]}, got {array.shape}")
            arrays[value.name] = array.reshape(len(array), *(shape[1:] if self._stacks else shape))
        counts = {len(a) for a in arrays.values()}
        if len(counts) > 1 or counts == {0}:
            raise QccError(f"inputs must have one common number of samples above 0, got {sorted(counts)}")
        return arrays, counts.pop() if counts else 1

    def _as_samples(self, results: dict[str, Array], count: int) -> dict[str, Array]:
        """Outputs in the convention of ``run``; one that depends on no input is repeated."""
        shaped = {}
        for value, name in zip(self.graph.outputs, self.graph.output_names, strict=True):
            shape, array = value.type.shape, results[name]
            per_sample = shape[1:] if shape[:1] == (1,) else shape
            if array.size == value.type.elements:
                array = np.broadcast_to(array.reshape(per_sample), (count, *per_sample))
            shaped[name] = array
        return shaped


@dataclass(frozen=True)
class _Interpreted:
    """The interpreter in the place of a session of onnxruntime. ``tensors``: names of the observed values."""

    graph: Graph
    observe: Sequence[Value]
    tensors: Mapping[str, str]
    stacks: bool
    fake_quant: bool

    def run(self, names: Sequence[str], feed: Mapping[str, Array], options: object = None) -> list[Array]:
        """What a session yields: arrays of samples where they are stacked, else one sample without that axis."""
        parts: dict[str, list[Array]] = {self.tensors[v.name]: [] for v in self.observe}

        def record(value: Value, array: Array) -> None:
            if value in self.observe:
                parts[self.tensors[value.name]].append(array)

        inputs = {n: a if self.stacks else a[None] for n, a in feed.items()}
        found = interpreter.run(self.graph, inputs, observe=record, fake_quant=self.fake_quant)
        found |= {name: np.concatenate(arrays) for name, arrays in parts.items() if arrays}
        if not self.stacks:
            shapes = {self.tensors[v.name]: v.type.shape for v in self.observe}
            shapes |= {
                n: v.type.shape for v, n in zip(self.graph.outputs, self.graph.output_names, strict=True)
            }
            found = {name: array.reshape(shapes[name]) for name, array in found.items()}
        return [found[name] for name in names]


def observer(
    graph: Graph, values: Sequence[Value], peaks: Sequence[Value] = (), *, layout_free: bool = True
) -> Callable[[Mapping[str, Array], Observer], None]:
    """What calibration runs a float graph with: a function of a batch and of a recorder of (value, array).

    Arrays may come channels-first, and one value in several pieces. Of ``peaks`` there may be no more than the largest elements.
    ``layout_free``: as calibration wants it, which calls it from as many threads as there are processors, so that a call has one.
    """
    threads = 1 if layout_free else 0
    runtime = FloatRuntime(graph, values, threads, layout_free=layout_free, peaks=peaks)

    def observe(batch: Mapping[str, Array], record: Observer) -> None:
        for observed in runtime.observed(batch):
            for value in runtime.observe:
                record(value, observed[value.name])

    return observe


def runner(graph: Graph, *, fake_quant: bool) -> Callable[[Mapping[str, Array]], dict[str, Array]]:
    """``FloatRuntime.run`` of ``graph``: what corrections measure their effect with."""
    return FloatRuntime(graph, fake_quant=fake_quant).run


def evaluate(node: Node, operands: list[Array | None]) -> Array:
    """One float node on arrays that hold samples along axis 0: interpreter.evaluate, faster where there is much to do."""
    if not node.op.macs(node.signature):
        return interpreter.evaluate(node, operands)
    graph = Graph("node")
    values: list[Value | None] = []
    inputs: dict[str, Array] = {}
    for value, array in zip(node.inputs, operands, strict=True):
        if value is None or array is None:
            values.append(None)
        elif value.is_constant:
            values.append(graph.constant(array, value.name, value.type.with_qparams(None)))
        else:
            made = graph.add_input(value.name, value.type.with_qparams(None))
            values.append(made)
            inputs[made.name] = array
    made_node = graph.add_node(node.op, values, node.output.type.with_qparams(None), node.name)
    graph.add_output(made_node.output)
    (result,) = FloatRuntime(graph).run(inputs).values()
    return result


def run_onnx(model: str | Path | SerializableModel, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """All outputs of an ONNX model as it is, by name, for inputs [N, ...].

    A model with a fixed batch runs in pieces of that size. Raises QccError.
    """
    source = str(model) if isinstance(model, str | Path) else model.SerializeToString()
    session = _session(source, 0)
    declared = {i.name: i.shape for i in session.get_inputs()}
    if sorted(declared) != sorted(inputs):
        raise QccError(f"inputs must be {sorted(declared)}, got {sorted(inputs)}")
    names = [o.name for o in session.get_outputs()]
    count = min((len(a) for a in inputs.values()), default=1)
    fixed = [s[0] for s in declared.values() if s and isinstance(s[0], int) and s[0] > 0]
    size = min([*fixed, _OUTPUT_BATCH])
    parts = [
        _run(session, {n: np.asarray(a[start : start + size]) for n, a in inputs.items()}, names)
        for start in range(0, count, size)
    ]
    return {
        n: np.concatenate([np.atleast_1d(a) for a in arrays])
        for n, arrays in zip(names, zip(*parts, strict=True), strict=True)
    }


def _session(source: str | bytes, threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _FATAL
    options.intra_op_num_threads = threads or processors()
    # products of floats and dequantized weights in float32: by default (4) the floats are quantized to 8 bits
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    try:
        return onnxruntime.InferenceSession(
            source, options, providers=["CPUExecutionProvider"], disabled_optimizers=_DISABLED
        )
    except _RUNTIME_ERRORS as error:
        raise QccError(f"onnxruntime does not load the model: {error}") from error


def _run(session: Any, feed: Mapping[str, Array], names: Sequence[str]) -> list[Array]:
    options = onnxruntime.RunOptions()
    options.log_severity_level = _FATAL
    try:
        results: list[Array] = session.run(list(names), dict(feed), options)
    except _RUNTIME_ERRORS as error:
        raise QccError(f"onnxruntime does not run the model: {error}") from error
    return results
