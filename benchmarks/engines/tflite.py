"""ONNX to an int8 .tflite file, by TensorFlow's converter with calibration samples.

The nodes of a folded ONNX model become TensorFlow operators, with channels last wherever a tensor has the four axes of
an image: TensorFlow Lite has no other layout, and a converted model should hold no transposition that a model made for
it would not. A node that is not known here is an error: the model is then reported as not converted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import tensorflow as tf
from onnx import numpy_helper

from engines.base import Job

TO_LAST, TO_FIRST = (0, 2, 3, 1), (0, 3, 1, 2)


@dataclass(frozen=True)
class Tensor:
    """A value; ``last``: NCHW in the ONNX model, held as NHWC."""

    value: Any
    last: bool = False


@dataclass(frozen=True)
class View:
    """A node with its attributes and operands."""

    kind: str
    attributes: dict[str, Any]
    operands: list[Tensor | None]

    def plain(self, index: int) -> Any:
        """An operand with its axes in the order of the ONNX model."""
        x = self._given(index)
        return permute(x.value, TO_FIRST) if x.last else x.value

    def image(self, index: int) -> Any:
        """An operand NCHW, as NHWC."""
        x = self._given(index)
        return x.value if x.last else permute(x.value, TO_LAST)

    def constant(self, index: int) -> Any:
        """A numpy array, None where there is none."""
        x = self.operands[index] if index < len(self.operands) else None
        return None if x is None else np.asarray(x.value)

    def _given(self, index: int) -> Tensor:
        x = self.operands[index]
        assert x is not None
        return x


def permute(x: Any, order: tuple[int, ...]) -> Any:
    """A transposition; only a change of shape where no byte moves."""
    shape = [int(x.shape[axis]) for axis in order]
    kept = [axis for axis in order if x.shape[axis] != 1]
    return tf.reshape(x, shape) if kept == sorted(kept) else tf.transpose(x, order)


# ---------------------------------------------------------------- nodes
def window(x: Any, node: View) -> tuple[Any, str, list[int], list[int]]:
    """The padded image, TensorFlow's word for the padding, strides and dilations."""
    a = node.attributes
    kernel = list(a.get("kernel_shape") or node.constant(1).shape[2:])
    strides, dilations = list(a.get("strides", [1, 1])), list(a.get("dilations", [1, 1]))
    pads, sizes = list(a.get("pads", [0] * 4)), [int(x.shape[1]), int(x.shape[2])]
    if a.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID") or a.get("ceil_mode", 0):
        raise NotImplementedError(f"{node.kind} with {a}")
    same = []  # what TensorFlow pads by itself
    for size, k, s, d in zip(sizes, kernel, strides, dilations, strict=True):
        same.append(max(0, (-(-size // s) - 1) * s + (k - 1) * d + 1 - size))
    before, after = [s // 2 for s in same], [s - s // 2 for s in same]
    if any(pads) and pads == before + after:
        return x, "SAME", strides, dilations
    if any(pads):
        x = tf.pad(x, [[0, 0], [pads[0], pads[2]], [pads[1], pads[3]], [0, 0]])
    return x, "VALID", strides, dilations


def convolution(node: View) -> Tensor:
    """Also depthwise; a bias is added behind, which the converter folds."""
    weights, bias, groups = node.constant(1), node.constant(2), node.attributes.get("group", 1)
    x, padding, strides, dilations = window(node.image(0), node)
    if groups == 1:
        y = tf.nn.conv2d(x, weights.transpose(2, 3, 1, 0), strides, padding, dilations=dilations)
    elif weights.shape[1] == 1 and groups == x.shape[3]:
        multiplier = len(weights) // groups
        filters = weights.reshape(groups, multiplier, *weights.shape[2:]).transpose(2, 3, 0, 1)
        y = tf.nn.depthwise_conv2d(x, filters, [1, *strides, 1], padding, dilations=dilations)
    else:
        raise NotImplementedError(f"convolution in {groups} groups")
    return Tensor(y if bias is None else tf.nn.bias_add(y, bias), last=True)


def max_pool(node: View) -> Tensor:
    """Padded with 0 where TensorFlow cannot pad: right behind a Relu."""
    x, padding, strides, _ = window(node.image(0), node)
    return Tensor(tf.nn.max_pool2d(x, node.attributes["kernel_shape"], strides, padding), last=True)


def average_pool(node: View) -> Tensor:
    """Padding does not count."""
    x, padding, strides, _ = window(node.image(0), node)
    if padding == "VALID" and any(node.attributes.get("pads", [])):
        raise NotImplementedError("padded AveragePool")
    return Tensor(tf.nn.avg_pool2d(x, node.attributes["kernel_shape"], strides, padding), last=True)


def dense(node: View) -> Tensor:
    """Gemm, or MatMul with constant weights."""
    a = node.attributes
    weights = node.plain(1) * np.float32(a.get("alpha", 1.0))
    y = tf.matmul(node.plain(0), weights.T if a.get("transB", 0) else weights)
    bias = node.constant(2)
    return Tensor(y if bias is None else tf.nn.bias_add(y, bias.reshape(-1) * np.float32(a.get("beta", 1.0))))


def clip(node: View) -> Tensor:
    """With constant limits."""
    x, low, high = node.operands[0], node.constant(1), node.constant(2)
    low, high = node.attributes.get("min", low), node.attributes.get("max", high)
    assert x is not None
    if (float(low), float(high)) == (0.0, 6.0):
        return Tensor(tf.nn.relu6(x.value), x.last)
    return Tensor(tf.clip_by_value(x.value, float(low), float(high)), x.last)


def flatten(node: View) -> Tensor:
    """To two axes."""
    x, axis = node.plain(0), node.attributes.get("axis", 1)
    sizes = [int(s) for s in x.shape]
    return Tensor(tf.reshape(x, [int(np.prod(sizes[:axis])), int(np.prod(sizes[axis:]))]))


def reshape(node: View) -> Tensor:
    """To a constant shape."""
    x = node.plain(0)
    sizes = [int(x.shape[i]) if s == 0 else int(s) for i, s in enumerate(node.constant(1))]
    return Tensor(tf.reshape(x, sizes))


def transpose(node: View) -> Tensor:
    """Without any work where the result, or the operand, is an image held with its channels last."""
    x, order = node.operands[0], tuple(node.attributes["perm"])
    assert x is not None
    if order == TO_FIRST and not x.last:
        return Tensor(x.value, last=True)
    if order == TO_LAST and x.last:
        return Tensor(x.value)
    return Tensor(permute(node.plain(0), order))


def concat(node: View) -> Tensor:
    """Images stay images."""
    axis = node.attributes["axis"]
    if all(x is not None and x.last for x in node.operands):
        images = [node.image(i) for i in range(len(node.operands))]
        return Tensor(tf.concat(images, TO_FIRST[axis]), last=True)
    return Tensor(tf.concat([node.plain(i) for i in range(len(node.operands))], axis))


def pad(node: View) -> Tensor:
    """With 0, by constant sizes."""
    sizes = node.constant(1).reshape(2, -1).T
    if len(sizes) == 4:
        return Tensor(tf.pad(node.image(0), sizes[list(TO_LAST)]), last=True)
    return Tensor(tf.pad(node.plain(0), sizes))


def slice_(node: View) -> Tensor:
    """Between constant limits."""
    x = node.operands[0]
    assert x is not None
    rank = len(x.value.shape)
    starts, ends = node.constant(1), node.constant(2)
    axes = node.constant(3) if len(node.operands) > 3 else np.arange(len(starts))
    steps = node.constant(4) if len(node.operands) > 4 else np.ones(len(starts), int)
    ranges = [slice(None)] * rank
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        ranges[TO_FIRST[axis] if x.last else axis] = slice(int(start), int(min(end, 2**31 - 1)), int(step))
    return Tensor(x.value[tuple(ranges)], x.last)


def softmax(node: View) -> Tensor:
    """Along the last axis."""
    x = node.plain(0)
    if node.attributes.get("axis", -1) not in (-1, len(x.shape) - 1):
        raise NotImplementedError("Softmax along an inner axis")
    return Tensor(tf.nn.softmax(x))


def elementwise(function: Callable[..., Any]) -> Callable[[View], Tensor]:
    """One operand, or two: images stay as they are where both are, or the second is a scalar."""

    def apply(node: View) -> Tensor:
        given = [x for x in node.operands if x is not None]
        last = all(x.last or (isinstance(x.value, np.ndarray) and x.value.size == 1) for x in given)
        values = [x.value if last else node.plain(i) for i, x in enumerate(given)]
        return Tensor(function(*values), last)

    return apply


NODES: dict[str, Callable[[View], Tensor]] = {
    "Conv": convolution,
    "Gemm": dense,
    "MatMul": dense,
    "MaxPool": max_pool,
    "AveragePool": average_pool,
    "GlobalAveragePool": lambda node: Tensor(tf.reduce_mean(node.image(0), [1, 2], keepdims=True), last=True),
    "Clip": clip,
    "Flatten": flatten,
    "Reshape": reshape,
    "Transpose": transpose,
    "Concat": concat,
    "Pad": pad,
    "Slice": slice_,
    "Softmax": softmax,
    "Relu": elementwise(tf.nn.relu),
    "Exp": elementwise(tf.exp),
    "Add": elementwise(tf.add),
    "Sub": elementwise(tf.subtract),
    "Mul": elementwise(tf.multiply),
    "Div": elementwise(tf.divide),
}


# ---------------------------------------------------------------- the model
def evaluate(graph: onnx.GraphProto, x: Tensor) -> list[Any]:
    """The outputs for the input ``x``."""
    values = {t.name: Tensor(numpy_helper.to_array(t)) for t in graph.initializer}
    values[graph.input[0].name] = x
    for node in graph.node:
        if node.op_type not in NODES:
            raise NotImplementedError(f"the ONNX operator {node.op_type}")
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        operands = [values[name] if name else None for name in node.input]
        values[node.output[0]] = NODES[node.op_type](View(node.op_type, attributes, operands))
    outputs = [View("", {}, [values[o.name]]) for o in graph.output]
    return [tf.identity(view.plain(0)) for view in outputs]


def convert(model: Path, samples: list[Any]) -> bytes:
    """The .tflite file, int8 within and at its boundary. An input NCHW becomes NHWC, unless the model turns it itself."""
    graph = onnx.load(model).graph
    given = graph.input[0]
    shape = [d.dim_value for d in given.type.tensor_type.shape.dim]
    users = {n.op_type for n in graph.node if given.name in n.input}
    last = len(shape) == 4 and not users & {"Transpose", "Reshape"}
    held = [shape[axis] for axis in TO_LAST] if last else shape

    @tf.function(input_signature=[tf.TensorSpec(held, tf.float32)])  # type: ignore[untyped-decorator]
    def run(x: Any) -> Any:
        return evaluate(graph, Tensor(x, last))

    module = tf.Module()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([run.get_concrete_function()], module)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([x.transpose(TO_LAST) if last else x] for x in samples)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    made: bytes = converter.convert()
    return made


def prepare(job: Job) -> None:
    """Write the converted model."""
    Path(job.prepared).write_bytes(convert(Path(job.folded), job.samples()))
