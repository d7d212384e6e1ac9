"""Writer: a function in the TOSA dialect of MLIR under construction, with the names and constants its ops need."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcc.ir.graph import Value
from qcc.ir.types import DType

ELEMENTS = {DType.S8: "i8", DType.S16: "i16", DType.S32: "i32", DType.S64: "i64", DType.F32: "f32"}
_INLINE = 16  # constants of more elements are one string of hexadecimal digits, which MLIR reads as bytes


@dataclass(frozen=True)
class Tensor:
    """An SSA value: its name without ``%``, element type and shape."""

    name: str
    element: str
    shape: tuple[int, ...]

    @property
    def type(self) -> str:
        """As MLIR spells it: ``tensor<1x8xi8>``."""
        return f"tensor<{'x'.join(map(str, (*self.shape, self.element)))}>"


@dataclass(frozen=True)
class _Shape:
    """A value of type !tosa.shape."""

    name: str
    type: str


class Writer:
    """Collects operations, each in MLIR's generic form, which later versions of the dialect still read."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._tensors: dict[int, Tensor] = {}
        self._constants: dict[tuple[str, tuple[int, ...], bytes], Tensor] = {}
        self._shapes: dict[tuple[int, ...], _Shape] = {}
        self._taken: set[str] = set()

    # ------------------------------------------------------------------ values
    def name(self, wanted: str) -> str:
        """An SSA name not used before: what MLIR does not allow becomes an underscore."""
        plain = re.sub(r"[^A-Za-z0-9_]", "_", wanted)
        plain = plain if re.match(r"[A-Za-z_]", plain) else f"_{plain}"
        found, count = plain, 1
        while found in self._taken:
            count += 1
            found = f"{plain}_{count}"
        self._taken.add(found)
        return found

    def define(self, value: Value, tensor: Tensor) -> None:
        """``tensor`` holds ``value``."""
        self._tensors[id(value)] = tensor

    def argument(self, value: Value) -> Tensor:
        """``value`` as an argument of the function."""
        tensor = Tensor(self.name(value.name), ELEMENTS[value.type.dtype], value.type.shape)
        self.define(value, tensor)
        return tensor

    def tensor(self, value: Value) -> Tensor:
        """What holds ``value``; a constant is written at its first use."""
        if value.data is not None:
            return self.constant(value.data, value.name)
        return self._tensors[id(value)]

    def constant(self, data: NDArray[Any], name: str) -> Tensor:
        """``data`` in its own element type; equal constants are written once."""
        element, shape = ELEMENTS[DType.of(data.dtype)], tuple(data.shape)
        key = (element, shape, data.tobytes())
        if key not in self._constants:
            attribute = f"dense<{_elements(data)}>"
            self._constants[key] = self.op("const", (), element, shape, name, values=(attribute, "typed"))
        return self._constants[key]

    def ints(self, values: Any, name: str, element: str = "i32") -> Tensor:
        """A constant tensor of integers, i8 or i32."""
        return self.constant(np.asarray(values, {"i8": np.int8, "i32": np.int32}[element]), name)

    def scalar(self, value: int, rank: int, name: str) -> Tensor:
        """An i32 of ``rank`` dimensions of 1, as elementwise ops want it."""
        return self.ints(np.full((1,) * rank, value), name)

    def shape(self, dims: Sequence[int]) -> _Shape:
        """A value of type !tosa.shape."""
        key = tuple(int(d) for d in dims)
        if key not in self._shapes:
            made = _Shape(self.name(f"shape_{'_'.join(map(str, key))}"), f"!tosa.shape<{len(key)}>")
            values = f"dense<{list(key)}> : tensor<{len(key)}xindex>"
            self.lines.append(
                f'%{made.name} = "tosa.const_shape"() <{{values = {values}}}> : () -> {made.type}'
            )
            self._shapes[key] = made
        return self._shapes[key]

    # ------------------------------------------------------------------ operations
    def op(
        self,
        op: str,
        operands: Sequence[Tensor | _Shape],
        element: str,
        shape: Sequence[int],
        name: str,
        **attributes: Any,
    ) -> Tensor:
        """Append ``tosa.op``; attributes are MLIR text, or ("text", "typed") to add the type of the result."""
        result = Tensor(self.name(name), element, tuple(int(d) for d in shape))
        texts = [f"{k} = {_attribute(v, result)}" for k, v in attributes.items()]
        properties = f" <{{{', '.join(texts)}}}>" if texts else ""
        names, types = (
            ", ".join(column) for column in ([f"%{o.name}" for o in operands], [o.type for o in operands])
        )
        self.lines.append(f'%{result.name} = "tosa.{op}"({names}){properties} : ({types}) -> {result.type}')
        return result

    def binary(self, op: str, a: Tensor, b: Tensor, name: str, element: str = "i32") -> Tensor:
        """An elementwise op; the operand of lower rank gets leading dimensions of 1."""
        rank = max(len(a.shape), len(b.shape))
        a, b = (self.reshape(t, (*(1,) * (rank - len(t.shape)), *t.shape), name) for t in (a, b))
        extra = [self.ints([0], "no_shift", "i8")] if op == "mul" else []
        attributes = {"round": "false"} if op == "arithmetic_right_shift" else {}
        shape = np.broadcast_shapes(a.shape, b.shape)
        return self.op(op, (a, b, *extra), element, shape, name, **attributes)

    def reshape(self, x: Tensor, shape: Sequence[int], name: str) -> Tensor:
        """``x``, when it has this shape already."""
        if x.shape == tuple(shape):
            return x
        return self.op("reshape", (x, self.shape(shape)), x.element, shape, name)

    def reduce(self, op: str, x: Tensor, axis: int, name: str) -> Tensor:
        """reduce_sum, reduce_max or reduce_min over one axis, which stays with 1 element."""
        shape = (*x.shape[:axis], 1, *x.shape[axis + 1 :])
        return self.op(op, (x,), x.element, shape, name, axis=f"{axis} : i32")

    def slice(self, x: Tensor, starts: Sequence[int], sizes: Sequence[int], name: str) -> Tensor:
        """``sizes`` elements of each axis from ``starts`` on; ``x`` where that is all of it."""
        if x.shape == tuple(sizes):
            return x
        return self.op("slice", (x, self.shape(starts), self.shape(sizes)), x.element, sizes, name)

    def centred(self, x: Tensor, zero_point: int, name: str) -> Tensor:
        """``x - zero_point`` in i32."""
        if x.element != "i32":
            x = self.op("cast", (x,), "i32", x.shape, name)
        return (
            self.binary("sub", x, self.scalar(zero_point, len(x.shape), "zero_point"), name)
            if zero_point
            else x
        )

    def rescale(
        self, x: Tensor, multiplier: NDArray[Any], shift: NDArray[Any], zero_points: tuple[int, int],
        element: str, name: str, rounding: str = "SINGLE_ROUND",
    ) -> Tensor:  # fmt: skip
        """RESCALE with multipliers of 32 bits: i64[1], or i64[C] of the last axis."""
        operands = (
            x,
            self.ints(multiplier, f"{name}_multiplier"),
            self.ints(shift, f"{name}_shift", "i8"),
            self.ints([zero_points[0]], f"{x.element}_zero_point", x.element),
            self.ints([zero_points[1]], f"{element}_zero_point", element),
        )
        return self.op(
            "rescale",
            operands,
            element,
            x.shape,
            name,
            scale32="true",
            rounding_mode=f"#tosa.rounding_mode<{rounding}>",
            per_channel=str(multiplier.size > 1).lower(),
            input_unsigned="false",
            output_unsigned="false",
        )


def _attribute(value: Any, result: Tensor) -> str:
    return f"{value[0]} : {result.type}" if isinstance(value, tuple) else str(value)


def _elements(data: NDArray[Any]) -> str:
    if data.size <= _INLINE:
        return str(data.tolist())
    if (data == data.flat[0]).all():
        return str(data.flat[0])
    return f'"0x{data.astype(data.dtype.newbyteorder("<")).tobytes().hex().upper()}"'
