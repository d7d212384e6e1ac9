"""Files and tensors that cannot be read: one error each, with its exact text."""

import contextlib
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from qcc.ir.errors import ImportModelError
from qcc.onnx_importer import import_model
from qcc.onnx_reading import MAX_FILE_BYTES, NEWEST_OPSET, tensor_array

AGAIN = "\nhint: export the model again"


def error_of(source: str | Path | onnx.ModelProto) -> str:
    with pytest.raises(ImportModelError) as caught:
        import_model(source)
    return str(caught.value)


# ---------------------------------------------------------------- files
def test_missing_file(tmp_path: Path) -> None:
    path = tmp_path / "no.onnx"
    assert error_of(path) == f"no.onnx: {path} does not exist\nhint: check the path of the model"
    assert error_of(str(path)) == error_of(path)


def test_folder(tmp_path: Path) -> None:
    assert error_of(tmp_path) == f"{tmp_path.name}: {tmp_path} is a folder\nhint: name the .onnx file in it"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_pipe_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "pipe.onnx"
    os.mkfifo(path)
    assert error_of(path) == f"pipe.onnx: {path} is not a regular file\nhint: name an .onnx file"


def test_path_with_zero_byte() -> None:
    assert "cannot be read: " in error_of("a\0.onnx")


def test_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "empty.onnx"
    path.touch()
    assert error_of(path) == "empty.onnx: the file is empty" + AGAIN


@pytest.mark.parametrize("content", [b"PK\x03\x04 an archive", b"\x89PNG\r\n\x1a\n", b"\xff" * 100])
def test_not_an_onnx_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other.onnx"
    path.write_bytes(content)
    assert error_of(path) == (
        "other.onnx: this is not an ONNX model, or it is cut short\n"
        "hint: download or export it again; qcc reads the binary .onnx format"
    )


def test_truncated_file(tmp_path: Path, small: SimpleNamespace) -> None:
    path = tmp_path / "cut.onnx"
    path.write_bytes(small.classifier().SerializeToString()[:-20])
    assert error_of(path).startswith("cut.onnx: this is not an ONNX model, or it is cut short\nhint: ")


def test_file_without_graph(tmp_path: Path) -> None:
    path = tmp_path / "bare.onnx"
    path.write_bytes(onnx.ModelProto(ir_version=8).SerializeToString())
    assert error_of(path) == (
        "bare.onnx: this is not an ONNX model: it holds no graph with outputs\n"
        "hint: export the model again; qcc reads the binary .onnx format"
    )


def test_file_above_two_gigabytes(tmp_path: Path) -> None:
    path = tmp_path / "large.onnx"
    with path.open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)  # a sparse file
    assert error_of(path) == (
        "large.onnx: the file has 2147483648 bytes, more than protobuf's limit of 2 GB\n"
        "hint: store the weights as external data: onnx.save(model, path, save_as_external_data=True)"
    )


def test_name_that_is_not_utf8(tmp_path: Path, small: SimpleNamespace) -> None:
    path = tmp_path / "m.onnx"
    model = small.build([small.node("Relu", "x", name="relu_name")])
    path.write_bytes(model.SerializeToString().replace(b"relu_name", b"relu_nam\xff"))
    assert error_of(path) == "m.onnx: a node is not UTF-8: b'relu_nam\\xff'" + AGAIN


@pytest.mark.parametrize("opset", [6, NEWEST_OPSET + 1])
def test_opset_outside_range(small: SimpleNamespace, opset: int) -> None:
    model = small.build([small.node("Relu", "x")], opset=opset)
    assert error_of(model) == (
        f"small: opset {opset} is not supported: expected 7 to {NEWEST_OPSET}\n"
        "hint: convert the model with onnx.version_converter.convert_version"
    )


def test_model_without_default_opset(small: SimpleNamespace) -> None:
    model = small.build([small.node("Relu", "x")])
    model.opset_import[0].domain = "com.example"
    assert error_of(model) == (
        "small: the model names no opset of the default domain\nhint: export it with a current exporter"
    )


@pytest.mark.parametrize("opset", [7, 12, 17, NEWEST_OPSET])
@pytest.mark.parametrize("domain", ["", "ai.onnx"])
def test_opsets_and_names_of_the_default_domain(small: SimpleNamespace, opset: int, domain: str) -> None:
    model = small.build([small.node("Relu", "x")], opset=opset)
    model.opset_import[0].domain = domain
    assert [n.op.name for n in import_model(model).nodes] == ["clamp"]


# ---------------------------------------------------------------- stored tensors
def tensor_error(tensor: TensorProto, folder: Path | None = None) -> str:
    with pytest.raises(ImportModelError) as caught:
        tensor_array(tensor, folder)
    return str(caught.value)


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (
            TensorProto(name="w", data_type=1, dims=[2**40, 2**20], raw_data=bytes(8)),
            "tensor w with shape (1099511627776, 1048576) needs 4611686018427387904 bytes, the file has 8",
        ),
        (
            TensorProto(name="w", data_type=1, dims=[3], float_data=[1, 2]),
            "tensor w with shape (3,) needs 3 elements, the file has 2",
        ),
        (
            TensorProto(name="w", data_type=TensorProto.UINT4, dims=[3], int32_data=[1]),
            "tensor w with shape (3,) needs 2 elements, the file has 1",
        ),
        (TensorProto(name="w", data_type=1, dims=[-1]), "tensor w has a negative dimension: (-1,)"),
        (TensorProto(name="w", data_type=8, dims=[1]), "tensor w has type string, which is not supported"),
        (TensorProto(data_type=99), "a tensor has type number 99, which is not supported"),
    ],
)
def test_stored_tensor_that_does_not_fit(tensor: TensorProto, message: str) -> None:
    assert tensor_error(tensor) == message


