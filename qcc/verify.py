"""Verification: the compiled library against the integer interpreter, byte for byte; integers against float."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcc import metrics
from qcc.backends.boundary import with_boundary
from qcc.backends.c.run import Compiled, load_traced, read_metadata
from qcc.backends.targets import find_target
from qcc.float_runtime import FloatRuntime
from qcc.ir import fixedpoint, interpreter
from qcc.ir.errors import VerifyError
from qcc.ir.graph import Graph
from qcc.ir.ops.activation import Clamp
from qcc.ir.ops.elementwise import Add, Mul, Sub
from qcc.ir.ops.pool import MaxPool2d
from qcc.ir.ops.quant import Dequantize
from qcc.ir.ops.rearrange import Concat
from qcc.ir.ops.shape import Reshape, Transpose
from qcc.ir.ops.stored import DynamicDense
from qcc.ir.types import DType

Arrays = Mapping[str, NDArray[Any]]
BATCH = 64
SUM_TOLERANCE = 1e-4  # of the largest element: sums in float, in another order
_ONE_ROUNDING = (Add, Clamp, Concat, DynamicDense, MaxPool2d, Mul, Reshape, Sub, Transpose)


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
            fixedpoint.dequantize(array, qparams)
            if array.dtype != np.float32 and qparams
            else np.asarray(array)
        )
    return result


@dataclass(frozen=True)
class Results:
    """Outputs for the same samples, by name: ``program``, by the interpreter, in its own types; ``reference``: float."""

    program: Arrays
    reference: Arrays


def results_of(program: Graph, float_graph: Graph, inputs: Arrays) -> Results:
    """Run ``inputs`` (float32, N samples) through interpreter and float model."""
    return Results(program_results(program, inputs), FloatRuntime(float_graph).run(dict(inputs)))


def program_results(program: Graph, inputs: Arrays) -> dict[str, NDArray[Any]]:
    """Outputs of ``program`` for ``inputs`` (float32, N samples), by the interpreter, in its own types."""
    parts = [interpreter.run(program, quantize_inputs(program, batch)) for batch in _batches(inputs)]
    return {name: np.concatenate([part[name] for part in parts]) for name in program.output_names}


def verify(
    program: Graph,
    float_graph: Graph,
    inputs: Arrays,
    labels: NDArray[Any] | None = None,
    library: Compiled | None = None,
    float_boundary: bool = False,
    known: Results | None = None,
) -> Verification:
    """Run ``inputs`` (float32, N samples) through interpreter, library and float.

    ``program``: the planned graph (or the float one: then "equal" means within float tolerance);
    ``float_boundary``: the library takes and gives floats; ``known``: ``results_of`` these, where they are at hand.
    """
    results = known or results_of(program, float_graph, inputs)
    real = dequantize_outputs(program, results.program)
    result = Verification(equal=0 if library is not None else None)
    for batch in _batches(inputs):
        part = slice(result.samples, result.samples + len(next(iter(batch.values()))))
        result.samples = part.stop
        if library is not None:
            got = library.run(dict(batch) if float_boundary else quantize_inputs(program, batch))
            wanted = {n: a[part] for n, a in (real if float_boundary else results.program).items()}
            same = _same_samples(program, wanted, got)
            if not same.all() and computes_in_float(program) and library.folder is not None:
                differing = {n: a[~same] for n, a in batch.items()}
                same[~same] = _same_steps(library.folder, program, differing)
            assert result.equal is not None
            result.equal += int(same.sum())
            if not same.all() and not result.first_difference:
                result.first_difference = _describe(program, wanted, got, int(np.argmin(same)))
    for name in program.output_names:
        result.accuracy.append(_accuracy(name, results.reference[name], real[name], labels))
    return result


def tolerance_of(program: Graph) -> float:
    """What floats of a library may be off from the interpreter's, as a share of the largest element; 0 for integers.

    Sums in float run in another order: 1e-4. Where such a sum is quantized at run time, a number that it leaves on the
    border of two codes may take the other one, a step of 1/255 of the range: 1e-2 for each layer that does so, up to 0.1. A
    graph without such sums, of dynamic products and ops of one rounding, yields equal floats: 0.
    """
    if program.stage != "float":
        return 0.0
    inexact: set[int] = set()
    steps = 0
    for node in program.nodes:
        depends = any(id(v) in inexact for v in node.inputs)
        steps += depends and isinstance(node.op, DynamicDense)
        if depends or not isinstance(node.op, _ONE_ROUNDING):
            inexact.add(id(node.output))
    return 0.0 if not inexact else min(0.1, 1e-2 * steps) or SUM_TOLERANCE


def computes_in_float(program: Graph) -> bool:
    """Whether some nodes of an integer program have float results.

    A compiler may add floats in another order, and the quantization behind a sum then rounds to the next code, which
    changes all that follows. So such a program is compared step by step: each is given what the library gave it.
    """
    floats = (n for n in program.nodes if n.output.type.dtype is DType.F32)
    return program.stage != "float" and any(not isinstance(n.op, Dequantize) for n in floats)


def meaning_of_equal(program: Graph) -> str:
    """What ``Verification.equal`` counts, in words."""
    if tolerance_of(program):
        return "within float tolerance of"
    return "in every step, floats within tolerance, equal to" if computes_in_float(program) else "equal to"


def require_exact(verification: Verification, what: str) -> None:
    """Raise VerifyError unless every sample was equal."""
    if not verification.exact:
        raise VerifyError(
            f"{what}: {verification.samples - (verification.equal or 0)} of {verification.samples} samples differ "
            f"from the interpreter; {verification.first_difference}",
            hint="this is a bug of qcc or of the compiler: please report it with the model",
        )


def first_diverging_step(folder: Path, program: Graph, inputs: Arrays) -> str:
    """The first step of a library that leaves other bytes than the interpreter: which, and where; "" if none does.

    ``folder``: the library as emitted, which is built once more, with a trace, for its target; ``program``: its
    planned graph; ``inputs``: float32, N samples. Raises TargetError where such programs do not run here.
    """
    traced = load_traced(folder, find_target(read_metadata(folder)["target"]))
    for index, sample in enumerate(_batches(inputs, 1)):
        for number, layer, expected, got in _replayed(traced, program, sample):
            allowed = SUM_TOLERANCE * _largest(expected) if got.dtype == np.float32 else 0.0
            difference = _difference(expected, got, allowed)
            if difference:
                return (
                    f"sample {index}, step {number} of {len(traced.meta['layers'])}, %{layer['name']} = "
                    f"{layer['pattern']} by {layer['kernel']}: {difference}"
                )
    return ""


def _same_steps(folder: Path, program: Graph, inputs: Arrays) -> NDArray[np.bool_]:
    """bool[N]: whether all steps of a library did what they should with what they were given."""
    traced = load_traced(folder, find_target(read_metadata(folder)["target"]))
    same = np.ones(len(next(iter(inputs.values()))), np.bool_)
    for _, _, expected, got in _replayed(traced, program, inputs):
        rows = (expected.reshape(len(same), -1), got.reshape(len(same), -1))
        for index, (wanted, found) in enumerate(zip(*rows, strict=True)):
            allowed = SUM_TOLERANCE * _largest(wanted) if got.dtype == np.float32 else 0.0
            same[index] &= _equal(wanted, found, allowed).all()
    return same


def _replayed(
    traced: Compiled, program: Graph, inputs: Arrays
) -> Iterator[tuple[int, dict[str, Any], NDArray[Any], NDArray[Any]]]:
    """(number, record, expected, got) of each step, in order; expected is computed from what the library had before."""
    boundary = traced.meta["options"]["io"]
    graph = with_boundary(program, boundary)
    given = dict(inputs) if boundary == "float" else quantize_inputs(graph, inputs)
    results = traced.run(given)
    layers = {layer["name"]: (number, layer) for number, layer in enumerate(traced.meta["layers"], 1)}
    execution = interpreter.Execution.start(graph, given)
    for node in graph.nodes:
        execution.step(node)
        name = node.output.name
        if name in results:  # others are never whole
            expected = execution.array(node.output)
            if expected.size != results[name].size:  # of constants alone: the same for all samples
                expected = np.broadcast_to(expected.reshape(1, -1), (len(results[name]), expected.size))
            got = results[name].reshape(expected.shape)
            yield *layers[name], expected, got
            execution.replace(node.output, got)
        execution.forget(node)


def _batches(inputs: Arrays, size: int = BATCH) -> Iterator[dict[str, NDArray[Any]]]:
    count = len(next(iter(inputs.values())))
    for start in range(0, count, size):
        yield {name: array[start : start + size] for name, array in inputs.items()}


def _same_samples(program: Graph, expected: Arrays, got: Arrays) -> NDArray[np.bool_]:
    same = np.ones(len(got[program.output_names[0]]), np.bool_)
    share = tolerance_of(program)
    for name in program.output_names:
        allowed = share * _largest(expected[name])
        same &= _equal(expected[name], got[name], allowed).reshape(len(same), -1).all(axis=1)
    return same


def _describe(program: Graph, expected: Arrays, got: Arrays, sample: int) -> str:
    for name in program.output_names:
        allowed = tolerance_of(program) * _largest(expected[name])
        difference = _difference(expected[name][sample], got[name][sample], allowed)
        if difference:
            return f"first: sample {sample}, output {name}, {difference}"
    return ""


def _difference(expected: NDArray[Any], got: NDArray[Any], allowed: float) -> str:
    """The first element that differs by more than ``allowed``, and how many do; "" if none."""
    a, b = np.ravel(expected), np.ravel(got)
    differing = np.flatnonzero(~_equal(a, b, allowed))
    if not differing.size:
        return ""
    i = int(differing[0])
    return f"element {i}: expected {a[i]}, got {b[i]} ({differing.size} of {a.size} elements differ)"


def _equal(expected: NDArray[Any], got: NDArray[Any], allowed: float) -> NDArray[np.bool_]:
    return np.asarray(np.abs(np.asarray(expected, np.float64) - got) <= allowed)  # false for NaN


def _largest(expected: NDArray[Any]) -> float:
    return max(float(np.abs(expected).max(initial=0.0)), 1e-30)


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
