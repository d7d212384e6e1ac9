"""Normalizations, channels last and in float. Passes fold a batch normalization into its neighbours."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from qcc.ir.errors import VerifyError
from qcc.ir.op import Array, Case, Op, Signature, onnx_importer, register_op
from qcc.ir.ops.activation import Clamp
from qcc.ir.ops.elementwise import Add, Div, Mul, Sub
from qcc.ir.ops.functions import Abs, Reciprocal, Sqrt
from qcc.ir.ops.reduce import ReduceMean, ReduceSum
from qcc.ir.ops.shape import axis_index, reshape
from qcc.ir.types import DType, TensorType

if TYPE_CHECKING:
    from qcc.ir.graph import Value
    from qcc.ir.importing import OnnxNode


class _Norm(Op):
    """Base: float x in, same type out, with parameters per channel of the last axis."""

    def infer(self, *operands: TensorType | None) -> TensorType:
        """The type of x; every parameter is [C]."""
        x, *parameters = operands
        assert x is not None
        if x.dtype is not DType.F32 or x.rank < 2:
            raise VerifyError(f"{self.name} needs a float operand of rank 2 or more, got {x}")
        for parameter in parameters:
            if parameter is not None and parameter.shape != x.shape[-1:]:
                raise VerifyError(f"{self.name}: parameters must be {x.shape[-1:]}, got {parameter}")
        return x.with_qparams(None)

    def permuted(self, perm: tuple[int, ...], sig: Signature) -> Op | None:
        """The same op while samples stay first and channels last."""
        return self if perm[0] == 0 and perm[-1] == len(perm) - 1 else None


@register_op
class BatchNorm(_Norm):
    """(x - mean) / sqrt(var + epsilon) * scale + bias with constant scale, bias, mean, var: [C]."""

    name = "batch_norm"
    operands = ("x", "scale", "bias", "mean", "var")
    epsilon: float = 1e-5

    def as_affine(
        self, scale: Array, bias: Array, mean: Array, var: Array
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(multiplier, offset), float64[C]: the op is x * multiplier + offset."""
        with np.errstate(
            invalid="ignore", divide="ignore"
        ):  # a negative variance: NaN, which the verifier refuses
            multiplier = scale.astype(np.float64) / np.sqrt(var.astype(np.float64) + self.epsilon)
            return multiplier, bias - mean * multiplier

    def float_ref(self, *operands: Array | None) -> Array:
        """The affine form in float64."""
        x, scale, bias, mean, var = operands
        assert x is not None
        assert scale is not None
        assert bias is not None
        assert mean is not None
        assert var is not None
        multiplier, offset = self.as_affine(scale, bias, mean, var)
        return np.asarray(x * multiplier + offset, x.dtype)

    @classmethod
    def cases(cls, rng: np.random.Generator) -> Iterable[Case]:
        """An image and a row."""
        for shape in ((1, 3, 4, 5), (1, 6)):
            c = shape[-1]
            parameters = (rng.normal(size=c), rng.normal(size=c), rng.normal(size=c), rng.uniform(0.1, 2, c))
            arrays = (rng.normal(size=shape), *parameters)
            yield Case(cls(1e-3), tuple(a.astype(np.float32) for a in arrays), (False, *(True,) * 4))


@register_op
class InstanceNorm(_Norm):
    """x normalized over its spatial axes, for each sample and channel, times scale plus bias: [C]."""

    name = "instance_norm"
    operands = ("x", "scale", "bias")
    epsilon: float = 1e-5

    def float_ref(self, *operands: Array | None) -> Array:
        """numpy in float64."""
        x, scale, bias = operands
        assert x is not None
        assert scale is not None
        assert bias is not None
        axes = tuple(range(1, x.ndim - 1))
        return np.asarray(_standardized(x, axes, self.epsilon) * scale + bias, x.dtype)

    @classmethod
    def cases(cls, rng: np.random.Generator) -> Iterable[Case]:
        """An image."""
        arrays = (rng.normal(1, 2, size=(1, 3, 4, 5)), rng.normal(size=5), rng.normal(size=5))
        yield Case(cls(), tuple(a.astype(np.float32) for a in arrays), (False, True, True))


