"""Kernels that TVM compiles: TIR functions with schedules of ours, made for each step, as assembler text.

Nothing here imports TVM before a library is written: rows, their refusals and their constants do without it.
"""

from __future__ import annotations

from qcc.backends.tvm.generate import INSTALL_TVM, generator, has_tvm, tuner
from qcc.backends.tvm.isa import ISAS, Isa
from qcc.backends.tvm.rows import rows

__all__ = ["INSTALL_TVM", "ISAS", "Isa", "generator", "has_tvm", "rows", "tuner"]
