"""Layers of every kind and odd shape with tensors of 16 bits, for every instruction set."""

from typing import Any

import numpy as np
from float_layers import CHANNELS, Net, pair
from kernel_harness import integer_graph

from qcc.ir.graph import Value

Array = np.ndarray[Any, Any]


class WideNet(Net):
    """Branches of which ``share`` of the inputs and of the results have 16 bits."""

    share = 0.6

    def plan(self) -> dict[str, Array]:
        values = [*self.graph.inputs, *self.graph.outputs]
        chosen = [v.name for v in values if self.rng.random() < self.share]
        real = {
            v.name: self.rng.normal(size=(3, *v.type.shape[1:])).astype(np.float32) for v in self.graph.inputs
        }
        self.graph = integer_graph(self.graph, real, chosen)
        samples = {}
        for value in self.graph.inputs:
            dtype = value.type.dtype
            x = self.rng.integers(dtype.min, dtype.max + 1, (5, *value.type.shape[1:]))
            x[0], x[1] = dtype.min, dtype.max
            samples[value.name] = x.astype(np.int16 if dtype.bytes == 2 else np.int8)
        return samples

    def conv(
        self, size: tuple[int, int], shape: tuple[int, int, int, int], kind: str = "", **attributes: Any
    ) -> None:
        """``shape``: of the weights; ``kind``: "", "add" or "sub" of a residual operand."""
        x = self.input(1, *size, shape[3] * attributes.get("groups", 1))
        acc = self.emit("conv2d", x, self.constant(*shape), self.constant(shape[0]), **attributes)
        self._finish(acc, kind, f"{x.type} {shape} {attributes} {kind}")

    def dense(self, rows: int, inputs: int, outputs: int, kind: str = "") -> None:
        x = self.input(1, rows, inputs)
        acc = self.emit("dense", x, self.constant(outputs, inputs), self.constant(outputs))
        self._finish(acc, kind, f"dense {x.type} {outputs} {kind}")

    def _finish(self, acc: Value, kind: str, title: str) -> None:
        value = self.emit(kind, acc, self.input(*acc.type.shape)) if kind else acc
        self.names.append(title)
        self.graph.add_output(value, f"y{len(self.names) - 1}")


def convolutions(net: WideNet, count: int) -> None:
    """1x1 and others, with groups, and dense layers."""
    rng = net.rng
    for index in range(count):
        kernel = ((1, 1), (3, 3), (1, 1), (2, 5), (3, 1))[index % 5]
        dilations, strides = ((1, 1), (1, 1)) if index % 2 else (pair(rng, 1, 2), pair(rng, 1, 2))
        reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
        pads = tuple(int(rng.integers(0, r)) for r in (*reach, *reach))
        height, width = (
            max(1, r - pads[i] - pads[i + 2]) + int(rng.integers(0, 6)) for i, r in enumerate(reach)
        )
        groups = 2 if index % 7 == 6 else 1
        channels = 4 * int(rng.integers(1, 5)) if groups > 1 else int(rng.choice(CHANNELS))
        outputs = groups * int(rng.choice(CHANNELS))
        net.conv(
            (height, width),
            (outputs, *kernel, channels),
            ("", "add", "", "sub")[index % 4],
            strides=strides,
            pads=pads,
            dilations=dilations,
            groups=groups,
        )
        net.dense(
            1 + index % 15, int(rng.choice(CHANNELS)), int(rng.choice(CHANNELS)), ("", "add")[index % 2]
        )


def depthwise(net: WideNet, count: int) -> None:
    rng = net.rng
    for index in range(count):
        kernel = ((3, 3), (3, 3), (5, 5), (1, 4), (7, 2))[index % 5]
        dilations = (1, 1) if index % 3 else pair(rng, 1, 2)
        reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
        pads = tuple(int(rng.integers(0, r)) for r in (*reach, *reach))
        height, width = (
            max(1, r - pads[i] - pads[i + 2]) + int(rng.integers(0, 7)) for i, r in enumerate(reach)
        )
        channels = int(rng.choice(CHANNELS[1:]))
        net.conv(
            (height, width),
            (channels, *kernel, 1),
            ("", "add", "", "sub")[index % 4],
            strides=((1, 1), (2, 2), (1, 2))[index % 3],
            pads=pads,
            dilations=dilations,
            groups=channels,
        )


def sums(net: WideNet) -> None:
    for index, count in enumerate((1, 5, 31, 32, 33, 64, 100)):
        op = ("add", "sub")[index % 2]
        net.emit(op, net.input(1, 3, count), net.input(1, 3, count), output=f"{op} {count}")


def every_layer(seed: int, count: int) -> WideNet:
    net = WideNet(seed)
    convolutions(net, count)
    depthwise(net, count)
    sums(net)
    return net