@register_op
class LayerNorm(Op):
    """x normalized over the axes from ``axis`` (counted from the front) on, times scale, plus bias."""

    name = "layer_norm"
    operands = ("x", "scale", "bias?")
    axis: int = 1
    epsilon: float = 1e-5

    def infer(self, *operands: TensorType | None) -> TensorType:
        """The type of x; the parameters broadcast to it."""
        x, *parameters = operands
        assert x is not None
        if x.dtype is not DType.F32 or not 0 <= self.axis < x.rank:
            raise VerifyError(f"layer_norm: axis {self.axis} is not an axis of a float operand, got {x}")
        for parameter in parameters:
            if parameter is not None and _broadcast(x.shape, parameter.shape) != x.shape:
                raise VerifyError(f"layer_norm: {parameter} does not broadcast to {x}")
        return x.with_qparams(None)

    def float_ref(self, *operands: Array | None) -> Array:
        """numpy in float64."""
        x, scale, bias = (*operands, None)[:3]
        assert x is not None
        assert scale is not None
        y = _standardized(x, tuple(range(self.axis, x.ndim)), self.epsilon) * scale
        return np.asarray(y if bias is None else y + bias, x.dtype)

    def batches(self, sig: Signature) -> bool:
        """Samples must not be normalized together."""
        return self.axis != 0

    @classmethod
    def cases(cls, rng: np.random.Generator) -> Iterable[Case]:
        """The last axis, and two axes without a bias."""
        for axis, shapes in ((2, ((1, 4, 6), (6,), (6,))), (1, ((1, 3, 4), (3, 4)))):
            arrays = tuple(rng.normal(size=shape).astype(np.float32) for shape in shapes)
            yield Case(cls(axis), arrays, (False, True, True)[: len(arrays)])


@register_op
class Lrn(_Norm):
    """x / (bias + alpha / size * sum of squares over ``size`` neighbouring channels) ^ beta."""

    name = "lrn"
    operands = ("x",)
    size: int = 1
    alpha: float = 1e-4
    beta: float = 0.75
    bias: float = 1.0

    def float_ref(self, *operands: Array | None) -> Array:
        """Squares padded with zeros, summed window by window, in float64."""
        x = operands[0]
        assert x is not None
        before = (self.size - 1) // 2
        widths = [(0, 0)] * (x.ndim - 1) + [(before, self.size - 1 - before)]
        squares = np.pad(np.square(x.astype(np.float64)), widths)
        channels = x.shape[-1]
        sums = sum(squares[..., i : i + channels] for i in range(self.size))
        return np.asarray(x / (self.bias + self.alpha / self.size * sums) ** self.beta, x.dtype)

    @classmethod
    def cases(cls, rng: np.random.Generator) -> Iterable[Case]:
        """Odd and even windows."""
        x = rng.normal(size=(1, 2, 3, 7)).astype(np.float32)
        yield Case(cls(5, 0.1), (x,))
        yield Case(cls(2, 0.3, 0.5, 2.0), (x,))


def _standardized(x: Array, axes: tuple[int, ...], epsilon: float) -> NDArray[np.float64]:
    wide = x.astype(np.float64)
    centred = wide - wide.mean(axis=axes, keepdims=True)
    deviation = np.sqrt(np.square(centred).mean(axis=axes, keepdims=True) + epsilon)
    return np.asarray(centred / deviation)


def _broadcast(x: tuple[int, ...], parameter: tuple[int, ...]) -> tuple[int, ...] | None:
    try:
        return np.broadcast_shapes(x, parameter)
    except ValueError:
        return None


@onnx_importer("BatchNormalization")
def import_batch_norm(node: OnnxNode) -> Value:
    """BatchNormalization at inference; channels-first images are wrapped in transposes."""
    if node.attrs.get("training_mode", 0) or node.outputs > 1:
        raise node.unsupported("batch normalization in training mode is not supported")
    if not node.attrs.get("spatial", 1):
        raise node.unsupported("batch normalization with spatial = 0 is not supported")
    op = BatchNorm(float(node.attrs.get("epsilon", 1e-5)))
    return _channels_last(node, op, *(node.input(index) for index in range(1, 5)))


@onnx_importer("InstanceNormalization")
def import_instance_norm(node: OnnxNode) -> Value:
    """InstanceNormalization."""
    op = InstanceNorm(float(node.attrs.get("epsilon", 1e-5)))
    return _channels_last(node, op, node.input(1), node.input(2))


@onnx_importer("LRN")
def import_lrn(node: OnnxNode) -> Value:
    """LRN over channels."""
    names = {"alpha": 1e-4, "beta": 0.75, "bias": 1.0}
    values = {name: float(node.attrs.get(name, default)) for name, default in names.items()}
    return _channels_last(node, Lrn(int(node.attrs["size"]), **values))


