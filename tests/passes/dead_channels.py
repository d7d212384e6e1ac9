"""Nets with channels that are always the same, and what remove-dead-channels made of them."""

import numpy as np
from quantized_nets import (
    Array,
    Net,
    Stages,
    assert_same_bytes,
    quantize,
    run_pass,
    value_of,
)

from qcc.checker import check_plan
from qcc.ir.compare import first_difference
from qcc.ir.graph import Graph, Value

DEAD = -100.0  # a bias under which a relu is 0 for every input


def biases(channels: int, *dead: int, value: float = DEAD) -> Array:
    """Small numbers, and ``value`` in some channels."""
    bias = np.linspace(-0.2, 0.2, channels)
    bias[list(dead)] = value
    return bias


def removed(net: Net, *outputs: Value) -> Stages:
    """All stages; the last pass keeps every byte, leaves a valid plan, and has nothing to do a second time."""
    stages = quantize(net.finish(*outputs), net.samples())
    before, after = stages["plan-accumulators"], stages["remove-dead-channels"]
    assert_same_bytes(before, after)
    check_plan(after)
    again = after.clone()
    _, result = run_pass(again, "remove-dead-channels")
    assert not result.changed
    assert first_difference(after, again) is None
    return stages


def shrunk(stages: Stages) -> dict[str, str]:
    return {n.node: n.reason for n in stages.notes["remove-dead-channels"] if n.applied}


def reasons(stages: Stages) -> dict[str, str]:
    return dict(stages.declined("remove-dead-channels"))


def channels(stages: Stages, name: str) -> int:
    return value_of(stages["remove-dead-channels"], name).type.shape[-1]


def macs(graph: Graph) -> int:
    return sum(n.op.macs(n.signature) for n in graph.nodes)
