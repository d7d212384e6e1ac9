"""The operator tests of the onnx package, each in the forms in which qcc may meet it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, numpy_helper, version_converter
from onnx.backend.test.case.test_case import TestCase
from onnx.backend.test.loader import load_model_tests

Array = NDArray[Any]
OLDEST_OPSET = 7  # that qcc reads

# Tests whose expectation qcc does not meet on purpose: it follows onnxruntime.
DIFFERENT = {
    # a length of 4 * 0.6 = 2.4: the suite aligns corners with 2.4, onnxruntime with the 2 elements there are
    "test_resize_downsample_scales_linear_align_corners",
}


@dataclass(frozen=True)
class SuiteTest:
    """A model with one set of inputs by name, and the outputs the suite expects of it in order."""

    name: str
    model: ModelProto
    inputs: dict[str, Array]
    outputs: tuple[Array, ...]
    rtol: float
    atol: float

    @property
    def op_type(self) -> str:
        """The operator under test; the tests of expanded functions and of layers hold several."""
        nodes = self.model.graph.node
        return str(nodes[0].op_type) if len(nodes) == 1 else "(several)"

    def forms(self) -> Iterator[SuiteTest]:
        """As it is; with all tensors constant that are not float32; with all but the first float32 tensor constant.

        Real models hold shapes, axes and weights as constants. Of several outputs the first one alone is tried last
        (the others are statistics, masks or indices). A form without run-time input would test nothing. Inputs and outputs of
        8 bits are codes of a quantized model, and reals in the graph: tests of such models have them.
        """
        floats = [n for n, a in self.inputs.items() if a.dtype == np.float32]
        if any(a.dtype in (np.int8, np.uint8) for a in self.outputs):
            return
        codes = any(a.dtype in (np.int8, np.uint8) for a in self.inputs.values())
        everything = [] if codes else list(self.inputs)
        free = [f for f in (everything, floats, floats[:1]) if f]
        for names in (f for i, f in enumerate(free) if f not in free[:i]):
            yield self.with_constants(set(self.inputs) - set(names))
        if floats and len(self.outputs) > 1:
            yield self.with_constants(set(self.inputs) - set(floats[:1])).with_first_output()

    def with_constants(self, names: set[str]) -> SuiteTest:
        """The same test with these inputs as initializers."""
        model = ModelProto()
        model.CopyFrom(self.model)
        graph = model.graph
        kept = [v for v in graph.input if v.name not in names]
        del graph.input[:]
        graph.input.extend(kept)
        graph.initializer.extend(numpy_helper.from_array(a, n) for n, a in self.inputs.items() if n in names)
        return replace(self, model=model, inputs={n: a for n, a in self.inputs.items() if n not in names})

    def with_first_output(self) -> SuiteTest:
        """The same test of a model that has but the first output."""
        model = ModelProto()
        model.CopyFrom(self.model)
        del model.graph.output[1:]
        return replace(self, model=model, outputs=self.outputs[:1])

    def difference(self, outputs: Sequence[Array]) -> str | None:
        """What is wrong with ``outputs``, or None."""
        for wanted, got, value in zip(self.outputs, outputs, self.model.graph.output, strict=True):
            if wanted.shape != got.shape:
                return f"output {value.name} has shape {got.shape}, expected {wanted.shape}"
            if not np.allclose(got, wanted, self.rtol, self.atol, equal_nan=True):
                with np.errstate(all="ignore"):
                    off = np.nanmax(np.abs(got.astype(np.float64) - wanted))
                return f"output {value.name} is off by {off}"
        return None


@cache
def node_tests() -> tuple[SuiteTest, ...]:
    """The tests of single operators whose data are plain tensors (no sequences, optionals or strings)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some tests overflow on purpose
        cases = load_model_tests(kind="node")
    tests = []
    for case in cases:
        ((inputs, outputs),) = case.data_sets
        tests += _test(case, case.model, inputs, outputs)
    return tuple(tests)


@cache
def layer_tests() -> tuple[SuiteTest, ...]:
    """The stored models of small layers, most of them from PyTorch; those of older opsets are converted."""
    tests = []
    for kind in ("simple", "pytorch-operator", "pytorch-converted"):
        for case in sorted(load_model_tests(kind=kind), key=lambda c: c.name):
            folder = Path(case.model_dir)
            model = onnx.load(folder / "model.onnx")
            if model.opset_import[0].version < OLDEST_OPSET:
                model = version_converter.convert_version(model, OLDEST_OPSET)
            inputs, outputs = (_stored(folder / "test_data_set_0", what) for what in ("input", "output"))
            tests += _test(case, model, inputs, outputs)
    return tuple(tests)


def _stored(folder: Path, what: str) -> list[Array]:
    files = sorted(folder.glob(f"{what}_*.pb"), key=lambda f: int(f.stem.split("_")[1]))
    return [numpy_helper.to_array(TensorProto.FromString(f.read_bytes())) for f in files]


def _test(
    case: TestCase, model: ModelProto, inputs: Sequence[Any], outputs: Sequence[Any]
) -> list[SuiteTest]:
    arrays = [*inputs, *outputs]
    if not all(isinstance(a, np.ndarray | np.generic) and a.dtype.kind != "O" for a in arrays):
        return []
    names = [v.name for v in model.graph.input]
    by_name = {n: np.asarray(a) for n, a in zip(names, inputs, strict=False)}
    return [SuiteTest(case.name, model, by_name, tuple(map(np.asarray, outputs)), case.rtol, case.atol)]
