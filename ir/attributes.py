"""Attributes of ops as the text spells and checks them: everything follows from the annotations of the fields.

Allowed types: int, float, bool, str, and tuples of one of them (``tuple[int, ...]``, ``tuple[int, int]``).
"""

from __future__ import annotations

import json
from dataclasses import MISSING, Field, fields
from numbers import Integral, Real
from typing import Any, get_args, get_origin, get_type_hints

from qcc.ir.op import Op

_TYPES: dict[type[Op], dict[str, Any]] = {}  # evaluating annotations is slow
_WORDS = {
    int: ("an integer", "integers"),
    float: ("a number", "numbers"),
    bool: ("true or false", "of true or false"),
    str: ("a string", "strings"),
}


def attribute_types(op: type[Op]) -> dict[str, Any]:
    """The declared type of each attribute, in declaration order."""
    if op not in _TYPES:
        hints = get_type_hints(op)
        _TYPES[op] = {field.name: hints[field.name] for field in attribute_fields(op)}
    return _TYPES[op]


def attribute_fields(op: type[Op]) -> tuple[Field[Any], ...]:
    """The dataclass fields of an op."""
    return fields(op)  # type: ignore[arg-type]


def is_required(field: Field[Any]) -> bool:
    """True for an attribute without a default."""
    return field.default is MISSING


def describe_type(hint: Any) -> str:
    """A declared type in words: "a list of 2 integers"."""
    if get_origin(hint) is not tuple:
        return _WORDS[hint][0]
    args = get_args(hint)
    count = "" if args[-1] is Ellipsis else f"{len(args)} "
    return f"a list of {count}{_WORDS[args[0]][1]}"


def conforms(value: object, hint: Any) -> bool:
    """Whether ``value`` has the declared type; an integer is a number, a bool is not."""
    if get_origin(hint) is tuple:
        if not isinstance(value, tuple):
            return False
        hints = _item_types(hint, len(value))
        return len(hints) == len(value) and all(map(conforms, value, hints))
    if isinstance(value, bool) or hint is bool:
        return isinstance(value, bool) and hint is bool
    kinds: dict[Any, type] = {int: Integral, float: Real, str: str}
    return isinstance(value, kinds[hint])


def convert(value: Any, hint: Any) -> Any:
    """A conforming value as plain Python: int, float, bool, str or a tuple of them."""
    if get_origin(hint) is tuple:
        return tuple(map(convert, value, _item_types(hint, len(value))))
    return hint(value)


def format_attribute(value: Any, hint: Any) -> str:
    """The spelling of a value; one of another type is quoted, so that messages can still show it."""
    if not conforms(value, hint):
        return quoted(repr(value))
    if get_origin(hint) is tuple:
        return f"[{', '.join(map(format_attribute, value, _item_types(hint, len(value))))}]"
    if hint is bool:
        return "true" if value else "false"
    return quoted(value) if hint is str else repr(convert(value, hint))


def quoted(text: str) -> str:
    """``text`` as a JSON string; escapes everything but printable characters, so it stays on one line."""
    return json.dumps(text, ensure_ascii=not text.isprintable())


def _item_types(hint: Any, length: int) -> tuple[Any, ...]:
    args = get_args(hint)
    return (args[0],) * length if args[-1] is Ellipsis else args
