"""What the rows of the scalar table share: reading constants, zero points and requantization from a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcc.backends.kernel import Step
from qcc.ir.graph import Node, Value
from qcc.ir.ops.activation import Clamp
from qcc.ir.ops.conv import Conv2d
from qcc.ir.ops.conv_transpose import ConvTranspose2d
from qcc.ir.ops.pool import Pool
from qcc.ir.ops.quant import Requantize

Params = dict[str, int | float | Sequence[int]]  # fields of a params struct, in its order

KERNEL_FOLDER = Path(__file__).parent / "kernels"


def source(symbol: str) -> Path:
    """The C file of a kernel: the symbol without its prefix."""
    return KERNEL_FOLDER / f"{symbol.removeprefix('qcc_')}.c"


def zero_point(value: Value) -> int:
    """zero_point of an integer value, 0 for one without qparams."""
    return value.type.qparams.zero_point if value.type.qparams else 0


def constant(node: Node, name: str) -> NDArray[Any] | None:
    """The data of operand ``name``, or None when it is absent. It must be constant."""
    value = node.operand(name)
    if value is None:
        return None
    assert value.data is not None, f"operand {name} of {node.name} is not constant"
    return value.data


def accepts_parameters(step: Step) -> str | None:
    """All operands but the first (weights, bias, scale) known at compile time."""
    variable = [v.name for v in step.root.inputs[1:] if v is not None and not v.is_constant]
    return f"operand %{variable[0]} is not constant" if variable else None


def window_params(kernel: Sequence[int], op: Pool | Conv2d | ConvTranspose2d) -> dict[str, int]:
    """kernel_height to pad_left: fields of the params structs of convolutions and pooling."""
    return {
        "kernel_height": kernel[0],
        "kernel_width": kernel[1],
        "stride_height": op.strides[0],
        "stride_width": op.strides[1],
        "dilation_height": op.dilations[0],
        "dilation_width": op.dilations[1],
        "pad_top": op.pads[0],
        "pad_left": op.pads[1],
    }


def requantize_params(step: Step) -> dict[str, int]:
    """output_zero_point, low, high: the last fields of the params struct of a kernel that requantizes."""
    op = step.nodes[-1].op
    assert isinstance(op, Requantize)
    return {"output_zero_point": zero_point(step.output), "low": op.low, "high": op.high}


def requantize_constants(step: Step, channels: int | None = None) -> Mapping[str, NDArray[np.int32]]:
    """multiplier and shift, s32[channels] each: those of the plan, or the ones nearest to the real scales.

    Without ``channels``, s32[1] or s32[C] as they are.
    """
    node = step.nodes[-1]
    op = node.op
    assert isinstance(op, Requantize)
    arrays = [None if v is None else v.data for v in node.inputs]
    multiplier, shift = (a.reshape(-1).astype(np.int32) for a in op.multipliers(node.signature, *arrays))
    if channels is None:
        channels = max(multiplier.size, shift.size)
    return {"multiplier": np.broadcast_to(multiplier, channels), "shift": np.broadcast_to(shift, channels)}


def finite(x: float) -> float:
    """The float32 nearest to ``x``, the largest finite one for an infinity."""
    largest = float(np.finfo(np.float32).max)
    return float(np.float32(min(max(x, -largest), largest)))


def float_bounds(step: Step) -> dict[str, float]:
    """low, high of the clamp behind a float op; without one, the largest finite floats."""
    op = step.nodes[-1].op
    low, high = (op.low, op.high) if isinstance(op, Clamp) else (-np.inf, np.inf)
    return {"low": finite(low), "high": finite(high)}
