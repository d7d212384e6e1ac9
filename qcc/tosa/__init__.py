"""Integer programs as text in the TOSA dialect of MLIR. Importing the modules below enters what they write."""

from qcc.tosa import movement, ops, softmax

__all__ = ["movement", "ops", "softmax"]