def test_lying_initializer_in_a_model(small: SimpleNamespace) -> None:
    model = small.build([small.node("Add", "x w", name="add")], w=np.ones(3, np.float32))
    model.graph.initializer[0].dims[:] = [2**50]
    assert error_of(model).splitlines()[1] == (
        "  add (Add): tensor w with shape (1125899906842624,) needs 4503599627370496 bytes, the file has 12"
    )


def test_bfloat16_and_packed_tensors() -> None:
    values = np.array([1.5, -2.0, 0.25], np.float32)
    as_bfloat16 = helper.make_tensor("b", TensorProto.BFLOAT16, [3], values)
    assert tensor_array(as_bfloat16, None).dtype == np.float32
    np.testing.assert_array_equal(tensor_array(as_bfloat16, None), values)
    np.testing.assert_array_equal(
        tensor_array(helper.make_tensor("i", TensorProto.INT4, [3], [1, -8, 7]), None).astype(int), [1, -8, 7]
    )


# ---------------------------------------------------------------- external data
def external(location: str, **entries: int | str) -> TensorProto:
    tensor = TensorProto(name="w", data_type=1, dims=[4], data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def test_external_data_at_an_offset(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    stored = np.arange(6, dtype=np.float32)
    (tmp_path / "sub" / "w.bin").write_bytes(stored.tobytes())
    np.testing.assert_array_equal(tensor_array(external("sub/w.bin", offset=8), tmp_path), stored[2:])
    np.testing.assert_array_equal(tensor_array(external("sub/w.bin", length=16), tmp_path), stored[:4])


def test_external_data_of_a_saved_model(tmp_path: Path, small: SimpleNamespace) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(small.classifier(), path, save_as_external_data=True, location="m.data", size_threshold=0)
    inside, outside = import_model(small.classifier()), import_model(path)
    for a, b in zip(inside.constants(), outside.constants(), strict=True):
        np.testing.assert_array_equal(a.data, b.data)


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (
            external("../w.bin"),
            "tensor w is stored in '../w.bin', which is outside the folder of the model\n"
            "hint: put the file beside the model; qcc reads no other place",
        ),
        (
            external("/etc/hostname"),
            "tensor w is stored in '/etc/hostname', which is outside the folder of the model\n"
            "hint: put the file beside the model; qcc reads no other place",
        ),
        (
            external("link.bin"),
            "tensor w is stored in 'link.bin', which is outside the folder of the model\n"
            "hint: put the file beside the model; qcc reads no other place",
        ),
        (
            external("no.bin"),
            "tensor w is stored in 'no.bin', which does not exist\nhint: copy it beside the model",
        ),
        (
            external("w.bin", offset=4),
            "tensor w needs bytes 4 to 20 of 'w.bin', which has 16\n"
            "hint: the data file is cut short or belongs to another model",
        ),
        (
            external("w.bin", offset=-16),
            "tensor w needs bytes -16 to 0 of 'w.bin', which has 16\n"
            "hint: the data file is cut short or belongs to another model",
        ),
        (external("w.bin", length=2**40), "tensor w needs 16 bytes, its length in 'w.bin' is 1099511627776"),
        (external("w.bin", offset="x"), "tensor w has a malformed offset or length in 'w.bin'"),
        (external(""), "tensor w names no valid external file: ''"),
    ],
)
def test_external_data_that_is_refused(tmp_path: Path, tensor: TensorProto, message: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "w.bin").write_bytes(bytes(16))
    (tmp_path / "w.bin").write_bytes(bytes(16))
    (folder / "link.bin").symlink_to(tmp_path / "w.bin")
    assert tensor_error(tensor, folder) == message


def test_external_data_without_a_path() -> None:
    assert tensor_error(external("w.bin")) == (
        "tensor w is stored in the file 'w.bin', but the model was given without a path\n"
        "hint: pass the path of the .onnx file, or load the model with its external data"
    )


# ---------------------------------------------------------------- hostile bytes
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_mutated_bytes_import_or_raise_import_error(
    tmp_path: Path, small: SimpleNamespace, data: st.DataObject
) -> None:
    content = bytearray(small.classifier().SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        index = data.draw(st.integers(0, len(content) - 1))
        kind = data.draw(st.sampled_from(["set", "delete", "insert"]))
        if kind == "set":
            content[index] = data.draw(st.integers(0, 255))
        elif kind == "delete":
            del content[index : index + data.draw(st.integers(1, 8))]
        else:
            content[index:index] = data.draw(st.binary(min_size=1, max_size=8))
    path = tmp_path / "mutated.onnx"
    path.write_bytes(content)
    with contextlib.suppress(ImportModelError):
        graph = import_model(path)
        assert all(min(v.type.shape, default=1) >= 1 for v in graph.values() if not v.is_constant)
