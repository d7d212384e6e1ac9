"""The files of a graph: text, arrays, what a damaged or hostile archive does; and the comparison of graphs."""

import io
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from qcc.ir.builder import Builder
from qcc.ir.compare import first_difference, graphs_equal
from qcc.ir.errors import ParseError
from qcc.ir.graph import Graph
from qcc.ir.location import Location
from qcc.ir.npz import load_arrays, pack_arrays
from qcc.ir.ops.activation import Clamp
from qcc.ir.ops.conv import Conv2d
from qcc.ir.ops.elementwise import Add
from qcc.ir.parser import load_graph
from qcc.ir.printer import print_graph, save_graph
from qcc.ir.qparams import QParams
from qcc.ir.types import DType, TensorType, f32
from qcc.ir.verifier import verify

QPARAMS = QParams.per_tensor(0.05, 3)


def unary(name: str = "x") -> Graph:
    graph = Graph(name)
    graph.add_output(Builder(graph).emit(Clamp(0.0), graph.add_input("x", f32(2, 3)), name="y"))
    return graph


def with_arrays(channels: int = 20, names: tuple[str, str] = ("w", "w.scale")) -> Graph:
    """A graph whose scale of %w wants the array name that the constant %w.scale has."""
    rng = np.random.default_rng(3)
    graph = Graph("g", "integer")
    x = graph.add_input("x", TensorType(DType.S8, (1, 4, 4, 2), QPARAMS))
    scale = QParams.per_channel(rng.uniform(0.01, 1, channels), 0)
    data = rng.integers(-127, 128, (channels, 1, 1, 2)).astype(np.int8)
    w = graph.constant(data, names[0], TensorType(DType.S8, data.shape, scale))
    y = Builder(graph).emit(Conv2d(), x, w, name="y")
    other = rng.integers(-9, 9, (channels,)).astype(np.int32)
    c = graph.constant(other, names[1], TensorType(DType.S32, other.shape))
    total = QParams.per_channel(np.asarray(y.type.qparams.scale), 3, "s32") if y.type.qparams else None
    graph.add_output(Builder(graph).emit(Add(), y, c, name="z", qparams=total))
    return graph


@pytest.mark.parametrize(
    "names", [("w", "w.scale"), ("../w", "/etc/x"), ("a b", "a_b"), ("a/b", "a\\b"), ("w", "W"), ("", ".")]
)
def test_files_hold_the_whole_graph(tmp_path: Path, names: tuple[str, str]) -> None:
    graph = with_arrays(names=names)
    verify(graph)
    save_graph(graph, tmp_path / "g.qir")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["g.npz", "g.qir"]
    assert first_difference(graph, load_graph(tmp_path / "g.qir")) is None
    with zipfile.ZipFile(tmp_path / "g.npz") as archive:
        members = archive.namelist()
    assert len(set(members)) == len(members) == 5
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]*\.npy", m) for m in members)


def test_arrays_are_those_numpy_reads(tmp_path: Path) -> None:
    graph = with_arrays()
    save_graph(graph, tmp_path / "g.qir")
    _, arrays = print_graph(graph)
    with np.load(tmp_path / "g.npz") as stored:
        assert sorted(stored.files) == sorted(arrays)
        for name, array in arrays.items():
            np.testing.assert_array_equal(stored[name], array)
            assert stored[name].dtype == array.dtype


def test_bytes_of_the_arrays_depend_on_the_arrays_alone() -> None:
    _, arrays = print_graph(with_arrays())
    first = pack_arrays(arrays)
    assert first == pack_arrays(dict(arrays))
    with zipfile.ZipFile(io.BytesIO(first)) as archive:
        assert {m.date_time for m in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_graph_without_arrays_is_one_file(tmp_path: Path) -> None:
    save_graph(unary(), tmp_path / "g.qir")
    assert [p.name for p in tmp_path.iterdir()] == ["g.qir"]
    assert graphs_equal(unary(), load_graph(tmp_path / "g.qir"))


def test_millions_of_weights_survive(tmp_path: Path) -> None:
    graph = Graph("g")
    x = graph.add_input("x", f32(1, 1, 1, 1750))
    data = np.random.default_rng(0).normal(size=(2000, 1, 1, 1750)).astype(np.float32)
    graph.add_output(Builder(graph).emit(Conv2d(), x, Builder(graph).constant(data, "w")))
    save_graph(graph, tmp_path / "g.qir")
    assert (tmp_path / "g.qir").stat().st_size < 1000
    assert graphs_equal(graph, load_graph(tmp_path / "g.qir"))


def npy(header: str) -> bytes:
    body = header.encode() + b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(body).to_bytes(2, "little") + body


def lying(shape: str, descr: str = "|i1") -> bytes:
    return npy(f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}") + b"\0" * 4


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lying("(4000000000000,)"), "claims int8(4000000000000,), but holds 4 bytes"),
        (lying("(-2, -2)"), "claims int8(-2, -2), but holds 4 bytes"),
        (lying("(3,)"), "claims int8(3,), but holds 4 bytes"),
        (lying("(1,)", "|O"), "claims object(1,), but holds 4 bytes"),
        (b"no header", "has no numpy header"),
    ],
)
def test_array_whose_header_lies_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("w.npy", content)
    with pytest.raises(ParseError, match=re.escape(message)):
        load_arrays(tmp_path / "a.npz")


