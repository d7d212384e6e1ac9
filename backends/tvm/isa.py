"""Instruction sets that the schedules are written for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Dot:
    """A tensor intrinsic ``name``: of ``pixels`` and ``channels``, products of ``bytes`` bytes of each with each."""

    name: str
    pixels: int
    channels: int
    bytes: int


@dataclass(frozen=True)
class Isa:
    """What a schedule depends on.

    ``base``: the target of qcc whose compiler and processor it takes; ``llvm``: TVM's description of the processor;
    ``lanes``: s32 sums of a vector; ``dots``: of which the first is taken whose pixels divide those of a row;
    ``lanes_dot``: name of the tensor intrinsic for a quad of each lane; ``centre``: added to an activation to make it
    what the intrinsic multiplies (128 where it takes u8, 0 for s8); ``registers``: vectors of sums that a tile may hold.
    """

    name: str
    base: str
    llvm: tuple[tuple[str, str | tuple[str, ...]], ...]
    lanes: int
    dots: tuple[Dot, ...]
    lanes_dot: str
    centre: int
    registers: int

    def dot(self, columns: int) -> Dot:
        """The one for rows of ``columns`` pixels."""
        return next(d for d in self.dots if columns % d.pixels == 0)


_SDOT = Dot("qcc.dot.sdot", 1, 4, 4)
ISAS = (
    Isa(
        "x86-avx512vnni",
        "x86-avx512vnni",
        (
            ("kind", "llvm"),
            ("mtriple", "x86_64-linux-gnu"),
            ("mcpu", "cascadelake"),
            ("mattr", ("-prefer-256-bit",)),
        ),
        16,
        (Dot("qcc.dot.vpdpbusd", 1, 16, 4),),
        "qcc.lanes_dot.vpdpbusd",
        128,
        24,
    ),
    Isa(
        "arm-neon-dotprod",
        "arm-neon-dotprod",
        (("kind", "llvm"), ("mtriple", "aarch64-linux-gnu"), ("mattr", ("+v8.2a", "+dotprod"))),
        4,
        (_SDOT,),
        "qcc.lanes_dot.sdot",
        0,
        24,
    ),
    Isa(
        "arm-neon-i8mm",
        "arm-neon-i8mm",
        (("kind", "llvm"), ("mtriple", "aarch64-linux-gnu"), ("mattr", ("+v8.2a", "+dotprod", "+i8mm"))),
        4,
        (Dot("qcc.dot.smmla", 2, 2, 8), _SDOT),
        "qcc.lanes_dot.sdot",
        0,
        24,
    ),
)
