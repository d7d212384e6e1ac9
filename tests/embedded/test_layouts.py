"""Each layout holds the files its build system asks for, and they name sources that are there; CMake builds them."""

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from embedded_tools import require_build, require_run, require_tool

from qcc.backends.c.build import library_sources, run_program
from qcc.backends.c.emit import RUNTIME
from qcc.backends.c.layouts import LAYOUTS
from qcc.ir.errors import QccError, TargetError

Digits = Callable[..., Any]


def named(text: str) -> set[str]:
    """Names of C and assembler files in ``text``."""
    return set(re.findall(r"\b(\w+\.[cS])\b", text))


def library(folder: Path) -> set[str]:
    return {p.name for p in library_sources(folder)}


@pytest.mark.parametrize(
    ("layout", "file"),
    [
        ("zephyr", "zephyr/CMakeLists.txt"),
        ("platformio", "library.json"),
        ("cmsis-pack", "qcc.digits.pdsc"),
    ],
)
def test_all_sources_are_named(layout: str, file: str, digits: Digits) -> None:
    folder = digits("cortex-m4", layout=layout).folder
    assert named((folder / file).read_text(encoding="utf-8")) == library(folder)


def test_zephyr_module(digits: Digits) -> None:
    folder = digits("cortex-m4", layout="zephyr").folder / "zephyr"
    lines = (folder / "module.yml").read_text(encoding="utf-8").splitlines()
    assert lines[1:] == ["name: digits", "build:", "  cmake: zephyr", "  kconfig: zephyr/Kconfig"]
    assert (folder / "Kconfig").read_text(encoding="utf-8").startswith("config DIGITS\n\tbool ")


def test_arduino_sources_have_no_main(digits: Digits) -> None:
    folder = digits("cortex-m4", layout="arduino").folder
    properties = dict(
        line.split("=", 1)
        for line in (folder / "library.properties").read_text(encoding="utf-8").splitlines()
    )
    assert properties["name"] == "digits"
    assert properties["includes"] == "digits.h"
    assert {p.name for p in folder.glob("*.c")} == library(folder)
    assert (folder / "extras" / "test_main.c").is_file()


def test_platformio_and_cmsis_pack_parse(digits: Digits) -> None:
    record = json.loads((digits("cortex-m4", layout="platformio").folder / "library.json").read_text())
    assert record["build"]["srcDir"] == "."
    folder = digits("cortex-m4", layout="cmsis-pack").folder
    files = [f.get("name") for f in ElementTree.parse(folder / "qcc.digits.pdsc").iter("file")]
    assert files[:2] == ["./", "digits.h"]
    assert all((folder / str(name)).exists() for name in files)


STUBS = {
    "zephyr": (
        "set(CONFIG_DIGITS y)\n"
        "function(zephyr_library_named name)\n  add_library(${name} STATIC)\nendfunction()\n"
        "function(zephyr_library_sources)\n  target_sources(digits PRIVATE ${ARGN})\nendfunction()\n"
        "function(zephyr_include_directories)\n  include_directories(${ARGN})\nendfunction()\n",
        "/zephyr",
    ),
    "esp-idf": (
        "set(ESP_PLATFORM 1)\n"
        "function(idf_component_register)\n"
        '  cmake_parse_arguments(IDF "" "" "INCLUDE_DIRS;SRCS" ${ARGN})\n'
        "  add_library(digits STATIC ${IDF_SRCS})\nendfunction()\n",
        "",
    ),
}


@pytest.mark.compiler
@pytest.mark.parametrize("layout", list(STUBS))
def test_component_builds_where_its_system_defines_the_commands(
    layout: str, digits: Digits, tmp_path: Path
) -> None:
    """The commands of the build systems are stood in for by CMake's own."""
    require_tool("cmake")
    require_build("c")
    stubs, inside = STUBS[layout]
    folder = digits("c", layout=layout).folder
    text = f"cmake_minimum_required(VERSION 3.13)\nproject(app C)\n{stubs}add_subdirectory({folder}{inside} digits)\n"
    (tmp_path / "CMakeLists.txt").write_text(text, encoding="utf-8")
    for command in (["-S", str(tmp_path), "-B", str(tmp_path / "b")], ["--build", str(tmp_path / "b")]):
        subprocess.run(["cmake", *command], check=True, capture_output=True, timeout=120)
    assert list((tmp_path / "b").rglob("libdigits.a"))


