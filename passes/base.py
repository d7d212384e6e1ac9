"""What a pass is: options as fields, a stage contract, and notes on every rule that applied or declined."""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypeVar, dataclass_transform

from qcc.ir.graph import Graph

Exactness = Literal["exact", "float-exact", "approximate"]
Found = TypeVar("Found")


@dataclass(frozen=True)
class Note:
    """One decision of a pass: ``rule`` on ``node`` applied, or declined because of ``reason``."""

    node: str
    rule: str
    applied: bool
    reason: str = ""


@dataclass(frozen=True)
class PassResult:
    """Whether the graph changed, and the decisions taken; ``graph`` is set by a pass that builds a new one."""

    changed: bool
    notes: tuple[Note, ...] = ()
    graph: Graph | None = None


@dataclass
class PassContext:
    """What the driver lends to passes: calibration batches, a float runtime, a place for reports, progress.

    ``resources`` is keyed by name; a pass that needs one that is absent fails with a PassError naming it.
    """

    resources: dict[str, Any] = field(default_factory=dict)
    progress: Callable[[str, int, int], None] = lambda what, done, total: None
    warn: Callable[[str], None] = lambda message: None
    _analyses: dict[Callable[[Graph], Any], tuple[Graph, Any]] = field(default_factory=dict)

    def analysis(self, compute: Callable[[Graph], Found], graph: Graph) -> Found:
        """``compute(graph)``, once: the pass manager forgets it behind a pass that changed the graph and does not preserve it.

        ``compute``: a function of a module, which is the key. A pass that changes the graph while it runs and asks again calls
        ``forget_analyses`` in between.
        """
        known = self._analyses.get(compute)
        if known is None or known[0] is not graph:
            known = self._analyses[compute] = graph, compute(graph)
        found: Found = known[1]
        return found

    def forget_analyses(self, preserved: Container[Callable[[Graph], Any]] = ()) -> None:
        """The graph changed: of what was computed from it only ``preserved`` holds."""
        self._analyses = {c: known for c, known in self._analyses.items() if c in preserved}


class Pass:
    """Base of all passes. Subclasses are frozen dataclasses made by ``register_pass``.

    ``stage``: the graph stage it needs ("" for any); ``result_stage``: the stage it leaves ("" for the same);
    ``requires`` / ``ensures``: names of properties (``qcc.passes.manager.PROPERTIES``); ``exactness``: what it
    may do to results: the same bits, the same up to float reassociation, or approximate; ``preserves``: the analyses
    (functions given to ``ctx.analysis``) that hold behind the pass although it changed the graph in place.
    """

    name: ClassVar[str]
    stage: ClassVar[str] = ""
    result_stage: ClassVar[str] = ""
    requires: ClassVar[tuple[str, ...]] = ()
    ensures: ClassVar[tuple[str, ...]] = ()
    exactness: ClassVar[Exactness] = "exact"
    preserves: ClassVar[tuple[Callable[[Graph], Any], ...]] = ()

    def run(self, graph: Graph, ctx: PassContext) -> PassResult:
        """Transform ``graph`` in place (or return a new one in the result)."""
        raise NotImplementedError


PASSES: dict[str, type[Pass]] = {}
PassT = TypeVar("PassT", bound=Pass)


@dataclass_transform(frozen_default=True)
def register_pass(cls: type[PassT]) -> type[PassT]:
    """Class decorator: make the pass a frozen dataclass and enter it in PASSES."""
    made = dataclass(frozen=True)(cls)
    if made.run is Pass.run:
        raise TypeError(f"pass {made.name} does not define run")
    if made.name in PASSES:
        raise TypeError(f"pass {made.name} is declared twice")
    PASSES[made.name] = made
    return made
