"""Text to graph. The grammar is ``qir.lark``; what it cannot say (names, ops, types) is checked here, at its place."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from functools import cache
from importlib import resources
from math import isinf
from pathlib import Path
from re import compile as regex
from typing import Any, NoReturn

import lark
import numpy as np
from lark.lexer import PatternStr
from numpy.typing import NDArray

from qcc.ir.attributes import attribute_fields, attribute_types, convert, is_required
from qcc.ir.errors import ParseError, VerifyError
from qcc.ir.graph import STAGES, Graph, Value
from qcc.ir.location import Location, caret_excerpt
from qcc.ir.npz import load_arrays
from qcc.ir.op import OPS, Op
from qcc.ir.printer import op_prefix, shape_text, spelled
from qcc.ir.qparams import INTEGER_RANGE, QParams
from qcc.ir.types import DType, TensorType
from qcc.ir.verifier import attribute_complaint, operand_complaint, result_complaint, type_complaint

Tree = lark.Tree[lark.Token]
Arrays = Mapping[str, NDArray[Any]]
_TENSOR = regex(r"(\w+)<(scalar|\d{1,10}(?:x\d{1,10})*)>")
_DTYPES = {dtype.value: dtype for dtype in DType}
_DIGITS = 20  # no integer of the IR has more; Python refuses to read thousands
_WORDS = {
    "VALUE": "a value such as %x",
    "SYMBOL": "a name such as @net",
    "NAME": "a name",
    "OP": "an op such as nn.conv2d",
    "TENSOR": "a tensor type such as f32<1x8>",
    "STRING": "a quoted string",
    "INT": "an integer",
    "FLOAT": "a number",
    "$END": "the end of the text",
}


def load_graph(path: Path) -> Graph:
    """Read what ``save_graph`` wrote. Raises ParseError or VerifyError."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ParseError(f"cannot read the text: {error}", Location(str(path))) from error
    beside = path.with_suffix(".npz")
    return parse_graph(text, load_arrays(beside) if beside.exists() else {}, str(path))


def parse_graph(text: str, arrays: Arrays | None = None, filename: str = "<text>") -> Graph:
    """The graph that ``text`` describes; ``arrays`` are those it refers to as ``@name``.

    Every node is checked against its op; call ``verify`` for the rules of the stage. A node without ``loc``
    gets its place in the text. Raises ParseError for a text that cannot be understood, VerifyError where the
    type of a result is not what its op infers. Memory stays in proportion to the text and the arrays.
    """
    try:
        tree = _grammar().parse(text)
    except lark.UnexpectedInput as error:
        raise _syntax_error(error, text, filename) from None
    return _Reader(text, filename, arrays or {}).graph(tree)


@cache
def _grammar() -> lark.Lark:
    source = resources.files("qcc.ir").joinpath("qir.lark").read_text(encoding="utf-8")
    return lark.Lark(source, parser="lalr", propagate_positions=True, maybe_placeholders=True)


def _syntax_error(error: lark.UnexpectedInput, text: str, filename: str) -> ParseError:
    line, column = error.line, error.column
    if isinstance(error, lark.UnexpectedCharacters):
        got, names = repr(error.char), error.allowed
    else:
        assert isinstance(error, lark.UnexpectedToken)
        got, names = repr(str(error.token)), error.accepts or error.expected
        if error.token.type == "$END":  # lark places it at the last token
            got, before = "the end of the text", text.rstrip()
            line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
    location = Location(filename, line, column, excerpt=caret_excerpt(text, line, column))
    return ParseError(f"expected {_choice(names)}, got {got}", location)


def _choice(terminals: Any) -> str:
    literals = {t.name: t.pattern for t in _grammar().terminals}
    words = []
    for name in terminals:
        pattern = literals.get(name)
        words.append(repr(pattern.value) if isinstance(pattern, PatternStr) else _WORDS.get(name, name))
    *others, last = sorted(words)
    return f"{', '.join(others)} or {last}" if others else last


