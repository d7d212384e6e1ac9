"""Train the small digit classifier which the other examples compile, with numpy alone.

    image 1x8x8, grey, 0..1
      conv 3x3, 16 channels      -> BatchNorm -> ReLU              16x8x8
      conv 3x3 stride 2, 32      -> BatchNorm -> ReLU    (skip)    32x4x4
      conv 3x3, 32               -> BatchNorm -> + skip -> ReLU    32x4x4
      global average pool -> dense 10 -> softmax

A layer is a class with `forward` and an exact `backward`; Adam does the rest. Beside the script it writes
digits.onnx, digits_calib.npz (100 training images) and digits_test.npz (the 450 images never trained on).
All randomness comes from SEED: on one machine the files are the same, byte for byte, every time.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits
from threadpoolctl import threadpool_limits  # comes with scikit-learn

SEED = 2025
EPOCHS = 15
BATCH = 32
PEAK_RATE = 0.01
TRAINING_IMAGES = 1347
CALIBRATION_IMAGES = 100
HERE = Path(__file__).resolve().parent

Floats = NDArray[np.float32]
Labels = NDArray[np.int64]


@dataclass
class Parameter:
    """A trained tensor, its latest gradient and the two running moments Adam keeps for it."""

    value: Floats
    gradient: Floats = field(init=False)
    mean: Floats = field(init=False)
    variance: Floats = field(init=False)

    def __post_init__(self) -> None:
        self.gradient, self.mean, self.variance = (np.zeros_like(self.value) for _ in range(3))

    def step(self, rate: float, count: int) -> None:
        """Move once; `count` (1, 2, ...) undoes the bias of moments that started at zero."""
        self.mean += 0.1 * (self.gradient - self.mean)
        self.variance += 0.001 * (self.gradient**2 - self.variance)
        unbiased = np.sqrt(self.variance / (1 - 0.999**count)) + 1e-8
        self.value -= (rate / (1 - 0.9**count)) * self.mean / unbiased


class Conv:
    """3x3 convolution with padding 1. It has no bias, because the BatchNorm behind it has one."""

    def __init__(self, rng: np.random.Generator, c_in: int, c_out: int, stride: int) -> None:
        spread = np.sqrt(2 / (9 * c_in))  # He initialization: ReLU halves the variance, the 2 gives it back
        self.weight = Parameter(rng.normal(0, spread, (c_out, c_in, 3, 3)).astype(np.float32))
        self.stride = stride

    def forward(self, x: Floats) -> Floats:
        """x: [N, C, H, W] -> [N, O, H', W']; tensordot turns the windows into the im2col matrix."""
        self.padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
        windows = sliding_window_view(self.padded, (3, 3), axis=(2, 3))
        self.windows = windows[:, :, :: self.stride, :: self.stride]  # [N, C, H', W', 3, 3]
        y = np.tensordot(self.windows, self.weight.value, axes=((1, 4, 5), (1, 2, 3)))
        return np.ascontiguousarray(np.moveaxis(y, 3, 1))

    def backward(self, dy: Floats) -> Floats:
        """dy: [N, O, H', W'] -> dx: [N, C, H, W]; each tap hands its share back to the pixels it read."""
        self.weight.gradient = np.tensordot(dy, self.windows, axes=((0, 2, 3), (0, 2, 3)))
        rows, columns = (size * self.stride for size in dy.shape[2:])
        dx = np.zeros_like(self.padded)
        for i, j in np.ndindex(3, 3):
            share = np.tensordot(dy, self.weight.value[:, :, i, j], axes=(1, 0))
            dx[:, :, i : i + rows : self.stride, j : j + columns : self.stride] += np.moveaxis(share, 3, 1)
        return dx[:, :, 1:-1, 1:-1]


class BatchNorm:
    """Per-channel normalization: batch statistics while training, running averages of them afterwards."""

    EPSILON = 1e-5

    def __init__(self, channels: int) -> None:
        self.gamma = Parameter(np.ones(channels, np.float32))
        self.beta = Parameter(np.zeros(channels, np.float32))
        self.running_mean = np.zeros(channels, np.float32)
        self.running_variance = np.ones(channels, np.float32)

    def forward(self, x: Floats, training: bool) -> Floats:
        """x: [N, C, H, W] -> the same shape."""
        mean, variance = self.running_mean, self.running_variance
        if training:
            mean, variance = x.mean(axis=(0, 2, 3)), x.var(axis=(0, 2, 3))
            self.running_mean += 0.1 * (mean - self.running_mean)
            self.running_variance += 0.1 * (variance - self.running_variance)
        self.inverse_std = per_channel(1 / np.sqrt(variance + self.EPSILON))
        self.normalized = (x - per_channel(mean)) * self.inverse_std
        return per_channel(self.gamma.value) * self.normalized + per_channel(self.beta.value)

    def backward(self, dy: Floats) -> Floats:
        """The batch mean and variance depend on x too: hence the two averages that are taken off."""
        self.gamma.gradient = (dy * self.normalized).sum(axis=(0, 2, 3))
        self.beta.gradient = dy.sum(axis=(0, 2, 3))
        count = dy.size // dy.shape[1]
        through_mean = per_channel(self.beta.gradient / count)
        through_variance = self.normalized * per_channel(self.gamma.gradient / count)
        return per_channel(self.gamma.value) * self.inverse_std * (dy - through_mean - through_variance)


class Dense:
    """Matrix product with bias: [N, C] -> [N, classes]."""

    def __init__(self, rng: np.random.Generator, c_in: int, classes: int) -> None:
        self.weight = Parameter(rng.normal(0, np.sqrt(1 / c_in), (classes, c_in)).astype(np.float32))
        self.bias = Parameter(np.zeros(classes, np.float32))

    def forward(self, x: Floats) -> Floats:
        """x: [N, C] -> logits: [N, classes]."""
        self.x = x
        return x @ self.weight.value.T + self.bias.value

    def backward(self, dy: Floats) -> Floats:
        """dy: [N, classes] -> dx: [N, C]."""
        self.weight.gradient = dy.T @ self.x
        self.bias.gradient = dy.sum(axis=0)
        return dy @ self.weight.value


class Network:
    """The whole classifier. ReLU and the pooling need no parameters, so they are single lines here."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.convs = [Conv(rng, 1, 16, 1), Conv(rng, 16, 32, 2), Conv(rng, 32, 32, 1)]
        self.norms = [BatchNorm(conv.weight.value.shape[0]) for conv in self.convs]
        self.dense = Dense(rng, 32, 10)

    def parameters(self) -> list[Parameter]:
        """Everything that is trained."""
        norms = [parameter for norm in self.norms for parameter in (norm.gamma, norm.beta)]
        return [conv.weight for conv in self.convs] + norms + [self.dense.weight, self.dense.bias]

    def forward(self, x: Floats, training: bool = False) -> Floats:
        """x: [N, 1, 8, 8] -> logits: [N, 10]."""
        y1 = np.maximum(self.norms[0].forward(self.convs[0].forward(x), training), 0)
        y2 = np.maximum(self.norms[1].forward(self.convs[1].forward(y1), training), 0)
        y3 = np.maximum(self.norms[2].forward(self.convs[2].forward(y2), training) + y2, 0)
        self.activations = (y1, y2, y3)
        return self.dense.forward(y3.mean(axis=(2, 3)))

    def backward(self, dlogits: Floats) -> None:
        """Fill the gradient of every parameter; a ReLU passes the gradient where its output was positive."""
        y1, y2, y3 = self.activations
        pooled = self.dense.backward(dlogits) / (y3.shape[2] * y3.shape[3])
        dy3 = pooled[:, :, None, None] * (y3 > 0)
        dy2 = self.convs[2].backward(self.norms[2].backward(dy3)) + dy3  # dy3 also comes back along the skip
        dy1 = self.convs[1].backward(self.norms[1].backward(dy2 * (y2 > 0)))
        self.convs[0].backward(self.norms[0].backward(dy1 * (y1 > 0)))


