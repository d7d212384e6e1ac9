"""Integers and truth values that exist at run time, and the operators of the standard that are written with others."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, inliner

from qcc.ir.errors import ImportModelError
from qcc.onnx_quantized import MOVEMENTS

# Replaced by what the standard defines them with.
INLINED = (
    "AffineGrid",
    "Attention",
    "CausalConvWithState",
    "CenterCropPad",
    "NegativeLogLikelihoodLoss",
    "RotaryEmbedding",
    "SoftmaxCrossEntropyLoss",
    "SwiGLU",
)
_DEPTH = 3  # functions in functions
_STANDARD = ("", "ai.onnx")

_BOOL, _INT64 = TensorProto.BOOL, TensorProto.INT64
_COMPARISONS = ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")
# What operators yield whose result is no float.
_RESULTS: dict[str, int] = {
    **dict.fromkeys((*_COMPARISONS, "And", "Or", "Xor", "Not", "IsNaN", "IsInf"), _BOOL),
    **dict.fromkeys(("ArgMax", "ArgMin"), _INT64),
}
# Who may read truth values and integers, besides operators that move elements.
_READERS: dict[int, tuple[str, ...]] = {
    _BOOL: ("And", "Or", "Xor", "Not", "Equal", "Where", "Cast"),
    _INT64: (*_COMPARISONS, "Cast", "Where"),
}


@dataclass
class DiscreteKinds:
    """Which computed tensors hold truth values or indices: in the graph these are floats (0 and 1, whole numbers)."""

    kinds: dict[str, int] = field(default_factory=dict)

    def add_inputs(self, inputs: Iterable[ValueInfoProto]) -> None:
        """Graph inputs of truth values."""
        self.kinds.update((v.name, _BOOL) for v in inputs if v.type.tensor_type.elem_type == _BOOL)

    def enter(self, node: NodeProto) -> bool:
        """Note what ``node`` yields; True where its result is its operand (a cast).

        Raises ImportModelError where floats would compute something else than integers or truth values.
        """
        held = [self.kinds[n] for n in node.input if n in self.kinds]
        for kind in held:
            if node.op_type not in (*MOVEMENTS, *_READERS[kind]) or node.op_type == "MaxPool":
                what = "truth values" if kind == _BOOL else "integers"
                raise ImportModelError(f"it computes with {what} known at run time alone")
        if node.op_type == "Cast":
            return bool(held) and self._cast(node, held[0])
        if node.op_type == "Where":
            held = [self.kinds[n] for n in node.input[1:] if n in self.kinds]
        result = _RESULTS.get(node.op_type, held[0] if held else None)
        if result is not None:
            self.kinds.update((n, result) for n in node.output if n)
        return False

    def _cast(self, node: NodeProto, held: int) -> bool:
        """From truth values or indices, which fit every integer of 32 bits."""
        to = next(int(a.i) for a in node.attribute if a.name == "to")
        if to in (TensorProto.INT32, _INT64):
            self.kinds[node.output[0]] = _INT64
        elif to == _BOOL and held == _BOOL:
            self.kinds[node.output[0]] = _BOOL
        elif to not in (TensorProto.FLOAT, TensorProto.DOUBLE):
            raise ImportModelError("only casts to float32, float64, int32 and int64 are supported here")
        return True


def with_functions_inlined(model: ModelProto) -> ModelProto:
    """``model`` with the operators of INLINED replaced by their definition; itself without any.

    Where onnx does not know the types it takes, the node stays, and is refused later.
    """
    for _ in range(_DEPTH):
        found = sorted(
            {n.op_type for n in model.graph.node if n.op_type in INLINED and n.domain in _STANDARD}
        )
        if not found:
            break
        model = _with_declared_initializers(model)
        try:
            model = inliner.inline_selected_functions(model, [("", name) for name in found], False, True)
        except RuntimeError:
            break
    return model


def _with_declared_initializers(model: ModelProto) -> ModelProto:
    """Initializers declared as inputs with defaults, as IR version 3 has them: the inliner reads types there."""
    declared = ModelProto()
    declared.CopyFrom(model)
    known = {v.name for v in model.graph.input}
    declared.graph.input.extend(
        helper.make_tensor_value_info(t.name, t.data_type, t.dims)
        for t in model.graph.initializer
        if t.name not in known
    )
    return declared
