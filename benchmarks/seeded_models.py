"""ONNX models without data: known architectures, 224x224 to 1000 classes, with seeded random weights.

    python benchmarks/seeded_models.py build/random
    python benchmarks/seeded_models.py build/random --models resnet18

Convolutions are initialised after He et al., each BatchNormalization normalises with the statistics that its input has
on a few samples, and then scales by about N(1, 0.1) and shifts by about N(0, 0.1): layers behave as in a trained network,
none explodes or dies. Convolution, BatchNormalization and activation stay nodes of their own, for every tool to fold. The
samples are smooth noise, whose spectrum falls with frequency as that of photographs does. The same file every time.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # of one process among others; before numpy is imported

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from rich.console import Console
from rich.table import Table

Array = NDArray[Any]
SIZE, CLASSES, OPSET = 224, 1000, 17
CALIBRATION_SAMPLES, TEST_SAMPLES, OBSERVED_SAMPLES = 32, 8, 2
SEED = 224


@dataclass(frozen=True)
class Tensor:
    """A value of the model, and what it is on the observed samples: float32[N, C, H, W] or [N, C]."""

    name: str
    data: Array

    @property
    def channels(self) -> int:
        """C."""
        return int(self.data.shape[1])


class Builder:
    """Adds nodes one by one and runs each at once, so that the next one can be made for its values."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._random = np.random.default_rng(zlib.crc32(name.encode()))
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []
        self.macs = 0
        self.input = Tensor("image", smooth_noise(OBSERVED_SAMPLES, SEED))

    def node(self, kind: str, inputs: list[Tensor], *constants: Any, **attributes: Any) -> Tensor:
        """A node of ``inputs`` followed by ``constants``; its result on the observed samples."""
        output = f"{kind.lower()}{len(self._nodes)}"
        names = [f"{output}_{number}" for number in range(len(constants))]
        tensors = [numpy_helper.from_array(np.asarray(c), n) for n, c in zip(names, constants, strict=True)]
        made = helper.make_node(
            kind, [t.name for t in inputs] + names, [output], name=f"{output}_node", **attributes
        )
        result = Tensor(output, run_node(made, inputs, tensors))
        self._nodes.append(made)
        self._constants += tensors
        return result

    def convolve(
        self, x: Tensor, channels: int, kernel: int, stride: int = 1, *, groups: int = 1, act: str = ""
    ) -> Tensor:
        """Convolution without bias, BatchNormalization, and the activation ``act``: "", "Relu" or "Clip" (to 6)."""
        fan_in = x.channels // groups * kernel * kernel
        weights = self._random.normal(
            0, np.sqrt(2 / fan_in), (channels, x.channels // groups, kernel, kernel)
        )
        y = self.node(
            "Conv",
            [x],
            weights.astype(np.float32),
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=[kernel // 2] * 4,
            group=groups,
        )
        self.macs += fan_in * y.data[0].size
        return self.activate(self.normalize(y), act)

    def normalize(self, x: Tensor) -> Tensor:
        """BatchNormalization with the statistics of ``x``, rounded, because sums differ a little between machines."""
        statistics = x.data.mean((0, 2, 3), np.float64), x.data.var((0, 2, 3), np.float64)
        mean, variance = (np.array([float(f"{v:.3g}") for v in values], np.float32) for values in statistics)
        scale, shift = (self._random.normal(center, 0.1, x.channels) for center in (1.0, 0.0))
        return self.node(
            "BatchNormalization", [x], np.float32(scale), np.float32(shift), mean, variance, epsilon=1e-5
        )

    def activate(self, x: Tensor, act: str) -> Tensor:
        """``x`` where ``act`` is empty."""
        limits = (np.float32(0), np.float32(6)) if act == "Clip" else ()
        return self.node(act, [x], *limits) if act else x

    def classify(self, x: Tensor) -> onnx.ModelProto:
        """Global mean and a dense layer; the finished model."""
        pooled = self.node("Flatten", [self.node("GlobalAveragePool", [x])], axis=1)
        weights = self._random.normal(0, np.sqrt(1 / x.channels), (CLASSES, x.channels)).astype(np.float32)
        bias = self._random.normal(0, 0.1, CLASSES).astype(np.float32)
        y = self.node("Gemm", [pooled], weights, bias, transB=1)
        self.macs += weights.size
        graph = helper.make_graph(
            self._nodes,
            self._name,
            [helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, [1, 3, SIZE, SIZE])],
            [helper.make_tensor_value_info(y.name, onnx.TensorProto.FLOAT, [1, CLASSES])],
            self._constants,
        )
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8, producer_name="seeded_models"
        )
        helper.set_model_props(model, {"macs": str(self.macs)})
        onnx.checker.check_model(model)
        return model


