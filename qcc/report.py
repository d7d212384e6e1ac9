"""The report of a compilation: plain data, one JSON file and one HTML page."""

from __future__ import annotations

import json
import math
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2

import qcc
from qcc import metrics, verify
from qcc.backends.c.metadata import metadata_of
from qcc.backends.c.names import short_names
from qcc.backends.program import Operation, Program
from qcc.driver import Compilation, Progress
from qcc.ir.errors import QccError
from qcc.ir.graph import Graph
from qcc.ir.npz import write_aside
from qcc.ir.ops.quant import Requantize
from qcc.report_errors import samples_measured
from qcc.report_graph import draw
from qcc.report_tensors import tensors_of

JSON_FILE, HTML_FILE = "report.json", "report.html"
GENERATOR = f"qcc {qcc.__version__}"


def report_of(
    made: Compilation,
    program: Program,
    warnings: list[str],
    results: verify.Results | None,
    progress: Progress = lambda what, done, total: None,
) -> dict[str, Any]:
    """Everything a person or a script wants to know of a compilation. ``results``: on its kept samples."""
    constants = sum(
        a.nbytes for op in program.operations for a in op.call.constants.values() if a is not None
    )
    metadata = metadata_of(program, constants)
    layers = list(zip(metadata.pop("layers"), program.operations, strict=True))
    memory = _memory(program)
    labels = short_names([*(layer["name"] for layer, _ in layers), *(block["name"] for block in memory)])
    tensors = tensors_of(made, progress)
    labels |= {t["tensor"]: t["label"] for t in tensors["tensors"]}
    return {
        "generator": GENERATOR,
        "model": {"name": made.model, "sha256": made.sha256},
        "options": {
            "target": made.options.target,
            "precision": made.options.precision,
            "io": made.options.boundary,
            **({"recipe": made.options.recipe} if made.options.recipe else {}),
            "observer": made.options.observer,
            "qspec": made.options.qspec,
            "corrections": list(made.options.chosen_corrections),
            "rounding": made.options.rounding,
            "residuals": made.options.residuals,
            "analyze_seconds": made.options.analyze,
            "tuned": made.options.tune,
            **({"no_float": True} if made.options.no_float else {}),
        },
        "target_description": program.target.description,
        "warnings": list(warnings),
        **metadata,
        "layers": [layer | {"label": labels[layer["name"]]} | _planned(op) for layer, op in layers],
        "memory": [block | {"label": labels[block["name"]]} for block in memory],
        "calibration": {"samples": made.calibration_samples, "synthetic": made.synthetic},
        "ranges": _ranges(made),
        "placement": placement(made),
        "proof": vars(made.proof) if made.proof is not None else None,
        "dead_channels": _dead_channels(made),
        "stored_weights": _stored_weights(made),
        "accuracy": _accuracy(made, results),
        "contract": made.contract,
        "measured_samples": samples_measured(made),
        **tensors,
        "verification": None,  # entered when the library was built and run
        "footprint": None,  # entered when it was built and measured
        "passes": [{"name": name, "seconds": round(seconds, 4)} for name, seconds in made.seconds],
    }


def placement(made: Compilation) -> dict[str, Any]:
    """How many nodes run in integers, and which run in float, with the reason."""
    notes = [n for _, n in made.notes if n.rule == "placement"]
    if made.planned is None:
        return {
            "integer": 0,
            "float": [
                {"node": n.name, "reason": f"--{made.options.precision}"} for n in made.float_graph.nodes
            ],
        }
    return {
        "integer": sum(n.applied for n in notes),
        "float": [{"node": n.node, "reason": n.reason} for n in notes if not n.applied],
    }


def _planned(operation: Operation) -> dict[str, Any]:
    """What the planner proved of one layer, and the node of the model it comes from."""
    requantize = next((n for n in operation.step.nodes if isinstance(n.op, Requantize)), None)
    location = operation.step.root.location
    found: dict[str, Any] = {"origin": location.node if location else "", "certified": None}
    if requantize is not None and isinstance(requantize.op, Requantize):
        found |= {
            "certified": list(requantize.op.certified),
            "accumulator_bits": requantize.op.accumulator_bits,
        }
    return found


def _memory(program: Program) -> list[dict[str, Any]]:
    """Who occupies which bytes of the arena from step ``first`` to step ``last``, both included."""
    end = len(program.operations) - 1
    last: dict[int, int] = {}
    spans = {i: (s.first, s.last) for s in program.streams for i in range(s.first, s.last + 1)}
    for index, operation in enumerate(program.operations):
        for value in (*operation.step.inputs, *operation.inputs):
            if value is not None:
                last[id(program.owner(value))] = spans.get(index, (index, index))[1]
    for port in program.outputs:
        last[id(program.owner(port.value))] = end
    inputs = [last.get(id(p.value), 0) for p in program.inputs]
    found = [_block("(inputs)", program.input_arena_offset, program.input_bytes, 0, max(inputs, default=0))]
    written = end
    seen: set[int] = set()
    for index, operation in enumerate(program.operations):
        value = program.owner(operation.step.output)
        place = program.place(value)
        first, until = spans.get(index, (index, index))
        if place.region == "output":
            written = min(written, first)
        elif place.region == "arena" and id(value) not in seen:  # else another part of it came first
            seen.add(id(value))
            found.append(
                _block(
                    value.name,
                    place.offset,
                    operation.output_bytes if value is operation.step.output else value.type.bytes,
                    first,
                    max(until, last.get(id(value), index)),
                )
            )
        if operation.workspace is not None:
            size = operation.workspace_bytes
            found.append(_block(f"({value.name} workspace)", operation.workspace, size, index, index))
    found.append(_block("(outputs)", program.output_arena_offset, program.output_bytes, written, end))
    return found


