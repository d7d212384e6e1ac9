"""observer=auto: its choices are kept where the outputs are better off with them than with extremes."""

import pytest
from quantized_nets import Net, Samples

from qcc.ir.graph import Graph
from qcc.passes.base import PassContext
from qcc.passes.calibrate import Calibrate
from qcc.passes.choose_qparams import ChooseQParams
from qcc.passes.extremes import prefer_extremes
from qcc.passes.graph_error import GraphError


def calibrated() -> tuple[Graph, Samples]:
    net = Net(1, 6, 6, 3, seed=2)
    x = net.relu(net.conv(net.x, 8))
    graph = net.finish(net.conv(x, 4, name="y"))
    samples = net.samples(16)
    Calibrate().run(graph, PassContext({"calibration": [samples]}))
    graph.stage = "float"
    return graph, samples


def noise(graph: Graph, samples: Samples) -> float:
    copy, ctx = graph.clone(), PassContext({"correction_samples": samples})
    copy.stage = "annotated"
    error = GraphError.of(graph, ctx)
    assert error is not None
    ChooseQParams().run(copy, ctx)
    return error.noise(copy)


@pytest.mark.parametrize("factor", [0.2, 8.0])
def test_the_better_ranges_are_kept(factor: float) -> None:
    """Whatever is given as the other ranges: much too narrow or much too wide ones lose, on both sides."""
    graph, samples = calibrated()
    good = {v.name: v.range for v in (*graph.inputs, *(n.output for n in graph.nodes)) if v.range}
    bad = {name: (low * factor, high * factor) for name, (low, high) in good.items()}
    ctx = PassContext({"correction_samples": samples})
    best = noise(graph, samples)
    kept = graph.clone()
    note = prefer_extremes(kept, bad, "", ctx)
    assert note is not None
    assert not note.applied
    assert noise(kept, samples) == best
    spoilt = graph.clone()
    for value in (*spoilt.inputs, *(n.output for n in spoilt.nodes)):
        if value.name in bad:
            value.range = bad[value.name]
    note = prefer_extremes(spoilt, good, "", ctx)
    assert note is not None
    assert note.applied
    assert noise(spoilt, samples) == best


def test_without_samples_nothing_is_compared() -> None:
    graph, _ = calibrated()
    assert prefer_extremes(graph, {}, "", PassContext({})) is None


def test_outputs_keep_their_extremes_with_auto() -> None:
    net = Net(1, 6, 6, 3, seed=2)
    graph = net.finish(net.conv(net.relu(net.conv(net.x, 8)), 4, name="y"))
    samples = net.samples(64)
    samples["x"][0] *= 20  # an outlier that other observers would cut
    ranges = {}
    for observer in ("auto", "min-max"):
        copy = graph.clone()
        Calibrate(observer=observer).run(copy, PassContext({"calibration": [samples]}))
        ranges[observer] = copy.outputs[0].range
    assert ranges["auto"] == ranges["min-max"]
