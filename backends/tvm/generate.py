"""From rows to files: TIR functions of all steps, compiled by TVM to assembler text, and a header with their prototypes."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.util import find_spec

from qcc.backends.c.build import run_tool
from qcc.backends.c.names import C_TYPES
from qcc.backends.target import Generate, Generated, Progress, Scripts, Target, Tune, Tuning
from qcc.backends.tvm.isa import Isa
from qcc.ir.errors import TargetError

INSTALL_TVM = "pip install 'qcc[tvm]'"
TUNER_NEEDS = ("cloudpickle", "psutil")
SELF_TEST_SECONDS = 3600.0  # it takes 2, but a machine that is busy is not TVM's fault
# some pairs of apache-tvm and apache-tvm-ffi crash here; a process of its own survives that
SELF_TEST = "import tvm; from tvm import tirx; tvm.ir.save_json(tirx.Var('x', 'int32'))"


def has_tvm() -> bool:
    """Whether TVM is installed."""
    return find_spec("tvm") is not None


@cache
def require_tvm() -> None:
    """Raise TargetError where TVM is missing or crashes."""
    if not has_tvm():
        raise TargetError("TVM is not installed", hint=INSTALL_TVM)
    try:
        run_tool([sys.executable, "-c", SELF_TEST], SELF_TEST_SECONDS)
    except TargetError as error:
        hint = f"apache-tvm and apache-tvm-ffi do not fit each other: {INSTALL_TVM}"
        raise TargetError(f"TVM is installed, and fails its self-test: {error.message}", hint=hint) from None


def generator(isa: Isa) -> Generate:
    """``Target.generate`` for an instruction set."""

    def generate(name: str, functions: Sequence[Generated], scripts: Scripts) -> Mapping[str, str]:
        require_tvm()
        from qcc.backends.tvm.compile import assembly_of
        from qcc.backends.tvm.script import kernels_of, script_of

        kernels = kernels_of(functions, isa, scripts)
        files = {
            f"{name}_kernels.h": _header(name, [prototype(f) for f in functions]),
            f"{name}_kernels.s": assembly_of(kernels, isa),
        }
        if scripts.written:
            files[f"{name}_kernels.py"] = script_of(name, functions, kernels, isa)
        return files

    return generate


def tuner(isa: Isa) -> Tune:
    """``Target.tune`` for an instruction set."""

    def tune(target: Target, functions: Sequence[Generated], tuning: Tuning, progress: Progress) -> None:
        require_tvm()
        missing = [name for name in TUNER_NEEDS if find_spec(name) is None]
        if missing:
            raise TargetError(f"the tuner of TVM needs {' and '.join(missing)}", hint=INSTALL_TVM)
        from qcc.backends.tvm.tuning import tune_functions

        tune_functions(target, functions, isa, tuning, progress)

    return tune


def prototype(function: Generated) -> str:
    """The declaration in C: pointers to inputs, constants, output and workspace, in the order of a call."""
    call, output = function.call, function.step.output
    inputs = function.step.inputs if call.inputs is None else call.inputs
    parameters = [f"const {C_TYPES[v.type.dtype.value]} *x{i}" for i, v in enumerate(inputs) if v is not None]
    for what, array in call.constants.items():
        assert array is not None
        parameters.append(f"const {_c_type(array.dtype.name)} *{what}")
    parameters.append(f"{C_TYPES[output.type.dtype.value]} *output")
    if call.workspace_bytes:
        parameters.append("void *workspace")
    return f"int32_t {function.symbol}({', '.join(parameters)});"


def _c_type(dtype: str) -> str:
    return "float" if dtype == "float32" else f"{dtype}_t"


def _header(name: str, prototypes: Sequence[str]) -> str:
    guard = f"{name.upper()}_KERNELS_H"
    lines = "\n".join(prototypes)
    return (
        f"/* The steps of {name} that TVM has compiled: {name}_kernels.s. They return 0. */\n"
        f"#ifndef {guard}\n#define {guard}\n\n#include <stdint.h>\n\n{lines}\n\n#endif\n"
    )
