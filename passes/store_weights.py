"""Float graphs with small weights: stored in few bits and decoded on the fly, or multiplied as integers."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from qcc.ir.builder import Builder
from qcc.ir.errors import VerifyError
from qcc.ir.graph import Graph, Node, Value
from qcc.ir.ops.conv import Conv2d
from qcc.ir.ops.dense import Dense
from qcc.ir.ops.stored import CODE_MAX, DynamicDense, StoredWeight
from qcc.passes.base import Note, Pass, PassContext, PassResult, register_pass
from qcc.passes.coarse_codes import FloatWalk
from qcc.passes.error_feedback import output_error, round_with_feedback
from qcc.passes.moments import covariance, sampled_rows

_SHRINKS = np.arange(20, 10, -1) / 20  # shares of the largest magnitude that the largest code may stand for
_HALF_MAX = float(np.finfo(np.float16).max)


@register_pass
class WeightOnly(Pass):
    """Store the weights of dense layers and convolutions as codes (stored_weight); activations stay in float.

    ``format``: int8 and int4 have a scale for each output channel, or for each ``group`` of consecutive weights of one
    (0: none); of ten scales the one with the least squared error. fp16: IEEE 754 binary16, nearest, ties to even.
    With samples (ctx.resources["correction_samples"], arrays by input name; ["evaluate"] is optional) int8 and int4 round with
    error feedback where that makes the error of the layer's outputs smaller; ``limit``: filters with more weights do not.
    Weights of fewer than ``min_bytes`` in float32 stay as they are, and so do those of depthwise convolutions, of which
    there are few. Notes (rule ``weight-only``): the bytes before and after, and the signal to noise of the weights.
    """

    name = "weight-only"
    stage = "float"
    exactness = "approximate"
    format: Literal["int8", "int4", "fp16"] = "int8"
    group: int = 0
    min_bytes: int = 1024
    limit: int = 2304

    def __post_init__(self) -> None:
        if self.group < 0 or (self.group and self.format == "fp16"):
            raise ValueError(f"{self.format} has no group of {self.group} weights")

    def run(self, graph: Graph, ctx: PassContext) -> PassResult:
        """In place; a weight that several nodes share is stored once."""
        notes: list[Note] = []
        stored: dict[int, Value] = {}
        samples = ctx.resources.get("correction_samples")
        walk = FloatWalk(graph.clone(), samples, ctx) if samples and self.format != "fp16" else None
        for node in list(graph.nodes):
            if not isinstance(node.op, Conv2d | Dense):
                continue
            weight = node.input(1)
            reason = self._declined(node)
            if reason:
                notes.append(Note(node.name, self.name, False, reason))
                continue
            if id(weight) not in stored:
                stored[id(weight)] = self._store(graph, node, walk)
            notes.append(Note(node.name, self.name, True, _gain(weight, stored[id(weight)])))
            graph.set_input(node, 1, stored[id(weight)])
        return PassResult(bool(stored), tuple(notes))

    def _declined(self, node: Node) -> str:
        weight = node.input(1)
        if weight.data is None:
            return "its weights are computed"
        if isinstance(node.op, Conv2d) and 1 < node.op.groups == node.output.type.shape[-1]:
            return "a depthwise convolution has few weights"
        if weight.type.bytes < self.min_bytes:
            return f"its weights are {weight.type.bytes} bytes, fewer than {self.min_bytes}"
        if self.format == "fp16" and np.abs(weight.data).max() > _HALF_MAX:
            return f"a weight is beyond {_HALF_MAX:g}"
        return ""

    def _store(self, graph: Graph, node: Node, walk: FloatWalk | None) -> Value:
        weight = node.input(1)
        assert weight.data is not None
        builder = Builder(graph, before=node)
        op = StoredWeight(self.format, self.group)
        if self.format == "fp16":
            operands = [
                builder.constant(weight.data.astype(np.float16).view(np.int16), f"{weight.name}_codes")
            ]
        else:
            w, code_max = weight.data.reshape(len(weight.data), -1), CODE_MAX[self.format]
            codes, scale = rounded(w, code_max, self.group)
            if walk is not None and w.shape[1] <= self.limit:
                moments = _second_moments(node, walk.operand(node.name))
                if moments is not None:
                    codes, scale = fed_back(w, codes, scale, moments, code_max, self.group)
            codes = codes.reshape(weight.type.shape)
            operands = [
                builder.constant(codes, f"{weight.name}_codes"),
                builder.constant(scale, f"{weight.name}_scale"),
            ]
        return builder.emit(op, *operands, name=f"{weight.name}_{self.format}")


@register_pass
class DynamicWeights(Pass):
    """Multiply in integers: weights in s8, activations quantized by the range that each inference finds (dynamic_dense).

    Takes dense layers with constant weights, with ``pointwise`` 1x1 convolutions too; all else stays in float. Between
    convolutions that stay in float, a sum in another order may change codes, and with them all that follows.
    ``min_bytes``: of the weights in float32, as fewer are not worth it. Notes (rule ``dynamic``): as those of weight-only.
    """

    name = "dynamic-weights"
    stage = "float"
    exactness = "approximate"
    pointwise: bool = False
    min_bytes: int = 1024

    def run(self, graph: Graph, ctx: PassContext) -> PassResult:
        """In place."""
        notes = [self._rewrite(graph, n) for n in list(graph.nodes) if isinstance(n.op, Conv2d | Dense)]
        return PassResult(any(n.applied for n in notes), tuple(notes))

    def _rewrite(self, graph: Graph, node: Node) -> Note:
        weight, bias = node.input(1), node.operand("bias")
        reason = self._declined(node, bias)
        if reason:
            return Note(node.name, "dynamic", False, reason)
        assert weight.data is not None
        builder = Builder(graph, before=node)
        codes, scale = rounded(weight.data.reshape(len(weight.data), -1), CODE_MAX["int8"], 0)
        w = builder.constant(codes, f"{weight.name}_codes")
        s = builder.constant(scale.reshape(-1), f"{weight.name}_scale")
        try:
            y = builder.emit(DynamicDense(), node.input(0), w, s, bias, name=node.name)
        except VerifyError as error:
            return Note(node.name, "dynamic", False, error.message)
        graph.replace_uses(node.output, y)
        graph.remove_node(node)
        y.name = node.name
        return Note(y.name, "dynamic", True, _change(weight.data, codes * scale, codes.nbytes + scale.nbytes))

    def _declined(self, node: Node, bias: Value | None) -> str:
        op, weight = node.op, node.input(1)
        if weight.data is None or (bias is not None and bias.data is None):
            return "its weights are computed"
        if isinstance(op, Conv2d) and (op != Conv2d() or weight.type.shape[1:3] != (1, 1)):
            return "only dense layers and plain 1x1 convolutions are products of one matrix"
        if isinstance(op, Conv2d) and not self.pointwise:
            return "1x1 convolutions stay in float without pointwise"
        if weight.type.bytes < self.min_bytes:
            return f"its weights are {weight.type.bytes} bytes, fewer than {self.min_bytes}"
        return ""


def rounded(
    w: NDArray[np.generic], code_max: int, group: int
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """s8[O, K] codes of w [O, K] in [-code_max, code_max], and f32[O, G] scales: of ten, those with the least squared error.

    ``group``: consecutive weights of a row that share a scale; 0: all of them. A scale of zeros is 1.
    """
    outputs, depth = w.shape
    size = group or depth
    count = -(-depth // size)
    padded = np.zeros((outputs, count * size))
    padded[:, :depth] = w
    blocks = padded.reshape(outputs, count, size)
    largest = np.abs(blocks).max(axis=2)
    best = np.full(largest.shape, np.inf)
    codes, scale = np.zeros(blocks.shape, np.int8), np.ones(largest.shape, np.float32)
    for share in _SHRINKS:
        tried = (largest * share / code_max).astype(np.float32)
        tried[tried < np.finfo(np.float32).tiny] = 1.0
        q = np.clip(np.rint(blocks / tried[..., None]), -code_max, code_max)
        error = ((q * tried[..., None] - blocks) ** 2).sum(axis=2)
        better = error < best
        best[better], scale[better], codes[better] = error[better], tried[better], q[better]
    return np.ascontiguousarray(codes.reshape(outputs, -1)[:, :depth]), scale


def _second_moments(node: Node, x: NDArray[np.float32]) -> NDArray[np.float64] | None:
    """Of what the weights of ``node`` meet, about 0: the bias takes up no mean error. None where the op does not tell."""
    rows, found = sampled_rows(node, x), covariance(node, x)
    if rows is None or found is None:
        return None
    mean = rows.mean(axis=(0, 1), dtype=np.float64)
    return np.asarray(found + mean[:, :, None] * mean[:, None])


def fed_back(
    w: NDArray[np.generic],
    codes: NDArray[np.int8],
    scale: NDArray[np.float32],
    hessian: NDArray[np.float64],
    code_max: int,
    group: int,
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Of ``codes`` and ``scale`` of w [O, K], as ``rounded`` gives them, and of codes rounded with error feedback on these and on
    smaller scales, for each row those with the least error of its output. ``hessian``: [groups, K, K], second moments.
    """
    groups, depth, _ = hessian.shape
    real = w.astype(np.float64).reshape(groups, -1, depth)

    def wide(scale: NDArray[np.float32]) -> NDArray[np.float64]:
        each = np.repeat(scale.astype(np.float64), group or depth, axis=1)[:, :depth]
        return each.reshape(real.shape)

    best, chosen = codes.reshape(real.shape).astype(np.float64), scale.copy()
    least = output_error(real, best, hessian, wide(scale))
    for share in _SHRINKS:
        tried = (scale * share).astype(np.float32)
        q = round_with_feedback(real, hessian, wide(tried), code_max, sweeps=2)
        error = output_error(real, q, hessian, wide(tried))
        better = error < least
        best[better], least = q[better], np.minimum(error, least)
        chosen[better.reshape(-1)] = tried[better.reshape(-1)]
    return best.reshape(w.shape).astype(np.int8), chosen


def _gain(weight: Value, stored: Value) -> str:
    """Bytes before and after, and the signal to noise ratio of the stored weights."""
    node = stored.producer
    assert node is not None
    assert weight.data is not None
    arrays = [v.data for v in node.inputs if v is not None]
    decoded = node.op.int_ref(node.signature, *arrays)
    bits = {"int8": 8, "int4": 4, "fp16": 16}[str(node.op.attributes()["format"])]
    size = -(-weight.type.elements * bits // 8) + sum(a.nbytes for a in arrays[1:] if a is not None)
    return _change(weight.data, decoded, size)


def _change(before: NDArray[np.generic], after: NDArray[np.generic], size: int) -> str:
    w = before.astype(np.float64).reshape(-1)
    noise = float(((after.astype(np.float64).reshape(-1) - w) ** 2).sum())
    ratio = f"{10 * np.log10(float((w**2).sum()) / noise):.1f} dB" if noise else "exact"
    return f"{before.nbytes} to {size} bytes, {ratio}"
