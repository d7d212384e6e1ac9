"""What a TVM target writes, and what it says where there is no TVM."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from planned_steps import Layer, Net

from qcc.backends.c.build import find_compiler
from qcc.backends.program import build_program
from qcc.backends.target import Target, find_target
from qcc.backends.tvm import generate
from qcc.ir.errors import TargetError

Emitted = Callable[..., Any]
LAYERS = (
    Layer(8, 70, (3, 3), size=(4, 4), pads=(1, 1, 1, 1), residual="add"),
    Layer(32, 32, (3, 3), size=(5, 8), pads=(1, 1, 1, 1), groups=32),
)


@pytest.mark.parametrize("name", ["tvm:x86-avx512vnni", "tvm:arm-neon-dotprod"])
def test_objects_need_no_runtime(name: str, emitted: Emitted, tmp_path: Path) -> None:
    target = find_target(name)
    compiler = find_compiler(target)
    if compiler is None:
        pytest.skip(f"no compiler for {name} is installed")
    folder, _ = emitted(Net(LAYERS, 1), target)
    command = [*compiler.argv, "-c", str(folder / "layers_kernels.s"), "-o", str(tmp_path / "k.o")]
    subprocess.run(command, check=True)
    done = subprocess.run(["nm", "-u", str(tmp_path / "k.o")], capture_output=True, text=True, check=True)
    assert set(done.stdout.replace("U ", "").split()) <= {"memset", "memcpy"}


def test_folder_is_built_by_cmake_alone(emitted: Emitted, vnni: Target, tmp_path: Path) -> None:
    """Nothing of Python or TVM is in the environment; the driver's header, and the checks against the interpreter's vectors."""
    if shutil.which("cmake") is None:
        pytest.skip("cmake is not installed")
    net = Net(LAYERS, 1)
    folder, _ = emitted(net, vnni, net.samples(2))
    build = tmp_path / "build"
    for command in (
        ["cmake", "-S", str(folder), "-B", str(build)],
        ["cmake", "--build", str(build)],
        ["ctest", "--test-dir", str(build), "--output-on-failure"],
    ):
        done = subprocess.run(
            command, check=True, capture_output=True, text=True, env={"PATH": os.environ["PATH"]}
        )
    assert "100% tests passed" in done.stdout
    symbols = subprocess.run(["nm", str(build / "liblayers.a")], capture_output=True, text=True, check=True)
    assert "T layers_run" in symbols.stdout
    assert "TVM" not in symbols.stdout


def test_header_is_that_of_the_backend_in_c(emitted: Emitted) -> None:
    """The same declarations: an application does not see which one it was."""
    net = Net(LAYERS, 1)
    texts = []
    for name in ("tvm:x86-avx512vnni", "x86-avx512vnni"):
        folder, _ = emitted(net, find_target(name))
        text = re.sub(r"/[*].*?[*]/", "", (folder / "layers.h").read_text(), flags=re.DOTALL)
        texts.append([line for line in text.splitlines() if line.strip() and "ARENA_" not in line])
    assert texts[0] == texts[1]


def test_threads_are_refused() -> None:
    net = Net(LAYERS, 1)
    with pytest.raises(TargetError, match="kernels of target tvm are compiled for one thread"):
        build_program(net.graph, find_target("tvm"), "layers", threads=2)


def test_files_are_the_same_every_time(emitted: Emitted) -> None:
    target = find_target("tvm:x86-avx512vnni")
    first, second = (
        {p.name: p.read_bytes() for p in emitted(Net(LAYERS, 1), target)[0].glob("layers_kernels.*")}
        for _ in range(2)
    )
    assert sorted(first) == ["layers_kernels.h", "layers_kernels.s"]
    assert first == second


def test_missing_tvm_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    generate.require_tvm.cache_clear()
    monkeypatch.setattr(generate, "find_spec", lambda name: None)
    with pytest.raises(TargetError, match="TVM is not installed") as caught:
        generate.require_tvm()
    assert "pip install 'qcc[tvm]'" in str(caught.value)


def test_tvm_that_crashes_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    generate.require_tvm.cache_clear()
    monkeypatch.setattr(generate, "SELF_TEST", "import os; os.abort()")
    with pytest.raises(TargetError, match="fails its self-test"):
        generate.require_tvm()
    generate.require_tvm.cache_clear()


def test_plain_name_is_the_target_of_this_kind_of_machine() -> None:
    plain, full = find_target("tvm"), find_target("tvm:x86-avx512vnni")
    assert plain.kernels == full.kernels
    assert plain.features == full.features
