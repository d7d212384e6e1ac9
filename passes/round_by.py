"""Weight rounding by a function of one's own: which code each weight gets, for scales that are given."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from qcc.ir.errors import PassError
from qcc.ir.graph import Graph
from qcc.passes.base import Note, Pass, PassContext, PassResult, register_pass
from qcc.passes.layerwise import set_weights, weight_of

Floats = NDArray[np.float64]
RoundingScheme = Callable[[Floats, int], Floats]
"""(weights in steps of their scale, float64[O, ...]; the largest code) -> integers in float64 of that shape."""

ROUNDING_SCHEMES: dict[str, RoundingScheme] = {}


def register_rounding(name: str) -> Callable[[RoundingScheme], RoundingScheme]:
    """Decorator: make a scheme known to round-by under ``name``; ValueError when the name is taken."""

    def enter(scheme: RoundingScheme) -> RoundingScheme:
        if name in ROUNDING_SCHEMES:
            raise ValueError(f"rounding scheme {name} is registered twice")
        ROUNDING_SCHEMES[name] = scheme
        return scheme

    return enter


@register_rounding("nearest")
def nearest(steps: Floats, limit: int) -> Floats:
    """To the nearest code, ties to even: what quantize-ops does with weights that no pass has rounded."""
    return np.asarray(np.clip(np.rint(steps), -limit, limit))


@register_pass
class RoundBy(Pass):
    """Round each layer's weights with ``scheme``, one of those that register_rounding made known.

    Weights become multiples of their scale, so that quantize-ops finds these codes. ``bits``: of the weights, as in the qspec.
    Raises PassError for an unknown scheme, and for one that does not return codes.
    """

    name = "round-by"
    stage = "annotated"
    requires = ("has_qparams",)
    exactness = "approximate"
    scheme: str = "nearest"
    bits: int = 8

    def run(self, graph: Graph, ctx: PassContext) -> PassResult:
        """In place; a note for each layer says how many codes are not the nearest."""
        if self.scheme not in ROUNDING_SCHEMES:
            raise PassError(
                f"there is no rounding scheme {self.scheme}", hint=f"known: {', '.join(ROUNDING_SCHEMES)}"
            )
        limit, notes = 2 ** (self.bits - 1) - 1, []
        for node in graph.nodes:
            weight = weight_of(node)
            if weight is None or weight.data is None or weight.type.qparams is None:
                continue
            axis = node.op.quant_rule().weight_axis
            scale = weight.type.qparams.scale_array(weight.data.ndim)
            steps = np.moveaxis(weight.data.astype(np.float64) / scale, axis, 0)
            codes = np.asarray(ROUNDING_SCHEMES[self.scheme](steps.copy(), limit))
            if (
                codes.shape != steps.shape
                or not (np.rint(codes) == codes).all()
                or np.abs(codes).max() > limit
            ):
                raise PassError(
                    f"{node.name}: scheme {self.scheme} must return integers from {-limit} to {limit} of shape {steps.shape}"
                )
            moved = int((codes != nearest(steps, limit)).sum())
            data = np.asarray(np.moveaxis(codes, 0, axis) * scale, np.float32)
            set_weights(graph, node, data)
            notes.append(
                Note(node.name, self.name, True, f"{moved} of {codes.size} codes are not the nearest")
            )
        return PassResult(bool(notes), tuple(notes))
