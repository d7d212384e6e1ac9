"""What all commands share: consoles, errors without traceback, common options, progress bars."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from qcc.ir.errors import QccError
from qcc.options import CompileOptions
from qcc.passes.calibrate import observer_names
from qcc.plugins import load_plugin
from qcc.tables import LOUD

PIPE_WIDTH = 120  # of tables that are not printed to a terminal

Report = Callable[[str, int, int], None]


def console(*, stderr: bool = False) -> Console:
    """A console for the streams as they are now."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, width=None if stream.isatty() else PIPE_WIDTH, highlight=False)


def warn(message: str) -> None:
    """A warning, loud, on stderr."""
    console(stderr=True).print(Text.assemble(("warning: ", LOUD), message), soft_wrap=True)


class Commands(click.Group):
    """Errors the user can act on are printed without a traceback, in one style, with status 1."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except QccError as error:
            console(stderr=True).print(Text.assemble(("error: ", "bold red"), str(error)), soft_wrap=True)
            ctx.exit(1)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order in which one meets them."""
        return list(self.commands)


@contextmanager
def progress() -> Iterator[Report]:
    """Bars on stderr while work goes on: a function of (what, done, total), total 0 where it is not known."""
    screen = console(stderr=True)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[count]}"),
    )
    with Progress(
        *columns, TimeElapsedColumn(), console=screen, transient=True, disable=not screen.is_terminal
    ) as bars:
        tasks: dict[str, TaskID] = {}

        def report(what: str, done: int, total: int) -> None:
            if what not in tasks:
                for earlier in tasks.values():  # one thing after the other: what came before is finished
                    bars.update(earlier, total=1, completed=1)
                tasks[what] = bars.add_task(what, total=None, count="")
            count = f"{done}/{total}" if total else ""
            bars.update(tasks[what], completed=done, total=total or None, count=count)

        yield report


# ---------------------------------------------------------------- options
def _shapes(ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, Any]:
    shapes: dict[str, Any] = {}
    for text in values:
        name, _, sizes = text.rpartition("=")
        numbers = [int(part) if part.isdecimal() else 0 for part in sizes.split("x")]
        if not name or min(numbers) < 1:
            raise click.BadParameter(f"{text!r}: write NAME=SIZE or INPUT=1x3x224x224", ctx, parameter)
        shapes[name] = tuple(numbers) if len(numbers) > 1 else numbers[0]
    return shapes


def _plugins(ctx: click.Context, parameter: click.Parameter, values: tuple[Path, ...]) -> None:
    for path in values:
        load_plugin(path)


path_type = click.Path(path_type=Path)

shape_option = click.option(
    "--shape",
    "shapes",
    multiple=True,
    callback=_shapes,
    metavar="NAME=SIZE",
    help="Size of a symbolic dimension, or INPUT=1x3x224x224 (repeatable).",
)
calib_option = click.option(
    "--calib",
    type=path_type,
    metavar="DATA",
    help="Calibration samples: .npz, .npy, or a folder of them; about 100 real ones.",
)
data_option = click.option(
    "--data", type=path_type, metavar="DATA", help="Samples: .npz, .npy or a folder (default: seeded noise)."
)
# eager: what plugins register is known before other options are read
plugin_option = click.option(
    "--plugin",
    multiple=True,
    type=path_type,
    callback=_plugins,
    expose_value=False,
    is_eager=True,
    metavar="FILE.py",
    help="Run a file that registers passes, ops, calibrators, kernels or targets (repeatable).",
)
tune_option = click.option(
    "--tune",
    is_flag=True,
    help="Choose kernels by their times on this machine; measures what is not known yet.",
)
tune_file_option = click.option(
    "--tune-file",
    type=path_type,
    metavar="FILE",
    help="Where times are remembered (default: qcc/tuning.json in the cache folder of the system).",
)
tune_rpc_option = click.option(
    "--tune-rpc",
    default="",
    metavar="HOST:PORT:KEY",
    help="Targets tvm:...: measure on the machines that an RPC tracker of TVM has under this key.",
)
tune_trials_option = click.option(
    "--tune-trials",
    type=click.IntRange(1),
    default=CompileOptions.tune_trials,
    show_default=True,
    help="Targets tvm:...: schedules measured for each kernel, at most.",
)
verify_each_option = click.option(
    "--verify-each", is_flag=True, help="Run the interpreter before and after every pass and compare."
)
dump_after_option = click.option(
    "--dump-after", metavar="PASS|all", help="Write the graph after this pass, or after every pass."
)

time_passes_option = click.option("--time-passes", is_flag=True, help="Print the time of each pass.")
print_ir_diff_option = click.option(
    "--print-ir-diff", is_flag=True, help="Print what each pass changes in the text of the graph."
)


def print_diff(text: str) -> None:
    """A diff of a pass, on stderr."""
    click.echo(text, err=True)


def dump_folder_option(default: str) -> Callable[[Any], Any]:
    """``--dump-folder``; ``default`` describes the default."""
    return click.option(
        "--dump-folder", type=path_type, metavar="DIR", help=f"Where dumps go (default: {default})."
    )


def observer_text(name: str, percentile: float | None, tensors: tuple[str, ...]) -> str:
    """Options of the calibrate pass, as text. Raises click errors for what does not belong together."""
    used = {name, *(text.rpartition("=")[2] for text in tensors)}
    for unknown in sorted(used - {*observer_names()}):
        raise click.BadParameter(
            f"{unknown!r} is not one of {', '.join(observer_names())}", param_hint="'--observer'"
        )
    parts = [f"observer={name}"]
    if percentile is not None:
        if not used & {"percentile", "auto"}:
            raise click.UsageError(f"--percentile belongs to --observer percentile, not to {name}")
        parts.append(f"p={percentile}")
    if tensors:
        parts.append(f"tensors={json.dumps(tensors)}")
    return " ".join(parts)
