"""CompileOptions: every choice of a compilation, and the only place where defaults live."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal

from qcc.backends.c.layouts import LAYOUTS, Layout
from qcc.backends.c.weights import FORMS, Form
from qcc.backends.stream import STREAMING, Streaming
from qcc.backends.target import Tuning
from qcc.ir.errors import QccError
from qcc.ir.ops.stored import CODE_MAX
from qcc.ir.ops.stored import FORMATS as STORED_FORMATS
from qcc.ir.qspec import QSpec
from qcc.recipes import CORRECTIONS, OPTIONS, USUAL_CORRECTIONS, find_recipe, require_agreement

EMITTED = ("tosa", "onnx", "tvmscript")
MAX_THREADS = 64  # QCC_THREADS_MAX in qcc_threads.h


@dataclass(frozen=True)
class CompileOptions:
    """Choices of one compilation.

    ``precision``: "int8", or "float32" for the same graph in float (baseline and fall-back), or "dynamic" for that graph
    with products of integers in dense layers, whose activations are quantized by the range each inference finds.
    ``weights_only``: the format in which the weights of a float32 (or dynamic) program are stored: one of
    STORED_FORMATS, or None for float; ``weight_group``: consecutive weights that share a scale, 0 for an output channel.
    ``io``: what crosses the library's boundary: "float", "int8", or "auto", integers of 8 bits or, by the correction widen, 16.
    ``float_pipeline``: passes from the imported model to the float graph that is quantized.
    ``annotated_pipeline``: passes behind the choice of qparams and the corrections, in front of quantize-ops.
    ``recipe``: a set of options in the manner of another tool, one of RECIPES; what it sets may not be set otherwise (an
    option that has its default counts as not given).
    ``observer``: how calibration turns statistics into ranges, as text of the calibrate pass's options.
    ``corrections``: equalization, migration of scales, absorption of biases, exact scales of inputs, inputs and outputs
    in 16 bits, correction of biases, weight rounding, each kept where it helps on real samples; True for
    USUAL_CORRECTIONS, or the names of some of CORRECTIONS.
    ``qspec``: bits, symmetry and granularity, as text of a QSpec.
    ``rounding``: whose integers a requantization yields: qcc's own, or those of another runtime's kernels.
    ``residuals``: convolutions in front of an addition leave their sum in 32 bits for it.
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
    ``min_ratio``: of the float model's ``metric`` (see metrics.py) that the integers must reach on evaluation data, with as
    few tensors in 16 bits and nodes in float as that takes.
    ``tune``: kernels are chosen by times measured on this machine and remembered in ``tune_file`` (default: a file in
    the cache folder of the system). Of a target tvm:... it is the tiles of kernels that are chosen, by TVM's tuner;
    ``tune_file`` alone then chooses by what it knows; ``tune_rpc``: host, port and key of the RPC tracker whose machines
    measure, as "HOST:PORT:KEY", "" for this one; ``tune_trials``: measured for each kernel, at most.
    ``emit``: more files to write, some of EMITTED: "tvmscript", the kernels that TVM compiles; "tosa", the integer program in
    MLIR's TOSA dialect (NAME.mlir); "onnx", the program as an ONNX model (NAME.onnx), with QuantizeLinear and
    DequantizeLinear where it is one of integers. ``tvmscript``: such a file, whose kernels take the place of the generated ones.
    ``dump_after``: pass name or "all"; the graph after it is written into ``dump_folder``. ``on_diff`` is called with what each
    pass changes in the text of the graph, as a unified diff.
    """

    target: str = "c"
    precision: Literal["int8", "float32", "dynamic"] = "int8"
    weights_only: Literal["int8", "int4", "fp16"] | None = None
    weight_group: int = 0
    io: Literal["auto", "int8", "float"] = "auto"
    name: str | None = None
    float_pipeline: str = "float"
    annotated_pipeline: str = ""
    recipe: str = ""
    observer: str = "observer=auto"
    corrections: bool | tuple[str, ...] = True
    qspec: str = ""
    rounding: Literal["ties_up", "tflite", "onnx"] = "ties_up"
    residuals: bool = True
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
    min_ratio: float | None = None
    metric: str = "top1"
    tune: bool = False
    tune_file: Path | None = None
    tune_rpc: str = ""
    tune_trials: int = Tuning.trials
    verify_each: bool = False
    dump_after: str | None = None
    dump_folder: Path | None = None
    on_diff: Callable[[str], None] | None = None
    emit: tuple[str, ...] = ()
    tvmscript: Path | None = None

    def __post_init__(self) -> None:
        if self.recipe:
            self._follow_recipe()
        for name, value, known in (
            ("precision", self.precision, ("int8", "float32", "dynamic")),
            ("weights_only", self.weights_only or STORED_FORMATS[0], STORED_FORMATS),
            ("io", self.io, ("auto", "int8", "float")),
            ("rounding", self.rounding, ("ties_up", "tflite", "onnx")),
            ("weights", self.weights, FORMS),
            ("layout", self.layout, LAYOUTS),
            ("stream", self.stream, STREAMING),
        ):
            if value not in known:
                raise QccError(f"unknown {name} {value!r}", hint=f"known: {', '.join(known)}")
        if self.weights_only and self.precision == "int8":
            raise QccError(
                "weights alone are stored in fewer bits where activations are in float",
                hint='add --float32 or --dynamic (precision="float32"), or choose --qspec "w_bits=4 pack=true"',
            )
        if self.weight_group < 0 or (self.weight_group and self.weights_only not in CODE_MAX):
            raise QccError(
                f"weights in groups of {self.weight_group} have no use here",
                hint=f"groups of 1 or more have scales with weights_only of {' and '.join(CODE_MAX)}",
            )
        QSpec.parse(self.qspec)
        for name in () if isinstance(self.corrections, bool) else self.corrections:
            if name not in CORRECTIONS:
                raise QccError(f"unknown correction {name!r}", hint=f"known: {', '.join(CORRECTIONS)}")
        for name in self.emit:
            if name not in EMITTED:
                raise QccError(f"unknown emit {name!r}", hint=f"known: {', '.join(EMITTED)}")
        wants_script = "tvmscript" in self.emit or self.tvmscript is not None
        if wants_script and not self.target.startswith("tvm"):
            raise QccError(f"target {self.target} has no TVMScript", hint="choose a target tvm:...")
        if not 1 <= self.threads <= MAX_THREADS:
            raise QccError(
                f"threads is {self.threads}", hint=f"between 1 and {MAX_THREADS} threads are possible"
            )

        if self.no_float and self.boundary == "float":
            what = "float at the boundary" if self.precision == "int8" else self.precision
            raise QccError(f"a program without floats cannot have {what}", hint="leave one of them out")
        if self.min_ratio is not None and not 0 < self.min_ratio <= 1:
            raise QccError(f"min_ratio is {self.min_ratio}", hint="it is a share of float: above 0, up to 1")
        if self.min_ratio is not None and self.precision != "int8":
            raise QccError(f"min_ratio is for 8 bits, not for {self.precision}", hint="leave one of them out")
        is_tvm = self.target.startswith("tvm")
        if self.tune_file is not None and not (self.tune or is_tvm):
            raise QccError("a tune file without tuning has no use", hint="add --tune (tune=True)")
        if self.tune_rpc and not (self.tune and is_tvm):
            raise QccError(
                "an RPC tracker is for tuning a target tvm:...", hint="add --tune, or leave it out"
            )
        _ = self.tracker

    def _follow_recipe(self) -> None:
        """Take over the options of the recipe. Raises QccError where another one was given."""
        recipe = find_recipe(self.recipe)
        if self.precision == "float32":
            raise QccError(
                f"recipe {self.recipe} is of no use: float32 chooses no ranges", hint="leave it out"
            )
        defaults = {f.name: f.default for f in fields(self)}
        given = {n: getattr(self, n) for n in OPTIONS if getattr(self, n) != defaults[n]}
        require_agreement(self.recipe, given)
        for name, value in recipe.options.items():
            object.__setattr__(self, name, value)

    @property
    def chosen_corrections(self) -> tuple[str, ...]:
        """The names of the corrections, in the order of CORRECTIONS."""
        if isinstance(self.corrections, bool):
            return USUAL_CORRECTIONS if self.corrections else ()
        return tuple(name for name in CORRECTIONS if name in self.corrections)

    @property
    def tracker(self) -> tuple[str, int, str] | None:
        """Host, port and key of ``tune_rpc``. Raises QccError where it is something else."""
        if not self.tune_rpc:
            return None
        host, port, key = (*self.tune_rpc.split(":", 2), "", "")[:3]
        if not (host and port.isdecimal() and key):
            raise QccError(f"{self.tune_rpc!r} is no tracker", hint="name one as HOST:PORT:KEY")
        return host, int(port), key

    @property
    def boundary(self) -> Literal["int8", "float"]:
        """The boundary that is really there, integers or float: a float program has no other than float."""
        return "int8" if self.precision == "int8" and self.io != "float" else "float"
