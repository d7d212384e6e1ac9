"""The emitted folder: reproducible, replaced whole or not at all, and an entry point that keeps its promises."""

import ctypes
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qcc.backends.c import emit as emit_module
from qcc.backends.c.build import build_program, build_shared, run_program
from qcc.backends.c.emit import EmitOptions, emit
from qcc.backends.c.run import load
from qcc.backends.program import build_program as make_program
from qcc.backends.target import find_target
from qcc.ir import interpreter
from qcc.ir.builder import Builder
from qcc.ir.errors import TargetError, VerifyError
from qcc.ir.fixedpoint import dequantize, quantize
from qcc.ir.graph import Graph
from qcc.ir.ops.shape import Reshape
from qcc.ir.qparams import QParams
from qcc.ir.types import DType, TensorType

OPTIONS = EmitOptions("model.onnx", "0123abcd", {"io": "int8"})


def texts(folder: Path) -> dict[str, str]:
    return {p.name: p.read_text(encoding="utf-8") for p in sorted(folder.iterdir())}


def test_emitted_c_is_golden(
    residual_net: Callable[[], Any], golden: Callable[[str, str], None], tmp_path: Path
) -> None:
    program = make_program(residual_net().graph, find_target("c"), "residual_net")
    files = texts(emit(program, tmp_path / "out", OPTIONS))
    for name in ("residual_net.h", "residual_net.c", "residual_net.json", "CMakeLists.txt"):
        golden(f"c/{name}", re.sub(r"qcc \d+\.\d+\.\d+", "qcc VERSION", files[name]))


def test_emission_is_reproducible(residual_net: Callable[[], Any], tmp_path: Path) -> None:
    made = []
    for name in ("a", "b"):
        program = make_program(residual_net().graph, find_target("c"), "residual_net")
        made.append(texts(emit(program, tmp_path / name, OPTIONS)))
    assert made[0] == made[1]


def test_emission_replaces_its_own_folder_only(residual_net: Callable[[], Any], tmp_path: Path) -> None:
    program = make_program(residual_net().graph, find_target("c"), "residual_net")
    folder = emit(program, tmp_path / "out", OPTIONS)
    (folder / "left_over.c").write_text("")
    emit(program, folder, OPTIONS)
    assert not (folder / "left_over.c").exists()
    other = tmp_path / "mine"
    other.mkdir()
    emit(program, other, OPTIONS)
    (tmp_path / "file").write_text("")
    with pytest.raises(TargetError, match="is a file"):
        emit(program, tmp_path / "file", OPTIONS)
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("")
    with pytest.raises(TargetError, match="is not empty and was not written by qcc"):
        emit(program, foreign, OPTIONS)


