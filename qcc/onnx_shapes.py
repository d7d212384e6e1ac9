"""Static shapes of graph inputs: the batch becomes 1, other symbolic dimensions come from the user."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import prod

from onnx import TensorProto, ValueInfoProto

from qcc.ir.errors import ImportModelError
from qcc.ir.location import Location
from qcc.ir.types import DType, TensorType
from qcc.onnx_reading import MAX_ELEMENTS, type_name

Shapes = Mapping[str, "int | tuple[int, ...]"]
Dim = int | str | None  # fixed, symbolic, unknown


def bind_inputs(
    inputs: Iterable[ValueInfoProto], shapes: Shapes, location: Location
) -> list[tuple[str, TensorType]]:
    """Name and type of every graph input; codes of 8 bits are reals here, as everywhere before quantization.

    Raises ImportModelError naming each dimension that stays open.
    """
    declared = {v.name: _dims(v, v.name in shapes, location) for v in inputs}
    symbols = list(dict.fromkeys(d for dims in declared.values() for d in dims or () if isinstance(d, str)))
    unknown = [n for n in shapes if n not in declared and n not in symbols]
    if unknown:
        known = ", ".join([*declared, *symbols]) or "none"
        raise ImportModelError(
            f"--shape {unknown[0]}: the model has no input or dimension of that name",
            location,
            f"inputs and symbolic dimensions: {known}",
        )
    batch = {dims[0]: 1 for dims in declared.values() if dims and isinstance(dims[0], str)}
    sizes: dict[str, int] = {**batch, **{n: s for n, s in shapes.items() if isinstance(s, int)}}
    bound = []
    for name, dims in declared.items():
        given = shapes.get(name)
        if given is not None and not (isinstance(given, int) and name in symbols):
            whole = (given,) if isinstance(given, int) else tuple(int(d) for d in given)
            shape = _whole_shape(name, dims, whole, location)
        else:
            shape = _shape(name, dims or (), sizes, location)
        if min(shape, default=1) < 1 or prod(shape) > MAX_ELEMENTS:
            raise ImportModelError(
                f"input {name} has shape {_spelled(shape)}, which no tensor can have",
                location,
                "every dimension must be at least 1",
            )
        bound.append((name, TensorType(DType.F32, shape)))
    return bound


def _dims(value: ValueInfoProto, given: bool, location: Location) -> tuple[Dim, ...] | None:
    """Declared dimensions; None when the rank is open and the user gives the shape."""
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        found = (kind or "untyped").replace("_type", "")
        raise ImportModelError(f"input {value.name} is {found}, expected a float32 tensor", location)
    tensor = value.type.tensor_type
    if tensor.elem_type not in (TensorProto.FLOAT, TensorProto.INT8, TensorProto.UINT8, TensorProto.BOOL):
        raise ImportModelError(
            f"input {value.name} is {type_name(tensor.elem_type)}, expected float32",
            location,
            "export the model with float32 inputs (preprocessing of integers belongs before the model)",
        )
    if not tensor.HasField("shape"):
        if given:
            return None
        raise ImportModelError(
            f"input {value.name} has no shape", location, f"pass --shape {value.name}=1x3x224x224"
        )
    dims: list[Dim] = []
    for dim in tensor.shape.dim:
        if dim.HasField("dim_value"):
            dims.append(int(dim.dim_value) if dim.dim_value != -1 else None)  # some exporters write -1
        else:
            dims.append(dim.dim_param or None)
    return tuple(dims)


def _whole_shape(
    name: str, dims: tuple[Dim, ...] | None, given: tuple[int, ...], location: Location
) -> tuple[int, ...]:
    fixed = [] if dims is None else list(dims)
    fits = dims is None or (
        len(fixed) == len(given)
        and all(not isinstance(d, int) or d == g for d, g in zip(fixed, given, strict=True))
    )
    if not fits:
        shown = "x".join("?" if d is None else str(d) for d in fixed)
        raise ImportModelError(
            f"--shape {name}={_spelled(given)} does not fit the declared shape {shown}",
            location,
            "only symbolic dimensions can be chosen",
        )
    return given


def _shape(name: str, dims: tuple[Dim, ...], sizes: Mapping[str, int], location: Location) -> tuple[int, ...]:
    shape = [sizes.get(d, 0) if isinstance(d, str) else d for d in dims]
    if dims and dims[0] is None:
        shape[0] = 1
    open_dims = [
        (axis, d)
        for axis, d in enumerate(dims)
        if (d is None and axis > 0) or (isinstance(d, str) and d not in sizes)
    ]
    if open_dims:
        shown = ", ".join(f"{d!r} (axis {axis})" if d else f"(axis {axis})" for axis, d in open_dims)
        few = "a dynamic dimension" if len(open_dims) == 1 else "dynamic dimensions"
        if all(d for _, d in open_dims):
            hint = "pass " + " ".join(f"--shape {d}=..." for d in dict.fromkeys(d for _, d in open_dims))
        else:
            example = "x".join("..." if s in (None, 0) else str(s) for s in shape)
            hint = f"pass --shape {name}={example}"
        raise ImportModelError(f"input {name} has {few} {shown}", location, hint)
    return tuple(int(s or 0) for s in shape)


def _spelled(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "scalar"
