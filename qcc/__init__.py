"""qcc: a quantizing compiler. ONNX in, a verified 8-bit C library out."""

__version__ = "0.1.0"

from qcc.api import CompiledModel, Library, compile
from qcc.ir.errors import QccError
from qcc.options import CompileOptions

__all__ = ["CompileOptions", "CompiledModel", "Library", "QccError", "__version__", "compile"]
