"""Emission: a program as a folder of C files that needs nothing else to be built."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from numpy.typing import NDArray

from qcc.backends.c.build import THREADS_SOURCE
from qcc.backends.c.layouts import TOOLCHAIN, VERSION, Layout, layout_files, place_of, toolchain_of
from qcc.backends.c.metadata import metadata_of
from qcc.backends.c.names import c_array, c_comment
from qcc.backends.c.views import Views
from qcc.backends.c.weights import Form, binary_of
from qcc.backends.program import Program
from qcc.backends.target import Scripts, Target
from qcc.ir.errors import TargetError
from qcc.ir.npz import write_aside

FOLDER = Path(__file__).parent
RUNTIME = FOLDER / "runtime"
THREADS = RUNTIME / THREADS_SOURCE
_INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.MULTILINE)
_NUMBERS = re.compile(r"\[\s+-?\d+(?:,\s+-?\d+)*\s+\]")


@dataclass(frozen=True)
class EmitOptions:
    """What emission cannot read from the program.

    ``model_name``, ``model_sha256``: where the program comes from; ``options``: the compile options, for the record;
    ``extra``: called with the new folder before it gets its name, to add files of the caller's;
    ``vectors``: pairs of input and output bytes (s8 or u8 arrays of NAME_INPUT_BYTES, NAME_OUTPUT_BYTES);
    ``weights``: constants as C text ("c"), as a file that the assembler includes ("binary"), or by size ("auto");
    ``layout``: the build system that takes the folder, besides CMake; ``scripts``: of generated kernels.
    """

    model_name: str = ""
    model_sha256: str = ""
    options: Mapping[str, str] = field(default_factory=dict)
    extra: Callable[[Path], None] = lambda folder: None
    vectors: Sequence[tuple[NDArray[Any], NDArray[Any]]] = ()
    weights: Form = "auto"
    layout: Layout = "cmake"
    scripts: Scripts = field(default_factory=Scripts)


def emit(program: Program, folder: Path, options: EmitOptions | None = None) -> Path:
    """Write the library into ``folder`` and return it. The same input gives the same bytes.

    Everything is written into a new folder beside it and then renamed, so it is never half there. A folder that
    exists is replaced if it is empty or was written by qcc. Raises TargetError otherwise.
    """
    folder = Path(folder).absolute()
    check_replaceable(folder)
    options = options or EmitOptions()
    files = _files(program, options)
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = folder.parent / f".{folder.name}.{os.getpid()}.new"
    old = fresh.with_suffix(".old")
    fresh.mkdir()
    try:
        for name, content in files.items():
            data = content.encode("utf-8") if isinstance(content, str) else content
            (fresh / name).parent.mkdir(exist_ok=True)
            (fresh / name).write_bytes(data)
        options.extra(fresh)
        if folder.exists():
            folder.rename(old)
        fresh.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        if old.exists() and not folder.exists():
            old.rename(folder)
        shutil.rmtree(fresh, ignore_errors=True)
    return folder


def find_record(folder: Path) -> Path | None:
    """The metadata file of a folder that ``emit`` wrote; None for any other folder."""
    files = sorted(
        folder.glob("*.json"), key=lambda p: (p.name == "report.json", p.name)
    )  # which has the same line
    records = (p for p in files if p.is_file())
    return next((p for p in records if b'"generator": "qcc ' in p.read_bytes()), None)


def add_to_record(folder: Path, entries: Mapping[str, Any]) -> None:
    """Put ``entries`` into NAME.json of the library in ``folder``. Raises TargetError where there is none."""
    path = find_record(folder)
    if path is None:
        raise TargetError(f"{folder} holds no library written by qcc")
    record = json.loads(path.read_text(encoding="utf-8")) | entries
    write_aside(path, _record_text(record).encode())


def check_replaceable(folder: Path) -> None:
    """Raise TargetError for a folder that ``emit`` would not replace: a file, or what others have filled."""
    try:
        if not folder.exists():
            return
        if not folder.is_dir():
            raise TargetError(f"{folder} is a file", hint="name a folder for the C library")
        is_foreign = any(folder.iterdir()) and find_record(folder) is None
    except OSError as error:  # a name that is too long, a folder that may not be read
        raise TargetError(f"{folder} cannot be read: {error.strerror}", hint="name another folder") from None
    if is_foreign:
        raise TargetError(
            f"{folder} is not empty and was not written by qcc", hint="name a new or an empty folder"
        )


def _files(program: Program, options: EmitOptions) -> dict[str, str | bytes]:
    """The content of all files by name."""
    written = [op.kernel for op in program.operations if not op.kernel.is_generated]
    kernels = {kernel.source.name: kernel.source for kernel in written}
    if program.parts > 1:
        kernels[THREADS.name] = THREADS
    headers = _headers([RUNTIME / "qcc_kernels.h", RUNTIME / "qcc_requantize.h", *kernels.values()])
    sources = {name: path.read_text(encoding="utf-8") for name, path in (kernels | headers).items()}
    views = Views(program)
    name = program.name
    binary = binary_of(views.constants) if views.constants.is_binary(options.weights) else None
    weights = f"{name}_weights.c" if binary is None else f"{name}_weights.S"
    used = [h for h in headers if any(re.search(rf"\b{k.symbol}\(", sources[h]) for k in written)]
    generate = program.target.generate
    generated = generate(name, views.generated, options.scripts) if generate and views.generated else {}
    used += [f for f in generated if f.endswith(".h")]
    context = views.context() | {
        "provenance": _provenance(program, options),
        "headers": sorted({"qcc_kernels.h", *used}),
        "vectors": [_vector(program, *pair) for pair in options.vectors],
        "sources": [f"{name}.c", weights, *sorted(kernels), *(f for f in generated if f.endswith(".s"))],
        "binary": f"{name}_weights.bin" if binary is not None else "",
        "has_assembly": binary is not None or bool(generated),
        "binary_sha256": hashlib.sha256(binary or b"").hexdigest(),
        "feature_flags": " ".join(_feature_flags(program.target)),
        "layout": options.layout,
        "version": VERSION,
        "bare_metal": program.target.semihosting,
        "test_main": place_of("test_main.c", options.layout),
        "toolchain": toolchain_of(program.target),
    }
    files = {
        f"{name}.h": "model.h.in",
        f"{name}.c": "model.c.in",
        f"{name}_weights.h": "weights.h.in",
        weights: "weights.c.in" if binary is None else "weights.S.in",
        "CMakeLists.txt": "CMakeLists.txt.in",
        **layout_files(options.layout, name),
    }
    if context["toolchain"] is not None:
        files[TOOLCHAIN] = "toolchain.cmake.in"
    if options.vectors:
        files |= {context["test_main"]: "test_main.c.in", f"{name}_vectors.h": "vectors.h.in"}
    made: dict[str, str | bytes] = {file: render(template, context) for file, template in files.items()}
    if binary is not None:
        made[f"{name}_weights.bin"] = binary
    record = metadata_of(program, views.constants.bytes) | {
        "generator": f"qcc {version('qcc')}",
        "model": {"name": options.model_name, "sha256": options.model_sha256},
        "options": dict(options.options),
    }
    made[f"{name}.json"] = _record_text(record)
    return made | sources | dict(generated)


def _feature_flags(target: Target) -> list[str]:
    """What a compiler must be told of the instruction set, apart from its processor."""
    called = target.compilers[0].argv if target.compilers else ()
    architecture = [f for f in called if f.startswith("-march=")]
    return architecture + [f for f in target.flags if f.startswith("-m")]


def render(template: str, context: Mapping[str, Any]) -> str:
    """A template of this package, with names that are not defined refused."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER / "templates"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # C, not HTML; names and texts went through qcc.backends.c.names
    )
    return environment.get_template(template).render(context)


