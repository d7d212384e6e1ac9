"""Streams: the bytes of the interpreter in a smaller arena, whatever the heights, strides and paddings."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcc.backends import stream
from qcc.backends.bands import Reach, Rowwise, lead, row_bytes, rowwise, schedule
from qcc.backends.c.build import build_program as build_executable
from qcc.backends.c.build import run_program
from qcc.backends.c.emit import EmitOptions, emit
from qcc.backends.c.run import Library, load, load_traced
from qcc.backends.program import Program, build_program
from qcc.backends.select import select
from qcc.backends.target import Target, find_target
from qcc.ir import interpreter
from qcc.ir.errors import QccError, TargetError
from qcc.ir.graph import Graph, Value
from qcc.ir.ops.pool import MaxPool2d
from qcc.ir.ops.rearrange import Concat, Slice
from qcc.ir.types import DType, TensorType
from qcc.options import CompileOptions

Array = np.ndarray[Any, Any]
Nets = Callable[..., Any]


def layer(net: Any, x: Value, name: str, outputs: int, kernel: tuple[int, int], **attributes: Any) -> Value:
    result: Value = net.requantize(net.conv2d(x, outputs, kernel, name, **attributes), 2e4, name)
    return result


def mixed(integer_graph: Nets, seed: int) -> Any:
    """A chain of odd sizes: convolutions, pooling, a residual within, a concatenation, a table's worth of widths."""
    net = integer_graph(seed, "mixed")
    rng = np.random.default_rng(seed)
    x = net.input("x", 1, int(rng.integers(17, 33)), int(rng.integers(7, 13)), 3)
    top, bottom = (int(n) for n in rng.integers(0, 3, 2))
    a = layer(net, x, "stem", 8, (3, 3), strides=(int(rng.integers(1, 3)), 1), pads=(top, 1, bottom, 1))
    d = layer(net, a, "depthwise", 8, (3, 3), pads=(1, 1, 1, 1), groups=8)
    wide = layer(net, d, "wide", 24, (1, 1))
    r = net.conv2d(layer(net, wide, "narrow", 8, (1, 1)), 8, (5, 3), "back", pads=(2, 1, 2, 1))
    s = net.requantize(net.residual(r, d, "back"), 4e5, "back")
    t = net.requantize(net.add(s, a, "sum", per_channel=True), 1e6, "sum")
    assert t.type.qparams is not None
    pooled = net.builder.emit(
        MaxPool2d((3, 2), (2, 1), (1, 0, 1, 0)), t, name="pooled", qparams=t.type.qparams
    )
    strided = layer(net, pooled, "strided", 12, (1, 1), strides=(2, 2))
    joined = net.builder.emit(Concat(3), pooled, pooled, name="joined", qparams=pooled.type.qparams)
    steps = {"axes": (1, 2), "starts": (1, 0), "ends": (joined.type.shape[1], 5), "steps": (2, 1)}
    thin = net.builder.emit(Slice(**steps), joined, name="thin", qparams=pooled.type.qparams)
    last = layer(net, thin, "last", 4, (2, 2), dilations=(1, 1))
    for value in (last, strided):
        net.output(value)
    return net


def made(graph: Graph, target: Target, **options: Any) -> Program:
    return build_program(graph, target, graph.name, **options)


def assert_same(got: Any, expected: Any) -> None:
    for name, array in expected.items():
        np.testing.assert_array_equal(got[name], array, err_msg=name)


