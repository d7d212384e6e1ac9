"""The outputs of one engine for many samples, in a process of its own. Needs numpy only, besides the engine.

outputs.py MODULE:FUNCTION JOB.json SAMPLES.npy RESULT.npz
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from engines.base import Job


def main() -> None:
    """Load the engine with the job, run each sample, write the outputs in order, [N, ...] each."""
    entry, file, samples, result = sys.argv[1:]
    fields = json.loads(Path(file).read_text(encoding="utf-8"))
    module, function = entry.split(":")
    engine = getattr(importlib.import_module(module), function)(Job(**fields | {"cores": ()}))
    found = [[np.array(y) for y in engine.outputs(x[None])] for x in np.load(samples)]
    np.savez(result, *(np.concatenate(outputs) for outputs in zip(*found, strict=True)))


if __name__ == "__main__":
    main()
