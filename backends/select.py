"""Selection: a graph becomes steps, and each step takes the first kernel of the table that accepts it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from qcc.backends.kernel import Kernel, Step
from qcc.ir.errors import TargetError
from qcc.ir.graph import Graph, Node, Value
from qcc.ir.ops.activation import Clamp
from qcc.ir.ops.conv import Conv2d
from qcc.ir.ops.dense import Dense
from qcc.ir.ops.quant import Requantize
from qcc.ir.ops.shape import Reshape, Transpose
from qcc.ir.ops.stored import StoredWeight

FLOAT_FUSED = ("conv2d+clamp", "dense+clamp", "add+clamp")


@dataclass(frozen=True)
class Refusal:
    """A kernel of the right pattern that could not do the step, and why."""

    kernel: Kernel
    reason: str


@dataclass(frozen=True)
class Candidate:
    """A row that can do the step: its estimated cycles (infinite without a cost model), its time where measured."""

    kernel: Kernel
    cycles: float
    microseconds: float | None = None


NARROW = "a tensor of the step has 16 bits"

Order = Callable[[Step, tuple[Candidate, ...]], tuple[Candidate, ...]]


def as_ranked(step: Step, candidates: tuple[Candidate, ...]) -> tuple[Candidate, ...]:
    """The order of ``rank``."""
    return candidates


@dataclass(frozen=True)
class Selection:
    """A step, its kernel, the candidates, best first, and the refusals of rows that would have come before the kernel."""

    step: Step
    kernel: Kernel
    refused: tuple[Refusal, ...]
    candidates: tuple[Candidate, ...]


def steps(graph: Graph, float_fused: Iterable[str] = FLOAT_FUSED) -> list[Step]:
    """Group nodes into steps, in an order in which every input is computed before it is read.

    An accumulating integer op takes its single-use s32 followers up to and including the requantize. A float op
    takes the clamp behind it where ``float_fused`` has the pattern. A node that only renames bytes
    (``is_alias``) is no step, and neither are weights that their readers decode (``is_stored_weight``).
    """
    fused = frozenset(float_fused)
    taken: set[int] = set()
    ends: dict[int, list[Node]] = {}  # by the last node of the group: there, all inputs are known
    for node in graph.nodes:
        if id(node) not in taken and not is_alias(node) and not is_stored_weight(node.output):
            group = [node, *_followers(graph, node, fused, taken)]
            taken.update(map(id, group))
            ends[id(group[-1])] = group
    return [_step(ends[id(node)]) for node in graph.nodes if id(node) in ends]


def is_alias(node: Node) -> bool:
    """True for a node whose result is its operand's bytes in the same order: a reshape, or a transpose of ones."""
    if isinstance(node.op, Reshape):
        return True
    if not isinstance(node.op, Transpose):
        return False
    moved = [axis for axis in node.op.perm if node.input(0).type.shape[axis] != 1]
    return moved == sorted(moved)


def is_stored_weight(value: Value) -> bool:
    """True for weights in codes which all their readers, dense layers and convolutions, decode themselves."""
    return (
        value.producer is not None
        and isinstance(value.producer.op, StoredWeight)
        and all(isinstance(u.op, Conv2d | Dense) and u.input(1) is value for u in value.users)
    )


def _followers(graph: Graph, root: Node, float_fused: frozenset[str], taken: set[int]) -> list[Node]:
    found: list[Node] = []
    value = root.output
    if not root.op.accumulates:
        return found
    while (user := _only_user(graph, value)) is not None and id(user) not in taken:
        if value.type.dtype.is_accumulator:
            if not (user.op.accumulates or isinstance(user.op, Requantize)):
                break
        elif found or not isinstance(user.op, Clamp) or f"{root.op.name}+clamp" not in float_fused:
            break
        found.append(user)
        value = user.output
        if isinstance(user.op, Requantize):
            break
    return found


