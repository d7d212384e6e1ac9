"""The Python surface: compile a model, then save, build, run and inspect it."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcc import driver, precision_search, report, verify
from qcc.backends import tuning
from qcc.backends.c import image, run
from qcc.backends.c.emit import EmitOptions, add_to_record, emit
from qcc.backends.c.image import Footprint
from qcc.backends.c.views import Views
from qcc.backends.program import Program, build_program
from qcc.backends.select import Order, as_ranked
from qcc.backends.target import Scripts, Target, Tuning
from qcc.backends.targets import find_target
from qcc.float_runtime import FloatRuntime
from qcc.ir import interpreter
from qcc.ir.errors import QccError
from qcc.ir.graph import Graph
from qcc.ir.printer import save_graph
from qcc.metrics import find_metric
from qcc.onnx_exporter import save_qdq
from qcc.options import CompileOptions
from qcc.timing import Timing, time_call, time_library
from qcc.tosa.exporter import save_tosa
from qcc.verify import Verification

Array = NDArray[Any]
Arrays = Mapping[str, Array]

GRAPH_FOLDER = "graphs"  # inside a saved library
FLOAT_FILE, PLANNED_FILE = "float.qir", "planned.qir"  # the latter where the program is another graph


def compile(
    model: Any,
    target: str = "c",
    calibration: object = None,
    *,
    options: CompileOptions | None = None,
    progress: driver.Progress = lambda what, done, total: None,
    warn: driver.Warn | None = None,
    evaluation: object = None,
    **choices: Any,
) -> CompiledModel:
    """Compile an ONNX model (path or ModelProto).

    ``calibration``: array[N, ...], dict of arrays, an iterable of such, or a path to .npz/.npy; without it ranges come
    from noise, with a warning. ``choices``: fields of CompileOptions, such as ``io="float"``. ``warn`` is called with
    every warning (default: ``warnings.warn``); they are in the result and its report too. ``evaluation``: data like
    ``calibration``, with labels where the metric needs them, on which ``min_ratio`` must be reached. Raises QccError.
    """
    chosen = replace(options or CompileOptions(), target=target, **choices)
    found = find_target(target)  # an unknown target is an error before the work starts
    if chosen.tune:
        _require_tunable(found, chosen)
    elif chosen.tune_file is not None and not chosen.tune_file.is_file():
        raise QccError(f"{chosen.tune_file} does not exist", hint="add --tune, which writes it")
    noted: list[str] = []

    def note(message: str) -> None:
        noted.append(message)
        (warn or warnings.warn)(message)

    if (chosen.min_ratio is None) != (evaluation is None):
        given, missing = (
            ("evaluation data", "min_ratio") if chosen.min_ratio is None else ("min_ratio", "evaluation")
        )
        raise QccError(f"{given} without {missing} has no use", hint="give --min-ratio and --eval together")
    if chosen.min_ratio is not None:
        find_metric(chosen.metric)
    goals: list[precision_search.Goal] = []

    def find_goal(made: driver.Compilation) -> None:
        """Before quantization, so that evaluation data that do not fit cost no time."""
        if evaluation is not None:
            progress("measuring float", 0, 0)
            goals.append(precision_search.Goal.of(made, evaluation))

    made = driver.compile_graph(model, calibration, chosen, progress, note, find_goal)
    for goal in goals:
        made = precision_search.reach(made, goal, progress)
    made.resources = {}
    return CompiledModel(made, noted, progress)


class CompiledModel:
    """A compiled model: its graphs, the program for the target, and ways to run both."""

    def __init__(
        self,
        compilation: driver.Compilation,
        warnings: list[str] | None = None,
        progress: driver.Progress = lambda what, done, total: None,
    ) -> None:
        self.compilation = compilation
        self.warnings = warnings or []
        self._progress = progress
        options = compilation.options
        self.program: Program = build_program(
            compilation.graph,
            find_target(options.target),
            options.name or compilation.graph.name,
            options.boundary,
            _order(compilation, progress),
            options.threads,
            options.no_float,
            stream=options.stream,
            ram=options.ram,
        )
        if options.tune and self.program.target.tune is not None:
            wanted = Tuning(_tune_file(options), options.tracker, options.tune_trials)
            self.program.target.tune(self.program.target, Views(self.program).generated, wanted, progress)
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    @property
    def is_without_floats(self) -> bool:
        """True where the program was made with ``no_float``."""
        return self.compilation.options.no_float

    @property
    def graph(self) -> Graph:
        """The program: the planned integer graph, or a float graph, whose weights may be codes."""
        return self.compilation.graph

    @cached_property
    def report(self) -> dict[str, Any]:
        """Sizes, layers, placement, proofs and the accuracy on calibration samples, as plain data."""
        results = None if self.graph is self.compilation.float_graph else self._results
        return report.report_of(self.compilation, self.program, self.warnings, results, self._progress)

    @cached_property
    def _results(self) -> verify.Results | None:
        """Outputs for the kept samples, which the report and ``verify`` both need."""
        samples = self.compilation.samples
        return verify.results_of(self.graph, self.compilation.float_graph, samples) if samples else None

    # ------------------------------------------------------------------ files
    def save(self, folder: str | Path) -> Path:
        """Write the C library, the graphs it came from and report.json; whole or not at all."""
        options = self.compilation.options
        recorded: dict[str, str] = {"precision": options.precision, "io": options.boundary}
        if options.threads > 1:
            recorded["threads"] = str(options.threads)
        if options.no_float:
            recorded["no_float"] = "true"
        emitted = EmitOptions(
            self.compilation.model,
            self.compilation.sha256,
            recorded,
            vectors=self._vectors(),
            extra=self._write_extra,
            weights=options.weights,
            layout=options.layout,
            scripts=Scripts(
                "tvmscript" in options.emit,
                options.tvmscript,
                _tune_file(options) if options.tune else options.tune_file,
            ),
        )
        try:
            return emit(self.program, Path(folder), emitted)
        except OSError as error:
            raise _unwritable(folder, error) from error

    def _write_extra(self, folder: Path) -> None:
        graphs = folder / GRAPH_FOLDER
        graphs.mkdir()
        save_graph(self.compilation.float_graph, graphs / FLOAT_FILE)
        if self.graph is not self.compilation.float_graph:
            save_graph(self.graph, graphs / PLANNED_FILE)
        report.write(self.report, folder)
        emitted = self.compilation.options.emit
        if "tosa" in emitted:
            save_tosa(self.graph, folder / f"{self.program.name}.mlir")
        if "onnx" in emitted:
            save_qdq(self.graph, folder / f"{self.program.name}.onnx")

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
        ports = (
            (self.program.inputs, feed, self.program.input_bytes),
            (
                self.program.outputs,
                outputs,
                self.program.output_bytes,
            ),
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

    def verify(
        self,
        library: Library | None = None,
        inputs: Array | Arrays | None = None,
        labels: Array | None = None,
    ) -> Verification:
        """The library against the integer interpreter, and integers against float.

        ``inputs``: float samples, the kept calibration samples by default; ``labels``: classes, for accuracy.
        """
        return verify.verify(
            self.graph,
            self.compilation.float_graph,
            self.compilation.samples if inputs is None else _by_name(self.graph, inputs),
            labels,
            library.compiled if library else None,
            self.compilation.options.boundary == "float",
            self._results if inputs is None else None,
        )

    def record_verification(self, verification: Verification, how: str, folder: str | Path) -> None:
        """Enter the result of ``verify`` in the report, and write the report of a saved library again."""
        self.report["verification"] = {
            "samples": verification.samples,
            "equal": verification.equal,
            "meaning": verify.meaning_of_equal(self.graph),
            "how": how,
        }
        try:
            report.write(self.report, Path(folder))
        except OSError as error:
            raise _unwritable(folder, error) from error

    def measure(self, folder: str | Path) -> Footprint:
        """Flash, RAM and stack of the library saved in ``folder``; its reports then have them.

        With ``no_float`` this is the proof. Raises TargetError where the library cannot be built, or computes with floats.
        """
        found = measure_saved(Path(folder), self.program.target)
        self.report["footprint"] = found.as_dict()
        try:
            report.write(self.report, Path(folder))
        except OSError as error:
            raise _unwritable(folder, error) from error
        return found

    # ------------------------------------------------------------------ running without C
    def run_integer(self, xq: Array | Arrays) -> Any:
        """The exact meaning: integers in, integers out. A leading N is iterated."""
        inputs = _by_name(self.graph, xq)
        return _like(xq, interpreter.run(self.graph, inputs))

    def run_float(self, x: Array | Arrays) -> Any:
        """The float model, before quantization."""
        graph = self.compilation.float_graph
        return _like(x, FloatRuntime(graph).run(_by_name(graph, x)))

    def time_float(self, x: Array | Arrays, seconds: float = 1.0) -> Timing:
        """Time of onnxruntime, one thread, on the first sample of ``x`` in the float graph: the baseline."""
        graph = self.compilation.float_graph
        return time_call(FloatRuntime(graph, threads=1).prepared(_by_name(graph, x)), seconds)

    def quantize_input(self, x: Array | Arrays) -> Any:
        """Float inputs as the integers the program takes."""
        return _like(x, verify.quantize_inputs(self.graph, _by_name(self.graph, x)))

    def dequantize_output(self, yq: Array | Arrays) -> Any:
        """Integer outputs as float32."""
        outputs = yq if isinstance(yq, Mapping) else {self.graph.output_names[0]: yq}
        return _like(yq, verify.dequantize_outputs(self.graph, outputs))


def measure_saved(folder: Path, target: Target) -> Footprint:
    """Flash, RAM and stack of the library in ``folder``, entered in its record. Raises as ``CompiledModel.measure``."""
    meta = run.read_metadata(folder)
    found = image.measure(folder, target, meta)
    try:
        add_to_record(folder, {"footprint": found.as_dict()})
    except OSError as error:
        raise _unwritable(folder, error) from error
    if "no_float" in meta["options"]:
        found.require_integers()
    return found


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

    def time(self, x: Array | Arrays, seconds: float = 1.0) -> Timing:
        """Time of one inference, on the first sample of ``x`` (float). Raises TargetError under an emulator."""
        return time_library(self.compiled, self.graph, _by_name(self.graph, x), self._float_boundary, seconds)

    def run_int8(self, xq: Array | Arrays) -> Any:
        """Raw integers in, raw integers out."""
        return _like(xq, self.compiled.run(dict(_by_name(self.graph, xq))))


def _order(compilation: driver.Compilation, progress: driver.Progress) -> Order:
    """How candidates are ordered: by estimates, or by measured times."""
    options = compilation.options
    target, file = find_target(options.target), _tune_file(options)
    if not options.tune or target.tune is not None:
        return as_ranked
    return tuning.tune(compilation.graph, target, options.boundary, file, progress)


def _tune_file(options: CompileOptions) -> Path:
    if options.tune_file is None and find_target(options.target).tune is not None:
        return tuning.default_file().with_name("tvm.json")
    return options.tune_file or tuning.default_file()


def _require_tunable(target: Target, options: CompileOptions) -> None:
    """Raise TargetError where measuring would fail, before the work starts."""
    if target.tune is None:
        tuning.require_tunable(target, _tune_file(options))
    elif options.tracker is None:
        tuning.require_native(target, "leave tuning out, or name a tracker of such machines with --tune-rpc")


def _unwritable(folder: str | Path, error: OSError) -> QccError:
    return QccError(f"cannot write {folder}: {error.strerror}", hint="name a folder that you may write to")


def _by_name(graph: Graph, x: Array | Arrays) -> dict[str, Array]:
    return dict(x) if isinstance(x, Mapping) else {graph.inputs[0].name: np.asarray(x)}


def _like(given: Array | Arrays, outputs: Mapping[str, Array]) -> Any:
    """One array for one array, where there is one output; else by name."""
    return (
        next(iter(outputs.values()))
        if len(outputs) == 1 and not isinstance(given, Mapping)
        else dict(outputs)
    )