def per_channel(values: Floats) -> Floats:
    """[C] -> [C, 1, 1], which broadcasts over [N, C, H, W]."""
    return values[:, None, None]


def cross_entropy(logits: Floats, labels: Labels) -> tuple[float, Floats]:
    """Mean loss over the batch, and its gradient at the logits: (softmax - one hot) / N."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    probabilities = np.exp(shifted) / np.exp(shifted).sum(axis=1, keepdims=True)
    one_hot = np.eye(10, dtype=np.float32)[labels]
    loss = -np.log((probabilities * one_hot).sum(axis=1)).mean()
    return float(loss), (probabilities - one_hot) / len(labels)


def accuracy(network: Network, images: Floats, labels: Labels) -> float:
    """Share of images whose largest logit is that of the label."""
    return float((network.forward(images).argmax(axis=1) == labels).mean())


def train(images: Floats, labels: Labels, rng: np.random.Generator) -> Network:
    """Adam, with a rate that falls along a cosine to zero: the end is calm enough without early stopping."""
    network = Network(rng)
    count, steps = 0, EPOCHS * (len(images) // BATCH)
    for epoch in range(1, EPOCHS + 1):
        order = rng.permutation(len(images))
        losses = []
        for start in range(0, len(images) - BATCH + 1, BATCH):
            batch = order[start : start + BATCH]
            loss, dlogits = cross_entropy(network.forward(images[batch], training=True), labels[batch])
            network.backward(dlogits)
            losses.append(loss)
            rate = PEAK_RATE * (1 + np.cos(np.pi * count / steps)) / 2
            count += 1
            for parameter in network.parameters():
                parameter.step(rate, count)
        right = accuracy(network, images, labels)
        print(f"epoch {epoch:2d}/{EPOCHS}  loss {np.mean(losses):.4f}  training accuracy {right:.2%}")
    return network


def export(network: Network) -> onnx.ModelProto:
    """The trained network as ONNX, with BatchNormalization left as nodes for the compiler to fold."""
    nodes: list[onnx.NodeProto] = []
    tensors: list[onnx.TensorProto] = []

    def add(op: str, output: str, inputs: list[str], constants: dict[str, Floats], **attributes: Any) -> str:
        """Append one node with its constants (as initializers), named after its output."""
        tensors.extend(numpy_helper.from_array(value, f"{output}.{key}") for key, value in constants.items())
        names = inputs + [f"{output}.{key}" for key in constants]
        nodes.append(helper.make_node(op, names, [output], output, **attributes))
        return output

    x = skip = "image"
    for k, (conv, norm) in enumerate(zip(network.convs, network.norms, strict=True), start=1):
        window = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [conv.stride, conv.stride]}
        x = add("Conv", f"conv{k}", [x], {"weight": conv.weight.value}, **window)
        constants = {"gamma": norm.gamma.value, "beta": norm.beta.value}
        constants |= {"mean": norm.running_mean, "variance": norm.running_variance}
        x = add("BatchNormalization", f"norm{k}", [x], constants, epsilon=norm.EPSILON)
        if k == len(network.convs):
            x = add("Add", "residual", [x, skip], {})
        x = skip = add("Relu", f"relu{k}", [x], {})
    x = add("Flatten", "features", [add("GlobalAveragePool", "pool", [x], {})], {})
    constants = {"weight": network.dense.weight.value, "bias": network.dense.bias.value}
    add("Softmax", "probabilities", [add("Gemm", "logits", [x], constants, transB=1)], {}, axis=1)

    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 1, 8, 8])
    probabilities = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", 10])
    graph = helper.make_graph(nodes, "digits", [image], [probabilities], tensors)
    # IR version 8 belongs to opset 17; the default would be the newest, which older runtimes refuse.
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


def main() -> None:
    """Train, report, and write the three files."""
    rng = np.random.default_rng(SEED)
    digits = load_digits()
    images = (digits.images[:, None] / 16).astype(np.float32)  # 0..16 -> 0..1, exact in float32
    labels = digits.target.astype(np.int64)
    order = rng.permutation(len(images))
    training, test = order[:TRAINING_IMAGES], order[TRAINING_IMAGES:]

    with threadpool_limits(1):  # how many threads share a sum decides how it rounds
        network = train(images[training], labels[training], rng)
    print(f"test accuracy {accuracy(network, images[test], labels[test]):.2%} of {len(test)} images")

    onnx.save(export(network), HERE / "digits.onnx")
    for name, chosen in (("calib", training[:CALIBRATION_IMAGES]), ("test", test)):
        np.savez_compressed(HERE / f"digits_{name}.npz", image=images[chosen], label=labels[chosen])
    for path in sorted(HERE.glob("digits*.*")):
        print(f"{path.name}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