def _only_user(graph: Graph, value: Value) -> Node | None:
    return value.users[0] if len(value.users) == 1 and not graph.is_output(value) else None


def _step(group: Sequence[Node]) -> Step:
    inner = {id(node.output) for node in group}
    inputs: dict[int, Value] = {}
    for node in group:
        for value in node.inputs:
            if value is None or value.is_constant or is_stored_weight(value):
                continue
            if id(value) not in inner:
                inputs.setdefault(id(value), value)
    return Step(group[0], tuple(group[1:]), tuple(inputs.values()), group[-1].output)


def select(graph: Graph, kernels: Sequence[Kernel], order: Order = as_ranked) -> list[Selection]:
    """A kernel for every step: the first candidate as ``order`` puts them.

    Raises TargetError for the steps that no row accepts, with all reasons.
    """
    by_pattern: dict[str, list[Kernel]] = {}
    for kernel in sorted(kernels, key=lambda k: -k.priority):
        by_pattern.setdefault(kernel.pattern, []).append(kernel)
    selections: list[Selection] = []
    failures: list[tuple[Step, str]] = []
    for step in steps(
        graph, [p for p in FLOAT_FUSED if any(k.dtype == "f32" for k in by_pattern.get(p, ()))]
    ):
        dtype = _input_dtype(step)
        rows = [k for k in by_pattern.get(step.pattern, ()) if k.dtype == dtype and _may_round(k, step)]
        candidates, refused = rank(step, rows)
        if candidates:
            candidates = order(step, candidates)
            kernel = candidates[0].kernel
            preferred = tuple(r for r in refused if r.kernel.priority >= kernel.priority)
            selections.append(Selection(step, kernel, preferred, candidates))
        else:
            reasons = "; ".join(f"{r.kernel.label}: {r.reason}" for r in refused)
            failures.append((step, reasons or f"no kernel has this pattern for {dtype}"))
    if failures:
        lines = [f"  %{step.output.name} = {step.pattern}: {reasons}" for step, reasons in failures]
        raise TargetError(
            "no kernel for {} of the model:\n{}".format(
                "1 step" if len(lines) == 1 else f"{len(lines)} steps", "\n".join(lines)
            ),
            failures[0][0].root.location,
            "an op without an integer kernel can stay in float; `qcc targets` lists the kernels of a target",
        )
    return selections


def rank(step: Step, rows: Sequence[Kernel]) -> tuple[tuple[Candidate, ...], tuple[Refusal, ...]]:
    """The rows that accept ``step``: higher priority first, then lower cost, then the order given; and the others."""
    candidates: list[Candidate] = []
    refused: list[Refusal] = []
    for kernel in rows:
        if not kernel.meant_for(step):
            continue
        reason: str | None
        if kernel.rounding != _rounding(step):
            reason = f"it rounds {kernel.rounding}"
        elif step.wide and kernel.dtype in ("s8", "s32") and not kernel.wide:
            reason = NARROW
        else:
            reason = kernel.accepts(step)
        if reason is None:
            candidates.append(Candidate(kernel, kernel.estimate(step)))
        else:
            refused.append(Refusal(kernel, reason))
    candidates.sort(key=lambda c: (-c.kernel.priority, c.cycles))
    return tuple(candidates), tuple(refused)


def _rounding(step: Step) -> str:
    """Of the requantization at the end; what every kernel does where there is none."""
    op = step.nodes[-1].op
    return op.rounding if isinstance(op, Requantize) else "ties_up"


def _may_round(kernel: Kernel, step: Step) -> bool:
    """False for the kernels that round another runtime's way where nobody asks for it."""
    return kernel.rounding in ("ties_up", _rounding(step))


def _input_dtype(step: Step) -> str:
    """Of the first operand that is no constant; of the result when all are."""
    operand = next((v for v in step.root.inputs if v is not None and not v.is_constant), step.output)
    return operand.type.dtype.value
