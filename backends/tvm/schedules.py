"""One TIR function with its schedule for each step: what the kernels compute, and in which order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from qcc.backends.kernel import Call, Step
from qcc.backends.target import Generated
from qcc.backends.tvm.depthwise import depthwise
from qcc.backends.tvm.dot import dot
from qcc.backends.tvm.epilogue import Template
from qcc.backends.tvm.isa import Isa
from qcc.backends.tvm.reference import reference
from qcc.backends.tvm.windows import average_pool, dilated_depthwise, max_pool

_BUILDERS: dict[str, Callable[[Step, Call, Isa], Template]] = {
    "tvm_conv2d": dot,
    "tvm_dense": dot,
    "tvm_depthwise_conv2d": depthwise,
    "tvm_dilated_depthwise_conv2d": dilated_depthwise,
    "tvm_max_pool2d": max_pool,
    "tvm_avg_pool2d": average_pool,
    "tvm_reference": reference,
}


def template(function: Generated, isa: Isa) -> tuple[Any, Sequence[Callable[[Any], None]]]:
    """The PrimFunc, with buffers of inputs, constants, output and workspace as in ``prototype``, and its schedules, the
    usual one first."""
    plain, *schedules = _BUILDERS[function.kernel.symbol](function.step, function.call, isa)
    return plain.with_attr("global_symbol", function.symbol), schedules
