"""Tensor intrinsics of ours: four products of 8-bit integers into each s32 lane of a vector.

Written as one nested expression each: an assignment inside would become a buffer of its own.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from tvm import tirx
from tvm.s_tir import TensorIntrin
from tvm.script import tirx as T  # noqa: N812


@T.prim_func(s_tir=True)
def _vpdpbusd_meaning(
    x: T.Buffer((4,), "uint8", offset_factor=1),
    w: T.Buffer((16, 4), "int8", offset_factor=1),
    acc: T.Buffer((16,), "int32", offset_factor=1),
) -> None:
    with T.sblock("root"):
        T.reads(acc[0:16], x[0:4], w[0:16, 0:4])
        T.writes(acc[0:16])
        for i in T.serial(0, 16):
            for k in T.serial(0, 4):
                with T.sblock("update"):
                    vi, vk = T.axis.remap("SR", [i, k])
                    acc[vi] = acc[vi] + T.cast(x[vk], "int32") * T.cast(w[vi, vk], "int32")


@T.prim_func(s_tir=True)
def _vpdpbusd(
    x: T.Buffer((4,), "uint8", offset_factor=1),
    w: T.Buffer((16, 4), "int8", offset_factor=1),
    acc: T.Buffer((16,), "int32", offset_factor=1),
) -> None:
    with T.sblock("root"):
        T.reads(acc[0:16], x[0:4], w[0:16, 0:4])
        T.writes(acc[0:16])
        acc[T.ramp(T.int32(0), 1, 16)] = T.call_llvm_pure_intrin(
            T.llvm_lookup_intrinsic_id("llvm.x86.avx512.vpdpbusd.512"),
            acc.vload([0], dtype="int32x16"),
            T.reinterpret(
                T.broadcast(T.reinterpret(x.vload([0], "uint8x4"), dtype="int32"), 16), dtype="uint8x64"
            ),
            w.vload([0, 0], dtype="int8x64"),
            dtype="int32x16",
        )


@T.prim_func(s_tir=True)
def _sdot_meaning(
    x: T.Buffer((4,), "int8", offset_factor=1),
    w: T.Buffer((4, 4), "int8", offset_factor=1),
    acc: T.Buffer((4,), "int32", offset_factor=1),
) -> None:
    with T.sblock("root"):
        T.reads(acc[0:4], x[0:4], w[0:4, 0:4])
        T.writes(acc[0:4])
        for i in T.serial(0, 4):
            for k in T.serial(0, 4):
                with T.sblock("update"):
                    vi, vk = T.axis.remap("SR", [i, k])
                    acc[vi] = acc[vi] + T.cast(x[vk], "int32") * T.cast(w[vi, vk], "int32")


@T.prim_func(s_tir=True)
def _sdot(
    x: T.Buffer((4,), "int8", offset_factor=1),
    w: T.Buffer((4, 4), "int8", offset_factor=1),
    acc: T.Buffer((4,), "int32", offset_factor=1),
) -> None:
    with T.sblock("root"):
        T.reads(acc[0:4], x[0:4], w[0:4, 0:4])
        T.writes(acc[0:4])
        acc[T.ramp(T.int32(0), 1, 4)] = T.call_llvm_pure_intrin(
            T.llvm_lookup_intrinsic_id("llvm.aarch64.neon.sdot.v4i32.v16i8"),
            acc.vload([0], dtype="int32x4"),
            T.reinterpret(
                T.broadcast(T.reinterpret(x.vload([0], "int8x4"), dtype="int32"), 4), dtype="int8x16"
            ),
            w.vload([0, 0], dtype="int8x16"),
            dtype="int32x4",
        )


@T.prim_func(s_tir=True)
def _smmla_meaning(
    x: T.Buffer((2, 8), "int8", offset_factor=1),
    w: T.Buffer((2, 8), "int8", offset_factor=1),
    acc: T.Buffer((2, 2), "int32", offset_factor=1),
) -> None:
    with T.sblock("root"):
        T.reads(acc[0:2, 0:2], x[0:2, 0:8], w[0:2, 0:8])
        T.writes(acc[0:2, 0:2])
        for j in T.serial(0, 2):
            for i in T.serial(0, 2):
                for k in T.serial(0, 8):
                    with T.sblock("update"):
                        vj, vi, vk = T.axis.remap("SSR", [j, i, k])
                        acc[vj, vi] = acc[vj, vi] + T.cast(x[vj, vk], "int32") * T.cast(w[vi, vk], "int32")


@T.prim_func(s_tir=True)
def _smmla(
    x: T.Buffer((2, 8), "int8", offset_factor=1),
    w: T.Buffer((2, 8), "int8", offset_factor=1),
    acc: T.Buffer((2, 2), "int32", offset_factor=1),
) -> None:
    with T.sblock("root"):
        T.reads(acc[0:2, 0:2], x[0:2, 0:8], w[0:2, 0:8])
        T.writes(acc[0:2, 0:2])
        acc.vstore(
            [0, 0],
            T.call_llvm_pure_intrin(
                T.llvm_lookup_intrinsic_id("llvm.aarch64.neon.smmla.v4i32.v16i8"),
                acc.vload([0, 0], dtype="int32x4"),
                x.vload([0, 0], dtype="int8x16"),
                w.vload([0, 0], dtype="int8x16"),
                dtype="int32x4",
            ),
        )


def _lanes_dot(lanes: int, code: str, intrinsic: str) -> tuple[Any, Any]:
    """Vectors of quads on both sides: meaning, implementation."""
    bytes_ = 4 * lanes

    @T.prim_func(s_tir=True)
    def meaning(
        x: T.Buffer((lanes, 4), code, offset_factor=1),
        w: T.Buffer((lanes, 4), "int8", offset_factor=1),
        acc: T.Buffer((lanes,), "int32", offset_factor=1),
    ) -> None:
        with T.sblock("root"):
            T.reads(acc[0:lanes], x[0:lanes, 0:4], w[0:lanes, 0:4])
            T.writes(acc[0:lanes])
            for i in T.serial(0, lanes):
                for k in T.serial(0, 4):
                    with T.sblock("update"):
                        vi, vk = T.axis.remap("SR", [i, k])
                        acc[vi] = acc[vi] + T.cast(x[vi, vk], "int32") * T.cast(w[vi, vk], "int32")

    @T.prim_func(s_tir=True)
    def implementation(
        x: T.Buffer((lanes, 4), code, offset_factor=1),
        w: T.Buffer((lanes, 4), "int8", offset_factor=1),
        acc: T.Buffer((lanes,), "int32", offset_factor=1),
    ) -> None:
        with T.sblock("root"):
            T.reads(acc[0:lanes], x[0:lanes, 0:4], w[0:lanes, 0:4])
            T.writes(acc[0:lanes])
            acc[T.ramp(T.int32(0), 1, lanes)] = T.call_llvm_pure_intrin(
                T.llvm_lookup_intrinsic_id(intrinsic),
                acc.vload([0], dtype=f"int32x{lanes}"),
                x.vload([0, 0], dtype=f"{code}x{bytes_}"),
                w.vload([0, 0], dtype=f"int8x{bytes_}"),
                dtype=f"int32x{lanes}",
            )

    return meaning, implementation


INTERLEAVED = [tirx.IntImm("int32", 16 * (i % 4) + i // 4) for i in range(64)]


def _interleave(code: str) -> tuple[Any, Any]:
    """Four rows of 16 bytes to 16 quads: meaning, implementation."""

    @T.prim_func(s_tir=True)
    def meaning(
        x: T.Buffer((4, 16), code, offset_factor=1), y: T.Buffer((16, 4), code, offset_factor=1)
    ) -> None:
        with T.sblock("root"):
            T.reads(x[0:4, 0:16])
            T.writes(y[0:16, 0:4])
            for i in T.serial(0, 16):
                for k in T.serial(0, 4):
                    with T.sblock("copy"):
                        vi, vk = T.axis.remap("SS", [i, k])
                        y[vi, vk] = x[vk, vi]

    @T.prim_func(s_tir=True)
    def implementation(
        x: T.Buffer((4, 16), code, offset_factor=1), y: T.Buffer((16, 4), code, offset_factor=1)
    ) -> None:
        with T.sblock("root"):
            T.reads(x[0:4, 0:16])
            T.writes(y[0:16, 0:4])
            y.vstore([0, 0], T.Shuffle([x.vload([0, 0], dtype=f"{code}x64")], INTERLEAVED))

    return meaning, implementation


@cache
def register_intrinsics() -> None:
    """Enter them into TVM's registry, once."""
    TensorIntrin.register("qcc.dot.vpdpbusd", _vpdpbusd_meaning, _vpdpbusd)
    TensorIntrin.register("qcc.dot.sdot", _sdot_meaning, _sdot)
    TensorIntrin.register("qcc.dot.smmla", _smmla_meaning, _smmla)
    TensorIntrin.register("qcc.lanes_dot.vpdpbusd", *_lanes_dot(16, "uint8", "llvm.x86.avx512.vpdpbusd.512"))
    TensorIntrin.register("qcc.lanes_dot.sdot", *_lanes_dot(4, "int8", "llvm.aarch64.neon.sdot.v4i32.v16i8"))
    for code in ("uint8", "int8"):
        TensorIntrin.register(f"qcc.interleave.{code}", *_interleave(code))
