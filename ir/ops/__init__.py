"""The op families; importing this package fills the registry."""

from qcc.ir.ops import (
    activation,
    conv,
    conv_transpose,
    dense,
    elementwise,
    fake_quant,
    functions,
    norm,
    pool,
    quant,
    rearrange,
    reduce,
    resize,
    shape,
    softmax,
    tiling,
)

__all__ = [
    "activation",
    "conv",
    "conv_transpose",
    "dense",
    "elementwise",
    "fake_quant",
    "functions",
    "norm",
    "pool",
    "quant",
    "rearrange",
    "reduce",
    "resize",
    "shape",
    "softmax",
    "tiling",
]
