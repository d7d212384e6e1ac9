"""The report of a compilation: plain data, one JSON file and one HTML page."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2

import qcc
from qcc import metrics, verify
from qcc.backends.c.metadata import metadata_of
from qcc.backends.program import Program
from qcc.driver import Compilation
from qcc.float_runtime import FloatRuntime
from qcc.ir import interpreter
from qcc.passes.base import Note

JSON_FILE, HTML_FILE = "report.json", "report.html"


def report_of(made: Compilation, program: Program, warnings: list[str]) -> dict[str, Any]:
    """Everything a person or a script wants to know of a compilation."""
    constants = sum(
        a.nbytes for op in program.operations for a in op.call.constants.values() if a is not None
    )
    return {
        "generator": f"qcc {qcc.__version__}",
        "model": {"name": made.model, "sha256": made.sha256},
        "options": {
            "target": made.options.target,
            "precision": made.options.precision,
            "io": made.options.boundary,
            "observer": made.options.observer,
        },
        "warnings": list(warnings),
        **metadata_of(program, constants),
        "calibration": {"samples": made.calibration_samples, "synthetic": made.synthetic},
        "placement": placement(made),
        "proof": vars(made.proof) if made.proof is not None else None,
        "dead_channels": _dead_channels(made),
        "accuracy": _accuracy(made),
        "passes": [{"name": name, "seconds": round(seconds, 4)} for name, seconds in made.seconds],
    }


def placement(made: Compilation) -> dict[str, Any]:
    """How many nodes run in integers, and which run in float, with the reason."""
    notes = [n for _, n in made.notes if n.rule == "placement"]
    if made.planned is None:
        return {"integer": 0, "float": [{"node": n.name, "reason": "--float32"} for n in made.float_graph.nodes]}
    return {
        "integer": sum(n.applied for n in notes),
        "float": [{"node": n.node, "reason": n.reason} for n in notes if not n.applied],
    }


def _dead_channels(made: Compilation) -> dict[str, int]:
    """Output channels of nodes with weights, before and after their removal, and the MACs of the float graph."""

    def channels(graph: Any) -> int:
        weighted = [n for n in graph.nodes if n.op.quant_rule().weight is not None]
        return sum(n.output.type.shape[-1] for n in weighted)

    before = channels(made.float_graph)
    return {
        "channels": before,
        "removed": before - channels(made.graph),
        "macs_before": sum(n.op.macs(n.signature) for n in made.float_graph.nodes),
    }


def _accuracy(made: Compilation) -> dict[str, Any]:
    """SQNR and cosine of each output on the kept calibration samples."""
    if made.planned is None or not made.samples:
        return {}
    quantized = verify.quantize_inputs(made.planned, made.samples)
    got = verify.dequantize_outputs(made.planned, interpreter.run(made.planned, quantized))
    reference = FloatRuntime(made.float_graph).run(made.samples)
    return {
        "samples": len(next(iter(made.samples.values()))),
        "outputs": {
            name: {
                "sqnr_db": metrics.sqnr_db(reference[name], got[name]),
                "cosine": metrics.cosine(reference[name], got[name]),
            }
            for name in made.graph.output_names
        },
    }


def explain(made: Compilation, node: str) -> list[tuple[str, Note]]:
    """(pass, note) of every rule that looked at ``node``."""
    return [(name, note) for name, note in made.notes if note.node == node]


def write(report: dict[str, Any], folder: Path) -> None:
    """report.json and report.html."""
    (folder / JSON_FILE).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    template = resources.files("qcc").joinpath("report.html.in").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    page = environment.from_string(template).render(report=report)
    (folder / HTML_FILE).write_text(page, encoding="utf-8")
