"""TIR to assembler text with a bare C interface: pointers in, 0 out, no run-time library."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import tvm
from tvm import s_tir, tirx
from tvm.tirx import compilation_pipeline

from qcc.backends.tvm.isa import Isa

PIPELINE = "qcc"
CPU = 1  # DLDeviceType


def assembly_of(module: Any, isa: Isa) -> str:
    """One text for all functions of an IRModule."""
    compilation_pipeline.PIPELINE_MAP[PIPELINE] = lambda: (_lowering(), _finish, _finish)
    return _text(tirx.build(module, target_of(isa), pipeline=PIPELINE))


def entry_of(function: Any, name: str, symbol: str, isa: Isa) -> str:
    """Text of a function ``name`` with TVM's own convention that calls ``symbol``: the bare form of ``function``."""
    call = tirx.call_extern("int32", symbol, *[buffer.data for buffer in function.params])
    entry = tirx.PrimFunc(function.params, tirx.Evaluate(call)).with_attr("global_symbol", name)
    return _text(tirx.build(tvm.IRModule({name: entry}), target_of(isa)))


def target_of(isa: Isa) -> Any:
    """The processor, as TVM describes it."""
    return tvm.target.Target({key: list(v) if isinstance(v, tuple) else v for key, v in isa.llvm})


def _text(built: Any) -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernels.s"
        built.write_to_file(str(path))
        return _without_lines(path.read_text(encoding="utf-8"))


def _without_lines(assembly: str) -> str:
    """Without TVM's line table: it names no file there is, in a form that older assemblers do not read."""
    kept, is_debug = [], False
    for line in assembly.splitlines(keepends=True):
        words = line.split()
        if words and words[0] in (".section", ".text", ".data", ".bss"):
            is_debug = words[0] == ".section" and words[1].startswith(".debug")
        is_place = len(words) > 1 and (words[0] == ".loc" or (words[0] == ".file" and words[1].isdigit()))
        if not is_debug and not is_place:
            kept.append(line)
    return "".join(kept)


def _finish() -> Any:
    # without LowerTVMBuiltin, which would take large tiles of sums from TVM's workspace allocator
    return tvm.ir.transform.Sequential([tirx.transform.LowerIntrin()])


def _lowering() -> Any:
    """TVM's own passes for schedulable TIR on a processor, with ``_bare`` in the place of its packed calling convention."""
    s, t = s_tir.transform, tirx.transform

    @tvm.transform.module_pass(opt_level=0)  # type: ignore[untyped-decorator]
    def lower(module: Any, _context: Any) -> Any:
        passes = [
            s.CanonicalizeLoop(),
            s.LowerInitBlock(),
            s.PlanAndUpdateBufferAllocationLocation(),
            s.ConvertBlocksToOpaque(),
            s.CompactBufferAllocation(),
            s.LowerMatchBuffer(),
            s.StmtSimplify(),
            s.LowerOpaqueBlock(),
            t.FlattenBuffer(),
            t.NarrowDataType(32),
            s.LoopPartition(),
            t.VectorizeLoop(True),
            t.StorageRewrite(),
            s.HoistIfThenElse(),
            t.UnrollLoop(),
            s.RenormalizeSplitPattern(),
            t.StmtSimplify(),
            t.RemoveNoOp(),
            s.RewriteUnsafeSelect(),
            t.CommonSubexprElim(),
            t.VerifyMemory(),
            _bare,
        ]
        return tvm.ir.transform.Sequential(passes)(module)

    return lower


@tvm.transform.module_pass(opt_level=0)  # type: ignore[untyped-decorator]
def _bare(module: Any, _context: Any) -> Any:
    """Buffers become pointers; the function returns 0."""
    return tvm.IRModule({name: _with_pointers(f) for name, f in module.functions.items()}, attrs=module.attrs)


def _with_pointers(function: Any) -> Any:
    pointers, body = [], function.body
    for buffer in function.params:
        element = tvm.ir.PrimType(str(buffer.ty.dtype))
        pointers.append((buffer, tirx.Var(f"{buffer.name}_pointer", tvm.ir.PointerType(element))))
    zero = tirx.IntImm("int32", 0)
    for key, value in (("device_type", CPU), ("device_id", 0)):
        body = tirx.AttrStmt(zero, key, tirx.IntImm("int32", value), body)
    declared = [tirx.DeclBuffer(buffer, data=pointer) for buffer, pointer in pointers]
    # the return stands outside of every scope that allocates
    body = tirx.SeqStmt([*declared, body, tirx.Return(zero)])
    made = tirx.PrimFunc([p for _, p in pointers], body, tvm.ir.PrimType("int32"), function.attrs)
    return made.with_attr("calling_conv", 0)
