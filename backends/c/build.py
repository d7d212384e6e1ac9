"""Compilation: the only place that starts processes. No shell, a time limit on every process."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from qcc.backends.target import Compiler, Target
from qcc.ir.errors import TargetError

COMPILE_SECONDS = 600
PROCESSES = 2
MAINS = ("test_main.c", "batch_main.c")  # programs, no part of the library
THREADS_SOURCE = "qcc_threads.c"  # a library that has it needs the system's threads
STANDARD = ("-std=c99", "-Wall", "-Wextra")


def find_compiler(target: Target) -> Compiler | None:
    """The first compiler of the target that is installed."""
    return next((c for c in target.compilers if _is_installed(c.argv)), None)


def find_runner(target: Target) -> Path | None:
    """The program that runs the target's programs, None when missing or not needed."""
    found = shutil.which(target.runner[0]) if target.runner else None
    return Path(found) if found else None


def _is_installed(argv: Sequence[str]) -> bool:
    if "-m" in argv[:2]:
        return importlib.util.find_spec(argv[2]) is not None
    return shutil.which(argv[0]) is not None


def build_shared(
    folder: Path, target: Target, build_folder: Path | None = None, flags: Sequence[str] = ()
) -> Path:
    """Compile an emitted ``folder`` into a shared library; returns its path, ``build/lib<folder>.so`` by default.

    Raises TargetError when the target is not native, has no compiler here, or the compiler fails.
    """
    if not target.is_native:
        raise TargetError(f"target {target.name} is not native: its libraries cannot be loaded here")
    build_folder = build_folder or folder / "build"
    result = build_folder / f"lib{folder.name}.so"
    return link_shared(library_sources(folder), target, result, (*flags, f"-I{folder}"))


def link_shared(sources: Sequence[Path], target: Target, result: Path, flags: Sequence[str] = ()) -> Path:
    """Compile ``sources`` into the shared library ``result``; returns its path. Objects go beside it."""
    flags = (*flags, *_thread_flags(sources))
    objects = compile_sources(sources, target, result.parent, (*flags, "-fPIC"))
    _run([*_compiler(target).argv, *target.flags, *flags, "-shared", *map(str, objects), "-o", str(result)])
    return result


def build_program(
    folder: Path,
    target: Target,
    sources: Sequence[Path],
    build_folder: Path | None = None,
    flags: Sequence[str] = (),
    link_flags: Sequence[str] = (),
) -> Path:
    """Compile the library in ``folder`` with ``sources`` (one of them with main) into a program; returns its path.

    Raises TargetError as ``build_shared``.
    """
    build_folder = build_folder or folder / "build"
    everything = [*library_sources(folder), *sources]
    flags = (*flags, *_thread_flags(everything))
    objects = compile_sources(everything, target, build_folder, (*flags, f"-I{folder}"))
    result = build_folder / (sources[0].stem if sources else folder.name)
    command = [
        *_compiler(target).argv,
        *target.flags,
        *flags,
        *map(str, objects),
        *target.link_flags,
        *link_flags,
    ]
    _run([*command, "-o", str(result)])
    return result


def build_archive(folder: Path, target: Target, build_folder: Path | None = None) -> list[Path]:
    """Compile the library in ``folder`` into object files, for targets without programs; returns their paths."""
    return compile_sources(
        library_sources(folder), target, build_folder or folder / "build", (f"-I{folder}",)
    )


def link_alone(folder: Path, target: Target, entry: str, build_folder: Path) -> Path:
    """The library in ``folder`` as an image that holds only what ``entry`` needs; returns its path.

    Functions that an application must have stay undefined. Files that tell the stack of functions (``.su``) are beside it.
    """
    flags = ("-fstack-usage", "-ffunction-sections", "-fdata-sections", f"-I{folder}")
    objects = compile_sources(library_sources(folder), target, build_folder, flags)
    return link_objects(objects, target, entry, build_folder / f"{folder.name}.elf")


