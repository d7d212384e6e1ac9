"""The C files on their own: two compilers, two languages, no warning, nothing from a library."""

import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import pytest
from kernel_harness import KERNEL_FILES, RUNTIME, WARNINGS, Compiler

from qcc.backends.scalar.float_elementwise import FUNCTIONS, OPERATIONS
from qcc.backends.scalar.products import F32_BLOCK
from qcc.backends.scalar.reduction import REDUCTIONS

ALLOWED_CALLS = {"memcpy", "memset"}  # what compilers make of loops
GCC = ("gcc",)
ZIG = (sys.executable, "-m", "ziglang", "cc")


def needs(command: Sequence[str]) -> None:
    found = find_spec("ziglang") is not None if command is ZIG else shutil.which(command[0]) is not None
    if not found:
        pytest.skip(f"no C compiler: {command[-2:]} is not installed")


@pytest.mark.compiler
@pytest.mark.parametrize("command", [GCC, ZIG], ids=["gcc", "zig"])
@pytest.mark.parametrize("language", [("-xc", "-std=c99"), ("-xc++", "-std=c++17")], ids=["c99", "c++17"])
def test_kernels_compile_without_a_warning(
    command: tuple[str, ...], language: tuple[str, ...], tmp_path: Path
) -> None:
    needs(command)
    # zig keeps the objects it made: the second time it compiles nothing
    flags = ("-c" if command is ZIG else "-fsyntax-only", *WARNINGS, "-Wshadow", f"-I{RUNTIME}")
    result = subprocess.run(
        [*command, *language, *flags, *map(str, KERNEL_FILES)],
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""


@pytest.mark.compiler
def test_kernels_need_no_library(compiler: Compiler) -> None:
    if shutil.which("nm") is None:
        pytest.skip("no compiler tools: nm is not installed")
    listing = subprocess.run(
        ["nm", "-u", *map(str, compiler.objects)], check=True, capture_output=True, text=True
    ).stdout
    undefined = set(re.findall(r"^ +[Uw] (\S+)$", listing, re.MULTILINE))
    # the table that position-independent code may refer to is no function
    assert undefined - ALLOWED_CALLS - {"_GLOBAL_OFFSET_TABLE_"} == set()


@pytest.mark.compiler
def test_kernels_define_their_function_and_no_data(compiler: Compiler) -> None:
    if shutil.which("nm") is None:
        pytest.skip("no compiler tools: nm is not installed")
    listing = subprocess.run(
        ["nm", *map(str, compiler.objects)], check=True, capture_output=True, text=True
    ).stdout
    functions = re.findall(r" T (\S+)$", listing, re.MULTILINE)
    assert sorted(functions) == sorted(f"qcc_{path.stem}" for path in compiler.objects)
    assert re.findall(r" [DdBbC] (\S+)$", listing, re.MULTILINE) == []


def test_kernels_include_only_the_allowed_headers() -> None:
    for path in [*KERNEL_FILES, *RUNTIME.glob("*.h")]:
        included = re.findall(r"#include <(.*)>", path.read_text())
        threads = {"pthread.h"} if path.name == "qcc_threads.h" else set()
        assert set(included) <= {"stdint.h", "stddef.h", *threads}, path.name


def test_enums_agree_with_their_tables() -> None:
    header = (RUNTIME / "qcc_float.h").read_text()
    for name, expected in (
        ("qcc_f32_function", FUNCTIONS),
        ("qcc_f32_operation", OPERATIONS),
        ("qcc_f32_reduction", tuple(f"reduce_{r}" for r in REDUCTIONS)),
    ):
        found = re.search(r"typedef enum \{([^}]*)\} " + name + ";", header)
        assert found is not None
        text = re.sub(r"/\*.*?\*/", "", found[1])
        assert tuple(re.findall(r"QCC_(\w+)", text)) == tuple(e.upper() for e in expected)


def test_block_size_agrees_with_the_header() -> None:
    header = (RUNTIME / "qcc_float.h").read_text()
    assert f"#define QCC_F32_BLOCK {F32_BLOCK}\n" in header
