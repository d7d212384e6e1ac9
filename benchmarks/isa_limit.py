"""An environment whose onnxruntime believes to run on a processor without AVX512: a peer for x86-avx2 and x86-avxvnni.

onnxruntime chooses its kernels by cpuid and has no switch. Here its cpuid instructions become breakpoints, and a library
that the environment's Python loads first answers them with fewer features (engines/cpuid_mask.c). Its version gets the
suffix +avx2 or +avxvnni, so that no table takes it for the whole one. Linux on x86-64, with objdump and a C compiler.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from qcc.ir.errors import QccError

MASK = Path(__file__).with_name("engines") / "cpuid_mask.c"
ISAS = {"avx2": ["-DHIDE_AVX_VNNI"], "avxvnni": []}
CPUID, BREAKPOINT = b"\x0f\xa2", b"\xcc\x90"  # int3, nop


def install(environment: Path, isa: str) -> None:
    """A new environment at the path. Raises QccError where a tool is missing or the library is not as expected."""
    for tool in ("objdump", "cc"):
        if shutil.which(tool) is None:
            raise QccError(f"{tool} is not there", hint="install binutils and a C compiler")
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(environment)], check=True)
    python = environment / "bin" / "python"
    command = [str(python), "-m", "pip", "install", "--disable-pip-version-check", "onnx", "onnxruntime"]
    subprocess.run(command, check=True)
    (site,) = environment.glob("lib/python*/site-packages")
    mask = (site / "cpuid_mask.so").absolute()
    build_mask(mask, isa)
    (site / "cpuid_mask.pth").write_text(f"import ctypes; ctypes.CDLL({str(mask)!r})\n", encoding="utf-8")
    for library in site.glob("onnxruntime/capi/onnxruntime_pybind11_state*.so"):
        replace_cpuid(library)
    (metadata,) = site.glob("onnxruntime-*.dist-info/METADATA")
    text = metadata.read_text(encoding="utf-8")
    metadata.write_text(re.sub(r"(?m)^(Version: .*)$", rf"\1+{isa}", text, count=1), encoding="utf-8")


def build_mask(library: Path, isa: str) -> None:
    """The library that answers the breakpoints."""
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", *ISAS[isa], str(MASK), "-o", str(library)], check=True)


def replace_cpuid(library: Path) -> None:
    """Each cpuid of an ELF library becomes a breakpoint, in place. Raises QccError where there is none."""
    code = bytearray(library.read_bytes())
    segments = [line.split() for line in _lines("readelf", "-lW", str(library)) if " LOAD " in line]
    found = 0
    for line in _lines("objdump", "-d", "--no-show-raw-insn", str(library)):
        match = re.match(r"\s*([0-9a-f]+):\s+cpuid", line)
        if match:
            offset = _offset(int(match[1], 16), segments)
            if code[offset : offset + 2] != CPUID:
                raise QccError(f"{library.name}: no cpuid at {offset:#x}", hint="is it an x86-64 library?")
            code[offset : offset + 2] = BREAKPOINT
            found += 1
    if not found:
        raise QccError(f"{library.name} holds no cpuid instruction", hint="is it an x86-64 library?")
    library.write_bytes(code)


def _lines(*command: str) -> list[str]:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def _offset(address: int, segments: list[list[str]]) -> int:
    """In the file; a segment: LOAD, offset, virtual address, physical address, size in the file ..."""
    for _, offset, start, _, size, *_ in segments:
        if 0 <= address - int(start, 16) < int(size, 16):
            return address - int(start, 16) + int(offset, 16)
    raise QccError(f"address {address:#x} lies in no segment", hint="is it an x86-64 library?")
