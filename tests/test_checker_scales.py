"""The checker's rules for scales: every planted fault is named."""

from dataclasses import replace

import numpy as np
import pytest
from checked_nets import build, bump, edit, network, node_of, plan, samples

from qcc.checker import check_plan
from qcc.ir.errors import VerifyError
from qcc.ir.graph import Graph, Value
from qcc.ir.ops.activation import Tanh
from qcc.ir.ops.dense import Dense
from qcc.ir.ops.elementwise import Add
from qcc.ir.ops.rearrange import Concat


@pytest.fixture
def planned() -> Graph:
    return network()


def rescale(value: Value, factor: float) -> None:
    qparams = value.type.qparams
    assert qparams is not None
    scaled = replace(qparams, scale=tuple(s * factor for s in qparams.scale))
    value.type = value.type.with_qparams(scaled)


@pytest.mark.parametrize(
    ("node", "index", "message"),
    [
        ("conv.acc", 2, r"%conv.acc, channel 0: scale of the bias: claimed \S+, recomputed"),
        ("conv.acc", 1, r"%conv.acc, channel 0: scale of the result"),
        ("conv2.acc", None, r"%conv2.acc, channel 0: scale of the result"),
        ("residual.acc", None, r"%residual.acc, channel 0: multiplier of operand 0: claimed 1, recomputed"),
        ("pool.acc", None, r"%pool.acc, channel 0: scale of the result"),
        ("flat", None, r"%flat: %tanh is moved: claimed q\("),
        ("relu", None, r"%relu, channel 0: multiplier"),
    ],
)
def test_scales_that_do_not_fit(planned: Graph, node: str, index: int | None, message: str) -> None:
    found = node_of(planned, node)
    rescale(found.output if index is None else found.input(index), 1.001)
    with pytest.raises(VerifyError, match=message):
        check_plan(planned)


def test_a_wrong_multiplier_of_a_residual(planned: Graph) -> None:
    edit(planned, "residual.acc", 3, bump(1, 1))
    with pytest.raises(
        VerifyError, match=r"%residual.acc, channel 1: multiplier of operand 1: claimed \d+, reco"
    ):
        check_plan(planned)


def test_a_wrong_multiplier_of_a_plain_sum() -> None:
    graph, b, c = build(1, 4)
    y = b.emit(Dense(), graph.inputs[0], c(4, 4), name="dense")
    graph.add_output(b.emit(Add(), b.emit(Tanh(), y), graph.inputs[0], name="sum"))
    planned = plan(graph, samples(1, 4))
    check_plan(planned)
    edit(planned, "sum.acc", 2, bump(0, 1))
    with pytest.raises(VerifyError, match=r"%sum.acc, channel 0: multiplier of operand 0"):
        check_plan(planned)


def test_moved_values_must_share_qparams() -> None:
    graph, b, _ = build(1, 4)
    x = graph.inputs[0]
    graph.add_output(b.emit(Concat(1), x, b.emit(Tanh(), x, name="tanh"), name="concat"))
    planned = plan(graph, samples(1, 4))
    check_plan(planned)
    rescale(planned.inputs[0], 1.5)
    with pytest.raises(VerifyError, match=r"%concat: %x is moved"):
        check_plan(planned)


def test_a_value_without_scale(planned: Graph) -> None:
    value = node_of(planned, "conv.acc").input(0)
    value.type = value.type.with_qparams(None)
    with pytest.raises(VerifyError, match="%x has no qparams"):
        check_plan(planned)


def test_a_bias_of_another_type(planned: Graph) -> None:
    edit(planned, "conv.acc", 2, lambda d: np.minimum(d, 100).astype(np.int16))
    with pytest.raises(VerifyError, match=r"type of the bias: claimed s32, recomputed s16"):
        check_plan(planned)
