"""TOSA text: IREE, which shares nothing with qcc, computes the bytes of the interpreter from it."""

import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from iree_tools import assert_same_bytes
from kernel_cases import odd_cases, registry_cases
from kernel_harness import case_inputs, float_graph, integer_graph, wide_softmax

from qcc import calibration_data, float_runtime, onnx_importer
from qcc.cli import main
from qcc.ir.builder import Builder
from qcc.ir.errors import QccError
from qcc.ir.graph import Graph
from qcc.ir.op import Case, Op
from qcc.ir.ops.activation import Clamp
from qcc.ir.ops.conv import Conv2d
from qcc.ir.ops.conv_transpose import ConvTranspose2d
from qcc.ir.ops.dense import Dense, MatMul
from qcc.ir.ops.pool import MaxPool2d
from qcc.ir.ops.quant import Requantize
from qcc.ir.ops.softmax import Softmax
from qcc.ir.qparams import QParams
from qcc.ir.types import DType, TensorType, f32
from qcc.passes.base import PassContext
from qcc.passes.manager import PIPELINES, run_pipeline
from qcc.tosa.exporter import export_tosa

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def refusal(case: tuple[str, Case]) -> str | None:
    """What the export says against the integer form of one op, or None."""
    try:
        export_tosa(integer_graph(float_graph([case]), case_inputs([case])))
    except QccError as error:
        return str(error)
    return None


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_every_op_that_is_written_has_the_bytes_of_the_interpreter(seed: int, tmp_path: Path) -> None:
    cases = odd_cases(seed, each=4) if seed else list(registry_cases())
    written = [c for c in cases if refusal(c) is None]
    assert len(written) > len(cases) / 2
    assert_same_bytes(integer_graph(float_graph(written), case_inputs(written)), tmp_path)


def planned(model: Path, calibration: object, rounding: str = "ties_up") -> Graph:
    graph = onnx_importer.import_model(model, {})
    data = calibration_data.load_calibration(calibration, graph.inputs)  # type: ignore[arg-type]
    resources = {"calibration": data, "observer_factory": float_runtime.observer}
    steps = f"{PIPELINES['float']},{PIPELINES['quantize']}"
    steps = steps.replace("plan-accumulators", f"plan-accumulators{{rounding={rounding}}}")
    return run_pipeline(graph, steps, PassContext(resources))


def test_softmax_of_accumulators(tmp_path: Path) -> None:
    assert_same_bytes(wide_softmax(), tmp_path, samples=20)


def test_softmax_whose_sum_needs_more_than_32_bits(tmp_path: Path) -> None:
    graph = Graph("long")
    x = graph.add_input("x", f32(1, 3, 1000))
    graph.add_output(Builder(graph).emit(Softmax(2), x, name="y"), "y")
    samples = {"x": np.random.default_rng(0).uniform(-0.3, 0.3, (4, 3, 1000)).astype(np.float32)}
    assert_same_bytes(integer_graph(graph, samples), tmp_path)


@pytest.mark.parametrize("rounding", ["ties_up", "tflite"])
def test_digits(rounding: str, tmp_path: Path) -> None:
    graph = planned(EXAMPLES / "digits.onnx", EXAMPLES / "digits_calib.npz", rounding)
    assert_same_bytes(graph, tmp_path, samples=6)


@pytest.mark.parametrize("name", ["kws", "ic"])
def test_zoo(name: str, zoo: ModuleType, tmp_path: Path) -> None:
    model = zoo.load(name)
    assert_same_bytes(planned(model.model, model.calib[:20]), tmp_path)


# ---------------------------------------------------------------- text, without IREE
def test_text_is_golden(golden: Callable[[str, str], None]) -> None:
    graph = Graph('a "net"')
    b = Builder(graph)
    x = graph.add_input("im age\n", f32(1, 4, 5, 2))
    w = b.constant(np.arange(-18, 18, dtype=np.float32).reshape(2, 3, 3, 2), "w")
    y = b.emit(Conv2d((2, 2), (1, 1, 1, 1)), x, w, name="1/conv")
    graph.add_output(b.emit(Clamp(0.0), y, name="1_relu"), "result")
    samples = {x.name: np.linspace(-1, 1, 80, dtype=np.float32).reshape(2, 4, 5, 2)}
    golden("tosa/conv.mlir", export_tosa(integer_graph(graph, samples)))


