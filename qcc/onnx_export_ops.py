"""How each float op is spelled in ONNX: one function for each op name, entered in EXPORTERS.

A function gets the Writer and the node, and returns the tensor of the result. Images are channels-last in the
IR, so ops on images stand between two Transposes; onnxruntime moves and cancels most of these.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from qcc.ir import interpreter
from qcc.ir.graph import Node
from qcc.ir.op import Op
from qcc.onnx_writer import Writer

Exporter = Callable[[Writer, Node], str]
EXPORTERS: dict[str, Exporter] = {}

# op name -> ONNX operator; operands and attributes agree one to one
_SAME = {
    "add": "Add",
    "sub": "Sub",
    "mul": "Mul",
    "div": "Div",
    "min": "Min",
    "max": "Max",
    "pow": "Pow",
    "prelu": "PRelu",
    "matmul": "MatMul",
    "concat": "Concat",
    "transpose": "Transpose",
    "softmax": "Softmax",
    "log_softmax": "LogSoftmax",
    "layer_norm": "LayerNormalization",
    "sigmoid": "Sigmoid",
    "hard_sigmoid": "HardSigmoid",
    "hard_swish": "HardSwish",
    "mish": "Mish",
    "softplus": "Softplus",
    "softsign": "Softsign",
    "tanh": "Tanh",
    "leaky_relu": "LeakyRelu",
    "thresholded_relu": "ThresholdedRelu",
    "elu": "Elu",
    "selu": "Selu",
    "celu": "Celu",
    "gelu": "Gelu",
    "erf": "Erf",
    "exp": "Exp",
    "log": "Log",
    "sqrt": "Sqrt",
    "reciprocal": "Reciprocal",
    "neg": "Neg",
    "abs": "Abs",
    "sign": "Sign",
    "floor": "Floor",
    "ceil": "Ceil",
    "round": "Round",
    "sin": "Sin",
    "cos": "Cos",
    "asin": "Asin",
    "acos": "Acos",
    "atan": "Atan",
    "asinh": "Asinh",
    "atanh": "Atanh",
    "shrink": "Shrink",
}
# reductions keep their axes as dimensions of 1
_REDUCTIONS = {
    "reduce_mean": "ReduceMean",
    "reduce_sum": "ReduceSum",
    "reduce_max": "ReduceMax",
    "reduce_min": "ReduceMin",
    "reduce_prod": "ReduceProd",
}
# op name -> ONNX operator between Transposes; attributes agree one to one, other operands are per channel
_SAME_ON_IMAGES = {
    "batch_norm": "BatchNormalization",
    "instance_norm": "InstanceNormalization",
    "lrn": "LRN",
}


def exports(*names: str) -> Callable[[Exporter], Exporter]:
    """Decorator: the function writes the ops of these names."""

    def enter(function: Exporter) -> Exporter:
        EXPORTERS.update(dict.fromkeys(names, function))
        return function

    return enter


def _operands(w: Writer, node: Node) -> list[str]:
    return ["" if v is None else w.tensor(v) for v in node.inputs]


@exports(*_SAME)
def _same(w: Writer, node: Node) -> str:
    return w.node(_SAME[node.op.name], _operands(w, node), node.name, **node.op.attributes())


@exports(*_REDUCTIONS)
def _reduction(w: Writer, node: Node) -> str:
    axes = w.ints(node.op.attributes()["axes"], f"{node.name}_axes")
    return w.node(_REDUCTIONS[node.op.name], [*_operands(w, node), axes], node.name, keepdims=1)


@exports(*_SAME_ON_IMAGES)
def _same_on_images(w: Writer, node: Node) -> str:
    return _on_image(w, node, _SAME_ON_IMAGES[node.op.name], _operands(w, node)[1:], **node.op.attributes())


def _on_image(w: Writer, node: Node, op_type: str, rest: list[str], **attributes: Any) -> str:
    x = node.input(0)
    image = w.to_channels_first(w.tensor(x), x.type.rank)
    return w.from_channels_first(node.output, w.node(op_type, [image, *rest], node.name, **attributes))


# ---------------------------------------------------------------- products and windows
@exports("conv2d")
def _conv2d(w: Writer, node: Node) -> str:
    weight = _image_weight(w, node, (0, 3, 1, 2))
    return _on_image(
        w, node, "Conv", [weight, w.bias(node)], group=node.op.attributes()["groups"], **_window(node.op)
    )


def _image_weight(w: Writer, node: Node, perm: tuple[int, ...]) -> str:
    value = node.input(1)
    if value.is_constant:
        return w.constant(value, perm)
    return w.node("Transpose", [w.tensor(value)], f"{value.name}_nchw", perm=perm)


def _window(op: Op) -> dict[str, Any]:
    # dilations only where there are some: onnxruntime copies them to its quantized pools, which know none
    default = ("dilations", (1, 1))
    found = {k: v for k, v in op.attributes().items() if k in ("strides", "pads", "dilations")}
    return {k: list(v) for k, v in found.items() if (k, tuple(v)) != default}


@exports("max_pool2d", "avg_pool2d")
def _pool(w: Writer, node: Node) -> str:
    given = node.op.attributes()
    attributes = {
        **_window(node.op),
        "kernel_shape": list(given["kernel"]),
        "ceil_mode": int(given["ceil_mode"]),
    }
    if node.op.name == "max_pool2d":
        return _on_image(w, node, "MaxPool", [], **attributes)
    include = int(given["count_include_pad"])
    return _on_image(w, node, "AveragePool", [], count_include_pad=include, **attributes)


@exports("dense")
def _dense(w: Writer, node: Node) -> str:
    x, weight = node.input(0), node.input(1)
    if x.type.rank == 2:
        inputs = [w.tensor(x), w.tensor(weight), w.bias(node)]
        return w.node("Gemm", inputs, node.name, transB=1)
    turned = _image_weight(w, node, (1, 0))
    y = w.node("MatMul", [w.tensor(x), turned], node.name)
    bias = w.bias(node)
    return w.node("Add", [y, bias], node.name) if bias else y


@exports("stored_weight")
def _stored_weight(w: Writer, node: Node) -> str:
    return w.array(
        interpreter.evaluate(node, [None if v is None else v.data for v in node.inputs]), node.name
    )


@exports("dynamic_dense")
def _dynamic_dense(w: Writer, node: Node) -> str:
    codes, name, bias = node.input(1).data, node.name, node.operand("bias")
    assert codes is not None
    x, scale, zero_point = w.results("DynamicQuantizeLinear", [w.tensor(node.input(0))], f"{name}_x", 3)
    matrix = w.array(codes.T, f"{name}_codes")
    acc = w.node("MatMulInteger", [x, matrix, zero_point], f"{name}_sum")
    real = w.node("Cast", [acc], f"{name}_real", to=1)
    factor = w.node("Mul", [scale, w.tensor(node.input(2))], f"{name}_factor")
    y = w.node("Mul", [real, factor], name)
    return w.node("Add", [y, w.tensor(bias)], name) if bias is not None else y


@exports("conv_transpose2d")
def _conv_transpose2d(w: Writer, node: Node) -> str:
    given, (o, kh, kw, per_group) = node.op.attributes(), node.input(1).type.shape
    groups = given["groups"]
    if groups == 1:
        weight = _image_weight(w, node, (3, 0, 1, 2))
    else:  # [O, KH, KW, C/groups] to [C, O/groups, KH, KW], group by group
        name = f"{node.name}_weight"
        split = w.ints((groups, o // groups, kh, kw, per_group), f"{name}_shape")
        weight = w.node("Reshape", [w.tensor(node.input(1)), split], name)
        weight = w.node("Transpose", [weight], name, perm=[0, 4, 1, 2, 3])
        joined = w.ints((groups * per_group, o // groups, kh, kw), f"{name}_shape")
        weight = w.node("Reshape", [weight, joined], name)
    attributes = {**_window(node.op), "output_padding": list(given["output_pads"]), "group": groups}
    return _on_image(w, node, "ConvTranspose", [weight, w.bias(node)], **attributes)


@exports("resize_nearest", "resize_linear")
def _resize(w: Writer, node: Node) -> str:
    given, x = node.op.attributes(), node.input(0)
    size, scales = np.asarray(x.type.shape[1:3]), np.asarray((1, 1, *given["scales"]), np.float32)
    # runtimes multiply in float32 or float64: sizes are safer where these round differently
    products = [np.floor(size.astype(kind) * scales[2:].astype(kind)) for kind in (np.float32, np.float64)]
    if all(tuple(p) == given["out_size"] for p in products):
        rest = ["", w.array(scales, f"{node.name}_scales")]
    else:  # sizes include the batch and the channels, which are those of x (channels-last)
        shape = w.node("Shape", [w.tensor(x)], f"{node.name}_shape")
        kept = w.node("Gather", [shape, w.ints((0, 3), f"{node.name}_kept")], f"{node.name}_kept")
        size_name = w.ints(given["out_size"], f"{node.name}_size")
        rest = ["", "", w.node("Concat", [kept, size_name], f"{node.name}_sizes", axis=0)]
    coordinates = {"coordinate_transformation_mode": given["coordinates"]}
    if node.op.name == "resize_linear":
        return _on_image(w, node, "Resize", rest, mode="linear", **coordinates)
    nearest = {"mode": "nearest", "nearest_mode": given["nearest_mode"]}
    return _on_image(w, node, "Resize", rest, **nearest, **coordinates)


# ---------------------------------------------------------------- functions ONNX spells differently
@exports("clamp")
def _clamp(w: Writer, node: Node) -> str:
    x, (low, high) = w.tensor(node.input(0)), node.op.attributes().values()
    if (low, high) == (0.0, float("inf")):
        return w.node("Relu", [x], node.name)
    bounds = [w.scalar(b, f"{node.name}_bound") if np.isfinite(b) else "" for b in (low, high)]
    return w.node("Clip", [x, *bounds], node.name)


_COMPARISONS = {"less": "Less", "less_or_equal": "LessOrEqual", "equal": "Equal"}


@exports(*_COMPARISONS)
def _comparison(w: Writer, node: Node) -> str:
    truth = w.node(_COMPARISONS[node.op.name], _operands(w, node), f"{node.name}_truth")
    return w.node("Cast", [truth], node.name, to=1)


@exports("keep")
def _keep(w: Writer, node: Node) -> str:
    x, condition = _operands(w, node)
    truth = w.node("Cast", [condition], f"{node.name}_truth", to=9)
    return w.node("Where", [truth, x, w.scalar(0.0, f"{node.name}_zero")], node.name)


@exports("arg_max")
def _arg_max(w: Writer, node: Node) -> str:
    op: Any = node.op
    last = int(op.last)
    index = w.node("ArgMax", _operands(w, node), f"{node.name}_index", axis=op.axis, select_last_index=last)
    return w.node("Cast", [index], node.name, to=1)


@exports("swish")
def _swish(w: Writer, node: Node) -> str:
    x, alpha = w.tensor(node.input(0)), node.op.attributes()["alpha"]
    scaled = x if alpha == 1 else w.node("Mul", [x, w.scalar(alpha, f"{node.name}_alpha")], node.name)
    return w.node("Mul", [x, w.node("Sigmoid", [scaled], node.name)], node.name)


# ---------------------------------------------------------------- movement
@exports("reshape")
def _reshape(w: Writer, node: Node) -> str:
    shape = list(node.op.attributes()["shape"])
    if id(node.output) in w.carried:
        shape[0] = 0  # ONNX: copy this dimension from the operand
    target = w.ints(shape, f"{node.name}_shape")
    return w.node("Reshape", [w.tensor(node.input(0)), target], node.name)


@exports("expand")
def _expand(w: Writer, node: Node) -> str:
    shape = w.ints(node.op.attributes()["shape"], f"{node.name}_shape")
    return w.node("Expand", [w.tensor(node.input(0)), shape], node.name)


@exports("tile")
def _tile(w: Writer, node: Node) -> str:
    repeats = w.ints(node.op.attributes()["repeats"], f"{node.name}_repeats")
    return w.node("Tile", [w.tensor(node.input(0)), repeats], node.name)


@exports("take")
def _take(w: Writer, node: Node) -> str:
    attributes = node.op.attributes()
    indices = w.ints(attributes["indices"], f"{node.name}_indices")
    return w.node("Gather", [w.tensor(node.input(0)), indices], node.name, axis=attributes["axis"])


@exports("slice")
def _slice(w: Writer, node: Node) -> str:
    attributes = node.op.attributes()
    ends = [-(2**31) if end < 0 else end for end in attributes["ends"]]  # a negative end counts from the back
    parts = {**attributes, "ends": ends}
    inputs = [w.ints(parts[k], f"{node.name}_{k}") for k in ("starts", "ends", "axes", "steps")]
    return w.node("Slice", [w.tensor(node.input(0)), *inputs], node.name)


@exports("pad")
def _pad(w: Writer, node: Node) -> str:
    attributes = node.op.attributes()
    pads = w.ints((*attributes["begins"], *attributes["ends"]), f"{node.name}_pads")
    value = w.scalar(attributes["value"], f"{node.name}_value")
    return w.node("Pad", [w.tensor(node.input(0)), pads, value], node.name, mode=attributes["mode"])


@exports("depth_to_space")
def _depth_to_space(w: Writer, node: Node) -> str:
    attributes = node.op.attributes()
    return _on_image(w, node, "DepthToSpace", [], blocksize=attributes["block"], mode=attributes["mode"])


@exports("space_to_depth")
def _space_to_depth(w: Writer, node: Node) -> str:
    return _on_image(w, node, "SpaceToDepth", [], blocksize=node.op.attributes()["block"])


@exports("fake_quant")
def _fake_quant(writer: Writer, node: Node) -> str:
    """A QuantizeLinear-DequantizeLinear pair."""
    op: Any = node.op
    return writer.pair(writer.tensor(node.input(0)), op.qparams, node.name)
