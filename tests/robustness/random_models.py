"""Random small models: convolutions, pooling, residuals and what stands between them, as ONNX."""

from collections.abc import Callable
from math import gcd, prod
from random import Random
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper
from random_graph import RandomGraph, Shape

MAX_ELEMENTS = 4096
TABLE_OPS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("Sigmoid", {}),
    ("Tanh", {}),
    ("HardSwish", {}),
    ("HardSigmoid", {"alpha": 0.3, "beta": 0.4}),
    ("Elu", {"alpha": 0.7}),
    ("Selu", {}),
    ("LeakyRelu", {"alpha": 0.1}),
    ("Softplus", {}),
    ("Softsign", {}),
    ("Erf", {}),
    ("Abs", {}),
    ("Neg", {}),
    ("Celu", {"alpha": 1.5}),
)


class RandomModel(RandomGraph):
    """The steps. All choices come from ``random``, so that a shorter model can be searched."""

    def conv(self) -> None:
        name = self.pick(3, 4)
        if name is None:
            return
        batch, channels, *spatial = self.tensors[name]
        kind = self.random.randint(0, 3)
        outputs = self.random.randint(1, 9)
        groups = 1
        if kind == 0:
            groups = channels
            outputs = channels * self.random.choice([1, 1, 1, 2])
        elif kind == 1:
            groups = gcd(channels, outputs)
        windows = [self.window(s) for s in spatial]
        kernel, strides, begins, ends, dilations = (list(v) for v in zip(*windows, strict=True))
        w = self.constant(self.weights(outputs, channels // groups, *kernel))
        sizes = [
            (s + b + e - (k - 1) * d - 1) // st + 1
            for s, (k, st, b, e, d) in zip(spatial, windows, strict=True)
        ]
        self.emit(
            "Conv",
            [name, w, *self.bias(outputs)],
            (batch, outputs, *sizes),
            kernel_shape=kernel,
            strides=strides,
            pads=[*begins, *ends],
            dilations=dilations,
            group=groups,
        )

    def conv_transpose(self) -> None:
        name = self.pick(4)
        if name is None or max(self.tensors[name][2:]) > 10:
            return
        batch, channels, h, w = self.tensors[name]
        outputs, k, s = self.random.randint(1, 5), self.random.choice([1, 2, 3]), self.random.choice([1, 2])
        pad = self.random.randint(0, (k - 1) // 2)
        extra = self.random.randint(0, s - 1)
        weight = self.constant(self.weights(channels, outputs, k, k))
        sizes = tuple((v - 1) * s + k - 2 * pad + extra for v in (h, w))
        if min(sizes) < 1:
            return
        self.emit(
            "ConvTranspose",
            [name, weight, *self.bias(outputs)],
            (batch, outputs, *sizes),
            strides=[s, s],
            pads=[pad] * 4,
            output_padding=[extra, extra],
        )

    def dense(self) -> None:
        name = self.pick(2, 3)
        if name is None:
            return
        shape = self.tensors[name]
        outputs = self.random.randint(1, 12)
        w = self.weights(outputs, shape[-1])
        if len(shape) == 2 and self.random.randint(0, 1):
            self.emit("Gemm", [name, self.constant(w), *self.bias(outputs)], (shape[0], outputs), transB=1)
            return
        y = self.emit("MatMul", [name, self.constant(w.T)], (*shape[:-1], outputs))
        if self.random.randint(0, 1):
            self.emit("Add", [y, self.constant(self.numbers.normal(size=outputs))], self.tensors[y])

    def pool(self) -> None:
        name = self.pick(3, 4)
        if name is None:
            return
        batch, channels, *spatial = self.tensors[name]
        if self.random.randint(0, 3) == 0:
            kind = self.random.choice(["GlobalAveragePool", "GlobalMaxPool"])
            self.emit(kind, [name], (batch, channels, *[1] * len(spatial)))
            return
        windows = [self.window(s, dilated=False) for s in spatial]
        kernel, strides, begins, ends, _ = (list(v) for v in zip(*windows, strict=True))
        kind = self.random.choice(["MaxPool", "AveragePool"])
        attributes: dict[str, Any] = {"kernel_shape": kernel, "strides": strides, "pads": [*begins, *ends]}
        if kind == "AveragePool":
            attributes["count_include_pad"] = self.random.randint(0, 1)
        sizes = [(s + b + e - k) // st + 1 for s, (k, st, b, e, _) in zip(spatial, windows, strict=True)]
        self.emit(kind, [name], (batch, channels, *sizes), **attributes)

    def residual(self) -> None:
        """A sum of a tensor and a convolution of it, as networks have them."""
        name = self.pick(4)
        if name is None:
            return
        channels = self.tensors[name][1]
        groups = self.random.choice([1, channels])
        weight = self.constant(self.weights(channels, channels // groups, 3, 3))
        y = self.emit(
            "Conv", [name, weight, *self.bias(channels)], self.tensors[name], pads=[1] * 4, group=groups
        )
        if self.random.randint(0, 3) == 0:
            y = self.emit("Relu", [y], self.tensors[name])
        pair = [y, name] if self.random.randint(0, 1) else [name, y]
        y = self.emit(self.random.choice(["Add", "Add", "Sub"]), pair, self.tensors[name])
        if self.random.randint(0, 1):
            self.emit("Relu", [y], self.tensors[name])

    def binary(self) -> None:
        name = self.pick(1, 2, 3, 4)
        if name is None:
            return
        shape = self.tensors[name]
        op_type = self.random.choice(["Add", "Sub", "Mul", "Mul", "Max", "Min"])
        kind = self.random.randint(0, 3)
        if kind == 0:
            other = self.random.choice([n for n, s in self.tensors.items() if s == shape])
        elif kind == 1:
            fitting = [n for n, s in self.tensors.items() if _broadcasts(s, shape)]
            other = self.random.choice(fitting)
        else:
            dims = tuple(d if self.random.randint(0, 1) else 1 for d in shape)
            start = self.random.randint(0, len(dims))
            dims = dims[start:]
            other = self.constant(self.numbers.normal(size=dims))
        pair = [name, other] if self.random.randint(0, 2) else [other, name]
        self.emit(op_type, pair, shape)

    def unary(self) -> None:
        name = self.pick(1, 2, 3, 4)
        if name is None:
            return
        kind = self.random.randint(0, 5)
        if kind <= 1:
            self.emit("Relu", [name], self.tensors[name])
        elif kind == 2:
            low = self.random.choice([-1.0, 0.0, 0.25])
            bounds = [self.constant(np.asarray(v)) for v in (low, low + self.random.choice([0.5, 3.0]))]
            self.emit("Clip", [name, *bounds], self.tensors[name])
        elif kind == 3 and len(self.tensors[name]) > 1:
            channels = self.tensors[name][1]
            slope = self.numbers.uniform(-0.2, 0.9, size=(channels, *[1] * (len(self.tensors[name]) - 2)))
            self.emit("PRelu", [name, self.constant(slope)], self.tensors[name])
        else:
            op_type, attributes = self.random.choice(TABLE_OPS)
            self.emit(op_type, [name], self.tensors[name], **attributes)

    def concat(self) -> None:
        name = self.pick(2, 3, 4)
        if name is None:
            return
        shape = self.tensors[name]
        axis = self.random.randint(1, len(shape) - 1)
        fitting = [
            n
            for n, s in self.tensors.items()
            if len(s) == len(shape)
            and all(i == axis or a == b for i, (a, b) in enumerate(zip(s, shape, strict=True)))
        ]
        parts = [name, *(self.random.choice(fitting) for _ in range(self.random.randint(1, 2)))]
        length = sum(self.tensors[p][axis] for p in parts)
        self.emit("Concat", parts, (*shape[:axis], length, *shape[axis + 1 :]), axis=axis)

    def resize(self) -> None:
        name = self.pick(4)
        if name is None:
            return
        shape = self.tensors[name]
        factors = [self.random.choice([1, 2]), self.random.choice([1, 2, 3])]
        size = (*shape[:2], shape[2] * factors[0], shape[3] * factors[1])
        if prod(size) > MAX_ELEMENTS:
            return
        scales = self.constant(np.asarray([1, 1, *factors]))
        mode = self.random.choice(["nearest", "linear"])
        transformation = self.random.choice(["asymmetric", "half_pixel", "align_corners"])
        self.emit(
            "Resize",
            [name, "", scales],
            size,
            mode=mode,
            coordinate_transformation_mode=transformation,
            **({"nearest_mode": "floor"} if mode == "nearest" else {}),
        )

    def softmax(self) -> None:
        name = self.pick(2, 3, 4)
        if name is None:
            return
        self.emit("Softmax", [name], self.tensors[name], axis=self.random.choice([1, -1]))

    def movement(self) -> None:
        name = self.pick(1, 2, 3, 4)
        if name is None:
            return
        shape = self.tensors[name]
        rank = len(shape)
        kind = self.random.randint(0, 6)
        if kind == 0 and rank >= 2:
            self.emit("Flatten", [name], (shape[0], prod(shape[1:])))
        elif kind == 1 and rank >= 3:
            inner = list(range(1, rank))
            self.random.shuffle(inner)
            perm = [0, *inner]
            self.emit("Transpose", [name], tuple(shape[p] for p in perm), perm=perm)
        elif kind == 2 and rank >= 2:
            count = prod(shape[1:])
            a = self.random.choice([d for d in range(1, count + 1) if count % d == 0])
            b = self.random.choice([d for d in range(1, count // a + 1) if (count // a) % d == 0])
            dims = self.random.choice([(a, count // a), (a, b, count // a // b)])
            self.emit(
                "Reshape", [name, self.constant(np.asarray([shape[0], *dims]), True)], (shape[0], *dims)
            )
        elif kind == 3 and rank >= 3:
            axis = self.random.randint(1, rank - 1)
            start = self.random.randint(0, shape[axis] - 1)
            step = self.random.choice([1, 2])
            end = self.random.randint(start + 1, shape[axis])
            bounds = [self.constant(np.asarray([v]), True) for v in (start, end, axis, step)]
            length = -(-(end - start) // step)
            self.emit("Slice", [name, *bounds], (*shape[:axis], length, *shape[axis + 1 :]))
        elif kind == 4 and rank == 4:
            pads = [self.random.randint(0, 2) for _ in range(4)]
            value = (
                [self.constant(np.asarray(self.random.choice([0.0, 0.5])))]
                if self.random.randint(0, 1)
                else []
            )
            begin_end = self.constant(np.asarray([0, 0, *pads[:2], 0, 0, *pads[2:]]), True)
            size = (*shape[:2], shape[2] + pads[0] + pads[2], shape[3] + pads[1] + pads[3])
            self.emit("Pad", [name, begin_end, *value], size)
        elif kind == 5 and rank >= 2:
            axis = self.random.randint(1, rank - 1)
            self.emit("ReduceMean", [name], (*shape[:axis], 1, *shape[axis + 1 :]), axes=[axis], keepdims=1)
        elif kind == 6 and rank >= 2:
            self.emit(
                "Unsqueeze", [name, self.constant(np.asarray([rank]), True)], (*shape, 1)
            ) if rank < 4 else None

    def normalization(self) -> None:
        name = self.pick(3, 4)
        if name is None:
            return
        channels = self.tensors[name][1]
        statistics = [self.numbers.uniform(0.5, 2, size=channels) for _ in range(4)]
        statistics[1] -= 1.0
        self.emit("BatchNormalization", [name, *map(self.constant, statistics)], self.tensors[name])

    def rare(self) -> None:
        """What networks hold only now and then."""
        name = self.pick(2, 3, 4)
        if name is None:
            return
        shape = self.tensors[name]
        rank, axis = len(shape), self.random.randint(1, len(shape) - 1)
        cut = (*shape[:axis], 1, *shape[axis + 1 :])
        kind = self.random.randint(0, 12)
        if kind == 0:
            self.emit(
                self.random.choice(["ReduceMax", "ReduceMin", "ReduceL1"]),
                [name],
                cut,
                axes=[axis],
                keepdims=1,
            )
        elif kind == 1:
            axes = self.constant(np.asarray([axis]), integer=True)
            self.emit("ReduceSum", [name, axes], (*shape[:axis], *shape[axis + 1 :]), keepdims=0)
        elif kind == 2:
            scale, bias = (self.constant(self.numbers.normal(size=shape[-1])) for _ in range(2))
            self.emit("LayerNormalization", [name, scale, bias], shape, axis=-1, epsilon=0.1)
        elif kind == 3 and rank == 4:
            scale, bias = (self.constant(self.numbers.normal(size=shape[1])) for _ in range(2))
            self.emit("InstanceNormalization", [name, scale, bias], shape, epsilon=0.1)
        elif kind == 4 and rank == 4 and shape[1] % 4 == 0:
            size = (shape[0], shape[1] // 4, shape[2] * 2, shape[3] * 2)
            mode = self.random.choice(["DCR", "CRD"])
            self.emit("DepthToSpace", [name], size, blocksize=2, mode=mode)
        elif kind == 5 and rank == 4 and shape[2] % 2 == 0 and shape[3] % 2 == 0:
            size = (shape[0], shape[1] * 4, shape[2] // 2, shape[3] // 2)
            self.emit("SpaceToDepth", [name], size, blocksize=2)
        elif kind == 6 and shape[axis] > 1:
            first = self.random.randint(1, shape[axis] - 1)
            lengths = (first, shape[axis] - first)
            sizes = self.constant(np.asarray(lengths), integer=True)
            names = [
                self.emit("Split", [name, sizes], (*shape[:axis], lengths[0], *shape[axis + 1 :]), axis=axis)
            ]
            names.append(f"{names[0]}b")
            self.nodes[-1].output.append(names[1])
            self.tensors[names[1]] = (*shape[:axis], lengths[1], *shape[axis + 1 :])
        elif kind == 7:
            repeats = [2 if i == axis else 1 for i in range(rank)]
            size = tuple(d * r for d, r in zip(shape, repeats, strict=True))
            self.emit("Tile", [name, self.constant(np.asarray(repeats), integer=True)], size)
        elif kind == 8:
            chosen = [self.random.randint(0, shape[axis] - 1) for _ in range(self.random.randint(1, 4))]
            index = self.constant(np.asarray(chosen), integer=True)
            self.emit("Gather", [name, index], (*shape[:axis], len(chosen), *shape[axis + 1 :]), axis=axis)
        elif kind == 9 and rank == 3:
            other = self.emit("Transpose", [name], (shape[0], shape[2], shape[1]), perm=[0, 2, 1])
            self.emit("MatMul", [name, other], (shape[0], shape[1], shape[1]))
        elif kind == 10 and shape[-1] > 1:
            pads = [0] * (2 * rank)
            pads[rank - 1] = pads[-1] = 1
            mode = self.random.choice(["reflect", "edge"])
            pads_name = self.constant(np.asarray(pads), integer=True)
            self.emit("Pad", [name, pads_name], (*shape[:-1], shape[-1] + 2), mode=mode)
        elif kind == 11:
            divisor = self.numbers.uniform(0.5, 2.0, size=shape[-1]) * self.random.choice([1, -1])
            self.emit("Div", [name, self.constant(divisor)], shape)
        elif kind == 12 and rank == 4 and min(shape[2:]) >= 2:
            sizes = (-(-shape[2] // 2), -(-shape[3] // 2))
            kind_of_pool = self.random.choice(["MaxPool", "AveragePool"])
            attributes: dict[str, Any] = {"kernel_shape": [2, 2], "strides": [2, 2]}
            attributes |= self.random.choice(
                [{"ceil_mode": 1}, {"auto_pad": "SAME_UPPER"}, {"auto_pad": "SAME_LOWER"}]
            )
            self.emit(kind_of_pool, [name], (*shape[:2], *sizes), **attributes)

    def steps(self) -> list[Callable[[], None]]:
        return [
            *[self.conv] * 4,
            *[self.residual] * 2,
            *[self.binary] * 3,
            *[self.unary] * 3,
            *[self.movement] * 3,
            *[self.pool] * 2,
            self.conv_transpose,
            *[self.dense] * 2,
            self.concat,
            self.resize,
            self.softmax,
            self.normalization,
            *[self.rare] * 3,
        ]

    def build(self) -> onnx.ModelProto:
        """A model of a few steps, with one or two inputs and outputs."""
        batch = self.random.choice([1, 1, 1, 1, 3])
        inputs = []
        for index in range(self.random.choice([1, 1, 1, 2])):
            dims = [batch, self.random.randint(1, 6), self.random.randint(1, 9), self.random.randint(1, 9)]
            kind = self.random.randint(0, 7)
            shape = tuple(dims[:2] if kind == 0 else dims[:3] if kind == 1 else dims)
            self.tensors[f"x{index}"] = shape
            inputs.append(f"x{index}")
        declared = [helper.make_tensor_value_info(n, TensorProto.FLOAT, self.tensors[n]) for n in inputs]
        choices = self.steps()
        for _ in range(self.random.randint(1, 9)):
            before = len(self.nodes)
            self.random.choice(choices)()
            for node in self.nodes[before:]:
                for name in node.output:
                    if prod(self.tensors[name]) > MAX_ELEMENTS:
                        del self.tensors[name]  # large enough: nothing is built on it
        names = list(self.tensors)
        outputs = dict.fromkeys(
            [names[-1], *([self.random.choice(names)] if self.random.randint(0, 3) == 0 else [])]
        )
        graph = helper.make_graph(
            self.nodes, "random", declared, [onnx.ValueInfoProto(name=n) for n in outputs], self.constants
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _broadcasts(shape: Shape, to: Shape) -> bool:
    return len(shape) <= len(to) and all(a in (1, b) for a, b in zip(shape[::-1], to[::-1], strict=False))


def random_model(random: Random) -> onnx.ModelProto:
    """A small model whose every choice comes from ``random``."""
    return RandomModel(random).build()
