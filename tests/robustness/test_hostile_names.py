"""Names that want to be code, paths or markup: the model compiles, runs and reports, and nothing else happens."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper
from robust_build import WARNINGS, Arrays, convolution, node, samples, weights
from robust_build import model as small_model

import qcc
from qcc.backends.c.names import library_name
from qcc.cli import main
from qcc.ir.compare import graphs_equal
from qcc.ir.parser import load_graph

NAMES = (
    'quote"',
    "it's",
    "line\nbreak\r\n#error",
    "*/ int evil; /*",
    "// comment \\",
    "../../../tmp/escaped",
    "/etc/passwd",
    "%n%s%d",
    "back\\slash",
    "??/ ??= ??'",
    "naïve 名前 \U0001f600",
    "\u202egnp.exe",
    "zero\0byte",
    "int",
    "double",
    "a.b",
    "a-b",
    "a/b",
    "a b",
    "long" * 2500,
    "<script>alert(1)</script>",
    "</svg><img src=x onerror=alert(1)>",
    "{{ 7 * 7 }}",
    "{% raw %}",
    "$(touch owned)",
    "`touch owned`; rm -rf .",
    "%",
    "@",
    "arena",
    "output",
    "memory",
    "NULL",
    "in",
    "params",
    "%x = q.evil()",
)
FILE = 'mo"del *\\ %n $(x) <b>.onnx'


def hostile_model() -> onnx.ModelProto:
    """Convolutions, sums and tables in a chain, every tensor and node with a hostile name."""
    first, second, *rest = NAMES
    nodes, stored, current = [], [], first
    for index, name in enumerate(rest):
        if index % 3 == 0:
            stored.append(numpy_helper.from_array(weights(2, 2, 1, 1).astype(np.float32), f"w {name}"))
            nodes.append(helper.make_node("Conv", [current, f"w {name}"], [name], name=name))
        elif index % 3 == 1:
            nodes.append(helper.make_node("Add", [current, second], [name], name=name))
        else:
            nodes.append(helper.make_node("Sigmoid", [current], [name]))
        current = name
    inputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, (1, 2, 3, 3)) for n in (first, second)]
    outputs = [onnx.ValueInfoProto(name=n) for n in (rest[-1], *rest[1::4])]
    graph = helper.make_graph(nodes, "*/ ??/\n../%n", inputs, outputs, stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds the model, and its library in ``out``."""
    folder = tmp_path_factory.mktemp("hostile")
    onnx.save(hostile_model(), folder / FILE)
    qcc.compile(folder / FILE, calibration=inputs()).save(folder / "out")
    return folder


def inputs() -> Arrays:
    return samples(hostile_model())


def test_nothing_is_written_elsewhere(folder: Path) -> None:
    assert sorted(p.name for p in folder.iterdir()) == [FILE, "out"]
    stem = "mo_del_n_x_b"
    own = {p.name for p in (folder / "out").iterdir() if p.name.startswith("mo")}
    assert own == {f"{stem}{end}" for end in (".c", ".h", ".json", "_vectors.h", "_weights.c", "_weights.h")}
    for path in (folder / "out").glob("*.[ch]"):
        assert path.read_text(encoding="utf-8").isascii()


