"""TVMScript: the kernels of a library as text to read, to schedule anew, and to compile in place of the generated ones."""

from __future__ import annotations

import runpy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tvm
from tvm import s_tir

from qcc.backends.target import Generated, Scripts
from qcc.backends.tvm.intrinsics import register_intrinsics
from qcc.backends.tvm.isa import Isa
from qcc.backends.tvm.records import Records
from qcc.backends.tvm.schedules import template
from qcc.ir.errors import TargetError

HEAD = '''"""The steps of {name} in TVM's TIR: what they compute (Steps), and how they are compiled (Kernels).

qcc compile ... --tvmscript THIS_FILE compiles the functions of Kernels in place of those that it would generate, and
compares the library with the interpreter. Functions may be edited, left out, or scheduled anew at the end of this file:

    schedule = s_tir.Schedule(Steps["{first}"])
    ...
    Kernels["{first}"] = schedule.mod["main"]
"""

from tvm import s_tir
from tvm.script import ir as I
from tvm.script import tirx as T
'''


def kernels_of(functions: Sequence[Generated], isa: Isa, scripts: Scripts) -> Any:
    """IRModule of the scheduled functions by symbol; those of ``Kernels`` in the file ``replaced`` take the place of theirs."""
    register_intrinsics()
    own = _read(scripts.replaced) if scripts.replaced is not None else {}
    records = Records.open(scripts.tuned, isa) if scripts.tuned is not None else None
    unknown = sorted(set(own) - {f.symbol for f in functions})
    if unknown:
        raise TargetError(f"{scripts.replaced} has kernels of no step: {', '.join(unknown)}")
    return tvm.IRModule({f.symbol: _kernel(f, isa, own.get(f.symbol), records) for f in functions})


def _kernel(function: Generated, isa: Isa, own: Any, records: Records | None) -> Any:
    plain, (usual, *_) = template(function, isa)
    if own is None:
        made = s_tir.Schedule(plain)
        if records is None or not records.schedule(made):
            usual(made)
        return made.mod["main"].with_attr("global_symbol", function.symbol)
    if _parameters(own) != _parameters(plain):
        raise TargetError(
            f"kernel {function.symbol} has other parameters than its step",
            hint=f"they must be {_parameters(plain)}",
        )
    return own.with_attr("global_symbol", function.symbol)


def _parameters(function: Any) -> str:
    buffers = [p.ty for p in function.params]
    return ", ".join(f"{b.dtype}{[int(n) for n in b.shape]}" for b in buffers)


def script_of(name: str, functions: Sequence[Generated], kernels: Any, isa: Isa) -> str:
    """The file: both modules, and what to do with them."""
    steps = tvm.IRModule({f.symbol: template(f, isa)[0] for f in functions})
    texts = [_class(module, title) for module, title in ((steps, "Steps"), (kernels, "Kernels"))]
    return "\n\n".join([HEAD.format(name=name, first=functions[0].symbol), *texts])


def _class(module: Any, title: str) -> str:
    text = str(module.script())
    return text[text.index("@I.ir_module") :].replace("class Module:", f"class {title}:").rstrip() + "\n"


def _read(path: Path) -> dict[str, Any]:
    """The functions of ``Kernels`` in a file. Raises TargetError where it fails or has none."""
    if not path.is_file():
        raise TargetError(f"{path} does not exist", hint="name a file with kernels in TVMScript")
    try:
        module = runpy.run_path(str(path), run_name="qcc_tvmscript")["Kernels"]
        return {name.name_hint: function for name, function in module.functions.items()}
    except Exception as error:  # code of the user's: it may raise anything
        raise TargetError(f"{path} failed: {type(error).__name__}: {error}") from error
