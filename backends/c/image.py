"""What a library is made of: its linked image, read with the compiler's own tools.

``measure`` links the library alone, from NAME_run, with what it needs of the compiler's run-time library. From the image
come the sizes of the sections and the calls between functions, from -fstack-usage the frame of each function; those of
the run-time library of Cortex-M compilers come from their instructions (frames.py).
``float_code`` finds instructions and functions that compute with floating-point numbers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from qcc.backends.c.build import compiler_tool, link_alone, link_objects, run_tool
from qcc.backends.c.frames import Instruction, compiled_frames, merge_loops
from qcc.backends.target import Target
from qcc.ir.errors import TargetError

MEMORY_FUNCTIONS = frozenset({"memcpy", "memmove", "memset", "memcmp"})  # a compiler may call them by itself
TOOL_SECONDS = 120
POINTER = "(a pointer)"
UNKNOWN = "(unknown)"

_SECTION = re.compile(r"^\s*\d+ (\S+)\s+([0-9a-f]+) .*\n\s+(.*)$", re.MULTILINE)
_FUNCTION = re.compile(r"^([0-9a-f]+) <(.+)>:$")
_INSTRUCTION = re.compile(r"^\s*([0-9a-f]+):\t(\S*)\s*(.*)$")
_CALLED = re.compile(r"<([^>+-]+)>")
_BRANCH = re.compile(r"^(b|call|jmp|j[a-z]{1,3}$|cb|tb)")
_INDIRECT = re.compile(r"^(blr|blx)\s+[rx]|^call\s+\*")
_ARM_FLOAT = re.compile(r"\.b?f(16|32|64)\b")
_LONG_SHIFT = re.compile(r"0xea[45]")  # of Armv8.1-M, for integers; binutils 2.40 does not know all of them
_A64_FLOAT = re.compile(r"^(f(?!mov)|[su]cvtf|bf(dot|ml|cvt))|^fmov \S+, #")
_X86_FLOAT = re.compile(
    r"^v?(u?comi|cvt|add|sub|mul|div|sqrt|min|max|cmp\w*|round|rndscale|scalef|rcp\w*|rsqrt\w*|h?add|dp|fn?m\w+)"
    r"\w*(ss|sd|ps|pd)$|^v?cvt|^v?u?comi|^f(?!xsave|xrstor)"
)
_FLOAT_FUNCTION = re.compile(
    r"^__aeabi_([fd](?!pu)\w*|c[fd]\w+|u?[il]2[fd]|h2[fd]\w*)$|^__\w+[hsdxt][fc][hsdxt]?[fi]?[234]?$|^__(gnu_)?[fh]2[hf]"
)


@dataclass(frozen=True)
class Footprint:
    """Bytes of a library. ``text``: code; ``rodata``: constants; ``data``: initialized variables, ``bss``: the others.

    ``constants``: the share of weights and tables in ``rodata``; ``arena``: working memory of a call; ``stack``: at most,
    along ``deepest``, a chain of calls; ``unmeasured``: functions without a known frame, which count as 0: with them, and with
    calls through pointers, the stack is a lower bound. ``external``: functions that an application must have; their frames are
    those of the compiler's C library.
    ``float_code``: what computes with floats, at most 20 lines of it.
    """

    text: int
    rodata: int
    data: int
    bss: int
    constants: int
    arena: int
    stack: int
    deepest: tuple[str, ...]
    unmeasured: tuple[str, ...]
    external: tuple[str, ...]
    float_code: tuple[str, ...]

    @property
    def flash(self) -> int:
        """Bytes of read-only memory, with the initial values of variables."""
        return self.text + self.rodata + self.data

    @property
    def code(self) -> int:
        """Flash without weights and tables."""
        return self.flash - self.constants

    @property
    def ram(self) -> int:
        """Bytes of writable memory, without the stack."""
        return self.data + self.bss + self.arena

    def as_dict(self) -> dict[str, Any]:
        """Plain data, the sums too."""
        return {"flash": self.flash, "code": self.code, "ram": self.ram, **asdict(self)}

    def require_integers(self) -> None:
        """Raise TargetError where the code computes with floats."""
        if self.float_code:
            lines = "".join(f"\n  {line}" for line in self.float_code)
            raise TargetError(f"the built library computes with floats:{lines}")


def measure(
    folder: Path, target: Target, meta: Mapping[str, Any], build_folder: Path | None = None
) -> Footprint:
    """Build the library in ``folder`` alone, and look at it. ``meta``: see ``metadata_of``.

    Raises TargetError where it cannot be built here, or the compiler's tools are missing.
    """
    entry = f"{meta['name']}_run"
    build_folder = build_folder or folder / "build" / "alone"
    image = link_alone(folder, target, entry, build_folder)
    sections, code = section_bytes(image, target), disassemble(image, target)
    frames, calls = _frames(build_folder), calls_of(code)
    external = undefined_symbols(build_folder, image, target)
    if _is_bare_metal(target):
        stacked = code if not external else _with_c_library(code, target, entry, build_folder)
        measured = [name for name in calls if name.split(".")[0] in frames]
        for name, frame in merge_loops(compiled_frames(stacked, measured)).items():
            frames[name], calls[name] = frame.bytes, set(frame.entered)
        calls[entry] |= set(external)  # jumps to them do not show in the image
    stack, deepest, unmeasured = _deepest(entry, calls, frames)
    return Footprint(
        **sections,  # text, rodata, data, bss
        constants=meta["constant_bytes"],
        arena=meta["arena_bytes"],
        stack=stack + _red_zone(code),
        deepest=deepest,
        unmeasured=unmeasured,
        external=external,
        float_code=tuple(float_code(code, external, has_vectors=_has_vectors(target))[:20]),
    )


def _with_c_library(
    code: list[Instruction], target: Target, entry: str, build_folder: Path
) -> list[Instruction]:
    """``code``, and what the compiler's C library has of the functions that it misses, such as memset; if there is one."""
    objects = sorted(build_folder.glob("*.o"))
    try:
        image = link_objects(objects, target, entry, build_folder / "with_libc.elf", ["-lc"])
    except TargetError:
        return code
    known = {i.function for i in code}
    return [*code, *(i for i in disassemble(image, target) if i.function not in known)]


