"""Instruction sets that the schedules are written for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Isa:
    """What a schedule depends on.

    ``base``: the target of qcc whose compiler and processor it takes; ``llvm``: TVM's description of the processor; ``lanes``:
    s32 sums of a vector; ``dot``: name of the tensor intrinsic, four products into each of these, for the quad of one pixel;
    ``lanes_dot``: the same for a quad of each lane; ``centre``: added to an
    activation to make it what the intrinsic multiplies (128 where it takes u8, 0 for s8); ``registers``: vectors of sums that
    a tile may hold.
    """

    name: str
    base: str
    llvm: tuple[tuple[str, str | tuple[str, ...]], ...]
    lanes: int
    dot: str
    lanes_dot: str
    centre: int
    registers: int


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
        "qcc.dot.vpdpbusd",
        "qcc.lanes_dot.vpdpbusd",
        128,
        24,
    ),
    Isa(
        "arm-neon-dotprod",
        "arm-neon-dotprod",
        (("kind", "llvm"), ("mtriple", "aarch64-linux-gnu"), ("mattr", ("+v8.2a", "+dotprod"))),
        4,
        "qcc.dot.sdot",
        "qcc.lanes_dot.sdot",
        0,
        24,
    ),
)