def link_objects(
    objects: Sequence[Path], target: Target, entry: str, result: Path, libraries: Sequence[str] = ()
) -> Path:
    """An image, ``result``, of what ``entry`` needs of ``objects`` and of ``libraries``, such as ``-lc``."""
    compiler = _compiler(target)
    runtime = ["-lgcc"] if "ziglang" not in compiler.argv else []
    options = ["-nostdlib", "-static", "-Wl,--gc-sections", "-Wl,--build-id=none", f"-Wl,-e,{entry}"]
    command = [
        *compiler.argv,
        *target.flags,
        *options,
        "-Wl,--unresolved-symbols=ignore-all",
        *map(str, objects),
    ]
    _run([*command, *libraries, *runtime, "-o", str(result)])
    return result


def compiler_tool(target: Target, name: str) -> str:
    """Path of a tool that belongs to the target's compiler, such as objdump."""
    return _run([*_compiler(target).argv, f"-print-prog-name={name}"]).strip() or name


def _thread_flags(sources: Sequence[Path]) -> tuple[str, ...]:
    return ("-pthread",) if any(p.name == THREADS_SOURCE for p in sources) else ()


def library_sources(folder: Path) -> list[Path]:
    """The C and assembler files of an emitted library, its programs left out."""
    return sorted(p for p in folder.glob("*.[csS]") if p.name not in MAINS)


def compile_sources(
    sources: Sequence[Path], target: Target, build_folder: Path, flags: Sequence[str]
) -> list[Path]:
    """Object files of ``sources``, compiled a few at a time."""
    compiler = _compiler(target)
    build_folder.mkdir(parents=True, exist_ok=True)

    def compile_one(source: Path) -> Path:
        result = build_folder / f"{source.stem}.o"
        own = _without_headers(flags) if source.suffix in (".s", ".S") else flags
        _run([*compiler.argv, *STANDARD, *target.flags, *own, "-c", str(source), "-o", str(result)])
        return result

    with ThreadPoolExecutor(PROCESSES) as pool:
        return list(pool.map(compile_one, sources))


def _without_headers(flags: Sequence[str]) -> list[str]:
    """For the assembler: it does not read the C of a header that ``-include`` puts in front of every file."""
    dropped = {i + k for i, flag in enumerate(flags) if flag == "-include" for k in (0, 1)}
    return [flag for i, flag in enumerate(flags) if i not in dropped]


def run_program(
    program: Path,
    target: Target,
    arguments: Sequence[str] = (),
    folder: Path | None = None,
    seconds: float = 600,
) -> str:
    """Run a program of the target in ``folder``; returns what it printed. Raises TargetError when it fails."""
    runner: list[str] = []
    if target.runner:
        found = find_runner(target)
        if found is None:
            raise TargetError(
                f"programs for {target.name} need {target.runner[0]}, which is not installed",
                hint=target.runner_install,
            )
        runner = [str(found), *target.runner[1:]]
    return _run([*runner, str(program), *arguments], folder, seconds)


def run_tool(command: Sequence[str], seconds: float = 10) -> str:
    """Standard output of a tool of this system. Raises TargetError when it is missing or fails."""
    return _run(command, seconds=seconds)


def exit_status(command: Sequence[str], seconds: float) -> int:
    """Of a command that may fail. Raises TargetError when it cannot be run or does not finish."""
    return _finished(command, None, seconds).returncode


def _compiler(target: Target) -> Compiler:
    compiler = find_compiler(target)
    if compiler is None:
        ways = " or ".join(dict.fromkeys(c.install for c in target.compilers))
        raise TargetError(f"no C compiler for target {target.name} is installed", hint=ways)
    return compiler


def _run(command: Sequence[str], folder: Path | None = None, seconds: float = COMPILE_SECONDS) -> str:
    """Standard output of a process that must succeed."""
    result = _finished(command, folder, seconds)
    if result.returncode != 0:
        lines = (result.stderr or result.stdout).strip().splitlines()
        shown = "\n".join(lines[:12])
        raise TargetError(
            f"{command[0]} failed with status {result.returncode}: {' '.join(command)}\n{shown}"
        )
    return result.stdout


def _finished(
    command: Sequence[str], folder: Path | None, seconds: float
) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command,
            cwd=folder,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
        )
    except OSError as error:
        raise TargetError(f"{command[0]} cannot be run: {error.strerror}: {' '.join(command)}") from None
    except subprocess.TimeoutExpired:
        raise TargetError(
            f"{command[0]} did not finish within {seconds:.0f} seconds: {' '.join(command)}"
        ) from None
