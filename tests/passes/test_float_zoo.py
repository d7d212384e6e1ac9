"""The float pipeline on real models: transposes that are left, and the same numbers."""

import numpy as np
import pytest

from qcc.ir import interpreter
from qcc.onnx_importer import import_model
from qcc.passes.manager import PassManager

# Models of channels-last frameworks lose every transpose, the others keep the one at the image input.
TRANSPOSES = {
    "ad": 0,
    "kws": 0,
    "ic": 0,
    "vww": 0,
    "resnet20": 1,
    "squeezenet": 1,
    "mobilenetv2": 1,
    "ultraface_rfb320": 1,
}


LARGE = ("squeezenet", "mobilenetv2")  # seconds in the interpreter


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] if n in LARGE else []) for n in TRANSPOSES]
)
def test_float_pipeline_on_a_real_model(zoo, name):
    model = zoo.load(name)
    graph = import_model(model.model)
    x = {graph.inputs[0].name: model.x[:1]}
    before = interpreter.run(graph, x)
    graph = PassManager("float").run(graph)
    after = interpreter.run(graph, x)

    for key, old in before.items():
        np.testing.assert_allclose(after[key], old, rtol=0, atol=1e-5 * np.abs(old).max())
    left = [n for n in graph.nodes if n.op.name == "transpose"]
    assert len(left) == TRANSPOSES[name]
    assert all(n.input(0) is graph.inputs[0] for n in left)
    assert "batch_norm" not in [n.op.name for n in graph.nodes]

    again = PassManager("float")
    again.run(graph)
    assert [r.name for r in again.records if r.changed] == []
