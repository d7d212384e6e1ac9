"""The command line: options in, tables and progress out; every command is one call into the driver."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
from rich.console import Console

import qcc
from qcc.ir.errors import QccError

OUT = Console()
ERR = Console(stderr=True)


class _Commands(click.Group):
    """Errors the user can act on are printed without a traceback, in one style, with status 1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except QccError as error:
            ERR.print(f"[bold red]error:[/] {_plain(str(error))}", highlight=False, soft_wrap=True)
            sys.exit(1)
        except BrokenPipeError:
            sys.exit(1)


def _plain(text: str) -> str:
    return text.replace("[", r"\[")


@click.group(
    cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
@click.version_option(qcc.__version__, prog_name="qcc")
def main() -> None:
    """qcc: a quantizing compiler. ONNX in, a verified 8-bit C library out.

    \b
    A first session:
      qcc targets                                         what can be built and run here
      qcc compile model.onnx --calib data.npz -o out/     quantize, write C, build, prove, verify
      qcc verify out/ --data test.npz                     C = integer interpreter, and against float
      qcc bench out/                                      time per inference
      qcc explain model.onnx NODE                         what each rule did with a node, and why not

    data.npz holds one array for each model input, by its name, samples along the first axis.
    """


def _shapes(ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, Any]:
    shapes: dict[str, Any] = {}
    for text in values:
        name, separator, sizes = text.rpartition("=")
        try:
            numbers = tuple(int(part) for part in sizes.split("x"))
        except ValueError:
            numbers = ()
        if not separator or not name or not numbers:
            raise click.BadParameter(f"{text!r}: write NAME=SIZE or INPUT=1x3x224x224")
        shapes[name] = numbers if len(numbers) > 1 else numbers[0]
    return shapes


shape_option = click.option(
    "--shape",
    "shapes",
    multiple=True,
    callback=_shapes,
    metavar="NAME=SIZE",
    help="Bind a symbolic dimension, or a whole input shape (repeatable).",
)
calib_option = click.option(
    "--calib",
    type=click.Path(path_type=Path),
    metavar="DATA",
    help="Calibration samples: .npz, .npy, or a folder of .npy.",
)
