"""The command line: options in, tables and progress out; the work is done by api, verify and the pass manager."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

import qcc
from qcc import api, calibration_data, tables, verify
from qcc.backends.c.build import build_archive
from qcc.backends.c.emit import check_replaceable
from qcc.backends.c.layouts import LAYOUTS
from qcc.backends.c.weights import FORMS
from qcc.backends.stream import STREAMING
from qcc.backends.targets import Availability, availability, find_target
from qcc.cli_base import (
    Commands,
    calib_option,
    console,
    data_option,
    dump_after_option,
    dump_folder_option,
    observer_text,
    path_type,
    plugin_option,
    print_diff,
    print_ir_diff_option,
    progress,
    shape_option,
    time_passes_option,
    tune_file_option,
    tune_option,
    tune_rpc_option,
    tune_trials_option,
    verify_each_option,
    warn,
)
from qcc.cli_compare import compare_command
from qcc.cli_graphs import explain_command, opt_command, passes_command, report_command, targets_command
from qcc.cli_quantize import quantize_command
from qcc.cli_recipes import recipe_option, recipes_command, require_recipe
from qcc.cli_reduce import reduce_command
from qcc.cli_sensitivity import contract_table, sensitivity_command
from qcc.cli_stats import stats_command
from qcc.driver import synthetic_samples
from qcc.float_runtime import FloatRuntime
from qcc.ir.ops.stored import FORMATS as STORED_FORMATS
from qcc.options import MAX_THREADS, CompileOptions
from qcc.saved import SavedLibrary, open_saved
from qcc.timing import time_call, time_library, time_steps

Arrays = dict[str, NDArray[Any]]


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(qcc.__version__, prog_name="qcc")
def main() -> None:
    """qcc: a quantizing compiler. ONNX in, a verified 8-bit C library out.

    \b
    A first session:
      qcc targets                                        what can be built and run here
      qcc compile model.onnx --calib data.npz -o out     quantize, prove, write C, build, compare
      qcc verify out --data test.npz                     library = interpreter; accuracy against float
      qcc bench out                                      time per inference, against float32
      qcc quantize model.onnx --calib data.npz -o q.onnx a QDQ model for onnxruntime, OpenVINO or TensorRT
      qcc compare model.onnx out --data test.npz         where integers and float part
      qcc explain model.onnx NODE                        what every rule did with a node, and why not

    data.npz holds one array for each model input, under the name of the input, samples along the first axis.
    out/report.html shows layers, memory, proofs and accuracy.
    """


# ---------------------------------------------------------------- compile
@main.command("compile")
@click.argument("model", type=path_type)
@click.option("-o", "--out", required=True, type=path_type, help="Folder for the C library.")
@click.option("--target", default=CompileOptions.target, show_default=True, help="See: qcc targets.")
@calib_option
@click.option("--int8", "precision", flag_value="int8", default="int8", help="8-bit integers (the default).")
@click.option("--float32", "precision", flag_value="float32", help="The same graph in float, as a baseline.")
@click.option(
    "--dynamic",
    "precision",
    flag_value="dynamic",
    help="Float, but products of integers in dense layers: activations quantized at run time.",
)
@click.option(
    "--weights-only",
    type=click.Choice(STORED_FORMATS),
    default=CompileOptions.weights_only,
    help="Store the weights of a float program in fewer bits (with --float32 or --dynamic).",
)
@click.option(
    "--weight-group",
    type=click.IntRange(0),
    metavar="N",
    default=CompileOptions.weight_group,
    help="With --weights-only: N consecutive weights share a scale (default: those of an output channel).",
)
@click.option(
    "--io",
    type=click.Choice(["auto", "int8", "float"]),
    default=CompileOptions.io,
    show_default=True,
    help="What crosses the library's boundary; auto: integers of 8 bits, or of 16 where those are nearly free and gain accuracy.",
)
@click.option("--name", help="C name of the library (default: the file's name).")
@shape_option
@recipe_option
@click.option(
    "--observer",
    metavar="NAME",
    default="auto",
    show_default=True,
    help="How ranges are chosen: min-max, moving-average, mean-min-max, percentile, histogram, mse, kl, admm, eq, auto,"
    " or one of a plugin.",
)
@click.option(
    "--observer-of",
    "tensors",
    multiple=True,
    metavar="GLOB=NAME",
    help="Another observer for the tensors whose names match (repeatable; the first match counts).",
)
@click.option(
    "--percentile",
    type=click.FloatRange(50, 100),
    metavar="P",
    help="Share of elements that percentile keeps (with --observer percentile; default: 99.99).",
)
@click.option(
    "--qspec",
    metavar="TEXT",
    default=CompileOptions.qspec,
    help="Bits and scales, such as: activations=symmetric weights=per-tensor a_bits=6 w_bits=4 narrow=true.",
)
@click.option(
    "--rounding",
    type=click.Choice(["ties_up", "tflite", "onnx"]),
    default=CompileOptions.rounding,
    show_default=True,
    help="Whose integers: qcc's own, those of TensorFlow Lite's reference kernels, or those of onnxruntime.",
)
@click.option(
    "--int16",
    multiple=True,
    metavar="GLOB",
    help="Hold the tensors whose names match in 16 bits (repeatable; '*': all of them).",
)
@click.option(
    "--float",
    "float_nodes",
    multiple=True,
    metavar="GLOB",
    help="Leave the nodes whose names match in float (repeatable).",
)
@click.option(
    "--stats", type=path_type, metavar="FILE", help="Statistics of an earlier run, in place of --calib."
)
@click.option(
    "--save-stats", type=path_type, metavar="FILE", help="Write the statistics of the calibration data."
)
@click.option(
    "--float-pipeline",
    metavar="TEXT",
    default=CompileOptions.float_pipeline,
    show_default=True,
    help="Passes before quantization, such as float,my-pass{share=0.1}.",
)
@click.option(
    "--annotated-pipeline",
    metavar="TEXT",
    default=CompileOptions.annotated_pipeline,
    help="Passes behind the choice of scales, such as round-by{scheme=mine}.",
)
@click.option(
    "--weights",
    type=click.Choice(FORMS),
    default=CompileOptions.weights,
    show_default=True,
    help="Constants as C text, or as a file that the assembler includes: auto means C up to 256 kB.",
)
@click.option(
    "--layout",
    type=click.Choice(LAYOUTS),
    default=CompileOptions.layout,
    show_default=True,
    help="Files for this build system too, besides CMakeLists.txt.",
)
@click.option(
    "--threads",
    type=click.IntRange(1, MAX_THREADS),
    default=CompileOptions.threads,
    show_default=True,
    help="Threads that share each inference, where that is faster.",
)
@click.option(
    "--stream",
    type=click.Choice(STREAMING),
    default=CompileOptions.stream,
    show_default=True,
    help="Steps in bands of rows, so that large results are never whole: on for the smallest arena; auto where a"
    " bare-metal target gets a smaller one at little cost.",
)
@click.option(
    "--ram", type=click.IntRange(1), metavar="BYTES", help="Most bytes of the arena: streams to fit."
)
@click.option(
    "--analyze",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    default=CompileOptions.analyze,
    help="Spend up to SECONDS on what each tensor, restored to float, would gain; the report shows it.",
)
@click.option(
    "--min-ratio",
    type=float,
    metavar="SHARE",
    help="Restore tensors to 16 bits and nodes to float until --metric reaches this share of float's on --eval, at"
    " least cost; or fail, with what each restoration would have brought.",
)
@click.option(
    "--eval", "evaluation", type=path_type, metavar="DATA", help="Samples, with labels, for --min-ratio."
)
@click.option(
    "--metric",
    default=CompileOptions.metric,
    show_default=True,
    help="For --min-ratio: top1 (of labels, or of float), sqnr (1 - noise / signal), or one of a plugin.",
)
@tune_option
@tune_file_option
@tune_rpc_option
@tune_trials_option
@click.option("--no-float", is_flag=True, help="Integers only: proved on the built code, or an error.")
@click.option(
    "--corrections/--no-corrections",
    default=CompileOptions.corrections,
    help="Correct scales, biases and rounding where that helps on calibration samples.",
)
@click.option("--strict", is_flag=True, help="Fail where a node would have to run in float.")
@click.option(
    "--emit",
    metavar="A,B,...",
    callback=lambda context, parameter, text: tuple(filter(None, text.split(","))),
    default="",
    help="More files: tosa (NAME.mlir, the integer program in MLIR's TOSA dialect), onnx (NAME.onnx, with QDQ nodes), "
    "tvmscript (NAME_kernels.py, the kernels that TVM compiles).",
)
@click.option(
    "--tvmscript",
    type=path_type,
    metavar="FILE",
    help="Kernels in place of those that would be generated: an edited NAME_kernels.py.",
)
@verify_each_option
@dump_after_option
@dump_folder_option("OUT-dumps")
@time_passes_option
@print_ir_diff_option
@plugin_option
@click.option(
    "--build/--no-build", default=True, help="Build for the target and compare with the interpreter."
)
def compile_command(
    model: Path, out: Path, calib: Path | None, observer: str, percentile: float | None, tensors: tuple[str, ...],
    dump_after: str | None, dump_folder: Path | None, time_passes: bool, print_ir_diff: bool, build: bool, **choices: Any,
) -> None:  # fmt: skip
    """Compile an ONNX MODEL into a C library in the folder OUT.

    Then build it for the target, run it on calibration samples and compare it with the integer interpreter, byte
    for byte. For a target that cannot run here this says so.
    """
    found = availability(find_target(choices["target"]))
    check_replaceable(out)
    choices["observer"] = observer_text(observer, percentile, tensors)
    require_recipe(choices)
    if dump_after is not None:
        choices |= {
            "dump_after": dump_after,
            "dump_folder": dump_folder or Path(f"{out.absolute()}-dumps"),
        }
    if print_ir_diff:
        choices["on_diff"] = print_diff
    with progress() as report:
        compiled = qcc.compile(model, calibration=calib, progress=report, warn=warn, **choices)
        report("writing", 0, 0)
        compiled.save(out)
        built = _build_and_verify(compiled, out, found, report) if build else None
        if build and found.builds and (compiled.is_without_floats or not found.target.is_native):
            report("measuring the library", 0, 0)
            compiled.measure(out)
    console().print(tables.summary(compiled.report, out, built, found.target.is_native))
    if compiled.compilation.contract is not None:
        console().print(contract_table(compiled.compilation.contract))
    if time_passes:
        console(stderr=True).print(tables.pass_times(compiled.compilation.seconds))


def _build_and_verify(
    compiled: api.CompiledModel, out: Path, found: Availability, report: Callable[[str, int, int], None]
) -> Path | None:
    """Build, and run where that is possible; the report tells what was done. Returns what was built."""
    target, missing = found.target, "; ".join(found.missing)
    report(f"building for {target.name}", 0, 0)
    if not found.builds:
        how = f"not built: no compiler for {target.name} here ({missing})"
    elif found.lacking:
        how = f"built, not run: this processor does not have {', '.join(found.lacking)}"
    elif not found.runs:
        how = f"built, not run: no emulator for {target.name} here ({missing})"
    else:
        library = compiled.build(out)
        report("comparing with the interpreter", 0, 0)
        result = compiled.verify(library)
        how = f"under {target.runner[0]}" if target.runner else "on this machine"
        compiled.record_verification(result, how, out)
        verify.require_exact(result, f"{out}")
        return library.path
    if found.builds:
        build_archive(out, target)
    warn(how)
    compiled.record_verification(verify.Verification(), how, out)
    return out / "build" if found.builds else None


# ---------------------------------------------------------------- verify
@main.command("verify")
@click.argument("out", type=path_type)
@plugin_option
@data_option
@click.option(
    "--labels", metavar="KEY", help="Array of class labels in DATA (default: label, labels, y ...)."
)
def verify_command(out: Path, data: Path | None, labels: str | None) -> None:
    """Build and run the library in OUT, and compare.

    The library must equal the integer interpreter in every byte (status 1 if not); its accuracy against float, and
    against labels where DATA has them, is printed.
    """
    saved = open_saved(out)
    inputs, truth = _samples(saved, data, labels)
    with progress() as report:
        report(f"building for {saved.target.name}", 0, 0)
        library = saved.build()
        report("comparing with the interpreter", 0, 0)
        result = verify.verify(saved.graph, saved.float_graph, inputs, truth, library, saved.float_boundary)
        step = "" if result.exact else verify.first_diverging_step(out, saved.graph, inputs)
    meaning, source = verify.meaning_of_equal(saved.graph), str(data or "seeded noise: accuracy says little")
    console().print(tables.verification(result, meaning, source, step))
    if not result.exact:
        click.get_current_context().exit(1)


def _samples(
    saved: SavedLibrary, data: Path | None, labels: str | None
) -> tuple[Arrays, NDArray[Any] | None]:
    """All samples of ``data``, in memory, with their labels."""
    if data is None:
        if labels is not None:
            raise click.UsageError("--labels needs --data")
        return synthetic_samples(saved.float_graph, CompileOptions()), None
    loaded = calibration_data.load_calibration(data, saved.float_graph.inputs, labels)
    batches = list(loaded)
    return {name: np.concatenate([b[name] for b in batches]) for name in batches[0]}, loaded.labels


# ---------------------------------------------------------------- bench
@main.command("bench")
@click.argument("out", type=path_type)
@plugin_option
@data_option
@click.option(
    "--seconds", type=click.FloatRange(min=0.01), default=2.0, show_default=True, help="Per engine."
)
def bench_command(out: Path, data: Path | None, seconds: float) -> None:
    """Time per inference of the library in OUT, against onnxruntime, and of each of its layers.

    onnxruntime runs the same graph in float32 on one thread. Layers are timed in a library of their own, with a clock behind
    each; what the clock itself takes is left out.
    """
    saved = open_saved(out)
    inputs = _samples(saved, data, None)[0]
    with progress() as report:
        report(f"building for {saved.target.name}", 0, 0)
        library = saved.build()
        report("timing the library", 0, 0)
        ours = time_library(library, saved.graph, inputs, saved.float_boundary, seconds)
        report("timing onnxruntime", 0, 0)
        runtime = FloatRuntime(saved.float_graph, threads=1)
        reference = time_call(runtime.prepared(inputs), seconds) if runtime.is_onnx else None
        steps = None
        if saved.record.get("threads", 1) == 1:
            report("timing the layers", 0, 0)
            steps = time_steps(saved.build_timed(), saved.graph, inputs, saved.float_boundary, seconds)
    float_macs = sum(n.op.macs(n.signature) for n in saved.float_graph.nodes)
    console().print(tables.timings(ours, saved.record["macs"], reference, float_macs))
    console().print(
        tables.step_timings(steps) if steps else "\nCompile for one thread to see the time of each layer."
    )


# ---------------------------------------------------------------- size
@main.command("size")
@click.argument("out", type=path_type)
@plugin_option
def size_command(out: Path) -> None:
    """Flash, RAM and stack of the library in OUT, and what each of its layers takes.

    The library is linked alone with what it needs of the compiler's run-time library; the stack is the deepest chain of calls
    from its entry. A library compiled with --no-float must not compute with floats (status 1 if it does).
    """
    saved = open_saved(out)
    with progress() as report:
        report(f"building for {saved.target.name}", 0, 0)
        api.measure_saved(out, saved.target)
    console().print(tables.sizes(open_saved(out).record))


main.add_command(quantize_command)
main.add_command(compare_command)
main.add_command(sensitivity_command)
main.add_command(stats_command)
main.add_command(explain_command)
main.add_command(opt_command)
main.add_command(reduce_command)
main.add_command(report_command)
main.add_command(passes_command)
main.add_command(recipes_command)
main.add_command(targets_command)
