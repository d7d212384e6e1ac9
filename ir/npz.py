"""The ``.npz`` beside a ``.qir``: bytes that depend on the arrays alone, and a reader that trusts no header."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcc.ir.errors import ParseError
from qcc.ir.location import Location


def pack_arrays(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """The bytes of an ``.npz``: stored, in the order given, every member dated 1980-01-01."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            member = zipfile.ZipInfo(f"{name}.npy")
            member.create_system = 3  # the same bytes on every system
            with archive.open(member, "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)
    return packed.getvalue()


def load_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of an ``.npz`` by name. Memory stays within the size of the file.

    Raises ParseError for a file that is no such archive, for compressed members (their size could be a lie)
    and for headers that do not fit the bytes behind them.
    """
    try:
        size = path.stat().st_size
        with zipfile.ZipFile(path) as archive:
            return {
                member.filename.removesuffix(".npy"): _read_member(archive, member, size, path)
                for member in archive.infolist()
            }
    except (OSError, EOFError, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise ParseError(f"cannot read the arrays: {error}", Location(str(path))) from error


def _read_member(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, size: int, path: Path
) -> NDArray[np.generic]:
    def refused(reason: str) -> ParseError:
        return ParseError(f"array {member.filename!r} {reason}", Location(str(path)))

    if member.compress_type != zipfile.ZIP_STORED:
        raise refused("is compressed; write the arrays with numpy.savez")
    if member.file_size > size:
        raise refused("claims to be larger than the file that holds it")
    raw = archive.read(member)
    file = io.BytesIO(raw)
    try:
        version = np.lib.format.read_magic(file)
        read = (
            np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        )
        shape, fortran, dtype = read(file)
    except ValueError as error:
        raise refused(f"has no numpy header: {error}") from error
    held = len(raw) - file.tell()
    if dtype.hasobject or any(n < 0 for n in shape) or prod(shape) * dtype.itemsize != held:
        raise refused(f"claims {dtype}{shape}, but holds {held} bytes")
    flat = np.frombuffer(raw, dtype, prod(shape), file.tell()).copy()
    return flat.reshape(shape, order="F" if fortran else "C")


def write_aside(path: Path, content: bytes) -> None:
    """Write a file so that nobody ever sees half of it."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        aside.write_bytes(content)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
