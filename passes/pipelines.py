"""Pipelines as text: the named ones, reading with options typed by each pass's fields, and writing back."""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterable
from dataclasses import MISSING, Field, fields
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from qcc.ir.pipeline_text import OptionItem, OptionText, PassItem, pipeline_error, read_pipeline, write_pass
from qcc.passes.base import PASSES, Pass

FLOAT = ",".join(
    (
        "canonicalize",
        "fold-constants",
        # before the layout pass: it leaves a mul and an add, which move through transposes freely
        "fold-batch-norm",
        "eliminate-transposes",
        # transposes moved constants and met reshapes; x + c and x * c must be normal before they are folded
        "canonicalize",
        # before fold-affine: a scale in front of a padded convolution is adjacent to it only once the pad is gone
        "fold-pad",
        "fold-affine",
        "canonicalize",
        "eliminate-dead",
    )
)

QUANTIZE = ",".join(
    (
        # what is already quantized keeps its qparams; before fuse-epilogues: such a value is rounded, so it is not fused
        "adopt-qparams",
        # before calibrate: a value that is never materialized needs no range
        "fuse-epilogues",
        "calibrate",
        "choose-qparams",
        "quantize-ops",
        # before plan-accumulators: the interval of an accumulator is that of its final bias
        "fold-zero-points",
        "plan-accumulators",
        # after plan-accumulators: which channels are constant follows from the planned multipliers
        "remove-dead-channels",
    )
)

PIPELINES: dict[str, str] = {"float": FLOAT, "quantize": QUANTIZE}
"""Named pipelines; a name may stand inside any pipeline, in the place of a pass."""


def parse_pipeline(text: str) -> list[Pass]:
    """Passes of a pipeline text, named pipelines expanded.

    Raises ParseError with a caret into the text: unknown pass or option, value of the wrong type.
    """
    found: list[Pass] = []
    for item in read_pipeline(text):
        if item.name in PIPELINES:
            if item.options:
                raise pipeline_error(
                    text,
                    item.options[0].position,
                    f"pipeline {item.name} takes no options",
                    PIPELINES[item.name],
                )
            found += parse_pipeline(PIPELINES[item.name])
        else:
            found.append(_make_pass(text, item))
    return found


def format_pipeline(passes: Iterable[Pass]) -> str:
    """The text of ``passes``, options that differ from their defaults only; parse_pipeline reads it back."""
    return ",".join(
        write_pass(p.name, {f.name: getattr(p, f.name) for f in _fields(type(p)) if not _is_default(p, f)})
        for p in passes
    )


def _fields(cls: type[Pass]) -> tuple[Field[Any], ...]:
    return fields(cls)  # type: ignore[arg-type]


def _is_default(made: Pass, field: Field[Any]) -> bool:
    default = field.default_factory() if field.default_factory is not MISSING else field.default
    return bool(getattr(made, field.name) == default)


def _make_pass(text: str, item: PassItem) -> Pass:
    cls = PASSES.get(item.name)
    if cls is None:
        known = [*PASSES, *PIPELINES]
        near = difflib.get_close_matches(item.name, known, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known)}"
        raise pipeline_error(text, item.position, f"there is no pass {item.name}", hint)
    hints = get_type_hints(cls)
    names = [f.name for f in _fields(cls)]
    options: dict[str, Any] = {}
    for option in item.options:
        if option.name not in names:
            listed = f"its options: {', '.join(names)}" if names else "it has no options"
            raise pipeline_error(
                text, option.position, f"pass {item.name} has no option {option.name}", listed
            )
        if option.name in options:
            raise pipeline_error(text, option.position, f"option {option.name} is given twice")
        options[option.name] = _convert(text, option, hints[option.name])
    for field in _fields(cls):
        required = field.default is MISSING and field.default_factory is MISSING
        if required and field.name not in options:
            raise pipeline_error(text, item.position, f"pass {item.name} needs the option {field.name}")
    try:
        return cls(**options)
    except ValueError as error:  # a value that the pass itself refuses
        raise pipeline_error(text, item.position, f"pass {item.name}: {error}") from None


def _convert(text: str, option: OptionItem, hint: Any) -> Any:
    try:
        return _typed(option.value, hint)
    except ValueError:
        message = f"option {option.name} must be {_describe(hint)}"
        raise pipeline_error(text, option.value_position, message) from None


def _typed(value: OptionText, hint: Any) -> Any:
    """``value`` as the type ``hint``; ValueError where it is none."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        for choice in arguments:
            try:
                return _typed(value, choice)
            except ValueError:
                continue
        raise ValueError
    if origin is tuple:
        if not isinstance(value, list):
            raise ValueError
        repeated = arguments[-1] is Ellipsis
        kinds = [arguments[0]] * len(value) if repeated else list(arguments)
        return tuple(_typed(v, kind) for v, kind in zip(value, kinds, strict=True))
    if isinstance(value, list):
        raise ValueError
    if origin is Literal:
        return _one_of(value, {str(a): a for a in arguments})
    if hint is bool:
        return _one_of(value, {"true": True, "false": False})
    if hint is type(None):
        return _one_of(value, {"none": None})
    assert hint in (int, float, str), f"options cannot be {hint}"
    return hint(value)


def _one_of(value: str, choices: dict[str, Any]) -> Any:
    if value not in choices:
        raise ValueError
    return choices[value]


def _describe(hint: Any) -> str:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(_describe(a) for a in arguments)
    if origin is tuple:
        if arguments[-1] is Ellipsis:
            return f"a list [...], each element {_describe(arguments[0])}"
        return "a list [" + ", ".join(_describe(a) for a in arguments) + "]"
    if origin is Literal:
        return "one of " + ", ".join(str(a) for a in arguments)
    names = {bool: "true or false", int: "an integer", float: "a number", str: "a word", type(None): "none"}
    return names[hint]
