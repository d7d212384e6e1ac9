"""Programs for threads: the same bytes however many compute them, and one thread where that is faster."""

import ctypes
import json
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "kernels"))
from kernel_cases import odd_cases
from kernel_harness import case_inputs, float_graph
from kernel_harness import integer_graph as planned_graph

import qcc
from qcc.backends import parallel
from qcc.backends.c.build import build_program as build_executable
from qcc.backends.c.build import build_shared, run_program
from qcc.backends.c.emit import EmitOptions, emit
from qcc.backends.c.run import Library, load, load_traced
from qcc.backends.program import Program
from qcc.backends.program import build_program as make_program
from qcc.backends.split import ranges
from qcc.backends.target import Target, find_target
from qcc.ir import interpreter
from qcc.ir.errors import QccError, TargetError
from qcc.ir.graph import Graph
from qcc.ir.op import OPS, Case
from qcc.ir.ops.rearrange import Concat
from qcc.options import CompileOptions

Array = np.ndarray[Any, Any]


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads share every step that can be split, however small it is."""
    for name in ("BARRIER_CYCLES", "RUN_CYCLES", "RUN_SHARE"):
        monkeypatch.setattr(parallel, name, -1e12)


def library(graph: Graph, target: Target, threads: int, folder: Path) -> tuple[Library, Program]:
    program = make_program(graph, target, "net", threads=threads)
    built = load(emit(program, folder / f"{target.name}{threads}"), target)
    assert isinstance(built, Library)
    return built, program


def shared(program: Program) -> set[tuple[str, str]]:
    """Kernels whose calls have parts, and what the parts are."""
    return {(op.kernel.symbol, op.parts[0].extent[0]) for op in program.operations if op.parts}


def assert_same(got: Mapping[str, Array], expected: Mapping[str, Array]) -> None:
    for name, array in expected.items():
        np.testing.assert_array_equal(got[name], array, err_msg=name)


def many_layers(integer_graph: Callable[..., Any], seed: int) -> Any:
    """Convolutions of all strides, paddings and dilations, residuals in place, sums, products, a concatenation."""
    net = integer_graph(seed, "many")
    x = net.input("x", 1, 13, 9, 5)
    outputs = []
    for index, (kernel, strides, pads, dilations) in enumerate(
        (
            ((3, 3), (1, 1), (1, 1, 1, 1), (1, 1)),
            ((3, 3), (2, 2), (1, 0, 1, 1), (1, 1)),
            ((1, 1), (1, 1), (0, 0, 0, 0), (1, 1)),
            ((1, 1), (2, 3), (0, 0, 0, 0), (1, 1)),
            ((5, 2), (3, 1), (2, 1, 2, 0), (2, 3)),
            ((3, 3), (1, 1), (6, 1, 5, 1), (1, 1)),  # rows of the result that see padding only
            ((13, 1), (1, 1), (0, 0, 0, 0), (1, 1)),  # one row
        )
    ):
        geometry = {"strides": strides, "pads": pads, "dilations": dilations}
        a = net.requantize(net.conv2d(x, 20, kernel, f"c{index}", **geometry), 2e4, f"c{index}")
        d = net.conv2d(a, 20, (3, 3), f"d{index}", pads=(1, 1, 1, 1), groups=20)
        d = net.requantize(net.residual(d, a, f"d{index}", minus=index % 2 == 1), 4e5, f"d{index}")
        outputs.append(d)
    summed = net.requantize(net.add(outputs[0], outputs[2], "sum", per_channel=True), 1e6, "sum")
    product = net.requantize(net.mul(summed, (20,), "product"), 1e5, "product")
    shifted = net.requantize(net.add_constant(product, (13, 9, 1), "shifted", swap=True), 1e6, "shifted")
    assert shifted.type.qparams is not None
    joined = net.builder.emit(Concat(3), shifted, shifted, name="joined", qparams=shifted.type.qparams)
    head = net.requantize(net.dense(net.reshape(joined, 1, 13 * 9 * 40), 37, "head"), 3e5, "head")
    for value in (*outputs[1:2], *outputs[3:], joined, head):
        net.output(value)
    return net


# ---------------------------------------------------------------- splitting
@pytest.mark.parametrize(
    ("extent", "threads", "grain"), [(7, 2, 1), (7, 3, 1), (2, 5, 1), (200, 3, 64), (1, 4, 8)]
)
def test_ranges_cover_everything_once(extent: int, threads: int, grain: int) -> None:
    found = ranges(extent, threads, grain)
    assert [i for start, end in found for i in range(start, end)] == list(range(extent))
    assert all(start % grain == 0 for start, _ in found)
    units = Counter(-(-(end - start) // grain) for start, end in found)
    assert max(units) - min(units) <= 1
    assert len(found) <= threads


@pytest.mark.compiler
@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("threads", [2, 3, 5])
def test_threads_give_the_bytes_of_the_interpreter(
    threads: int, integer_graph: Callable[..., Any], tmp_path: Path
) -> None:
    net = many_layers(integer_graph, threads)
    samples = net.samples(4)
    built, program = library(net.graph, find_target("c"), threads, tmp_path)
    assert_same(built.run(samples), interpreter.run(program.graph, samples))
    assert shared(program) == {
        ("qcc_s8_conv2d_scalar", "rows"),
        ("qcc_s8_conv2d_scalar", "pixels"),
        ("qcc_s8_depthwise_conv2d_scalar", "rows"),
        ("qcc_s8_depthwise_conv2d_scalar", "columns"),
        ("qcc_s8_add_scalar", "rows"),
        ("qcc_s8_mul_constant_scalar", "rows"),
        ("qcc_s8_add_constant_scalar", "rows"),
        ("qcc_concat_scalar", "rows"),
        ("qcc_s8_dense_scalar", "channels"),
    }
    built.close()
    assert_same(built.run(samples), interpreter.run(program.graph, samples))


@pytest.mark.compiler
@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("integer", [True, False])
@pytest.mark.parametrize("name", ["c", "x86-avx512vnni"])
def test_every_family_of_kernels_gives_the_same_bytes(
    name: str, integer: bool, target: Callable[[str], Target], tmp_path: Path
) -> None:
    found = target(name)
    quick = replace(found, flags=tuple("-O1" if flag == "-O3" else flag for flag in found.flags))
    cases = odd_cases(len(name))
    graph, real = float_graph(cases), case_inputs(cases)
    inputs = real
    if integer:
        graph = planned_graph(graph, real)
        rng = np.random.default_rng(0)
        inputs = {
            v.name: rng.integers(-128, 128, (1, *v.type.shape)).astype(np.int8)
            if v.type.dtype.is_integer
            else real[v.name]
            for v in graph.inputs
        }
    expected = library(graph, quick, 1, tmp_path)[0].run(inputs)
    for threads in (2, 5):
        built, program = library(graph, quick, threads, tmp_path)
        assert_same(built.run(inputs), expected)
        assert sum(bool(op.parts) for op in program.operations) > len(program.operations) / 3


@pytest.mark.compiler
@pytest.mark.usefixtures("eager")
def test_wide_layers_of_small_images(target: Callable[[str], Target], tmp_path: Path) -> None:
    """Where channels are what threads share best, and where their blocks and registers are not full."""
    rng = np.random.default_rng(0)
    cases = []
    for outputs, kernel, size in (
        (256, 3, 3),
        (200, 1, 3),
        (130, 3, 2),
        (192, 2, 4),
        (330, 1, 1),
        (64, 3, 3),
    ):
        arrays = [
            rng.normal(size=shape).astype(np.float32)
            for shape in ((1, size, size, 36), (outputs, kernel, kernel, 36), (outputs,))
        ]
        op = OPS["conv2d"](pads=(kernel // 2,) * 4)
        cases.append((f"conv{outputs}", Case(op, tuple(arrays), (False, True, True))))
    for outputs in (127, 300, 523):
        arrays = [rng.normal(size=n).astype(np.float32) for n in ((1, 70), (outputs, 70), (outputs,))]
        cases.append((f"dense{outputs}", Case(OPS["dense"](), tuple(arrays), (False, True, True))))
    graph = planned_graph(float_graph(cases), case_inputs(cases))
    inputs = {v.name: rng.integers(-128, 128, (8, *v.type.shape)).astype(np.int8) for v in graph.inputs}
    for threads in (2, 3):
        built, program = library(graph, target("x86-avx512vnni"), threads, tmp_path)
        assert_same(
            built.run(inputs), interpreter.run(program.graph, {n: x[:, 0] for n, x in inputs.items()})
        )


@pytest.mark.compiler
@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("name", ["arm-neon", "armv7-neon"])
def test_emulated_program_runs_with_threads(
    name: str, target: Callable[[str], Target], residual_net: Callable[[], Any], tmp_path: Path
) -> None:
    net = residual_net()
    samples = net.samples(3)
    found = target(name)
    program = make_program(net.graph, found, "net", threads=3)
    compiled = load(emit(program, tmp_path / "net"), found)
    np.testing.assert_array_equal(
        compiled.run(samples["image"]), interpreter.run(program.graph, samples)["scores"]
    )


@pytest.mark.zoo
@pytest.mark.compiler
@pytest.mark.slow
@pytest.mark.parametrize("name", ["kws", "ic", "vww", "ad"])
@pytest.mark.parametrize("target_name", ["c", "host"])
def test_zoo_libraries_equal_the_interpreter(
    name: str, target_name: str, zoo: ModuleType, tmp_path: Path
) -> None:
    entry = zoo.load(name)
    compiled = qcc.compile(entry.model, target_name, entry.calib[:16], threads=2)
    result = compiled.verify(compiled.build(compiled.save(tmp_path / name)), entry.x[:20])
    assert result.exact


# ---------------------------------------------------------------- emitted files
@pytest.mark.compiler
@pytest.mark.usefixtures("eager")
def test_one_thread_needs_no_threads(residual_net: Callable[[], Any], tmp_path: Path) -> None:
    if shutil.which("nm") is None:
        pytest.skip("nm, which comes with a compiler, is not installed")
    graph = residual_net().graph
    symbols = {}
    for threads in (1, 2):
        program = make_program(graph, find_target("c"), "net", threads=threads)
        path = build_shared(emit(program, tmp_path / f"net{threads}"), find_target("c"))
        listed = subprocess.run(["nm", "-D", path], check=True, capture_output=True, text=True, timeout=60)
        symbols[threads] = listed.stdout
    assert "pthread" not in symbols[1]
    assert "pool" not in symbols[1]
    assert "net_run_parallel" in symbols[2]
    assert "pthread_create" in symbols[2]


@pytest.mark.usefixtures("eager")
def test_program_for_two_threads_is_golden(
    residual_net: Callable[[], Any], golden: Callable[[str, str], None], tmp_path: Path
) -> None:
    program = make_program(residual_net().graph, find_target("c"), "residual_net", threads=2)
    folder = emit(
        program, tmp_path / "out", EmitOptions(vectors=[(np.zeros(108, np.int8), np.zeros(5, np.int8))])
    )
    for name in ("residual_net.c", "test_main.c", "CMakeLists.txt"):
        text = (folder / name).read_text(encoding="utf-8")
        golden(f"c/threads/{name}", text.replace(f"qcc {qcc.__version__}", "qcc VERSION"))


@pytest.mark.compiler
@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_library_compiles_without_a_warning(
    compiler: str,
    compiler_target: Callable[..., Target],
    integer_graph: Callable[..., Any],
    tmp_path: Path,
) -> None:
    warnings = ("-Wall", "-Wextra", "-Wconversion", "-pedantic", "-Werror")
    program = make_program(many_layers(integer_graph, 0).graph, find_target("c"), "net", threads=3)
    folder = emit(program, tmp_path / "net")
    build_shared(folder, compiler_target(compiler, *warnings))
    cpp = {"gcc": "g++", "clang": "clang++"}[compiler]
    files = sorted(map(str, folder.glob("*.c")))
    if shutil.which(cpp) is not None:
        command = [cpp, "-xc++", "-std=c++17", *warnings, "-fsyntax-only", *files]
        subprocess.run(command, check=True, timeout=300)


@pytest.mark.compiler
@pytest.mark.usefixtures("eager")
def test_program_is_free_of_data_races(
    compiler_target: Callable[..., Target], integer_graph: Callable[..., Any], tmp_path: Path
) -> None:
    net = many_layers(integer_graph, 1)
    samples = {name: np.tile(x, (25, 1, 1, 1)) for name, x in net.samples(4).items()}
    found = compiler_target("gcc", "-O1", "-g", "-fsanitize=thread")
    probe = tmp_path / "probe.c"
    probe.write_text("int main(void) { return 0; }\n")
    command = ["gcc", "-fsanitize=thread", str(probe), "-o", str(tmp_path / "probe")]
    if subprocess.run(command, check=False, capture_output=True, timeout=60).returncode != 0:
        pytest.skip("the compiler has no thread sanitizer")
    if (
        subprocess.run([str(tmp_path / "probe")], check=False, capture_output=True, timeout=60).returncode
        != 0
    ):
        pytest.skip("programs with the thread sanitizer of this compiler do not run here")
    program = make_program(net.graph, find_target("c"), "net", threads=3)
    results = interpreter.run(program.graph, samples)
    vectors = []
    for index in range(100):
        pair = np.zeros(program.input_bytes, np.int8), np.zeros(program.output_bytes, np.int8)
        for block, ports, arrays in zip(
            pair, (program.inputs, program.outputs), (samples, results), strict=True
        ):
            for port in ports:
                data = arrays[port.name][index].reshape(-1)
                block[port.offset : port.offset + data.size] = data
        vectors.append(pair)
    folder = emit(program, tmp_path / "net", EmitOptions(vectors=vectors))
    executable = build_executable(folder, found, [folder / "test_main.c"])
    assert run_program(executable, found) == "net: 100 of 100 test vectors passed\n"


# ---------------------------------------------------------------- at run time
@pytest.mark.compiler
@pytest.mark.usefixtures("eager")
def test_threads_that_cannot_start_are_an_error(residual_net: Callable[[], Any], tmp_path: Path) -> None:
    program = make_program(residual_net().graph, find_target("c"), "net", threads=2)
    folder = emit(program, tmp_path / "net")
    record = json.loads((folder / "net.json").read_text(encoding="utf-8"))
    path = build_shared(folder, find_target("c"))
    with pytest.raises(TargetError, match="cannot start 65 threads: Invalid argument"):
        Library(path, record | {"threads": 65})
    run = ctypes.CDLL(str(path)).net_run  # needs no pool
    memory = np.zeros(program.plan.arena_bytes + 512, np.uint8)
    start = memory.ctypes.data + -memory.ctypes.data % 16
    assert run(*map(ctypes.c_void_p, (start, start, start + program.plan.arena_bytes))) == 0


@pytest.mark.compiler
@pytest.mark.usefixtures("eager")
def test_trace_shows_whole_steps(residual_net: Callable[[], Any], tmp_path: Path) -> None:
    net = residual_net()
    samples = net.samples(3)
    traced = {}
    for threads in (1, 3):
        program = make_program(net.graph, find_target("c"), "net", threads=threads)
        folder = emit(program, tmp_path / f"net{threads}")
        traced[threads] = load_traced(folder, find_target("c")).run(samples)
    assert list(traced[3]) == ["stem", "depthwise", "point", "head"]
    assert_same(traced[3], traced[1])


# ---------------------------------------------------------------- what is worth it
def test_small_model_stays_on_one_thread(residual_net: Callable[[], Any], tmp_path: Path) -> None:
    program = make_program(residual_net().graph, find_target("c"), "net", threads=4)
    assert program.parts == 1
    folder = emit(program, tmp_path / "net")
    record = json.loads((folder / "net.json").read_text(encoding="utf-8"))
    assert record["threads"] == 1
    assert all(not layer["parts"] and "small" in layer["one_thread"] for layer in record["layers"])
    assert not (folder / "qcc_threads.c").exists()


@pytest.mark.compiler
def test_small_model_has_the_same_entry_points(residual_net: Callable[[], Any], tmp_path: Path) -> None:
    net = residual_net()
    samples = net.samples(2)
    built, program = library(net.graph, find_target("c"), 4, tmp_path)
    assert_same(built.run(samples), interpreter.run(program.graph, samples))
    assert hasattr(ctypes.CDLL(str(built.path)), "net_run_parallel")


def test_large_steps_are_shared_and_small_ones_are_not(integer_graph: Callable[..., Any]) -> None:
    net = integer_graph(0)
    x = net.input("x", 1, 64, 64, 16)
    a = net.requantize(net.conv2d(x, 64, (3, 3), "large", pads=(1, 1, 1, 1)), 2e4, "large")
    y = net.input("y", 1, 4, 4, 16)
    b = net.requantize(net.conv2d(y, 4, (1, 1), "small"), 2e4, "small")
    net.output(a)
    net.output(b)
    program = make_program(net.graph, find_target("c"), "net", threads=2)
    large, small = program.operations
    assert [part.extent for part in large.parts] == [("rows", 0, 32), ("rows", 32, 64)]
    assert small.parts == ()
    assert small.sharing.reason.startswith("too small: about ")


def test_output_over_an_input_is_never_split_with_a_halo(integer_graph: Callable[..., Any]) -> None:
    net = integer_graph(0)
    x = net.input("x", 1, 64, 64, 8)
    y = net.requantize(net.conv2d(x, 8, (3, 3), "y", pads=(1, 1, 1, 1)), 2e4, "y")
    net.output(y)
    kernels = tuple(replace(k, in_place=(0,)) for k in find_target("c").kernels)
    program = make_program(net.graph, replace(find_target("c"), kernels=kernels), "net", threads=2)
    assert program.operations[0].parts == ()


def test_target_without_threads_refuses(residual_net: Callable[[], Any]) -> None:
    with pytest.raises(TargetError, match="target cortex-m4 has no threads"):
        make_program(residual_net().graph, find_target("cortex-m4"), "net", threads=2)


@pytest.mark.parametrize("threads", [0, 65])
def test_number_of_threads_is_checked(threads: int) -> None:
    with pytest.raises(QccError, match=f"threads is {threads}"):
        CompileOptions(threads=threads)