def image(op: Op, *shapes: tuple[int, ...]) -> tuple[str, Case]:
    rng = np.random.default_rng(0)
    arrays = tuple(rng.normal(size=s).astype(np.float32) for s in shapes)
    return "case", Case(op, arrays, (False, *(True for _ in shapes[1:])))


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        (
            image(Conv2d(groups=2), (1, 3, 3, 4), (2, 1, 1, 2)),
            "TOSA convolutions have no groups, this one has 2",
        ),
        (image(MaxPool2d(dilations=(2, 2)), (1, 5, 5, 1)), "TOSA pools have no dilations"),
        (image(MatMul(), (1, 2, 3), (4, 3, 5)), "TOSA multiplies stacks of i8 matrices of one number, not "),
        (
            image(ConvTranspose2d(), (1, 3, 3, 2), (2, 1, 1, 2)),
            "conv_transpose2d (case.acc) has no TOSA form",
        ),
    ],
)
def test_what_tosa_lacks_is_refused(case: tuple[str, Case], reason: str) -> None:
    assert reason in str(refusal(case))


@pytest.mark.parametrize(
    ("scale", "dtype", "reason"),
    [
        (2.0**29, "s8", "RESCALE shifts by 2 bits or more, this one by 1"),
        (2.0**9, "s8", "its operand reaches 2147483648, RESCALE takes less than 2^20"),
        (2.0**-9, "s16", "works on i16: the TOSA export has i8 and i32 only"),
    ],
)
def test_requantize_that_rescale_does_not_take_is_refused(scale: float, dtype: str, reason: str) -> None:
    graph = Graph("g", "integer")
    x = graph.add_input("x", TensorType(DType.S32, (1, 4), QParams.per_tensor(scale, 0, "s32")))
    y = Builder(graph).emit(Requantize(), x, name="y", qparams=QParams.per_tensor(1.0, 0, dtype))
    graph.add_output(y)
    with pytest.raises(QccError, match=re.escape(reason)):
        export_tosa(graph)


def test_sums_that_could_leave_32_bits_are_refused() -> None:
    graph = Graph("g", "integer")
    b = Builder(graph)
    x = graph.add_input("x", TensorType(DType.S8, (1, 70_000), QParams.per_tensor(1.0, -128)))
    w = b.constant(np.full((1, 70_000), 127, np.int8), "w", QParams.per_tensor(1.0))
    graph.add_output(b.emit(Dense(x_zero_point=-128), x, w, name="y"))
    with pytest.raises(QccError, match=r"dense \(y\) .* a partial sum could leave 32 bits"):
        export_tosa(graph)
    assert "the sum over 40000 elements could leave 32 bits" in str(refusal(image(Softmax(1), (1, 40_000))))


def test_float_graph_is_told_to_quantize() -> None:
    with pytest.raises(QccError, match=r"works on f32.*\n.*float,quantize"):
        export_tosa(float_graph([image(Conv2d(), (1, 3, 3, 1), (1, 1, 1, 1))]))


def test_opt_emits_tosa_and_onnx(tmp_path: Path) -> None:
    calibrated = (
        "opt",
        str(EXAMPLES / "digits.onnx"),
        "--calib",
        str(EXAMPLES / "digits_calib.npz"),
        "--pipeline",
    )
    out = tmp_path / "digits.mlir"
    run = CliRunner()
    quantized = (*calibrated, "float,quantize", "--emit", "tosa")
    assert run.invoke(main, [*quantized, "-o", str(out)]).exit_code == 0
    assert run.invoke(main, [*quantized]).stdout == out.read_text()
    annotated = (*calibrated, "float,fuse-epilogues,calibrate,choose-qparams", "--emit", "onnx")
    assert run.invoke(main, [*annotated, "-o", str(tmp_path / "digits.onnx")]).exit_code == 0
    model = onnx.load(tmp_path / "digits.onnx")
    assert "QuantizeLinear" in {n.op_type for n in model.graph.node}
    assert "name a file with -o" in run.invoke(main, [*annotated]).output
    assert "must end in .mlir" in run.invoke(main, [*quantized, "-o", "a.qir"]).output
    assert "cannot write" in run.invoke(main, [*quantized, "-o", str(tmp_path / "none" / "a.mlir")]).output