def section_bytes(image: Path, target: Target) -> dict[str, int]:
    """Bytes of ``text``, ``rodata``, ``data`` and ``bss``; what unwinding needs counts as rodata."""
    text = run_tool([compiler_tool(target, "objdump"), "-h", str(image)], TOOL_SECONDS)
    found = dict.fromkeys(("text", "rodata", "data", "bss"), 0)
    for _, size, flags in _SECTION.findall(text):
        if "ALLOC" in flags:
            kind = "bss" if "LOAD" not in flags else "text" if "CODE" in flags else "data"
            found["rodata" if kind == "data" and "READONLY" in flags else kind] += int(size, 16)
    return found


def disassemble(image: Path, target: Target) -> list[Instruction]:
    """All instructions, in order of their addresses; the mnemonic of what objdump does not know is UNKNOWN."""
    command = [compiler_tool(target, "objdump"), "-d", "--no-show-raw-insn", str(image)]
    found, function = [], ""
    for line in run_tool(command, TOOL_SECONDS).splitlines():
        if title := _FUNCTION.match(line):
            function = title[2]
        elif (match := _INSTRUCTION.match(line)) and not match[2].startswith("."):
            found.append(Instruction(int(match[1], 16), function, match[2] or UNKNOWN, match[3].strip()))
    return found


def calls_of(code: Iterable[Instruction]) -> dict[str, set[str]]:
    """The functions that each function calls or jumps to; POINTER for one behind a pointer."""
    calls: dict[str, set[str]] = {}
    for i in code:
        called = calls.setdefault(i.function, set())
        if _INDIRECT.match(i.text) and "lr" not in i.operands:
            called.add(POINTER)
        elif _BRANCH.match(i.mnemonic) and (name := _CALLED.search(i.operands)) and name[1] != i.function:
            called.add(name[1])
    return calls