@onnx_importer("LayerNormalization")
def import_layer_norm(node: OnnxNode) -> list[Value]:
    """LayerNormalization (opset 17); its optional statistics, the mean and 1 / deviation, are computed apart."""
    x = node.input(0)
    axis = axis_index(node, int(node.attrs.get("axis", -1)), x.type.rank)
    epsilon = float(node.attrs.get("epsilon", 1e-5))
    y = node.emit(LayerNorm(axis, epsilon), x, node.input(1), node.optional(2))
    if node.outputs == 1:
        return [y]
    axes = tuple(range(axis, x.type.rank))
    mean = node.emit(ReduceMean(axes), x)
    centred = node.emit(Sub(), x, mean)
    variance = node.emit(ReduceMean(axes), node.emit(Mul(), centred, centred))
    raised = node.emit(Add(), variance, node.constant(np.asarray(epsilon, np.float32), "epsilon"))
    return [y, mean, node.emit(Reciprocal(), node.emit(Sqrt(), raised))][: node.outputs]


@onnx_importer("GroupNormalization")
def import_group_norm(node: OnnxNode) -> Value:
    """GroupNormalization (opset 21): the groups are the channels of an instance normalization."""
    x, groups = node.input(0), int(node.attrs["num_groups"])
    n, channels, *spatial = x.type.shape
    if groups < 1 or channels % groups:
        raise node.unsupported(f"{channels} channels cannot be split into {groups} groups")
    op = InstanceNorm(float(node.attrs.get("epsilon", 1e-5)))
    plain = (
        node.constant(np.ones(groups, np.float32), "one"),
        node.constant(np.zeros(groups, np.float32), "zero"),
    )
    grouped = node.to_nhwc(reshape(node, x, (n, groups, x.type.elements // (n * groups))))
    y = reshape(node, node.to_nchw(node.emit(op, grouped, *plain)), x.type.shape)
    scale, bias = (reshape(node, node.input(i), (channels, *[1] * len(spatial))) for i in (1, 2))
    return node.emit(Add(), node.emit(Mul(), y, scale), bias)


@onnx_importer("RMSNormalization")
def import_rms_norm(node: OnnxNode) -> Value:
    """x divided by its root mean square over the axes from ``axis`` on, times scale."""
    x = node.input(0)
    axis = axis_index(node, int(node.attrs.get("axis", -1)), x.type.rank)
    mean = node.emit(ReduceMean(tuple(range(axis, x.type.rank))), node.emit(Mul(), x, x))
    epsilon = node.constant(np.asarray(node.attrs.get("epsilon", 1e-5), np.float32), "epsilon")
    y = node.emit(Div(), x, node.emit(Sqrt(), node.emit(Add(), mean, epsilon)))
    return node.emit(Mul(), y, node.input(1))


@onnx_importer("LpNormalization")
def import_lp_norm(node: OnnxNode) -> Value:
    """x divided by its L1 or L2 norm along ``axis``; zeros stay zeros."""
    x, p = node.input(0), int(node.attrs.get("p", 2))
    axis = axis_index(node, int(node.attrs.get("axis", -1)), x.type.rank)
    if p not in (1, 2):
        raise node.unsupported(f"only norms 1 and 2 are supported, got p = {p}")
    terms = node.emit(Abs(), x) if p == 1 else node.emit(Mul(), x, x)
    norm = node.emit(ReduceSum((axis,)), terms)
    norm = norm if p == 1 else node.emit(Sqrt(), norm)
    smallest = float(np.finfo(np.float32).tiny)  # instead of 0 / 0
    return node.emit(Div(), x, node.emit(Clamp(smallest), norm))


@onnx_importer("MeanVarianceNormalization")
def import_mean_variance_norm(node: OnnxNode) -> Value:
    """x less its mean over ``axes``, divided by its standard deviation there."""
    x = node.input(0)
    named = node.ints(1, "axes") or (0, 2, 3)
    mean = ReduceMean(tuple(sorted(axis_index(node, a, x.type.rank) for a in named)))
    centred = node.emit(Sub(), x, node.emit(mean, x))
    deviation = node.emit(Sqrt(), node.emit(mean, node.emit(Mul(), centred, centred)))
    smallest = node.constant(np.asarray(1e-9, np.float32), "epsilon")  # as the operator is defined
    return node.emit(Div(), centred, node.emit(Add(), deviation, smallest))


def _channels_last(node: OnnxNode, op: Op, *parameters: Value) -> Value:
    x = node.input(0)
    if x.type.rank <= 2:
        return node.emit(op, x, *parameters)
    return node.to_nchw(node.emit(op, node.to_nhwc(x), *parameters))
