"""report.json and report.html: the facts, the drawings, and nothing from the model that a browser would run."""

import json
import shutil
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import qcc
from qcc.report import render_html

VOID = {"meta", "link", "br", "line", "rect"}  # line and rect close themselves
EVIL = '<script>alert("x")</script>'


class Page(HTMLParser):
    """Cells of tables by id, text of cards and titles, tags; fails where tags do not match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.outside: list[str] = []  # addresses that would need a network
        self.tables: dict[str, list[list[str]]] = {}
        self.values: list[str] = []
        self.tooltips: list[str] = []
        self.table = self.kind = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append(tag)
        self.outside += [v for k, v in attrs if k in ("src", "href") and v]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.table = found.get("id") or ""
            self.tables[self.table] = []
        elif tag == "tr":
            self.tables[self.table].append([])
        elif tag == "td":
            self.tables[self.table][-1].append("")
        self.kind = "value" if (found.get("class") or "").startswith("value") else tag

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag
        self.kind = ""

    def handle_data(self, data: str) -> None:
        if "td" in self.open:
            self.tables[self.table][-1][-1] += data
        elif self.kind == "value":
            self.values.append(data)
        elif self.kind == "title" and "svg" in self.open:
            self.tooltips.append(data)


def test_page_shows_what_the_report_says(compiled) -> None:
    folder: Path = compiled[0]
    report = json.loads((folder / "report.json").read_text())
    text = (folder / "report.html").read_text()
    page = Page(text)
    assert page.outside == []
    assert page.tags.count("script") == 1  # our own, which sorts tables
    assert "http" not in text
    assert "prefers-color-scheme: dark" in text

    layers = page.tables["layers"][1:]
    assert [row[1] for row in layers] == [layer["label"] for layer in report["layers"]]
    assert layers[2][2:] == [
        "conv2d + add + requantize",
        "qcc_s8_conv2d_scalar",
        "s8[1, 4, 4, 32]",
        "147,456",
        "9,728",
        "f32",
        "22",
    ]
    for value in ("230,720", "17.1 KiB", "1,536 B", "7 integer", "112 / 112", "22 bits", "16 / 16"):
        assert value in page.values
    (accuracy,) = page.tables["accuracy"][1:]
    measured = report["accuracy"]["outputs"]["probabilities"]
    assert accuracy[:2] == ["probabilities", f"{measured['sqnr_db']:.2f} dB"]
    assert [row[0] for row in page.tables["ranges"][1:]] == [r["tensor"] for r in report["ranges"]]
    assert len(page.tables["passes"]) - 1 == len(report["passes"])
    assert "3. relu3: 147,456 MACs" in page.tooltips
    assert "relu1: bytes 0 to 1,023, steps 1 to 2" in page.tooltips


def test_page_names_the_recipe_and_every_correction(model: Path, calib: Path) -> None:
    report = qcc.compile(model, calibration=calib, recipe="auto").report
    text = render_html(report)
    page = Page(text)
    assert ", recipe auto</p>" in text
    rows = page.tables["corrections"][1:]
    assert [row[0] for row in rows if row[0] != "prefer-extremes"] == report["options"]["corrections"]
    for row, found in zip(rows, report["corrections"], strict=True):
        why = f": {found['reason']}" if found["reason"] else ""
        assert row[-1] == (f"yes{why}" if found["applied"] else f"no{why or ': it would not help'}")
    measured = next(c for c in report["corrections"] if c["pass"] == "prefer-extremes")
    assert measured["applied"] == (measured["after_db"] > measured["before_db"])


def test_ranges_are_those_that_were_kept(model: Path, calib: Path) -> None:
    """Those of the reader's choice, or the extremes: the table says what scales were chosen for."""
    made = qcc.compile(model, calibration=calib, corrections=False)
    report = made.report
    kept = {t["tensor"]: t["range"] for t in report["tensors"]}
    assert {r["tensor"] for r in report["ranges"]} >= {"relu1", "relu2", "relu3"}
    for entry in report["ranges"]:
        if entry["tensor"] in kept:
            assert [entry["low"], entry["high"]] == pytest.approx(kept[entry["tensor"]], rel=1e-5)


def test_the_head_names_the_types_at_the_boundary(model: Path, calib: Path) -> None:
    wide = qcc.compile(model, calibration=calib, corrections=False, int16=("image",))
    assert ", s16 and s8 at the boundary" in render_html(wide.report)
    real = qcc.compile(model, calibration=calib, corrections=False, io="float")
    assert ", float at the boundary" in render_html(real.report)


