"""Target: what code is emitted for, with which kernels, and how it is built and run. A registry by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from qcc.backends.kernel import Call, Kernel, Step
from qcc.ir.errors import TargetError


@dataclass(frozen=True)
class Compiler:
    """How to call one C compiler: ``argv`` before all other arguments, ``install``: how to get it."""

    argv: tuple[str, ...]
    install: str


@dataclass(frozen=True)
class Generated:
    """The function of a step that ``Target.generate`` writes: its name, and what it computes."""

    symbol: str
    kernel: Kernel
    step: Step
    call: Call


@dataclass(frozen=True)
class Scripts:
    """``written``: the generated functions, in the language of their generator, go into a file beside the rest; ``replaced``:
    such a file, whose functions take the place of the generated ones with the same names; ``tuned``: results of ``Target.tune``,
    by which functions are made.
    """

    written: bool = False
    replaced: Path | None = None
    tuned: Path | None = None


@dataclass(frozen=True)
class Tuning:
    """How the functions that a target generates are tuned.

    ``file``: of the results, which are added to; ``rpc``: host, port and key of the tracker whose machines measure, None for
    this machine; ``trials``: the most that are measured for a function.
    """

    file: Path
    rpc: tuple[str, int, str] | None = None
    trials: int = 32


# The name of the library and its functions, to files by name.
Generate = Callable[[str, Sequence[Generated], Scripts], Mapping[str, str]]
Progress = Callable[[str, int, int], None]
Tune = Callable[["Target", Sequence[Generated], Tuning, Progress], None]


@dataclass(frozen=True)
class Target:
    """A processor and the way to its programs.

    ``compilers``: tried in order, the first one that is installed is used; ``flags``: for every compilation;
    ``link_flags``: for programs; ``runner``: argv before a program's path, empty where programs run as they are;
    ``runner_install``: how to get the runner; ``is_native``: shared libraries can be loaded into this process;
    ``kernels``: rows in order of preference at equal priority; ``alignment``: of the arena and of every buffer in it;
    ``features``: instruction sets the code uses; that of a native target runs only where the processor has them all;
    ``peak``: C file of ``double qcc_peak(long rounds)``, which does, and returns the number of, multiply-accumulates of
    8-bit integers as fast as the instructions allow: for benchmarks;
    ``channel_granularity``: what removed channels may leave behind is a multiple of this, as the kernels read them;
    ``semihosting``: programs have no operating system, files and exit go through the debugger; ``linker_script``: theirs,
    a file of backends/c/runtime; ``generate``: writes the functions of rows that are generated: NAME_kernels.h with their
    prototypes, and assembler files; ``tune``: measures what these functions may be made by, see ``Tuning``.
    """

    name: str
    description: str
    compilers: tuple[Compiler, ...]
    kernels: tuple[Kernel, ...]
    flags: tuple[str, ...] = ("-O3",)
    link_flags: tuple[str, ...] = ()
    runner: tuple[str, ...] = ()
    runner_install: str = ""
    is_native: bool = False
    alignment: int = 16
    features: tuple[str, ...] = ()
    peak: Path | None = None
    channel_granularity: int = 1
    semihosting: bool = False
    linker_script: str = ""
    generate: Generate | None = None
    tune: Tune | None = None


TARGETS: dict[str, Target] = {}


def register_target(target: Target) -> Target:
    """Enter a target under its name; ValueError when the name is taken."""
    if target.name in TARGETS:
        raise ValueError(f"target {target.name} is registered twice")
    TARGETS[target.name] = target
    return target


def register_kernel(kernel: Kernel, *targets: str) -> Kernel:
    """Add a row to the tables of ``targets``, by default of all that there are; it competes like any other row.

    Targets made of one of these afterwards have it too. Raises TargetError for an unknown target.
    """
    for name in targets or tuple(TARGETS):
        target = find_target(name)
        TARGETS[name] = replace(target, kernels=(kernel, *target.kernels))
    return kernel


def find_target(name: str) -> Target:
    """The registered target; TargetError lists the known ones."""
    if name not in TARGETS:
        raise TargetError(f"unknown target {name!r}", hint=f"known targets: {', '.join(TARGETS)}")
    return TARGETS[name]
