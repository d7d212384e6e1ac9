"""A library that was saved earlier: its record, its graphs, and how to build it again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qcc.api import FLOAT_FILE, GRAPH_FOLDER, PLANNED_FILE
from qcc.backends.c import run
from qcc.backends.c.emit import find_record
from qcc.backends.target import Target
from qcc.backends.targets import Availability, availability, find_target
from qcc.ir.errors import QccError
from qcc.ir.graph import Graph
from qcc.ir.parser import load_graph


@dataclass(frozen=True)
class SavedLibrary:
    """What ``CompiledModel.save`` wrote. ``record``: NAME.json (see ``metadata_of``); ``planned``: None for float32."""

    folder: Path
    record: Mapping[str, Any]
    target: Target
    float_graph: Graph
    planned: Graph | None

    @property
    def graph(self) -> Graph:
        """The graph the library computes."""
        return self.planned if self.planned is not None else self.float_graph

    @property
    def float_boundary(self) -> bool:
        """True where the library takes and gives float32."""
        return bool(self.record["options"].get("io") == "float")

    def build(self) -> run.Compiled:
        """Compile for the target, into the folder's ``build``. Raises TargetError when that fails here."""
        require_runnable(availability(self.target))
        return run.load(self.folder, self.target)

    def build_timed(self) -> run.TimedLibrary:
        """The same with a clock behind each step."""
        require_runnable(availability(self.target))
        return run.load_timed(self.folder, self.target)


def open_saved(folder: Path) -> SavedLibrary:
    """Read the library in ``folder``. Raises QccError where it is not whole."""
    record = find_record(folder) if folder.is_dir() else None
    graphs = folder / GRAPH_FOLDER
    if record is None or not (graphs / FLOAT_FILE).is_file():
        what = "does not exist" if not folder.exists() else "is no library written by qcc compile"
        raise QccError(f"{folder} {what}", hint="name the folder that was given to qcc compile -o")
    meta = json.loads(record.read_text(encoding="utf-8"))
    planned = graphs / PLANNED_FILE
    return SavedLibrary(
        folder,
        meta,
        find_target(meta["target"]),
        load_graph(graphs / FLOAT_FILE),
        load_graph(planned) if planned.is_file() else None,
    )


def require_runnable(found: Availability) -> None:
    """Raise QccError where programs of the target cannot be built and run here."""
    run.require_instructions(found.target)
    if not found.runs:
        does = "run" if found.builds else "be built"
        raise QccError(
            f"libraries for target {found.target.name} cannot {does} here", hint="; ".join(found.missing)
        )
