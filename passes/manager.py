"""The pass manager: runs a pipeline, checks what each pass needs and promises, verifies, dumps, times, and collects notes."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from difflib import unified_diff
from pathlib import Path

from qcc.ir.errors import PassError, QccError
from qcc.ir.graph import Graph, Value
from qcc.ir.printer import print_graph, save_graph, spelled
from qcc.ir.verifier import verify
from qcc.passes.base import PASSES, Note, Pass, PassContext
from qcc.passes.meaning import check_exactness, meaning_of, sample_inputs
from qcc.passes.pipelines import PIPELINES, format_pipeline, parse_pipeline

__all__ = [
    "PIPELINES",
    "PROPERTIES",
    "PassManager",
    "PassRecord",
    "format_pipeline",
    "parse_pipeline",
    "run_pipeline",
]


def _materialized(graph: Graph) -> list[Value]:
    return [v for v in (*graph.inputs, *(n.output for n in graph.nodes)) if not v.fused]


PROPERTIES: dict[str, Callable[[Graph], bool]] = {
    "has_ranges": lambda graph: all(v.range is not None for v in _materialized(graph)),
    "has_qparams": lambda graph: any(v.type.qparams is not None for v in _materialized(graph)),
    "integer_only": lambda graph: all(v.type.dtype.is_integer for v in graph.values()),
    "planned": lambda graph: graph.stage == "planned",
}
"""What passes may name in ``requires`` and ``ensures``."""


@dataclass(frozen=True)
class PassRecord:
    """What one run of one pass did. ``sqnr_db``: by output name, of an approximate pass under verify_each."""

    name: str
    seconds: float
    changed: bool
    notes: tuple[Note, ...]
    sqnr_db: dict[str, float]


class PassManager:
    """Runs ``pipeline`` (text or passes) on a graph; the graph is verified before the first pass and after each.

    ``verify_each`` runs the interpreter before and after each pass, on ctx.resources["samples"] (arrays by input
    name) or on seeded random inputs, and holds the pass to its exactness. ``dump_after`` ("all" or the name of a
    pass) writes NN-pass.qir into ``dump_folder``. ``on_diff`` gets the unified diff of the text of the graph for each pass
    that changes it.
    """

    def __init__(
        self,
        pipeline: str | Iterable[Pass],
        ctx: PassContext | None = None,
        verify_each: bool = False,
        dump_after: str | None = None,
        dump_folder: Path | None = None,
        on_diff: Callable[[str], None] | None = None,
    ) -> None:
        self.passes = parse_pipeline(pipeline) if isinstance(pipeline, str) else list(pipeline)
        self.ctx = ctx or PassContext()
        self.verify_each = verify_each
        self.dump_after = dump_after
        self.dump_folder = dump_folder
        self.on_diff = on_diff
        self.records: list[PassRecord] = []
        self.last_dump: Path | None = None
        names = list(dict.fromkeys(p.name for p in self.passes))
        if dump_after not in (None, "all", *names):
            raise PassError(
                f"cannot dump after {dump_after}: it is not in the pipeline",
                hint=f"use all, or {', '.join(names)}",
            )
        if dump_after is not None and dump_folder is None:
            raise PassError("--dump-after needs a folder to write to")

    @property
    def timings(self) -> list[tuple[str, float]]:
        """(pass, seconds) in order."""
        return [(r.name, r.seconds) for r in self.records]

    def notes(self, node: str | None = None) -> list[tuple[str, Note]]:
        """(pass, note) in order, all or those about one node."""
        return [(r.name, n) for r in self.records for n in r.notes if node in (None, n.node)]

    def run(self, graph: Graph) -> Graph:
        """The result of all passes; ``graph`` itself may have changed. Raises PassError, naming the pass."""
        verify(graph)
        samples = sample_inputs(graph, self.ctx) if self.verify_each else {}
        meaning = meaning_of(graph, samples) if self.verify_each else None
        text = self._text(graph)
        for number, current in enumerate(self.passes, 1):
            start = time.perf_counter()
            try:
                check_requirements(graph, current)
                result = current.run(graph, self.ctx)
                graph = result.graph or graph
                if result.changed:
                    self.ctx.forget_analyses(current.preserves)
                graph.stage = current.result_stage or graph.stage
                check_promises(graph, current)
                verify(graph)
                seconds = time.perf_counter() - start
                after = meaning_of(graph, samples) if meaning is not None else None
                sqnr_db = check_exactness(current, meaning, after)
            except QccError as error:
                raise self._failure(current, number, error) from error
            meaning = after
            self.records.append(PassRecord(current.name, seconds, result.changed, result.notes, sqnr_db))
            self._dump(graph, current, number)
            text = self._show_diff(text, graph, current, number)
        return graph

    def _text(self, graph: Graph) -> str:
        """What is compared; constants that are too long for it show as the digest of their bytes."""
        if self.on_diff is None:
            return ""
        text, arrays = print_graph(graph)
        for name, array in arrays.items():
            digest = hashlib.sha256(array.tobytes()).hexdigest()[:8]
            text = re.sub(rf"@{re.escape(spelled(name))}(?=[\s,)])", f"@{spelled(name)}:{digest}", text)
        return text

    def _show_diff(self, before: str, graph: Graph, current: Pass, number: int) -> str:
        after = self._text(graph)
        if self.on_diff is not None and after != before:
            names = "before", f"after pass {number} ({current.name})"
            lines = unified_diff(before.splitlines(), after.splitlines(), *names, n=0, lineterm="")
            self.on_diff("\n".join(line for line in lines if not line.startswith("@@")))
        return after

    def _failure(self, current: Pass, number: int, error: QccError) -> PassError:
        message = f"pass {number} ({current.name}): {error.message}"
        if self.last_dump is not None:
            dump = f"the graph before is in {self.last_dump}"
        else:
            dump = "run again with --dump-after=all to see the graph before this pass"
        hint = f"{error.hint}\n      {dump}" if error.hint else dump
        return PassError(message, error.location, hint)

    def _dump(self, graph: Graph, current: Pass, number: int) -> None:
        if self.dump_after not in ("all", current.name):
            return
        assert self.dump_folder is not None
        self.dump_folder.mkdir(parents=True, exist_ok=True)
        self.last_dump = self.dump_folder / f"{number:02d}-{current.name}.qir"
        save_graph(graph, self.last_dump)


def check_requirements(graph: Graph, wanted: Pass) -> None:
    """Raise PassError, naming the pass that helps, where ``graph`` lacks what the pass needs."""
    if wanted.stage and graph.stage != wanted.stage:
        makers = [p.name for p in PASSES.values() if p.result_stage == wanted.stage]
        raise PassError(
            f"needs a graph of stage {wanted.stage}, this one is {graph.stage}",
            hint=f"{' or '.join(makers)} makes one" if makers else None,
        )
    for name in wanted.requires:
        if not PROPERTIES[name](graph):
            makers = [p.name for p in PASSES.values() if name in p.ensures]
            raise PassError(
                f"needs the property {name}, which the graph lacks",
                hint=f"run {' or '.join(makers)} first" if makers else None,
            )


def check_promises(graph: Graph, done: Pass) -> None:
    """Raise PassError where the pass left out what it ensures."""
    for name in done.ensures:
        if not PROPERTIES[name](graph):
            raise PassError(f"promises the property {name}, but left a graph without it")


def run_pipeline(
    graph: Graph,
    text: str | Iterable[Pass],
    ctx: PassContext | None = None,
    verify_each: bool = False,
    dump_after: str | None = None,
    dump_folder: Path | None = None,
) -> Graph:
    """The graph after a pipeline; see PassManager."""
    return PassManager(text, ctx, verify_each, dump_after, dump_folder).run(graph)
