"""Graphs of many independent nodes, compiled as one program and called through ctypes."""

import ctypes
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import qcc.ir.ops  # noqa: F401  (fills the registry)
from qcc.backends.c.build import library_sources
from qcc.backends.c.emit import RUNTIME, EmitOptions, emit
from qcc.backends.program import Program, build_program
from qcc.backends.scalar import KERNELS
from qcc.backends.target import Target
from qcc.ir.builder import Builder
from qcc.ir.graph import Graph
from qcc.ir.interpreter import run
from qcc.ir.op import Case
from qcc.ir.ops.dense import Dense
from qcc.ir.ops.reduce import ReduceMean, ReduceSum
from qcc.ir.ops.softmax import Softmax
from qcc.ir.types import f32
from qcc.passes.base import PassContext
from qcc.passes.calibrate import Calibrate
from qcc.passes.choose_qparams import ChooseQParams
from qcc.passes.fuse_epilogues import FuseEpilogues
from qcc.passes.manager import run_pipeline
from qcc.passes.pipelines import PIPELINES
from qcc.passes.plan_accumulators import PlanAccumulators
from qcc.passes.quantize_ops import QuantizeOps

Array = NDArray[Any]
SCALAR = Target("kernel-tests", "portable C", (), KERNELS)
KERNEL_FILES = sorted({k.source for k in KERNELS})
WARNINGS = ("-Wall", "-Wextra", "-Wconversion", "-pedantic", "-Werror")


def float_graph(cases: Iterable[tuple[str, Case]]) -> Graph:
    """One graph with one independent node for each named case; each has inputs and an output of its own."""
    graph = Graph("cases")
    builder = Builder(graph)
    for name, case in cases:
        operands = []
        for index, array in enumerate(case.inputs):
            constant = index < len(case.constant) and case.constant[index]
            if array is None:
                operands.append(None)
            elif constant:
                operands.append(builder.constant(array, f"{name}_c{index}"))
            else:
                operands.append(graph.add_input(f"{name}_x{index}", f32(*array.shape)))
        graph.add_output(builder.emit(case.op, *operands, name=name), name)
    return graph


def integer_graph(
    graph: Graph, samples: dict[str, Array], int16: Iterable[str] = (), qspec: str = ""
) -> Graph:
    """The planned integer form of a float graph, calibrated on ``samples``, with 16 bits for the values ``int16``."""
    ctx = PassContext({"calibration": [samples]})
    choose = ChooseQParams(qspec, tuple(int16))
    for step in (FuseEpilogues(), Calibrate(), choose, QuantizeOps(), PlanAccumulators()):
        graph = step.run(graph, ctx).graph or graph
    return graph


def case_inputs(cases: Iterable[tuple[str, Case]]) -> dict[str, Array]:
    """The arrays of the cases, by input name, one sample."""
    return {
        f"{name}_x{index}": array[None]
        for name, case in cases
        for index, array in enumerate(case.inputs)
        if array is not None and not (index < len(case.constant) and case.constant[index])
    }


