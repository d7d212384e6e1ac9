"""The op families; importing this package fills the registry."""

from qcc.ir.ops import (
    activation,
    conv,
    conv_transpose,
    dense,
    elementwise,
    functions,
    norm,
    pool,
    quant,
    rearrange,
    reduce,
    resize,
    shape,
    simulated,
    softmax,
    tiling,
)

__all__ = [
    "activation",
    "conv",
    "conv_transpose",
    "dense",
    "elementwise",
    "functions",
    "norm",
    "pool",
    "quant",
    "rearrange",
    "reduce",
    "resize",
    "shape",
    "simulated",
    "softmax",
    "tiling",
]
