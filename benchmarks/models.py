"""The models of the benchmarks: a zoo (a folder of models with data and a loader), and those of seeded_models.py."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import seeded_models

MODELS = ("kws", "ic", "resnet20", "squeezenet", "mobilenetv2", "vww", "ad", "ultraface_rfb320")
CALIBRATION_SAMPLES = 100
CACHE = Path(__file__).resolve().parents[1] / "build" / "benchmarks"  # random models, and the files of peers
BESIDE = Path(__file__).resolve().parents[2] / "shared" / "zoo"


def load_entry(name: str, zoo: ModuleType | None, folder: Path) -> seeded_models.Entry:
    """A model of either kind. ``folder`` keeps the random ones. Raises BadParameter for a name that is in neither."""
    if name in seeded_models.MODELS:
        return seeded_models.load(name, folder)
    if zoo is None or name not in zoo.index():
        known = ", ".join((*(zoo.index() if zoo is not None else ()), *seeded_models.MODELS))
        raise click.BadParameter(f"{name!r} is not one of {known}")
    entry = zoo.load(name)
    return seeded_models.Entry(Path(entry.model), entry.calib[:CALIBRATION_SAMPLES], entry.x)


def find_zoo() -> ModuleType | None:
    """The zoo that $QCC_ZOO names, or the one beside the checkout; None where there is none."""
    folder = Path(os.environ.get("QCC_ZOO", BESIDE))
    return open_zoo(folder) if (folder / "load.py").is_file() else None


def zoo_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--zoo``, which arrives as the loader of the zoo."""
    return click.option(
        "--zoo",
        envvar="QCC_ZOO",
        default=str(BESIDE),
        callback=lambda context, parameter, folder: open_zoo(Path(folder)),
        metavar="FOLDER",
        help="Folder of the model zoo (default: $QCC_ZOO, or ../shared/zoo beside the checkout).",
    )(command)


def models_option(default: str = ",".join(MODELS)) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """``--models``, which arrives as a list of names."""
    return click.option(
        "--models",
        default=default,
        show_default=True,
        callback=lambda context, parameter, text: text.split(","),
        metavar="A,B,...",
        help="Names of models of the zoo.",
    )


def open_zoo(folder: Path) -> ModuleType:
    """The loader: ``load(name)`` has .model, .calib, .x, .y and .metric(). Raises BadParameter where it is missing."""
    if not (folder / "load.py").is_file():
        raise click.BadParameter(f"{folder} holds no model zoo (load.py)")
    spec = importlib.util.spec_from_file_location("qcc_zoo_load", folder / "load.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.dont_write_bytecode = True  # the zoo is not ours to write to
    spec.loader.exec_module(module)
    return module
