"""The data flow of a compilation, one function per stage."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcc import calibration_data, checker, float_runtime, onnx_importer
from qcc.backends.targets import find_target
from qcc.calibration_data import CalibrationData
from qcc.ir.errors import ImportModelError, PassError, QccError
from qcc.ir.graph import Graph
from qcc.ir.location import Location
from qcc.ir.ops.fake_quant import input_codes
from qcc.ir.ops.stored import CODE_MAX
from qcc.ir.qspec import QSpec
from qcc.options import CompileOptions
from qcc.passes.adopt_qparams import AdoptQParams, undictated
from qcc.passes.base import Note, PassContext
from qcc.passes.calibrate import observed_values
from qcc.passes.fuse_epilogues import FuseEpilogues
from qcc.passes.graph_statistics import GraphStatistics
from qcc.passes.manager import PassManager, parse_pipeline
from qcc.passes.statistics_file import load_statistics, save_statistics

Batch = dict[str, NDArray[Any]]
Progress = Callable[[str, int, int], None]
Warn = Callable[[str], None]

KEPT_SAMPLES = 16
FLOAT_MACS = (
    2**36
)  # of the samples a float program is compared on: it has no accuracy to measure, and its kernels are plain
CORRECTION_SAMPLES, CORRECTION_BYTES = 100, 2**27  # kept in memory for the passes that correct
SYNTHETIC_ELEMENTS = 2**26  # of all samples: large images get fewer
# also the folders of dumps
FLOAT_STAGE, QUANTIZE_STAGE, STORE_STAGE = "1-float", "2-quantize", "2-store"


@dataclass
class Compilation:
    """What the stages leave behind: the graphs, the decisions of passes, and times in seconds.

    ``imported``: the model as it was read; ``float_graph``: after the float passes, the reference of accuracy;
    ``planned``: the integer program, None for a float one; ``stored``: the float program, where its weights are codes;
    ``samples``: the first calibration samples, float, by name.
    ``calibrated``: the float graph whose values were observed, ``annotated``: the one that was written in integers, and
    ``statistics`` of the former; ``kept_channels``: by value name, those of ``planned`` where it lost dead ones.
    ``resources``: of the context that the passes shared, for what quantizes again; ``contract``: how ``min_ratio`` was met.
    """

    options: CompileOptions
    model: str
    sha256: str
    imported: Graph
    float_graph: Graph
    planned: Graph | None = None
    stored: Graph | None = None
    calibrated: Graph | None = None
    annotated: Graph | None = None
    statistics: GraphStatistics | None = None
    kept_channels: dict[str, list[int]] = field(default_factory=dict)
    resources: dict[str, Any] = field(default_factory=dict)
    contract: dict[str, Any] | None = None
    proof: checker.PlanReport | None = None
    samples: Batch = field(default_factory=dict)
    calibration_samples: int = 0
    synthetic: bool = False
    notes: list[tuple[str, Note]] = field(default_factory=list)
    seconds: list[tuple[str, float]] = field(default_factory=list)

    @property
    def graph(self) -> Graph:
        """The graph that is emitted: planned integers, or float."""
        return next(g for g in (self.planned, self.stored, self.float_graph) if g is not None)


def compile_graph(
    source: Any,
    calibration: object = None,
    options: CompileOptions | None = None,
    progress: Progress = lambda what, done, total: None,
    warn: Warn = lambda message: None,
    prepare: Callable[[Compilation], None] = lambda made: None,
) -> Compilation:
    """ONNX file (or ModelProto) to a checked integer program, or to a float one with another precision than "int8".

    ``prepare`` is called with what holds the float graph, before anything is quantized. Raises QccError; nothing is written.
    """
    options = options or CompileOptions()
    _check_dump(options)
    ctx = PassContext(progress=progress, warn=warn)
    made = _float_stage(source, options, ctx)
    prepare(made)
    statistics = _statistics(options, calibration, made.float_graph)
    if statistics is not None:
        ctx.resources["statistics"], calibration = statistics, statistics.sketch.batch()
    data = _calibration(made, calibration, warn)
    if options.precision != "int8":
        if options.weights_only in CODE_MAX and not made.synthetic:
            ctx.resources.update(_given(made, data))
        else:
            next(_remembering(made, data), None)
        if _pipeline(STORE_STAGE, options):
            made.stored = _run(made, STORE_STAGE, made.float_graph.clone(), ctx)
        return made
    ctx.resources.update(_given(made, data), full_statistics=options.save_stats is not None)
    if statistics is not None:
        next(iter(ctx.resources["calibration"]))  # its samples are remembered, nothing else reads them
        made.calibration_samples = statistics.count
    made.planned = _run(made, QUANTIZE_STAGE, made.float_graph.clone(), ctx)
    if not made.samples:  # nothing was calibrated, so nothing has read the data
        next(ctx.resources["calibration"], None)
    made.calibrated, made.annotated = (ctx.resources.get(f"{n}_graph") for n in ("calibrated", "annotated"))
    made.statistics = ctx.resources.get("collected_statistics")
    made.kept_channels, made.resources = ctx.resources.get("kept_channels", {}), ctx.resources
    if options.save_stats is not None:
        save_statistics(ctx.resources["collected_statistics"], options.save_stats)
    made.proof = checker.check_plan(made.planned)
    return made


def quantize_again(made: Compilation, options: CompileOptions) -> Compilation:
    """``made`` with other types chosen, from the ranges it has, and lowered: another checked integer program."""
    assert made.calibrated is not None
    ctx = PassContext({n: r for n, r in made.resources.items() if n != "uncorrected"})
    pipeline = f"{_choosing(options)},{_lowering(options)}"
    repeated = {p.name for p in parse_pipeline(pipeline)}
    notes = [(name, note) for name, note in made.notes if name not in repeated]
    again = replace(made, options=options, notes=notes, seconds=list(made.seconds))
    graph = _run(again, QUANTIZE_STAGE, made.calibrated.clone(), ctx, pipeline)
    again.planned, again.annotated = graph, ctx.resources["annotated_graph"]
    again.kept_channels = ctx.resources.get("kept_channels", {})
    again.proof = checker.check_plan(graph)
    return again


def annotate(
    source: Any,
    calibration: object = None,
    options: CompileOptions | None = None,
    progress: Progress = lambda what, done, total: None,
    warn: Warn = lambda message: None,
) -> Graph:
    """ONNX file (or ModelProto) to the annotated graph, in which every sum of products is quantized: a model to export.

    Of ``options``, rounding and residuals are none of that model. Nothing is widened: few runtimes read 16 bits.
    """
    options = options or CompileOptions()
    kept = tuple(name for name in options.chosen_corrections if name != "widen")
    options = replace(options, recipe="", residuals=False, corrections=kept)
    ctx = PassContext(progress=progress, warn=warn)
    made = _float_stage(source, options, ctx)
    ctx.resources.update(_given(made, _calibration(made, calibration, warn)))
    passes = ",".join(_annotating(options))
    annotated = PassManager(parse_pipeline(passes), ctx).run(made.float_graph)
    if QSpec.parse(options.qspec).activations == "symmetric":
        # what an integer algorithm dictates (softmax) stays in float instead
        for value in annotated.values():
            if value.type.qparams is not None and value.type.qparams.zero_point:
                value.type = value.type.with_qparams(None)
    return annotated


def _float_stage(source: Any, options: CompileOptions, ctx: PassContext) -> Compilation:
    """The model as it was read, and behind the float passes. Raises ImportModelError for one without inputs."""
    graph = onnx_importer.import_model(source, options.shapes, options.name)
    model = _model_name(source, graph)
    if not graph.inputs:
        raise ImportModelError(
            "the model has no inputs: its outputs are constants",
            Location(model),
            "export it with an input, not with the sample frozen into it",
        )
    made = Compilation(options, model, _digest(source), graph.clone(), graph)
    made.float_graph = _run(made, FLOAT_STAGE, graph, ctx)
    return made


def _given(made: Compilation, data: CalibrationData) -> dict[str, Any]:
    """What passes that calibrate and correct find in the context: samples, and ways to run graphs on them."""
    samples, batches = _first_samples(_remembering(made, data))
    return {
        "calibration": batches,
        "calibration_samples": data.samples or 0,
        "correction_samples": {} if made.synthetic else samples,
        "observer_factory": float_runtime.observer,
        "channel_observer_factory": partial(float_runtime.observer, layout_free=False),
        "runner": float_runtime.runner,
        "evaluate": float_runtime.evaluate,
    }


def _calibrating(options: CompileOptions) -> tuple[str, str]:
    """The passes that choose ranges, and qparams from them, as text."""
    qspec = _qspec(options)
    calibrate = f"calibrate{{{f'{options.observer} {qspec}'.strip()}}}"
    return calibrate, _pass("choose-qparams", qspec, *_choices(options))


def _shaping(options: CompileOptions) -> tuple[str, ...]:
    """The passes that scale and shift channels of the float graph, as text."""
    qspec = _qspec(options)
    passes = {
        "equalize": _pass("equalize", qspec, *_choices(options)),
        "migrate-scales": _pass("migrate-scales", qspec, *_choices(options)),
        "absorb-bias": _pass("absorb-bias", *_choices(options)),
    }
    return tuple(text for name, text in passes.items() if name in options.chosen_corrections)


def _choices(options: CompileOptions) -> tuple[str, str]:
    """What is held in 16 bits, and what stays in float, as options of a pass."""
    return _names("int16", options.int16), _names("floats", options.float_nodes)


def quantize_pipeline(options: CompileOptions) -> str:
    """Pipeline text from the float graph to the planned one."""
    return ",".join((*_annotating(options), _lowering(options)))


def _annotating(options: CompileOptions) -> tuple[str, ...]:
    """From the float graph to the annotated one."""
    # statistics in a file are those of the graph as it is; equalization would make another one of it
    from_file = options.stats is not None or options.save_stats is not None
    return (
        "adopt-qparams",
        "fuse-epilogues" if options.residuals else "fuse-epilogues{residuals=false}",
        *(() if from_file else _shaping(options)),
        _calibrating(options)[0],
        _choosing(options),
    )


def _choosing(options: CompileOptions) -> str:
    """From ranges to the annotated graph."""
    chosen, qspec = options.chosen_corrections, _qspec(options)
    ends = {
        "match-grid": _pass("match-grid", qspec, _choices(options)[0]),
        "widen": _pass("widen", qspec, *_choices(options)),
    }
    before = (
        text for name, text in ends.items() if name in chosen and (options.io, name) != ("int8", "widen")
    )
    behind = (name for name in ("correct-bias", "round-weights") if name in chosen)
    own = filter(None, (options.annotated_pipeline,))
    return ",".join((*before, _calibrating(options)[1], *behind, *own))


def _lowering(options: CompileOptions) -> str:
    """From the annotated graph to the planned one."""
    granularity = find_target(options.target).channel_granularity
    rounding, dead = "plan-accumulators", "remove-dead-channels"
    return ",".join(
        (
            _pass(
                "quantize-ops", f"strict={str(options.strict).lower()}", _names("floats", options.float_nodes)
            ),
            "fold-zero-points",
            rounding if options.rounding == "ties_up" else f"{rounding}{{rounding={options.rounding}}}",
            f"{dead}{{granularity={granularity}}}" if granularity > 1 else dead,
        )
    )


def _qspec(options: CompileOptions) -> str:
    return f"qspec={json.dumps(options.qspec)}" if options.qspec else ""


def _names(option: str, names: tuple[str, ...]) -> str:
    return f"{option}={json.dumps(names)}" if names else ""


def _pass(name: str, *options: str) -> str:
    given = " ".join(filter(None, options))
    return f"{name}{{{given}}}" if given else name


def _pipeline(stage: str, options: CompileOptions) -> str:
    if stage == STORE_STAGE:
        return ",".join(_storing(options))
    return options.float_pipeline if stage == FLOAT_STAGE else quantize_pipeline(options)


def _storing(options: CompileOptions) -> Iterator[str]:
    """The passes that make codes of the weights of a float program; none for plain float32."""
    if options.precision == "dynamic":
        yield "dynamic-weights"
    if options.weights_only:
        group = f"group={options.weight_group}" if options.weight_group else ""
        yield _pass("weight-only", f"format={options.weights_only}", group)


def _stages(options: CompileOptions) -> list[str]:
    """Those that passes run in."""
    if options.precision == "int8":
        return [FLOAT_STAGE, QUANTIZE_STAGE]
    return [FLOAT_STAGE, STORE_STAGE] if _pipeline(STORE_STAGE, options) else [FLOAT_STAGE]


def _run(made: Compilation, stage: str, graph: Graph, ctx: PassContext, pipeline: str = "") -> Graph:
    """``pipeline``: another one than that of the stage."""
    options = made.options
    passes = parse_pipeline(pipeline or _pipeline(stage, options))
    dumped = options.dump_after == "all" or any(p.name == options.dump_after for p in passes)
    manager = PassManager(
        passes,
        ctx,
        verify_each=options.verify_each,
        dump_after=options.dump_after if dumped else None,
        dump_folder=options.dump_folder / stage if options.dump_folder else None,
        on_diff=options.on_diff,
    )
    result = manager.run(graph)
    made.notes.extend(manager.notes())
    made.seconds.extend(manager.timings)
    return result


def _check_dump(options: CompileOptions) -> None:
    """Raise PassError for a ``dump_after`` that no pipeline of this compilation has."""
    names = dict.fromkeys(
        p.name for stage in _stages(options) for p in parse_pipeline(_pipeline(stage, options))
    )
    if options.dump_after not in (None, "all", *names):
        raise PassError(
            f"cannot dump after {options.dump_after}: it is not in the pipeline",
            hint=f"use all, or {', '.join(names)}",
        )
    if options.dump_after is not None and options.dump_folder is None:
        raise PassError("dump_after needs a dump_folder to write to")


def _calibration(made: Compilation, source: object, warn: Warn) -> CalibrationData:
    inputs = made.float_graph.inputs
    if source is not None:
        return calibration_data.load_calibration(source, inputs)
    made.synthetic = True
    if made.options.precision == "int8" and not _fully_quantized(made.float_graph):
        warn(
            "no calibration data: ranges come from synthetic noise, and the accuracy on real inputs is not known; "
            "give about 100 real samples with --calib"
        )
    return calibration_data.load_calibration(synthetic_samples(made.float_graph, made.options), inputs)


def _kept_samples(made: Compilation) -> int:
    """How many samples test vectors, the report and verification have: fewer of a large model in plain float32."""
    options = made.options
    if options.precision != "float32" or options.weights_only:
        return KEPT_SAMPLES
    macs = sum(node.op.macs(node.signature) for node in made.float_graph.nodes)
    return int(np.clip(FLOAT_MACS // max(macs, 1), 1, KEPT_SAMPLES))


def _fully_quantized(graph: Graph) -> bool:
    """Whether the model brings the qparams of every value that needs some, so that there is nothing to calibrate."""
    adopted = graph.clone()
    for made in (AdoptQParams(), FuseEpilogues()):
        made.run(adopted, PassContext())
    return not undictated(observed_values(adopted))


def synthetic_samples(graph: Graph, options: CompileOptions) -> Batch:
    """Seeded stand-ins for data: normal noise at several contrasts, every second sample non-negative.

    An input that the model quantizes itself is uniform over what its codes hold.
    """
    rng = np.random.default_rng(options.seed)
    elements = sum(value.type.elements for value in graph.inputs)
    count = max(1, min(options.synthetic_samples, SYNTHETIC_ELEMENTS // elements))
    samples: Batch = {}
    for value in graph.inputs:
        shape = value.type.shape[1:] if value.type.shape[:1] == (1,) else value.type.shape
        contrast = np.exp2(rng.uniform(-2, 1, size=(count, *[1] * len(shape))))
        x = rng.normal(size=(count, *shape)) * contrast
        x[::2] = np.abs(x[::2])
        codes = input_codes(value)
        if codes is not None:
            x = rng.uniform(*codes.qparams.range, size=(count, *shape))
        samples[value.name] = x.astype(np.float32)
    return samples


def _first_samples(
    batches: Iterator[Mapping[str, NDArray[Any]]],
) -> tuple[Batch, Iterator[Mapping[str, NDArray[Any]]]]:
    """The first samples, for corrections, and all batches, those of these samples included."""
    head: list[Mapping[str, NDArray[Any]]] = []
    count = size = 0
    for batch in batches:
        head.append(batch)
        count += len(next(iter(batch.values())))
        size += sum(a.nbytes for a in batch.values())
        if count >= CORRECTION_SAMPLES or size >= CORRECTION_BYTES:
            break
    joined = {name: np.concatenate([b[name] for b in head])[:CORRECTION_SAMPLES] for name in head[0]}
    return joined, chain(head, batches)


def _remembering(made: Compilation, data: CalibrationData) -> Iterator[Mapping[str, NDArray[Any]]]:
    """The batches of ``data``; the first samples are kept for test vectors and for the report's accuracy."""
    for batch in data:
        if not made.samples:
            kept = _kept_samples(made)
            made.samples = {name: array[:kept].copy() for name, array in batch.items()}
        made.calibration_samples += len(next(iter(batch.values())))
        yield batch


def _statistics(options: CompileOptions, calibration: object, graph: Graph) -> GraphStatistics | None:
    """Those of the file that the options name.

    Raises QccError for a file beside data, for a damaged one, and for one of a model with other inputs.
    """
    if options.stats is None:
        return None
    if calibration is not None or options.precision != "int8":
        why = (
            f"{options.precision} needs none"
            if calibration is None
            else "they take the place of calibration data"
        )
        raise QccError(f"statistics in {options.stats} are of no use: {why}", hint="leave one of them out")
    statistics = load_statistics(options.stats)
    inputs = [v.name for v in graph.inputs]
    if sorted(statistics.sketch.batch(1)) != sorted(inputs):
        raise QccError(
            f"the statistics in {options.stats} are those of another model: its inputs are not {inputs}",
            hint="collect them again with --save-stats, for this model",
        )
    return statistics


def _model_name(source: object, graph: Graph) -> str:
    return Path(source).name if isinstance(source, str | Path) else graph.name


def _digest(source: Any) -> str:
    content = Path(source).read_bytes() if isinstance(source, str | Path) else source.SerializeToString()
    return hashlib.sha256(content).hexdigest()
