"""Constants in a binary file: the same arrays as in C text, by every assembler, wherever the library is built."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qcc.backends.c.build import build_program, build_shared, library_sources, run_program
from qcc.backends.c.emit import EmitOptions, emit
from qcc.backends.c.run import load, load_traced
from qcc.backends.c.weights import TEXT_BYTES, Constants, Form
from qcc.backends.program import build_program as make_program
from qcc.backends.target import Compiler, Target, find_target
from qcc.ir import interpreter
from qcc.ir.errors import TargetError

Write = Callable[..., Path]


@pytest.fixture
def write(residual_net: Callable[[], Any], emitted: Callable[..., Any]) -> Write:
    """`write("c", "binary")`: the folder of the residual net's library for a target, with two test vectors."""

    def make(target: str = "c", weights: Form = "binary") -> Path:
        net = residual_net()
        folder, _ = emitted(net, net.samples(2), target=target, weights=weights)
        return Path(folder)

    return make


# ---------------------------------------------------------------- files
def test_assembler_text_is_golden(write: Write, golden: Callable[[str, str], None]) -> None:
    folder = write()
    for name, stored in (
        ("residual_net_weights.S", "residual_net_weights.S"),
        ("CMakeLists.txt", "CMakeLists_binary.txt"),
    ):
        text = (folder / name).read_text(encoding="utf-8")
        golden(f"c/{stored}", re.sub(r"qcc \d+\.\d+\.\d+", "qcc VERSION", text))


