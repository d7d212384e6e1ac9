"""The constants of a library: C text, or a binary file that the assembler includes.

A C compiler takes a second and 50 MB for each megabyte of initializers; the assembler copies a file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from qcc.backends.c.names import c_array, c_type_of

Form = Literal["auto", "c", "binary"]
FORMS: tuple[str, ...] = get_args(Form)
TEXT_BYTES = (
    256 * 1024
)  # constants that ``auto`` still writes as C text: a quarter of a second of compilation


@dataclass(frozen=True)
class Constant:
    """One array of the library. ``comment``: safe in a C comment; ``offset``: in the binary file, aligned."""

    name: str
    comment: str
    array: NDArray[Any]
    offset: int

    @property
    def type(self) -> str:
        """The C type of an element."""
        return c_type_of(self.array)

    @property
    def count(self) -> int:
        """Elements."""
        return self.array.size

    @property
    def bytes(self) -> int:
        """Bytes of the array, padding apart."""
        return self.array.nbytes

    @property
    def lines(self) -> list[str]:
        """The lines of its initializer."""
        return c_array(self.array)


class Constants:
    """The arrays of one library in order of first use; equal ones are kept once. ``alignment``: of each."""

    def __init__(self, alignment: int) -> None:
        self.alignment = alignment
        self._found: dict[tuple[str, bytes], Constant] = {}
        self._end = 0

    def __iter__(self) -> Iterator[Constant]:
        return iter(self._found.values())

    @property
    def bytes(self) -> int:
        """Bytes of all arrays, padding apart."""
        return sum(c.bytes for c in self)

    def add(self, array: NDArray[Any], describe: Callable[[], tuple[str, str]]) -> Constant:
        """The constant that holds ``array``; ``describe``: name and comment, where it is a new one."""
        array = np.ascontiguousarray(array)
        key = array.dtype.name, hashlib.sha256(array.reshape(-1).view(np.uint8).data).digest()
        if key not in self._found:
            offset = -(-self._end // self.alignment) * self.alignment
            self._found[key] = Constant(*describe(), array, offset)
            self._end = offset + array.nbytes
        return self._found[key]

    def is_binary(self, form: Form) -> bool:
        """Whether they go into a binary file."""
        return form == "binary" or (form == "auto" and self.bytes > TEXT_BYTES)


def binary_of(constants: Iterable[Constant]) -> bytes:
    """The binary file: each array at its offset, little-endian, zeros between."""
    parts: list[bytes] = []
    end = 0
    for constant in constants:
        array = constant.array.astype(constant.array.dtype.newbyteorder("<"), copy=False)
        parts += bytes(constant.offset - end), array.tobytes()
        end = constant.offset + constant.bytes
    return b"".join(parts)
