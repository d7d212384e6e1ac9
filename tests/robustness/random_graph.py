"""A random ONNX graph under construction: its tensors, and numbers to fill constants with."""

from dataclasses import dataclass, field
from math import prod
from random import Random
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Shape = tuple[int, ...]


@dataclass
class RandomGraph:
    """A model under construction. All choices come from ``random``, so that a shorter one can be searched."""

    random: Random
    tensors: dict[str, Shape] = field(default_factory=dict)
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[TensorProto] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.numbers = np.random.default_rng(self.random.randint(0, 2**16))

    def emit(self, op_type: str, operands: list[str], shape: Shape, **attributes: Any) -> str:
        name = f"t{len(self.nodes)}"
        self.nodes.append(
            helper.make_node(op_type, operands, [name], name=f"n{len(self.nodes)}", **attributes)
        )
        self.tensors[name] = shape
        return name

    def constant(self, array: NDArray[Any], integer: bool = False) -> str:
        name = f"c{len(self.constants)}"
        typed = np.asarray(array, np.int64 if integer else np.float32)
        self.constants.append(numpy_helper.from_array(typed, name))
        return name

    def weights(self, *shape: int) -> NDArray[np.float64]:
        """Normal weights; the size of channels may differ much, and some channels may be zero."""
        w = self.numbers.normal(size=shape) / np.sqrt(max(1, prod(shape[1:])))
        kind = self.random.randint(0, 5)
        if kind == 1:
            w *= 2.0 ** self.numbers.uniform(-6, 2, size=(shape[0], *[1] * (len(shape) - 1)))
        if kind == 2:
            w[self.numbers.integers(0, shape[0])] = 0.0
        return w

    def bias(self, channels: int) -> list[str]:
        kind = self.random.randint(0, 3)
        if kind == 0:
            return []
        return [self.constant(self.numbers.normal(size=channels) * (8.0 if kind == 1 else 0.5))]

    def pick(self, *ranks: int) -> str | None:
        """A tensor of one of the ranks, late ones more often."""
        found = [n for n, s in self.tensors.items() if len(s) in ranks]
        if not found:
            return None
        return found[-1] if self.random.randint(0, 2) else self.random.choice(found)

    def window(self, size: int, dilated: bool = True) -> tuple[int, int, int, int, int]:
        """kernel, stride, begin and end padding, dilation that give at least one output."""
        kernel = self.random.choice([k for k in (1, 2, 3, 3, 5) if k <= size + 1])
        dilation = self.random.choice([1, 1, 2]) if dilated and kernel > 1 else 1
        reach = (kernel - 1) * dilation + 1
        low, high = (self.random.randint(0, max(0, (reach - 1) // 2)) for _ in range(2))
        missing = reach - (size + low + high)
        if missing > 0:
            return 1, 1, 0, 0, 1
        return kernel, self.random.choice([1, 1, 2, 3]), low, high, dilation
