"""Commands that look inside: explain, opt, report, passes, targets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np

import qcc
from qcc import calibration_data, float_runtime, onnx_importer, report, tables
from qcc.backends.targets import describe, find_target
from qcc.cli_base import (
    calib_option,
    console,
    dump_after_option,
    dump_folder_option,
    path_type,
    plugin_option,
    print_diff,
    print_ir_diff_option,
    progress,
    shape_option,
    time_passes_option,
    tune_file_option,
    tune_option,
    verify_each_option,
    warn,
)
from qcc.driver import quantize_pipeline
from qcc.explain import explain
from qcc.ir.errors import QccError
from qcc.ir.graph import Graph
from qcc.ir.parser import load_graph
from qcc.ir.printer import print_graph, save_graph
from qcc.onnx_exporter import save_qdq
from qcc.options import CompileOptions
from qcc.passes.base import PASSES, PassContext
from qcc.passes.manager import PIPELINES, PassManager
from qcc.passes.meaning import meaning_of, sqnr
from qcc.tosa.exporter import export_tosa, save_tosa

QIR = ".qir"
SUFFIXES = {"qir": QIR, "tosa": ".mlir", "onnx": ".onnx"}  # of what opt writes


@click.command("explain")
@click.argument("model", type=path_type)
@click.argument("node")
@click.option("--target", default=CompileOptions.target, show_default=True, help="See: qcc targets.")
@calib_option
@shape_option
@tune_option
@tune_file_option
@plugin_option
def explain_command(model: Path, node: str, calib: Path | None, target: str, **choices: Any) -> None:
    """Say what every rule did with NODE of MODEL.

    Rules that applied, rules that declined and why, the kernel it got, those it was preferred to, with estimated cycles
    (and, with --tune, times), and those that refused.
    """
    with progress() as show:
        compiled = qcc.compile(model, target, calib, progress=show, warn=lambda message: None, **choices)
    console().print(tables.explanation(explain(compiled.compilation, compiled.program, node)))


@click.command("opt")
@click.argument("model", type=path_type)
@click.option(
    "--pipeline", required=True, metavar="TEXT", help='Such as "float,calibrate{observer=min-max}".'
)
@click.option("-o", "--out", type=path_type, metavar="OUT", help="Default: print the graph.")
@click.option(
    "--emit",
    type=click.Choice([*SUFFIXES]),
    default="qir",
    show_default=True,
    help="A graph as text; an integer program in MLIR's TOSA dialect; any graph as ONNX, with QDQ nodes for its integers.",
)
@calib_option
@shape_option
@plugin_option
@verify_each_option
@dump_after_option
@dump_folder_option("dumps")
@click.option(
    "--eval", "samples", type=path_type, help="Samples: print the SQNR of the result against MODEL."
)
@click.option("--notes", metavar="PASS", help="Print what a pass, or all, did and found.")
@time_passes_option
@print_ir_diff_option
def opt_command(
    model: Path, pipeline: str, out: Path | None, emit: str, calib: Path | None, shapes: dict[str, Any],
    verify_each: bool, dump_after: str | None, dump_folder: Path | None, samples: Path | None, notes: str | None,
    time_passes: bool, print_ir_diff: bool,
) -> None:  # fmt: skip
    """Run a pipeline on MODEL, an .onnx file or a .qir text."""
    if out is not None and out.suffix != SUFFIXES[emit]:
        raise click.BadParameter(f"{out}: the name must end in {SUFFIXES[emit]}", param_hint="'-o'")
    if out is None and emit == "onnx":
        raise click.BadParameter("onnx is no text: name a file with -o", param_hint="'--emit'")
    folder = (dump_folder or Path("dumps")) if dump_after else None
    with progress() as show:
        context = PassContext(progress=show, warn=warn)
        manager = PassManager(
            pipeline, context, verify_each, dump_after, folder, print_diff if print_ir_diff else None
        )
        if notes not in (None, "all", *(p.name for p in manager.passes)):
            raise click.BadParameter(f"{notes} is not in the pipeline", param_hint="'--notes'")
        graph = load_graph(model) if model.suffix == QIR else onnx_importer.import_model(model, shapes)
        reference = graph.clone() if samples is not None else graph
        if calib is not None:
            data = calibration_data.load_calibration(calib, graph.inputs)
            context.resources.update(
                calibration=data,
                calibration_samples=data.samples or 0,
                observer_factory=float_runtime.observer,
            )
        graph = manager.run(graph)
        measured = _sqnr(reference, graph, samples) if samples is not None else {}
    _write(graph, out, emit)
    if notes is not None:
        shown = [(name, n) for name, n in manager.notes() if notes in (name, "all")]
        console(stderr=True).print(tables.notes(shown))
    for name, decibels in measured.items():
        click.echo(f"{name}: {tables.decibels(decibels)} SQNR against {model.name}", err=True)
    if time_passes:
        console(stderr=True).print(tables.pass_times(manager.timings))


def _sqnr(reference: Graph, graph: Graph, samples: Path) -> dict[str, float]:
    """By output, in dB, over all samples: both graphs in the interpreter."""
    data = calibration_data.load_calibration(samples, reference.inputs)
    parts = [(meaning_of(reference, batch), meaning_of(graph, batch)) for batch in data]
    return {
        name: sqnr(*(np.concatenate([p[which][name] for p in parts]) for which in (0, 1)))
        for name in reference.output_names
    }


def _write(graph: Graph, out: Path | None, emit: str) -> None:
    if out is None:
        click.echo(print_graph(graph)[0] if emit == "qir" else export_tosa(graph), nl=False)
        return
    if emit != "qir":
        (save_tosa if emit == "tosa" else save_qdq)(graph, out)
        return
    try:
        save_graph(graph, out)
    except OSError as error:
        raise QccError(f"cannot write {out}: {error.strerror}") from error


@click.command("report")
@click.argument("out", type=path_type)
@plugin_option
def report_command(out: Path) -> None:
    """Write report.html of the library in OUT again, and print its summary.

    Both come from OUT/report.json, as they were when the library was compiled; nothing is built or measured.
    """
    found = report.rewrite(out)
    console().print(tables.summary(found, out, None, find_target(found["target"]).is_native))


@click.command("passes")
@plugin_option
def passes_command() -> None:
    """The manual of passes, their options and the named pipelines."""
    named = {**PIPELINES, "of compile, after float": quantize_pipeline(CompileOptions())}
    console().print(tables.pass_manual(PASSES.values(), named))


@click.command("targets")
@click.option("--kernels", metavar="TARGET", help="List the kernels of one target instead.")
@plugin_option
def targets_command(kernels: str | None) -> None:
    """What can be built and run on this machine."""
    shown = tables.targets(describe()) if kernels is None else tables.kernels(find_target(kernels).kernels)
    console().print(shown)
