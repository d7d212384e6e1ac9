"""The C that real models become: no warning in C99 or C++17, by two compilers, and no library needed."""

import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from qcc.backends.c.build import library_sources

SMALL = ["kws", "ic", "vww", "ad"]
LARGE = [
    pytest.param(name, marks=pytest.mark.slow)
    for name in ("resnet20", "squeezenet", "mobilenetv2", "ultraface_rfb320")
]
WARNINGS = ("-Wall", "-Wextra", "-Wconversion", "-pedantic", "-Werror")
LANGUAGES = {"C99": ("-std=c99",), "C++17": ("-x", "c++", "-std=c++17")}
# what compilers call by themselves, for loops that copy or fill, even where there is no library
ALLOWED = {"memcpy", "memset", "_GLOBAL_OFFSET_TABLE_"}


@pytest.mark.compiler
@pytest.mark.parametrize("language", list(LANGUAGES))
@pytest.mark.parametrize("compiler", ["gcc", "clang"])
@pytest.mark.parametrize("name", [*SMALL, *LARGE])
def test_library_compiles_without_warnings(
    name: str, compiler: str, language: str, zoo_subject: Callable[[str], Any], tmp_path: Path
) -> None:
    folder = zoo_subject(name).folder
    sources = sorted(folder.glob("*.c"))
    assert {"test_main.c", f"{name}.c"} <= {s.name for s in sources}
    options = (*_argv(compiler), *LANGUAGES[language], *WARNINGS, "-O2", f"-I{folder}")
    compile_all(sources, options, tmp_path)


@pytest.mark.compiler
@pytest.mark.parametrize("name", [*SMALL, *LARGE])
def test_objects_need_no_library(name: str, zoo_subject: Callable[[str], Any], tmp_path: Path) -> None:
    if shutil.which("nm") is None:
        pytest.skip("nm, which comes with a compiler, is not installed")
    folder = zoo_subject(name).folder
    objects = compile_all(
        library_sources(folder), (*_argv("gcc"), "-std=c99", "-O3", f"-I{folder}"), tmp_path
    )
    undefined = _symbols(objects, "--undefined-only") - _symbols(objects, "--defined-only")
    assert undefined <= ALLOWED


def compile_all(sources: Sequence[Path], options: Sequence[str], build: Path) -> list[Path]:
    """Objects of ``sources``; fails with what the compiler says."""

    def compile_one(source: Path) -> Path:
        result = build / f"{source.stem}.o"
        done = subprocess.run(
            [*options, "-c", str(source), "-o", str(result)],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr[:2000]
        return result

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(compile_one, sources))


def _argv(compiler: str) -> tuple[str, ...]:
    """The compiler, or zig's clang where there is no other; skips where there is none."""
    if shutil.which(compiler):
        return (compiler,)
    if compiler == "clang":
        pytest.importorskip("ziglang", reason="neither the clang nor the zig compiler is installed")
        return (sys.executable, "-m", "ziglang", "cc")
    pytest.skip(f"compiler {compiler} is not installed")


def _symbols(objects: Sequence[Path], option: str) -> set[str]:
    command = ["nm", option, *map(str, objects)]
    text = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    return {line.split()[-1] for line in text.splitlines() if line and not line.endswith(":")}
