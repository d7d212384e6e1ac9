"""Recipes: what other tools do by default, as named sets of options, so that like is compared with like."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from qcc.ir.errors import QccError

Rounding = Literal["ties_up", "tflite", "onnx"]
CORRECTIONS = (
    "equalize",
    "migrate-scales",
    "absorb-bias",
    "match-grid",
    "widen",
    "correct-bias",
    "round-weights",
)
# without absorb-bias: what lies below the constants that it takes from channels is cut in samples that were not seen
USUAL_CORRECTIONS = tuple(name for name in CORRECTIONS if name != "absorb-bias")


@dataclass(frozen=True)
class Recipe:
    """One tool's defaults. All fields but the texts are options of a compilation, of the same name and meaning.

    Outputs that the tool leaves in float have their extremes here, so that nothing of them is clipped.
    ``like``: what is reproduced; ``source``: where that tool defines it.
    """

    name: str
    like: str
    source: str
    observer: str
    qspec: str = ""
    corrections: bool | tuple[str, ...] = False
    rounding: Rounding = "ties_up"
    residuals: bool = True

    @property
    def options(self) -> dict[str, Any]:
        """The options of CompileOptions that the recipe sets, by name."""
        return {name: getattr(self, name) for name in OPTIONS}


OPTIONS = ("observer", "qspec", "corrections", "rounding", "residuals")

RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            "auto",
            "qcc: for each tensor the range with the least error, every correction that helps on the calibration samples",
            "docs/decisions.md",
            "observer=auto",
            corrections=True,
        ),
        Recipe(
            "tensorrt",
            "TensorRT's entropy calibration: symmetric activations, KL thresholds; sums stay in the convolution",
            "Migacz, 8-bit inference with TensorRT, GTC 2017; pytorch_quantization/calib/histogram.py",
            "observer=kl outputs=min-max every=true",
            "activations=symmetric",
        ),
        Recipe(
            "tflite",
            "TensorFlow Lite's converter, full integer: extremes, each operator rounded for itself",
            "ai.google.dev/edge/litert, 8-bit quantization specification; Jacob et al. 2018, section 3",
            "observer=min-max",
            rounding="tflite",
            residuals=False,
        ),
        Recipe(
            "openvino",
            "NNCF's preset performance: mean extremes of samples, symmetric where negative; bias correction",
            "nncf/quantization/algorithms/min_max/algorithm.py, nncf/quantization/fake_quantize.py",
            "observer=mean-min-max outputs=min-max",
            "activations=by-sign",
            corrections=("correct-bias",),
        ),
        Recipe(
            "pytorch",
            "PyTorch's qconfig for x86 and fbgemm: HistogramObserver, activations of 7 bits (reduce_range)",
            "torch/ao/quantization/qconfig.py, get_default_qconfig; observer.py, HistogramObserver",
            "observer=histogram every=true",
            "a_bits=7",
            residuals=False,
        ),
    )
}


def find_recipe(name: str) -> Recipe:
    """The recipe of that name. Raises QccError."""
    if name not in RECIPES:
        raise QccError(
            f"unknown recipe {name!r}", hint=f"known: {', '.join(RECIPES)}; qcc recipes shows them"
        )
    return RECIPES[name]


def require_agreement(name: str, given: dict[str, Any]) -> None:
    """Raise QccError where one of the options ``given`` is not what the recipe ``name`` says."""
    own = find_recipe(name).options
    for option, value in given.items():
        if value != own[option]:
            raise QccError(
                f"recipe {name} has {option} {_text(own[option])}, not {_text(value)}",
                hint=f"leave out the recipe or {option}: a recipe that is changed is no longer that tool's",
            )


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return repr(value) if isinstance(value, str) else ", ".join(map(str, value))  # type: ignore[call-overload]
