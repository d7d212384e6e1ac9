"""CompileOptions: every choice of a compilation, and the only place where defaults live."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from qcc.backends.c.layouts import LAYOUTS, Layout
from qcc.backends.c.weights import FORMS, Form
from qcc.backends.stream import STREAMING, Streaming
from qcc.ir.errors import QccError
from qcc.ir.qspec import QSpec

MAX_THREADS = 64  # QCC_THREADS_MAX in qcc_threads.h


@dataclass(frozen=True)
class CompileOptions:
    """Choices of one compilation.

    ``precision``: "int8", or "float32" for the same graph in float (baseline and fall-back).
    ``io``: what crosses the library's boundary, "int8" or "float".
    ``float_pipeline``: passes from the imported model to the float graph that is quantized.
    ``observer``: how calibration turns statistics into ranges, as text of the calibrate pass's options.
    ``corrections``: equalization, bias correction and weight rounding, each kept where it helps on real samples.
    ``qspec``: bits, symmetry and granularity, as text of a QSpec.
    ``rounding``: whose integers a requantization yields: qcc's own, or those of another runtime's kernels.
    ``int16``: names of values (globs) held in 16 bits; ("*",) for all. ``float_nodes``: names of nodes that stay in float.
    ``stats``: a file of statistics that takes the place of calibration data; ``save_stats``: where to write one.
    ``weights``: constants as C text ("c"), as a file that the assembler includes ("binary"), or by size ("auto").
    ``threads``: how many share the work of one inference; 1 to MAX_THREADS.
    ``layout``: the build system that takes the folder, besides CMake: one of LAYOUTS.
    ``stream``: steps computed in bands of rows, so that their results are never whole: "on" for the smallest arena, "auto"
    where a bare-metal target gets a smaller one at little cost, or "off". ``ram``: the most bytes the arena may take: steps
    are streamed as far as needed.
    ``no_float``: the program computes with integers only; what cannot is an error.
    ``strict``: a node without integer form is an error. ``vectors``: test vectors written into the library.
    ``shapes``: symbolic dimensions by name, or whole shapes by input name.
    ``analyze``: seconds that the report may spend on what restoring each tensor to float would gain.
    ``tune``: kernels are chosen by times measured on this machine and remembered in ``tune_file`` (default: a file in
    the cache folder of the system).
    ``emit``: more files to write: "tvmscript", the kernels that TVM compiles; ``tvmscript``: such a file, whose kernels take the
    place of the generated ones.
    ``dump_after``: pass name or "all"; the graph after it is written into ``dump_folder``.
    """

    target: str = "c"
    precision: Literal["int8", "float32"] = "int8"
    io: Literal["int8", "float"] = "int8"
    name: str | None = None
    float_pipeline: str = "float"
    observer: str = "observer=min-max"
    corrections: bool = False
    qspec: str = ""
    rounding: Literal["ties_up", "tflite", "onnx"] = "ties_up"
    int16: tuple[str, ...] = ()
    float_nodes: tuple[str, ...] = ()
    stats: Path | None = None
    save_stats: Path | None = None
    weights: Form = "auto"
    threads: int = 1
    layout: Layout = "cmake"
    stream: Streaming = "auto"
    ram: int | None = None
    no_float: bool = False
    strict: bool = False
    vectors: int = 2
    seed: int = 0
    synthetic_samples: int = 16
    shapes: Mapping[str, int | tuple[int, ...]] = field(default_factory=dict)
    analyze: float = 0.0
    tune: bool = False
    tune_file: Path | None = None
    verify_each: bool = False
    dump_after: str | None = None
    dump_folder: Path | None = None
    emit: tuple[str, ...] = ()
    tvmscript: Path | None = None

    def __post_init__(self) -> None:
        for name, value, known in (
            ("precision", self.precision, ("int8", "float32")),
            ("io", self.io, ("int8", "float")),
            ("rounding", self.rounding, ("ties_up", "tflite", "onnx")),
            ("weights", self.weights, FORMS),
            ("layout", self.layout, LAYOUTS),
            ("stream", self.stream, STREAMING),
        ):
            if value not in known:
                raise QccError(f"unknown {name} {value!r}", hint=f"known: {', '.join(known)}")
        QSpec.parse(self.qspec)
        if (self.emit or self.tvmscript is not None) and not self.target.startswith("tvm"):
            raise QccError(f"target {self.target} has no TVMScript", hint="choose a target tvm:...")
        if not 1 <= self.threads <= MAX_THREADS:
            raise QccError(
                f"threads is {self.threads}", hint=f"between 1 and {MAX_THREADS} threads are possible"
            )

        if self.no_float and self.boundary == "float":
            what = "float at the boundary" if self.precision == "int8" else "float32"
            raise QccError(f"a program without floats cannot have {what}", hint="leave one of them out")
        if self.tune_file is not None and not self.tune:
            raise QccError("a tune file without tuning has no use", hint="add --tune (tune=True)")

    @property
    def boundary(self) -> Literal["int8", "float"]:
        """The boundary that is really there: a float32 program has no other than float."""
        return "float" if self.precision == "float32" else self.io
