"""Command: reduce."""

from __future__ import annotations

import re
import shlex
import shutil
import tempfile
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import click

from qcc import calibration_data, float_runtime, onnx_importer
from qcc.backends.c.build import exit_status
from qcc.cli_base import calib_option, path_type, plugin_option, progress, shape_option, verify_each_option
from qcc.driver import synthetic_samples
from qcc.ir.errors import PassError, QccError, TargetError
from qcc.ir.graph import Graph
from qcc.ir.parser import load_graph
from qcc.ir.printer import save_graph
from qcc.onnx_exporter import export_float
from qcc.options import CompileOptions
from qcc.passes.base import PassContext
from qcc.passes.manager import PassManager, parse_pipeline
from qcc.passes.reduction import input_name, reduce_graph

QIR, ONNX = ".qir", ".onnx"
_IN_PASS = re.compile(r"pass \d+ \(([^)]*)\): ")
_VARIABLE = re.compile(r"[%'\"\[(@\d]")  # a word with one of these speaks of one graph


@dataclass(frozen=True)
class Failure:
    """What makes two failures the same: the class of the exception, the pass, and how the message begins."""

    kind: str
    where: str
    prefix: str

    @staticmethod
    def of(error: Exception, names: frozenset[str]) -> Failure:
        """That of what a pipeline raised; the message begins before the first word that is one of ``names``, or holds a digit."""
        kind = type(error.__cause__ if isinstance(error, PassError) and error.__cause__ else error).__name__
        message = error.message if isinstance(error, QccError) else str(error)
        found = _IN_PASS.match(message)
        rest = message[found.end() :] if found else message
        common = takewhile(lambda w: w.strip(".,:;") not in names and not _VARIABLE.search(w), rest.split())
        return Failure(kind, found[1] if found else "", " ".join(common))

    def __str__(self) -> str:
        return ": ".join(filter(None, (self.where, self.kind, self.prefix)))


@click.command("reduce")
@click.argument("model", type=path_type)
@click.option("--pipeline", metavar="TEXT", default="", help="The pipeline that fails.")
@click.option(
    "--check",
    metavar="COMMAND",
    help="A failure is a status other than 0 of this command, run without a shell; {} stands for the graph's file "
    "(default: its last argument). With --pipeline it gets the result of that.",
)
@click.option(
    "--seconds", type=click.FloatRange(min=0.1), default=60.0, show_default=True, help="For COMMAND."
)
@click.option(
    "-o", "--out", type=path_type, metavar="OUT", help="OUT.qir or OUT.onnx (default: MODEL_reduced.qir)."
)
@click.option(
    "--limit", type=click.IntRange(min=1), default=2000, show_default=True, help="Graphs to try at most."
)
@calib_option
@shape_option
@plugin_option
@verify_each_option
def reduce_command(
    model: Path, pipeline: str, check: str | None, seconds: float, out: Path | None, limit: int, calib: Path | None,
    shapes: dict[str, Any], verify_each: bool,
) -> None:  # fmt: skip
    """Find the smallest part of MODEL, an .onnx file or a .qir text, on which the same failure persists.

    The failure is what --pipeline raises, with the same class and beginning of the message, or what --check says. Outputs and
    inputs move towards each other, nodes drop out, sizes and constants shrink. Where a graph no longer has the inputs of MODEL,
    calibration takes seeded noise.
    """
    out = out or Path(f"{model.stem}_reduced{QIR}")
    if out.suffix not in (QIR, ONNX):
        raise click.BadParameter(f"{out}: the name must end in {QIR} or {ONNX}", param_hint="'-o'")
    if not pipeline and check is None:
        raise click.UsageError("say what fails: --pipeline TEXT or --check COMMAND")
    command = _command(check)
    if pipeline:
        parse_pipeline(pipeline)  # what is wrong with the text itself is no failure of the graph
    graph = load_graph(model) if model.suffix == QIR else onnx_importer.import_model(model, shapes)
    trial = _Trial(graph, pipeline, verify_each, calib, out.suffix == ONNX)
    wanted = trial.failure(graph.clone()) if command is None else None
    if command is None and wanted is None:
        raise QccError("nothing to reduce: the pipeline succeeds on the whole graph")
    with progress() as show, tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"graph{out.suffix}"

        def fails(candidate: Graph) -> bool:
            if command is not None:
                return trial.refused(candidate, command, file, seconds)
            return trial.failure(candidate) == wanted

        found = reduce_graph(graph, fails, show, limit)
    what = wanted or f"{check} fails"
    _save(found.graph, out)
    click.echo(f"{what}\n{_size(graph)} -> {_size(found.graph)} in {found.tried} tries: {out}")


def _command(check: str | None) -> list[str] | None:
    """Raises QccError for what is no command."""
    if check is None:
        return None
    try:
        command = shlex.split(check)
    except ValueError as error:
        raise QccError(f"{check!r} is no command: {error}") from None
    if not command or shutil.which(command[0]) is None:
        raise TargetError(f"{check!r} cannot be run here", hint="name a program that is installed")
    return command


@dataclass(frozen=True)
class _Trial:
    """Runs what may fail on one graph; ``as_onnx``: on what is read back from ONNX."""

    original: Graph
    pipeline: str
    verify_each: bool
    calib: Path | None
    as_onnx: bool

    def failure(self, graph: Graph) -> Failure | None:
        """Of the pipeline on ``graph``, None where it succeeds or the graph cannot be written."""
        try:
            graph = onnx_importer.import_model(export_float(graph, batch=1)) if self.as_onnx else graph
            context = self._context(graph)
        except QccError:
            return None
        try:
            PassManager(self.pipeline, context, self.verify_each).run(graph)
        except Exception as error:  # passes of the user's own: they may raise anything
            return Failure.of(error, self._names)
        return None

    def refused(self, graph: Graph, command: list[str], file: Path, seconds: float) -> bool:
        """Whether the command has a status other than 0 for ``graph``, behind the pipeline if there is one."""
        try:
            if self.pipeline:
                graph = PassManager(self.pipeline, self._context(graph), self.verify_each).run(graph)
            _save(graph, file)
        except QccError:
            return False
        given = [part.replace("{}", str(file)) for part in command]
        return exit_status(given if given != command else [*command, str(file)], seconds) != 0

    @property
    def _names(self) -> frozenset[str]:
        known = {v.name for v in self.original.values()} | set(self.original.output_names)
        return frozenset(known | {input_name(name) for name in known})

    def _context(self, graph: Graph) -> PassContext:
        of_the_model = {v.name: v.type.shape for v in self.original.inputs}
        same = {v.name: v.type.shape for v in graph.inputs} == of_the_model
        source = self.calib if same and self.calib else synthetic_samples(graph, CompileOptions())
        data = calibration_data.load_calibration(source, graph.inputs)
        found = {"calibration": data, "calibration_samples": data.samples or 0}
        return PassContext({**found, "observer_factory": float_runtime.observer})


def _save(graph: Graph, path: Path) -> None:
    try:
        if path.suffix == ONNX:
            path.write_bytes(export_float(graph, batch=1).SerializeToString())
        else:
            save_graph(graph, path)
    except OSError as error:
        raise QccError(f"cannot write {path}: {error.strerror}") from error


def _size(graph: Graph) -> str:
    elements = sum(v.type.elements for v in graph.constants())
    return f"{len(graph.nodes)} nodes, {elements} constants"
