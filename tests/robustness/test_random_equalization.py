"""Equalization of random small networks, kept whether it helps or not: the float function stays what it was."""

from dataclasses import replace
from random import Random

import numpy as np
import pytest
from random_models import random_model

from qcc.float_runtime import FloatRuntime
from qcc.onnx_importer import import_model
from qcc.passes.base import Note, PassContext
from qcc.passes.graph_error import GraphError
from qcc.passes.manager import run_pipeline

MODELS, SAMPLES = 60, 6


def test_equalization_preserves_random_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    judge, changed = GraphError.note, 0

    def keep(*arguments: object) -> Note:
        return replace(judge(*arguments), applied=True)  # type: ignore[arg-type]

    monkeypatch.setattr(GraphError, "note", keep)
    for seed in range(MODELS):
        graph = run_pipeline(import_model(random_model(Random(seed))), "float,fuse-epilogues", PassContext())
        rng = np.random.default_rng(seed)
        samples = {v.name: rng.normal(size=(SAMPLES, *v.type.shape)).astype(np.float32) for v in graph.inputs}
        if "" in samples:
            continue
        expected = FloatRuntime(graph).run(samples)
        ctx = PassContext({"correction_samples": samples})
        equalized = run_pipeline(graph, "equalize", ctx)
        changed += equalized is not graph
        for name, found in FloatRuntime(equalized).run(samples).items():
            largest = np.abs(expected[name]).max(initial=1e-6)
            np.testing.assert_allclose(found, expected[name], rtol=0, atol=1e-4 * largest)
    assert changed > 1