@pytest.mark.parametrize("name", ["c", "x86-avx512vnni"])
def test_binary_file_holds_the_arrays_of_the_c_text(name: str, write: Write) -> None:
    target = find_target(name)
    text = (write(name, "c") / "residual_net_weights.c").read_text(encoding="utf-8")
    folder = write(name)
    data = (folder / "residual_net_weights.bin").read_bytes()
    dtypes = {"int8_t": "<i1", "uint8_t": "<u1", "int16_t": "<i2", "int32_t": "<i4", "float": "<f4"}
    arrays = {}
    for c_type, array, body in re.findall(r"const (\w+) (\w+)\[\d+\] = \{(.*?)\};", text, re.DOTALL):
        numbers = [float.fromhex(n.rstrip("f")) if "x" in n else int(n) for n in re.findall(r"[^\s,]+", body)]
        arrays[array] = np.array(numbers, dtypes[c_type]).tobytes()
    listed = re.findall(
        r"^c_array (\w+), (\d+), (\d+)$",
        (folder / "residual_net_weights.S").read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    found = {array: (int(offset), int(count)) for array, offset, count in listed}
    assert {a: data[o : o + n] for a, (o, n) in found.items()} == arrays
    assert all(offset % target.alignment == 0 for offset, _ in found.values())
    assert not (folder / "residual_net_weights.c").exists()


def test_emission_is_reproducible(write: Write) -> None:
    once, again = ({p.name: p.read_bytes() for p in sorted(write().iterdir())} for _ in range(2))
    assert once == again


@pytest.mark.parametrize(("form", "size", "binary"), [
    ("auto", TEXT_BYTES, False), ("auto", TEXT_BYTES + 1, True), ("c", TEXT_BYTES + 1, False), ("binary", 1, True),
])  # fmt: skip
def test_large_constants_are_binary(form: Form, size: int, binary: bool) -> None:
    constants = Constants(16)
    constants.add(np.zeros(size, np.int8), lambda: ("a", "zeros"))
    assert constants.is_binary(form) is binary


def test_equal_arrays_are_kept_once() -> None:
    constants = Constants(64)
    ones = np.ones((3, 5), np.int8)
    first = constants.add(ones, lambda: ("a", ""))
    assert constants.add(ones.T.copy().reshape(15), lambda: ("b", "")) is first
    other = constants.add(ones.astype(np.uint8), lambda: ("c", ""))
    assert (first.offset, other.offset, constants.bytes) == (0, 64, 30)


def test_assembler_text_changes_with_the_bytes(integer_graph: Callable[..., Any], tmp_path: Path) -> None:
    """Compilers with a cache know a file by its text, and do not see what it includes."""
    texts = []
    for seed in (1, 2):
        net = integer_graph(seed)
        net.output(net.requantize(net.dense(net.input("x", 1, 8), 4, "y"), 2e4, "y"))
        program = make_program(net.graph, find_target("c"), "net")
        folder = emit(program, tmp_path / f"net{seed}", EmitOptions(weights="binary"))
        texts.append((folder / "net_weights.S").read_text(encoding="utf-8"))
    assert texts[0] != texts[1]


# ---------------------------------------------------------------- compilers
@pytest.mark.compiler
@pytest.mark.parametrize("name", ["c", "host", "x86-avx512vnni", "arm-neon", "cortex-m4"])
def test_target_equals_the_interpreter(
    name: str, write: Write, target: Callable[[str], Target], residual_net: Callable[[], Any]
) -> None:
    net = residual_net()
    samples = net.samples(6)
    got = load(write(name), target(name)).run(samples["image"])
    np.testing.assert_array_equal(got, interpreter.run(net.graph, samples)["scores"])


@pytest.mark.compiler
@pytest.mark.slow
@pytest.mark.parametrize("name", ["arm-neon", "cortex-m4"])
def test_zig_builds_cross_targets(
    name: str, write: Write, target: Callable[[str], Target], residual_net: Callable[[], Any]
) -> None:
    pytest.importorskip("ziglang", reason="the zig compiler is not installed")
    zig = replace(target(name), compilers=target(name).compilers[1:])
    net = residual_net()
    samples = net.samples(3)
    got = load(write(name), zig).run(samples["image"])
    np.testing.assert_array_equal(got, interpreter.run(net.graph, samples)["scores"])


@pytest.mark.compiler
@pytest.mark.parametrize("system", ["x86_64-windows-gnu", "x86_64-macos", "aarch64-macos"])
def test_objects_of_other_systems_link(system: str, write: Write) -> None:
    """COFF and Mach-O: zig brings their linkers and libraries."""
    pytest.importorskip("ziglang", reason="the zig compiler is not installed")
    argv = (sys.executable, "-m", "ziglang", "cc", "-fno-sanitize=undefined", "-target", system)
    zig = replace(find_target("c"), compilers=(Compiler(argv, ""),), flags=("-O1",))
    folder = write()
    assert build_program(folder, zig, [folder / "test_main.c"]).is_file()


@pytest.mark.compiler
@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_library_assembles_without_warnings(
    compiler: str, write: Write, compiler_target: Callable[..., Target]
) -> None:
    strict = compiler_target(compiler, "-O1", "-Wall", "-Wextra", "-pedantic", "-Werror")
    folder = write()
    main, link_flags = folder / "test_main.c", ["-Wl,--fatal-warnings"]
    program = build_program(folder, strict, [main], link_flags=link_flags)
    assert run_program(program, strict) == "residual_net: 2 of 2 test vectors passed\n"


@pytest.mark.compiler
def test_arrays_serve_cpp(write: Write) -> None:
    if shutil.which("g++") is None:
        pytest.skip("compiler g++ is not installed")
    folder = write()
    sources = [*library_sources(folder), folder / "test_main.c"]
    c, assembler = ([str(s) for s in sources if s.suffix == suffix] for suffix in (".c", ".S"))
    options = ["-std=c++17", "-O1", "-I", str(folder), "-o", str(folder / "test")]
    subprocess.run(["g++", *options, "-x", "c++", *c, "-x", "none", *assembler], check=True, timeout=300)
    assert subprocess.run([str(folder / "test")], check=False, timeout=60).returncode == 0


@pytest.mark.compiler
def test_cmake_builds_and_tests(write: Write, tmp_path: Path) -> None:
    if shutil.which("cmake") is None:
        pytest.skip("cmake is not installed")
    folder, build = write(), tmp_path / "elsewhere"
    for command in (
        ["cmake", "-S", str(folder), "-B", str(build)],
        ["cmake", "--build", str(build)],
        ["ctest", "--test-dir", str(build)],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
    assert "100% tests passed" in done.stdout


@pytest.mark.compiler
@pytest.mark.parametrize("weights", ["c", "binary"])
def test_section_of_ones_own(weights: Form, write: Write, compiler_target: Callable[..., Target]) -> None:
    if shutil.which("objdump") is None:
        pytest.skip("objdump, which comes with a compiler, is not installed")
    gcc = compiler_target(
        "gcc", "-O1", '-DRESIDUAL_NET_WEIGHTS_SECTION=__attribute__((section(".external")))'
    )
    path = build_shared(write("c", weights), gcc)
    command = ["objdump", "-h", "-j", ".external", str(path)]
    text = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    (line, flags) = text.splitlines()[-2:]
    assert int(line.split()[2], 16) > 2000
    assert "READONLY, DATA" in flags


@pytest.mark.compiler
def test_arrays_are_read_only_and_not_exported(write: Write) -> None:
    if shutil.which("nm") is None:
        pytest.skip("nm, which comes with a compiler, is not installed")
    path = str(build_shared(write(), find_target("c")))
    everything, exported = (
        subprocess.run(["nm", *options, path], capture_output=True, text=True, check=True, timeout=60).stdout
        for options in ((), ("-D", "--defined-only"))
    )
    assert " r residual_net_head_weights\n" in everything
    assert "residual_net_head_weights" not in exported


@pytest.mark.compiler
def test_traced_library_has_its_arrays(write: Write, residual_net: Callable[[], Any]) -> None:
    """Its C files get a header in front, which the assembler must not see."""
    net = residual_net()
    samples = net.samples(2)
    got = load_traced(write(), find_target("c")).run(samples["image"])
    np.testing.assert_array_equal(got["head"], interpreter.run(net.graph, samples)["scores"])


@pytest.mark.compiler
def test_missing_binary_file_is_an_error(write: Write) -> None:
    folder = write()
    (folder / "residual_net_weights.bin").unlink()
    with pytest.raises(TargetError, match=r"residual_net_weights\.bin"):
        load(folder, find_target("c"))