def cmake(source: Path, build: Path, *options: str) -> None:
    """Configure and build."""
    for command in (["-S", str(source), "-B", str(build), *options], ["--build", str(build)]):
        done = subprocess.run(["cmake", *command], check=False, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.compiler
@pytest.mark.qemu
def test_toolchain_file_builds_and_ctest_runs_the_self_check(digits: Digits, tmp_path: Path) -> None:
    require_tool("cmake")
    require_run("arm-neon")
    require_tool("aarch64-linux-gnu-gcc")  # the toolchain file names no other
    folder = digits("arm-neon").folder
    cmake(folder, tmp_path, f"-DCMAKE_TOOLCHAIN_FILE={folder / 'toolchain.cmake'}")
    done = subprocess.run(["ctest"], cwd=tmp_path, check=True, capture_output=True, text=True, timeout=120)
    assert "100% tests passed" in done.stdout


SELF_CHECK = """
#include "digits.h"
#include "digits_vectors.h"
#include "qcc_kernels.h"

QCC_ALIGNED(DIGITS_ARENA_ALIGN) static int8_t arena[DIGITS_ARENA_BYTES], out[DIGITS_OUTPUT_BYTES];

int main(void) {
  int i, k;
  for (i = 0; i < DIGITS_VECTORS; ++i) {
    if (digits_run(arena, (const int8_t *)digits_vector_inputs[i], out) != 0) {
      return 2;
    }
    for (k = 0; k < DIGITS_OUTPUT_BYTES; ++k) {
      if (out[k] != (int8_t)digits_vector_outputs[i][k] + DIFFERENCE) {
        return 1;
      }
    }
  }
  return 0;
}
"""
APPLICATION = """
cmake_minimum_required(VERSION 3.13)
project(app C)
add_subdirectory({library} digits)
foreach(difference 0 1)
  add_executable(check_${{difference}} main.c {runtime}/cortex_m_startup.c)
  target_include_directories(check_${{difference}} PRIVATE {runtime})
  target_compile_definitions(check_${{difference}} PRIVATE DIFFERENCE=${{difference}})
  target_link_options(check_${{difference}} PRIVATE -nostdlib -T{runtime}/{script})
  target_link_libraries(check_${{difference}} digits gcc)
endforeach()
"""


@pytest.mark.compiler
@pytest.mark.qemu
@pytest.mark.parametrize("name", ["cortex-m0", "cortex-m4", "cortex-m55"])
def test_firmware_with_the_toolchain_file_checks_itself(name: str, digits: Digits, tmp_path: Path) -> None:
    """An application of CMake adds the folder, brings the start-up code, and runs on the board; it notices a wrong byte."""
    require_tool("cmake")
    require_tool("arm-none-eabi-gcc")  # the toolchain file names no other
    target, folder = require_run(name), digits(name).folder
    (tmp_path / "main.c").write_text(SELF_CHECK, encoding="utf-8")
    text = APPLICATION.format(library=folder, runtime=RUNTIME, script=target.linker_script)
    (tmp_path / "CMakeLists.txt").write_text(text, encoding="utf-8")
    cmake(tmp_path, tmp_path / "b", f"-DCMAKE_TOOLCHAIN_FILE={folder / 'toolchain.cmake'}")
    run_program(tmp_path / "b" / "check_0", target)
    with pytest.raises(TargetError):
        run_program(tmp_path / "b" / "check_1", target)


def test_native_libraries_have_no_toolchain_file(digits: Digits) -> None:
    assert not (digits("c").folder / "toolchain.cmake").exists()


def test_unknown_layout_is_an_error(digits: Digits) -> None:
    with pytest.raises(QccError, match=f"known: {', '.join(LAYOUTS)}"):
        digits("c", layout="keil")