class _Reader:
    """Builds the graph from the syntax tree, statement by statement."""

    def __init__(self, text: str, filename: str, arrays: Arrays) -> None:
        self.text = text
        self.filename = filename
        self.arrays = arrays
        self.values: dict[str, Value] = {}
        self.lines: dict[str, int] = {}  # where each value is defined

    def fail(self, at: lark.Token | Tree, message: str, hint: str | None = None) -> NoReturn:
        raise ParseError(message, self.location(at, excerpt=True), hint)

    def location(self, at: lark.Token | Tree, excerpt: bool = False) -> Location:
        place = at if isinstance(at, lark.Token) else at.meta
        line, column = place.line or 0, place.column or 0
        return Location(
            self.filename, line, column, excerpt=caret_excerpt(self.text, line, column) if excerpt else ""
        )

    # ------------------------------------------------------------------ statements
    def graph(self, tree: Tree) -> Graph:
        children: list[Any] = tree.children
        name, stage, *statements = children
        if stage not in STAGES:
            self.fail(stage, f"unknown stage {stage}, expected one of {', '.join(STAGES)}")
        self.built = Graph(_name(name), str(stage))
        read: dict[str, Callable[..., None]] = {
            "input": self.input,
            "const": self.const,
            "node": self.node,
            "output": self.output,
        }
        for statement in statements:
            read[statement.data](*statement.children)
        return self.built

    def input(self, name: lark.Token, type_: Tree) -> None:
        self.define(name, type_, self.built.add_input(_name(name), self.tensor_type(type_)))

    def const(self, name: lark.Token, type_: Tree, content: lark.Token | Tree) -> None:
        tensor = self.tensor_type(type_)
        array = (
            self.array(content, tensor.dtype.numpy, tensor.shape)
            if isinstance(content, lark.Token)
            else self.inline(content, tensor)
        )
        self.define(name, type_, self.built.constant(array, _name(name), tensor))

    def output(self, name: lark.Token, output_name: lark.Token) -> None:
        self.built.outputs.append(self.value(name))
        self.built.output_names.append(json.loads(output_name))

    def node(
        self,
        name: lark.Token,
        op_name: lark.Token,
        operands: Tree,
        attributes: Tree | None,
        type_: Tree,
        loc: Tree | None,
    ) -> None:
        inputs = [None if t.type == "ABSENT" else self.value(t) for t in _tokens(operands)]
        tensor = self.tensor_type(type_)
        op = self.op(op_name)
        prefix = op_prefix([None if v is None else v.type for v in inputs], tensor)
        if op_name != f"{prefix}.{op.name}":
            kind = "some operands or the result are" if prefix == "q" else "no operand and no result is"
            self.fail(op_name, f"write {prefix}.{op.name} here: {kind} integer")
        complaint = operand_complaint(op, [v is not None for v in inputs])
        if complaint:
            self.fail(op_name, complaint)
        place = self.location(name) if loc is None else self.loc(loc)
        instance = op(**self.attributes(op, op_name, attributes))
        node = self.built.add_node(instance, inputs, tensor, _name(name), location=place)
        complaint = result_complaint(node)
        if complaint:
            raise VerifyError(complaint, self.location(name, excerpt=True))
        self.define(name, type_, node.output)

    # ------------------------------------------------------------------ names
    def define(self, name: lark.Token, type_: Tree, value: Value) -> None:
        """Enter ``value`` under its name, with what the text says of it beyond the type."""
        if _name(name) in self.values:  # so the graph gave this one a fresh name
            self.fail(name, f"{name} is defined twice, first in line {self.lines[_name(name)]}")
        _, range_, _, fused = type_.children
        if isinstance(range_, lark.Tree):
            low, high = (self.number(t) for t in _tokens(range_))
            value.range = (low, high)
        value.fused = fused is not None
        self.values[value.name] = value
        self.lines[value.name] = name.line or 0

    def value(self, name: lark.Token) -> Value:
        found = self.values.get(_name(name))
        if found is None:
            self.fail(name, f"{name} is not defined before its use", _near(_name(name), self.values, "%"))
        return found

    def op(self, name: lark.Token) -> type[Op]:
        prefix, _, op_name = name.partition(".")
        if prefix not in ("q", "nn") or op_name not in OPS:
            self.fail(name, f"unknown op {name}", _near(op_name, OPS, "q." if prefix == "q" else "nn."))
        return OPS[op_name]

    # ------------------------------------------------------------------ types
    def tensor_type(self, tree: Tree) -> TensorType:
        children: list[Any] = tree.children
        token, _, quantization, _ = children
        match = _TENSOR.fullmatch(token)
        if match is None or match[1] not in _DTYPES:
            known = ", ".join(_DTYPES)
            self.fail(token, f"{token} is no tensor type: expected one of {known} with a shape such as <1x8>")
        dtype = _DTYPES[match[1]]
        shape = () if match[2] == "scalar" else tuple(map(int, match[2].split("x")))
        type_ = TensorType(dtype, shape)
        complaint = type_complaint(type_)
        if complaint is None and quantization is not None:
            type_ = type_.with_qparams(self.qparams(quantization, type_))
            complaint = type_complaint(type_)
        if complaint:
            self.fail(token, complaint)
        return type_

    def qparams(self, tree: Tree, type_: TensorType) -> QParams:
        children: list[Any] = tree.children
        scale_at, zero_point, axis_at, dtype, low, high = children
        if dtype is None and not type_.dtype.is_integer:
            self.fail(tree, "qparams of a float tensor name the type they round to: q(0.5, 0, s8)")
        stored = type_.dtype.value if dtype is None else str(dtype)
        if stored not in INTEGER_RANGE:
            self.fail(dtype, f"unknown integer type {stored}, expected one of {', '.join(INTEGER_RANGE)}")
        axis = None if axis_at is None else self.integer(axis_at)
        if isinstance(scale_at, lark.Tree):
            scale = tuple(self.number(t) for t in _tokens(scale_at))
        elif scale_at.type == "SYMBOL":
            channels = type_.shape[axis] if axis is not None and 0 <= axis < type_.rank else 1
            scale = tuple(self.array(scale_at, np.dtype(np.float64), (channels,)).tolist())
        else:
            scale = (self.number(scale_at),)
        try:
            codes = None if low is None else (self.integer(low), self.integer(high))
            return QParams(scale, self.integer(zero_point), axis, stored, codes)
        except ValueError as error:
            self.fail(tree, str(error))

    # ------------------------------------------------------------------ data
    def array(self, symbol: lark.Token, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[np.generic]:
        found = self.arrays.get(_name(symbol))
        if found is None:
            hint = _near(_name(symbol), self.arrays, "@") or "arrays live in the .npz beside the text"
            self.fail(symbol, f"there is no array {symbol}", hint)
        if found.dtype != dtype or found.shape != shape:
            self.fail(symbol, f"array {symbol} is {found.dtype}{found.shape}, expected {dtype}{shape}")
        return found

    def inline(self, tree: Tree, type_: TensorType) -> NDArray[np.generic]:
        """Elements written in the text. Their number is checked before anything is allocated."""
        tokens = _tokens(tree)
        if len(tokens) != type_.elements:
            self.fail(tree, f"{shape_text(type_)} holds {type_.elements} elements, got {len(tokens)}")
        if type_.dtype.is_integer:
            low, high = type_.dtype.min, type_.dtype.max
            for token in tokens:
                if not low <= self.integer(token) <= high:
                    self.fail(token, f"{token} does not fit {type_.dtype.value}, [{low}, {high}]")
            return np.array([int(t) for t in tokens], type_.dtype.numpy).reshape(type_.shape)
        with np.errstate(over="ignore"):
            data = np.array([self.number(t) for t in tokens], np.float64).astype(np.float32)
        for token, element in zip(tokens, data, strict=True):
            if isinf(element) and "inf" not in token:
                self.fail(token, f"{token} does not fit f32")
        return data.reshape(type_.shape)

    # ------------------------------------------------------------------ attributes
    def attributes(self, op: type[Op], at: lark.Token, tree: Tree | None) -> dict[str, Any]:
        types, read = attribute_types(op), dict[str, Any]()
        pairs: list[Any] = [] if tree is None else [a.children for a in tree.find_data("attribute")]
        for name, literal in pairs:
            if name not in types:
                hint = _near(str(name), types, "") or (f"known: {', '.join(types)}" if types else None)
                self.fail(name, f"{op.name} has no attribute {name}", hint)
            if name in read:
                self.fail(name, f"attribute {name} is given twice")
            value = self.literal(literal)
            complaint = attribute_complaint(op, str(name), value)
            if complaint:
                self.fail(name, complaint)
            read[str(name)] = convert(value, types[name])
        for field in attribute_fields(op):
            if is_required(field) and field.name not in read:
                self.fail(at, f"attribute {field.name} of {op.name} is missing")
        return read

    def literal(self, at: lark.Token | Tree) -> Any:
        if isinstance(at, lark.Tree):
            return tuple(self.literal(t) for t in _tokens(at))
        if at.type == "STRING":
            return json.loads(at)
        if at.type in ("TRUE", "FALSE"):
            return at.type == "TRUE"
        return self.integer(at) if at.type == "INT" else self.number(at)

    def integer(self, token: lark.Token) -> int:
        if token.type != "INT" or len(token) > _DIGITS:
            self.fail(token, f"expected an integer of at most {_DIGITS} digits")
        return int(token)

    def number(self, token: lark.Token) -> float:
        if token.type not in ("INT", "FLOAT"):
            self.fail(token, f"expected a number, got {token}")
        value = float(token)
        if isinf(value) and "inf" not in token:
            self.fail(token, "the number is too large")
        return value

    # ------------------------------------------------------------------ locations
    def loc(self, tree: Tree) -> Location | None:
        parts: list[Any] = tree.children
        if isinstance(parts[0], lark.Token):
            return None
        file, line, column, node = "", 0, 0, ""
        for part in parts:
            if part.data == "origin":
                node = json.loads(part.children[0])
            else:
                file = json.loads(part.children[0])
                line, column = (0 if t is None else self.integer(t) for t in part.children[1:])
        return Location(file, line, column, node)


def _tokens(tree: Tree) -> list[lark.Token]:
    tokens: list[Any] = tree.children
    return tokens


def _name(token: lark.Token) -> str:
    """The name behind % or @."""
    plain = token[1:]
    return str(json.loads(plain)) if plain.startswith('"') else plain


def _near(wanted: str, known: Mapping[str, Any], prefix: str) -> str | None:
    found = get_close_matches(wanted, known, 1)
    return f"did you mean {prefix}{spelled(found[0])}?" if found else None
