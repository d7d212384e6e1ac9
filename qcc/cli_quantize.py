"""The command quantize: an ONNX model in, the same model with QuantizeLinear and DequantizeLinear out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from qcc import driver
from qcc.cli_base import (
    calib_option,
    observer_text,
    path_type,
    plugin_option,
    progress,
    shape_option,
    warn,
)
from qcc.cli_recipes import recipe_option, require_recipe
from qcc.ir.errors import QccError
from qcc.onnx_exporter import save_qdq
from qcc.options import CompileOptions
from qcc.recipes import find_recipe

# What runtimes ask of a QDQ model: the choices of save_qdq, and a QSpec.
RUNTIMES: dict[str, tuple[dict[str, bool], str]] = {
    "onnxruntime": ({}, ""),
    "openvino": ({"unsigned": True}, ""),
    # zero_point 0 everywhere, and biases that it quantizes itself
    "tensorrt": ({"float_bias": True}, "activations=symmetric"),
}


@click.command("quantize")
@click.argument("model", type=path_type)
@click.option("-o", "--out", required=True, type=path_type, metavar="OUT.onnx", help="The file to write.")
@calib_option
@click.option(
    "--runtime",
    type=click.Choice([*RUNTIMES]),
    default="onnxruntime",
    show_default=True,
    help="Whose rules to follow: s8 codes; u8 activations; symmetric activations and float biases.",
)
@recipe_option
@click.option("--observer", metavar="NAME", default="auto", show_default=True, help="How ranges are chosen.")
@click.option("--percentile", type=click.FloatRange(50, 100), metavar="P", help="What percentile keeps.")
@click.option("--qspec", metavar="TEXT", default="", help="As for compile; it adds to what the runtime asks.")
@click.option(
    "--corrections/--no-corrections",
    default=CompileOptions.corrections,
    help="Correct scales, biases and rounding where that helps on calibration samples.",
)
@shape_option
@plugin_option
def quantize_command(
    model: Path, out: Path, calib: Path | None, runtime: str, observer: str, percentile: float | None,
    **given: Any,
) -> None:  # fmt: skip
    """Write MODEL as a QDQ ONNX model that other runtimes execute.

    Weights: s8 per output channel behind DequantizeLinear; biases: s32. A model that is quantized already keeps its scales.
    """
    choices, asked = RUNTIMES[runtime]
    given["observer"] = observer_text(observer, percentile, ())
    recipe = given["recipe"]
    require_recipe(given)
    if recipe is None:
        given["qspec"] = f"{asked} {given['qspec']}".strip()
    elif asked and find_recipe(recipe).qspec != asked:
        raise QccError(
            f"{runtime} asks for {asked}, which recipe {recipe} does not have", hint="leave one of them out"
        )
    options = CompileOptions(**given)
    with progress() as report:
        graph = driver.annotate(model, calib, options, report, warn)
        nodes, pairs = save_qdq(graph, out, **choices)
    click.echo(f"{out}: {nodes} nodes, {pairs} of them QuantizeLinear, for {runtime}")
