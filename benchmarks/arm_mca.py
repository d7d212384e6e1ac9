"""Static estimates of hot loops by llvm-mca, a model of a processor's pipelines: Neoverse N1, whose core is that of a Cortex-A76.

Not measurements: memory answers at once, branches are foreseen, and models of in-order cores are not to be trusted, which
is why there is none of Cortex-A53. Of each function with vectors, the innermost loop that executes the most instructions counts.
"""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from qcc.backends.c.build import run_tool
from qcc.backends.c.image import Instruction
from qcc.ir.errors import QccError

CPU = "neoverse-n1"
LEAST_SHARE = 0.01  # of all instructions: loops that execute fewer are left out
_FEATURES = (
    "+dotprod,+i8mm"  # N1 has no i8mm: its instructions are timed as the multiplications they resemble
)
_ITERATIONS = 100
_BRANCH = re.compile(r"b\.\w+|cbn?z|tbn?z|b$")
_TARGET = re.compile(r"\b([0-9a-f]+) <[^>]*>")
_VECTOR = re.compile(r"\bv\d+\.|\bq\d+\b")
_FIGURES = {"cycles": r"Total Cycles:\s+(\d+)", "bound": r"Block RThroughput:\s+([\d.]+)"}


@dataclass(frozen=True)
class Loop:
    """One loop of a library. ``instructions``: of a usual round, without those that most rounds jump over; ``rounds``,
    ``executed``: rounds and instructions of an inference; ``cycles``: of a round, estimated; ``bound``: those that its busiest
    unit needs; ``shown``: the mnemonics of a round and how many of each."""

    function: str
    address: int
    instructions: int
    rounds: int
    executed: int
    cycles: float
    bound: float
    shown: dict[str, int]


def find_mca() -> str | None:
    """The newest llvm-mca on the path, None where there is none."""
    found = {"llvm-mca", *(f"llvm-mca-{version}" for version in range(11, 40))}
    tools = [tool for tool in found if shutil.which(tool)]
    return max(tools, key=lambda tool: int(tool.rpartition("-")[2].replace("mca", "0")), default=None)


def version_of(tool: str) -> str:
    """As the tool says it."""
    match = re.search(r"LLVM version ([\d.]+)", run_tool([tool, "--version"]))
    return match[1] if match else "unknown"


def estimate(tool: str, code: Sequence[Instruction], times: Mapping[int, int], folder: Path) -> list[Loop]:
    """The loops of a program whose instruction at an address was executed ``times[address]`` times, the busiest first.

    Raises QccError where the tool does not know an instruction.
    """
    total = sum(times.values())
    found = []
    for function, group in groupby(code, key=lambda i: i.function):
        body = hottest_loop(list(group), times)
        work = sum(times.get(i.address, 0) for i in body)
        if work < LEAST_SHARE * total or not any(_VECTOR.search(i.operands) for i in body):
            continue
        rounds = times.get(body[-1].address, 0)
        body = [i for i in body if 2 * times.get(i.address, 0) >= rounds]
        text = "\n".join(("loop:", *map(assembly, body), ""))
        file = folder / f"loop_{body[0].address:x}.s"
        file.write_text(text, encoding="ascii")
        options = (f"-mcpu={CPU}", f"-mattr={_FEATURES}", f"-iterations={_ITERATIONS}")
        answer = run_tool([tool, "-mtriple=aarch64-linux-gnu", *options, str(file)], 60)
        figures = {name: float(read(pattern, answer)) for name, pattern in _FIGURES.items()}
        shown = dict(Counter(i.mnemonic for i in body).most_common())
        cycles = figures["cycles"] / _ITERATIONS
        found.append(
            Loop(function, body[0].address, len(body), rounds, work, cycles, figures["bound"], shown)
        )
    return sorted(found, key=lambda loop: -loop.executed)


def hottest_loop(code: Sequence[Instruction], times: Mapping[int, int]) -> list[Instruction]:
    """Of the instructions of one function, those of the innermost loop that executes the most; none where there is no loop."""
    first = code[0].address
    ranges = []
    for i in code:
        target = _TARGET.search(i.operands) if _BRANCH.match(i.mnemonic) else None
        if target and first <= int(target[1], 16) <= i.address:
            ranges.append((int(target[1], 16), i.address))
    inner = [(a, b) for a, b in ranges if not any((c, d) != (a, b) and a <= c and d <= b for c, d in ranges)]
    loops = ([i for i in code if a <= i.address <= b] for a, b in inner)
    return max(loops, key=lambda body: sum(times.get(i.address, 0) for i in body), default=[])


def assembly(instruction: Instruction) -> str:
    """As an assembler reads it; a branch goes to the loop, wherever it went."""
    text = instruction.text.partition("//")[0]
    return _TARGET.sub("loop", text)


def read(pattern: str, text: str) -> str:
    """The first group. Raises QccError where ``text`` has none."""
    match = re.search(pattern, text)
    if match is None:
        raise QccError(f"llvm-mca printed no {pattern.partition(':')[0]}")
    return match[1]
