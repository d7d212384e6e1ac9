"""Grouping of nodes into steps, the choice of a kernel, and the message when there is none."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from qcc.backends.scalar import KERNELS
from qcc.backends.select import is_alias, select, steps
from qcc.ir.builder import Builder
from qcc.ir.errors import TargetError
from qcc.ir.graph import Graph
from qcc.ir.ops.activation import Clamp
from qcc.ir.ops.conv import Conv2d
from qcc.ir.ops.elementwise import Add
from qcc.ir.ops.shape import Transpose
from qcc.ir.types import f32


def test_steps_end_at_the_requantize(residual_net: Callable[[], Any]) -> None:
    found = steps(residual_net().graph)
    assert [s.pattern for s in found] == [
        "conv2d+requantize",
        "conv2d+requantize",
        "conv2d+add+requantize",
        "dense+requantize",
    ]
    assert [v.name for v in found[2].inputs] == ["depthwise", "stem"]
    assert found[2].output.name == "point"


def test_residual_step_comes_after_the_step_it_reads(integer_graph: Callable[..., Any]) -> None:
    net = integer_graph(0)
    x = net.input("x", 1, 4, 4, 2)
    acc = net.conv2d(x, 2, (1, 1), "main")  # before the skip in node order
    skip = net.requantize(net.conv2d(x, 2, (1, 1), "skip"), 1e4, "skip")
    net.output(net.requantize(net.residual(acc, skip, "main"), 1e5, "main"))
    assert [s.output.name for s in steps(net.graph)] == ["skip", "main"]


def test_accumulator_with_two_users_is_a_step_without_kernel(integer_graph: Callable[..., Any]) -> None:
    net = integer_graph(0)
    acc = net.conv2d(net.input("x", 1, 4, 4, 2), 2, (1, 1), "shared")
    net.output(net.requantize(acc, 1e4, "a"))
    net.output(net.requantize(acc, 2e4, "b"))
    with pytest.raises(TargetError, match=r"%shared_acc = conv2d: no kernel has this pattern for s8"):
        select(net.graph, KERNELS)


def float_graph() -> Graph:
    graph = Graph("float")
    builder = Builder(graph)
    x = graph.add_input("x", f32(1, 4, 4, 2))
    y = builder.emit(Conv2d(), x, builder.constant(np.ones((3, 1, 1, 2), np.float32), "w"), name="conv")
    y = builder.emit(Clamp(0.0), y, name="relu")
    y = builder.emit(Clamp(0.0, 6.0), builder.emit(Add(), y, y, name="sum"), name="relu6")
    graph.add_output(y)
    return graph


def test_float_steps_take_the_clamp_where_a_kernel_has_it() -> None:
    assert [s.pattern for s in steps(float_graph())] == ["conv2d+clamp", "add+clamp"]
    assert [s.pattern for s in steps(float_graph(), ())] == ["conv2d", "clamp", "add", "clamp"]


def test_select_takes_the_highest_priority_that_accepts(residual_net: Callable[[], Any]) -> None:
    selections = select(residual_net().graph, KERNELS)
    assert [s.kernel.symbol for s in selections] == [
        "qcc_s8_conv2d_scalar",
        "qcc_s8_depthwise_conv2d_scalar",
        "qcc_s8_conv2d_scalar",
        "qcc_s8_dense_scalar",
    ]
    (refusal,) = selections[0].refused
    assert refusal.kernel.symbol == "qcc_s8_depthwise_conv2d_scalar"
    assert "not depthwise" in refusal.reason


def test_select_lists_every_reason(residual_net: Callable[[], Any]) -> None:
    stubborn = [
        replace(k, accepts=lambda step: "too wide")
        for k in KERNELS
        if k.pattern == "conv2d+requantize" and k.rounding == "ties_up"
    ]
    with pytest.raises(TargetError) as caught:
        select(residual_net().graph, stubborn)
    text = str(caught.value)
    assert "no kernel for 4 steps of the model" in text
    assert "%stem = conv2d+requantize: qcc_s8_depthwise_conv2d_scalar: too wide; qcc_s8_conv2d_scalar" in text
    assert "%head = dense+requantize: no kernel has this pattern for s8" in text


@pytest.mark.parametrize(
    ("shape", "perm", "expected"),
    [((1, 7, 1, 1), (0, 2, 3, 1), True), ((1, 7, 1, 2), (0, 2, 1, 3), True), ((1, 7, 2), (0, 2, 1), False)],
)
def test_transpose_of_ones_is_an_alias(shape: tuple[int, ...], perm: tuple[int, ...], expected: bool) -> None:
    graph = Graph("g")
    value = Builder(graph).emit(Transpose(perm), graph.add_input("x", f32(*shape)))
    assert value.producer is not None
    x = np.arange(np.prod(shape)).reshape(shape)
    assert (
        is_alias(value.producer) is expected is bool((x.transpose(perm).reshape(-1) == x.reshape(-1)).all())
    )
