"""What the commands print: results as rich tables. Nothing here computes or decides."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, fields
from math import isfinite
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from qcc.backends.c.names import short_names
from qcc.backends.kernel import Kernel
from qcc.backends.program import Operation
from qcc.backends.targets import Availability
from qcc.explain import Explanation
from qcc.passes.base import Note, Pass
from qcc.timing import StepTimings, Timing
from qcc.verify import Accuracy, Verification

GOOD, BAD, LOUD = "bold green", "bold red", "bold yellow"
MAX_PLACEMENT_ROWS = 20


def size(count: int) -> str:
    """Bytes for people."""
    if count < 10 * 1024:
        return f"{count:,} bytes"
    return f"{count / 1024:,.1f} KiB" if count < 10 * 2**20 else f"{count / 2**20:,.1f} MiB"


def decibels(value: float | None) -> str:
    """A ratio; None and infinity mean that there is no noise."""
    return "exact" if value is None or value == float("inf") else f"{value:.1f} dB"


def _facts(rows: Iterable[tuple[str, str | Text]]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(Text(name), value if isinstance(value, Text) else Text(value))
    return table


def _table(*columns: str, right: Sequence[int] = ()) -> Table:
    table = Table(header_style="cyan", box=None, padding=(0, 2, 0, 0))
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index in right else "left", overflow="fold")
    return table


# ---------------------------------------------------------------- compile
def summary(report: Mapping[str, Any], folder: Path, built: Path | None, native: bool) -> RenderableType:
    """The result of a compilation, from its report. ``native``: the library runs in a process of this machine."""
    options, placement = report["options"], report["placement"]
    rows: list[tuple[str, str | Text]] = [
        ("model", f"{report['model']['name']}, sha256 {report['model']['sha256'][:12]}"),
        ("target", f"{report['target']}: {report['target_description']}; {options['precision']}"),
        *([("recipe", options["recipe"])] if "recipe" in options else []),
        ("boundary", f"{_ports(report['inputs'])} -> {_ports(report['outputs'])}"),
        ("work", f"{report['macs']:,} MACs in {len(report['layers'])} steps{_tuned(report['layers'])}"),
        *footprint(report),
        *_stored(report),
        ("placement", f"{placement['integer']} nodes in integers, {len(placement['float'])} in float"),
        *_threads(report),
        *_proofs(report),
        *_accuracy_rows(report),
        ("library", _checked(report["verification"])),
        ("files", f"{folder / report['name']}.h and .c, CMakeLists.txt, report.html, graphs/"),
    ]
    if built is not None:
        rows.append(("built", str(built)))
    parts: list[RenderableType] = [_facts(rows)]
    if placement["float"] and options["precision"] == "int8":
        parts += [Text("\nin float:", style=LOUD), _placement(placement["float"])]
    parts += worst_tensors(report)
    parts.append(_next_steps(folder, native))
    return Group(*parts)


def _stored(report: Mapping[str, Any]) -> list[tuple[str, str | Text]]:
    """How much smaller the constants are where weights are codes."""
    stored = report["stored_weights"]
    if stored is None:
        return []
    before, after = stored["float_bytes"], report["constant_bytes"]
    count = sum(n["stored"] for n in stored["nodes"])
    text = (
        f"{stored['format']} in {count} of {len(stored['nodes'])} layers; {size(before - after)} "
        f"({1 - after / before:.0%}) saved of {size(before)} in float32"
    )
    return [("weights", text)]


def worst_tensors(report: Mapping[str, Any]) -> list[RenderableType]:
    """Where most of the error arises, by SQNR; what a restoration to float gains where that was tried."""
    if not report["worst"]:
        return []
    measured = {t["tensor"]: t for t in report["tensors"]}
    gains: dict[str, list[str]] = {}
    for entry in (report["what_if"] or {"evaluated": []})["evaluated"]:
        if entry["gain_db"] is not None:
            gains.setdefault(entry["tensor"], []).append(f"{entry['what']} {entry['gain_db']:+.1f} dB")
    table = _table("tensor", "itself", "weights", "up to here", "in float", right=(1, 2, 3))
    for name in report["worst"]:
        found = measured[name]
        shown = (
            "-" if found["error"][kind] is None else decibels(found["sqnr_db"][kind])
            for kind in ("local", "weights", "cumulative")
        )
        table.add_row(Text(found["label"]), *shown, ", ".join(gains.get(name, [])))
    return [Text("\nmost error arises at (SQNR; the whole list is in report.html):", style="cyan"), table]


def footprint(report: Mapping[str, Any]) -> list[tuple[str, str | Text]]:
    """Flash, RAM and, where the library was measured, stack; of a report or the record of a library."""
    measured = report.get("footprint")
    arena = f"arena {size(report['arena_bytes'])}; lower bound {size(report['arena_lower_bound_bytes'])}"
    if "streams" in report:
        arena += f"; {size(report['arena_unstreamed_bytes'])} without streams"
    constants = f"{size(report['constant_bytes'])} of constants"
    if not measured:
        return [("flash", constants), ("RAM", arena)]
    bound = "at least" if measured["unmeasured"] else "at most"
    rows: list[tuple[str, str | Text]] = [
        ("flash", f"{size(measured['flash'])}: {size(measured['code'])} of code, {constants}"),
        ("RAM", f"{arena}; {size(measured['data'] + measured['bss'])} of variables"),
        ("stack", f"{bound} {size(measured['stack'])}: {' > '.join(measured['deepest'])}"),
    ]
    if measured["unmeasured"]:
        rows.append(("", f"stack not known of {', '.join(measured['unmeasured'])}"))
    if measured["external"]:
        rows.append(("needs", ", ".join(measured["external"])))
    if report["options"].get("no_float"):
        rows.append(
            ("floats", Text("none: no instruction and no function of the library computes with them", GOOD))
        )
    return rows


def sizes(record: Mapping[str, Any]) -> RenderableType:
    """The record of a measured library: sums, then layers."""
    return Group(_facts(footprint(record)), Text(), layer_sizes(record["layers"]))


def layer_sizes(layers: Sequence[Mapping[str, Any]]) -> Table:
    """Multiply-accumulates and bytes of each layer."""
    table = _table("layer", "kernel", "MACs", "constants", "output", "workspace", right=(2, 3, 4, 5))
    short = short_names([layer["name"] for layer in layers])
    for layer in layers:
        counts = (
            layer["macs"],
            layer["constant_bytes"],
            layer["output"]["bytes"],
            layer["workspace_bytes"],
        )
        table.add_row(Text(short[layer["name"]]), Text(layer["kernel"]), *(f"{count:,}" for count in counts))
    return table


def _tuned(layers: Sequence[Mapping[str, Any]]) -> str:
    """How many steps got a kernel by measurement."""
    count = sum("microseconds" in layer for layer in layers)
    return f", kernels of {count} measured" if count else ""


def _ports(ports: Iterable[Mapping[str, Any]]) -> str:
    return ", ".join(f"{p['name']} {p['dtype']}{p['shape']}" for p in ports)


def _threads(report: Mapping[str, Any]) -> list[tuple[str, str | Text]]:
    if "threads" not in report:
        return []
    shared = sum(bool(layer["parts"]) for layer in report["layers"])
    found = f"{report['threads']} share {shared} of {len(report['layers'])} steps"
    return [("threads", found if shared else "1: all steps are too small for more")]


def _proofs(report: Mapping[str, Any]) -> list[tuple[str, str | Text]]:
    proof, dead = report["proof"], report["dead_channels"]
    if proof is None:
        return []
    certified = f"{proof['certified']:,} of {proof['channels']:,} requantized channels certified"
    removed = f"{dead['removed']:,} of {dead['channels']:,} output channels removed"
    if dead["removed"]:
        removed += f": {dead['macs_before']:,} MACs became {report['macs']:,}"
    return [
        ("proved", f"{certified}; sums need {proof['accumulator_bits']} of 32 bits"),
        ("dead", removed),
    ]


def _accuracy_rows(report: Mapping[str, Any]) -> list[tuple[str, str | Text]]:
    accuracy, synthetic = report["accuracy"], report["calibration"]["synthetic"]
    kind = "synthetic" if synthetic else "calibration"
    return [
        (
            "accuracy",
            f"{name}: {decibels(o['sqnr_db'])} SQNR, cosine {o['cosine']:.5f} ({accuracy['samples']} {kind} samples)",
        )
        for name, o in accuracy.get("outputs", {}).items()
    ]


def _checked(verification: Mapping[str, Any] | None) -> Text:
    if verification is None:
        return Text("written, not built", LOUD)
    how, samples, equal = verification["how"], verification["samples"], verification["equal"]
    if equal is None:
        return Text(how, LOUD)
    text = f"{equal} of {samples} samples {verification['meaning']} the interpreter, {how}"
    return Text(text, GOOD if equal == samples else BAD)


def _placement(entries: Sequence[Mapping[str, str]]) -> Table:
    table = _table("node", "why it runs in float")
    for entry in entries[:MAX_PLACEMENT_ROWS]:
        table.add_row(Text(entry["node"]), Text(entry["reason"]))
    if len(entries) > MAX_PLACEMENT_ROWS:
        table.add_row("...", f"{len(entries) - MAX_PLACEMENT_ROWS} more in report.html")
    return table


def _next_steps(folder: Path, native: bool) -> Text:
    steps = [f"qcc verify {folder} --data test.npz", f"open {folder / 'report.html'}"]
    if native:
        steps.insert(1, f"qcc bench {folder}")
    return Text("\nnext: " + "\n      ".join(steps))


# ---------------------------------------------------------------- verify and bench
def verification(result: Verification, meaning: str, data: str, diverging_step: str) -> RenderableType:
    """Equality, where it ends if it does, and the accuracy of each output."""
    equal = f"{result.equal} of {result.samples} samples {meaning} the interpreter ({data})"
    lines = [Text(equal, GOOD if result.exact else BAD)]
    if result.first_difference:
        lines.append(Text(result.first_difference, BAD))
    if diverging_step:
        lines.append(Text(f"first step that differs: {diverging_step}", BAD))
    return Group(*lines, _accuracies(result.accuracy))


def _accuracies(accuracies: Sequence[Accuracy]) -> Table:
    columns = ("output", "SQNR", "cosine", "top-1 agreement", "accuracy", "accuracy of float")
    table = _table(*columns, right=(1, 2, 3, 4, 5))
    for a in accuracies:
        integer, real = (f"{x:.2%}" for x in a.label_accuracy) if a.label_accuracy else ("-", "-")
        agreement = "-" if a.top1_agreement is None else f"{a.top1_agreement:.2%}"
        table.add_row(Text(a.output), decibels(a.sqnr_db), f"{a.cosine:.6f}", agreement, integer, real)
    return table


def timings(library: Timing, macs: int, reference: Timing | None, reference_macs: int) -> RenderableType:
    """Both times, their ratio, and how much to believe them; the library may have fewer MACs to do.

    ``reference``: None where onnxruntime cannot run the model.
    """
    table = _table("", "median us", "min us", "GMAC/s", "runs", right=(1, 2, 3, 4))
    rows = (
        ("qcc library", library, macs),
        ("onnxruntime float32, 1 thread", reference, reference_macs),
    )
    for name, t, work in rows:
        if t is None:
            continue
        rate = work / t.median_us / 1e3
        table.add_row(
            name, f"{t.median_us:,.2f}", f"{t.min_us:,.2f}", f"{rate:.2f}", f"{t.blocks * t.calls:,}"
        )
    note = "Other work on this machine moves these numbers: compare the minima, and run it twice."
    return Group(table, Text(_verdict(library, reference)), Text(note, "dim"))


def _verdict(library: Timing, reference: Timing | None) -> str:
    if reference is None:
        return "onnxruntime cannot run this model: it has ops of a plugin without an ONNX form"
    ratio = reference.median_us / library.median_us
    if ratio < 1:
        return f"the library takes {1 / ratio:.2f} times the time of float32"
    return f"the library is {ratio:.2f} times as fast as float32"


def step_timings(timings: StepTimings) -> RenderableType:
    """A line for each step: its share of the sum of medians, and its rate, that of the fastest run."""
    columns = ("layer", "kernel", "median us", "min us", "share", "MACs", "GMAC/s")
    peak = timings.peak_gmacs
    table = _table(*columns, *(("of peak",) if peak else ()), right=range(2, 8))
    whole = sum(t.median_us for t in timings.steps)
    for t in timings.steps:
        gmacs = t.macs / max(t.min_us, 1e-3) / 1e3
        rates = [f"{t.macs:,}", f"{gmacs:.1f}", *([f"{gmacs / peak:.1%}"] if peak else [])] if t.macs else []
        times = (f"{t.median_us:,.2f}", f"{t.min_us:,.2f}", f"{t.median_us / whole:.1%}" if whole else "")
        table.add_row(Text(t.name), Text(t.kernel), *times, *rates)
    about = f"{timings.runs:,} runs; {whole:,.2f} us in all"
    if peak:
        about += f"; peak: {peak:.0f} GMAC/s, a loop of multiply-accumulates over registers"
    return Group(Text(""), table, Text(about, "dim"))


# ---------------------------------------------------------------- explain
def notes(found: Iterable[tuple[str, Note]]) -> Table:
    """(pass, note) in order."""
    table = _table("pass", "node", "rule", "", "reason")
    for name, note in found:
        verdict = Text("applied", "green") if note.applied else Text("declined", "yellow")
        table.add_row(name, Text(note.node), note.rule, verdict, Text(note.reason))
    return table


def explanation(found: Explanation) -> RenderableType:
    """Rules in the order in which they ran, then the kernels."""
    table = notes(found.notes)
    parts: list[RenderableType] = []
    if len(found.names) > 1:
        parts.append(
            Text(f"{found.names[0]} is computed together with, or inside: {', '.join(found.names[1:])}")
        )
    parts.append(table if found.notes else Text("no rule looked at it"))
    if found.operation is not None:
        step = found.operation.step
        text = f"\nkernel {found.operation.kernel.label} computes {step.pattern} -> {step.output.name}"
        parts += [Text(text, "bold"), *_choice(found.operation)]
    else:
        parts.append(Text(f"\nno kernel: {found.absence}"))
    return Group(*parts)


def _choice(operation: Operation) -> Iterable[RenderableType]:
    """The kernel beside those it was preferred to, where there were any or its speed is known; the refusals."""
    shown = (operation.candidates[0], *operation.beaten)
    if len(shown) > 1 or isfinite(shown[0].cycles):
        table = _table("", "kernel", "estimated cycles", "measured us", right=(2, 3))
        for index, c in enumerate(shown):
            cycles = f"{c.cycles:,.0f}" if isfinite(c.cycles) else "-"
            time = "-" if c.microseconds is None else f"{c.microseconds:,.2f}"
            table.add_row("  not" if index else "  chosen", Text(c.kernel.label), cycles, time)
        yield table
    labels: dict[str, list[str]] = {}
    for refusal in operation.refused:
        labels.setdefault(refusal.reason, []).append(refusal.kernel.label)
    for reason, refusing in labels.items():
        yield Text(f"  refused: {', '.join(refusing)}: {reason}")


# ---------------------------------------------------------------- targets and passes
def targets(available: Iterable[Availability]) -> Table:
    """What can be built and run here."""
    table = _table("target", "for", "builds here", "runs here", "to install")
    for a in available:
        builds, runs = (Text("yes", "green") if x else Text("no", "yellow") for x in (a.builds, a.runs))
        if a.runs and a.runner:
            runs = Text(f"yes, {a.runner.split()[0]}", "green")
        table.add_row(a.target.name, a.target.description, builds, runs, "; ".join(a.missing))
    return table


def kernels(rows: Iterable[Kernel]) -> Table:
    """Every kernel with the steps it computes; of those that can do a step, the highest priority is taken."""
    table = _table("kernel", "priority", "estimates cycles", "computes", right=(1,))
    found: dict[tuple[str, int, bool], list[str]] = {}
    for row in sorted(rows, key=lambda k: -k.priority):
        found.setdefault((row.label, row.priority, row.cost is not None), []).append(row.pattern)
    for (label, priority, estimates), patterns in found.items():
        computes = ", ".join(dict.fromkeys(patterns))
        table.add_row(Text(label), str(priority), "yes" if estimates else "", Text(computes))
    return table


def pass_manual(passes: Iterable[type[Pass]], pipelines: Mapping[str, str]) -> RenderableType:
    """Name, contract, description and options of every pass; then the named pipelines."""
    parts: list[RenderableType] = []
    for cls in passes:
        stage = f"{cls.stage or 'any'} -> {cls.result_stage}" if cls.result_stage else cls.stage or "any"
        parts.append(Text.assemble((cls.name, "bold cyan"), f"  [{stage}; {cls.exactness}]"))
        parts.append(Text(f"  {(cls.__doc__ or '').strip().splitlines()[0]}"))
        for field in fields(cls):  # type: ignore[arg-type]
            default = "required" if field.default is MISSING else f"default {field.default}"
            kind = getattr(field.type, "__name__", field.type)  # a string where annotations are not evaluated
            parts.append(Text(f"  {{{field.name}=...}}  {kind}, {default}"))
    for name, text in pipelines.items():
        parts.append(Text.assemble("\npipeline ", (name, "bold cyan"), f" = {text}"))
    return Group(*parts)


def pass_times(times: Iterable[tuple[str, float]]) -> Table:
    """Milliseconds per pass."""
    table = _table("pass", "ms", right=(1,))
    for name, seconds in times:
        table.add_row(name, f"{1000 * seconds:.2f}")
    return table
