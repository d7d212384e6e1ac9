"""Nodes in float between integer ones: sums may be added in another order, so libraries are compared step by step."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import qcc
from qcc.backends.c import run
from qcc.verify import first_diverging_step

pytestmark = pytest.mark.compiler
SAMPLES = 48


@pytest.fixture(scope="module")
def island() -> qcc.CompiledModel:
    """Three convolutions, the middle one in float: 576 products in each of its sums."""
    rng = np.random.default_rng(0)
    nodes, initializers = [], []
    for index, (inputs, outputs) in enumerate([(3, 64), (64, 64), (64, 16)]):
        w = rng.normal(size=(outputs, inputs, 3, 3)) / np.sqrt(9 * inputs)
        initializers.append(numpy_helper.from_array(w.astype(np.float32), f"w{index}"))
        source = "x" if index == 0 else f"r{index - 1}"
        nodes.append(helper.make_node("Conv", [source, f"w{index}"], [f"c{index}"], pads=[1] * 4))
        nodes.append(helper.make_node("Relu", [f"c{index}"], [f"r{index}"]))
    given, result = (
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, channels, 8, 8])
        for name, channels in (("x", 3), ("r2", 16))
    )
    graph = helper.make_graph(nodes, "island", [given], [result], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    x = rng.normal(size=(SAMPLES, 3, 8, 8)).astype(np.float32)
    return qcc.compile(model, calibration=x, float_nodes=("c1",))


def inputs(compiled: qcc.CompiledModel) -> np.ndarray[Any, Any]:
    x = np.random.default_rng(1).normal(size=(SAMPLES, 3, 8, 8)).astype(np.float32)
    assert compiled.graph.inputs[0].name == "x"
    return x


def test_a_sum_in_another_order_is_no_error(island: qcc.CompiledModel) -> None:
    library, x = island.build(), inputs(island)
    result = island.verify(library, x)
    assert (result.samples, result.equal) == (SAMPLES, SAMPLES), result.first_difference
    q = island.quantize_input(x)
    bytes_equal = np.asarray(library.run_int8(q) == island.run_integer(q)).reshape(SAMPLES, -1).all(axis=1)
    assert not bytes_equal.all(), "these sums round to other codes: the comparison of bytes alone would fail"


def test_a_wrong_integer_step_behind_the_sum_is_found(
    island: qcc.CompiledModel, tmp_path: Path, compiler: Callable[..., Any]
) -> None:
    folder = island.save(tmp_path / "island")
    source = folder / "island.c"
    text = source.read_text(encoding="utf-8")
    planted = list(re.finditer(r"(-?\d+)(, +/\* output_zero_point \*/)", text))
    last = planted[-1]
    wrong = f"{int(last[1]) + 1}{last[2]}"
    source.write_text(text[: last.start()] + wrong + text[last.end() :], encoding="utf-8")
    x = inputs(island)[:8]
    library = qcc.api.Library(run.load(folder, compiler("gcc", "-O1"), tmp_path), island.graph)
    result = island.verify(library, x)
    assert result.equal == 0
    assert result.first_difference
    found = first_diverging_step(folder, island.graph, {"x": x})
    assert island.program.operations[-1].kernel.symbol in found or "%r2" in found, found
