"""Recipes at the command line: the option, and the command that shows them."""

from __future__ import annotations

from typing import Any

import click
from click.core import ParameterSource
from rich.table import Table

from qcc.cli_base import console
from qcc.recipes import RECIPES, Recipe, require_agreement

# Parameters of the command line that set an option of a recipe.
_SET_BY = {
    "observer": ("observer", "percentile", "tensors"),
    "qspec": ("qspec",),
    "rounding": ("rounding",),
    "corrections": ("corrections",),
}

recipe_option = click.option(
    "--recipe",
    type=click.Choice([*RECIPES]),
    help="Quantize as another tool does by default, to compare with it, or in qcc's own way (auto). See: qcc recipes.",
)


def require_recipe(choices: dict[str, Any]) -> None:
    """Take the recipe's options out of ``choices``, the options of a compilation; without one, take ``recipe`` out.

    Raises QccError where what was given at the command line is not what the recipe says, defaults included.
    """
    name = choices.pop("recipe")
    if name is None:
        return
    source = click.get_current_context().get_parameter_source
    given = {
        option: choices.pop(option)
        for option, parameters in _SET_BY.items()
        if any(source(p) is ParameterSource.COMMANDLINE for p in parameters)
    }
    require_agreement(name, given)
    choices["recipe"] = name


@click.command("recipes")
def recipes_command() -> None:
    """What each recipe sets: the defaults of other tools, and qcc's own."""
    table = Table(header_style="cyan", box=None, padding=(0, 2, 0, 0))
    for heading in ("recipe", "options", "as"):
        table.add_column(heading, overflow="fold", no_wrap=heading == "recipe")
    for recipe in RECIPES.values():
        table.add_row(recipe.name, _options(recipe), recipe.like)
    console().print(table)


def _options(recipe: Recipe) -> str:
    """As one would give them, where they differ from the defaults."""
    corrections = recipe.corrections
    observer, *others = recipe.observer.removeprefix("observer=").split()
    parts = [
        f"--observer {observer}",
        f"calibrate: {' '.join(others)}" if others else "",
        f'--qspec "{recipe.qspec}"' if recipe.qspec else "",
        f"--rounding {recipe.rounding}" if recipe.rounding != "ties_up" else "",
        "--corrections" if corrections is True else "",
        "" if isinstance(corrections, bool) else f"corrections: {', '.join(corrections)}",
        "" if recipe.residuals else "no residual fusion",
    ]
    return ", ".join(filter(None, parts))
