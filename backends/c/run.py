"""Calls into compiled libraries: loaded into this process, or as a program under the target's emulator."""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from qcc.backends.c.build import build_program, build_shared, library_sources, link_shared, run_program
from qcc.backends.c.emit import RUNTIME, find_record, render
from qcc.backends.target import Target
from qcc.backends.x86.features import require_features
from qcc.ir.errors import TargetError, VerifyError
from qcc.ir.types import DType

Array = NDArray[Any]
Bytes = NDArray[np.uint8]


class Compiled:
    """A compiled model. ``path``: the library or program; ``meta``: the record in NAME.json (see ``metadata_of``).

    ``folder``: that of the emitted library, where ``load`` was told one.
    """

    def __init__(self, path: Path, meta: Mapping[str, Any]) -> None:
        self.path = path
        self.meta = meta
        self.folder: Path | None = None

    def run_bytes(self, inputs: Bytes) -> Bytes:
        """u8[N, input_bytes] to u8[N, output_bytes]."""
        raise NotImplementedError

    def run(self, inputs: Array | Mapping[str, Array]) -> Any:
        """Run N samples. One array for a model with one input, else a mapping by name; likewise the result.

        Shapes: [N, *shape], or [N, *shape[1:]] where shape[0] is 1. Raises VerifyError for a wrong name, shape or dtype.
        """
        given = inputs if isinstance(inputs, Mapping) else {self.meta["inputs"][0]["name"]: inputs}
        result = self.run_bytes(self.block(given))
        outputs = {p["name"]: _from_bytes(p, result) for p in self.meta["outputs"]}
        return outputs if len(outputs) > 1 or isinstance(inputs, Mapping) else next(iter(outputs.values()))

    def block(self, given: Mapping[str, Array]) -> Bytes:
        """u8[N, input_bytes]: each row holds the inputs of one sample as the library takes them."""
        ports = self.meta["inputs"]
        if set(given) != {p["name"] for p in ports}:
            raise VerifyError(f"inputs must be {[p['name'] for p in ports]}, got {list(given)}")
        parts = {p["name"]: _as_bytes(p, np.asarray(given[p["name"]])) for p in ports}
        counts = {len(part) for part in parts.values()}
        if len(counts) != 1:
            raise VerifyError(f"inputs have different numbers of samples: {sorted(counts)}")
        block = np.zeros((counts.pop(), self.meta["input_bytes"]), np.uint8)
        for port in ports:
            block[:, port["offset"] : port["offset"] + port["bytes"]] = parts[port["name"]]
        return block

    def run_int8(self, inputs: Array | Mapping[str, Array]) -> Any:
        """``run`` for a model with an integer boundary."""
        return self.run(inputs)


class Library(Compiled):
    """A shared library, called through ctypes with an arena and, where it was made for threads, a pool of its own.

    Calls of one Library must not overlap. ``close`` ends the threads; so does the end of the object.
    """

    def __init__(self, path: Path, meta: Mapping[str, Any]) -> None:
        super().__init__(path, meta)
        self._shared = _open_library(path)
        self._pool = _Pool(self._shared, meta["threads"]) if meta.get("threads", 1) > 1 else None
        entry = getattr(self._shared, f"{meta['name']}_run{'_parallel' if self._pool else ''}")
        self._function = _function(entry, ctypes.c_int, 4 if self._pool else 3)
        self._arena = _aligned(meta["arena_bytes"], meta["arena_align"])

    def close(self) -> None:
        """End the threads. The library then computes on the caller's alone."""
        if self._pool is not None:
            self._pool.stop()

    def _addresses(self, *arrays: Bytes) -> list[ctypes.c_void_p]:
        """Arguments of a call: the pool where there is one, the arena, and ``arrays``."""
        pool = [self._pool.address] if self._pool is not None else []
        return [*pool, *(ctypes.c_void_p(a.ctypes.data) for a in (self._arena, *arrays))]

    def run_bytes(self, inputs: Bytes) -> Bytes:
        """One call for each sample. Raises VerifyError when a call fails."""
        source = _aligned(self.meta["input_bytes"], 64)
        result = _aligned(self.meta["output_bytes"], 64)
        outputs = np.zeros((len(inputs), self.meta["output_bytes"]), np.uint8)
        addresses = self._addresses(source, result)
        for row, output in zip(inputs, outputs, strict=True):
            source[:] = row
            status = self._function(*addresses)
            if status != 0:
                raise VerifyError(f"{self.meta['name']}_run returned {status}")
            output[:] = result
        return outputs

    def prepared(self, sample: Bytes) -> Callable[[], int]:
        """A call on one sample, u8[input_bytes], with nothing left to do but the inference: for timing."""
        source, result = _aligned(self.meta["input_bytes"], 64), _aligned(self.meta["output_bytes"], 64)
        source[:] = sample
        addresses = self._addresses(source, result)

        def call(keep: object = (self, source, result)) -> int:  # the call holds the memory it writes to
            return int(self._function(*addresses))

        return call


