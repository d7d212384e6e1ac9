"""Real models from ONNX to C: proofs, bytes, memory, accuracy, and every stage as text."""

import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import qcc
from qcc import driver, float_runtime, metrics
from qcc.backends.c import run
from qcc.ir import interpreter
from qcc.ir.compare import first_difference
from qcc.ir.graph import Graph
from qcc.ir.parser import load_graph
from qcc.ir.printer import print_graph, save_graph
from qcc.ir.types import DType
from qcc.options import CompileOptions
from qcc.passes.base import PassContext
from qcc.passes.manager import run_pipeline

SMALL = ["kws", "ic", "vww", "ad"]
LARGE = [
    pytest.param(name, marks=pytest.mark.slow)
    for name in ("resnet20", "squeezenet", "mobilenetv2", "ultraface_rfb320")
]
SAMPLES = 12
Subjects = Callable[[str], Any]


@pytest.mark.compiler
@pytest.mark.parametrize("name", [*SMALL, *LARGE])
def test_compiled_c_equals_the_interpreter(
    name: str, zoo_subject: Subjects, compiler: Callable[..., Any], tmp_path: Path
) -> None:
    subject = zoo_subject(name)
    samples = subject.quantized(SAMPLES)
    expected = subject.compiled.run_integer(samples)
    got = run.load(subject.folder, compiler("gcc", "-O3"), tmp_path).run(samples)
    for output, array in expected.items():
        np.testing.assert_array_equal(got[output], array)


@pytest.mark.compiler
@pytest.mark.parametrize("name", [*SMALL, *LARGE])
def test_library_runs_clean_under_sanitizers(
    name: str, zoo_subject: Subjects, compiler: Callable[..., Any], tmp_path: Path
) -> None:
    """Sanitized code cannot be loaded into this process, so it runs as a program."""
    subject = zoo_subject(name)
    target = compiler("gcc", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    meta = run.read_metadata(subject.folder)
    program = run.Emulated(run.build_batch(subject.folder, target, meta, tmp_path), meta, target)
    samples = subject.quantized(2)
    expected = subject.compiled.run_integer(samples)
    for output, array in program.run(samples).items():
        np.testing.assert_array_equal(array, expected[output])


@pytest.mark.compiler
@pytest.mark.qemu
@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "name"), [(t, n) for t in ("arm-neon", "cortex-m4") for n in ("kws", "ic")]
)
def test_emulated_target_equals_the_interpreter(
    target: str, name: str, zoo: ModuleType, runnable: Callable[[str], Any]
) -> None:
    runnable(target)
    entry = zoo.load(name)
    compiled = qcc.compile(entry.model, target=target, calibration=entry.calib[:100])
    samples = compiled.quantize_input(entry.x[:2])
    np.testing.assert_array_equal(compiled.build().run_int8(samples), compiled.run_integer(samples))


@pytest.mark.compiler
@pytest.mark.parametrize("name", ["kws", "ad"])
def test_float_boundary_gives_the_same_integers(
    name: str, zoo: ModuleType, runnable: Callable[[str], Any]
) -> None:
    runnable("c")
    entry = zoo.load(name)
    compiled = qcc.compile(entry.model, calibration=entry.calib[:100], io="float")
    expected = compiled.dequantize_output(compiled.run_integer(compiled.quantize_input(entry.x[:SAMPLES])))
    np.testing.assert_array_equal(compiled.build().run(entry.x[:SAMPLES]), expected)


@pytest.mark.compiler
@pytest.mark.parametrize("name", [*SMALL, *LARGE])
def test_float32_library_equals_onnxruntime(
    name: str, zoo: ModuleType, runnable: Callable[[str], Any]
) -> None:
    runnable("c")
    entry = zoo.load(name)
    compiled = qcc.compile(entry.model, precision="float32")
    inputs = {compiled.graph.inputs[0].name: entry.x[:2]}
    expected = float_runtime.run_onnx(entry.model, inputs)
    for output, array in compiled.build().run(inputs).items():
        wanted = expected[output].reshape(array.shape)
        np.testing.assert_allclose(array, wanted, rtol=0, atol=1e-4 * float(np.abs(wanted).max()))


MEASURED_SQNR_DB = {  # of each output against float32, on the first 100 test samples
    "kws": [27.0],
    "ic": [27.4],
    "vww": [29.9],
    "ad": [42.0],
    "resnet20": [27.3],
    "squeezenet": [17.7],
    "mobilenetv2": [17.0],
    "ultraface_rfb320": [43.5, 45.5],
}
ALLOWED_LOSS_DB = 2.0  # to another version of the float runtime, or another observer


