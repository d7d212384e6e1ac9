"""Models of a few nodes, and their C: built fast, run against the interpreter."""

import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from qcc import verify
from qcc.api import CompiledModel
from qcc.backends.c import run
from qcc.backends.c.emit import RUNTIME, emit
from qcc.backends.scalar import KERNELS
from qcc.ir import interpreter

Arrays = dict[str, NDArray[Any]]
Shape = tuple[int, ...]
WARNINGS = ("-Wall", "-Wextra", "-Wconversion", "-pedantic", "-Werror")
IMAGE = {"x": (1, 3, 6, 6)}


def node(op_type: str, inputs: str, outputs: str = "y", **attributes: Any) -> onnx.NodeProto:
    """Names separated by spaces; ``-`` is an absent operand."""
    return helper.make_node(
        op_type, ["" if i == "-" else i for i in inputs.split()], outputs.split(), **attributes
    )


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, Sequence[int | str | None]] = IMAGE,
    outputs: Sequence[str] = ("y",),
    **constants: Any,
) -> onnx.ModelProto:
    """A model whose constants are float32 unless they are integer arrays."""
    stored = {k: np.asarray(a) for k, a in constants.items()}
    graph = helper.make_graph(
        nodes,
        "bad",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs.items()],
        [onnx.ValueInfoProto(name=n) for n in outputs],
        [
            numpy_helper.from_array(a.astype(np.float32) if a.dtype.kind == "f" else a, k)
            for k, a in stored.items()
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def weights(*shape: int, scale: float = 1.0) -> NDArray[np.float64]:
    """Normal numbers, the same for the same shape."""
    return np.random.default_rng(sum(shape)).normal(size=shape) * scale


def convolution() -> onnx.ModelProto:
    """One convolution of the image, x to y."""
    return model([node("Conv", "x w", name="conv")], w=weights(4, 3, 3, 3))


def samples(proto: onnx.ModelProto, count: int = 4, scale: float = 1.0) -> Arrays:
    """Normal samples for every input; the leading 1 of a shape is left out."""
    rng = np.random.default_rng(count)
    arrays = {}
    for value in proto.graph.input:
        shape = tuple(d.dim_value for d in value.type.tensor_type.shape.dim)
        array = rng.normal(size=(count, *(shape[1:] if shape[:1] == (1,) else shape))) * scale
        arrays[value.name] = np.asarray(array, np.float32)
    return arrays


class Builder:
    """Compiles the C of models: -O0, linked with one library of all kernels, which is made at first use."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.count = 0

    @cached_property
    def kernels(self) -> Path:
        """The shared library of all kernels."""
        if shutil.which("gcc") is None:
            pytest.skip("no C compiler: gcc is not installed")
        path = self.folder / "libkernels.so"
        sources = sorted({str(k.source) for k in KERNELS})
        command = ["gcc", "-std=c99", "-O1", "-fPIC", "-shared", f"-I{RUNTIME}", *sources, "-o", str(path)]
        subprocess.run(command, check=True)
        return path

    def library(self, compiled: CompiledModel) -> run.Library:
        """The C of ``compiled``, loaded; its arena is full of garbage."""
        self.count += 1
        program = compiled.program
        folder = emit(program, self.folder / str(self.count) / program.name)
        path = folder / "model.so"
        sources = [str(folder / f"{program.name}{suffix}.c") for suffix in ("", "_weights")]
        command = ["gcc", "-std=c99", "-O0", "-fPIC", "-shared", *WARNINGS, *sources, "-o", str(path)]
        subprocess.run([*command, str(self.kernels), f"-Wl,-rpath,{self.kernels.parent}"], check=True)
        library = run.Library(path, json.loads((folder / f"{program.name}.json").read_text()))
        library._arena[:] = 0xA5
        shutil.rmtree(folder)
        return library

    def check(self, compiled: CompiledModel, inputs: Arrays) -> Arrays:
        """Assert that the C equals the interpreter, byte for byte, on ``inputs`` and on integers of all sizes.

        Returns the outputs for ``inputs``, as float32.
        """
        library, graph = self.library(compiled), compiled.program.graph
        given = verify.quantize_inputs(graph, inputs)
        expected = interpreter.run(graph, given)
        assert_equal(library.run(given), expected)
        if all(v.type.dtype.is_integer for v in graph.inputs):
            rng = np.random.default_rng(0)
            extreme = {n: rng.integers(-128, 128, a.shape).astype(a.dtype) for n, a in given.items()}
            assert_equal(library.run(extreme), interpreter.run(graph, extreme))
        return verify.dequantize_outputs(graph, expected)


def assert_equal(got: Arrays, expected: Arrays) -> None:
    """Same integers; floats, from nodes without integer form, up to rounding."""
    assert list(got) == list(expected)
    for name, array in expected.items():
        assert got[name].dtype == array.dtype
        found = got[name].reshape(array.shape)
        if array.dtype == np.float32:
            np.testing.assert_allclose(
                found, array, rtol=1e-5, atol=1e-5 * np.nanmax(np.abs(array), initial=0.0)
            )
        else:
            np.testing.assert_array_equal(found, array, err_msg=name)