def undefined_symbols(build_folder: Path, image: Path, target: Target) -> tuple[str, ...]:
    """What the objects in ``build_folder`` use and ``image`` does not define."""
    nm = compiler_tool(target, "nm")
    objects = sorted(map(str, build_folder.glob("*.o")))
    used = re.findall(r"^\s+[Uw] (\S+)$", run_tool([nm, "-u", *objects], TOOL_SECONDS), re.MULTILINE)
    defined = re.findall(
        r" [A-TV-Z] (\S+)$", run_tool([nm, str(image)], TOOL_SECONDS), re.MULTILINE | re.IGNORECASE
    )
    return tuple(sorted(set(used) - set(defined)))


def float_code(
    code: Sequence[Instruction], external: Iterable[str] = (), *, has_vectors: bool = True
) -> list[str]:
    """Instructions that compute with floats, and functions that do: each once, with where it is first.

    Moves of floating-point registers count only where the processor has no integer vectors (``has_vectors``), whose registers
    they are. Of functions the software floating-point ones of compilers count, and all ``external`` ones that are not
    of ``MEMORY_FUNCTIONS``.
    """
    found: dict[str, str] = {}
    for i in code:
        if _FLOAT_FUNCTION.match(i.function):
            found.setdefault(i.function, i.function)
        elif _computes_floats(i, has_vectors):
            found.setdefault(i.mnemonic, f"{i.text} in {i.function}")
    for name in sorted(set(external) - MEMORY_FUNCTIONS):
        found.setdefault(name, f"{name} is called")
    return list(found.values())


def _computes_floats(i: Instruction, has_vectors: bool) -> bool:
    if _ARM_FLOAT.search(i.mnemonic) or _A64_FLOAT.match(i.text):
        return True
    if i.mnemonic == UNKNOWN:
        return not _LONG_SHIFT.search(i.operands)
    if not has_vectors and i.mnemonic.startswith("v"):
        return True
    return bool(re.search(r"%(xmm|ymm|zmm|st)", i.operands) and _X86_FLOAT.match(i.mnemonic))


def _has_vectors(target: Target) -> bool:
    return not _is_bare_metal(target) or "mve" in target.features


def _is_bare_metal(target: Target) -> bool:
    return "arm-none-eabi" in " ".join(target.compilers[0].argv)


def _frames(build_folder: Path) -> dict[str, int]:
    """Bytes of stack of each function, by its name in C; the largest of those with one name. -1: not bounded."""
    frames: dict[str, int] = {}
    for file in sorted(build_folder.glob("*.su")):
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
            place, size, kind = line.split("\t")
            name = place.rsplit(":", 1)[1].split(".")[0]
            bounded = kind == "static" or "bounded" in kind
            frames[name] = max(frames.get(name, 0), int(size)) if bounded else -1
    return frames


def _red_zone(code: Iterable[Instruction]) -> int:
    """On x86-64 a function that calls none may use 128 bytes below its frame, which compilers do not count."""
    return 128 if any("%rsp" in i.operands for i in code) else 0


def _deepest(
    entry: str, calls: Mapping[str, set[str]], frames: Mapping[str, int]
) -> tuple[int, tuple[str, ...], tuple[str, ...]]:
    """The chain of calls from ``entry`` with the largest frames, and the functions without known ones."""
    unmeasured: set[str] = set()
    known: dict[str, tuple[int, tuple[str, ...]]] = {}

    def walk(name: str, above: tuple[str, ...]) -> tuple[int, tuple[str, ...]]:
        if name in above:
            raise TargetError(f"{name} calls itself: its stack has no bound")
        if name not in known:
            frame = frames.get(name, frames.get(name.split(".")[0], -1))
            if frame < 0:
                unmeasured.add(name)
            below = [walk(called, (*above, name)) for called in sorted(calls.get(name, ()))]
            size, chain = max(below, default=(0, ()), key=lambda found: found[0])
            known[name] = max(frame, 0) + size, (name, *chain)
        return known[name]

    size, chain = walk(entry, ())
    return size, chain, tuple(sorted(unmeasured))
