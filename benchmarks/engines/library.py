"""A C library written by qcc, called from Python or in a loop in C; and the loop that shows the processor's peak."""

from __future__ import annotations

import ctypes
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from engines.base import Array, Engine, Job

PEAK_ROUNDS = 20_000  # of the inner loop: about a tenth of a millisecond


class QccLibrary(Engine):
    """``NAME_run`` on memory of its own, or ``NAME_run_parallel`` and a pool; ``meta``: the record in NAME.json."""

    def __init__(self, library: Path, meta: dict[str, Any], sample: Array) -> None:
        self._meta = meta
        shared = ctypes.CDLL(str(library))
        self._memory = [aligned(meta[f"{what}_bytes"], 64) for what in ("arena", "input", "output")]
        self._pool = start_pool(shared, meta["threads"]) if meta.get("threads", 1) > 1 else None
        self.function = getattr(shared, f"{meta['name']}_run{'_parallel' if self._pool is not None else ''}")
        used = [*([self._pool] if self._pool is not None else []), *self._memory]
        self.function.argtypes, self.function.restype = [ctypes.c_void_p] * len(used), ctypes.c_int
        self.addresses = [ctypes.c_void_p(m.ctypes.data) for m in used]
        self.outputs(sample)

    def infer(self) -> object:
        """One call."""
        return self.function(*self.addresses)

    def outputs(self, x: Array) -> list[Array]:
        """All outputs, as float32. Raises RuntimeError when the call fails."""
        port = self._meta["inputs"][0]
        integers = np.clip(np.rint(x / port["scale"]) + port["zero_point"], -128, 127).astype(np.int8)
        self._memory[1][: integers.size] = integers.reshape(-1).view(np.uint8)
        status = self.function(*self.addresses)
        if status != 0:
            raise RuntimeError(f"{self._meta['name']}_run returned {status}")
        return [self._dequantized(p) for p in self._meta["outputs"]]

    def _dequantized(self, port: dict[str, Any]) -> Array:
        block = self._memory[2][port["offset"] : port["offset"] + port["bytes"]].view(np.int8)
        real: Array = (block.astype(np.float32) - port["zero_point"]) * port["scale"]
        return real.reshape(port["shape"])


class LoopInC(QccLibrary):
    """The same library; many calls are one call of call_loop.c."""

    def __init__(self, library: Path, meta: dict[str, Any], sample: Array, loop: Path) -> None:
        super().__init__(library, meta, sample)
        self._loop = ctypes.CDLL(str(loop)).call_loop
        self._loop.argtypes, self._loop.restype = [ctypes.c_void_p] * 5 + [ctypes.c_long], ctypes.c_int
        pool = [] if self._pool is not None else [None]
        self._arguments = [ctypes.addressof(self.function), *pool, *self.addresses]

    def repeat(self, count: int) -> None:
        """``count`` inferences, without Python between them."""
        self._loop(*self._arguments, count)


def start_pool(shared: ctypes.CDLL, threads: int) -> Array:
    """The memory of a running qcc_pool. Raises OSError where the system has no more threads."""
    memory = aligned(shared.qcc_pool_bytes(), shared.qcc_pool_align())
    error = shared.qcc_pool_start(ctypes.c_void_p(memory.ctypes.data), threads)
    if error:
        raise OSError(error, os.strerror(error))
    return memory


class Peak(Engine):
    """Rounds of a loop over registers: ``qcc_peak``, which returns the multiply-accumulates it did."""

    def __init__(self, library: str) -> None:
        self._function = ctypes.CDLL(library).qcc_peak
        self._function.argtypes, self._function.restype = [ctypes.c_long], ctypes.c_double
        self.macs = self._function(PEAK_ROUNDS)

    def infer(self) -> object:
        """PEAK_ROUNDS rounds."""
        return self._function(PEAK_ROUNDS)

    def outputs(self, x: Array) -> list[Array]:
        """None."""
        return []


def aligned(size: int, alignment: int) -> Array:
    """u8[size], zeros, at a multiple of ``alignment``."""
    memory = np.zeros(size + alignment, np.uint8)
    start = -memory.ctypes.data % alignment
    return memory[start : start + size]


def load(job: Job) -> Engine:
    """``job.prepared`` is a JSON file: {"library": ..., "record": ..., "loop": ...}."""
    paths = json.loads(Path(job.prepared).read_text(encoding="utf-8"))
    meta = json.loads(Path(paths["record"]).read_text(encoding="utf-8"))
    return QccLibrary(Path(paths["library"]), meta, job.sample())


def load_loop(job: Job) -> Engine:
    """As ``load``."""
    paths = json.loads(Path(job.prepared).read_text(encoding="utf-8"))
    meta = json.loads(Path(paths["record"]).read_text(encoding="utf-8"))
    return LoopInC(Path(paths["library"]), meta, job.sample(), Path(paths["loop"]))


def load_peak(job: Job) -> Engine:
    """``job.prepared`` is the shared library."""
    return Peak(job.prepared)
