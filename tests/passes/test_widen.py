"""16 bits at the ends of a graph: only where they cost little and bring much, measured by the float runtime."""

from typing import Literal

import numpy as np
import pytest
from quantized_nets import Net, Samples

from qcc.driver import quantize_pipeline
from qcc.float_runtime import FloatRuntime
from qcc.ir import interpreter
from qcc.ir.graph import Graph
from qcc.ir.ops.reduce import ReduceMean
from qcc.ir.printer import print_graph
from qcc.options import CompileOptions
from qcc.passes.base import Note, PassContext
from qcc.passes.manager import PassManager


def network(outputs: int = 4) -> tuple[Graph, Samples]:
    """A small stem and a small head around a body that does nearly all of the work; few but large inputs matter."""
    net = Net(1, 8, 8, 1, seed=3)
    x = net.relu(net.conv(net.x, 16, 1))
    for _ in range(3):
        x = net.relu(net.conv(x, 16, 3, pads=(1, 1, 1, 1)))
    graph = net.finish(net.dense(net(ReduceMean((1, 2)), x), outputs, name="y"))
    samples = net.samples(32)["x"]
    samples[0] *= 30  # the range of the input is that of one sample
    return graph, {"x": samples}


def run(
    graph: Graph, samples: Samples, options: str = "", learn: Samples | None = None
) -> tuple[Graph, list[Note], PassContext]:
    ctx = PassContext({"calibration": [samples], "correction_samples": samples if learn is None else learn})
    own = f"{{{options}}}" if options else ""
    manager = PassManager(f"fuse-epilogues,calibrate,widen{own},choose-qparams", ctx)
    return manager.run(graph), [n for name, n in manager.notes() if name == "widen"], ctx


def noise(graph: Graph, source: Graph, samples: Samples) -> float:
    found = interpreter.run(graph, samples, fake_quant=True)["y0"]
    wanted = FloatRuntime(source).run(samples)["y0"]
    return float(((found - wanted) ** 2).sum() / (wanted**2).sum())


def dtypes(graph: Graph) -> list[str]:
    ends = (*graph.inputs, *graph.outputs)
    return [v.type.qparams.dtype for v in ends if v.type.qparams is not None]


def test_an_input_that_costs_little_is_widened_where_the_outputs_gain() -> None:
    graph, samples = network()
    wide, notes, _ = run(graph.clone(), samples)
    plain, _, _ = run(graph.clone(), samples, "share=0.0")
    assert dtypes(plain) == ["s8", "s8"]
    assert dtypes(wide)[0] == "s16"
    assert noise(wide, graph, samples) < 0.8 * noise(plain, graph, samples)
    assert notes[-1].applied
    inner = [n.output for n in wide.nodes if not n.output.fused and n.output not in wide.outputs]
    assert all(v.type.qparams is None or v.type.qparams.dtype == "s8" for v in inner)


def test_16_bits_reach_further_than_what_was_seen() -> None:
    graph, samples = network()
    wide, _, _ = run(graph, samples)
    qparams = wide.inputs[0].type.qparams
    assert qparams is not None
    assert qparams.range[1] >= 1.99 * np.abs(samples["x"]).max()


def test_what_costs_too_much_or_brings_too_little_stays() -> None:
    graph, samples = network()
    for options in ("share=0.0", "gain=1.5"):
        found, notes, _ = run(graph.clone(), samples, options)
        assert dtypes(found) == ["s8", "s8"]
        assert not any(n.applied for n in notes)


def test_without_samples_nothing_happens() -> None:
    graph, samples = network()
    found, (note,), _ = run(graph, samples, learn={})
    assert dtypes(found) == ["s8", "s8"]
    assert "no samples" in note.reason


def test_corrections_behind_it_start_anew() -> None:
    """What it measured on is no graph that later corrections may compare with."""
    graph, samples = network()
    _, _, ctx = run(graph, samples)
    assert "uncorrected" not in ctx.resources


def test_two_runs_agree() -> None:
    graph, samples = network()
    first, second = (print_graph(run(graph.clone(), samples)[0])[0] for _ in range(2))
    assert first == second


@pytest.mark.parametrize(("io", "named"), [("auto", True), ("int8", False), ("float", True)])
def test_who_asks_for_8_bits_gets_them(io: Literal["auto", "int8", "float"], named: bool) -> None:
    assert ("widen" in quantize_pipeline(CompileOptions(io=io))) is named