class TimedLibrary(Library):
    """A library with a clock behind each step, called on one thread; ``peak``: it holds the loop of the target's peak."""

    def __init__(self, path: Path, meta: Mapping[str, Any], peak: bool) -> None:
        super().__init__(path, meta)
        self._run = ctypes.cast(getattr(self._shared, f"{meta['name']}_run"), ctypes.c_void_p)
        self._time_steps = self._shared.qcc_time_steps
        self._time_steps.argtypes = [ctypes.c_void_p] * 5
        self._cost = _returning_double(self._shared.qcc_clock_cost)
        self._peak = _returning_double(self._shared.qcc_peak, ctypes.c_long) if peak else None

    def step_microseconds(self, sample: Bytes) -> Callable[[], Array]:
        """A function that makes one inference on u8[input_bytes]: f64[layers], the time of each step."""
        source, result = _aligned(self.meta["input_bytes"], 64), _aligned(self.meta["output_bytes"], 64)
        source[:] = sample
        times = np.zeros(1 + len(self.meta["layers"]))
        memory = (self._arena, source, result, times)
        addresses = [self._run, *(ctypes.c_void_p(m.ctypes.data) for m in memory)]
        cost = self._cost()

        def call(keep: object = memory) -> Array:  # the call holds the memory it writes to
            self._time_steps(*addresses)
            return np.maximum(np.diff(times) - cost, 0) / 1e3

        return call

    @property
    def peak(self) -> Callable[[int], float] | None:
        """Does that many rounds, and returns the multiply-accumulates done; None where no peak is known."""
        return self._peak


class _Pool:
    """Threads of one library, which end with this object. ``address``: of the qcc_pool, None once they have ended."""

    def __init__(self, library: ctypes.CDLL, threads: int) -> None:
        size, alignment = (getattr(library, f"qcc_pool_{what}")() for what in ("bytes", "align"))
        memory = _aligned(size, alignment)
        self.address = ctypes.c_void_p(memory.ctypes.data)
        error = library.qcc_pool_start(self.address, threads)
        if error:
            raise TargetError(f"cannot start {threads} threads: {os.strerror(error)}")
        self.stop = weakref.finalize(self, _stop, library, memory, self.address, os.getpid())


def _stop(library: ctypes.CDLL, memory: Bytes, address: ctypes.c_void_p, process: int) -> None:
    """A process that was forked later has the memory, not the threads."""
    if os.getpid() == process:
        library.qcc_pool_stop(ctypes.c_void_p(memory.ctypes.data))
    address.value = None  # calls that hold it go on without a pool


class Emulated(Compiled):
    """A program that reads samples from a file and writes results to another, run as the target says."""

    def __init__(self, path: Path, meta: Mapping[str, Any], target: Target) -> None:
        super().__init__(path, meta)
        self._target = target

    def run_bytes(self, inputs: Bytes) -> Bytes:
        """One run of the program for all samples."""
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "input.bin").write_bytes(inputs.tobytes())
            arguments = () if self._target.semihosting else ("input.bin", "output.bin")
            run_program(self.path.absolute(), self._target, arguments, folder)
            data = np.fromfile(folder / "output.bin", np.uint8)
        if data.size != len(inputs) * self.meta["output_bytes"]:
            raise TargetError(
                f"{self.path.name} stopped after {data.size // self.meta['output_bytes']} samples"
            )
        return data.reshape(len(inputs), self.meta["output_bytes"])


