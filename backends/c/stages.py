"""What the templates print of calls in parts: for threads, with the stages these are done in, and for bands of rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from qcc.backends.c.names import LINE, Names, c_number
from qcc.backends.kernel import Part
from qcc.backends.stream import Banded

_FIELDS_INDENT = 6


@dataclass
class Stage:
    """What threads do before they wait for each other: one step in parts, or steps that one of them does alone.

    ``lines``: C statements of part ``part``; ``first``: what part 0 does before them.
    """

    parts: int
    lines: list[str] = field(default_factory=list)
    first: list[str] = field(default_factory=list)


def stages(steps: Iterable[tuple[int, str, str]], copies: Sequence[str]) -> list[Stage]:
    """The stages of ``steps`` (number of parts, 0 for one thread; invocation; what follows the whole step), in order.

    What follows a step in parts is done by one thread, when the parts are done: at the beginning of the next stage.
    Steps on one thread hold theirs within. ``copies`` end the last stage.
    """
    found: list[Stage] = []
    pending: list[str] = []
    for parts, invocation, after in steps:
        if parts or not found or found[-1].parts > 1:
            found.append(Stage(parts or 1, first=pending))
        found[-1].lines.append(invocation)
        pending = [after] if parts else []
    if pending:
        found.append(Stage(1, first=pending))
    if copies:
        found[-1].lines += copies
    return found


def params_lines(parts: Sequence[Part], comments: Sequence[str] | None = None) -> list[str]:
    """An initializer of an array of params structs: their fields in a comment, then one for each part.

    ``comments``: behind each; by default, what the part computes.
    """
    names = ", ".join(parts[0].params)
    lines = _filled(f"/* {names} */", LINE - _FIELDS_INDENT, "   ")
    for comment, part in zip(comments or [_extent(part) for part in parts], parts, strict=True):
        values = ", ".join(c_field(value) for value in part.params.values())
        lines += _filled(f"{{{values}}}, /* {comment} */", LINE - _FIELDS_INDENT, " ")
    return lines


def _extent(part: Part) -> str:
    what, start, end = part.extent
    return f"{what} {start} to {end - 1}"


class Offsets:
    """Tables of what each part adds to a pointer, named after it; pointers that stay have none.

    ``index``: the C variable that tells parts apart; ``used``: whether there is such a part (default: all).
    """

    def __init__(self, scope: Names, index: str = "part", used: Sequence[bool] | None = None) -> None:
        self.scope, self.index, self.used = scope, index, used
        self.lines: list[str] = []

    def moved(self, pointer: str, offsets: Sequence[int], name: str) -> str:
        """The expression of ``pointer`` for a part."""
        used = self.used or [True] * len(offsets)
        offset = self.number([o if u else None for o, u in zip(offsets, used, strict=True)], f"{name}_at")
        return pointer if offset == "0" else f"{pointer} + {offset}"

    def number(self, numbers: Sequence[int | None], name: str) -> str:
        """The expression of one number for each part, None where it does not matter."""
        known = [(i, n) for i, n in enumerate(numbers) if n is not None]
        values = {n for _, n in known}
        if len(values) <= 1:
            return str(values.pop() if values else 0)
        each = known[-1][1] // known[-1][0]
        if self.index == "band" and all(n == i * each for i, n in known):
            return "band" if each == 1 else f"band * {each}"
        table, last, filled = self.scope.make(name), known[0][1], []
        for number in numbers:
            last = last if number is None else number
            filled.append(last)
        c_type = "int32_t" if self.index == "part" else _narrowest(filled)
        head = f"static const {c_type} {table}[] = {{"
        self.lines += _filled(head + ", ".join(map(str, filled)) + "};", LINE - 2, "    ")
        return f"{table}[{self.index}]"


def _narrowest(numbers: Sequence[int]) -> str:
    """The C type of a table."""
    if min(numbers) < 0:
        return "int8_t" if max(numbers) < 128 else "int32_t"
    return next((f"uint{bits}_t" for bits in (8, 16) if max(numbers) < 1 << bits), "int32_t")


class BandedCall:
    """A step in bands: ``parts``, one for each band; that of a band without rows means nothing.

    ``params``: the expression of the params of a band; ``params_lines``: their table, equal ones once; ``before``: C
    statements before the call; ``offsets``: of the pointers.
    """

    def __init__(self, banded: Banded, scope: Names) -> None:
        known = [part for part in banded.parts if part is not None]
        self.parts = [part or known[0] for part in banded.parts]
        used = [part is not None for part in banded.parts]
        self.offsets = Offsets(scope, "band", used)
        bands: dict[str, list[int]] = {}
        for band, part in enumerate(banded.parts):
            if part is not None:
                bands.setdefault(repr(part.params), []).append(band)
        order = list(bands)
        comments = [f"band{'s' if len(found) > 1 else ''} {_spans(found)}" for found in bands.values()]
        self.params_lines = params_lines([self.parts[found[0]] for found in bands.values()], comments)
        each = [-1 if part is None else order.index(repr(part.params)) for part in banded.parts]
        variant = self.offsets.number(each, "variant")
        self.params = "params" if variant == "0" else f"&params[{variant}]"
        self.before = [f"if ({variant} < 0) {{", "  return; /* no rows */", "}"] if -1 in each else []
        if any(kept for _, kept in banded.moves):
            dropped = self.offsets.number([move[0] if move[1] else None for move in banded.moves], "dropped")
            kept = self.offsets.number(
                [move[1] if u else None for move, u in zip(banded.moves, used, strict=True)], "kept"
            )
            self.before.append(f"keep_rows(output, {dropped}, {kept});")


def _spans(numbers: Sequence[int]) -> str:
    """``0, 2 to 5``."""
    found: list[list[int]] = []
    for number in numbers:
        if found and found[-1][1] == number - 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return ", ".join(f"{a}" if a == b else f"{a} to {b}" for a, b in found)


def c_field(value: int | float | Sequence[int]) -> str:
    """The initializer of one field of a params struct."""
    if isinstance(value, Sequence):
        return "{" + ", ".join(c_number(v) for v in value) + "}"
    return c_number(value)


def _filled(text: str, width: int, indent: str) -> list[str]:
    """Words in lines of at most ``width`` characters."""
    lines = [""]
    for word in text.split(" "):
        if lines[-1].strip() and len(lines[-1]) + 1 + len(word) > width:
            lines.append(indent + word)
        else:
            lines[-1] += (" " if lines[-1].strip() else "") + word
    return lines
