"""Dynamically quantized ONNX models: the nodes of a matrix product of integers as one operator."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from onnx import ModelProto, NodeProto, TensorProto, helper

from qcc.onnx_quantized import MICROSOFT

FUSED = "DynamicQuantizeMatMul"


def with_dynamic_products(model: ModelProto) -> ModelProto:
    """``model`` with com.microsoft.DynamicQuantizeMatMul for what onnxruntime's quantize_dynamic writes; itself without any.

    That is (DynamicQuantizeLinear), MatMulInteger, Cast to float, Mul with the product of both scales, [Add of a bias]: the
    last node is replaced, the others stay and are dead unless something else reads them.
    """
    if not any(n.op_type == "MatMulInteger" for n in model.graph.node):
        return model
    fused = ModelProto()
    fused.CopyFrom(model)
    finder = _Finder(model)
    replaced = {id(last): made for last, made in finder.products()}
    del fused.graph.node[:]
    fused.graph.node.extend([replaced.get(id(n), n) for n in finder.nodes])
    return fused


class _Finder:
    """Who computes and who reads each tensor."""

    def __init__(self, model: ModelProto) -> None:
        self.nodes = list(model.graph.node)
        self.producer = {name: n for n in self.nodes for name in n.output if name}
        self.outputs = {v.name for v in model.graph.output}
        self.constants = {t.name: tuple(t.dims) for t in model.graph.initializer}

    def products(self) -> Iterator[tuple[NodeProto, NodeProto]]:
        """The last node of each product and what takes its place."""
        for node in self.nodes:
            if node.op_type == "MatMulInteger":
                found = self._product(node)
                if found is not None:
                    yield found

    def _product(self, product: NodeProto) -> tuple[NodeProto, NodeProto] | None:
        x, w, x_zero, w_zero = (*product.input, "", "")[:4]
        source = self.producer.get(x)
        if source is None or source.op_type != "DynamicQuantizeLinear" or [x_zero] != list(source.output)[2:]:
            return None
        cast = self._reader(product, "Cast", lambda n: [a.i for a in n.attribute] == [TensorProto.FLOAT])
        scaled = cast and self._reader(cast, "Mul", lambda n: True)
        if not cast or not scaled:
            return None
        scales = self.producer.get(_other(scaled, cast.output[0]))
        if scales is None or scales.op_type != "Mul" or source.output[1] not in scales.input:
            return None
        w_scale = _other(scales, source.output[1])
        last, bias = scaled, ""
        summed = self._reader(scaled, "Add", lambda n: self._is_bias(_other(n, scaled.output[0]), w))
        if summed is not None:
            last, bias = summed, _other(summed, scaled.output[0])
        inputs = [source.input[0], w, w_scale, w_zero, bias]
        made = helper.make_node(FUSED, inputs, list(last.output), name=product.name, domain=MICROSOFT)
        return last, made

    def _reader(
        self, node: NodeProto, op_type: str, accepts: Callable[[NodeProto], bool]
    ) -> NodeProto | None:
        """The only reader of a node's result, where it is of that kind."""
        readers = [n for n in self.nodes if any(name in n.input for name in node.output)]
        if len(node.output) != 1 or len(readers) != 1 or node.output[0] in self.outputs:
            return None
        return readers[0] if readers[0].op_type == op_type and accepts(readers[0]) else None

    def _is_bias(self, name: str, weights: str) -> bool:
        """Whether the constant has one element for each column of the weights."""
        shape, matrix = self.constants.get(name), self.constants.get(weights)
        return matrix is not None and len(matrix) == 2 and shape == matrix[1:]


def _other(node: NodeProto, name: str) -> str:
    """The operand of a node with two that is not ``name``; ``name`` where it is both."""
    return next((n for n in node.input if n != name), name)
