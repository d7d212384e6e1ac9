"""Layouts: the files by which a build system takes an emitted library, besides CMakeLists.txt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

from qcc.backends.target import Target

Layout = Literal["cmake", "zephyr", "arduino", "platformio", "cmsis-pack", "esp-idf"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)
VERSION = "1.0.0"  # of the library made of a model; the sha256 of the model tells which one it is
TOOLCHAIN = "toolchain.cmake"

# File by template, in the folder; @name@ is the name of the library.
_FILES: dict[Layout, dict[str, str]] = {
    "cmake": {},
    "zephyr": {
        "zephyr/module.yml": "zephyr_module.yml.in",
        "zephyr/CMakeLists.txt": "zephyr_CMakeLists.txt.in",
        "zephyr/Kconfig": "zephyr_Kconfig.in",
    },
    "arduino": {"library.properties": "arduino_library.properties.in"},
    "platformio": {"library.json": "platformio_library.json.in"},
    "cmsis-pack": {"qcc.@name@.pdsc": "cmsis_pack.pdsc.in"},
    "esp-idf": {"idf_component.yml": "idf_component.yml.in"},
}
_SYSTEMS = {"aarch64": ("Linux", "aarch64"), "arm": ("Linux", "arm")}


def layout_files(layout: Layout, name: str) -> dict[str, str]:
    """Templates of the files that the build system wants, by their paths in the folder."""
    return {path.replace("@name@", name): template for path, template in _FILES[layout].items()}


def place_of(file: str, layout: Layout) -> str:
    """Where a file of the library goes: Arduino compiles all sources of the folder, so the program must not lie there."""
    return f"extras/{file}" if layout == "arduino" and file == "test_main.c" else file


def toolchain_of(target: Target) -> Mapping[str, Any] | None:
    """What CMake must know to compile for another processor; None for a native target, and without a cross compiler."""
    if target.is_native or not target.compilers:
        return None
    compiler, *options = target.compilers[0].argv
    system, processor = (
        ("Generic", "arm") if target.semihosting else _SYSTEMS.get(compiler.split("-")[0], ("", ""))
    )
    if not system:
        return None
    emulator: Sequence[str] = () if target.semihosting else target.runner
    return {
        "system": system,
        "processor": processor,
        "compiler": compiler,
        "options": " ".join(options),
        "emulator": ";".join(emulator),
    }
