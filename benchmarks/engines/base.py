"""What an engine is given and what it can do. Needs numpy only: every environment of an engine has it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True)
class Job:
    """One engine with one model. Paths are text, so that the whole is JSON.

    ``model``: the ONNX file; ``folded``: the same for batch 1 with its constants folded; ``calibration``: a .npy file of
    float samples [N, ...]; ``prepared``: the file that ``prepare`` writes and ``load`` reads; ``threads``: of the engine;
    ``cores``: where its process may run.
    """

    model: str
    folded: str
    calibration: str
    prepared: str
    threads: int = 1
    cores: tuple[int, ...] = ()

    def samples(self) -> list[Array]:
        """Calibration samples, each with a leading 1."""
        return [x[None] for x in np.load(self.calibration)]

    def sample(self) -> Array:
        """The first one, without the memory of the others."""
        return np.array(np.load(self.calibration, mmap_mode="r")[:1])


class Engine(ABC):
    """A loaded model with an input in place. ``macs``: multiply-accumulates of an inference, where only the engine knows."""

    macs: float = 0

    @abstractmethod
    def infer(self) -> object:
        """One inference: what is timed."""

    @abstractmethod
    def outputs(self, x: Array) -> list[Array]:
        """The float outputs for one sample [1, ...] of the ONNX model's layout."""

    def repeat(self, count: int) -> None:
        """``count`` inferences."""
        infer = self.infer
        for _ in range(count):
            infer()
