"""Which steps threads share, and which ones are done sooner by one thread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isfinite

from qcc.backends.kernel import Call, Kernel, Part, Step
from qcc.backends.split import largest_share, parts_of

# Cycles. A barrier takes 80 ns between two cores of one processor, and as much is left for parts that differ in time.
# What moves between caches is not counted: it moves too where one step among shared ones is done by one thread.
BARRIER_CYCLES = 500
RUN_CYCLES = 6000  # what a model must save in all: a run takes a moment to begin
RUN_SHARE = 0.05
WAKE_CYCLES = 150_000  # until a sleeping thread runs; the caller itself loses about a fifth of that
# Of kernels without an estimate. High rates make steps look small: they then stay on one thread.
_SCALAR_MACS_PER_CYCLE, _SCALAR_BYTES_PER_CYCLE = 8, 1
_VECTOR_MACS_PER_CYCLE, _VECTOR_BYTES_PER_CYCLE = 64, 32


@dataclass(frozen=True)
class Sharing:
    """The parts of one step, or the reason why there are none; ``cycles``: estimated, of the step on one thread."""

    parts: tuple[Part, ...] = ()
    reason: str = ""
    cycles: float = 0.0
    saved: float = 0.0


def share_work(calls: Sequence[tuple[Kernel, Step, Call]], threads: int) -> list[Sharing]:
    """One for each call. Nothing is shared where ``threads`` is 1, or all steps together save too little."""
    if threads == 1:
        return [Sharing() for _ in calls]
    sharings = [_share(*call, threads) for call in calls]
    total, saved = (sum(s.cycles for s in sharings), sum(s.saved for s in sharings))
    needed = max(RUN_CYCLES, RUN_SHARE * total)
    if saved >= needed:
        return sharings
    reason = f"the model is too small: threads would save {saved:.0f} of {total:.0f} cycles, fewer than {needed:.0f}"
    return [replace(s, parts=(), reason=reason) if s.parts else s for s in sharings]


def is_long(sharings: Sequence[Sharing]) -> bool:
    """True where threads save more than it takes to wake them."""
    return sum(s.saved for s in sharings if s.parts) > WAKE_CYCLES


def _share(kernel: Kernel, step: Step, call: Call, threads: int) -> Sharing:
    cycles = estimate(kernel, step, call)
    parts = parts_of(kernel, step, call, threads, cycles)
    if not parts:
        return Sharing((), f"{kernel.label} cannot be split here", cycles)
    saved = cycles * (1 - largest_share(parts)) - BARRIER_CYCLES
    if saved <= 0:
        return Sharing((), f"too small: about {cycles:.0f} cycles", cycles)
    return Sharing(parts, "", cycles, saved)


def estimate(kernel: Kernel, step: Step, call: Call) -> float:
    """Cycles of a call on one thread: what the kernel's cost model says, or a guess from its work."""
    cycles = kernel.estimate(step)
    if isfinite(cycles):
        return cycles
    macs = sum(node.op.macs(node.signature) for node in step.nodes)
    constants = sum(a.nbytes for a in call.constants.values() if a is not None)
    activations = sum(v.type.bytes for v in (*step.inputs, step.output))
    if kernel.symbol.endswith("_scalar"):
        return macs / _SCALAR_MACS_PER_CYCLE + activations / _SCALAR_BYTES_PER_CYCLE
    return max(macs / _VECTOR_MACS_PER_CYCLE, (activations + constants) / _VECTOR_BYTES_PER_CYCLE)