@dataclass
class Compiler:
    """Builds emitted programs; the objects of all kernels are compiled once."""

    folder: Path
    count: int = field(default=0)
    objects: list[Path] = field(default_factory=list)

    def compile_kernels(self) -> None:
        """Position-independent objects of every kernel."""
        objects = self.folder / "objects"
        objects.mkdir()
        command = ["gcc", "-std=c99", "-O2", "-fPIC", *WARNINGS, f"-I{RUNTIME}", "-c"]
        subprocess.run([*command, *map(str, KERNEL_FILES)], cwd=objects, check=True)
        self.objects = sorted(objects.glob("*.o"))

    def library(self, graph: Graph, io: str = "int8") -> "Library":
        """A shared library of ``graph``, loaded."""
        program, emitted = self.emitted(graph, io=io)
        path = emitted / "library.so"
        sources = [s for s in library_sources(emitted) if s.name.startswith(program.name)]
        command = ["gcc", "-std=c99", "-O0", "-fPIC", "-shared", *WARNINGS, f"-I{emitted}", "-o", str(path)]
        subprocess.run([*command, *map(str, [*sources, *self.objects])], check=True)
        return Library(program, ctypes.CDLL(str(path)))

    def emitted(
        self, graph: Graph, options: EmitOptions | None = None, io: str = "int8"
    ) -> tuple[Program, Path]:
        """The program of ``graph`` and the folder of its C files."""
        self.count += 1
        program = build_program(graph, SCALAR, f"cases{self.count}", io)
        return program, emit(program, self.folder / program.name, options)

    def sanitized(self, graph: Graph, inputs: dict[str, Array]) -> "subprocess.CompletedProcess[str]":
        """The program's own test of one sample, under gcc's sanitizers."""
        program = build_program(graph, SCALAR, "sanitized")
        expected = run(program.graph, inputs)
        packed = pack(program, inputs)
        outputs = np.zeros(program.output_bytes, np.uint8)
        for port in program.outputs:
            data = np.ascontiguousarray(expected[port.name]).view(np.uint8).reshape(-1)
            outputs[port.offset : port.offset + data.size] = data
        _, emitted = self.emitted(graph, EmitOptions(vectors=[(packed, outputs)]))
        command = [
            "gcc",
            "-std=c99",
            "-O0",
            "-g",
            "-fsanitize=address,undefined",
            "-fno-sanitize-recover=all",
        ]
        sources = [str(p) for p in (*library_sources(emitted), emitted / "test_main.c")]
        subprocess.run([*command, f"-I{emitted}", "-o", str(emitted / "test"), *sources], check=True)
        return subprocess.run([str(emitted / "test")], check=False, capture_output=True, text=True)


def pack(program: Program, inputs: dict[str, Array]) -> NDArray[np.uint8]:
    """The input block of one sample."""
    block = np.zeros(program.input_bytes, np.uint8)
    for port in program.inputs:
        data = np.ascontiguousarray(inputs[port.name][0]).view(np.uint8).reshape(-1)
        block[port.offset : port.offset + data.size] = data
    return block


@dataclass
class Library:
    """A loaded program."""

    program: Program
    handle: ctypes.CDLL

    def run(self, inputs: dict[str, Array]) -> dict[str, Array]:
        """One sample in, one out, by name: [1, *shape]."""
        program = self.program
        arena = aligned(program.plan.arena_bytes, program.target.alignment)
        block = aligned(program.input_bytes, 16)
        block[:] = pack(program, inputs)
        result = aligned(program.output_bytes, 16)
        entry = getattr(self.handle, f"{program.name}_run")
        assert entry(*(ctypes.c_void_p(a.ctypes.data) for a in (arena, block, result))) == 0
        outputs = {}
        for port in program.outputs:
            type_ = port.value.type
            data = result[port.offset : port.offset + type_.bytes].copy()
            outputs[port.name] = data.view(type_.dtype.numpy).reshape(1, *type_.shape)
        return outputs


def aligned(count: int, alignment: int) -> NDArray[np.uint8]:
    """Bytes at an aligned address; never empty."""
    space = np.zeros(count + alignment, np.uint8)
    start = -space.ctypes.data % alignment
    return space[start : start + count]


def wide_softmax(int16: Iterable[str] = ()) -> Graph:
    """A planned graph of three softmax ops that read accumulators: of a dense layer, of a mean, of a sum.

    ``int16``: of the inputs x, y, z and the results p, q, r, those in 16 bits.
    """
    graph = Graph("wide")
    rng = np.random.default_rng(0)
    builder = Builder(graph)
    x, y, z = (
        graph.add_input(n, f32(*shape)) for n, shape in (("x", (1, 9)), ("y", (1, 3, 4, 5)), ("z", (1, 6, 4)))
    )
    w = builder.constant(rng.normal(size=(7, 9)).astype(np.float32), "w")
    graph.add_output(builder.emit(Softmax(1), builder.emit(Dense(), x, w, name="a"), name="p"), "p")
    graph.add_output(builder.emit(Softmax(3), builder.emit(ReduceMean((1, 2)), y, name="b"), name="q"), "q")
    graph.add_output(builder.emit(Softmax(2), builder.emit(ReduceSum((1,)), z, name="c"), name="r"), "r")
    samples = {v.name: rng.normal(size=(20, *v.type.shape[1:])).astype(np.float32) for v in graph.inputs}
    chosen = f"choose-qparams{{int16=[{','.join(int16)}]}}"
    pipeline = PIPELINES["quantize"].replace("choose-qparams", chosen)
    return run_pipeline(graph, pipeline, PassContext({"calibration": [samples]}))
