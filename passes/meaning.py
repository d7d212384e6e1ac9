"""What a graph computes on a few samples, in reals: how the manager holds a pass to its exactness."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcc.ir import fixedpoint, interpreter
from qcc.ir.errors import PassError
from qcc.ir.graph import Graph
from qcc.passes.base import Pass, PassContext

FLOAT_EXACT_TOLERANCE = 1e-4  # of the largest magnitude of an output
RANDOM_SAMPLES = 2

Arrays = Mapping[str, NDArray[Any]]


def sample_inputs(graph: Graph, ctx: PassContext) -> Arrays:
    """ctx.resources["samples"], or seeded random reals: in the input's range where one is known, else normal."""
    if "samples" in ctx.resources:
        samples: Arrays = ctx.resources["samples"]
        return samples
    rng = np.random.default_rng(0)
    made = {}
    for value in graph.inputs:
        shape = (RANDOM_SAMPLES, *value.type.shape)
        qparams = value.type.qparams
        bounds = value.range or (qparams.range if qparams is not None else None)
        made[value.name] = (rng.uniform(*bounds, shape) if bounds else rng.normal(size=shape)).astype(
            np.float32
        )
    return made


def meaning_of(graph: Graph, samples: Arrays) -> dict[str, NDArray[np.float32]]:
    """Outputs as reals, for real inputs: what is integer is quantized on the way in, dequantized on the way out."""
    inputs = {}
    for value in graph.inputs:
        x = np.asarray(samples[value.name])
        qparams = value.type.qparams
        if value.type.dtype.is_integer and not np.issubdtype(x.dtype, np.integer):
            assert qparams is not None
            x = fixedpoint.quantize(x, qparams)
        inputs[value.name] = x
    outputs = interpreter.run(graph, inputs, fake_quant=graph.stage in ("float", "annotated"))
    for value, name in zip(graph.outputs, graph.output_names, strict=True):
        if value.type.dtype.is_integer and value.type.qparams is not None:
            outputs[name] = fixedpoint.dequantize(outputs[name], value.type.qparams)
    return outputs


def check_exactness(done: Pass, before: Arrays | None, after: Arrays | None) -> dict[str, float]:
    """Raise PassError where outputs differ more than the pass may; the SQNR by output of an approximate pass."""
    if before is None or after is None:
        return {}
    sqnr_db = {}
    for name, old in before.items():
        new = after[name]
        if done.exactness == "approximate":
            sqnr_db[name] = sqnr(old, new)
            continue
        difference = (
            np.abs(old.astype(np.float64) - new) if not np.array_equal(old, new, equal_nan=True) else None
        )
        if difference is None:
            continue
        allowed = 0.0
        if done.exactness == "float-exact":
            allowed = FLOAT_EXACT_TOLERANCE * float(np.abs(old).max(initial=0))
        worst = float(difference.max())
        if not worst <= allowed:
            raise PassError(
                f"is {done.exactness}, but output {name} changed by {worst:.3g} where {allowed:.3g} is allowed"
            )
    return sqnr_db


def sqnr(reference: NDArray[Any], other: NDArray[Any]) -> float:
    """Signal to quantization noise ratio in dB: 10 log10(sum r^2 / sum (r - o)^2); infinite when equal."""
    signal = float((reference.astype(np.float64) ** 2).sum())
    noise = float(((reference.astype(np.float64) - other) ** 2).sum())
    if noise == 0:
        return float("inf")
    return float(10 * np.log10(signal / noise)) if signal > 0 else float("-inf")
