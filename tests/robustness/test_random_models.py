"""Random small networks, end to end: onnxruntime = float graph, integers close to it, C = integers, plan accepted."""

from random import Random

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from random_models import random_model
from robust_build import Arrays, Builder, assert_equal

import qcc
from qcc import checker, metrics, verify
from qcc.float_runtime import FloatRuntime, run_onnx
from qcc.ir import interpreter
from qcc.ir.errors import QccError
from qcc.passes.base import PassContext
from qcc.passes.manager import run_pipeline

pytestmark = [
    pytest.mark.compiler,
    pytest.mark.filterwarnings("error"),
    pytest.mark.filterwarnings("ignore:.*:hypothesis.errors.NonInteractiveExampleWarning"),
]

COUNT = 6  # samples
LOW_DB = 10.0
ONLY_RELEVANT = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]
ANNOTATE = "fuse-epilogues,calibrate{observer=min-max},choose-qparams"


def random_samples(proto: onnx.ModelProto, seed: int) -> Arrays:
    rng = np.random.default_rng(seed)
    arrays = {}
    for value in proto.graph.input:
        batch, *shape = (d.dim_value for d in value.type.tensor_type.shape.dim)
        size = (COUNT, *shape) if batch == 1 else (COUNT, batch, *shape)
        arrays[value.name] = rng.normal(size=size).astype(np.float32)
    return arrays


def by_onnxruntime(proto: onnx.ModelProto, inputs: Arrays) -> Arrays:
    """Every output as [COUNT, elements]: one sample at a time, as the model may not stack them."""
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in proto.graph.input}
    each = [run_onnx(proto, {n: a[i].reshape(shapes[n]) for n, a in inputs.items()}) for i in range(COUNT)]
    return {n: np.stack([e[n].reshape(-1) for e in each]) for n in each[0]}


def check_model(builder: Builder, proto: onnx.ModelProto, inputs: Arrays, io: str) -> None:
    """All that must hold of one model."""
    try:
        expected = by_onnxruntime(proto, inputs)
    except QccError as error:  # onnxruntime refuses what ONNX allows, such as pads as large as a kernel
        if "pool_attributes" in str(error):
            return
        raise
    compiled = qcc.compile(proto, calibration=inputs, observer="observer=min-max", io=io)
    planned, float_graph = compiled.compilation.planned, compiled.compilation.float_graph
    assert planned is not None
    checker.check_plan(planned)
    assert_close(interpreter.run(float_graph, inputs), expected)
    result = builder.check(compiled, inputs)
    assert_equal(
        verify.dequantize_outputs(planned, interpreter.run(planned, verify.quantize_inputs(planned, inputs))),
        result,
    )
    # what no 8 bits can do, rounding of every tensor in float cannot do either
    annotated = run_pipeline(float_graph.clone(), ANNOTATE, PassContext({"calibration": [inputs]}))
    rounded = FloatRuntime(annotated, fake_quant=True).run(inputs)
    for name, reference in expected.items():
        found = metrics.sqnr_db(reference, result[name])
        possible = metrics.sqnr_db(reference, rounded[name])
        assert found > min(LOW_DB, possible - 6), f"{name}: {found:.1f} dB, rounding alone {possible:.1f} dB"


def assert_close(got: Arrays, expected: Arrays) -> None:
    for name, array in expected.items():
        tolerance = 1e-4 * max(1e-6, float(np.abs(array).max()))
        np.testing.assert_allclose(got[name].reshape(array.shape), array, rtol=1e-3, atol=tolerance)


@settings(max_examples=20, deadline=None, suppress_health_check=ONLY_RELEVANT, derandomize=True)
@given(random=st.randoms(use_true_random=False), io=st.sampled_from(["int8", "int8", "float"]))
def test_random_model(builder: Builder, random: Random, io: str) -> None:
    proto = random_model(random)
    check_model(builder, proto, random_samples(proto, 0), io)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(300))
def test_random_model_of_a_seed(builder: Builder, seed: int) -> None:
    proto = random_model(Random(seed))
    check_model(builder, proto, random_samples(proto, seed), "float" if seed % 4 == 1 else "int8")