def _block(name: str, offset: int, size: int, first: int, last: int) -> dict[str, Any]:
    return {"name": name, "offset": offset, "bytes": size, "first": first, "last": last}


def _ranges(made: Compilation) -> list[dict[str, Any]]:
    """What calibration saw of each tensor, and the quantization that followed (absent where it was fused)."""
    types = {v.name: v.type for v in made.planned.values()} if made.planned is not None else {}
    found = []
    for note in (n for _, n in made.notes if n.rule.startswith("calibrate-")):
        low, high = json.loads(note.reason)
        entry: dict[str, Any] = {"tensor": note.node, "low": low, "high": high}
        qparams = types[note.node].qparams if note.node in types else None
        if qparams is not None and qparams.axis is None:
            entry |= {"scale": float(qparams.scale[0]), "zero_point": qparams.zero_point}
        found.append(entry)
    return found


def _dead_channels(made: Compilation) -> dict[str, Any]:
    """Output channels of nodes with weights, before and after their removal, and the MACs of the float graph."""

    def channels(graph: Graph) -> int:
        weighted = [n for n in graph.nodes if n.op.quant_rule().weight is not None]
        return sum(n.output.type.shape[-1] for n in weighted)

    before = channels(made.float_graph)
    return {
        "channels": before,
        "removed": before - channels(made.graph),
        "macs_before": sum(n.op.macs(n.signature) for n in made.float_graph.nodes),
        "nodes": [
            {"node": n.node, "removed": n.reason}
            for _, n in made.notes
            if n.rule == "remove-dead-channels" and n.applied
        ],
        "kept_channels": made.kept_channels,
    }


def _stored_weights(made: Compilation) -> dict[str, Any] | None:
    """What a float program stores as codes: each layer, with the reason where it does not; None where nothing is stored."""
    if made.stored is None:
        return None
    dynamic = "int8 with activations quantized at run time" if made.options.precision == "dynamic" else ""
    rules = ("dynamic", "weight-only")  # a layer that the first declines may be taken by the second
    found = {n.node: n for rule in rules for _, n in made.notes if n.rule == rule}
    notes = list(found.values())
    return {
        "format": ", ".join(filter(None, (dynamic, made.options.weights_only))),
        "float_bytes": sum(v.type.bytes for v in made.float_graph.constants()),
        "nodes": [{"node": n.node, "stored": n.applied, "reason": n.reason} for n in notes],
    }


def _accuracy(made: Compilation, found: verify.Results | None) -> dict[str, Any]:
    """Each output on the kept calibration samples, integers against float. ``sqnr_db``: None where they are equal."""
    if found is None:
        return {}
    results, references = verify.dequantize_outputs(made.graph, found.program), found.reference
    outputs: dict[str, dict[str, Any]] = {}
    for name in made.graph.output_names:
        reference, result = references[name], results[name]
        sqnr_db = metrics.sqnr_db(reference, result)
        outputs[name] = {
            "sqnr_db": sqnr_db if math.isfinite(sqnr_db) else None,
            "cosine": metrics.cosine(reference, result),
            "max_error": float(abs(reference - result).max()),
            "float_range": [float(reference.min()), float(reference.max())],
        }
        if reference[0].size > 1:
            agreement = (metrics.top1(reference) == metrics.top1(result)).mean()
            outputs[name]["top1_agreement"] = float(agreement)
    return {"samples": len(next(iter(made.samples.values()))), "outputs": outputs}


def write(report: dict[str, Any], folder: Path) -> None:
    """report.json and report.html; each is whole or absent."""
    text = json.dumps(report, indent=1, allow_nan=False) + "\n"
    write_aside(folder / JSON_FILE, text.encode())
    write_aside(folder / HTML_FILE, render_html(report).encode())


def rewrite(folder: Path) -> dict[str, Any]:
    """report.html of a saved library again, from its report.json, which is returned.

    Raises QccError where that is absent, damaged or of another version of qcc, or where nothing can be written.
    """
    path = folder / JSON_FILE
    if not path.is_file():
        hint = "name the folder that was given to qcc compile -o"
        raise QccError(
            f"{folder} has no {JSON_FILE}" if folder.is_dir() else f"{folder} is no folder", hint=hint
        )
    try:
        loaded = json.loads(path.read_bytes())
    except ValueError as error:
        raise QccError(f"{path} is damaged: {error}", hint="compile again") from error
    found: dict[str, Any] = loaded if isinstance(loaded, dict) else {}
    generator = found.get("generator")
    if generator != GENERATOR:
        raise QccError(f"{path} was written by {generator}, not by {GENERATOR}", hint="compile again")
    try:
        write_aside(folder / HTML_FILE, render_html(found).encode())
    except OSError as error:
        raise QccError(f"cannot write {folder / HTML_FILE}: {error.strerror}") from error
    return found


def render_html(report: dict[str, Any]) -> str:
    """One page that needs nothing else: styles and drawings are inside. Names from the model are escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_template),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    tensors = {t["tensor"]: t for t in report["tensors"]}
    return environment.get_template("report.html.in").render(
        report=report, picture=draw(report["graph"]), tensors=tensors
    )


def _template(name: str) -> str:
    return resources.files("qcc").joinpath(name).read_text(encoding="utf-8")