def test_fortran_order_is_read(tmp_path: Path) -> None:
    data = np.asfortranarray(np.arange(6, dtype=np.int32).reshape(2, 3))
    np.savez(tmp_path / "a.npz", w=data)
    np.testing.assert_array_equal(load_arrays(tmp_path / "a.npz")["w"], data)


def test_compressed_arrays_are_refused(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", w=np.zeros(4))
    with pytest.raises(ParseError, match="is compressed"):
        load_arrays(tmp_path / "a.npz")


def test_member_larger_than_its_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    raw = bytearray(pack_arrays({"w": np.zeros(4)}))
    entry = raw.rindex(b"PK\x01\x02")
    raw[entry + 20 : entry + 28] = b"\xf0\xff\xff\x7f" * 2
    path.write_bytes(raw)
    with pytest.raises(ParseError, match="larger than the file"):
        load_arrays(path)


def test_damaged_file_is_refused(tmp_path: Path) -> None:
    save_graph(with_arrays(), tmp_path / "g.qir")
    raw = bytearray((tmp_path / "g.npz").read_bytes())
    raw[200] ^= 1
    (tmp_path / "g.npz").write_bytes(raw)
    with pytest.raises(ParseError, match="cannot read the arrays: Bad CRC"):
        load_graph(tmp_path / "g.qir")
    (tmp_path / "g.npz").write_bytes(b"not an archive")
    with pytest.raises(ParseError, match="cannot read the arrays"):
        load_graph(tmp_path / "g.qir")


@pytest.mark.parametrize("content", [None, b"graph @\xff"])
def test_text_that_cannot_be_read_is_an_error(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "g.qir").write_bytes(content)
    with pytest.raises(ParseError, match="cannot read the text"):
        load_graph(tmp_path / "g.qir")


def test_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_graph(unary("old"), tmp_path / "g.qir")

    def full(path: Path, content: bytes) -> int:
        raise OSError("no space left")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="no space left"):
        save_graph(unary("new"), tmp_path / "g.qir")
    monkeypatch.undo()
    assert load_graph(tmp_path / "g.qir").name == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["g.qir"]


# ---------------------------------------------------------------------- comparison
@pytest.mark.parametrize(
    "change",
    [
        lambda g: setattr(g, "name", "other"),
        lambda g: setattr(g, "stage", "planned"),
        lambda g: setattr(g.nodes[0], "op", Conv2d(pads=(1, 0, 0, 0))),
        lambda g: setattr(g.nodes[0].output, "name", "other"),
        lambda g: setattr(g.nodes[0].output, "range", (0.0, 1.0)),
        lambda g: setattr(g.nodes[0].output, "fused", True),
        lambda g: setattr(g.inputs[0], "type", g.inputs[0].type.with_qparams(None)),
        lambda g: setattr(g.constants()[0], "data", -g.constants()[0].data),
        lambda g: setattr(g, "output_names", ["other"]),
        lambda g: g.nodes.reverse(),
        lambda g: g.set_input(g.nodes[1], 0, g.inputs[0]),
        lambda g: g.add_output(g.inputs[0]),
    ],
)
def test_comparison_sees_every_change(change: Callable[[Graph], object]) -> None:
    a, b = with_arrays(), with_arrays()
    assert graphs_equal(a, b)
    change(b)
    assert not graphs_equal(a, b)


def test_comparison_of_locations_is_a_choice() -> None:
    a, b = unary(), unary()
    b.nodes[0].location = Location(node="n")
    assert graphs_equal(a, b)
    assert not graphs_equal(a, b, locations=True)
