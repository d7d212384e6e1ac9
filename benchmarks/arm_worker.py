"""One inference of an engine between marks; run by an emulated Python, see arm_peers.py. Needs numpy only.

    arm_worker.py MODULE:FUNCTION JOB.json SAMPLES.npy REFERENCE.npz MARKS.so

prints a line of JSON: sqnr_db, and maps, the address ranges of the files that are loaded.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import sys
from pathlib import Path

from engines.base import Job
from worker import sqnr

WARM_UP = 3  # inferences before the one that counts: the first ones pack weights and plan memory


def main() -> None:
    """Load, compare with the reference, count."""
    entry, file, samples, reference, library = sys.argv[1:]
    module, function = entry.split(":")
    fields = json.loads(Path(file).read_text(encoding="utf-8"))
    engine = getattr(importlib.import_module(module), function)(Job(**fields | {"cores": ()}))
    ratio = sqnr(engine, samples, reference)
    marks = ctypes.CDLL(library)
    begin, end, infer = marks.count_begin, marks.count_end, engine.infer
    for _ in range(WARM_UP):
        infer()
    begin()
    infer()
    end()
    print(json.dumps({"sqnr_db": ratio, "maps": loaded_files()}))


def loaded_files() -> list[tuple[int, int, str]]:
    """Begin, end and name of each range of addresses that holds a file."""
    found = []
    for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines():
        addresses, *_, path = line.split(maxsplit=5)
        if path.startswith("/"):
            begin, end = addresses.split("-")
            found.append((int(begin, 16), int(end, 16), Path(path).name))
    return found


if __name__ == "__main__":
    main()