def run_node(node: onnx.NodeProto, inputs: list[Tensor], constants: list[onnx.TensorProto]) -> Array:
    """The result of one node."""
    feeds = {t.name: t.data for t in inputs}
    infos = [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, a.shape) for n, a in feeds.items()]
    outputs = [helper.make_tensor_value_info(node.output[0], onnx.TensorProto.FLOAT, None)]
    graph = helper.make_graph([node], "node", infos, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    result: Array = session_of(model).run(None, feeds)[0]
    return result


def session_of(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """onnxruntime on one thread, warnings left out."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def smooth_noise(count: int, seed: int) -> Array:
    """float32[count, 3, 224, 224]: octaves of noise, each of half the size and amplitude; mean 0, deviation 1."""
    random = np.random.default_rng(seed)
    images = np.zeros((count, 3, SIZE, SIZE), np.float32)
    for cells in (4, 7, 14, 28, 56, 112, 224):
        gray = random.normal(size=(count, 1, cells, cells))
        noise = (gray + 0.5 * random.normal(size=(count, 3, cells, cells))) * 4 / cells
        rows = interpolation(cells)
        images += (rows @ noise @ rows.T).astype(np.float32)
    images -= images.mean((2, 3), keepdims=True)
    images /= images.std((2, 3), keepdims=True)
    return images


def interpolation(cells: int) -> Array:
    """float64[SIZE, cells]: linear interpolation of ``cells`` values to SIZE places."""
    places = np.clip((np.arange(SIZE) + 0.5) * cells / SIZE - 0.5, 0, cells - 1)
    weights: Array = np.maximum(0, 1 - np.abs(places[:, None] - np.arange(cells)))
    return weights


# ---------------------------------------------------------------- architectures
def resnet(name: str, blocks: tuple[int, ...], *, bottleneck: bool) -> tuple[onnx.ModelProto, int]:
    """He et al. 2015, with the stride in the 3x3 convolution of a bottleneck."""
    net = Builder(name)
    x = net.convolve(net.input, 64, 7, 2, act="Relu")
    x = net.node("MaxPool", [x], kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    for stage, count in enumerate(blocks):
        width = 64 << stage
        for block in range(count):
            stride = 2 if stage > 0 and block == 0 else 1
            channels = 4 * width if bottleneck else width
            if bottleneck:
                y = net.convolve(x, width, 1, act="Relu")
                y = net.convolve(y, width, 3, stride, act="Relu")
                y = net.convolve(y, channels, 1)
            else:
                y = net.convolve(x, width, 3, stride, act="Relu")
                y = net.convolve(y, width, 3)
            skip = net.convolve(x, channels, 1, stride) if block == 0 and x.channels != channels else x
            x = net.activate(net.node("Add", [y, skip]), "Relu")
    return net.classify(x), net.macs


def inverted_residuals(
    name: str, stages: tuple[tuple[int, int, int, int, int], ...]
) -> tuple[onnx.ModelProto, int]:
    """Sandler et al. 2018. A stage: expansion, channels, repetitions, stride of the first, kernel."""
    net = Builder(name)
    x = net.convolve(net.input, 32, 3, 2, act="Clip")
    for expansion, channels, count, first_stride, kernel in stages:
        for block in range(count):
            stride = first_stride if block == 0 else 1
            y = net.convolve(x, x.channels * expansion, 1, act="Clip") if expansion > 1 else x
            y = net.convolve(y, y.channels, kernel, stride, groups=y.channels, act="Clip")
            y = net.convolve(y, channels, 1)
            x = net.node("Add", [x, y]) if stride == 1 and x.channels == channels else y
    return net.classify(net.convolve(x, 1280, 1, act="Clip")), net.macs


MOBILENET_V2 = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 32, 3, 2, 3),
    (6, 64, 4, 2, 3),
    (6, 96, 3, 1, 3),
    (6, 160, 3, 2, 3),
    (6, 320, 1, 1, 3),
)
EFFICIENTNET_LITE0 = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)
MODELS: dict[str, Callable[[], tuple[onnx.ModelProto, int]]] = {
    "resnet50": lambda: resnet("resnet50", (3, 4, 6, 3), bottleneck=True),
    "resnet18": lambda: resnet("resnet18", (2, 2, 2, 2), bottleneck=False),
    "mobilenet_v2": lambda: inverted_residuals("mobilenet_v2", MOBILENET_V2),
    "efficientnet_lite0": lambda: inverted_residuals("efficientnet_lite0", EFFICIENTNET_LITE0),
}


# ---------------------------------------------------------------- files
@dataclass(frozen=True)
class Entry:
    """As an entry of the model zoo: the file, calibration samples and test samples."""

    model: Path
    calib: Array
    x: Array


def load(name: str, folder: Path) -> Entry:
    """A model of MODELS and its data; the file is built where ``folder`` does not hold it."""
    path = folder / f"{name}.onnx"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        onnx.save(MODELS[name]()[0], part)
        part.replace(path)
    return Entry(path, smooth_noise(CALIBRATION_SAMPLES, SEED + 1), smooth_noise(TEST_SAMPLES, SEED + 2))


def layer_statistics(model: onnx.ModelProto, samples: Array) -> tuple[list[float], float]:
    """Standard deviation of the output of each layer, and the share of channels that do not vary, behind activations."""
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    layers = [
        n for n in model.graph.node if n.op_type in ("BatchNormalization", "Add", "Relu", "Clip", "Gemm")
    ]
    del watched.graph.output[:]
    watched.graph.output.extend(
        helper.make_tensor_value_info(n.output[0], onnx.TensorProto.FLOAT, None) for n in layers
    )
    session = session_of(watched)
    runs = [session.run(None, {"image": samples[i : i + 1]}) for i in range(len(samples))]
    deviations, dead, channels = [], 0, 0
    for node, *arrays in zip(layers, *runs, strict=True):
        values = np.concatenate(arrays)
        if node.op_type in ("Relu", "Clip"):
            spread = np.ptp(values, (0, 2, 3))
            dead, channels = dead + int((spread == 0).sum()), channels + spread.size
        else:
            deviations.append(float(values.std()))
    return deviations, dead / channels


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--models",
    default=",".join(MODELS),
    show_default=True,
    metavar="A,B,...",
    callback=lambda context, parameter, text: text.split(","),
)
def main(folder: Path, models: list[str]) -> None:
    """Build the models in FOLDER, and look at their layers on samples that were not used to build them."""
    table = Table(title=f"{CALIBRATION_SAMPLES} calibration samples come with each model")
    for heading in ("model", "GMAC", "M weights", "deviation of layers", "dead channels"):
        table.add_column(heading, justify="left" if heading == "model" else "right")
    folder.mkdir(parents=True, exist_ok=True)
    for name in models:
        model, macs = MODELS[name]()
        onnx.save(model, folder / f"{name}.onnx")
        weights = sum(int(np.prod(t.dims)) for t in model.graph.initializer if len(t.dims) > 1)
        deviations, dead = layer_statistics(model, smooth_noise(4, SEED + 2))
        spread = f"{min(deviations):.2f} to {max(deviations):.2f}"
        table.add_row(name, f"{macs / 1e9:.3f}", f"{weights / 1e6:.2f}", spread, f"{100 * dead:.2f}%")
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
