"""Steps without products of matrices: what the reference computes, element by element, in the order of memory."""

from __future__ import annotations

import operator
from collections.abc import Callable

from tvm import te, tirx

from qcc.backends.kernel import Call, Step
from qcc.backends.tvm.epilogue import (
    Template,
    Tensor,
    in_rows,
    placeholders,
    requantized,
    requantizes_channels,
)
from qcc.backends.tvm.formula import Formula
from qcc.backends.tvm.isa import Isa
from qcc.backends.tvm.rows import formula_of_step
from qcc.ir.ops.quant import Requantize

_TIR: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": operator.add,
    "subtract": operator.sub,
    "multiply": operator.mul,
    "minimum": tirx.min,
    "maximum": tirx.max,
    "left_shift": operator.lshift,
    "right_shift": operator.rshift,
    "floor_divide": tirx.floordiv,
    "bitwise_and": operator.and_,
}
_REDUCERS = {"sum": te.sum, "max": te.max, "min": te.min}
Index = tuple[Tensor, ...]


class _Expressions:
    """TIR of formulas: ``leaves``, tensors of activations by their number and of constants by the formula's id.

    ``stages``: reductions, which are tensors of their own, by the formula's id, in the order of computation.
    """

    def __init__(self, leaves: dict[int, Tensor]) -> None:
        self.leaves = leaves
        self.stages: dict[int, Tensor] = {}
        self._found: dict[tuple[int, ...], tuple[Index, Tensor]] = {}

    def at(self, formula: Formula, index: Index) -> Tensor:
        """Element ``index`` of it, or of what it is broadcast to."""
        own = index[len(index) - formula.ndim :]
        own = tuple(0 if n == 1 else i for n, i in zip(formula.shape, own, strict=True))
        key = (id(formula), *map(id, own))
        if key not in self._found:
            self._found[key] = own, self._made(formula, own)  # with the index, whose ids then stay its own
        return self._found[key][1]

    def _made(self, f: Formula, index: Index) -> Tensor:
        if f.data is not None and f.data.size == 1:
            return tirx.const(int(f.data.item()), f.dtype)
        if not f.terms:
            return self.leaves[f.at if f.data is None else id(f)](*index).astype(f.dtype)
        if f.kind in _REDUCERS:
            return self._stage(f)(*index)
        if f.kind == "look":
            table, *indices = f.terms
            return self.leaves[id(table)](*(self.at(i, index) for i in indices)).astype(f.dtype)
        if f.kind == "take":
            x, along = f.terms
            moved = self.at(along, (index[f.at],))
            return self.at(x, (*index[: f.at], moved, *index[f.at + 1 :]))
        width = "int64" if any(t.dtype == "int64" for t in (f, *f.terms)) else "int32"
        return _TIR[f.kind](*(self.at(t, index).astype(width) for t in f.terms)).astype(f.dtype)

    def _stage(self, f: Formula) -> Tensor:
        if id(f) not in self.stages:
            (x,) = f.terms
            axes = {a: te.reduce_axis((0, x.shape[a]), f"r{a}") for a in f.axes}

            def reduced(*index: Tensor) -> Tensor:
                at = tuple(axes.get(i, v) for i, v in enumerate(index))
                return _REDUCERS[f.kind](self.at(x, at).astype(f.dtype), list(axes.values()))

            self.stages[id(f)] = te.compute(f.shape, reduced, name=f"{f.kind}{len(self.stages)}")
        return self.stages[id(f)]


def reference(step: Step, call: Call, isa: Isa) -> Template:
    """``int_ref`` of the step's op, and its requantization."""
    formula = formula_of_step(step)
    constants = placeholders(call)
    assert call.inputs is not None
    values = [v for v in call.inputs if v is not None]
    inputs = [te.placeholder(v.type.shape, v.type.dtype.numpy.name, f"x{i}") for i, v in enumerate(values)]
    leaves = dict(enumerate(inputs))
    leaves |= {id(f): constants[f"constant{i}"] for i, f in enumerate(formula.constants)}
    expressions = _Expressions(leaves)

    def result(*index: Tensor) -> Tensor:
        total = expressions.at(formula, index)
        if not isinstance(step.nodes[-1].op, Requantize):
            return total.astype(step.output.type.dtype.numpy.name)
        return requantized(total, index[-1] if index else 0, constants, step)

    y = te.compute(step.output.type.shape, result, name="output")
    stages = [tensor.op.name for tensor in expressions.stages.values()]
    is_flat = formula.is_pointwise and not requantizes_channels(constants)
    return te.create_prim_func([*inputs, *constants.values(), y]), lambda s: in_rows(s, stages, is_flat)
