"""Transformer blocks with outlier channels, as they are found behind normalizations and in gated products."""

import numpy as np
from quantized_nets import Net, Samples

from qcc.ir.graph import Graph, Value
from qcc.ir.ops.activation import Gelu, Sigmoid
from qcc.ir.ops.dense import MatMul
from qcc.ir.ops.elementwise import Add, Mul
from qcc.ir.ops.norm import LayerNorm
from qcc.ir.ops.shape import Reshape, Transpose
from qcc.ir.ops.softmax import Softmax

HEADS, TOKENS, WIDTH = 2, 6, 16


class Block(Net):
    """x [1, T, C]; a few channels are ``outlier`` times as large as the others, and the weights on them as small."""

    def __init__(self, seed: int = 0, outlier: float = 32.0) -> None:
        super().__init__(1, TOKENS, WIDTH, seed=seed)
        self.outlier = outlier

    def spread(self, channels: int) -> np.ndarray:
        """Sizes of channels."""
        return np.where(self.rng.permutation(channels) < 2, self.outlier, 1.0)

    def norm(self, x: Value, sizes: np.ndarray) -> Value:
        scale, bias = (self.constant(sizes * self.rng.normal(m, 0.2, size=len(sizes))) for m in (1, 0))
        return self(LayerNorm(2), x, scale, bias)

    def reader(self, x: Value, channels: int, sizes: np.ndarray) -> Value:
        """A layer whose weights suit an operand with channels of these sizes."""
        weights = self.rng.normal(size=(channels, len(sizes))) / np.sqrt(len(sizes))
        return self.dense(x, channels, weights=weights / sizes)

    def heads(self, x: Value, perm: tuple[int, ...] = (0, 2, 1, 3)) -> Value:
        return self(Transpose(perm), self(Reshape((1, TOKENS, HEADS, WIDTH // HEADS)), x))

    def attention(self, x: Value) -> Value:
        """Queries and keys with channels of unlike sizes; so have values, which the output layer makes up for."""
        sizes, inner, outer = (self.spread(WIDTH) for _ in range(3))
        normal = self.norm(x, sizes)
        q, k, v = (self.rng.normal(size=(WIDTH, WIDTH)) / np.sqrt(WIDTH) / sizes for _ in range(3))
        bias = np.zeros(WIDTH)
        q, k, v = (
            self.dense(normal, WIDTH, weights=w * s[:, None], bias=bias)
            for w, s in ((q / 3, inner), (k, 1 / inner), (v, outer))
        )
        scores = self(MatMul(), self.heads(q), self.heads(k, (0, 2, 3, 1)))
        mixed = self(MatMul(), self(Softmax(3), scores), self.heads(v))
        joined = self(Reshape((1, TOKENS, WIDTH)), self(Transpose((0, 2, 1, 3)), mixed))
        return self(Add(), self.reader(joined, WIDTH, outer), x)

    def mlp(self, x: Value) -> Value:
        sizes = self.spread(WIDTH)
        hidden = self(Gelu(), self.reader(self.norm(x, sizes), 2 * WIDTH, sizes))
        return self(Add(), self.dense(hidden, WIDTH), x)

    def gated(self, x: Value) -> Value:
        """A product of two layers, one of them behind a sigmoid."""
        sizes, inner = self.spread(WIDTH), self.spread(2 * WIDTH)
        normal = self.norm(x, sizes)
        gate = self(Sigmoid(), self.reader(normal, 2 * WIDTH, sizes))
        weights = self.rng.normal(size=(2 * WIDTH, WIDTH)) / sizes * inner[:, None] / np.sqrt(WIDTH)
        product = self(Mul(), gate, self.dense(normal, 2 * WIDTH, weights=weights, bias=np.zeros(2 * WIDTH)))
        return self(Add(), self.reader(product, WIDTH, inner), x)

    def batched(self, x: Value) -> Value:
        """A product with a constant that is no matrix."""
        sizes = self.spread(WIDTH)
        weights = self.rng.normal(size=(1, WIDTH, WIDTH)) / np.sqrt(WIDTH) / sizes[:, None]
        return self(Add(), self(MatMul(), self.norm(x, sizes), self.constant(weights, "w")), x)


def block(kind: str, seed: int = 0, outlier: float = 32.0) -> tuple[Graph, Samples]:
    """``kind``: a method of Block; or "both", attention and then the MLP."""
    net = Block(seed, outlier)
    made = net.mlp(net.attention(net.x)) if kind == "both" else getattr(net, kind)(net.x)
    return net.finish(made), net.samples(48)
