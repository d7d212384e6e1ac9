"""Reading ONNX files that nobody has checked: every count in them is compared with what is really there."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from numpy.typing import NDArray
from onnx import AttributeProto, ModelProto, TensorProto, numpy_helper

from qcc.ir.errors import ImportModelError
from qcc.ir.location import Location

MAX_FILE_BYTES = 2**31 - 1  # protobuf's own limit for one message
MAX_ELEMENTS = 2**31 - 1  # of one tensor that exists at run time
NEWEST_OPSET = int(onnx.defs.onnx_opset_version())
OLDEST_OPSET = 7  # the first with numpy broadcasting
_DEFAULT_DOMAINS = ("", "ai.onnx")

# Bits of one element, and the field that holds the elements where there is no raw_data.
_ELEMENTS: dict[int, tuple[int, str]] = {
    TensorProto.FLOAT: (32, "float_data"),
    TensorProto.DOUBLE: (64, "double_data"),
    TensorProto.FLOAT16: (16, "int32_data"),
    TensorProto.BFLOAT16: (16, "int32_data"),
    TensorProto.BOOL: (8, "int32_data"),
    TensorProto.INT8: (8, "int32_data"),
    TensorProto.UINT8: (8, "int32_data"),
    TensorProto.INT16: (16, "int32_data"),
    TensorProto.UINT16: (16, "int32_data"),
    TensorProto.INT32: (32, "int32_data"),
    TensorProto.UINT32: (32, "uint64_data"),
    TensorProto.INT64: (64, "int64_data"),
    TensorProto.UINT64: (64, "uint64_data"),
    TensorProto.INT4: (4, "int32_data"),
    TensorProto.UINT4: (4, "int32_data"),
}


def read_model(source: str | Path | ModelProto) -> tuple[ModelProto, str, Path | None]:
    """The model, the name that locations show, and the folder of its external data (None in memory).

    Raises ImportModelError when the file cannot be read or does not hold an ONNX graph.
    """
    if isinstance(source, ModelProto):
        name, folder, model = _text(source.graph.name, "graph name") or "model", None, source
    else:
        path = Path(source)
        name, folder, model = path.name, path.parent, _parse(path)
    location = Location(name)
    if not model.HasField("graph") or not model.graph.output:
        raise ImportModelError(
            "this is not an ONNX model: it holds no graph with outputs",
            location,
            "export the model again; qcc reads the binary .onnx format",
        )
    for text, what in _texts(model):
        _text(text, what, location)
    return model, name, folder


def _parse(path: Path) -> ModelProto:
    location = Location(path.name)
    if path.is_dir():
        raise ImportModelError(f"{path} is a folder", location, "name the .onnx file in it")
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise ImportModelError(f"{path} is not a regular file", location, "name an .onnx file")
        if size > MAX_FILE_BYTES:
            raise ImportModelError(
                f"the file has {size} bytes, more than protobuf's limit of 2 GB",
                location,
                "store the weights as external data: onnx.save(model, path, save_as_external_data=True)",
            )
        data = path.read_bytes()
    except FileNotFoundError:
        raise ImportModelError(f"{path} does not exist", location, "check the path of the model") from None
    except (OSError, ValueError) as error:  # ValueError: a path with a zero byte
        raise ImportModelError(f"{path} cannot be read: {error}", location, "check the file") from None
    if not data:
        raise ImportModelError("the file is empty", location, "export the model again")
    try:
        model: ModelProto = ModelProto.FromString(data)
        return model
    except DecodeError:
        raise ImportModelError(
            "this is not an ONNX model, or it is cut short",
            location,
            "download or export it again; qcc reads the binary .onnx format",
        ) from None


def _texts(model: ModelProto) -> Iterator[tuple[Any, str]]:
    """Every string of the model that qcc uses."""
    graph = model.graph
    yield graph.name, "graph name"
    for entry in model.opset_import:
        yield entry.domain, "domain"
    for value in (*graph.input, *graph.output):
        yield value.name, "value name"
        for dim in value.type.tensor_type.shape.dim:
            yield dim.dim_param, "dimension name"
    for tensor in graph.initializer:
        yield tensor.name, "initializer name"
    for node in graph.node:
        for text in (node.name, node.op_type, node.domain, *node.input, *node.output):
            yield text, "node"
        for attribute in node.attribute:
            yield attribute.name, "attribute name"


def _text(text: Any, what: str, location: Location | None = None) -> str:
    """protobuf yields bytes where a string is not UTF-8."""
    if not isinstance(text, str):
        raise ImportModelError(f"a {what} is not UTF-8: {bytes(text)!r}", location, "export the model again")
    return text


def default_opset(model: ModelProto, location: Location) -> int:
    """Version of the default operator set; ImportModelError outside what qcc reads."""
    versions = [int(e.version) for e in model.opset_import if e.domain in _DEFAULT_DOMAINS]
    if not versions:
        raise ImportModelError(
            "the model names no opset of the default domain", location, "export it with a current exporter"
        )
    version = versions[0]
    if not OLDEST_OPSET <= version <= NEWEST_OPSET:
        raise ImportModelError(
            f"opset {version} is not supported: expected {OLDEST_OPSET} to {NEWEST_OPSET}",
            location,
            "convert the model with onnx.version_converter.convert_version",
        )
    return version


def is_default_domain(domain: str) -> bool:
    """True for the operators of the ONNX standard."""
    return domain in _DEFAULT_DOMAINS


def tensor_array(tensor: TensorProto, folder: Path | None) -> NDArray[Any]:
    """The elements of a stored tensor; bfloat16 as float32.

    Raises ImportModelError (without location) when dims and data do not fit, the type has no numpy form,
    or external data lies outside ``folder`` or outside its file.
    """
    name = f"tensor {tensor.name}" if tensor.name else "a tensor"
    if tensor.data_type not in _ELEMENTS:
        raise ImportModelError(f"{name} has type {type_name(tensor.data_type)}, which is not supported")
    dims = tuple(int(d) for d in tensor.dims)
    if any(d < 0 for d in dims):
        raise ImportModelError(f"{name} has a negative dimension: {dims}")
    bits, field = _ELEMENTS[tensor.data_type]
    count = prod(dims)
    expected = (count * bits + 7) // 8
    if tensor.data_location == TensorProto.EXTERNAL:
        stored = TensorProto(dims=dims, data_type=tensor.data_type)
        stored.raw_data = _external_data(tensor, name, expected, folder)
        tensor = stored
    elif tensor.HasField("raw_data"):
        _expect(name, dims, len(tensor.raw_data), expected, "bytes")
    else:
        per_entry = 2 if bits == 4 else 1
        _expect(name, dims, len(getattr(tensor, field)), -(-count // per_entry), "elements")
    try:
        array = np.asarray(numpy_helper.to_array(tensor))
    except (ValueError, OverflowError) as error:
        raise ImportModelError(f"{name} cannot be read: {error}") from None
    return array.astype(np.float32) if tensor.data_type == TensorProto.BFLOAT16 else array


def check_finite(name: str, array: NDArray[Any] | None) -> None:
    """Raise ImportModelError (without location) for a constant that no arithmetic survives.

    An infinity may be a bound or a padding value (one element), or part of a mask (zeros and infinities alone).
    """
    if array is None or array.dtype.kind != "f" or np.isfinite(array).all():
        return
    nan = np.isnan(array)
    if nan.any():
        raise ImportModelError(f"tensor {name} holds {int(nan.sum())} NaN")
    infinite = np.isinf(array)
    if array.size > 1 and array[~infinite].any():
        raise ImportModelError(f"tensor {name} holds {int(infinite.sum())} infinite elements")


def _expect(name: str, dims: tuple[int, ...], found: int, expected: int, unit: str) -> None:
    if found != expected:
        raise ImportModelError(f"{name} with shape {dims} needs {expected} {unit}, the file has {found}")


def _external_data(tensor: TensorProto, name: str, expected: int, folder: Path | None) -> bytes:
    entries = {e.key: e.value for e in tensor.external_data}
    location = entries.get("location", "")
    if folder is None:
        raise ImportModelError(
            f"{name} is stored in the file {location!r}, but the model was given without a path",
            hint="pass the path of the .onnx file, or load the model with its external data",
        )
    if not isinstance(location, str) or not location or "\0" in location:
        raise ImportModelError(f"{name} names no valid external file: {location!r}")
    root = folder.resolve()
    path = (root / location).resolve()
    if not path.is_relative_to(root):
        raise ImportModelError(
            f"{name} is stored in {location!r}, which is outside the folder of the model",
            hint="put the file beside the model; qcc reads no other place",
        )
    try:
        offset, length = int(entries.get("offset", 0)), int(entries.get("length", expected))
    except ValueError:
        raise ImportModelError(f"{name} has a malformed offset or length in {location!r}") from None
    if length != expected:
        raise ImportModelError(f"{name} needs {expected} bytes, its length in {location!r} is {length}")
    if not path.is_file():
        raise ImportModelError(
            f"{name} is stored in {location!r}, which does not exist", hint="copy it beside the model"
        )
    size = path.stat().st_size
    if offset < 0 or offset + length > size:
        raise ImportModelError(
            f"{name} needs bytes {offset} to {offset + length} of {location!r}, which has {size}",
            hint="the data file is cut short or belongs to another model",
        )
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(length)


def type_name(data_type: int) -> str:
    """Spelling of an ONNX element type."""
    known = data_type in TensorProto.DataType.values()
    return TensorProto.DataType.Name(data_type).lower() if known else f"number {data_type}"


def attribute_value(attribute: AttributeProto, folder: Path | None) -> Any:
    """A Python number, string, list of them, or a numpy array. Raises ImportModelError for other kinds."""
    kind = attribute.type
    if kind == AttributeProto.FLOAT:
        return float(attribute.f)
    if kind == AttributeProto.INT:
        return int(attribute.i)
    if kind == AttributeProto.STRING:
        return _decoded(attribute.s, attribute.name)
    if kind == AttributeProto.FLOATS:
        return [float(f) for f in attribute.floats]
    if kind == AttributeProto.INTS:
        return [int(i) for i in attribute.ints]
    if kind == AttributeProto.STRINGS:
        return [_decoded(s, attribute.name) for s in attribute.strings]
    if kind == AttributeProto.TENSOR:
        return tensor_array(attribute.t, folder)
    if kind in (AttributeProto.GRAPH, AttributeProto.GRAPHS):
        raise ImportModelError("subgraphs are not supported")
    raise ImportModelError(f"attribute {attribute.name} is of a kind that is not supported")


def _decoded(text: bytes, name: str) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError:
        raise ImportModelError(f"attribute {name} is not UTF-8: {text!r}") from None
