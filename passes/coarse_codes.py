"""What codes of few bits need before they are rounded: clipped scales, and weights that make up for noisy operands."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qcc.ir import interpreter
from qcc.ir.graph import Graph, Node
from qcc.ir.interpreter import Execution
from qcc.passes.base import PassContext
from qcc.passes.error_feedback import output_error, round_with_feedback
from qcc.passes.layerwise import Arrays, sample_count
from qcc.passes.moments import sampled_rows
from qcc.passes.weight_scales import allowed_scales

Reals = NDArray[np.float64]

_SHARES = tuple(float(s) for s in np.arange(39, 15, -1) / 40)  # of the scale that holds every weight
_CAUTION = 1.0  # times the mean variance of the operand


class FloatWalk:
    """A float graph, run as far as the node in question, on the samples that ``layers`` takes."""

    def __init__(self, graph: Graph, samples: Arrays, ctx: PassContext) -> None:
        inputs = {name: array[: sample_count(graph, array)] for name, array in samples.items()}
        compute = ctx.resources.get("evaluate", interpreter.evaluate)
        self._walk, self._nodes = Execution.start(graph, inputs, compute=compute), iter(graph.nodes)

    def operand(self, name: str) -> NDArray[np.float32]:
        """What the node of this name has as its operand in float, samples along axis 0; nodes in the order of the graph."""
        for node in self._nodes:
            value = node.input(0)
            found = self._walk.array(value) if node.name == name else None
            self._walk.step(node)
            self._walk.forget(node)
            if found is not None:
                return np.asarray(found, np.float32).reshape(-1, *(value.type.shape[1:] or value.type.shape))
        raise ValueError(f"{name} is not among the nodes to come")


def following(
    node: Node, w: Reals, hessian: Reals, x: NDArray[np.float32], real: NDArray[np.float32]
) -> Reals:
    """``w`` [G, O, K] changed so that on the quantized operand ``x`` the layer gives what it does on the ``real`` one.

    Ridge regression: w + w C (H + r I)^-1, where C [G, K, K] has the moments of real - x with x, both centred, and r is a
    multiple of the mean variance, as few samples tell little of C.
    """
    rows, others = (sampled_rows(node, a) for a in (x, real))
    assert rows is not None
    assert others is not None
    groups, k = hessian.shape[:2]
    found = np.empty_like(hessian)
    for g in range(groups):
        a, b = (r[:, :, g].reshape(-1, k) for r in (rows, others))
        centred, error = a - a.mean(axis=0, dtype=np.float64), b - a
        found[g] = (error - error.mean(axis=0, dtype=np.float64)).T @ centred / len(a)
    ridge = _CAUTION * np.einsum("gkk->g", hessian)[:, None, None] / k * np.eye(k)
    return np.asarray(w + w @ np.linalg.solve(hessian + ridge, found.swapaxes(1, 2)).swapaxes(1, 2))


def clipping_scales(node: Node, w: Reals, hessian: Reals, scale: Reals, limit: int) -> Reals:
    """[G, O]: of ``scale`` and smaller ones, those with the least error of ``w`` [G, O, K] after rounding."""
    found = scale
    least = output_error(w, round_with_feedback(w, hessian, scale, limit), hessian, scale)
    for share in _SHARES:
        tried = allowed_scales(node, (scale * share).ravel()).reshape(scale.shape)
        error = output_error(w, round_with_feedback(w, hessian, tried, limit), hessian, tried)
        found, least = np.where(error < least, tried, found), np.minimum(error, least)
    return np.asarray(found)
