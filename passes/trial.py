"""What a float graph would be once it is quantized: its error after a calibration on few samples."""

from __future__ import annotations

from qcc.ir.graph import Graph
from qcc.passes.base import PassContext
from qcc.passes.calibrate import Calibrate
from qcc.passes.choose_qparams import ChooseQParams
from qcc.passes.graph_error import Arrays, GraphError


def trial_noise(
    graph: Graph,
    error: GraphError,
    samples: Arrays,
    ctx: PassContext,
    choices: ChooseQParams,
    observer: str = "min-max",
) -> float:
    """``error.noise`` of ``graph``, which stays as it is, calibrated on ``samples``; ``choices`` finds the qparams."""
    shared = {k: v for k, v in ctx.resources.items() if k == "observer_factory"}
    trial = PassContext({**shared, "calibration": [samples]})
    copy = graph.clone()
    Calibrate(observer=observer).run(copy, trial)
    choices.run(copy, trial)
    return error.noise(copy)
