"""What already quantized ONNX models hold: QOperators spelled as QDQ, and the codes of QuantizeLinear pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper

from qcc.ir.errors import ImportModelError
from qcc.ir.graph import Graph, Node
from qcc.ir.qparams import QParams
from qcc.ir.types import TensorType

Array = NDArray[Any]

PAIR = ("QuantizeLinear", "DequantizeLinear")
MICROSOFT = "com.microsoft"
# Operators that may stand between QuantizeLinear and DequantizeLinear: the same on codes as on reals.
MOVEMENTS = frozenset(
    [
        "Concat",
        "DepthToSpace",
        "Expand",
        "Flatten",
        "Gather",
        "Identity",
        "MaxPool",
        "Reshape",
        "Slice",
        "SpaceToDepth",
        "Split",
        "Squeeze",
        "Tile",
        "Transpose",
        "Unsqueeze",
    ]
)
_CODES_HINT = "qcc keeps int8 and uint8 activations with one scale, and weights that are symmetric"


# ---------------------------------------------------------------------- activations
def activation_codes(scale: Array | None, zero_point: Array | None, dtype: str | None = None) -> QParams:
    """qparams in s8 of an activation. ``dtype``: of the codes where no zero_point says it; uint8 by default.

    Codes of uint8 are held minus 128. Raises ImportModelError.
    """
    if scale is None:
        raise ImportModelError("its scale must be a constant, it is computed at run time", hint=_CODES_HINT)
    kind = str(zero_point.dtype) if zero_point is not None else dtype or "uint8"
    if kind not in ("int8", "uint8"):
        raise ImportModelError(
            f"it quantizes to {kind}: activations are kept as int8 or uint8", hint=_CODES_HINT
        )
    if scale.size != 1:
        raise ImportModelError(
            f"it has {scale.size} scales: an activation that is quantized per channel is not supported; "
            "quantize activations per tensor"
        )
    offset = int(zero_point.reshape(())) if zero_point is not None and zero_point.size == 1 else 0
    value = float(np.float32(scale.reshape(())))
    if not 0 < value < np.inf:
        raise ImportModelError(f"its scale is {value}: it must be positive and finite")
    return QParams((value,), offset - 128 if kind == "uint8" else offset)


def clipped(qparams: QParams, low: Array | None, high: Array | None) -> QParams:
    """``qparams`` with the codes that a Clip of integers leaves: fewer bits, or a narrow range."""
    shift = 0
    bounds = [None if b is None else b for b in (low, high)]
    if any(b is not None and b.dtype == np.uint8 for b in bounds):
        shift = 128
    lowest, highest = qparams.code_range
    if bounds[0] is not None:
        lowest = max(lowest, int(bounds[0].reshape(())) - shift)
    if bounds[1] is not None:
        highest = min(highest, int(bounds[1].reshape(())) - shift)
    return QParams(qparams.scale, qparams.zero_point, codes=(lowest, highest))


# ---------------------------------------------------------------------- weights
@dataclass(frozen=True)
class WeightCodes:
    """Scales of a constant that DequantizeLinear made: [1], or [C] of ``axis``."""

    scale: Array
    zero_point: int
    axis: int

    @staticmethod
    def of(node: NodeProto, scale: Array, zero_point: Array | None, rank: int) -> WeightCodes:
        """Of a DequantizeLinear of constants. Blocked quantization raises ImportModelError."""
        if scale.ndim > 1:
            raise ImportModelError(
                "it dequantizes in blocks, which is not supported; quantize weights per channel"
            )
        axis = next((int(a.i) for a in node.attribute if a.name == "axis"), 1)
        largest = (
            0 if zero_point is None or not zero_point.size else int(np.abs(zero_point.astype(np.int64)).max())
        )
        return WeightCodes(scale.reshape(-1).astype(np.float32), largest, axis % max(rank, 1))

    def transposed(self, perm: Sequence[int]) -> WeightCodes:
        """Of the transposed constant."""
        return WeightCodes(self.scale, self.zero_point, list(perm).index(self.axis))


def keep_weight_codes(graph: Graph, node: Node, codes: WeightCodes) -> None:
    """Fix the scales on the weights of ``node``. Raises ImportModelError where s8 cannot hold them exactly."""
    rule = node.op.quant_rule()
    assert rule.weight is not None
    weight = node.input(rule.weight)
    if weight.data is None:
        return
    channels = weight.type.shape[rule.weight_axis]
    if codes.scale.size not in (1, channels):
        raise ImportModelError(
            f"its weights have {codes.scale.size} scales for {channels} output channels; "
            "quantize weights per output channel or per tensor"
        )
    qparams = QParams.per_channel(np.broadcast_to(codes.scale.astype(np.float64), channels), rule.weight_axis)
    scale = qparams.scale_array(weight.type.rank).astype(np.float32)
    q = np.rint(weight.data / scale)
    if not np.array_equal(np.asarray(q * scale, np.float32), weight.data):
        raise ImportModelError(
            "its weights are not quantized along the output channels, so no scale can be kept"
        )
    if q.min(initial=0) < -128 or q.max(initial=0) > 127:
        raise ImportModelError(
            f"its weights are asymmetric: minus the zero point {codes.zero_point} their codes span "
            f"[{int(q.min())}, {int(q.max())}], which 8 signed bits cannot hold; quantize weights symmetrically "
            "(onnxruntime: weight_type=QInt8, or extra_options={'WeightSymmetric': True})"
        )
    typed = TensorType(weight.type.dtype, weight.type.shape, qparams)
    graph.set_input(node, rule.weight, graph.constant(weight.data, weight.name, typed))


# ---------------------------------------------------------------------- QOperator models
@dataclass(frozen=True)
class _Float:
    """How a QOperator is spelled: the float operator, operands as triples x, scale, zero_point, results behind them."""

    op_type: str
    operands: tuple[int, ...]  # index of the first of each triple
    result: int  # index of the result's scale
    bias: int | None = None


_QOPERATORS: dict[tuple[str, str], _Float] = {
    ("", "QLinearConv"): _Float("Conv", (0, 3), 6, 8),
    ("", "QLinearMatMul"): _Float("MatMul", (0, 3), 6),
    (MICROSOFT, "QGemm"): _Float("Gemm", (0, 3), 7, 6),
    (MICROSOFT, "QLinearAdd"): _Float("Add", (0, 3), 6),
    (MICROSOFT, "QLinearMul"): _Float("Mul", (0, 3), 6),
    (MICROSOFT, "QLinearAveragePool"): _Float("AveragePool", (0,), 3),
    (MICROSOFT, "QLinearGlobalAveragePool"): _Float("GlobalAveragePool", (0,), 3),
    (MICROSOFT, "QLinearLeakyRelu"): _Float("LeakyRelu", (0,), 3),
    (MICROSOFT, "QLinearSigmoid"): _Float("Sigmoid", (0,), 3),
    (MICROSOFT, "QLinearSoftmax"): _Float("Softmax", (0,), 3),
}
_OWN_ATTRIBUTES = ("channels_last", "opset")  # of the QOperators alone


def spelled_as_qdq(model: ModelProto) -> ModelProto:
    """``model`` with every QOperator as DequantizeLinear, its float operator, QuantizeLinear; itself if it has none."""
    foreign = [n for n in model.graph.node if n.domain == MICROSOFT and n.op_type in PAIR]
    if not foreign and not any(_spelling(n) is not None for n in model.graph.node):
        return model
    spelled = ModelProto()
    spelled.CopyFrom(model)
    del spelled.graph.node[:]
    for index, node in enumerate(model.graph.node):
        spelling = _spelling(node)
        if spelling is not None:
            spelled.graph.node.extend(_pairs(node, spelling, node.name or f"{node.op_type}#{index}"))
            continue
        spelled.graph.node.append(node)
        if node.domain == MICROSOFT and node.op_type in PAIR:
            spelled.graph.node[-1].domain = ""
    return spelled


def _spelling(node: NodeProto) -> _Float | None:
    domain = "" if node.domain == "ai.onnx" else node.domain
    if (domain, node.op_type) == (MICROSOFT, "QLinearConcat"):
        return _Float("Concat", tuple(range(2, len(node.input), 3)), 0)
    return _QOPERATORS.get((domain, node.op_type))


def _pairs(node: NodeProto, spelling: _Float, label: str) -> list[NodeProto]:
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    if attributes.get("channels_last"):
        raise ImportModelError(f"{label} ({node.op_type}): channels_last is not supported")
    made: list[NodeProto] = []

    def add(op_type: str, inputs: Sequence[str], suffix: str, **more: Any) -> str:
        name = f"{label}/{suffix}"
        made.append(helper.make_node(op_type, list(inputs), [name], name=name, **more))
        return name

    axis = 0 if spelling.op_type == "Conv" or attributes.get("transB") else 1
    operands = []
    for number, first in enumerate(spelling.operands):
        x, scale, zero_point = (list(node.input) + [""] * 3)[first : first + 3]
        operands.append(
            add("DequantizeLinear", [x, scale, zero_point], f"x{number}", axis=axis if number else 1)
        )
    if spelling.bias is not None and spelling.bias < len(node.input) and node.input[spelling.bias]:
        scale = add("Mul", [node.input[1], node.input[4]], "bias_scale")
        operands.append(add("DequantizeLinear", [node.input[spelling.bias], scale], "bias", axis=0))
    kept = {k: v for k, v in attributes.items() if k not in _OWN_ATTRIBUTES}
    made.append(helper.make_node(spelling.op_type, operands, [f"{label}/y"], name=label, **kept))
    scale, zero_point = (list(node.input) + [""] * 2)[spelling.result : spelling.result + 2]
    made.append(
        helper.make_node(
            "QuantizeLinear", [f"{label}/y", scale, zero_point], list(node.output), name=f"{label}/q"
        )
    )
    return made
