"""Kernel rows: how a target says which C function computes which step, and with what data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from qcc.ir.graph import Node, Value
from qcc.ir.types import DType


@dataclass(frozen=True)
class Step:
    """What one kernel call computes: ``root`` and the nodes fused behind it, in order.

    ``inputs``: materialized, non-constant values read; ``output``: the value written.
    An integer accumulating root is followed by [add with a skip], then requantize. A float root may be followed by a clamp.
    """

    root: Node
    fused: tuple[Node, ...]
    inputs: tuple[Value, ...]
    output: Value

    @property
    def nodes(self) -> tuple[Node, ...]:
        """Root and fused nodes."""
        return (self.root, *self.fused)

    @property
    def wide(self) -> bool:
        """Whether an input or the output has 16 bits, or is a sum of such."""
        return any(v.type.dtype in (DType.S16, DType.S64) for v in (*self.inputs, self.output))

    @property
    def pattern(self) -> str:
        """Op names joined, such as ``conv2d+add+requantize``."""
        return "+".join(n.op.name for n in self.nodes)


@dataclass(frozen=True)
class Call:
    """A kernel applied to a step: what emission prints.

    ``params``: fields of the C params struct in declaration order (int, float, or sequences of them for array
    fields); ``constants``: arrays (weights, bias, multipliers, tables) in the order of the C signature, with their C
    parameter names, None for NULL; ``inputs``: the pointers passed, None for NULL (default: ``step.inputs``);
    ``workspace_bytes``: scratch memory in the arena, passed as the last argument (``void *``) when it is not 0.
    """

    params: Mapping[str, int | float | Sequence[int]]
    constants: Mapping[str, NDArray[Any] | None] = field(default_factory=dict)
    workspace_bytes: int = 0
    inputs: tuple[Value | None, ...] | None = None


@dataclass(frozen=True)
class Part:
    """What one thread computes of a call: the same kernel with other ``params`` and pointers moved on.

    ``inputs``, ``output``: elements by which the pointers of ``Call.inputs`` and the output move; ``constants``: those by
    which constants move, by name (absent: 0); ``extent``: what is computed, such as ("rows", 0, 28). The parts of a call
    write disjoint elements, together all of them, and a part needs no larger workspace than the call.
    """

    params: Mapping[str, int | float | Sequence[int]]
    inputs: tuple[int, ...]
    output: int
    constants: Mapping[str, int]
    extent: tuple[str, int, int]

    @property
    def size(self) -> int:
        """Rows, pixels, channels or elements it computes."""
        return self.extent[2] - self.extent[1]


# Ranges of an extent, that begin at multiples of a grain.
Cut = Callable[[int, int], list[tuple[int, int]]]
Split = Callable[[Step, Call, Cut], tuple[Part, ...]]  # no parts where it cannot be


@dataclass(frozen=True)
class Kernel:
    """One row of a target's kernel table.

    ``pattern``: the step pattern it computes (``Step.pattern``); ``dtype``: dtype of input 0 (``s8``, ``f32``);
    ``symbol``: the C function; ``params_type``: its params struct; ``source``: its C file; ``accepts`` returns None,
    or the reason why this kernel cannot do the step; ``lower`` makes the call (packs weights); ``priority``: higher
    wins; ``cost``: estimated clock cycles of an accepted step on one core, the cheapest row of one priority wins, and a
    row without an estimate comes behind those with one; ``variant``: tells rows of one symbol apart (its register tile);
    ``in_place``: the output may overwrite input 0, or (as a tuple) any of these arguments of ``Call.inputs``, when
    it needs no more bytes; ``variadic``: the inputs are passed as one argument, an array of ``const void *`` (the params
    say how many); ``split``: how threads share a call, by default what backends/split.py has for ``params_type``;
    ``channel_block``: output channels in a block of the packed constants, of which each array has equal shares for every
    channel up to the size of ``bias``; 0 where threads cannot share the channels; ``uses_float``: the source of a kernel
    for integers computes with floating-point numbers, as those do that requantize in float32; ``rounding``: of its
    requantization;
    ``wide``: a row of dtype ``s8`` or ``s32`` that also takes steps with other tensors of 16 bits; ``meant_for``: False for
    steps that the row has nothing to do with, where it is not even refused;
    ``is_generated``: there is no C function: ``Target.generate`` writes one for each step, which takes pointers only
    (inputs, constants, output, workspace); ``source`` is where it says how.
    """

    pattern: str
    dtype: str
    symbol: str
    params_type: str
    source: Path
    lower: Callable[[Step], Call]
    accepts: Callable[[Step], str | None] = lambda step: None
    priority: int = 0
    cost: Callable[[Step], float] | None = None
    variant: str = ""
    in_place: bool | tuple[int, ...] = False
    variadic: bool = False
    split: Split | None = None
    channel_block: int = 0
    uses_float: bool = False
    rounding: str = "ties_up"
    wide: bool = False
    meant_for: Callable[[Step], bool] = lambda step: True
    is_generated: bool = False

    @property
    def label(self) -> str:
        """The symbol, and the variant where there is one: ``qcc_s8_conv2d_avx512vnni[6x64]``."""
        return f"{self.symbol}[{self.variant}]" if self.variant else self.symbol

    def estimate(self, step: Step) -> float:
        """Cycles of ``step``, infinite without a cost model."""
        return inf if self.cost is None else self.cost(step)

    @property
    def overwritable(self) -> tuple[int, ...]:
        """Indices of the inputs that the output may overwrite."""
        if isinstance(self.in_place, tuple):
            return self.in_place
        return (0,) if self.in_place else ()
