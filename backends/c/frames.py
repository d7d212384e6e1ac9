"""Stack of functions that come compiled, such as those of a compiler's run-time library, from their Arm instructions.

-fstack-usage tells nothing of them. They are hand-written or small: what all their pushes take together, wherever they are,
is at least what they have on the stack at any time, if no push is in a loop.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

_LIST = re.compile(r"\{(.*)\}")
_DOWN = re.compile(r"\[sp, #-(\d+)\]!$")
_SUBTRACTED = re.compile(r"^sp, (?:sp, )?#(\d+)")
_PLACE = re.compile(r"\b([0-9a-f]+) <([^>+-]+)")
_BRANCH = re.compile(r"^(b|cb|tb|le$|wls|dls)")
_END = re.compile(r"^(b|b\.n|b\.w|bx|bx\.n|udf)$")
_FILLER = re.compile(r"^(nop|movs? r\d+, r\d+$)")


@dataclass(frozen=True)
class Instruction:
    """One of an image: where, in which function, and what."""

    address: int
    function: str
    mnemonic: str
    operands: str

    @property
    def text(self) -> str:
        """As it is written in assembly."""
        return f"{self.mnemonic} {self.operands}".strip()


@dataclass(frozen=True)
class Frame:
    """``bytes`` of stack at most, -1 where there is no bound; ``entered``: functions called, jumped to, or run into."""

    bytes: int
    entered: frozenset[str]


def compiled_frames(code: Iterable[Instruction], measured: Iterable[str]) -> dict[str, Frame]:
    """The functions of ``code`` that ``measured`` does not name, by name. Labels within a function count as functions."""
    blocks = [(name, list(block)) for name, block in groupby(code, key=lambda i: i.function)]
    known = set(measured)
    found = {}
    for (name, block), (following, _) in pairwise([*blocks, ("", [])]):
        if name not in known:
            entered = {place[2] for i in block if (place := _PLACE.search(i.operands))} - {name}
            if _runs_on(block) and following:
                entered.add(following)
            found[name] = Frame(_pushed(block), frozenset(entered))
    return found


def merge_loops(frames: Mapping[str, Frame]) -> dict[str, Frame]:
    """Functions that jump to and fro are one: without a bound if they push anything, as a push may come again."""

    def reached(name: str) -> set[str]:
        seen: set[str] = set()
        pending = [name]
        while pending:
            for other in frames[pending.pop()].entered:
                if other in frames and other not in seen:
                    seen.add(other)
                    pending.append(other)
        return seen

    below = {name: reached(name) for name in frames}
    merged = {}
    for name, frame in frames.items():
        loop = {other for other in below[name] if name in below[other]}
        if loop:
            entered = frozenset().union(*(frames[other].entered for other in loop)) - loop
            size = 0 if all(frames[other].bytes == 0 for other in loop) else -1
            frame = Frame(size, entered)
        merged[name] = frame
    return merged


def _pushed(block: Sequence[Instruction]) -> int:
    """What all pushes take; -1 where one is in a loop, or the stack pointer is set to what is not known here."""
    loops = [
        (int(place[1], 16), i.address)
        for i in block
        if _BRANCH.match(i.mnemonic) and not i.mnemonic.startswith("bl")
        if (place := _PLACE.search(i.operands)) and int(place[1], 16) <= i.address
    ]
    total = 0
    for i in block:
        size = _size(i)
        if size < 0 or (size and any(first <= i.address <= last for first, last in loops)):
            return -1
        total += size
    return total


def _size(i: Instruction) -> int:
    """Bytes by which an instruction lowers the stack pointer; 0 where it raises it or leaves it alone."""
    listed = _LIST.search(i.operands)
    if listed and (i.mnemonic.startswith(("push", "vpush")) or i.operands.startswith("sp!, {")):
        down = i.mnemonic.startswith(("push", "vpush", "stmdb", "stmfd", "vstmdb"))
        return sum(map(_register_bytes, listed[1].split(", "))) if down else 0
    if down_by := _DOWN.search(i.operands):
        return int(down_by[1])
    if i.mnemonic.startswith("sub") and (subtracted := _SUBTRACTED.match(i.operands)):
        return int(subtracted[1])
    sets = re.match(r"^sp, ", i.operands) and not re.match(r"^(cmp|cmn|tst)", i.mnemonic)
    return -1 if sets and not re.match(r"^sp, (sp, )?#", i.operands) else 0


def _register_bytes(text: str) -> int:
    """Of one register or a range of them, such as d8-d15."""
    first, _, last = text.partition("-")
    count = int(last[1:]) - int(first[1:]) + 1 if last else 1
    return count * (8 if first.startswith("d") else 4)


def _runs_on(block: Sequence[Instruction]) -> bool:
    """True where the last instruction does not end the function."""
    for i in reversed(block):
        text = f"{i.mnemonic} {i.operands}"
        if not _FILLER.match(text):
            return not (_END.match(i.mnemonic) or re.search(r"^(pop|ldm).*\bpc\b|^(ldr|mov)\S* pc,", text))
    return True