# ---------------------------------------------------------------- schedules, executed on row numbers
@st.composite
def chains(draw: st.DrawFn) -> tuple[int, list[Reach], int | None]:
    """The height of an input, what each step of a chain reads, and a step that also reads what the chain reads, or None."""
    height, reaches = draw(st.integers(5, 40)), []
    rows = height
    for _ in range(draw(st.integers(1, 5))):
        extent, stride = draw(st.integers(1, 5)), draw(st.integers(1, 3))
        pad = draw(st.integers(0, extent - 1))
        after = draw(st.integers(0, extent - 1))
        if (found := (rows + pad + after - extent) // stride + 1) < 2:
            break
        reaches.append(Reach(rows, stride, pad, extent))
        rows = found
    return height, reaches, rows if reaches else None


def fake_steps(height: int, reaches: list[Reach], rows: int, skip: bool) -> tuple[list[Rowwise], Value]:
    """Steps of images one pixel wide; with ``skip``, the last one reads the input too, where the heights are equal."""
    from_height = [r.height for r in reaches] + [rows]
    values = [Value(f"v{i}", TensorType(DType.S8, (1, h, 1, 1 + i % 3))) for i, h in enumerate(from_height)]
    steps = []
    for i, reach in enumerate(reaches):
        inputs, found = [values[i]], [reach]
        if skip and i == len(reaches) - 1 and rows == height:
            inputs.append(values[0])
            found.append(Reach(height))
        step = _Step(values[i + 1])
        steps.append(Rowwise(None, step, None, tuple(inputs), tuple(found)))  # type: ignore[arg-type]
    return steps, values[0]


class _Step:
    def __init__(self, output: Value) -> None:
        self.output = output


@settings(max_examples=300, deadline=None)
@given(chains(), st.integers(1, 7), st.booleans())
def test_rows_are_in_memory_when_they_are_read(
    chain: tuple[int, list[Reach], int | None], height: int, skip: bool
) -> None:
    tall, reaches, rows = chain
    if rows is None:
        return
    steps, x = fake_steps(tall, reaches, rows, skip)
    plan = schedule(steps, [False] * len(steps), height)
    out = steps[-1].step.output
    ahead = lead(steps, plan, x)
    assert 0 <= ahead <= out.type.bytes
    memory = {
        ahead + i: ("in", i // row_bytes(x)) for i in range(x.type.bytes)
    }  # the last result begins at 0
    rings: list[dict[int, int]] = [{} for _ in steps]
    for band in range(plan.bands):
        for i, step in enumerate(steps):
            start, end = plan.rows[i][band]
            if start == end:
                continue
            base = plan.bases[i][band]
            for value, reach in zip(step.values, step.reaches, strict=True):
                assert reach is not None
                for row in range(reach.first(start), reach.end(end)):
                    if value is x:
                        first = ahead + row * row_bytes(x)
                        assert all(memory[k] == ("in", row) for k in range(first, first + row_bytes(x)))
                    else:
                        assert rings[i - 1][row - plan.bases[i - 1][band]] == row
            if step is steps[-1]:
                for k in range(start * row_bytes(out), end * row_bytes(out)):
                    memory[k] = ("out", k // row_bytes(out))
                    # within a call, a kernel may read its rows after it wrote some
                    for value, reach in zip(step.values, step.reaches, strict=True):
                        if value is x and reach is not None:
                            assert k < ahead + reach.first(start) * row_bytes(x)
                assert end - start <= height
            else:
                kept = {row - base: row for row in rings[i].values() if row >= base}
                kept |= {row - base: row for row in range(start, end)}
                assert max(kept) < plan.capacity[i]
                rings[i] = kept
    assert plan.rows[-1][-1][1] == rows
    assert all(memory[k] == ("out", k // row_bytes(out)) for k in range(out.type.bytes))


def test_a_stream_holds_no_more_rows_than_it_needs() -> None:
    """3x3 convolutions with strides of 1, row by row: three rows of each map."""
    reaches = [Reach(20, 1, 1, 3)] * 3
    steps, _ = fake_steps(20, reaches, 20, False)
    assert schedule(steps, [False] * 3, 1).capacity == (3, 3, 20)


# ---------------------------------------------------------------- libraries
@pytest.mark.compiler
@pytest.mark.parametrize("seed", range(4))
def test_streams_give_the_bytes_of_the_interpreter(
    seed: int, integer_graph: Nets, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    net = mixed(integer_graph, seed)
    samples = net.samples(3)
    monkeypatch.setattr(stream, "HEIGHTS", (seed + 1,))
    program = made(net.graph, find_target("c"), stream="on")
    assert program.streams
    assert program.plan.arena_bytes < program.unstreamed_bytes
    library = load(emit(program, tmp_path / "mixed"), find_target("c"))
    assert isinstance(library, Library)
    for _ in range(2):  # nothing is left behind
        assert_same(library.run(samples), interpreter.run(program.graph, samples))
    library.close()


@pytest.mark.compiler
@pytest.mark.parametrize(
    "name", ["cortex-m4", "cortex-m55", "arm-neon", "arm-neon-dotprod", "x86-avx2", "x86-avx512vnni"]
)
def test_all_kernels_by_rows(
    name: str, integer_graph: Nets, target: Callable[[str], Target], tmp_path: Path
) -> None:
    found, net = target(name), mixed(integer_graph, 3)
    samples = net.samples(2)
    program = made(net.graph, found, stream="on")
    assert program.streams
    library = load(emit(program, tmp_path / name), found)
    assert_same(library.run(samples), interpreter.run(program.graph, samples))


@pytest.mark.compiler
def test_nothing_beyond_the_arena_is_touched(
    integer_graph: Nets, compiler_target: Callable[..., Target], tmp_path: Path
) -> None:
    net = mixed(integer_graph, 2)
    flags = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    found = compiler_target("gcc", *flags, "-Wall", "-Wextra", "-Wconversion", "-Wpedantic", "-Werror")
    program = made(net.graph, found, stream="on")
    samples = {name: array[2:] for name, array in net.samples(3).items()}
    results = interpreter.run(program.graph, samples)
    blocks = [np.zeros(n, np.uint8) for n in (program.input_bytes, program.output_bytes)]
    for block, ports, arrays in zip(
        blocks, (program.inputs, program.outputs), (samples, results), strict=True
    ):
        for port in ports:
            data = np.ascontiguousarray(arrays[port.name][0]).reshape(-1).view(np.uint8)
            block[port.offset : port.offset + data.size] = data
    folder = emit(program, tmp_path / "mixed", EmitOptions(vectors=[(blocks[0], blocks[1])]))
    run_program(build_executable(folder, found, [folder / "test_main.c"], tmp_path / "build"), found)


@pytest.mark.compiler
def test_the_input_may_lie_in_the_arena(integer_graph: Nets, tmp_path: Path) -> None:
    """There the last result of the first stream overwrites it."""
    net = integer_graph(5, "over")
    x = net.input("x", 1, 24, 8, 4)
    net.output(layer(net, layer(net, x, "a", 4, (3, 3), pads=(1, 1, 1, 1)), "b", 5, (3, 3)))
    samples = {name: array[2:] for name, array in net.samples(3).items()}
    program = made(net.graph, find_target("c"), stream="on")
    assert program.input_arena_offset < program.output_arena_offset + program.output_bytes
    assert program.output_arena_offset < program.input_arena_offset + program.input_bytes
    (wanted,) = interpreter.run(program.graph, samples).values()
    given, expected = (", ".join(map(str, array.reshape(-1))) for array in (samples["x"], wanted))
    source = f"""
    #include "over.h"
    #include <string.h>
    static int8_t arena[OVER_ARENA_BYTES] __attribute__((aligned(OVER_ARENA_ALIGN)));
    static const int8_t given[] = {{{given}}};
    static const int8_t wanted[] = {{{expected}}};
    int main(void) {{
      int8_t *const out = arena + OVER_OUTPUT_ARENA_OFFSET;
      memcpy(arena + OVER_INPUT_ARENA_OFFSET, given, sizeof given);
      return over_run(arena, arena + OVER_INPUT_ARENA_OFFSET, out) || memcmp(out, wanted, sizeof wanted);
    }}"""
    folder = emit(program, tmp_path / "over")
    main = tmp_path / "main.c"
    main.write_text(source)
    run_program(
        build_executable(folder, find_target("c"), [main], tmp_path / "build", (f"-I{folder}",)),
        find_target("c"),
    )


@pytest.mark.compiler
def test_a_trace_leaves_out_what_is_never_whole(integer_graph: Nets, tmp_path: Path) -> None:
    net = mixed(integer_graph, 1)
    program = made(net.graph, find_target("c"), stream="on")
    samples = net.samples(2)
    folder = emit(program, tmp_path / "mixed")
    results: dict[str, Array] = {}
    interpreter.run(program.graph, samples, observe=lambda v, array: results.update({v.name: array}))
    traced = load_traced(folder, find_target("c")).run(samples)
    assert set(traced) == {op.step.output.name for op in program.operations if op.is_whole}
    assert len(traced) < len(program.operations)
    assert_same(traced, {name: results[name] for name in traced})
    record = json.loads((folder / "mixed.json").read_text())
    assert record["arena_unstreamed_bytes"] > record["arena_bytes"] >= record["arena_lower_bound_bytes"]
    assert [s["bands"] for s in record["streams"]] == [s.schedule.bands for s in program.streams]


# ---------------------------------------------------------------- choice
def test_streams_are_for_those_who_want_them(integer_graph: Nets) -> None:
    net = mixed(integer_graph, 3)
    plain = made(net.graph, find_target("c"))
    assert not plain.streams
    assert not made(net.graph, find_target("c"), stream="auto").streams
    assert not made(net.graph, find_target("c"), stream="on", threads=2).streams
    small = made(net.graph, find_target("cortex-m4"), stream="auto")
    assert not small.streams or small.plan.arena_bytes < small.unstreamed_bytes


def test_a_budget_takes_the_cheapest_streams_that_fit(integer_graph: Nets) -> None:
    net, found = mixed(integer_graph, 3), find_target("c")
    plain, least = made(net.graph, found), made(net.graph, found, stream="on")
    assert not made(net.graph, found, stream="auto", ram=plain.plan.arena_bytes).streams
    between = (plain.plan.arena_bytes + least.plan.arena_bytes) // 2
    fitting = made(net.graph, found, stream="auto", ram=between)
    assert fitting.plan.arena_bytes <= between
    cost = [sum(s.instructions for s in p.streams) for p in (fitting, least)]
    assert 0 < cost[0] <= cost[1]
    with pytest.raises(TargetError, match=f"at least {least.plan.arena_bytes} bytes, more than the 100 "):
        made(net.graph, found, stream="auto", ram=100)
    with pytest.raises(TargetError, match=f"at least {plain.plan.arena_bytes} bytes") as error:
        made(net.graph, found, stream="off", ram=between)
    assert "streams" in str(error.value.hint)


def test_rows_that_see_padding_only_refuse(integer_graph: Nets) -> None:
    net = integer_graph(0, "net")
    x = net.input("x", 1, 9, 5, 3)
    net.output(layer(net, x, "a", 4, (3, 3), pads=(6, 1, 5, 1)))
    (selection,) = select(net.graph, find_target("c").kernels)
    assert rowwise(selection.kernel, selection.step, selection.kernel.lower(selection.step)) is None


def test_unknown_mode() -> None:
    with pytest.raises(QccError, match="unknown stream 'maybe'"):
        CompileOptions(stream="maybe")  # type: ignore[arg-type]
