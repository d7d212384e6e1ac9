"""Builder: adds nodes to a graph and infers their types at each step."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcc.ir.errors import VerifyError
from qcc.ir.graph import Graph, Node, Value
from qcc.ir.location import Location
from qcc.ir.op import Op
from qcc.ir.qparams import QParams
from qcc.ir.types import DType, TensorType


class Builder:
    """Inserts nodes before ``before`` (default: at the end), all with ``location``."""

    def __init__(self, graph: Graph, before: Node | None = None, location: Location | None = None) -> None:
        self.graph = graph
        self.before = before
        self.location = location or (before.location if before else None)

    def emit(
        self, op: Op, *inputs: Value | None, name: str | None = None, qparams: QParams | None = None
    ) -> Value:
        """Add ``op(inputs)``; ``qparams`` for ops that choose them. Raises VerifyError with the location."""
        operands = list(inputs)
        while operands and operands[-1] is None:
            operands.pop()
        try:
            type_ = op.infer(*(v.type if v is not None else None for v in operands))
        except VerifyError as error:
            raise VerifyError(error.message, error.location or self.location, error.hint) from None
        if qparams is not None:
            type_ = TensorType(
                DType(qparams.dtype) if type_.dtype.is_integer else type_.dtype, type_.shape, qparams
            )
        first = next((v for v in operands if v is not None and not v.is_constant), None)
        base = name or (first.name if first else op.name)
        return self.graph.add_node(op, operands, type_, base, self.before, self.location).output

    def constant(self, data: NDArray[Any] | float, name: str, qparams: QParams | None = None) -> Value:
        """A constant; float64 becomes float32."""
        array = np.asarray(data)
        if array.dtype == np.float64:
            array = array.astype(np.float32)
        return self.graph.constant(array, name, TensorType(DType.of(array.dtype), array.shape, qparams))
