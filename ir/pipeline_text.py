"""The text of pass pipelines: ``fold-constants,calibrate{observer=percentile p=99.99}``; the grammar is pipeline.lark."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from lark import Lark, Token, Tree
from lark.exceptions import UnexpectedInput, UnexpectedToken

from qcc.ir.errors import ParseError
from qcc.ir.location import Location, caret_excerpt

_PARSER = Lark(
    files("qcc.ir").joinpath("pipeline.lark").read_text(encoding="utf-8"),
    parser="lalr",
    maybe_placeholders=False,
    propagate_positions=True,
)
_BARE = re.compile(r'[^\s,{}\[\]="]+')
_EXPECTED = "write: pass,pass{option=value option=value},..."

OptionText = str | list["OptionText"]


@dataclass(frozen=True)
class Position:
    """1-based line and column in the pipeline text."""

    line: int
    column: int


@dataclass(frozen=True)
class OptionItem:
    """``name=value`` as written; a value is a word or a list of values."""

    name: str
    value: OptionText
    position: Position
    value_position: Position


@dataclass(frozen=True)
class PassItem:
    """``name{options}`` as written."""

    name: str
    options: tuple[OptionItem, ...]
    position: Position


def read_pipeline(text: str) -> list[PassItem]:
    """The items of a pipeline, names and values not yet looked up. Raises ParseError with a caret."""
    try:
        tree = _PARSER.parse(text)
    except UnexpectedInput as error:
        if isinstance(error, UnexpectedToken) and error.token.type == "$END":  # it has no position of its own
            lines = text.splitlines() or [""]
            position, found = Position(len(lines), len(lines[-1]) + 1), "the pipeline ends too early"
        else:
            position, found = Position(error.line, error.column), "this does not belong here"
        raise pipeline_error(text, position, found, _EXPECTED) from None
    return [_pass_item(child) for child in tree.children if isinstance(child, Tree)]


def _pass_item(tree: Tree[Token]) -> PassItem:
    name, *options = tree.children
    assert isinstance(name, Token)
    return PassItem(
        str(name), tuple(_option_item(o) for o in options if isinstance(o, Tree)), _position(name)
    )


def _option_item(tree: Tree[Token]) -> OptionItem:
    name, value = tree.children
    assert isinstance(name, Token)
    assert isinstance(value, Tree)
    where = Position(value.meta.line, value.meta.column)
    return OptionItem(str(name), _value(value), _position(name), where)


def _value(tree: Tree[Token]) -> OptionText:
    if tree.data == "list":
        return [_value(child) for child in tree.children if isinstance(child, Tree)]
    (token,) = tree.children
    return str(json.loads(str(token))) if tree.data == "string" else str(token)


def _position(token: Token) -> Position:
    assert token.line is not None
    assert token.column is not None
    return Position(token.line, token.column)


def pipeline_error(text: str, position: Position, message: str, hint: str | None = None) -> ParseError:
    """A ParseError that shows the line of ``text`` with a caret under ``position``."""
    excerpt = caret_excerpt(text, position.line, position.column) if text else ""
    where = Location("<pipeline>", position.line, position.column, excerpt=excerpt)
    return ParseError(message, where, hint)


def write_pass(name: str, options: Mapping[str, Any]) -> str:
    """One item of a pipeline; ``read_pipeline`` reads it back."""
    written = " ".join(f"{key}={_write_value(value)}" for key, value in options.items())
    return f"{name}{{{written}}}" if written else name


def _write_value(value: Any) -> str:
    if isinstance(value, tuple | list):
        return "[" + ", ".join(_write_value(v) for v in value) + "]"
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    if isinstance(value, float):
        return repr(value)
    text = str(value)
    return text if _BARE.fullmatch(text) else json.dumps(text)
