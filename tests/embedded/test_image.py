"""Sizes and stack of linked libraries, against the tools that the numbers do not come from, and the size command."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from embedded_tools import require_build, require_tool

from qcc.backends.c.build import compile_sources, compiler_tool, link_alone, run_tool
from qcc.backends.c.frames import Instruction, compiled_frames, merge_loops
from qcc.backends.c.image import POINTER, calls_of, disassemble, measure, section_bytes
from qcc.backends.c.run import read_metadata
from qcc.cli import main
from qcc.ir.errors import TargetError

Digits = Callable[..., Any]
CORTEX_M = ("cortex-m0", "cortex-m4", "cortex-m55")
NAMES = ["c", "arm-neon", "cortex-m4"]


@pytest.mark.compiler
@pytest.mark.parametrize("name", NAMES)
def test_sums_are_those_of_size(name: str, digits: Digits) -> None:
    target, folder = require_build(name), digits(name).folder
    footprint = measure(folder, target, read_metadata(folder))
    image = folder / "build" / "alone" / f"{folder.name}.elf"
    line = run_tool([compiler_tool(target, "size"), str(image)]).splitlines()[1].split()
    text, data, bss = (int(field) for field in line[:3])
    assert (footprint.text + footprint.rodata, footprint.data, footprint.bss) == (text, data, bss)
    assert footprint.flash > footprint.constants > 0
    assert 0 < footprint.code < 64 * 1024
    assert footprint.deepest[0] == "digits_run"
    known = set() if name in CORTEX_M else {POINTER}  # some kernels choose a function by a table
    assert set(footprint.unmeasured) <= known


STACK = """
#include <stdint.h>
volatile int sink;
static __attribute__((noinline)) int deep(int x) { volatile char a[400]; a[x] = 1; return a[0]; }
static __attribute__((noinline)) int flat(int x) { volatile char a[40]; a[x] = 1; return a[0]; }
int stack_run(int x) { sink = flat(x); return sink + deep(x); }
int not_needed(int x) { return x / 3; }
"""


@pytest.mark.compiler
@pytest.mark.parametrize("name", NAMES)
def test_stack_is_that_of_the_deepest_calls(name: str, tmp_path: Path) -> None:
    target = require_build(name)
    (tmp_path / "stack.c").write_text(STACK, encoding="utf-8")
    found = measure(tmp_path, target, {"name": "stack", "constant_bytes": 0, "arena_bytes": 0})
    assert found.deepest == ("stack_run", "deep")
    assert 400 < found.stack < 600
    assert found.unmeasured == found.external == ()
    functions = {
        i.function for i in disassemble(tmp_path / "build" / "alone" / f"{tmp_path.name}.elf", target)
    }
    assert "not_needed" not in functions


@pytest.mark.compiler
@pytest.mark.parametrize("name", CORTEX_M)
def test_frames_from_instructions_are_those_of_the_compiler(name: str, digits: Digits) -> None:
    """The compiler says with -fstack-usage what it did."""
    target, folder = require_build(name), digits(name).folder
    measure(folder, target, read_metadata(folder))
    build_folder = folder / "build" / "alone"
    told = {}
    for file in build_folder.glob("*.su"):
        for line in file.read_text(encoding="utf-8").splitlines():
            place, size, _ = line.split("\t")
            told[place.rsplit(":", 1)[1]] = int(size)
    found = compiled_frames(disassemble(build_folder / f"{folder.name}.elf", target), ())
    both = [(found[name].bytes, size) for name, size in told.items() if name in found]
    assert len(both) >= 5
    assert all(
        mine >= size or mine == -1 for mine, size in both
    )  # objdump takes some vector code for something else
    assert sum(mine == size for mine, size in both) > 0.6 * len(both)


DIVISION = """
#include <stdint.h>
int64_t stack_run(int64_t a, int64_t b, int32_t c, int32_t d) { return a / b + a * b + c / d; }
"""


@pytest.mark.compiler
@pytest.mark.parametrize(("name", "at_least"), [("cortex-m0", 60), ("cortex-m4", 48), ("cortex-m55", 48)])
def test_stack_of_the_runtime_library_is_known(name: str, at_least: int, tmp_path: Path) -> None:
    """A 64-bit division saves most registers, twice."""
    target = require_build(name)
    (tmp_path / "stack.c").write_text(DIVISION, encoding="utf-8")
    found = measure(tmp_path, target, {"name": "stack", "constant_bytes": 0, "arena_bytes": 0})
    assert found.unmeasured == ()
    assert "__aeabi_ldivmod" in found.deepest
    assert at_least < found.stack < 250


LIBC = """
#include <stddef.h>
#include <string.h>
void libc_run(char *to, const char *from, size_t count) { memcpy(to, from, count); memset(to + count, 1, count); }
"""


@pytest.mark.compiler
@pytest.mark.parametrize("name", CORTEX_M)
def test_stack_of_the_c_library_is_known(name: str, tmp_path: Path) -> None:
    target = require_build(name)
    (tmp_path / "libc.c").write_text(LIBC, encoding="utf-8")
    found = measure(tmp_path, target, {"name": "libc", "constant_bytes": 0, "arena_bytes": 0})
    assert found.external == ("memcpy", "memset")
    assert found.unmeasured == ()
    assert found.deepest[1:] in (("memcpy",), ("memset",))


def test_frames_without_a_bound() -> None:
    """A push in a loop, and functions that jump to and fro; a function that runs on into the next."""
    lines = [
        ("loop", "push", "{r4, lr}"),
        ("loop", "bne.n", "0 <loop>"),
        ("loop", "pop", "{r4, pc}"),
        ("to", "vpush", "{d8-d15}"),
        ("to", "b.w", "10 <fro>"),
        ("fro", "strd", "r0, r1, [sp, #-16]!"),
        ("fro", "beq.n", "c <to>"),
        ("fro", "bx", "lr"),
        ("set", "mov", "sp, r7"),
        ("down", "sub.w", "sp, sp, #24"),
        ("down", "nop", ""),
        ("leaf", "bx", "lr"),
    ]
    code = [Instruction(4 * n, function, m, o) for n, (function, m, o) in enumerate(lines)]
    found = compiled_frames(code, ["loop"])
    sizes = {"to": 64, "fro": -1, "set": -1, "down": 24, "leaf": 0}
    assert {name: frame.bytes for name, frame in found.items()} == sizes
    assert found["down"].entered == {"leaf"}
    assert compiled_frames(code, ())["loop"].bytes == -1
    assert [merge_loops(found)[name].bytes for name in ("to", "fro", "down")] == [-1, -1, 24]


@pytest.mark.compiler
def test_recursion_and_pointers_are_seen(tmp_path: Path) -> None:
    target = require_build("c")
    meta = {"name": "odd", "constant_bytes": 0, "arena_bytes": 0}
    (tmp_path / "odd.c").write_text(
        "int (*other)(int); int odd_run(int x) { return other(x) + 1; }\n", encoding="utf-8"
    )
    assert measure(tmp_path, target, meta).unmeasured == ("(a pointer)",)
    (tmp_path / "odd.c").write_text(
        "int even(int x); __attribute__((noinline)) int odd_run(int x) { return x && even(x - 1) + 2; }\n"
        "__attribute__((noinline)) int even(int x) { return x ? odd_run(x - 1) + 3 : 1; }\n",
        encoding="utf-8",
    )
    with pytest.raises(TargetError, match="calls itself"):
        measure(tmp_path, target, meta)


def test_calls_of_every_architecture() -> None:
    lines = [
        ("f", "bl", "8010 <g>"),
        ("f", "b.ne", "8000 <f+0x10>"),
        ("f", "adrp", "x0, 400000 <data>"),
        ("g", "call", "401000 <h>"),
        ("h", "blr", "x3"),
        ("i", "blx", "r3"),
        ("i", "b.w", "8004 <f>"),
    ]
    code = [Instruction(4 * n, function, m, o) for n, (function, m, o) in enumerate(lines)]
    assert calls_of(code) == {"f": {"g"}, "g": {"h"}, "h": {"(a pointer)"}, "i": {"(a pointer)", "f"}}


@pytest.mark.compiler
def test_command_prints_and_records(digits: Digits) -> None:
    require_build("cortex-m4")
    folder = digits("cortex-m4", no_float=True).folder
    result = CliRunner().invoke(main, ["size", str(folder)])
    assert result.exit_code == 0, result.output
    assert "digits_run > " in result.output
    assert "none: no instruction" in result.output
    record = json.loads((folder / "digits.json").read_text(encoding="utf-8"))["footprint"]
    assert record["flash"] == record["text"] + record["rodata"] + record["data"]
    assert record["ram"] == record["arena"] + record["data"] + record["bss"]


@pytest.mark.compiler
def test_arena_can_be_placed_in_a_section(digits: Digits, tmp_path: Path) -> None:
    require_build("c")
    require_tool("objdump")
    folder = digits("c").folder
    attribute = '__attribute__((section(".tightly_coupled")))'
    options = ("-DDIGITS_STATIC_ARENA", f"-DDIGITS_ARENA_SECTION={attribute}", f"-I{folder}")
    (made,) = compile_sources([folder / "digits.c"], require_build("c"), tmp_path, options)
    assert ".tightly_coupled" in run_tool(["objdump", "-h", str(made)])


@pytest.mark.compiler
def test_image_of_one_function(tmp_path: Path) -> None:
    target = require_build("cortex-m4")
    (tmp_path / "one.c").write_text("const char table[100] = {1}; int one_run(int x) { return table[x]; }\n")
    sections = section_bytes(link_alone(tmp_path, target, "one_run", tmp_path / "build"), target)
    assert sections["rodata"] >= 100
    assert 4 <= sections["text"] <= 32
    assert sections["data"] == sections["bss"] == 0