@pytest.mark.compiler
@pytest.mark.parametrize(("compiler", "language"), [("gcc", "c99"), ("g++", "c++17")])
def test_sources_compile_without_warnings(folder: Path, compiler: str, language: str) -> None:
    if shutil.which(compiler) is None:
        pytest.skip(f"no compiler: {compiler} is not installed")
    sources = [str(p) for p in (folder / "out").glob("mo*.c")]
    command = [
        compiler,
        f"-std={language}",
        "-x",
        "c++" if "++" in compiler else "c",
        *WARNINGS,
        "-trigraphs",
    ]
    result = subprocess.run(
        [*command, f"-I{folder / 'out'}", "-fsyntax-only", *sources],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.compiler
def test_names_are_harmless_to_the_assembler(folder: Path, tmp_path: Path) -> None:
    compiled = qcc.compile(folder / FILE, calibration=inputs(), weights="binary")
    out = compiled.save(tmp_path / "out")
    (source,) = out.glob("*.S")
    text = re.sub(r"/\*.*?\*/", "", source.read_text(encoding="ascii"), flags=re.DOTALL)
    listed = [line for line in text.splitlines() if line.startswith("c_array")]
    assert len(listed) > 4
    for line in listed:
        assert re.fullmatch(r"c_array mo_del_n_x_b_\w+, \d+, \d+", line)
    given = compiled.quantize_input(inputs())
    for name, expected in compiled.run_integer(given).items():
        np.testing.assert_array_equal(compiled.build(out).run_int8(given)[name], expected)


@pytest.mark.compiler
def test_library_equals_the_interpreter(folder: Path, tmp_path: Path) -> None:
    compiled = qcc.compile(folder / FILE, calibration=inputs())
    library = compiled.build(shutil.copytree(folder / "out", tmp_path / "copy"))
    given = compiled.quantize_input(inputs())
    expected, got = compiled.run_integer(given), library.run_int8(given)
    assert list(got) == list(expected) == [o.name for o in hostile_model().graph.output]
    for name, array in expected.items():
        np.testing.assert_array_equal(got[name], array)


def test_graphs_read_back(folder: Path) -> None:
    compilation = qcc.compile(folder / FILE, calibration=inputs()).compilation
    for name, graph in (("planned", compilation.planned), ("float", compilation.float_graph)):
        assert graph is not None
        assert graphs_equal(load_graph(folder / "out" / "graphs" / f"{name}.qir"), graph)


class _Tags(HTMLParser):
    """Which elements and event attributes a page has."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found |= {tag, *(name for name, _ in attrs if name.startswith("on"))}


def test_reports_show_names_as_text(folder: Path) -> None:
    report = json.loads((folder / "out" / "report.json").read_text(encoding="utf-8"))
    assert report["model"]["name"] == FILE
    assert [p["name"] for p in report["inputs"]] == list(NAMES[:2])
    page = (folder / "out" / "report.html").read_text(encoding="utf-8")
    tags = _Tags()
    tags.feed(page)
    assert page.count("<script") == 1  # our own, which sorts tables
    assert not tags.found & {"img", "b", "iframe", "onerror", "onload", "onclick"}
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "{{ 7 * 7 }}" in page


@pytest.mark.parametrize(
    "name", ["../../escape", "/abs", "a\nb", '"; system("x")', "", "CON.txt", "*/", "n" * 9999]
)
def test_name_option_is_sanitized(tmp_path: Path, name: str) -> None:
    onnx.save(convolution(), tmp_path / "m.onnx")
    np.savez(tmp_path / "c.npz", **samples(convolution()))
    out = tmp_path / "out"
    arguments = ["--calib", str(tmp_path / "c.npz"), "--name", name, "--no-build", "-o", str(out)]
    result = CliRunner().invoke(main, ["compile", str(tmp_path / "m.onnx"), *arguments])
    assert result.exit_code == 0, result.stderr
    (source,) = (p.name.removesuffix("_weights.c") for p in out.glob("*_weights.c"))
    assert source.isidentifier()
    assert source.isascii()
    assert len(source) <= 64
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c.npz", "m.onnx", "out"]


@pytest.mark.compiler
@pytest.mark.parametrize("name", ["report", "s8_conv2d_scalar", "stdint", "step", "main"])
def test_name_of_another_file_does_not_replace_it(tmp_path: Path, name: str) -> None:
    compiled = qcc.compile(convolution(), calibration=samples(convolution()), name=name)
    library = compiled.build(compiled.save(tmp_path / "out"))
    assert library.symbol == ("t_main_run" if name == "main" else f"model_{name}_run")
    given = compiled.quantize_input(samples(convolution())["x"])
    np.testing.assert_array_equal(library.run_int8(given), compiled.run_integer(given))


def test_library_name_is_stable() -> None:
    for name in NAMES:
        once = library_name(name)
        assert library_name(once) == once


def test_absent_names() -> None:
    """An input without a name is legal, if odd; a result without a name is no result."""
    proto = small_model([], {"": (1, 3)}, outputs=("",))
    compiled = qcc.compile(proto, calibration=np.ones((2, 3)))
    assert compiled.graph.output_names == [""]
    with pytest.raises(qcc.QccError, match="graph output '' is not defined"):
        qcc.compile(small_model([helper.make_node("Relu", ["x"], [""])], outputs=("",)))
    assert node("Relu", "x").name == ""
