"""The op families; importing this package fills the registry."""

from qcc.ir.ops import activation, conv, elementwise, quant, shape

__all__ = ["activation", "conv", "elementwise", "quant", "shape"]
