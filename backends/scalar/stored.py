"""Rows of float products whose weights are codes: decoded as they are multiplied, or multiplied as integers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcc.backends.kernel import Call, Kernel, Step
from qcc.backends.scalar.convolution import geometry
from qcc.backends.scalar.lowering import Params, constant, float_bounds, source
from qcc.backends.scalar.products import F32_BLOCK, dense_geometry
from qcc.ir.graph import Node
from qcc.ir.ops.conv import Conv2d
from qcc.ir.ops.stored import StoredWeight


def stored_weight(step: Step) -> Node | None:
    """The node whose codes are the weights of the step, if they are codes."""
    producer = step.root.input(1).producer
    return producer if producer is not None and isinstance(producer.op, StoredWeight) else None


def is_stored(step: Step) -> bool:
    """Whether the weights are codes."""
    return stored_weight(step) is not None


def _accepts(format_: str, step: Step) -> str | None:
    """Codes of one format, and a constant bias."""
    node = stored_weight(step)
    assert node is not None
    found = node.op.attributes()["format"]
    if found != format_:
        return f"the weights are {found}"
    bias = step.root.operand("bias")
    return None if bias is None or bias.is_constant else f"operand %{bias.name} is not constant"


def pack_rows(matrix: NDArray[Any], groups: int) -> list[NDArray[Any]]:
    """[O, K] as, for each group of channels, blocks of output channels: [K, up to F32_BLOCK] each."""
    per_group = len(matrix) // groups
    blocks = []
    for group in range(groups):
        filters = matrix[group * per_group : (group + 1) * per_group]
        blocks += [filters[first : first + F32_BLOCK].T for first in range(0, per_group, F32_BLOCK)]
    return blocks


def pack_row_pairs(block: NDArray[Any]) -> NDArray[np.uint8]:
    """s8[K, C] with codes in [-8, 7] as u8[ceil(K / 2), C]: rows 2 r in the low halves, rows 2 r + 1 in the high ones."""
    even = np.pad(block, ((0, len(block) % 2), (0, 0))).astype(np.uint8) & 15
    return np.asarray(even[::2] | even[1::2] << 4, np.uint8)


def lower_stored(step: Step) -> Call:
    """f32_int8_conv2d_scalar and its like: rows of codes and of scales, block by block."""
    op, node = step.root.op, stored_weight(step)
    assert node is not None
    assert isinstance(node.op, StoredWeight)
    groups = op.groups if isinstance(op, Conv2d) else 1
    codes, scale = constant(node, "codes"), constant(node, "scale")
    assert codes is not None
    shape: Params = {**geometry(step, op, codes)} if isinstance(op, Conv2d) else dense_geometry(step)
    matrix = codes.reshape(len(codes), -1)
    blocks = pack_rows(matrix.view(np.uint16) if node.op.format == "fp16" else matrix, groups)
    if node.op.format == "int4":
        blocks = [pack_row_pairs(block) for block in blocks]
    params = {
        **shape,
        "groups": groups,
        "group": min(node.op.group or matrix.shape[1], matrix.shape[1]),
        **float_bounds(step),
    }
    constants = {
        "weights": np.concatenate([b.reshape(-1) for b in blocks]),
        "scale": None if scale is None else np.concatenate([b.reshape(-1) for b in pack_rows(scale, groups)]),
        "bias": constant(step.root, "bias"),
    }
    return Call(params, constants, inputs=(step.root.input(0),))


def _is_constant(step: Step) -> str | None:
    """All but x known at compile time."""
    computed = [v.name for v in step.root.inputs[1:] if v is not None and not v.is_constant]
    return f"operand %{computed[0]} is not constant" if computed else None


def lower_dynamic(step: Step) -> Call:
    """f32_dynamic_dense_scalar."""
    weights = constant(step.root, "w")
    assert weights is not None
    outputs, depth = weights.shape
    elements = step.root.input(0).type.elements
    constants = {
        "weights": weights,
        "weight_sums": weights.sum(axis=1, dtype=np.int32),
        "scale": constant(step.root, "scale"),
        "bias": constant(step.root, "bias"),
    }
    params = {"rows": elements // depth, "depth": depth, "outputs": outputs}
    return Call(params, constants, elements, (step.root.input(0),))


def _row(pattern: str, format_: str) -> Kernel:
    symbol = f"qcc_f32_{format_}_conv2d_scalar"
    return Kernel(
        pattern,
        "f32",
        symbol,
        "qcc_f32_stored_conv2d_params",
        source(symbol),
        lower_stored,
        lambda step: _accepts(format_, step),
        channel_block=F32_BLOCK,
        meant_for=is_stored,
    )


KERNELS: tuple[Kernel, ...] = (
    *(
        _row(pattern, format_)
        for format_ in ("int8", "int4", "fp16")
        for pattern in ("conv2d", "conv2d+clamp", "dense", "dense+clamp")
    ),
    Kernel(
        "dynamic_dense",
        "f32",
        "qcc_f32_dynamic_dense_scalar",
        "qcc_f32_dynamic_dense_params",
        source("qcc_f32_dynamic_dense_scalar"),
        lower_dynamic,
        _is_constant,
    ),
)
