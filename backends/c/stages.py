"""What the templates print of a program made for threads: the parts of its steps, and the stages these are done in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from qcc.backends.c.names import LINE, Names, c_number
from qcc.backends.kernel import Part

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


def params_lines(parts: Sequence[Part]) -> list[str]:
    """An initializer of an array of params structs: their fields in a comment, then one for each part."""
    names = ", ".join(parts[0].params)
    lines = _filled(f"/* {names} */", LINE - _FIELDS_INDENT, "   ")
    for part in parts:
        what, start, end = part.extent
        values = ", ".join(c_field(value) for value in part.params.values())
        lines += _filled(f"{{{values}}}, /* {what} {start} to {end - 1} */", LINE - _FIELDS_INDENT, " ")
    return lines


class Offsets:
    """Tables of what each part adds to a pointer, named after it; pointers that stay have none."""

    def __init__(self, scope: Names) -> None:
        self.scope = scope
        self.lines: list[str] = []

    def moved(self, pointer: str, offsets: Sequence[int], name: str) -> str:
        """The expression of ``pointer`` for a part."""
        if not any(offsets):
            return pointer
        table = self.scope.make(f"{name}_at")
        head = f"static const int32_t {table}[] = {{"
        self.lines += _filled(head + ", ".join(map(str, offsets)) + "};", LINE - 2, "    ")
        return f"{pointer} + {table}[part]"


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
