"""Verification: the compiled library against the integer interpreter, byte for byte; integers against float."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcc import metrics
from qcc.backends.c.run import Compiled
from qcc.float_runtime import FloatRuntime
from qcc.ir import fixedpoint, interpreter
from qcc.ir.errors import VerifyError
from qcc.ir.graph import Graph

Arrays = Mapping[str, NDArray[Any]]
BATCH = 64


@dataclass
class Accuracy:
    """Integers against float, for one output: ``top1_agreement`` and ``label_accuracy`` are shares of samples.

    ``top1_agreement``: None for an output of one element; ``label_accuracy``: (integer, float), None without labels.
    """

    output: str
    sqnr_db: float
    cosine: float
    top1_agreement: float | None
    label_accuracy: tuple[float, float] | None = None


@dataclass
class Verification:
    """``samples`` run; ``equal``: of these, how many the library reproduced byte for byte (None: it was not run)."""

    samples: int = 0
    equal: int | None = None
    accuracy: list[Accuracy] = field(default_factory=list)
    first_difference: str = ""

    @property
    def exact(self) -> bool:
        """True if the library was run and every byte was equal."""
        return self.equal is not None and self.equal == self.samples


def quantize_inputs(graph: Graph, inputs: Arrays) -> dict[str, NDArray[Any]]:
    """Float inputs in the types of ``graph``: quantized where it takes integers."""
    result = {}
    for value in graph.inputs:
        array = np.asarray(inputs[value.name], np.float32)
        qparams = value.type.qparams
        quantized = value.type.dtype.is_integer and qparams is not None
        result[value.name] = fixedpoint.quantize(array, qparams) if quantized and qparams else array
    return result


def dequantize_outputs(graph: Graph, outputs: Arrays) -> dict[str, NDArray[Any]]:
    """Outputs of ``graph`` as float32."""
    result = {}
    for value, name in zip(graph.outputs, graph.output_names, strict=True):
        qparams = value.type.qparams
        array = outputs[name]
        result[name] = (
            fixedpoint.dequantize(array, qparams) if array.dtype != np.float32 and qparams else np.asarray(array)
        )
    return result


def verify(
    program: Graph,
    float_graph: Graph,
    inputs: Arrays,
    labels: NDArray[Any] | None = None,
    library: Compiled | None = None,
    float_boundary: bool = False,
) -> Verification:
    """Run ``inputs`` (float32, N samples) through interpreter, library and float.

    ``program``: the planned graph (or the float one: then "equal" means within float tolerance);
    ``float_boundary``: the library takes and gives floats.
    """
    result = Verification(equal=0 if library is not None else None)
    integers: dict[str, list[NDArray[Any]]] = {n: [] for n in program.output_names}
    for batch in _batches(inputs):
        quantized = quantize_inputs(program, batch)
        expected = interpreter.run(program, quantized)
        count = len(next(iter(batch.values())))
        result.samples += count
        for name, array in dequantize_outputs(program, expected).items():
            integers[name].append(array)
        if library is not None:
            got = library.run(dict(batch) if float_boundary else quantized)
            wanted = dequantize_outputs(program, expected) if float_boundary else expected
            same = _same_samples(program, wanted, got)
            assert result.equal is not None
            result.equal += int(same.sum())
            if not same.all() and not result.first_difference:
                result.first_difference = _describe(program, wanted, got, int(np.argmin(same)))
    reference = FloatRuntime(float_graph).run(dict(inputs))
    for name in program.output_names:
        result.accuracy.append(_accuracy(name, reference[name], np.concatenate(integers[name]), labels))
    return result


def require_exact(verification: Verification, what: str) -> None:
    """Raise VerifyError unless every sample was equal."""
    if not verification.exact:
        raise VerifyError(
            f"{what}: {verification.samples - (verification.equal or 0)} of {verification.samples} samples differ "
            f"from the interpreter; {verification.first_difference}",
            hint="this is a bug of qcc or of the compiler: please report it with the model",
        )


def _batches(inputs: Arrays) -> Iterator[dict[str, NDArray[Any]]]:
    count = len(next(iter(inputs.values())))
    for start in range(0, count, BATCH):
        yield {name: array[start : start + BATCH] for name, array in inputs.items()}


def _same_samples(program: Graph, expected: Arrays, got: Arrays) -> NDArray[np.bool_]:
    same: NDArray[np.bool_] | None = None
    for name in program.output_names:
        a, b = (np.asarray(x[name]).reshape(len(x[name]), -1) for x in (expected, got))
        if program.stage == "float":
            tolerance = 1e-4 * max(float(np.abs(a).max(initial=0.0)), 1e-30)
            equal = (np.abs(a - b) <= tolerance).all(axis=1)
        else:
            equal = (a == b).all(axis=1)
        same = equal if same is None else same & equal
    assert same is not None
    return np.asarray(same)


def _describe(program: Graph, expected: Arrays, got: Arrays, sample: int) -> str:
    for name in program.output_names:
        a, b = (np.asarray(x[name])[sample].ravel() for x in (expected, got))
        differing = np.flatnonzero(a != b)
        if differing.size:
            i = int(differing[0])
            return (
                f"first: sample {sample}, output {name}, element {i}: expected {a[i]}, got {b[i]} "
                f"({differing.size} of {a.size} elements differ)"
            )
    return ""


def _accuracy(
    name: str, reference: NDArray[Any], result: NDArray[Any], labels: NDArray[Any] | None
) -> Accuracy:
    classes = reference[0].size > 1
    found, wanted = metrics.top1(result), metrics.top1(reference)
    accuracy = Accuracy(
        name,
        metrics.sqnr_db(reference, result),
        metrics.cosine(reference, result),
        float((found == wanted).mean()) if classes else None,
    )
    if labels is not None and classes and len(labels) == len(reference):
        truth = np.asarray(labels).astype(np.int64).ravel()
        accuracy.label_accuracy = float((found == truth).mean()), float((wanted == truth).mean())
    return accuracy
