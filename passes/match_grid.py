"""Inputs whose samples are multiples of one step, as pixels are, get that step as their scale: nothing is rounded."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qcc.ir.fixedpoint import fake_quantize
from qcc.ir.graph import Graph, Value
from qcc.ir.qparams import QParams
from qcc.ir.qspec import SMALLEST_SCALE, QSpec
from qcc.passes.base import Note, Pass, PassContext, PassResult, register_pass
from qcc.passes.choose_qparams import wide_values
from qcc.passes.graph_error import decibels

_FEWEST = 16  # different numbers; of fewer, the least difference says little
_NEAR = 0.02  # of a step: how far from its multiple a number may lie
_CODES = 256


@register_pass
class MatchGrid(Pass):
    """Give each graph input whose samples are all multiples of one step qparams in which they are exact.

    Images and other quantized signals come from 8 bits: x = step * (code - zero_point), and a range that was seen is rarely
    the whole of theirs, so that its own scale would round every number. Where all samples kept by calibration lie on such a
    grid, 0 does too, and the calibrated range has at most 256 of its points, the scale is the step, or the smallest of its
    parts that suffices. Codes that are left over extend the end that fewer samples reach. Inputs in ``int16``, and those with
    qparams, are left alone, as is all where ``qspec`` has symmetric activations. Reads
    ctx.resources["collected_statistics"], of calibrate.
    """

    name = "match-grid"
    stage = "annotated"
    requires = ("has_ranges",)
    exactness = "approximate"
    qspec: str = ""
    int16: tuple[str, ...] = ()

    def run(self, graph: Graph, ctx: PassContext) -> PassResult:
        """Set qparams on types of inputs, and the range that they hold."""
        statistics, notes = ctx.resources.get("collected_statistics"), list[Note]()
        if statistics is None or QSpec.parse(self.qspec).activations != "asymmetric":
            return PassResult(False)
        samples, wide = statistics.sketch.batch(), wide_values(graph, self.int16)
        for value in graph.inputs:
            if value.range is None or value.type.qparams is not None or value.name in wide:
                continue
            seen = value.range
            qparams = grid_qparams(samples[value.name], seen) if value.name in samples else None
            if qparams is not None:
                _adopt(value, qparams)
                step, zero_point = qparams.scale[0], qparams.zero_point
                before = _decibels(samples[value.name], seen)
                reason = (
                    f"samples are multiples of {step:.9g}; zero_point {zero_point} makes them exact, "
                    f"where the range that was seen gives the input {before:.1f} dB"
                )
                notes.append(Note(value.name, self.name, True, reason))
        if not notes:
            return PassResult(
                False, (Note(graph.inputs[0].name, self.name, False, "no input lies on a grid"),)
            )
        return PassResult(True, tuple(notes))


def grid_qparams(samples: NDArray[np.floating], seen: tuple[float, float]) -> QParams | None:
    """s8 qparams that hold ``samples``, [N, ...], exactly, and all of ``seen`` to a step; None where there are none."""
    levels = np.unique(samples).astype(np.float64)
    if not _FEWEST <= len(levels) <= _CODES or not np.isfinite(levels).all():
        return None
    step = _step(levels)
    if step is None:
        return None
    lowest, highest = (round(end / step) for end in (min(*seen, 0.0), max(*seen, 0.0)))
    if not 0 < highest - lowest < _CODES:
        return None
    finer = (_CODES - 1) // (highest - lowest)  # what lies between points of a coarse grid needs codes too
    step, lowest, highest = step / finer, lowest * finer, highest * finer
    if step < SMALLEST_SCALE:
        return None
    spare = _CODES - 1 - (highest - lowest)
    rows = samples.reshape(len(samples), -1)
    reach = 0.5 * step
    at_low = np.count_nonzero(rows.min(axis=1) <= lowest * step + reach)
    at_high = np.count_nonzero(rows.max(axis=1) >= highest * step - reach)
    if lowest < 0 and at_low < at_high:
        lowest -= spare
    return QParams((float(np.float32(step)),), -_CODES // 2 - lowest)


def _step(levels: NDArray[np.float64]) -> float | None:
    """The step that all ``levels``, sorted, are multiples of."""
    step = float(np.diff(levels).min())
    # its float32 rounding errors do not add up over the whole span
    span = float(levels[-1] - levels[0])
    step = span / round(span / step)
    multiples = levels / step
    return step if np.abs(multiples - np.rint(multiples)).max() <= _NEAR else None


def _decibels(samples: NDArray[np.floating], seen: tuple[float, float]) -> float:
    """SQNR of ``samples`` in the codes of the range that was seen."""
    x = samples.astype(np.float64)
    error = fake_quantize(x, QSpec().activation(*seen)) - x
    return decibels(float((error**2).sum()) / max(float((x**2).sum()), 1e-300))


def _adopt(value: Value, qparams: QParams) -> None:
    value.type, value.range = value.type.with_qparams(qparams), qparams.range