class StepTimer:
    """A library in an emitted ``folder`` of its own, built so that its steps report their times.

    ``memory``: the arena, an input and an output, large enough; ``nanoseconds``: i64[steps], the least of each step.
    Raises TargetError where building fails.
    """

    def __init__(self, folder: Path, target: Target, memory: tuple[Bytes, Bytes, Bytes]) -> None:
        require_instructions(target)
        meta = read_metadata(folder)
        text = render("time_steps.c.in", _c_names(meta))
        (folder / "time_steps.c").write_text(text, encoding="utf-8", newline="\n")
        path = build_shared(folder, target, flags=("-include", str(RUNTIME / "qcc_step_times.h")))
        self._function = getattr(_open_library(path), f"{meta['name']}_time_steps")
        self._function.argtypes = [*[ctypes.c_void_p] * 4, ctypes.c_int]
        self._function.restype = ctypes.c_int
        self.nanoseconds = np.full(len(meta["layers"]), np.iinfo(np.int64).max, np.int64)
        self._memory = (*memory, self.nanoseconds)

    def run(self, inferences: int) -> None:
        """Lower ``nanoseconds`` where a step takes less."""
        status = self._function(*(a.ctypes.data for a in self._memory), inferences)
        if status != 0:
            raise VerifyError(f"a timed library returned {status}")


def load(folder: Path, target: Target, build_folder: Path | None = None) -> Compiled:
    """Build the emitted ``folder`` for ``target`` and make it callable.

    Raises TargetError when that fails here, or this processor lacks instructions of a native target.
    """
    require_instructions(target)
    meta = read_metadata(folder)
    build_folder = build_folder or folder / "build"
    made: Compiled
    if target.is_native:
        made = Library(build_shared(folder, target, build_folder), meta)
    else:
        made = Emulated(build_batch(folder, target, meta, build_folder), meta, target)
    made.folder = folder
    return made


def load_traced(folder: Path, target: Target, build_folder: Path | None = None) -> Compiled:
    """Like ``load``, but the results of all steps come back, by the names of the values, instead of the outputs."""
    require_instructions(target)
    meta = read_metadata(folder)
    path = build_batch(folder, target, meta, build_folder or folder / "build" / "trace", trace=True)
    ports, end = [], 0
    for layer in meta["layers"]:
        if not layer.get("whole", True):  # a step in bands of rows, which has nothing to show
            continue
        output = layer["output"]
        ports.append({"name": layer["name"], "offset": end, **output})
        end += output.get("span_bytes", output["bytes"])
    return Emulated(path, meta | {"outputs": ports, "output_bytes": end}, target)


def load_timed(folder: Path, target: Target, build_folder: Path | None = None) -> TimedLibrary:
    """Like ``load``, with a clock behind each step. Raises TargetError also for an emulated target, or several threads."""
    require_instructions(target)
    if not target.is_native:
        raise TargetError(f"target {target.name} is emulated: the time of an emulator says nothing")
    meta = read_metadata(folder)
    if meta.get("threads", 1) > 1:
        raise TargetError(
            "the layers of a library for several threads cannot be timed", hint="compile for one thread"
        )
    build_folder = build_folder or folder / "build" / "timed"
    sources = [
        *library_sources(folder),
        RUNTIME / "qcc_step_clock.c",
        *([target.peak] if target.peak else []),
    ]
    header = ("-include", str(RUNTIME / "qcc_step_clock.h"), "-D_POSIX_C_SOURCE=199309L", f"-I{folder}")
    path = link_shared(sources, target, build_folder / f"lib{meta['name']}_timed.so", header)
    return TimedLibrary(path, meta, target.peak is not None)


def whole_pages(size: int) -> Bytes:
    """Zeros that begin where a page begins."""
    return _aligned(size, mmap.PAGESIZE)


def require_instructions(target: Target) -> None:
    """Raise TargetError where this processor cannot execute a native target's code, which would end the process."""
    if target.is_native:
        require_features(target.name, target.features)


def read_metadata(folder: Path) -> dict[str, Any]:
    """The record of the library in ``folder``. Raises TargetError where there is none."""
    record = find_record(folder)
    if record is None:
        raise TargetError(f"{folder} holds no library written by qcc")
    meta: dict[str, Any] = json.loads(record.read_text(encoding="utf-8"))
    return meta


