"""Commands that look inside: opt, explain, passes, targets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

import qcc
from qcc import calibration_data, float_runtime, onnx_importer, tables
from qcc.backends.targets import describe, find_target
from qcc.cli_base import (
    calib_option,
    console,
    dump_after_option,
    dump_folder_option,
    path_type,
    plugin_option,
    progress,
    shape_option,
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
from qcc.options import CompileOptions
from qcc.passes.base import PASSES, PassContext
from qcc.passes.manager import PIPELINES, PassManager

QIR = ".qir"


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
    with progress() as report:
        compiled = qcc.compile(model, target, calib, progress=report, warn=lambda message: None, **choices)
    console().print(tables.explanation(explain(compiled.compilation, compiled.program, node)))


@click.command("opt")
@click.argument("model", type=path_type)
@click.option(
    "--pipeline", required=True, metavar="TEXT", help='Such as "float,calibrate{observer=min-max}".'
)
@click.option("-o", "--out", type=path_type, metavar="OUT.qir", help="Default: print the graph.")
@calib_option
@shape_option
@plugin_option
@verify_each_option
@dump_after_option
@dump_folder_option("dumps")
@click.option("--time-passes", is_flag=True, help="Print the time of each pass.")
def opt_command(
    model: Path, pipeline: str, out: Path | None, calib: Path | None, shapes: dict[str, Any],
    verify_each: bool, dump_after: str | None, dump_folder: Path | None, time_passes: bool,
) -> None:  # fmt: skip
    """Run a pipeline on MODEL, an .onnx file or a .qir text."""
    if out is not None and out.suffix != QIR:
        raise click.BadParameter(f"{out}: the name must end in {QIR}", param_hint="'-o'")
    folder = (dump_folder or Path("dumps")) if dump_after else None
    with progress() as report:
        context = PassContext(progress=report, warn=warn)
        manager = PassManager(pipeline, context, verify_each, dump_after, folder)
        graph = load_graph(model) if model.suffix == QIR else onnx_importer.import_model(model, shapes)
        if calib is not None:
            data = calibration_data.load_calibration(calib, graph.inputs)
            context.resources.update(
                calibration=data,
                calibration_samples=data.samples or 0,
                observer_factory=float_runtime.observer,
            )
        graph = manager.run(graph)
    _write(graph, out)
    if time_passes:
        console(stderr=True).print(tables.pass_times(manager.timings))


def _write(graph: Graph, out: Path | None) -> None:
    if out is None:
        click.echo(print_graph(graph)[0], nl=False)
        return
    try:
        save_graph(graph, out)
    except OSError as error:
        raise QccError(f"cannot write {out}: {error.strerror}") from error


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
