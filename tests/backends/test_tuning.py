"""Tuning: the fastest candidate wins, what is known is not measured again, and no file can do harm."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qcc.backends import tuning
from qcc.backends.c import run
from qcc.backends.c.emit import emit
from qcc.backends.c.metadata import metadata_of
from qcc.backends.kernel import Kernel
from qcc.backends.program import Program, build_program
from qcc.backends.select import Order
from qcc.backends.target import Target, find_target
from qcc.backends.x86.features import AVX512VNNI, OVERRIDE
from qcc.ir import interpreter
from qcc.ir.errors import TargetError
from qcc.ir.graph import Graph

Speeds = dict[str, dict[str, float]]  # microseconds by variant, by name of a step's output
GIVEN: Speeds = {"stem": {"small": 3.0, "wide": 2.0, "tall": 4.0}}
STEPS = ("stem", "depthwise", "point", "head")


def variants(kernel: Kernel, *names: str) -> list[Kernel]:
    """Rows of one function that differ in name and in estimate: the first one promises most."""
    return [
        replace(kernel, variant=name, priority=10, cost=lambda step, c=100.0 * (i + 1): c)
        for i, name in enumerate(names)
    ]


@pytest.fixture
def several() -> Target:
    """The portable target with three rows for convolutions."""
    c = find_target("c")
    conv = [k for k in c.kernels if k.symbol == "qcc_s8_conv2d_scalar"]
    rows = [row for kernel in conv for row in variants(kernel, "small", "wide", "tall")]
    return replace(c, name="several", kernels=(*rows, *c.kernels))


class Clock:
    """Stands for building and timing: gives ``speeds``, 1 microsecond where there is none, and counts its work."""

    def __init__(self, speeds: Speeds | None = None) -> None:
        self.speeds = speeds or {}
        self.programs: list[Program] = []

    def __call__(self, programs: Sequence[Program], progress: tuning.Progress) -> list[list[float]]:
        self.programs += programs
        return [
            [
                self.speeds.get(op.step.output.name, {}).get(op.kernel.variant, 1.0)
                for op in program.operations
            ]
            for program in programs
        ]

    def labels(self, step: str) -> list[str]:
        index = STEPS.index(step)
        return [p.operations[index].kernel.variant for p in self.programs]


@pytest.fixture
def tuned(
    several: Target, residual_net: Callable[[], Any], tmp_path: Path
) -> Callable[..., tuple[Program, Clock]]:
    """`tuned(speeds)`: the tuned program, and what measured it."""

    def make(speeds: Speeds | None = None, file: Path = tmp_path / "t.json") -> tuple[Program, Clock]:
        clock, graph = Clock(speeds), residual_net().graph
        order = tuning.tune(graph, several, "int8", file, measure=clock)
        return build_program(graph, several, "net", order=order), clock

    return make


def kernels(program: Program) -> dict[str, str]:
    return {op.step.output.name: op.kernel.variant for op in program.operations}


# ---------------------------------------------------------------- choosing
def test_the_fastest_is_chosen_and_all_are_listed(tuned: Callable[..., tuple[Program, Clock]]) -> None:
    program, clock = tuned(GIVEN)
    assert kernels(program) == {"stem": "wide", "depthwise": "small", "point": "small", "head": ""}
    assert clock.labels("stem") == clock.labels("point") == ["small", "wide", "tall"]
    stem = program.operations[0]
    assert [(c.kernel.variant, c.microseconds) for c in stem.candidates] == [
        ("wide", 2.0),
        ("small", 3.0),
        ("tall", 4.0),
        ("", None),  # the portable row is not worth a measurement
    ]
    assert [c.kernel.variant for c in stem.beaten] == ["small", "tall"]
    layer = metadata_of(program, 0)["layers"][0]
    assert (layer["kernel"], layer["cycles"], layer["microseconds"]) == ("qcc_s8_conv2d_scalar[wide]", 200, 2)
    assert layer["beaten"][1] == {
        "kernel": "qcc_s8_conv2d_scalar[tall]",
        "cycles": 300,
        "microseconds": 4.0,
    }
    head = metadata_of(program, 0)["layers"][3]
    assert "microseconds" not in head
    assert head["beaten"] == []


def test_the_best_estimate_stays_where_times_are_nearly_equal(
    tuned: Callable[..., tuple[Program, Clock]],
) -> None:
    speeds = {"stem": {"small": 9.00, "wide": 8.90, "tall": 8.85}, "point": {"small": 0.10, "wide": 0.09}}
    program, _ = tuned(speeds)
    assert kernels(program)["stem"] == kernels(program)["point"] == "small"


def test_only_portable_rows_compete_with_each_other(residual_net: Callable[[], Any], tmp_path: Path) -> None:
    c = find_target("c")
    (dense,) = (k for k in c.kernels if k.symbol == "qcc_s8_dense_scalar" and k.pattern == "dense+requantize")
    other = replace(dense, variant="other")
    target = replace(c, kernels=(*c.kernels, other))
    clock = Clock({"head": {"": 2.0, "other": 1.0}})
    order = tuning.tune(residual_net().graph, target, "int8", tmp_path / "t.json", measure=clock)
    program = build_program(residual_net().graph, target, "net", order=order)
    assert kernels(program)["head"] == "other"
    assert len(clock.programs) == 2


# ---------------------------------------------------------------- what is remembered
def test_what_the_file_knows_is_not_measured(tuned: Callable[..., tuple[Program, Clock]]) -> None:
    first, _ = tuned(GIVEN)
    again, clock = tuned({"stem": {"small": 0.1}})
    assert clock.programs == []
    assert kernels(again) == kernels(first)


def test_only_steps_that_are_not_known_are_entered_again(
    tuned: Callable[..., tuple[Program, Clock]], tmp_path: Path
) -> None:
    tuned(GIVEN)
    file = tmp_path / "t.json"
    content = json.loads(file.read_text())
    key = next(k for k, labels in content["microseconds"].items() if 2.0 in labels.values())
    for broken in ([1, 2], {"qcc_s8_conv2d_scalar[wide]": "fast"}, {"foreign": 1.0}, None):
        content["microseconds"][key] = broken
        file.write_text(json.dumps(content))
        program, clock = tuned(GIVEN)
        assert kernels(program)["stem"] == "wide"
        assert len(clock.programs) == 3
        content = json.loads(file.read_text())
        assert content["microseconds"][key]["qcc_s8_conv2d_scalar[wide]"] == 2.0


def test_the_file_keeps_what_others_wrote_meanwhile(
    several: Target, residual_net: Callable[[], Any], tmp_path: Path
) -> None:
    file = tmp_path / "new" / "t.json"
    foreign = {"format": tuning.FORMAT, "microseconds": {"other": {"k": 1.0}}}

    def measure(programs: Sequence[Program], progress: tuning.Progress) -> list[list[float]]:
        file.write_text(json.dumps(foreign))
        return Clock()(programs, progress)

    tuning.tune(residual_net().graph, several, "int8", file, measure=measure)
    found = json.loads(file.read_text())["microseconds"]
    assert found["other"] == {"k": 1.0}
    assert len(found) == 1 + 3  # the head has one kernel
    assert [p.name for p in file.parent.iterdir()] == ["t.json"]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": "other"}', "[" * 100_000, "\x89PNG"])
def test_a_file_of_something_else_is_refused_and_left_alone(
    tuned: Callable[..., tuple[Program, Clock]], tmp_path: Path, content: str
) -> None:
    file = tmp_path / "t.json"
    file.write_text(content)
    with pytest.raises(
        TargetError, match=r"t\.json is no file of tuning results.*\nhint: remove it, or name"
    ):
        tuned(GIVEN)
    assert file.read_text() == content


def test_a_file_that_cannot_be_written_is_an_error(
    tuned: Callable[..., tuple[Program, Clock]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(Clock, "__call__", lambda *args: pytest.fail("measured in vain"))
    with pytest.raises(TargetError, match=r"cannot write .*t\.json: .*\nhint: name another"):
        tuned(GIVEN, tmp_path / "file" / "t.json")
    with pytest.raises(TargetError, match="is no file of tuning results"):
        tuned(GIVEN, tmp_path)  # a folder


def test_default_file_is_in_the_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert tuning.default_file() == tmp_path / "qcc" / "tuning.json"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert tuning.default_file() == Path.home() / ".cache" / "qcc" / "tuning.json"


# ---------------------------------------------------------------- what a time belongs to
def test_signature_has_shapes_and_attributes_but_no_numbers(integer_graph: Callable[..., Any]) -> None:
    def signature(seed: int, size: int = 6, **attributes: Any) -> str:
        net = integer_graph(seed)
        net.zero_point = lambda: 3  # padding has this value
        acc = net.conv2d(net.input("x", 1, size, size, 3), 8, (3, 3), f"conv{seed}", **attributes)
        net.output(net.requantize(acc, 2e4, "y"))
        (operation,) = build_program(net.graph, find_target("c"), "net").operations
        return tuning.signature(operation.step)

    assert signature(1) == signature(2)
    assert len({signature(1), signature(1, 7), signature(1, strides=(2, 2))}) == 3


@pytest.mark.parametrize("change", ["compiler", "kernel", "row", "target"])
def test_a_change_of_what_is_timed_means_measuring_again(
    several: Target,
    residual_net: Callable[[], Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: str,
) -> None:
    graph, file = residual_net().graph, tmp_path / "t.json"
    tuning.tune(graph, several, "int8", file, measure=Clock())
    rows = several.kernels
    if change == "compiler":
        monkeypatch.setattr(tuning, "run_tool", lambda command: "cc (other) 99.0\n")
    elif change == "kernel":
        edited = tmp_path / "edited.c"
        edited.write_text("/* another */")
        rows = tuple(replace(k, source=edited) for k in rows)
    elif change == "row":
        rows = tuple(replace(k, variant="new") if k.variant == "tall" else k for k in rows)
    target = replace(several, kernels=rows, name="other" if change == "target" else several.name)
    clock = Clock()
    tuning.tune(graph, target, "int8", file, measure=clock)
    assert len(clock.programs) == 3


# ---------------------------------------------------------------- where it cannot be done
def test_emulated_targets_are_refused(residual_net: Callable[[], Any], tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="target cortex-m4 cannot be tuned here") as caught:
        tuning.tune(residual_net().graph, find_target("cortex-m4"), "int8", tmp_path / "t.json")
    assert "chosen by estimated cycles" in str(caught.value)


def test_instructions_this_processor_lacks_are_refused(
    residual_net: Callable[[], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(OVERRIDE, "sse2")
    with pytest.raises(TargetError, match=f"target x86-avx512vnni needs {AVX512VNNI[0]}"):
        tuning.tune(residual_net().graph, find_target("x86-avx512vnni"), "int8", tmp_path / "t.json")


# ---------------------------------------------------------------- the real thing
@pytest.mark.compiler
@pytest.mark.parametrize("io", ["int8", "float"])
def test_measured_programs_are_timed_and_exact(
    target: Callable[[str], Target],
    several: Target,
    residual_net: Callable[[], Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    io: str,
) -> None:
    target("c")
    several = replace(several, flags=("-O0",))
    monkeypatch.setattr(tuning, "SECONDS", 0.01)
    net, told = residual_net(), []
    graph: Graph = net.graph
    order: Order = tuning.tune(
        graph, several, io, tmp_path / "t.json", lambda what, done, total: told.append((what, total))
    )
    program = build_program(graph, several, "net", io, order)
    times = [op.candidates[0].microseconds for op in program.operations if op.kernel.variant]
    assert len(times) == 3
    assert all(t is not None and 0 < t < 1e5 for t in times)
    assert set(told) == {("building candidates", 3), ("timing candidates", 100)}
    if io == "int8":
        samples = net.samples(4)
        library = run.load(emit(program, tmp_path / "net"), several)
        np.testing.assert_array_equal(
            library.run(samples)["scores"], interpreter.run(graph, samples)["scores"]
        )