def test_failed_emission_leaves_nothing(
    residual_net: Callable[[], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = make_program(residual_net().graph, find_target("c"), "residual_net")
    folder = emit(program, tmp_path / "out", OPTIONS)
    before = texts(folder)
    plenty = emit_module._files(program, OPTIONS)
    monkeypatch.setattr(emit_module, "_files", lambda *_: {**plenty, "no/such/folder.c": ""})
    with pytest.raises(OSError, match="such"):
        emit(program, folder, OPTIONS)
    assert texts(folder) == before
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_vector_of_wrong_size_is_refused(residual_net: Callable[[], Any], tmp_path: Path) -> None:
    program = make_program(residual_net().graph, find_target("c"), "residual_net")
    vectors = [(np.zeros(3, np.int8), np.zeros(5, np.int8))]
    with pytest.raises(ValueError, match="3 bytes of inputs, expected 108"):
        emit(program, tmp_path / "out", EmitOptions(vectors=vectors))


def test_metadata_describes_ports_and_layers(residual_net: Callable[[], Any], tmp_path: Path) -> None:
    net = residual_net()
    program = make_program(net.graph, find_target("c"), "residual_net")
    meta = json.loads(
        (emit(program, tmp_path / "out", OPTIONS) / "residual_net.json").read_text(encoding="utf-8")
    )
    qparams = net.graph.inputs[0].type.qparams
    assert meta["inputs"][0] == {
        "name": "image",
        "offset": 0,
        "dtype": "s8",
        "shape": [1, 6, 6, 3],
        "bytes": 108,
        "scale": qparams.scale[0],
        "zero_point": qparams.zero_point,
    }
    assert (
        meta["macs"]
        == 36 * 8 * 27 + 36 * 8 * 9 + 36 * 8 * 8 + 288 * 5
        == sum(x["macs"] for x in meta["layers"])
    )
    assert meta["arena_bytes"] == program.plan.arena_bytes
    assert [layer["kernel"] for layer in meta["layers"]][-1] == "qcc_s8_dense_scalar"


@pytest.mark.parametrize("in_place", [True, False])
def test_residual_takes_the_memory_of_its_skip(integer_graph: Callable[..., Any], in_place: bool) -> None:
    net = integer_graph(0)
    x = net.input("x", 1, 4, 4, 1)
    a = net.requantize(net.conv2d(x, 16, (1, 1), "a"), 2e4, "a")
    b = net.requantize(net.conv2d(a, 16, (1, 1), "b"), 2e4, "b")
    c = net.requantize(net.residual(net.conv2d(b, 16, (1, 1), "c"), a, "c"), 4e5, "c")
    net.output(net.requantize(net.conv2d(c, 1, (1, 1), "d"), 2e4, "d"))
    if not in_place:
        net.output(a)  # an output must not be overwritten
    program = make_program(net.graph, find_target("c"), "net")
    a_place, c_place = (program.place(op.step.output) for op in program.operations[::2])
    assert (a_place == c_place) is in_place
    assert program.plan.arena_bytes == program.plan.lower_bound_bytes == (512 if in_place else 768 + 16)


@pytest.mark.compiler
def test_residual_of_its_own_input_keeps_it(
    integer_graph: Callable[..., Any], emitted: Callable[..., Any]
) -> None:
    net = integer_graph(0, "own")
    a = net.requantize(net.conv2d(net.input("x", 1, 4, 4, 3), 3, (1, 1), "a"), 2e4, "a")
    acc = net.residual(net.conv2d(a, 3, (3, 3), "b", pads=(1, 1, 1, 1)), a, "b")
    b = net.requantize(acc, 4e5, "b")
    net.output(net.requantize(net.add(b, b, "sum"), 2e6, "twice"))
    samples = net.samples(4)
    folder, program = emitted(net, samples)
    got = load(folder, find_target("c")).run(samples["x"])
    np.testing.assert_array_equal(got, interpreter.run(program.graph, samples)["twice"])


def test_folder_of_something_else_is_not_loaded(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(TargetError, match="holds no library written by qcc"):
        load(tmp_path, find_target("c"))


@pytest.mark.compiler
def test_run_checks_its_pointers(residual_net: Callable[[], Any], emitted: Callable[..., Any]) -> None:
    net = residual_net()
    folder, program = emitted(net, net.samples(2))
    run = ctypes.CDLL(str(build_shared(folder, find_target("c")))).residual_net_run
    memory = np.zeros(program.plan.arena_bytes + 256, np.uint8)
    start = memory.ctypes.data + -memory.ctypes.data % 16
    block = np.zeros(256, np.uint8)
    pointers = [start, block.ctypes.data, block.ctypes.data + 128]
    assert run(*map(ctypes.c_void_p, pointers)) == 0
    for index in range(3):
        missing = [None if i == index else ctypes.c_void_p(p) for i, p in enumerate(pointers)]
        assert run(*missing) == 1
    assert run(ctypes.c_void_p(start + 1), *map(ctypes.c_void_p, pointers[1:])) == 2


@pytest.mark.compiler
def test_input_and_output_may_lie_in_the_arena(
    residual_net: Callable[[], Any], emitted: Callable[..., Any]
) -> None:
    net = residual_net()
    samples = net.samples(5)
    folder, program = emitted(net, samples)
    run = ctypes.CDLL(str(build_shared(folder, find_target("c")))).residual_net_run
    memory = np.full(program.plan.arena_bytes + 64, 0x55, np.uint8)
    start = -memory.ctypes.data % 16
    arena = memory[start : start + program.plan.arena_bytes]
    expected = interpreter.run(program.graph, samples)["scores"]
    for x, y in zip(samples["image"], expected, strict=True):
        offset = program.input_arena_offset
        arena[offset : offset + 108] = x.reshape(-1).view(np.uint8)
        address = arena.ctypes.data
        places = (address, address + offset, address + program.output_arena_offset)
        assert run(*map(ctypes.c_void_p, places)) == 0
        output = arena[program.output_arena_offset :][:5].view(np.int8)
        np.testing.assert_array_equal(output, y)
    assert (memory[:start] == 0x55).all()
    assert (memory[start + arena.size :] == 0x55).all()


@pytest.mark.compiler
def test_static_arena_program_passes_its_vectors(
    residual_net: Callable[[], Any], emitted: Callable[..., Any], tmp_path: Path
) -> None:
    net = residual_net()
    folder, _ = emitted(net, net.samples(2))
    main = tmp_path / "invoke.c"
    main.write_text(
        '#include "residual_net.h"\n#include "residual_net_vectors.h"\n#include <string.h>\n'
        "int main(void) { signed char out[5];\n"
        "if (residual_net_invoke(residual_net_vector_inputs[1], out)) return 1;\n"
        "return memcmp(out, residual_net_vector_outputs[1], 5); }\n"
    )
    program = build_program(folder, find_target("c"), [main], flags=["-DRESIDUAL_NET_STATIC_ARENA"])
    assert run_program(program, find_target("c")) == ""


@pytest.mark.compiler
def test_float_boundary_converts_inside(residual_net: Callable[[], Any], emitted: Callable[..., Any]) -> None:
    net = residual_net()
    samples = net.samples(4)
    real = {"image": np.random.default_rng(0).normal(size=(4, 6, 6, 3)).astype(np.float32)}
    folder, program = emitted(net, real, io="float")
    header = (folder / "residual_net.h").read_text(encoding="utf-8")
    assert "int residual_net_run(void *arena, const float *in, float *out);" in header
    got = load(folder, find_target("c")).run(real["image"])
    x, y = (v.type.qparams for v in (net.graph.inputs[0], net.graph.outputs[0]))
    samples = {"image": quantize(real["image"], x)}
    expected = dequantize(interpreter.run(net.graph, samples)["scores"], y)
    np.testing.assert_array_equal(got, expected)
    assert [op.step.pattern for op in program.operations][:: len(program.operations) - 1] == [
        "quantize",
        "dequantize",
    ]


@pytest.mark.compiler
def test_outputs_that_no_step_computes_are_copied(
    emitted: Callable[..., Any], integer_graph: Callable[..., Any]
) -> None:
    net = integer_graph(0, "copies")
    x = net.input("x", 1, 3, 5)
    y = net.requantize(net.dense(x, 4, "y"), 2e4, "y")
    net.output(x, "same")
    net.output(net.reshape(x, 1, 15), "flat")
    net.output(y, "first")
    net.output(y, "second")
    net.output(net.builder.constant(np.array([[3, 4]], np.int8), "c", QParams.per_tensor(1.0)), "constant")
    samples = net.samples(3)
    folder, program = emitted(net, samples)
    got = load(folder, find_target("c")).run(samples)
    for name, expected in interpreter.run(program.graph, samples).items():
        np.testing.assert_array_equal(got[name], expected, err_msg=name)


@pytest.mark.compiler
def test_model_without_steps_runs(emitted: Callable[..., Any], integer_graph: Callable[..., Any]) -> None:
    net = integer_graph(0, "nothing")
    net.output(net.reshape(net.input("x", 1, 2, 3), 1, 6), "y")
    samples = net.samples(2)
    folder, _ = emitted(net, samples)
    np.testing.assert_array_equal(
        load(folder, find_target("c")).run(samples["x"]), samples["x"].reshape(2, 6)
    )


@pytest.mark.compiler
def test_wrong_inputs_are_refused(residual_net: Callable[[], Any], emitted: Callable[..., Any]) -> None:
    net = residual_net()
    samples = net.samples(2)
    folder, _ = emitted(net, samples)
    library = load(folder, find_target("c"))
    with pytest.raises(VerifyError, match=r"inputs must be \['image'\], got \['picture'\]"):
        library.run({"picture": samples["image"]})
    with pytest.raises(VerifyError, match="input image must be int8, got float32"):
        library.run(samples["image"].astype(np.float32))
    with pytest.raises(VerifyError, match="must have shape"):
        library.run(samples["image"][:, :5])


def test_integer_boundary_drops_conversions() -> None:
    graph = Graph("g", "integer")
    builder = Builder(graph)
    qparams = QParams.per_tensor(0.1, 3)
    x = graph.add_input("x", TensorType(DType.S8, (1, 4), qparams))
    graph.add_output(builder.emit(Reshape((4, 1)), x, name="y"))
    outside = make_program(graph, find_target("c"), "g", io="float")
    again = make_program(outside.graph, find_target("c"), "g", io="int8")
    assert [v.type for v in again.graph.inputs] == [x.type]
    assert [n.op.name for n in again.graph.nodes] == ["reshape"]
    with pytest.raises(ValueError, match="io must be one of"):
        make_program(graph, find_target("c"), "g", io="uint8")
