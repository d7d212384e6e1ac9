"""The Python surface: compile a model, then save, build, run and inspect it."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcc import driver, report, verify
from qcc.backends.c import run
from qcc.backends.c.emit import EmitOptions, emit
from qcc.backends.program import Program, build_program
from qcc.backends.targets import find_target
from qcc.float_runtime import FloatRuntime
from qcc.ir import interpreter
from qcc.ir.graph import Graph
from qcc.ir.printer import save_graph
from qcc.options import CompileOptions

Array = NDArray[Any]
Arrays = Mapping[str, Array]

GRAPH_FOLDER = "graphs"  # inside a saved library: planned.qir (or none for float32) and float.qir
REPORT_FILE = "report.json"


def compile(
    model: Any,
    target: str = "c",
    calibration: object = None,
    *,
    options: CompileOptions | None = None,
    progress: driver.Progress = lambda what, done, total: None,
    warn: driver.Warn | None = None,
    **choices: Any,
) -> CompiledModel:
    """Compile an ONNX model (path or ModelProto).

    ``calibration``: array[N, ...], dict of arrays, an iterable of such, or a path to .npz/.npy; without it ranges come
    from noise, with a warning. ``choices``: fields of CompileOptions, such as ``io="float"``. Raises QccError.
    """
    chosen = replace(options or CompileOptions(), target=target, **choices)
    find_target(target)  # an unknown target is an error before the work starts
    warnings: list[str] = []
    made = driver.compile_graph(model, calibration, chosen, progress, warn or warnings.append)
    return CompiledModel(made, warnings)


class CompiledModel:
    """A compiled model: its graphs, the program for the target, and ways to run both."""

    def __init__(self, compilation: driver.Compilation, warnings: list[str] | None = None) -> None:
        self.compilation = compilation
        self.warnings = warnings or []
        options = compilation.options
        self.program: Program = build_program(
            compilation.graph, find_target(options.target), options.name or compilation.graph.name, options.boundary
        )
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    @property
    def graph(self) -> Graph:
        """The planned integer graph (the float graph for float32)."""
        return self.compilation.graph

    @cached_property
    def report(self) -> dict[str, Any]:
        """Sizes, layers, placement, proofs and the accuracy on calibration samples, as plain data."""
        return report.report_of(self.compilation, self.program, self.warnings)

    # ------------------------------------------------------------------ files
    def save(self, folder: str | Path) -> Path:
        """Write the C library, the graphs it came from and report.json; whole or not at all."""
        options = self.compilation.options
        recorded = {"precision": options.precision, "io": options.boundary}
        emitted = EmitOptions(
            self.compilation.model,
            self.compilation.sha256,
            recorded,
            vectors=self._vectors(),
            extra=self._write_extra,
        )
        return emit(self.program, Path(folder), emitted)

    def _write_extra(self, folder: Path) -> None:
        graphs = folder / GRAPH_FOLDER
        graphs.mkdir()
        save_graph(self.compilation.float_graph, graphs / "float.qir")
        if self.compilation.planned is not None:
            save_graph(self.compilation.planned, graphs / "planned.qir")
        report.write(self.report, folder)

    def _vectors(self) -> list[tuple[Array, Array]]:
        """Input and output blocks of a few calibration samples, as the interpreter computes them."""
        count = self.compilation.options.vectors
        inputs = {n: a[:count] for n, a in self.compilation.samples.items()}
        if count == 0 or not inputs or self.compilation.planned is None:
            return []
        graph = self.program.graph  # with quantize and dequantize steps where the boundary is float
        feed = {v.name: inputs[v.name] for v in graph.inputs}
        if self.compilation.options.boundary == "int8":
            feed = verify.quantize_inputs(graph, inputs)
        outputs = interpreter.run(graph, feed)
        ports = (self.program.inputs, feed, self.program.input_bytes), (
            self.program.outputs,
            outputs,
            self.program.output_bytes,
        )
        blocks = []
        for listed, arrays, size in ports:
            block = np.zeros((len(next(iter(arrays.values()))), size), np.uint8)
            for port in listed:
                data = np.ascontiguousarray(arrays[port.name]).reshape(len(block), -1).view(np.uint8)
                block[:, port.offset : port.offset + data.shape[1]] = data
            blocks.append(block)
        return list(zip(*blocks, strict=True))

    def build(self, folder: str | Path | None = None) -> Library:
        """Compile the C library for the target (in ``folder``, or a temporary one that lives as long as the result)."""
        if folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="qcc-")
            folder = self.save(Path(self._folder.name) / self.program.name)
        return Library(run.load(Path(folder), self.program.target), self.graph, keep=self._folder)

    # ------------------------------------------------------------------ running without C
    def run_integer(self, xq: Array | Arrays) -> Any:
        """The exact meaning: integers in, integers out. A leading N is iterated."""
        inputs = _by_name(self.graph, xq)
        return _like(xq, interpreter.run(self.graph, inputs))

    def run_float(self, x: Array | Arrays) -> Any:
        """The float model, before quantization."""
        graph = self.compilation.float_graph
        return _like(x, FloatRuntime(graph).run(_by_name(graph, x)))

    def quantize_input(self, x: Array | Arrays) -> Any:
        """Float inputs as the integers the program takes."""
        return _like(x, verify.quantize_inputs(self.graph, _by_name(self.graph, x)))

    def dequantize_output(self, yq: Array | Arrays) -> Any:
        """Integer outputs as float32."""
        outputs = yq if isinstance(yq, Mapping) else {self.graph.output_names[0]: yq}
        return _like(yq, verify.dequantize_outputs(self.graph, outputs))


class Library:
    """A built library. ``path``: the shared object (or program, for an emulated target); ``symbol``: its entry."""

    def __init__(self, compiled: run.Compiled, graph: Graph, keep: object = None) -> None:
        self.compiled = compiled
        self.graph = graph
        self._keep = keep  # the temporary folder the library was built in

    @property
    def path(self) -> Path:
        """The shared object: int symbol(void *arena, const int8_t *in, int8_t *out)."""
        return self.compiled.path

    @property
    def symbol(self) -> str:
        """Name of the C entry point."""
        return f"{self.compiled.meta['name']}_run"

    @property
    def _float_boundary(self) -> bool:
        return all(p["dtype"] == "f32" for p in self.compiled.meta["inputs"])

    def run(self, x: Array | Arrays) -> Any:
        """Float in, float out; array or dict; a leading N is iterated."""
        inputs = {n: np.asarray(a, np.float32) for n, a in _by_name(self.graph, x).items()}
        if self._float_boundary:
            return _like(x, self.compiled.run(inputs))
        outputs = self.compiled.run(verify.quantize_inputs(self.graph, inputs))
        return _like(x, verify.dequantize_outputs(self.graph, outputs))

    def run_int8(self, xq: Array | Arrays) -> Any:
        """Raw integers in, raw integers out."""
        return _like(xq, self.compiled.run(dict(_by_name(self.graph, xq))))


def _by_name(graph: Graph, x: Array | Arrays) -> dict[str, Array]:
    return dict(x) if isinstance(x, Mapping) else {graph.inputs[0].name: np.asarray(x)}


def _like(given: Array | Arrays, outputs: Mapping[str, Array]) -> Any:
    """One array for one array, where there is one output; else by name."""
    return next(iter(outputs.values())) if len(outputs) == 1 and not isinstance(given, Mapping) else dict(outputs)