def test_long_names_are_shown_by_what_tells_them_apart(zoo: ModuleType) -> None:
    kws = zoo.load("kws")
    report = qcc.compile(kws.model, calibration=kws.calib[:4], corrections=False).report
    labels = {entry["name"]: entry["label"] for entry in (*report["layers"], *report["memory"])}
    folders = "StatefulPartitionedCall/StatefulPartitionedCall/functional_1"
    assert labels[f"{folders}/activation_1/Relu:0"] == "activation_1_Relu"
    assert [name for name, label in labels.items() if len(label) > 30] == []


def test_memory_map_has_no_overlap_and_fills_the_arena(compiled) -> None:
    report = json.loads((compiled[0] / "report.json").read_text())
    blocks = report["memory"]
    assert max(b["offset"] + b["bytes"] for b in blocks) <= report["arena_bytes"]
    assert {b["name"] for b in blocks} >= {
        "(inputs)",
        "(outputs)",
        "relu1",
        "relu2",
        "relu3",
        "pool",
        "logits.acc",
    }
    for step in range(len(report["layers"])):
        # results computed in place (a residual over its skip) share bytes with an operand in their first step only
        alive = [b for b in blocks if b["first"] <= step <= b["last"]]
        for i, a in enumerate(alive):
            for b in alive[i + 1 :]:
                apart = a["offset"] + a["bytes"] <= b["offset"] or b["offset"] + b["bytes"] <= a["offset"]
                assert apart or step in (a["first"], b["first"])


@pytest.fixture(scope="module")
def evil_report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """A model whose every name is markup; LRN runs in float, so that the placement table names it."""
    weight = numpy_helper.from_array(np.ones((2, 1, 3, 3), np.float32), f"w{EVIL}")
    nodes = [
        helper.make_node("Conv", [f"x{EVIL}", f"w{EVIL}"], [f"c{EVIL}"], name=f"n{EVIL}"),
        helper.make_node("LRN", [f"c{EVIL}"], [f"y{EVIL}"], size=3),
    ]
    ports = ((f"x{EVIL}", [1, 1, 5, 5]), (f"y{EVIL}", [1, 2, 3, 3]))
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in ports)
    graph = helper.make_graph(nodes, f"g{EVIL}", [x], [y], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    rng = np.random.default_rng(0)
    compiled = qcc.compile(model, calibration=rng.normal(size=(8, 1, 5, 5)), name=f"lib{EVIL}")
    return compiled.report


def test_names_from_the_model_are_escaped(evil_report: dict[str, object]) -> None:
    text = render_html(evil_report)
    page = Page(text)
    assert text.count("<script") == 1  # our own
    assert EVIL not in text
    assert "&lt;script&gt;" in text
    assert page.tables["placement"][1] == [f"y{EVIL}", "lrn has no integer form here"]
    assert any(EVIL in tip for tip in page.tooltips)


def test_page_of_float32_and_of_synthetic_data(model: Path) -> None:
    with pytest.warns(UserWarning, match="no calibration data"):
        noisy = qcc.compile(model)
    text = render_html(noisy.report)
    assert Page(text).tables["layers"][1][1] == "relu1"
    assert "16 synthetic samples, which say little" in text
    assert 'class="warning">no calibration data' in text
    plain = qcc.compile(model, precision="float32")
    page = Page(render_html(plain.report))
    assert "accuracy" not in page.tables
    assert "0 integer" in page.values


def test_report_is_strict_json(compiled) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    json.loads((compiled[0] / "report.json").read_text(), parse_constant=refuse)


def test_report_command_writes_the_same_page_again(qcc, compiled, tmp_path: Path) -> None:
    out = Path(shutil.copytree(compiled[0], tmp_path / "out"))
    page = out / "report.html"
    page.unlink()
    result = qcc("report", out)
    assert result.exit_code == 0
    assert page.read_bytes() == (compiled[0] / "report.html").read_bytes()
    assert "16 of 16 samples equal to the interpreter" in result.stdout
    facts = [line for line in compiled[1].stdout.splitlines() if line.startswith(("model", "work", "proved"))]
    assert all(line.strip() in result.stdout for line in facts)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "has no report.json\nhint: name the folder that was given to qcc compile -o"),
        ("{", "report.json is damaged: "),
        ("[]", "report.json was written by None, not by qcc "),
        ('{"generator": "qcc 0.0.1"}', "report.json was written by qcc 0.0.1, not by qcc "),
    ],
)
def test_report_command_needs_a_report_of_this_version(qcc, tmp_path: Path, text, message: str) -> None:
    if text is not None:
        (tmp_path / "report.json").write_text(text)
    result = qcc("report", tmp_path)
    assert (result.exit_code, result.stdout) == (1, "")
    assert message in result.stderr
    assert not (tmp_path / "report.html").exists()
