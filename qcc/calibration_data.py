"""Calibration data: files, folders, arrays or streams as checked float32 batches."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcc.ir.errors import QccError
from qcc.ir.graph import Value
from qcc.ir.ops.fake_quant import FakeQuant, input_codes
from qcc.ir.types import TensorType

Array = NDArray[Any]
Batch = dict[str, NDArray[np.float32]]

LABEL_KEYS = ("labels", "label", "y", "targets", "target")
_IGNORED_KEYS = (*LABEL_KEYS, "idx", "index")
_UNNAMED_KEYS = ("x", "arr_0", "data")
_BATCH = 32
_READ_ERRORS = (OSError, ValueError, EOFError, KeyError, MemoryError, NotImplementedError)
_ARCHIVE_ERRORS = (zipfile.BadZipFile, zlib.error, RuntimeError)  # RuntimeError: an encrypted archive


@dataclass
class CalibrationData:
    """Checked samples for the graph inputs; iterating gives batches of at most 32.

    A batch holds float32[n, *shape[1:]] for each input, or [n, *shape] when shape[0] is not 1.
    ``samples``: how many there are, None for a stream. ``labels``: what the file holds beside the inputs.
    """

    samples: int | None
    labels: Array | None
    chunks: Callable[[], Iterator[Batch]]

    def __iter__(self) -> Iterator[Batch]:
        return self.batches()

    def batches(self, size: int = _BATCH) -> Iterator[Batch]:
        """Batches of ``size`` samples, the last one smaller. Raises QccError where a sample is not usable."""
        held: list[Batch] = []
        count = found = 0
        for chunk in self.chunks():
            length = len(next(iter(chunk.values())))
            found += length
            for start in range(0, length, size):
                part = {n: a[start : start + size] for n, a in chunk.items()}
                part_length = min(size, length - start)
                if count + part_length > size:
                    yield _joined(held)
                    held, count = [], 0
                held.append(part)
                count += part_length
        if held:
            yield _joined(held)
        if found == 0:
            raise _empty("the calibration data")


def _joined(parts: list[Batch]) -> Batch:
    return {n: np.concatenate([p[n] for p in parts]) if len(parts) > 1 else parts[0][n] for n in parts[0]}


def load_calibration(
    source: object, inputs: Sequence[Value], label_key: str | None = None
) -> CalibrationData:
    """Calibration data for a graph with these inputs.

    ``source``: a .npz file (arrays by input name; labels beside them), a .npy file, a folder of such files
    (one sample or batch each, in the order of their names), an array, arrays by name, or an iterable of arrays
    or of arrays by name (samples or batches; streamed). A model with one input takes arrays without a name.
    Integers for an input that the model takes as codes are dequantized.
    ``label_key``: the array that holds the labels; by default one of LABEL_KEYS, if there is one.
    Raises QccError with a hint; for streams while they are read.
    """
    codes = {v.name: found for v in inputs if (found := input_codes(v)) is not None and found.given}
    reader = _Reader({v.name: v.type for v in inputs}, label_key, codes)
    if isinstance(source, str | Path):
        path = Path(source)
        if path.is_dir():
            return reader.folder(path)
        return reader.whole(*reader.read(path), path.name)
    if isinstance(source, Mapping):
        return reader.whole(*reader.named(source, "the calibration data"), "the calibration data")
    if isinstance(source, np.ndarray):
        return reader.whole(reader.unnamed(source, "the calibration data"), None, "the calibration data")
    if isinstance(source, Iterable):
        return reader.stream(source)
    raise QccError(
        f"calibration data cannot be a {type(source).__name__}",
        hint="pass a .npz or .npy file, a folder of .npy files, an array, a dict of arrays or an iterable of these",
    )


@dataclass
class _Reader:
    """Turns raw arrays into batches of the inputs' types."""

    types: dict[str, TensorType]
    label_key: str | None = None
    codes: dict[str, FakeQuant] = field(default_factory=dict)

    # ------------------------------------------------------------------ kinds of sources
    def whole(self, arrays: Batch, labels: Array | None, where: str) -> CalibrationData:
        """Data that is in memory as a whole."""
        count = len(next(iter(arrays.values()), ()))
        if count == 0:
            raise _empty(where)
        return CalibrationData(count, labels, lambda: iter([arrays]))

    def folder(self, path: Path) -> CalibrationData:
        """Every .npy and .npz file of a folder, read when it is needed."""
        files = sorted(p for p in path.iterdir() if p.suffix in (".npy", ".npz"))
        if not files:
            raise QccError(
                f"{path} holds no .npy or .npz file",
                hint="save each sample with numpy.save, or all of them in one .npz file",
            )
        return CalibrationData(None, None, lambda: (self.read(file)[0] for file in files))

    def stream(self, source: Iterable[object]) -> CalibrationData:
        """An iterable; one that ends after a single pass says so when it is read twice."""
        once = isinstance(source, Iterator)
        passes: list[None] = []

        def chunks() -> Iterator[Batch]:
            if once and passes:
                raise QccError(
                    "the calibration data can be read only once: it is a generator",
                    hint="pass a list, or an object whose __iter__ starts again",
                )
            passes.append(None)
            for index, item in enumerate(source):
                where = f"item {index} of the calibration data"
                if isinstance(item, Mapping):
                    yield self.named(item, where)[0]
                else:
                    yield self.unnamed(item, where)

        length = len(source) if isinstance(source, Sequence) else None
        if length == 0:
            raise _empty("the calibration data")
        return CalibrationData(None, None, chunks)

    # ------------------------------------------------------------------ arrays
    def read(self, path: Path) -> tuple[Batch, Array | None]:
        """Arrays and labels of one .npy or .npz file."""
        if not path.exists():
            raise QccError(f"{path} does not exist", hint="check the path of the calibration data")
        try:
            loaded = np.load(path, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                arrays: dict[str, Array] | None = None
            else:
                with loaded:
                    arrays = {name: loaded[name] for name in loaded.files}
        except (*_READ_ERRORS, *_ARCHIVE_ERRORS) as error:
            if "allow_pickle" in str(error) or "Object arrays" in str(error):
                raise QccError(
                    f"{path.name} holds Python objects, which are not read: they can run code",
                    hint="save plain arrays: array.astype(numpy.float32)",
                ) from None
            raise QccError(
                f"{path.name} is not a numpy file, or it is damaged: {error}",
                hint="write it with numpy.save or numpy.savez",
            ) from None
        if arrays is None:
            return self.unnamed(loaded, path.name), None
        return self.named(arrays, path.name)

    def named(self, arrays: Mapping[Any, object], where: str) -> tuple[Batch, Array | None]:
        """Arrays by input name, and the labels beside them."""
        found = {str(n): a for n, a in arrays.items()}
        if self.label_key is not None and self.label_key not in found:
            raise QccError(f"{where} has no labels {self.label_key!r}", hint=f"its arrays: {_listed(found)}")
        keys = LABEL_KEYS if self.label_key is None else (self.label_key,)
        labels = next((np.asarray(found[k]) for k in keys if k in found and k not in self.types), None)
        data = {n: a for n, a in found.items() if n in self.types or n not in (*_IGNORED_KEYS, *keys)}
        if len(self.types) == 1 and len(data) == 1:
            (expected,), (name,) = self.types, data
            if name in _UNNAMED_KEYS:
                data = {expected: data[name]}
        if set(data) != set(self.types):
            missing = [n for n in self.types if n not in data]
            unknown = [n for n in data if n not in self.types]
            what = f"no array for input {missing[0]!r}" if missing else f"an unknown array {unknown[0]!r}"
            raise QccError(
                f"{where} has {what}: expected {_listed(self.types)}, got {_listed(data)}",
                hint="name the arrays after the inputs of the model: numpy.savez(file, **{name: array})",
            )
        checked = {n: self.checked(n, data[n], where) for n in self.types}
        counts = {n: len(a) for n, a in checked.items()}
        if len(set(counts.values())) > 1:
            shown = ", ".join(f"{n}: {c}" for n, c in counts.items())
            raise QccError(
                f"{where} has different numbers of samples ({shown})", hint="give every input as many samples"
            )
        return checked, labels

    def unnamed(self, array: object, where: str) -> Batch:
        """The array of a model with one input."""
        if len(self.types) != 1:
            raise QccError(
                f"{where} is one array, but the model has the inputs {_listed(self.types)}",
                hint="name the arrays: a .npz file or a dict",
            )
        (name,) = self.types
        return {name: self.checked(name, array, where)}

    def checked(self, name: str, array: object, where: str) -> NDArray[np.float32]:
        """One array as float32[n, ...], finite and of the input's shape."""
        raw = np.asarray(array)
        if raw.dtype.kind not in "fiub":
            raise QccError(
                f"{where}: array {name!r} has type {raw.dtype}, expected numbers", hint="save it as float32"
            )
        if name in self.codes and raw.dtype.kind in "iu":
            raw = self.codes[name].reals(raw)
        with np.errstate(over="ignore"):
            data = _as_samples(name, raw, self.types[name].shape, where).astype(np.float32, copy=False)
        finite = np.isfinite(data)
        if not finite.all():
            first = tuple(int(i) for i in np.argwhere(~finite)[0])
            raise QccError(
                f"{where}: array {name!r} has {int(finite.size - finite.sum())} elements that are NaN, infinite or "
                f"beyond float32; the first is at index {first}",
                hint="remove these samples, or repair the preprocessing",
            )
        return data


def _as_samples(name: str, array: Array, shape: tuple[int, ...], where: str) -> Array:
    """[n, *shape[1:]] when shape[0] is 1, else [n, *shape]; a single sample gets its leading axis."""
    sample = shape[1:] if shape[:1] == (1,) else shape
    if array.shape[1:] == sample and array.ndim:
        return array
    if array.shape == sample:
        return array[None]
    if array.shape[1:] == shape and array.ndim:
        return array.reshape(len(array), *sample)
    if shape and array.shape[1:] == shape[1:] and array.ndim and len(array) % shape[0] == 0:
        return array.reshape(-1, *shape)  # a model with a fixed batch
    expected = f"(N, {', '.join(map(str, sample))})" if sample else "(N,)"
    raise QccError(
        f"{where}: array {name!r} has shape {array.shape}, expected {expected}",
        hint=_shape_hint(array.shape, sample),
    )


def _shape_hint(found: tuple[int, ...], sample: tuple[int, ...]) -> str:
    if len(found) == len(sample) + 1 == 4 and found[1:] == (*sample[1:], sample[0]):
        return "the images are channels-last: pass array.transpose(0, 3, 1, 2)"
    if len(found) == len(sample) + 1 == 4 and found[1:] == (sample[2], *sample[:2]):
        return "the images are channels-first: pass array.transpose(0, 2, 3, 1)"
    return "stack the samples, preprocessed as for the model, along axis 0"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(repr(n) for n in names) or "nothing"


def _empty(where: str) -> QccError:
    return QccError(f"{where} holds no samples", hint="give at least one; 100 typical ones are a good start")
