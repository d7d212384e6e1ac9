"""Each layout holds the files its build system asks for, and they name sources that are there."""

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from embedded_tools import require_build, require_tool

from qcc.backends.c.build import library_sources
from qcc.backends.c.layouts import LAYOUTS
from qcc.ir.errors import QccError

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


@pytest.mark.compiler
@pytest.mark.parametrize("target", ["arm-neon", "cortex-m4"])
def test_toolchain_file_builds(target: str, digits: Digits, tmp_path: Path) -> None:
    require_tool("cmake")
    require_build(target)
    folder = digits(target).folder
    toolchain = f"-DCMAKE_TOOLCHAIN_FILE={folder / 'toolchain.cmake'}"
    for command in (["-S", str(folder), "-B", str(tmp_path), toolchain], ["--build", str(tmp_path)]):
        subprocess.run(["cmake", *command], check=True, capture_output=True, timeout=120)
    assert (tmp_path / "libdigits.a").is_file()
    if target == "arm-neon":
        require_tool("qemu-aarch64")
        done = subprocess.run(
            ["ctest"], cwd=tmp_path, check=True, capture_output=True, text=True, timeout=120
        )
        assert "100% tests passed" in done.stdout


def test_native_libraries_have_no_toolchain_file(digits: Digits) -> None:
    assert not (digits("c").folder / "toolchain.cmake").exists()


def test_unknown_layout_is_an_error(digits: Digits) -> None:
    with pytest.raises(QccError, match=f"known: {', '.join(LAYOUTS)}"):
        digits("c", layout="keil")
