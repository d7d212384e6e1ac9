"""QSpec: how many bits, symmetric or not, for the whole tensor or for each channel."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal, get_args

import numpy as np

from qcc.ir.errors import QccError
from qcc.ir.qparams import QParams

Symmetry = Literal["asymmetric", "symmetric", "by-sign"]
Granularity = Literal["per-channel", "per-tensor"]

SMALLEST_SCALE = 2.0**-126  # below the normal float32 numbers it would flush to zero on some devices


@dataclass(frozen=True)
class QSpec:
    """What choose-qparams may choose from. Fewer than 8 bits restrict the codes; they are stored in s8 all the same.

    ``activations``: symmetric ones have zero_point 0; by-sign: symmetric where there are negative numbers, else all codes
    lie above 0, as with NNCF (nncf/quantization/fake_quantize.py, symmetric_range). ``weights``: always symmetric and
    narrow. ``a_bits``, ``w_bits``: 2 to 8. ``narrow``: activations do without the lowest code. ``pack``: weights of at most
    4 bits are stored two in a byte, but for those of depthwise convolutions.
    """

    activations: Symmetry = "asymmetric"
    weights: Granularity = "per-channel"
    a_bits: int = 8
    w_bits: int = 8
    narrow: bool = False
    pack: bool = False

    def __post_init__(self) -> None:
        for name, value, known in (
            ("activations", self.activations, get_args(Symmetry)),
            ("weights", self.weights, get_args(Granularity)),
        ):
            if value not in known:
                raise QccError(f"qspec: {name} cannot be {value!r}", hint=f"known: {', '.join(known)}")
        for name, bits in (("a_bits", self.a_bits), ("w_bits", self.w_bits)):
            if not 2 <= bits <= 8:
                raise QccError(f"qspec: {name} is {bits}", hint="2 to 8 bits are possible")
        if self.pack and self.w_bits > 4:
            raise QccError(
                f"qspec: weights of {self.w_bits} bits cannot be packed", hint="add w_bits=4 or fewer"
            )

    @staticmethod
    def parse(text: str) -> QSpec:
        """The QSpec of a text such as ``weights=per-tensor activations=symmetric w_bits=4``. Raises QccError."""
        words = dict(word.partition("=")[::2] for word in text.split())
        defaults = {f.name: f.default for f in fields(QSpec)}
        options: dict[str, object] = {}
        for name, value in words.items():
            if name not in defaults:
                raise QccError(f"qspec: there is no {name!r}", hint=f"known: {', '.join(defaults)}")
            if isinstance(defaults[name], bool):
                if value not in ("true", "false"):
                    raise QccError(f"qspec: {name} cannot be {value!r}", hint="known: true, false")
                options[name] = value == "true"
            elif isinstance(defaults[name], int):
                if not value.isdecimal():
                    raise QccError(f"qspec: {name} cannot be {value!r}", hint="write a number of bits")
                options[name] = int(value)
            else:
                options[name] = value
        return QSpec(**options)  # type: ignore[arg-type]

    @staticmethod
    def wide_activation(low: float, high: float) -> QParams:
        """Symmetric s16 qparams for real [low, high], as TFLite's 16x8: scale = max(-low, high) / 32767."""
        reach = max(-low, high)
        if not np.isfinite(reach):
            raise ValueError(f"range [{low}, {high}] is not finite")
        scale = np.float32(max((reach or 1.0) / (2**15 - 1), SMALLEST_SCALE))
        return QParams.per_tensor(float(scale), 0, "s16")

    def is_symmetric(self, low: float) -> bool:
        """Whether the codes of an activation that reaches down to ``low`` have zero_point 0."""
        return self.activations == "symmetric" or (self.activations == "by-sign" and low < 0)

    @property
    def codes(self) -> tuple[int, int]:
        """Lowest and highest code of an activation."""
        half = 2 ** (self.a_bits - 1)
        return -half + int(self.narrow), half - 1

    @property
    def weight_max(self) -> int:
        """The largest magnitude of a weight's code."""
        return int(2 ** (self.w_bits - 1)) - 1

    def activation(self, low: float, high: float) -> QParams:
        """s8 qparams for real [low, high], widened to hold 0. ValueError where an end is not finite.

        Asymmetric: scale = (high - low) / (codes - 1), zero_point rounded to even, which shifts what can be held by at
        most half a step. Symmetric: scale = max(-low, high) / highest code.
        """
        low, high = min(low, 0.0), max(high, 0.0)
        if not (np.isfinite(low) and np.isfinite(high)):
            raise ValueError(f"range [{low}, {high}] is not finite")
        if (
            high == low
        ):  # nothing but zeros was seen: any scale serves, a fine one keeps the next bias accurate
            high = 1.0
        lowest, highest = self.codes
        symmetric = self.is_symmetric(low)
        real = max(-low, high) / highest if symmetric else (high - low) / (highest - lowest)
        scale = float(np.float32(max(real, SMALLEST_SCALE)))
        zero_point = 0 if symmetric else int(np.clip(np.rint(lowest - low / scale), lowest, highest))
        return QParams((scale,), zero_point, codes=None if self.codes == (-128, 127) else self.codes)
