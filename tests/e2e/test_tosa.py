"""TOSA text: IREE, which shares nothing with qcc, computes the bytes of the interpreter from it."""

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from iree import assert_same_bytes
from kernel_cases import odd_cases, registry_cases
from kernel_harness import case_inputs, float_graph, integer_graph, wide_softmax

from qcc import calibration_data, float_runtime, onnx_importer
from qcc.ir.builder import Builder
from qcc.ir.errors import QccError
from qcc.ir.graph import Graph
from qcc.ir.op import Case
from qcc.ir.ops.softmax import Softmax
from qcc.ir.types import f32
from qcc.passes.base import PassContext
from qcc.passes.manager import run_pipeline
from qcc.tosa_exporter import export_tosa

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def refusal(case: tuple[str, Case]) -> str | None:
    """What the export says against the integer form of one op, or None."""
    try:
        export_tosa(integer_graph(float_graph([case]), case_inputs([case])))
    except QccError as error:
        return str(error)
    return None


@pytest.mark.parametrize("seed", [0, 1])
def test_every_op_that_is_written_has_the_bytes_of_the_interpreter(seed: int, tmp_path: Path) -> None:
    cases = odd_cases(seed, each=4) if seed else list(registry_cases())
    written = [c for c in cases if refusal(c) is None]
    print([c[0] for c in cases if c not in written])
    assert_same_bytes(integer_graph(float_graph(written), case_inputs(written)), tmp_path)


def planned(model: Path, calibration: object) -> Graph:
    graph = onnx_importer.import_model(model, {})
    data = calibration_data.load_calibration(calibration, graph.inputs)  # type: ignore[arg-type]
    resources = {"calibration": data, "observer_factory": float_runtime.observer}
    return run_pipeline(graph, "float,quantize", PassContext(resources))


def test_softmax_of_accumulators(tmp_path: Path) -> None:
    assert_same_bytes(wide_softmax(), tmp_path, samples=20)


def test_softmax_whose_sum_needs_more_than_32_bits(tmp_path: Path) -> None:
    graph = Graph("long")
    x = graph.add_input("x", f32(1, 3, 1000))
    graph.add_output(Builder(graph).emit(Softmax(2), x, name="y"), "y")
    samples = {"x": np.random.default_rng(0).uniform(-0.3, 0.3, (4, 3, 1000)).astype(np.float32)}
    assert_same_bytes(integer_graph(graph, samples), tmp_path)


def test_digits(tmp_path: Path) -> None:
    assert_same_bytes(planned(EXAMPLES / "digits.onnx", EXAMPLES / "digits_calib.npz"), tmp_path, samples=6)


@pytest.mark.parametrize("name", ["kws", "ic"])
def test_zoo(name: str, zoo: ModuleType, tmp_path: Path) -> None:
    model = zoo.load(name)
    assert_same_bytes(planned(model.model, model.calib[:20]), tmp_path)
