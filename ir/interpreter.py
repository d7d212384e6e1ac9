"""The meaning of a graph: float, fake-quant or exact integers, over any number of samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from qcc.ir import fixedpoint
from qcc.ir.errors import VerifyError
from qcc.ir.graph import Graph, Node, Value
from qcc.ir.op import Signature
from qcc.ir.types import TensorType

Array = NDArray[Any]
Observer = Callable[[Value, Array], None]
Evaluate = Callable[[Node, list[Array | None]], Array]
_CHUNK_BYTES = 256 * 2**20  # of all results of a chunk: few are alive at a time, and large products run best


@dataclass
class Held:
    """An array and how its samples lie: one for all (``constant``), along axis 0, or on a new leading axis."""

    array: Array
    layout: Literal["constant", "axis0", "stacked"]

    def sample(self, index: int) -> Array:
        """That of one sample, as the op takes it."""
        if self.layout == "constant":
            return self.array
        return self.array[index : index + 1] if self.layout == "axis0" else self.array[index]


def run(
    graph: Graph,
    inputs: Mapping[str, Array],
    *,
    observe: Observer | None = None,
    fake_quant: bool = False,
) -> dict[str, Array]:
    """Run ``graph`` on N samples.

    ``inputs``: by name, each [N, *shape], or [N, *shape[1:]] when shape[0] is 1. Returns by output name in the
    same convention. ``observe`` sees every computed value. ``fake_quant`` rounds annotated float values.
    Raises VerifyError for a wrong name, shape or dtype, and where an integer leaves its type.
    """
    held, samples = _hold_inputs(graph, inputs)
    per_sample = sum(n.output.type.bytes for n in graph.nodes) or 1
    chunk = max(1, min(samples, _CHUNK_BYTES // per_sample))
    results: list[list[Array]] = [[] for _ in graph.outputs]
    for start in range(0, samples, chunk):
        count = min(chunk, samples - start)
        part = {k: Held(h.array[start : start + count], h.layout) for k, h in held.items()}
        for result, outputs in zip(results, _run_chunk(graph, part, count, observe, fake_quant), strict=True):
            result.append(outputs)
    return {n: np.concatenate(r) for n, r in zip(graph.output_names, results, strict=True)}


def _hold_inputs(graph: Graph, inputs: Mapping[str, Array]) -> tuple[dict[int, Held], int]:
    expected = {v.name for v in graph.inputs}
    if set(inputs) != expected:
        raise VerifyError(f"inputs must be {sorted(expected)}, got {sorted(inputs)}")
    held: dict[int, Held] = {}
    counts = set()
    for value in graph.inputs:
        array, shape = np.asarray(inputs[value.name]), value.type.shape
        if array.dtype != value.type.dtype.numpy:
            raise VerifyError(f"input {value.name} must be {value.type.dtype.numpy}, got {array.dtype}")
        if shape[:1] == (1,) and array.ndim == len(shape) and array.shape[1:] == shape[1:]:
            held[id(value)] = Held(array, "axis0")
        elif array.shape[1:] == shape:
            axis0 = shape[:1] == (1,)
            held[id(value)] = Held(array[:, 0] if axis0 else array, "axis0" if axis0 else "stacked")
        else:
            raise VerifyError(f"input {value.name} must have shape (N, {str(shape)[1:]}, got {array.shape}")
        counts.add(len(array))
    if len(counts) > 1:
        raise VerifyError(f"inputs have different numbers of samples: {sorted(counts)}")
    return held, counts.pop() if counts else 1


def _run_chunk(
    graph: Graph, held: dict[int, Held], samples: int, observe: Observer | None, fake_quant: bool
) -> list[Array]:
    walk = Execution(graph, held, samples, fake_quant)
    if observe is not None:
        for value in graph.inputs:
            observe(value, walk.array(value))
    for node in graph.nodes:
        walk.step(node)
        if observe is not None:
            observe(node.output, walk.array(node.output))
        walk.forget(node)
    return [_as_samples(v, walk.fetch(v), samples) for v in graph.outputs]


class Execution:
    """A graph run one node at a time: constants may change until the first node that reads them has run.

    ``start`` makes one for samples as ``run`` takes them. Call ``step`` for each node in order, then ``forget``.
    """

    def __init__(
        self,
        graph: Graph,
        held: dict[int, Held],
        samples: int,
        fake_quant: bool,
        compute: Evaluate | None = None,
    ) -> None:
        self.samples, self.fake_quant, self._compute = samples, fake_quant, compute or evaluate
        self._held = {id(v): _finish(v, held[id(v)], fake_quant) for v in graph.inputs}
        self._uses: dict[int, int] = {}
        for value in (*(v for n in graph.nodes for v in n.inputs), *graph.outputs):
            self._uses[id(value)] = self._uses.get(id(value), 0) + 1

    @staticmethod
    def start(
        graph: Graph,
        inputs: Mapping[str, Array],
        *,
        fake_quant: bool = False,
        compute: Evaluate | None = None,
    ) -> Execution:
        """All samples at once, before the first node. Raises VerifyError for a wrong name, shape or dtype.

        ``compute`` stands in for ``evaluate``; it gets samples along axis 0.
        """
        return Execution(graph, *_hold_inputs(graph, inputs), fake_quant, compute)

    def array(self, value: Value) -> Array:
        """What ``value`` holds, samples along axis 0 (or on a new leading axis) unless it is constant."""
        return self.fetch(value).array

    def fetch(self, value: Value) -> Held:
        """What ``value`` holds, and how its samples lie."""
        if value.data is None:
            return self._held[id(value)]
        data: Array = value.data
        if self.fake_quant and value.type.qparams is not None and not value.type.dtype.is_integer:
            data = fixedpoint.fake_quantize(data, value.type.qparams)
        return Held(data, "constant")

    def step(self, node: Node) -> None:
        """Compute the result of ``node``; its operands are kept."""
        self.hold(node.output, self.compute(node))

    def compute(self, node: Node) -> Held:
        """The result of ``node``, not rounded yet; ``hold`` does that, and keeps it."""
        operands = [None if v is None else self.fetch(v) for v in node.inputs]
        return _run_node(node, operands, self.samples, self._compute)

    def hold(self, value: Value, result: Held) -> None:
        """Let ``value`` be ``result``, rounded where it is to be."""
        self._held[id(value)] = _finish(value, result, self.fake_quant)

    def replace(self, value: Value, array: Array) -> None:
        """What later nodes read as ``value``, in the layout of ``array``; one that depends on no input stays as it is."""
        held = self._held[id(value)]
        if held.layout != "constant":
            self._held[id(value)] = Held(array, held.layout)

    def forget(self, node: Node) -> None:
        """Drop operands that no later node reads."""
        for v in node.inputs:
            if v is not None and v.data is None:
                self._uses[id(v)] -= 1
                if self._uses[id(v)] == 0:
                    self._held.pop(id(v), None)


def _finish(value: Value, result: Held, fake_quant: bool) -> Held:
    if fake_quant and value.type.qparams is not None and not value.type.dtype.is_integer:
        return Held(fixedpoint.fake_quantize(result.array, value.type.qparams), result.layout)
    return result


def _run_node(node: Node, operands: list[Held | None], samples: int, compute: Evaluate) -> Held:
    present = [o for o in operands if o is not None]
    arrays = [None if o is None else o.array for o in operands]
    if all(o.layout == "constant" for o in present):
        return Held(evaluate(node, arrays), "constant")
    if all(o.layout != "stacked" for o in present) and _stacks(node, operands, samples):
        return Held(compute(node, arrays), "axis0")
    each = [evaluate(node, [None if o is None else o.sample(i) for o in operands]) for i in range(samples)]
    if node.output.type.shape[:1] == (1,):
        return Held(np.concatenate(each), "axis0")
    return Held(np.stack(each), "stacked")


def _stacks(node: Node, operands: list[Held | None], samples: int) -> bool:
    """Whether the node may run once with the samples along axis 0: shape inference says so."""
    result = node.output.type.shape
    if result[:1] != (1,) or not node.op.batches(node.signature):
        return False
    count = 2 if samples == 1 else samples
    types: list[TensorType | None] = []
    for value, operand in zip(node.inputs, operands, strict=True):
        if value is None or operand is None:
            types.append(None)
        elif operand.layout == "axis0":
            types.append(value.type.with_shape((count, *value.type.shape[1:])))
        else:
            types.append(value.type)
    try:
        return node.op.infer(*types).shape == (count, *result[1:])
    except VerifyError:
        return False


def evaluate(node: Node, operands: list[Array | None]) -> Array:
    """One node on arrays, cast to the result's dtype; VerifyError where an integer does not fit it."""
    return evaluate_op(node.op, node.signature, operands, node)


def evaluate_op(op: Any, sig: Signature, operands: list[Array | None], node: Node | None = None) -> Array:
    """Float meaning if every data type is float, else the integer meaning."""
    dtype = sig.result.dtype
    floats = not dtype.is_integer and all(t is None or not t.dtype.is_integer for t in sig.operands)
    if floats:
        with np.errstate(all="ignore"):  # IEEE 754: what overflows is infinite
            return np.asarray(op.float_ref(*operands), np.float32)
    result = op.int_ref(sig, *operands)
    if dtype.is_integer and result.dtype != dtype.numpy:
        if result.size and (int(result.min()) < dtype.min or int(result.max()) > dtype.max):
            raise VerifyError(
                f"{op.name} leaves {dtype.value}: [{result.min()}, {result.max()}]",
                node.location if node else None,
            )
        result = result.astype(dtype.numpy)
    return np.asarray(result)


def _as_samples(value: Value, held: Held, samples: int) -> Array:
    if held.layout == "constant":
        if value.type.shape[:1] == (1,):
            return np.broadcast_to(held.array, (samples, *value.type.shape[1:])).copy()
        return np.broadcast_to(held.array, (samples, *value.type.shape)).copy()
    return held.array
