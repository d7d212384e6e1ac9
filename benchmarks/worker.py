"""One engine with one model in a process of its own, on cores of its own. Started by peers.py; needs numpy only.

    worker.py MODULE:FUNCTION JOB.json

calls the function with the job. Where that returns an engine, commands come in on standard input, a line each, and
answers, a line of JSON each, go out: `time SECONDS` and `check SAMPLES.npy REFERENCE.npz`.
"""

from __future__ import annotations

import importlib
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from engines.base import Engine, Job

BLOCK_SECONDS = 2e-4  # calls are timed in blocks of at least this, so that reading the clock does not count


def main() -> None:
    """Run the job, then serve."""
    replies = os.fdopen(os.dup(1), "w")  # engines may print
    os.dup2(2, 1)
    entry, file = sys.argv[1:]
    fields = json.loads(Path(file).read_text(encoding="utf-8"))
    job = Job(**fields | {"cores": tuple(fields["cores"])})
    if job.cores:
        os.sched_setaffinity(0, job.cores)
    before = resident_bytes("VmRSS")
    module, function = entry.split(":")
    start = time.perf_counter()
    engine = getattr(importlib.import_module(module), function)(job)
    if isinstance(engine, Engine):
        engine.infer()
        facts = {
            "macs": engine.macs,
            "load_seconds": time.perf_counter() - start,
            "resident_bytes": resident_bytes("VmRSS") - before,
            "peak_bytes": resident_bytes("VmHWM") - before,
        }
        reply(replies, facts)
        serve(engine, replies)


def serve(engine: Engine, replies: TextIO) -> None:
    """Answer commands until standard input ends."""
    for line in sys.stdin:
        command, *arguments = line.rstrip("\n").split("\t")
        if command == "time":
            reply(replies, time_calls(engine, float(arguments[0])))
        elif command == "check":
            reply(replies, {"sqnr_db": sqnr(engine, *arguments)})


def reply(replies: TextIO, fields: dict[str, Any]) -> None:
    """One line."""
    replies.write(json.dumps(fields) + "\n")
    replies.flush()


def resident_bytes(name: str) -> int:
    """VmRSS or VmHWM of this process."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith(name)))


def time_calls(engine: Engine, seconds: float) -> dict[str, float]:
    """Microseconds of an inference: median and minimum of the blocks of about ``seconds``."""
    count = 1
    while seconds_of(engine, count) < BLOCK_SECONDS:
        count *= 2
    blocks = [seconds_of(engine, count)]
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        blocks.append(seconds_of(engine, count))
    scale = 1e6 / count
    return {"median_us": statistics.median(blocks) * scale, "min_us": min(blocks) * scale}


def seconds_of(engine: Engine, count: int) -> float:
    """Of ``count`` inferences."""
    start = time.perf_counter()
    engine.repeat(count)
    return time.perf_counter() - start


def sqnr(engine: Engine, samples: str, reference: str) -> float:
    """Signal to quantization noise of the worst output, dB. Outputs may come in another order, if sizes tell them apart."""
    wanted = list(np.load(reference).values())
    got = [engine.outputs(x[None]) for x in np.load(samples)]
    ratios = []
    for number, y in enumerate(wanted):
        same = [i for i, output in enumerate(got[0]) if output.size == y[0].size]
        index = number if number in same else same[0]
        z = np.stack([outputs[index].reshape(y[0].shape) for outputs in got]).astype(np.float64)
        noise = np.square(z - y).sum()
        ratios.append(10 * np.log10(np.square(y.astype(np.float64)).sum() / max(noise, 1e-300)))
    return float(min(ratios))


if __name__ == "__main__":
    main()
