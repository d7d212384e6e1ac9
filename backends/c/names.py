"""Names and texts of a model as C wants them: nothing of a model reaches a C file but through this module."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

LINE = 110
_LONGEST_NAME = 40
_FOLDER = 16  # characters of a folder of names up to which it stays in comments
_SHARED = 0.75  # share of names from which on a leading part says nothing
_WORDS = """
alignas alignof and and_eq asm auto bitand bitor bool break case catch char char16_t char32_t char8_t class co_await
co_return co_yield compl concept const const_cast consteval constexpr constinit continue decltype default delete do
double dynamic_cast else enum errno explicit export extern false float for friend goto if inline int int16_t int32_t
int64_t int8_t long main mutable namespace new noexcept not not_eq nullptr operator or or_eq private protected public
register reinterpret_cast requires restrict return short signed size_t sizeof static static_assert static_cast struct
switch template this thread_local throw true try typedef typeid typename typeof uint16_t uint32_t uint64_t uint8_t
union unsigned using virtual void volatile wchar_t while xor xor_eq NULL
"""
_KEYWORDS = frozenset(_WORDS.split())
# Files and symbols of qcc's own, and headers of C: a model of that name would replace or hide them.
_RESERVED_WORDS = """
at batch_main cmakelists copy_bytes report step test_main
assert complex ctype errno fenv float inttypes iso646 limits locale math setjmp signal stdalign stdarg stdatomic stdbool
stddef stdint stdio stdlib stdnoreturn string tgmath threads time uchar wchar wctype
alloca elf endian features link malloc memory poll regex sched search strings termios unistd
"""
_RESERVED = frozenset(_RESERVED_WORDS.split())


class Names:
    """Identifiers of one C scope: every wanted text gets its own, the same one each time the model is compiled."""

    def __init__(self, prefix: str = "") -> None:
        self.prefix = prefix
        self._taken: set[str] = set()

    def make(self, wanted: str) -> str:
        """An identifier like ``wanted`` that this scope does not have yet."""
        base = self.prefix + c_identifier(wanted)
        name, count = base, 1
        while name.lower() in self._taken:
            count += 1
            name = f"{base}_{count}"
        self._taken.add(name.lower())
        return name


def c_identifier(name: str) -> str:
    """``name`` as a C and C++ identifier: ASCII letters, digits and single underscores, no keyword.

    Of a path only the last parts that fit are kept: they tell tensors apart.
    """
    text = re.sub(r"[^0-9A-Za-z]+", "_", name).strip("_")
    text = text[-_LONGEST_NAME:].strip("_") if len(text) > _LONGEST_NAME else text
    if not text or text[0].isdigit() or text in _KEYWORDS:
        text = f"t_{text}".rstrip("_")
    return text


def short_names(names: Sequence[str]) -> dict[str, str]:
    """Tensor names without what nearly all of them begin with, such as ``model/functional_1/``, and without ``:0``.

    Of a list of fused names (``a;b``) the first one is kept. Several names may become the same: ``Names`` tells
    them apart.
    """
    parts = {name: re.split(r"[/.]+", re.sub(r":0$", "", name.partition(";")[0])) for name in names}
    while True:
        heads = [p[0] for p in parts.values() if len(p) > 1]
        common = max(dict.fromkeys(heads), key=heads.count, default="")
        if len(parts) < 3 or heads.count(common) < _SHARED * len(parts):
            return {name: "_".join(p) for name, p in parts.items()}
        parts = {name: p[1:] if len(p) > 1 and p[0] == common else p for name, p in parts.items()}


def common_folder(names: Sequence[str]) -> str:
    """What most of the names begin with, up to a slash; empty where that is not worth an abbreviation."""
    folders = [name[: match.end()] for name in names for match in re.finditer("/", name)]
    found = max(dict.fromkeys(folders), key=lambda f: folders.count(f) * len(f), default="")
    often = folders.count(found) >= max(3, len(names) / 2)
    return found if often and len(found) > _FOLDER else ""


def library_name(text: str, taken: Collection[str] = ()) -> str:
    """The name of the C library of a model called ``text``: in lower case, and not that of another file beside it.

    ``taken``: names of the kernels' files, without suffix.
    """
    name = c_identifier(text).lower()
    return f"model_{name}" if name.startswith("qcc") or name in _RESERVED or name in taken else name


def c_comment(text: str) -> str:
    """``text`` fit for a C comment of one line: it cannot end the comment, nor the line, nor be a trigraph."""
    printable = "".join(c if " " <= c <= "~" else c.encode("unicode_escape").decode("ascii") for c in text)
    safe = printable.replace("*/", "* /").replace("/*", "/ *").replace("??", "? ?")
    return safe.rstrip("\\") + " (backslash)" if safe.endswith("\\") else safe


def c_number(value: int | float) -> str:
    """A literal of an int32 or float32 value; floats are exact, in hexadecimal."""
    if isinstance(value, (bool, int, np.integer)):
        return "(-2147483647 - 1)" if value == -(2**31) else str(int(value))
    number = float(np.float32(value))
    if np.isnan(number):
        return "QCC_NAN"
    if np.isinf(number):
        return "QCC_INFINITY" if number > 0 else "-QCC_INFINITY"
    return f"{_short_hex(number)}f"


def _short_hex(number: float) -> str:
    mantissa, exponent = number.hex().split("p")
    return f"{mantissa.rstrip('0').rstrip('.') if '.' in mantissa else mantissa}p{exponent}"


def c_array(array: NDArray[Any]) -> list[str]:
    """The lines of a brace-enclosed initializer, without the braces."""
    flat = array.reshape(-1)
    if flat.dtype.kind == "f" or flat.dtype == np.int32:
        words = [c_number(v) for v in flat.tolist()]
    else:
        words = [str(v) for v in flat.tolist()]
    return _lines(words)


def _lines(words: Sequence[str]) -> list[str]:
    longest = max(map(len, words), default=1)
    per_line = max(1, (LINE - 2) // (longest + 2))
    return [", ".join(words[i : i + per_line]) + "," for i in range(0, len(words), per_line)]


C_TYPES = {
    "s8": "int8_t",
    "u8": "uint8_t",
    "s16": "int16_t",
    "s32": "int32_t",
    "s64": "int64_t",
    "f32": "float",
}
"""C type by spelling of the element type."""


def c_type_of(array: NDArray[Any]) -> str:
    """The C type of a constant array's elements."""
    return {
        "int8": "int8_t",
        "uint8": "uint8_t",
        "int16": "int16_t",
        "uint16": "uint16_t",
        "int32": "int32_t",
        "uint32": "uint32_t",
        "int64": "int64_t",
        "float32": "float",
    }[array.dtype.name]
