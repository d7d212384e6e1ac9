"""Whole models survive the textual form, on disk."""

from pathlib import Path
from types import ModuleType

import pytest

from qcc.ir.compare import first_difference
from qcc.ir.parser import load_graph
from qcc.ir.printer import print_graph, save_graph
from qcc.ir.verifier import verify
from qcc.onnx_importer import import_model


@pytest.mark.parametrize("name", ["kws", "ic", "vww", "mobilenetv2"])
def test_model_survives(zoo: ModuleType, tmp_path: Path, name: str) -> None:
    graph = import_model(zoo.load(name).model)
    verify(graph)
    save_graph(graph, tmp_path / "m.qir", locations=True)
    parsed = load_graph(tmp_path / "m.qir")
    assert first_difference(graph, parsed, locations=True) is None
    assert print_graph(parsed, locations=True)[0] == (tmp_path / "m.qir").read_text(encoding="utf-8")
