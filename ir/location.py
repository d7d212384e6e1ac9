"""Where a piece of a program comes from: a position in a text, or a node of a model."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Location:
    """A position in a text file (``file``, 1-based ``line`` and ``column``) or a named node of a model."""

    file: str = ""
    line: int = 0
    column: int = 0
    node: str = ""
    excerpt: str = ""

    def __str__(self) -> str:
        parts = []
        if self.file:
            parts.append(f"{self.file}:{self.line}:{self.column}" if self.line else self.file)
        if self.node:
            parts.append(f"node {self.node}")
        return ", ".join(parts) or "<unknown>"


def caret_excerpt(text: str, line: int, column: int) -> str:
    """The source line at 1-based ``line`` with a caret under ``column``."""
    lines = text.split("\n")  # as lark counts; splitlines would also break at form feeds and U+2028
    if not 1 <= line <= len(lines):
        return ""
    source = lines[line - 1].rstrip("\r")
    pad = "".join("\t" if c == "\t" else " " for c in source[: column - 1])
    return f"  {source}\n  {pad}^"
