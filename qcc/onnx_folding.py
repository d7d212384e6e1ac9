"""Evaluation of ONNX nodes whose operands are known: shape arithmetic ends here and never reaches the graph."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, ValueInfoProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from qcc.ir.errors import ImportModelError

Array = NDArray[Any]

MAX_FOLDED_ELEMENTS = 2**28
_SHAPE_INPUT_ELEMENTS = 1024  # operands up to this size are shown to shape inference with their contents
_RANDOM = frozenset({"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike"}) | frozenset(
    {"RandomUniform", "RandomUniformLike"}
)
# Results that depend on the contents of large operands, but are never larger than these.
_BOUNDED_BY_OPERANDS = frozenset({"Compress", "NonZero", "Unique"})
# Older versions without a reference operator, and the version that means the same for their operands.
_EVALUATED_AS = {"DequantizeLinear": 19, "QuantizeLinear": 19}
# The reference operators check little, so a malformed node can end in any of these.
_EVALUATION_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
)


def is_foldable(node: NodeProto) -> bool:
    """Whether equal operands always give equal results."""
    return node.op_type not in _RANDOM


def fold(node: NodeProto, opset: int, operands: Mapping[str, Array]) -> dict[str, Array]:
    """Results of ``node`` by name, computed by the reference operators of onnx.

    Raises ImportModelError when the node is malformed or a result would pass MAX_FOLDED_ELEMENTS.
    """
    names = list(dict.fromkeys(n for n in node.input if n))
    opset = max(opset, _EVALUATED_AS.get(node.op_type, 0))
    model = _one_node_model(node, opset, {n: operands[n] for n in names})
    _check_result_size(node, model, operands)
    try:
        with np.errstate(all="ignore"):
            results = ReferenceEvaluator(model).run(None, {n: operands[n] for n in names})
    except _EVALUATION_ERRORS as error:
        reason = (str(error).splitlines() or [""])[0][:200]
        raise ImportModelError(f"cannot be evaluated: {type(error).__name__}: {reason}") from error
    outputs = [n for n in node.output if n]
    folded = {n: np.asarray(r) for n, r in zip(outputs, results, strict=True)}
    for name, array in folded.items():
        if array.dtype.kind not in "fiub":
            if array.dtype.name != "bfloat16":
                raise ImportModelError(f"yields {array.dtype}, which is not supported")
            folded[name] = array.astype(np.float32)
    return folded


def _one_node_model(node: NodeProto, opset: int, operands: Mapping[str, Array]) -> onnx.ModelProto:
    inputs = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
        for n, a in operands.items()
    ]
    outputs = [ValueInfoProto(name=n) for n in node.output if n]
    graph = helper.make_graph([node], "fold", inputs, outputs)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])


def _check_result_size(node: NodeProto, model: onnx.ModelProto, operands: Mapping[str, Array]) -> None:
    """Let shape inference say how large the results are before anything of that size is made."""
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    for value in model.graph.input:
        array = operands[value.name]
        if array.size <= _SHAPE_INPUT_ELEMENTS:
            probe.graph.initializer.append(numpy_helper.from_array(array, value.name))
    try:
        inferred = onnx.shape_inference.infer_shapes(probe, strict_mode=True)
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[-1][:200]
        raise ImportModelError(f"cannot be evaluated: {reason}") from None
    if node.op_type in _BOUNDED_BY_OPERANDS:
        return
    for output in inferred.graph.output:
        shape = output.type.tensor_type.shape
        dims = [d.dim_value if d.HasField("dim_value") else -1 for d in shape.dim]
        if not output.type.tensor_type.HasField("shape") or min(dims, default=0) < 0:
            raise ImportModelError("cannot be evaluated: the size of its result is unknown")
        if prod(dims) > MAX_FOLDED_ELEMENTS:
            raise ImportModelError(
                f"its result of shape {tuple(dims)} is larger than {MAX_FOLDED_ELEMENTS} elements"
            )
