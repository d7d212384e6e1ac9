"""How movement of elements is spelled in TOSA: one function for each op name."""

from __future__ import annotations

import numpy as np

from qcc.ir.graph import Node
from qcc.tosa.rules import exports, gathered, op_of
from qcc.tosa.writer import Tensor, Writer


@exports("reshape")
def _reshape(w: Writer, node: Node) -> Tensor:
    return w.reshape(w.tensor(node.input(0)), node.output.type.shape, node.name)


@exports("transpose")
def _transpose(w: Writer, node: Node) -> Tensor:
    x, perm = w.tensor(node.input(0)), ", ".join(map(str, op_of(node).perm))
    return w.op("transpose", (x,), x.element, node.output.type.shape, node.name, perms=f"array<i32: {perm}>")


@exports("concat")
def _concat(w: Writer, node: Node) -> Tensor:
    parts = [w.tensor(v) for v in node.inputs if v is not None]
    axis = f"{op_of(node).axis} : i32"
    return w.op("concat", parts, parts[0].element, node.output.type.shape, node.name, axis=axis)


@exports("slice")
def _slice(w: Writer, node: Node) -> Tensor:
    """SLICE for what lies together; an axis with another step is gathered."""
    op, x = op_of(node), w.tensor(node.input(0))
    starts, sizes = [0] * len(x.shape), list(x.shape)
    for axis, start, end, step in zip(op.axes, op.starts, op.ends, op.steps, strict=True):
        if step == 1:
            starts[axis], sizes[axis] = start, end - start
        else:
            x = gathered(w, x, axis, np.arange(start, end, step), node.name)
            sizes[axis] = x.shape[axis]
    return w.slice(x, starts, sizes, node.name)


@exports("take")
def _take(w: Writer, node: Node) -> Tensor:
    op = op_of(node)
    return gathered(w, w.tensor(node.input(0)), op.axis, np.array(op.indices), node.name)


@exports("pad")
def _pad(w: Writer, node: Node) -> Tensor:
    """PAD with a constant; "edge" and "reflect" gather the elements they repeat."""
    op, x = op_of(node), w.tensor(node.input(0))
    if op.mode != "constant":
        for axis, more in enumerate(zip(op.begins, op.ends, strict=True)):
            if any(more):
                x = gathered(w, x, axis, np.pad(np.arange(x.shape[axis]), more, op.mode), node.name)
        return x
    starts = [max(0, -b) for b in op.begins]
    sizes = [n + min(b, 0) + min(e, 0) for b, n, e in zip(op.begins, x.shape, op.ends, strict=True)]
    kept = w.slice(x, starts, sizes, node.name)
    widths = [max(0, n) for pair in zip(op.begins, op.ends, strict=True) for n in pair]
    fill = w.ints([op.fill(node.signature)], f"{node.name}_fill", x.element)
    return w.op("pad", (kept, w.shape(widths), fill), x.element, node.output.type.shape, node.name)


@exports("resize_nearest")
def _resize_nearest(w: Writer, node: Node) -> Tensor:
    x = w.tensor(node.input(0))
    for axis, taken in enumerate(op_of(node).indices(*x.shape[1:3]), start=1):
        x = gathered(w, x, axis, taken, node.name)
    return x


@exports("tile")
def _tile(w: Writer, node: Node) -> Tensor:
    x, repeats = w.tensor(node.input(0)), w.shape(op_of(node).repeats)
    return w.op("tile", (x, repeats), x.element, node.output.type.shape, node.name)


@exports("expand")
def _expand(w: Writer, node: Node) -> Tensor:
    x, shape = w.tensor(node.input(0)), node.output.type.shape
    x = w.reshape(x, (*(1,) * (len(shape) - len(x.shape)), *x.shape), node.name)
    repeats = [to // n for n, to in zip(x.shape, shape, strict=True)]
    return w.op("tile", (x, w.shape(repeats)), x.element, shape, node.name)