@pytest.mark.parametrize("name", [*SMALL, *LARGE])
def test_integers_follow_float(name: str, zoo_subject: Subjects) -> None:
    subject = zoo_subject(name)
    inputs = subject.inputs(100)
    integers = subject.compiled.dequantize_output(subject.compiled.run_integer(subject.quantized(100)))
    reference = float_runtime.run_onnx(subject.entry.model, inputs)
    for measured, (output, array) in zip(MEASURED_SQNR_DB[name], integers.items(), strict=True):
        assert metrics.sqnr_db(reference[output].reshape(array.shape), array) >= measured - ALLOWED_LOSS_DB


# ---------------------------------------------------------------------- memory and channels
@pytest.mark.parametrize(("name", "limit"), [("kws", 17_000), ("ic", 50_000), ("vww", 56_000), ("ad", 1_000)])
def test_arena_is_small(name: str, limit: int, zoo_subject: Subjects) -> None:
    plan = zoo_subject(name).compiled.program.plan
    assert plan.lower_bound_bytes <= plan.arena_bytes <= limit


def wide_channels(graph: Graph) -> int:
    """Channels that are requantized to 16 bits, or from the 64-bit sums of products with them."""
    wide = (
        n
        for n in graph.nodes
        if n.op.name == "requantize"
        and (n.output.type.dtype is DType.S16 or n.input(0).type.dtype is DType.S64)
    )
    return sum(n.input(1).type.elements for n in wide)


@pytest.mark.parametrize("name", [*SMALL, *LARGE])
def test_every_requantize_is_certified(name: str, zoo_subject: Subjects) -> None:
    compiled = zoo_subject(name).compiled
    proof = compiled.compilation.proof
    # of 16 bits, requantization is computed in integers everywhere: nothing has to be certified
    assert proof.certified == proof.channels - wide_channels(compiled.graph) > 0
    assert proof.accumulator_bits <= 32


def test_removing_dead_channels_keeps_every_byte(zoo_subject: Subjects) -> None:
    """About 1,730 of the 2,738 channels of vww hold one value for every input."""
    subject = zoo_subject("vww")
    options = CompileOptions(corrections=False, observer="observer=min-max")
    made = driver.compile_graph(subject.entry.model, subject.entry.calib[:100], options)
    float_graph, smaller = made.float_graph, made.graph
    text = driver.quantize_pipeline(options)
    assert text.endswith(",remove-dead-channels")
    resources = {
        "calibration": [{float_graph.inputs[0].name: subject.entry.calib[:100]}],
        "observer_factory": float_runtime.observer,
    }
    whole = run_pipeline(
        float_graph.clone(), text.removesuffix(",remove-dead-channels"), PassContext(resources)
    )
    channels = [weighted_channels(graph) for graph in (whole, smaller)]
    assert channels[0] == 2738
    assert channels[0] - channels[1] >= 1600
    assert channels[0] - weighted_channels(subject.compiled.graph) >= 1600  # corrections revive few of them
    samples = subject.quantized(40)
    expected = interpreter.run(whole, samples)
    for output, array in interpreter.run(smaller, samples).items():
        np.testing.assert_array_equal(array, expected[output])


def weighted_channels(graph: Graph) -> int:
    return sum(n.output.type.shape[-1] for n in graph.nodes if n.op.quant_rule().weight is not None)


# ---------------------------------------------------------------------- stages as text
@pytest.mark.parametrize("name", [*SMALL, *LARGE])
def test_every_stage_survives_the_text(name: str, zoo: ModuleType, tmp_path: Path) -> None:
    """Parsed and printed again: the same text and the same arrays; float and planned graphs give the same bits."""
    entry = zoo.load(name)
    dumps = tmp_path / "dumps"
    compiled = qcc.compile(entry.model, calibration=entry.calib[:4], dump_after="all", dump_folder=dumps)
    stage = re.compile(r"graph @.+ stage\((\w+)\) \{")
    last = {}
    for path in sorted(dumps.rglob("*.qir")):
        with path.open(encoding="utf-8") as text:
            found = stage.match(text.readline())
        assert found is not None
        if (
            found[1] != "float" or path.parent.name == driver.FLOAT_STAGE
        ):  # corrections make another float graph of it
            last[found[1]] = path
    assert list(last) == ["float", "annotated", "integer", "planned"]
    graphs = {name: load_graph(path) for name, path in last.items()}
    for name, graph in graphs.items():
        assert print_graph(graph)[0] == last[name].read_text(encoding="utf-8")
        save_graph(graph, tmp_path / "again.qir")
        assert first_difference(graph, load_graph(tmp_path / "again.qir")) is None
    x = {compiled.graph.inputs[0].name: entry.x[:2]}
    xq = compiled.quantize_input(x)
    for graph, parsed, inputs in (
        (compiled.compilation.float_graph, graphs["float"], x),
        (compiled.graph, graphs["planned"], xq),
    ):
        expected = interpreter.run(graph, inputs)
        for output, array in interpreter.run(parsed, inputs).items():
            np.testing.assert_array_equal(array, expected[output])