def _headers(files: Sequence[Path]) -> dict[str, Path]:
    """Headers that the files include in quotes, and the headers these include."""
    found: dict[str, Path] = {p.name: p for p in files if p.suffix == ".h"}
    pending = list(files)
    while pending:
        path = pending.pop()
        for name in _INCLUDE.findall(path.read_text(encoding="utf-8")):
            header = next((f / name for f in (path.parent, RUNTIME) if (f / name).is_file()), None)
            assert header is not None, f"{path} includes {name}, which is nowhere"
            if name not in found:
                found[name] = header
                pending.append(header)
    return dict(sorted(found.items()))


def _provenance(program: Program, options: EmitOptions) -> list[str]:
    model = options.model_name or program.graph.name
    digest = f", sha256 {options.model_sha256}" if options.model_sha256 else ""
    settings = "".join(f", {key}={value}" for key, value in options.options.items())
    lines = [
        f"Made by qcc {version('qcc')} from {model}{digest}.",
        f"Target: {program.target.name}{settings}.",
    ]
    return [c_comment(line) for line in lines]


def _vector(program: Program, inputs: NDArray[Any], outputs: NDArray[Any]) -> dict[str, list[str]]:
    sizes = {"inputs": program.input_bytes, "outputs": program.output_bytes}
    arrays = {"inputs": inputs, "outputs": outputs}
    for side, array in arrays.items():
        if array.nbytes != sizes[side]:
            raise ValueError(f"a test vector has {array.nbytes} bytes of {side}, expected {sizes[side]}")
    return {side: c_array(np.ascontiguousarray(a).reshape(-1).view(np.int8)) for side, a in arrays.items()}


def _record_text(record: Mapping[str, Any]) -> str:
    return _NUMBERS.sub(_on_one_line, json.dumps(record, indent=1)) + "\n"


def _on_one_line(numbers: re.Match[str]) -> str:
    return " ".join(numbers.group().split()).replace("[ ", "[").replace(" ]", "]")