def build_batch(
    folder: Path, target: Target, meta: Mapping[str, Any], build_folder: Path, *, trace: bool = False
) -> Path:
    """The program behind ``Emulated``; with ``trace`` it writes the results of all steps."""
    template = "batch_semihosting.c.in" if target.semihosting else "batch_main.c.in"
    parts = 1 if trace else meta.get("threads", 1)  # a trace shows whole results
    text = render(template, _c_names(meta) | {"trace": trace, "parts": parts})
    flags = ("-include", str(RUNTIME / "qcc_trace.h")) if trace else ()
    build_folder.mkdir(parents=True, exist_ok=True)
    main = build_folder / f"{meta['name']}_batch.c"
    main.write_text(text, encoding="utf-8", newline="\n")
    return build_main(folder, target, main, build_folder, flags)


def build_main(
    folder: Path, target: Target, main: Path, build_folder: Path, flags: Sequence[str] = ()
) -> Path:
    """A program of the library in ``folder`` and the C file ``main``, with what the target's programs start with."""
    if not target.semihosting:
        return build_program(folder, target, [main], build_folder, flags)
    sources = [main, RUNTIME / "cortex_m_startup.c"]
    script = f"-T{RUNTIME / target.linker_script}"
    return build_program(
        folder, target, sources, build_folder, (*flags, f"-I{RUNTIME}"), (script, *_builtins(target))
    )


def _c_names(meta: Mapping[str, Any]) -> dict[str, str]:
    """What the templates of programs around a library call it."""
    kinds = {p["dtype"] for p in meta["inputs"]}, {p["dtype"] for p in meta["outputs"]}
    in_type, out_type = ("int8_t" if k == {"s8"} else "float" if k == {"f32"} else "void" for k in kinds)
    return {"name": meta["name"], "NAME": meta["name"].upper(), "in_type": in_type, "out_type": out_type}


def _open_library(path: Path) -> ctypes.CDLL:
    """Loaded from a copy of its own: for a path it has seen, the loader returns the library loaded then."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".load-") as folder:
        return ctypes.CDLL(shutil.copy2(path, folder))


def _returning_double(function: Any, *arguments: Any) -> Callable[..., float]:
    function.argtypes, function.restype = list(arguments), ctypes.c_double
    return cast(Callable[..., float], function)


def _function(function: Any, result: Any, pointers: int) -> Any:
    function.argtypes, function.restype = [ctypes.c_void_p] * pointers, result
    return function


def _builtins(target: Target) -> tuple[str, ...]:
    return ("-lgcc",) if any(c.argv[0].endswith("gcc") for c in target.compilers[:1]) else ()


def _aligned(size: int, alignment: int) -> Bytes:
    memory = np.zeros(size + alignment, np.uint8)
    start = -memory.ctypes.data % alignment
    return memory[start : start + size]


def _as_bytes(port: Mapping[str, Any], array: Array) -> Bytes:
    shape, dtype = tuple(port["shape"]), DType(port["dtype"]).numpy
    if array.dtype != dtype:
        raise VerifyError(f"input {port['name']} must be {dtype}, got {array.dtype}")
    if array.shape[1:] != shape and not (shape[:1] == (1,) and array.shape[1:] == shape[1:]):
        raise VerifyError(f"input {port['name']} must have shape (N, {str(shape)[1:]}, got {array.shape}")
    return np.ascontiguousarray(array).reshape(len(array), -1).view(np.uint8)


def _from_bytes(port: Mapping[str, Any], block: Bytes) -> Array:
    shape, dtype = tuple(port["shape"]), DType(port["dtype"]).numpy
    size = port.get("span_bytes", port["bytes"])
    part = np.ascontiguousarray(block[:, port["offset"] : port["offset"] + size]).view(dtype)
    if size > port["bytes"]:  # pixels with room between them
        channels, step = shape[-1], port["step"]
        part = np.pad(part, ((0, 0), (0, step - channels))).reshape(len(block), -1, step)[..., :channels]
    return part.reshape(len(block), *(shape[1:] if shape[:1] == (1,) else shape))
